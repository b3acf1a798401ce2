-- What several processes on one database take turns in. Ends of leases are by the clock of the
-- database, the only one that all of them share; fencing numbers only go up, so a row stays when its
-- lease is released.

CREATE VIEW database_clock AS
SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms;

CREATE TABLE leases (
    name       TEXT   NOT NULL PRIMARY KEY,
    holder     TEXT   NOT NULL,
    fence      BIGINT NOT NULL, -- +1 each time it is taken
    expires_at BIGINT NOT NULL  -- 0: released
);

-- The refresh token that is being spent: written under the account's lease before the token is sent.
-- Void as soon as the stored credentials are of another generation.
CREATE TABLE exchanges (
    account_id TEXT    NOT NULL PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    generation BIGINT  NOT NULL,
    fence      BIGINT  NOT NULL,
    holder     TEXT    NOT NULL,
    begun_at   BIGINT  NOT NULL, -- by the clock of the database
    lost       BOOLEAN NOT NULL  -- over, and nobody has seen an answer
);
