-- What a process learns of accounts (cool-downs, models that are closed, quota as asked for) is a
-- change that others are told of, as accounts and keys are.
INSERT INTO revisions (topic, revision) VALUES ('conditions', 1);
