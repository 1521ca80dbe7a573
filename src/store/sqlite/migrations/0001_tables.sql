-- Times are microseconds since the epoch, hours are hours since it. Codes are those of the model's `code()`.

CREATE TABLE scripts (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    UNIQUE (namespace, name)
) STRICT;

CREATE TABLE deployments (
    script_id     INTEGER NOT NULL REFERENCES scripts (id),
    version       INTEGER NOT NULL,
    deployment_id TEXT    NOT NULL,
    fingerprint   TEXT    NOT NULL,
    state         TEXT    NOT NULL,
    reason        TEXT,
    started_at    INTEGER NOT NULL,
    deployed_at   INTEGER,
    ended_at      INTEGER,
    PRIMARY KEY (script_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE pods (
    uid           TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    container     TEXT    NOT NULL,
    script_id     INTEGER NOT NULL REFERENCES scripts (id),
    version       INTEGER NOT NULL,
    deployment_id TEXT    NOT NULL
) STRICT;
CREATE INDEX pods_of_script ON pods (script_id, version);

-- AUTOINCREMENT: a number is never reused, since it is part of the ids of log lines.
CREATE TABLE streams (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    pod_uid          TEXT    NOT NULL REFERENCES pods (uid),
    container        TEXT    NOT NULL,
    restart          INTEGER NOT NULL,
    committed_offset INTEGER NOT NULL DEFAULT 0,
    file             TEXT    NOT NULL DEFAULT '',
    file_start       INTEGER NOT NULL DEFAULT 0,
    carry            BLOB    NOT NULL DEFAULT x'',
    UNIQUE (pod_uid, container, restart)
) STRICT;

-- Clustered by time: a range of time is one scan of neighbours, and what filters ask for stands early in the row. The
-- deployment's id is its pod's; found through the stream. No foreign keys: what they would look up for each run, the writer
-- has just read for the whole batch.
CREATE TABLE runs (
    script_id     INTEGER NOT NULL,
    executed_at   INTEGER NOT NULL,
    run_id        TEXT    NOT NULL,
    status        INTEGER NOT NULL,
    source_type   INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    response_time INTEGER,
    function      TEXT    NOT NULL,
    source        TEXT    NOT NULL,
    stream_id     INTEGER NOT NULL,
    payload       INTEGER,             -- number of its row in run_payloads, if it has one
    finished_at   INTEGER,
    reason        TEXT,
    traceparent   BLOB,                -- packed, see src/store/payload.rs
    PRIMARY KEY (script_id, executed_at, run_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX runs_by_id ON runs (script_id, run_id);
CREATE INDEX runs_failed ON runs (script_id, executed_at) WHERE status = 2;
CREATE INDEX runs_in_progress ON runs (script_id, version, stream_id) WHERE status = 0;

-- Each body is one byte for its coding (0 plain, 1 zstd) and the JSON. AUTOINCREMENT: a number is never given again, so a run
-- that outlived its payload is never shown another's.
CREATE TABLE run_payloads (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    input  BLOB,
    output BLOB,
    error  BLOB
) STRICT;

CREATE TABLE run_rollups (
    script_id INTEGER NOT NULL REFERENCES scripts (id),
    version   INTEGER NOT NULL,
    function  TEXT    NOT NULL,
    hour      INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    digest    BLOB    NOT NULL,
    PRIMARY KEY (script_id, hour, version, function)
) STRICT;

-- The same by days, for all functions together (its function is empty); `hour` is the first hour of the day in UTC.
CREATE TABLE run_days (
    script_id INTEGER NOT NULL REFERENCES scripts (id),
    version   INTEGER NOT NULL,
    function  TEXT    NOT NULL,
    hour      INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    digest    BLOB    NOT NULL,
    PRIMARY KEY (script_id, hour, version, function)
) STRICT;

CREATE TABLE log_rollups (
    script_id INTEGER NOT NULL REFERENCES scripts (id),
    version   INTEGER NOT NULL,
    hour      INTEGER NOT NULL,
    level     INTEGER NOT NULL,
    lines     INTEGER NOT NULL,
    PRIMARY KEY (script_id, hour, version, level)
) STRICT, WITHOUT ROWID;

-- Lifetime figures of a version: what the status shows, at the cost of one row.
CREATE TABLE version_totals (
    script_id   INTEGER NOT NULL REFERENCES scripts (id),
    version     INTEGER NOT NULL,
    succeeded   INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    lines       INTEGER NOT NULL,
    last_run_at INTEGER,
    digest      BLOB    NOT NULL,
    PRIMARY KEY (script_id, version)
) STRICT;

-- Bodies are Parquet. `tier` counts how often a segment was merged; a sealed one is full and stays as it is.
CREATE TABLE log_segments (
    segment_id INTEGER PRIMARY KEY AUTOINCREMENT,
    script_id  INTEGER NOT NULL REFERENCES scripts (id),
    min_time   INTEGER NOT NULL,
    max_time   INTEGER NOT NULL,
    lines      INTEGER NOT NULL,
    levels     INTEGER NOT NULL,
    text_bytes INTEGER NOT NULL,
    tier       INTEGER NOT NULL,
    sealed     INTEGER NOT NULL,
    runs       BLOB    NOT NULL,
    body       BLOB    NOT NULL
) STRICT;
CREATE INDEX log_segments_by_time ON log_segments (script_id, max_time, segment_id, min_time, lines, levels);
CREATE INDEX log_segments_to_merge ON log_segments (script_id, tier, segment_id) WHERE sealed = 0;

-- Which texts a segment may have (src/segment/tokens.rs); apart from the bodies, so that a search reads few pages.
CREATE TABLE log_segment_grams (
    segment_id INTEGER PRIMARY KEY REFERENCES log_segments (segment_id) ON DELETE CASCADE,
    grams      BLOB NOT NULL
) STRICT;

CREATE TABLE gaps (
    id        INTEGER PRIMARY KEY,
    script_id INTEGER NOT NULL REFERENCES scripts (id),
    stream_id INTEGER NOT NULL REFERENCES streams (id),
    at_offset INTEGER NOT NULL,
    time      INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    reason    TEXT    NOT NULL
) STRICT;
CREATE INDEX gaps_by_time ON gaps (script_id, time);

-- One row, written to find out whether anything can be.
CREATE TABLE health (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    checked_at INTEGER NOT NULL
) STRICT;
