-- Limits that several servers hold together. Here there is one server, which counts by itself: these
-- tables stay empty, and are there so that both databases have the same.

CREATE TABLE usage_holders (
    holder TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    hour   INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    cost   INTEGER NOT NULL,
    PRIMARY KEY (holder, id, hour)
) STRICT;

CREATE TABLE replicas (
    id         TEXT    NOT NULL PRIMARY KEY,
    lock       INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE limit_subjects (
    holder TEXT NOT NULL,
    id     TEXT NOT NULL,
    PRIMARY KEY (holder, id)
) STRICT;

CREATE TABLE limit_slices (
    holder      TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    replica     TEXT    NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
    used_tokens INTEGER NOT NULL,
    used_cost   INTEGER NOT NULL,
    share       TEXT    NOT NULL,
    PRIMARY KEY (holder, id, replica)
) STRICT;
CREATE INDEX limit_slices_replica ON limit_slices (replica);

CREATE TABLE budget_hits (
    holder TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    budget TEXT    NOT NULL,
    until  INTEGER NOT NULL,
    PRIMARY KEY (holder, id, budget)
) STRICT;
