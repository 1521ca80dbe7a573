-- What a stream says last: none while more may come, the empty text once its files were read to their end after their
-- container, otherwise the token of the runner's last record.
ALTER TABLE streams ADD COLUMN last_word TEXT;

-- Whether all that a pod printed is stored or known to be lost. Nobody looks after pods from before.
ALTER TABLE pods ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
UPDATE pods SET settled = 1;
CREATE INDEX pods_unsettled ON pods (uid) WHERE settled = 0;

CREATE INDEX gaps_of_stream ON gaps (stream_id);
