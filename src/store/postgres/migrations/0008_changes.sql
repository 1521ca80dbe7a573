-- What a version changed, JSON (the model's Change), and what its spec does not have but the next version is compared with,
-- JSON. NULL of versions from before.
ALTER TABLE deployments ADD COLUMN change TEXT;
ALTER TABLE deployments ADD COLUMN beside TEXT;
