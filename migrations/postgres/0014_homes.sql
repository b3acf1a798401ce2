-- A conversation that moves to another account is a change that other processes are told of: those
-- that remember its old home read what has moved since they last did.
INSERT INTO revisions (topic, revision) VALUES ('homes', 1);

-- The revision of `homes` at which the conversation last moved; 0 for one that never has. A program that
-- does not know the column goes on beside one that does.
ALTER TABLE sessions ADD COLUMN moved BIGINT NOT NULL DEFAULT 0;
CREATE INDEX sessions_moved ON sessions (moved) WHERE moved > 0;
