//! Who calls the admin API, and what they may do. A handler says in its signature what it takes:
//! `As<Sees>`, `As<RunsAll>`, `As<Owns>`.

use super::Admin;
use super::problem::Fault;
use crate::server::assemble::unix_millis;
use crate::store::{Actor, Role, Store, TeamId, UnixMillis};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// See [`Actor::id`].
    pub(super) id: String,
    /// What people call them.
    pub(super) name: String,
    /// What they may do.
    pub(super) role: Role,
    /// The only team whose objects they see.
    pub(super) team: Option<TeamId>,
    /// Where they are.
    pub(super) source: Option<IpAddr>,
    /// The request's id.
    pub(super) request_id: String,
    /// The slip of a request that may be sent again.
    pub(super) once: Option<String>,
    /// What a page must send with changes, of a session.
    pub(super) csrf: Option<String>,
    /// When their session ends.
    pub(super) expires_at: Option<UnixMillis>,
}

impl Caller {
    /// The store that notes this caller's changes.
    pub(super) fn store(&self, admin: &Admin) -> Store {
        admin.store.acting(Actor {
            id: self.id.clone(),
            name: self.name.clone(),
            source: self.source.map(|address| address.to_string()),
            request_id: Some(self.request_id.clone()),
            at: unix_millis(),
            once: self.once.clone(),
        })
    }

    /// Whether an object of this team is any of their business.
    pub(super) fn sees(&self, team: Option<TeamId>) -> bool {
        self.team.is_none() || self.team == team
    }
}

/// What a handler asks of its caller.
pub(super) trait Needs {
    /// The lowest role.
    const ROLE: Role;
    /// Whether those of one team are left out.
    const ALL_TEAMS: bool;
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident: $role:ident, $all:literal;)*) => { $(
        $(#[$doc])*
        pub(super) struct $name;

        impl Needs for $name {
            const ROLE: Role = Role::$role;
            const ALL_TEAMS: bool = $all;
        }
    )* };
}

needs! {
    /// Any viewer; sees the own team's objects.
    Sees: Viewer, false;
    /// A viewer of the whole gateway.
    SeesAll: Viewer, true;
    /// Any operator; changes the own team's objects.
    Runs: Operator, false;
    /// An operator of the whole gateway.
    RunsAll: Operator, true;
    /// An owner.
    Owns: Owner, true;
}

/// A caller who may do what `N` needs.
pub(super) struct As<N>(pub(super) Caller, PhantomData<N>);

impl<N> std::ops::Deref for As<N> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<N: Needs> FromRequestParts<Arc<Admin>> for As<N> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Admin>) -> Result<Self, Fault> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Fault::new("unauthenticated", "send an admin key"))?;
        if caller.role < N::ROLE {
            let detail = format!("this takes the role {}; yours is {}", N::ROLE.as_str(), caller.role.as_str());
            return Err(Fault::new("forbidden", detail));
        }
        if N::ALL_TEAMS && caller.team.is_some() {
            return Err(Fault::new("forbidden", "this is for those who work on the whole gateway, not on one team"));
        }
        Ok(Self(caller, PhantomData))
    }
}
