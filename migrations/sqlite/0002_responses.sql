-- Responses that clients asked to be kept, and conversations. A place is a path that begins with the
-- gateway key's id, `<key id>/<response id>`: nothing is found without the key it belongs to.

CREATE TABLE responses (
    place       TEXT    NOT NULL PRIMARY KEY, -- <key id>/<response id>
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    -- Until when somebody is known to work on it; null once it has ended.
    lease_until INTEGER,
    content     TEXT    NOT NULL              -- sealed
) STRICT;

CREATE INDEX responses_expiry ON responses (expires_at);
-- So that a start does not read every response to see which keys are in use.
CREATE INDEX responses_sealed_under ON responses (substr(content, 5, 16));

-- Where an item is that a later request refers to by its id alone.
CREATE TABLE response_items (
    place    TEXT NOT NULL,                   -- <key id>/<item id>
    response TEXT NOT NULL REFERENCES responses (place) ON DELETE CASCADE,
    PRIMARY KEY (place, response)
) STRICT;

CREATE INDEX response_items_response ON response_items (response);

CREATE TABLE conversations (
    place      TEXT    NOT NULL PRIMARY KEY,  -- <key id>/<conversation id>
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    content    TEXT    NOT NULL               -- sealed
) STRICT;

CREATE INDEX conversations_expiry ON conversations (expires_at);
CREATE INDEX conversations_sealed_under ON conversations (substr(content, 5, 16));

CREATE TABLE conversation_items (
    place        TEXT    NOT NULL PRIMARY KEY, -- <key id>/<conversation id>/<item id>
    conversation TEXT    NOT NULL REFERENCES conversations (place) ON DELETE CASCADE,
    position     INTEGER NOT NULL,
    content      TEXT    NOT NULL              -- sealed
) STRICT;

CREATE INDEX conversation_items_order ON conversation_items (conversation, position);
CREATE INDEX conversation_items_sealed_under ON conversation_items (substr(content, 5, 16));
