-- What a process learns of accounts (cool-downs, models that are closed, quota as asked for) is a
-- change that others are told of, as accounts and keys are.
INSERT INTO revisions (topic, revision) VALUES ('conditions', 1);

-- The newest migration that a program must know to work with this schema. A migration that only adds
-- leaves it alone, so that an older program goes on beside a newer one; one that takes something away
-- raises it to the migration that made the thing taken away needless.
CREATE TABLE schema_needs (
    version BIGINT NOT NULL
);
INSERT INTO schema_needs (version) VALUES (12);

-- Whoever listens on `tollway_<schema>` is told of each change when it is committed: the topic and
-- its revision. By a trigger, so that a replica of an older version tells of its changes too.
CREATE FUNCTION tell_of_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollway_' || left(TG_TABLE_SCHEMA, 48), NEW.topic || ' ' || NEW.revision);
    RETURN NULL;
END $$;
CREATE TRIGGER tell_of_revision AFTER UPDATE ON revisions
FOR EACH ROW EXECUTE FUNCTION tell_of_revision();
