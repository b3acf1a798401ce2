//! Settings: one file a section; layers, `_FILE` secrets, redaction.
