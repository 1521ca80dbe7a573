-- What made the version, so that one can go back to it: packed JSON (src/store/payload.rs), and who asked for it. NULL of
-- versions from before.
ALTER TABLE deployments ADD COLUMN spec BLOB;
ALTER TABLE deployments ADD COLUMN changed_by TEXT;
