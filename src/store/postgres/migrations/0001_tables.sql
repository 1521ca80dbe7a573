-- Times are microseconds since the epoch, hours are hours since it. Codes are those of the model's `code()`.
-- Texts compare bytewise (COLLATE "C"), as in SQLite. The tables that grow with use have no foreign keys: their rows
-- are written in bulk, by code that holds the numbers from the tables above.

CREATE TABLE scripts (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    UNIQUE (namespace, name)
);

CREATE TABLE deployments (
    script_id     BIGINT NOT NULL REFERENCES scripts (id),
    version       BIGINT NOT NULL,
    deployment_id TEXT   NOT NULL,
    fingerprint   TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    reason        TEXT,
    started_at    BIGINT NOT NULL,
    deployed_at   BIGINT,
    ended_at      BIGINT,
    PRIMARY KEY (script_id, version)
);

CREATE TABLE pods (
    uid           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name          TEXT   NOT NULL,
    container     TEXT   NOT NULL,
    script_id     BIGINT NOT NULL REFERENCES scripts (id),
    version       BIGINT NOT NULL,
    deployment_id TEXT   NOT NULL
);
CREATE INDEX pods_of_script ON pods (script_id, version);

-- Half-empty pages: a checkpoint is updated in place with every batch.
CREATE TABLE streams (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pod_uid          TEXT COLLATE "C" NOT NULL REFERENCES pods (uid),
    container        TEXT COLLATE "C" NOT NULL,
    restart          BIGINT NOT NULL,
    committed_offset BIGINT NOT NULL DEFAULT 0,
    file             TEXT   NOT NULL DEFAULT '',
    file_start       BIGINT NOT NULL DEFAULT 0,
    carry            BYTEA  NOT NULL DEFAULT '',
    UNIQUE (pod_uid, container, restart)
) WITH (fillfactor = 50);

-- The deployment's id is its pod's; found through the stream.
-- Their order is that in which lists show them: no further index is needed for it.
CREATE TABLE runs (
    script_id     BIGINT   NOT NULL,
    executed_at   BIGINT   NOT NULL,
    finished_at   BIGINT,
    response_time BIGINT,
    version       BIGINT   NOT NULL,
    stream_id     BIGINT   NOT NULL,
    payload       BIGINT,
    status        SMALLINT NOT NULL,
    source_type   SMALLINT NOT NULL,
    run_id        TEXT COLLATE "C" NOT NULL,
    function      TEXT COLLATE "C" NOT NULL,
    source        TEXT COLLATE "C" NOT NULL,
    reason        TEXT COLLATE "C",
    traceparent   BYTEA,
    PRIMARY KEY (script_id, executed_at, run_id),
    UNIQUE (script_id, run_id)
);
CREATE INDEX runs_failed ON runs (script_id, executed_at, run_id) WHERE status = 2;
CREATE INDEX runs_in_progress ON runs (script_id, version, stream_id, executed_at) WHERE status = 0;

-- Each body is one byte for its coding (0 plain, 1 zstd) and the JSON: nothing is left for Postgres to compress.
CREATE TABLE run_payloads (
    number BIGINT PRIMARY KEY,
    input  BYTEA,
    output BYTEA,
    error  BYTEA
);
CREATE SEQUENCE payload_blocks AS BIGINT;
ALTER TABLE run_payloads
    ALTER COLUMN input SET STORAGE EXTERNAL,
    ALTER COLUMN output SET STORAGE EXTERNAL,
    ALTER COLUMN error SET STORAGE EXTERNAL;

CREATE TABLE run_rollups (
    script_id BIGINT NOT NULL,
    version   BIGINT NOT NULL,
    function  TEXT COLLATE "C" NOT NULL,
    hour      BIGINT NOT NULL,
    succeeded BIGINT NOT NULL,
    failed    BIGINT NOT NULL,
    digest    BYTEA  NOT NULL,
    PRIMARY KEY (script_id, hour, version, function)
);
ALTER TABLE run_rollups ALTER COLUMN digest SET STORAGE EXTERNAL;

-- The same by days, for all functions together (its function is empty); `hour` is the first hour of the day in UTC.
CREATE TABLE run_days (
    script_id BIGINT NOT NULL,
    version   BIGINT NOT NULL,
    function  TEXT COLLATE "C" NOT NULL,
    hour      BIGINT NOT NULL,
    succeeded BIGINT NOT NULL,
    failed    BIGINT NOT NULL,
    digest    BYTEA  NOT NULL,
    PRIMARY KEY (script_id, hour, version, function)
);
ALTER TABLE run_days ALTER COLUMN digest SET STORAGE EXTERNAL;

CREATE TABLE log_rollups (
    script_id BIGINT   NOT NULL,
    version   BIGINT   NOT NULL,
    hour      BIGINT   NOT NULL,
    lines     BIGINT   NOT NULL,
    level     SMALLINT NOT NULL,
    PRIMARY KEY (script_id, hour, version, level)
) WITH (fillfactor = 50);

-- Lifetime figures of a version: what the status shows, at the cost of one row.
CREATE TABLE version_totals (
    script_id   BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    succeeded   BIGINT NOT NULL,
    failed      BIGINT NOT NULL,
    lines       BIGINT NOT NULL,
    last_run_at BIGINT,
    digest      BYTEA  NOT NULL,
    PRIMARY KEY (script_id, version)
) WITH (fillfactor = 50);
ALTER TABLE version_totals ALTER COLUMN digest SET STORAGE EXTERNAL;

-- Bodies are Parquet, compressed already. `tier` counts how often a segment was merged; a sealed one is full and stays.
CREATE TABLE log_segments (
    segment_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    script_id  BIGINT   NOT NULL,
    min_time   BIGINT   NOT NULL,
    max_time   BIGINT   NOT NULL,
    lines      BIGINT   NOT NULL,
    text_bytes BIGINT   NOT NULL,
    tier       BIGINT   NOT NULL,
    levels     SMALLINT NOT NULL,
    sealed     BOOLEAN  NOT NULL,
    runs       BYTEA    NOT NULL,
    body       BYTEA    NOT NULL
);
ALTER TABLE log_segments
    ALTER COLUMN runs SET STORAGE EXTERNAL,
    ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX log_segments_by_time ON log_segments (script_id, max_time, segment_id);
CREATE INDEX log_segments_to_merge ON log_segments (script_id, tier, segment_id) WHERE NOT sealed;

-- Which texts a segment may have (src/segment/tokens.rs); apart from the bodies, as in SQLite.
CREATE TABLE log_segment_grams (
    segment_id BIGINT PRIMARY KEY REFERENCES log_segments (segment_id) ON DELETE CASCADE,
    grams      BYTEA NOT NULL
);
ALTER TABLE log_segment_grams ALTER COLUMN grams SET STORAGE EXTERNAL;

CREATE TABLE gaps (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    script_id BIGINT NOT NULL,
    stream_id BIGINT NOT NULL,
    at_offset BIGINT NOT NULL,
    time      BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    reason    TEXT   NOT NULL
);
CREATE INDEX gaps_by_time ON gaps (script_id, time);

-- One row, written to find out whether anything can be.
CREATE TABLE health (
    id         BIGINT PRIMARY KEY CHECK (id = 1),
    checked_at BIGINT NOT NULL
);
