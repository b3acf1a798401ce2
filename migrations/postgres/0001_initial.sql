-- Times are Unix milliseconds; ids are UUIDv7 as text. Columns marked "sealed" hold envelopes of the
-- vault (`tw1.<key id>.<…>`), never plaintext.

CREATE TABLE accounts (
    id                 TEXT    NOT NULL PRIMARY KEY,
    name               TEXT    NOT NULL UNIQUE,
    email              TEXT,
    chatgpt_user_id    TEXT,
    chatgpt_account_id TEXT    NOT NULL,
    plan               TEXT,
    fedramp            BOOLEAN NOT NULL,
    state              TEXT    NOT NULL,
    state_reason       TEXT,
    state_detail       TEXT,
    state_since        BIGINT  NOT NULL,
    paused             BOOLEAN NOT NULL,
    limited_until      BIGINT,
    limit_reason       TEXT,
    created_at         BIGINT  NOT NULL,
    updated_at         BIGINT  NOT NULL
);

-- NULLs are distinct in a unique index, an account without a user id is still the same account.
CREATE UNIQUE INDEX accounts_identity ON accounts (chatgpt_account_id, COALESCE(chatgpt_user_id, ''));

CREATE TABLE credentials (
    account_id        TEXT    NOT NULL PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    access_token      TEXT    NOT NULL, -- sealed
    refresh_token     TEXT    NOT NULL, -- sealed
    id_token          TEXT,             -- sealed
    access_expires_at BIGINT,
    last_refresh_at   BIGINT  NOT NULL,
    generation        BIGINT  NOT NULL  -- fencing number: +1 with each stored set
);

CREATE TABLE gateway_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    prefix       TEXT    NOT NULL,
    hash         BYTEA   NOT NULL UNIQUE,
    -- true: only the accounts in key_accounts, even when none of them is left; false: every account.
    scoped       BOOLEAN NOT NULL,
    created_at   BIGINT  NOT NULL,
    expires_at   BIGINT,
    revoked_at   BIGINT,
    rotated_to   TEXT REFERENCES gateway_keys (id) ON DELETE SET NULL,
    last_used_at BIGINT
);

CREATE TABLE key_accounts (
    key_id     TEXT NOT NULL REFERENCES gateway_keys (id) ON DELETE CASCADE,
    account_id TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    PRIMARY KEY (key_id, account_id)
);

-- Without it, removing an account scans every binding.
CREATE INDEX key_accounts_account ON key_accounts (account_id);

CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL -- sealed
);

CREATE TABLE revisions (
    topic    TEXT    NOT NULL PRIMARY KEY,
    revision BIGINT  NOT NULL
);

INSERT INTO revisions (topic, revision) VALUES ('accounts', 1), ('keys', 1);
