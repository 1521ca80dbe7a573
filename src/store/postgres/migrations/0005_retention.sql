-- What retention has done so far, and what is known of the space that data takes; as in SQLite.
CREATE TABLE retention (
    script_id    BIGINT PRIMARY KEY,
    logs_before  BIGINT,            -- lines from before are not shown any more, deleted or not
    ended_before BIGINT,            -- a run that began before and has no row was deleted: its late end is no news
    runs_swept   BIGINT,            -- successful runs from before are gone, those that came late aside
    failed_swept BIGINT,            -- the same of failed ones
    swept_at     BIGINT,            -- when late ones were last looked for
    purged_at    BIGINT             -- when everything of the script was gone
);

-- The object whose data a script's is, for the time when the object is gone.
CREATE TABLE seen_objects (
    script_id BIGINT PRIMARY KEY,
    uid       TEXT   NOT NULL,
    purge     BIGINT NOT NULL
);

CREATE TABLE script_usage (
    script_id     BIGINT PRIMARY KEY,
    runs          BIGINT NOT NULL,
    payload_bytes BIGINT NOT NULL
) WITH (fillfactor = 50);
INSERT INTO script_usage (script_id, runs, payload_bytes)
SELECT r.script_id, count(*),
    coalesce(sum(coalesce(length(p.input), 0) + coalesce(length(p.output), 0) + coalesce(length(p.error), 0)), 0)
FROM runs r LEFT JOIN run_payloads p ON p.number = r.payload GROUP BY r.script_id;

-- Since when the cluster has the pod no more.
ALTER TABLE pods ADD COLUMN gone_at BIGINT;
-- Runs that refer to the stream: it is forgotten only when there are none.
ALTER TABLE streams ADD COLUMN runs BIGINT NOT NULL DEFAULT 0;
UPDATE streams SET runs = c.n FROM (SELECT stream_id, count(*) AS n FROM runs GROUP BY stream_id) c
WHERE c.stream_id = streams.id;

-- The large tables are vacuumed after each hundredth part that was deleted, not each fifth: what retention frees is used
-- again at once, and no vacuum is long.
ALTER TABLE runs SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE run_payloads SET (autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_vacuum_scale_factor = 0.01);
ALTER TABLE log_segments SET (autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_vacuum_scale_factor = 0.01);
ALTER TABLE log_segment_grams SET (autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_vacuum_scale_factor = 0.01);
