//! Limits that look at a request and not at what was used before: who may ask what, from where. Pure.

use crate::store::{Effort, GatewayKey, Limits, UnixMillis};
use std::net::IpAddr;

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// The team's.
    Team,
    /// The user's.
    User,
    /// The key's own.
    Key,
}

impl Level {
    /// For messages and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::User => "user",
            Self::Key => "key",
        }
    }
}

/// The limits that hold for a key, its own first, each with the name of whom it belongs to.
pub fn limits(key: &GatewayKey) -> impl Iterator<Item = (Level, &str, &Limits)> {
    let own = Some((Level::Key, key.name.as_str(), &key.limits));
    let user = key.user.as_ref().map(|user| (Level::User, user.name.as_str(), &user.limits));
    let team = key.team.as_ref().map(|team| (Level::Team, team.name.as_str(), &team.limits));
    [own, user, team].into_iter().flatten()
}

/// What may not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forbidden {
    /// The API.
    Dialect {
        /// Which.
        asked: String,
    },
    /// The model.
    Model {
        /// As it would go upstream.
        asked: String,
    },
    /// The effort.
    Effort {
        /// As it would go upstream.
        asked: String,
        /// The highest.
        most: Effort,
    },
}

/// Why nobody with this key is served at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shut {
    /// The key's user or team is suspended.
    #[error("The key was refused: its {} is suspended", .0.as_str())]
    Suspended(Level),
    /// The time of the user or the team is over.
    #[error("The key was refused: the time of its {} is over", .0.as_str())]
    Expired(Level),
    /// From where the request comes.
    #[error("The key was refused: it may not be used from this address")]
    Network(Level),
}

/// Whether work that the key's holder left here may go on.
pub(super) fn stays(key: &GatewayKey, now: UnixMillis) -> Result<(), Shut> {
    if key.team.as_ref().is_some_and(|team| team.suspended) {
        return Err(Shut::Suspended(Level::Team));
    }
    if key.user.as_ref().is_some_and(|user| user.suspended) {
        return Err(Shut::Suspended(Level::User));
    }
    for (level, _, limits) in limits(key) {
        if limits.expires_at.is_some_and(|at| at <= now) {
            return Err(Shut::Expired(level));
        }
    }
    Ok(())
}

/// Whether the key may be used, now and from there. An address that is not known is nowhere.
pub fn admits(key: &GatewayKey, from: Option<IpAddr>, now: UnixMillis) -> Result<(), Shut> {
    stays(key, now)?;
    for (level, _, limits) in limits(key) {
        let Some(networks) = &limits.networks else { continue };
        let from = from.map(|address| address.to_canonical());
        if !from.is_some_and(|address| networks.iter().any(|network| network.contains(&address))) {
            return Err(Shut::Network(level));
        }
    }
    Ok(())
}

/// Whether the key may ask this; else whose limit forbids it.
pub fn allows(
    key: &GatewayKey,
    dialect: &str,
    model: Option<&str>,
    effort: Option<&str>,
) -> Result<(), (Level, Forbidden)> {
    for (level, _, limits) in limits(key) {
        if limits.dialects.as_ref().is_some_and(|allowed| !allowed.iter().any(|one| one == dialect)) {
            return Err((level, Forbidden::Dialect { asked: dialect.to_owned() }));
        }
        if let (Some(allowed), Some(model)) = (&limits.models, model)
            && !allowed.iter().any(|pattern| matches(pattern, model))
        {
            return Err((level, Forbidden::Model { asked: model.to_owned() }));
        }
        if let (Some(most), Some(asked)) = (limits.max_effort, effort) {
            // An effort that nobody here knows is not known to be allowed.
            if asked.parse::<Effort>().map_or(true, |effort| effort > most) {
                return Err((level, Forbidden::Effort { asked: asked.to_owned(), most }));
            }
        }
    }
    Ok(())
}

/// Whether the key may see a model in a list.
pub fn may_see(key: &GatewayKey, model: &str) -> bool {
    limits(key).all(|(_, _, limits)| {
        limits.models.as_ref().is_none_or(|allowed| allowed.iter().any(|pattern| matches(pattern, model)))
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |stem| name.starts_with(stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::{key, team, user};

    fn limits_of(text: &str) -> Limits {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn all_three_levels_hold_and_the_one_that_forbids_is_named() {
        let one = key(
            limits_of(r#"{"models":["gpt-5*"]}"#),
            Some(user(limits_of(r#"{"max_effort":"medium"}"#))),
            Some(team(limits_of(r#"{"dialects":["responses","chat"]}"#))),
        );
        let ask = |dialect, model, effort| allows(&one, dialect, Some(model), effort);
        assert_eq!(ask("chat", "gpt-5.5", Some("medium")), Ok(()));
        assert_eq!(ask("chat", "gpt-5.5", None), Ok(()));
        assert!(matches!(ask("messages", "gpt-5.5", None), Err((Level::Team, Forbidden::Dialect { .. }))));
        assert!(matches!(ask("chat", "gpt-6", None), Err((Level::Key, Forbidden::Model { .. }))));
        for effort in ["high", "unheard-of"] {
            assert!(matches!(ask("chat", "gpt-5", Some(effort)), Err((Level::User, Forbidden::Effort { .. }))));
        }
        assert!(may_see(&one, "gpt-5.5") && !may_see(&one, "gpt-6"));
    }

    #[test]
    fn a_key_is_shut_by_suspension_time_and_place() {
        let anywhere = Some("10.1.2.3".parse().unwrap());
        let mut one =
            key(limits_of(r#"{"networks":["10.0.0.0/8"]}"#), None, Some(team(limits_of(r#"{"expires_at":5}"#))));
        assert_eq!(admits(&one, anywhere, 4), Ok(()));
        assert_eq!(admits(&one, anywhere, 5), Err(Shut::Expired(Level::Team)));
        assert_eq!(admits(&one, Some("::ffff:10.1.2.3".parse().unwrap()), 4), Ok(()));
        for outside in [Some("11.0.0.1".parse().unwrap()), Some("::1".parse().unwrap()), None] {
            assert_eq!(admits(&one, outside, 4), Err(Shut::Network(Level::Key)));
        }
        if let Some(team) = &mut one.team {
            std::sync::Arc::make_mut(team).suspended = true;
        }
        assert_eq!(admits(&one, anywhere, 4), Err(Shut::Suspended(Level::Team)));
    }
}
