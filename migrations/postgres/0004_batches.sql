-- Message batches. A place is a path that begins with the gateway key's id.

CREATE TABLE batches (
    place               TEXT    NOT NULL PRIMARY KEY, -- <key id>/<batch id>
    key_id              TEXT    NOT NULL,
    created_at          BIGINT  NOT NULL,
    -- When requests that have not begun are given up.
    expires_at          BIGINT  NOT NULL,
    -- How many requests it has; null until all of them are written, and until then nobody sees it.
    total               BIGINT ,
    cancel_initiated_at BIGINT ,
    -- When the last request had an outcome; null while there is work.
    ended_at            BIGINT 
);

CREATE INDEX batches_of_key ON batches (key_id, created_at);
CREATE INDEX batches_ended ON batches (ended_at, created_at);

CREATE TABLE batch_requests (
    place       TEXT    NOT NULL PRIMARY KEY, -- <key id>/<batch id>/<position>
    batch       TEXT    NOT NULL REFERENCES batches (place) ON DELETE CASCADE,
    position    BIGINT  NOT NULL,
    -- waiting, running, succeeded, errored, canceled, expired
    state       TEXT    NOT NULL,
    -- How often it was put back.
    attempts    BIGINT  NOT NULL,
    -- A waiting one does not begin before.
    not_before  BIGINT  NOT NULL,
    -- Until when somebody is known to work on a running one.
    lease_until BIGINT ,
    content     TEXT    NOT NULL              -- sealed: the request, and then its result
);

CREATE INDEX batch_requests_state ON batch_requests (batch, state, position);
CREATE INDEX batch_requests_sealed_under ON batch_requests (substr(content, 5, 16));
