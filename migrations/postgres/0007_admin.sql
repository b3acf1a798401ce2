-- The admin API: who may operate the gateway, what they changed, and what is pending for a while.

ALTER TABLE accounts ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE pools ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

-- Keys of the admin API. One that names a team sees and changes that team's objects alone.
CREATE TABLE admin_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    prefix       TEXT    NOT NULL,
    hash         BYTEA   NOT NULL UNIQUE,
    role         TEXT    NOT NULL,
    team_id      TEXT REFERENCES teams (id),
    created_at   BIGINT  NOT NULL,
    expires_at   BIGINT,
    revoked_at   BIGINT
);

-- Every change by people: who, what, before, after, from where. Written with the change itself.
-- `before` and `after` are JSON and hold no secrets.
CREATE TABLE audit_log (
    id          TEXT   NOT NULL PRIMARY KEY,
    at          BIGINT NOT NULL,
    actor       TEXT   NOT NULL,
    actor_name  TEXT   NOT NULL,
    source      TEXT,
    request_id  TEXT,
    action      TEXT   NOT NULL,
    target_kind TEXT   NOT NULL,
    target_id   TEXT   NOT NULL,
    target_name TEXT   NOT NULL,
    before      TEXT,
    after       TEXT
);
CREATE INDEX audit_log_target ON audit_log (target_id, id);

CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();

-- Sealed notes that end by themselves: sessions of people, logins that wait for a browser, and the
-- answers to creates that may be sent again.
CREATE TABLE slips (
    id         TEXT   NOT NULL PRIMARY KEY,
    content    TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX slips_expires_at ON slips (expires_at);
