//! An account's life: credentials, the token manager, health, and the pool that orders candidates.
