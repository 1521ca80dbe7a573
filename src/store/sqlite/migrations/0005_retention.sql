-- What retention has done so far, and what is known of the space that data takes.
-- Times are microseconds since the epoch; NULL where nothing was done yet.
CREATE TABLE retention (
    script_id    INTEGER PRIMARY KEY REFERENCES scripts (id),
    logs_before  INTEGER,           -- lines from before are not shown any more, deleted or not
    ended_before INTEGER,           -- a run that began before and has no row was deleted: its late end is no news
    runs_swept   INTEGER,           -- successful runs from before are gone, those that came late aside
    failed_swept INTEGER,           -- the same of failed ones
    swept_at     INTEGER,           -- when late ones were last looked for
    purged_at    INTEGER            -- when everything of the script was gone
) STRICT;

-- The object whose data a script's is, for the time when the object is gone.
CREATE TABLE seen_objects (
    script_id INTEGER PRIMARY KEY REFERENCES scripts (id),
    uid       TEXT    NOT NULL,
    purge     INTEGER NOT NULL
) STRICT;

CREATE TABLE script_usage (
    script_id     INTEGER PRIMARY KEY REFERENCES scripts (id),
    runs          INTEGER NOT NULL,
    payload_bytes INTEGER NOT NULL
) STRICT;
INSERT INTO script_usage (script_id, runs, payload_bytes)
SELECT r.script_id, count(*),
    coalesce(sum(coalesce(length(p.input), 0) + coalesce(length(p.output), 0) + coalesce(length(p.error), 0)), 0)
FROM runs r LEFT JOIN run_payloads p ON p.number = r.payload GROUP BY r.script_id;

-- Since when the cluster has the pod no more.
ALTER TABLE pods ADD COLUMN gone_at INTEGER;
-- Runs that refer to the stream: it is forgotten only when there are none.
ALTER TABLE streams ADD COLUMN runs INTEGER NOT NULL DEFAULT 0;
UPDATE streams SET runs = n FROM (SELECT stream_id, count(*) AS n FROM runs GROUP BY stream_id) c
WHERE c.stream_id = streams.id;
