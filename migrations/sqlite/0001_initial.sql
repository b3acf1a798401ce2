-- Times are Unix milliseconds; ids are UUIDv7 as text. Columns marked "sealed" hold envelopes of the
-- vault (`tw1.<key id>.<…>`), never plaintext.

CREATE TABLE accounts (
    id                 TEXT    NOT NULL PRIMARY KEY,
    name               TEXT    NOT NULL UNIQUE,
    email              TEXT,
    chatgpt_user_id    TEXT,
    chatgpt_account_id TEXT    NOT NULL,
    plan               TEXT,
    fedramp            INTEGER NOT NULL CHECK (fedramp IN (0, 1)),
    state              TEXT    NOT NULL,
    state_reason       TEXT,
    state_detail       TEXT,
    state_since        INTEGER NOT NULL,
    paused             INTEGER NOT NULL CHECK (paused IN (0, 1)),
    limited_until      INTEGER,
    limit_reason       TEXT,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL
) STRICT;

-- NULLs are distinct in a unique index, an account without a user id is still the same account.
CREATE UNIQUE INDEX accounts_identity ON accounts (chatgpt_account_id, COALESCE(chatgpt_user_id, ''));

CREATE TABLE credentials (
    account_id        TEXT    NOT NULL PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    access_token      TEXT    NOT NULL, -- sealed
    refresh_token     TEXT    NOT NULL, -- sealed
    id_token          TEXT,             -- sealed
    access_expires_at INTEGER,
    last_refresh_at   INTEGER NOT NULL,
    generation        INTEGER NOT NULL  -- fencing number: +1 with each stored set
) STRICT;

CREATE TABLE gateway_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    prefix       TEXT    NOT NULL,
    hash         BLOB    NOT NULL UNIQUE,
    -- 1: only the accounts in key_accounts, even when none of them is left; 0: every account.
    scoped       INTEGER NOT NULL CHECK (scoped IN (0, 1)),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    rotated_to   TEXT REFERENCES gateway_keys (id) ON DELETE SET NULL,
    last_used_at INTEGER
) STRICT;

CREATE TABLE key_accounts (
    key_id     TEXT NOT NULL REFERENCES gateway_keys (id) ON DELETE CASCADE,
    account_id TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    PRIMARY KEY (key_id, account_id)
) STRICT;

-- Without it, removing an account scans every binding.
CREATE INDEX key_accounts_account ON key_accounts (account_id);

CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL -- sealed
) STRICT;

CREATE TABLE revisions (
    topic    TEXT    NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL
) STRICT;

INSERT INTO revisions (topic, revision) VALUES ('accounts', 1), ('keys', 1);
