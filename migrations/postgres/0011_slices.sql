-- Limits that several servers hold together: what each of them may give away by itself.

-- What teams, users and keys used, by the Unix hour: written together with the ledger's rows, so that
-- a server learns what others have spent from a few rows.
CREATE TABLE usage_holders (
    holder TEXT   NOT NULL, -- team, user or key
    id     TEXT   NOT NULL,
    hour   BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    cost   BIGINT NOT NULL,
    PRIMARY KEY (holder, id, hour)
);
INSERT INTO usage_holders (holder, id, hour, tokens, cost)
SELECT holder, id, hour, SUM(input + output), SUM(cost)
FROM usage_hourly, LATERAL (VALUES ('team', team_id), ('user', user_id), ('key', key_id)) AS holders (holder, id)
WHERE id <> '' GROUP BY holder, id, hour;

-- Servers that hold slices. Times are by the clock of the database.
CREATE TABLE replicas (
    id         TEXT    NOT NULL PRIMARY KEY,
    -- The number of the session lock that it holds as long as its connection lives.
    lock       INTEGER NOT NULL,
    seen_at    BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL
);

-- One row for each of whom slices are handed out: its lock is taken for that.
CREATE TABLE limit_subjects (
    holder TEXT NOT NULL,
    id     TEXT NOT NULL,
    PRIMARY KEY (holder, id)
);

-- `used_tokens` and `used_cost` are used and not in the ledger yet; `share` is JSON.
CREATE TABLE limit_slices (
    holder      TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    replica     TEXT   NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
    used_tokens BIGINT NOT NULL,
    used_cost   BIGINT NOT NULL,
    share       TEXT   NOT NULL,
    PRIMARY KEY (holder, id, replica)
);
CREATE INDEX limit_slices_replica ON limit_slices (replica);

-- Budgets that are used up and were told of; not again before `until`.
CREATE TABLE budget_hits (
    holder TEXT   NOT NULL,
    id     TEXT   NOT NULL,
    budget TEXT   NOT NULL,
    until  BIGINT NOT NULL,
    PRIMARY KEY (holder, id, budget)
);
