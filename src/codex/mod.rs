//! The Codex backend as types, and the client that speaks to it.
