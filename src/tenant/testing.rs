//! Keys, users and teams for tests.

use crate::store::{AccountScope, GatewayKey, KeyId, Limits, Rights, Team, TeamId, User, UserId};
use std::sync::Arc;

/// A key with these limits.
pub(crate) fn key(limits: Limits, user: Option<User>, team: Option<Team>) -> GatewayKey {
    GatewayKey {
        id: KeyId::new(),
        name: "k".to_owned(),
        prefix: String::new(),
        hash: [0; 32],
        accounts: AccountScope::All,
        bound_to: AccountScope::All,
        pool: None,
        rights: Rights::new(),
        user: user.map(Arc::new),
        team: team.map(Arc::new),
        limits,
        version: 1,
        created_at: 0,
        expires_at: None,
        revoked_at: None,
        rotated_to: None,
        last_used_at: None,
    }
}

/// A user with these limits.
pub(crate) fn user(limits: Limits) -> User {
    User {
        id: UserId::new(),
        name: "u".to_owned(),
        email: None,
        team: None,
        limits,
        suspended: false,
        version: 1,
        created_at: 0,
    }
}

/// A team with these limits.
pub(crate) fn team(limits: Limits) -> Team {
    Team { id: TeamId::new(), name: "t".to_owned(), limits, suspended: false, version: 1, created_at: 0 }
}
