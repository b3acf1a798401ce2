-- What a key may do besides asking models: names separated by spaces.
ALTER TABLE gateway_keys ADD COLUMN rights TEXT NOT NULL DEFAULT '';
