-- Models by other names, as operators have set them: beside those of the settings, and before them.
CREATE TABLE model_aliases (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL UNIQUE,
    target     TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

INSERT INTO revisions (topic, revision) VALUES ('models', 1);
