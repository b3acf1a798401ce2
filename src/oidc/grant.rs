//! What a group of the provider lets its members do here.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::str::FromStr;

use crate::store::Role;

/// A role, in the whole gateway or in one team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What its holder may do.
    pub role: Role,
    /// The team whose objects alone they see, by name or id.
    pub team: Option<String>,
}

/// The text is no grant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGrant {
    /// It begins with no role.
    #[error("is not owner, operator or viewer, nor operator@TEAM or viewer@TEAM")]
    Role,
    /// An owner's role cannot be cut down to a team.
    #[error("gives an owner a team, but an owner owns the whole gateway; say operator@TEAM")]
    OwnerOfTeam,
}

impl FromStr for Grant {
    type Err = NoGrant;

    /// `viewer`, `operator@core`.
    fn from_str(text: &str) -> Result<Self, NoGrant> {
        let (role, team) = match text.trim().split_once('@') {
            Some((role, team)) => (role, Some(team.trim())),
            None => (text.trim(), None),
        };
        let role: Role = role.trim().parse().map_err(|_| NoGrant::Role)?;
        match team {
            Some("") => Err(NoGrant::Role),
            Some(_) if role == Role::Owner => Err(NoGrant::OwnerOfTeam),
            _ => Ok(Self { role, team: team.map(str::to_owned) }),
        }
    }
}

/// The grants of all groups.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// By the group's name.
    pub by_group: BTreeMap<String, Grant>,
    /// Of those who are in none of these groups.
    pub otherwise: Option<Grant>,
}

impl Grants {
    /// What members of these groups may do: the highest role that one of them gives; of equal ones that
    /// in the whole gateway, or else in the team whose name sorts first. None if they may do nothing.
    pub fn of(&self, groups: &[String]) -> Option<&Grant> {
        let given = groups.iter().filter_map(|group| self.by_group.get(group));
        let best = given.max_by_key(|grant| (grant.role, grant.team.is_none(), Reverse(grant.team.as_deref())));
        best.or(self.otherwise.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> Grant {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_is_a_role_and_perhaps_a_team() {
        assert_eq!(grant("viewer"), Grant { role: Role::Viewer, team: None });
        assert_eq!(grant(" operator@core team "), Grant { role: Role::Operator, team: Some("core team".into()) });
        for wrong in ["", "admin", "viewer@", "@core", "Owner"] {
            assert_eq!(wrong.parse::<Grant>(), Err(NoGrant::Role), "{wrong:?}");
        }
        assert_eq!("owner@core".parse::<Grant>(), Err(NoGrant::OwnerOfTeam));
    }

    #[test]
    fn of_several_groups_the_highest_role_counts_and_the_order_does_not() {
        let entries = [
            ("staff", "viewer"),
            ("core", "operator@core"),
            ("beta", "operator@beta"),
            ("run", "operator"),
            ("root", "owner"),
        ];
        let by_group = entries.map(|(group, text)| (group.to_owned(), grant(text))).into();
        let grants = Grants { by_group, otherwise: None };
        let table: [(&[&str], Option<&str>); 7] = [
            (&[], None),
            (&["unknown", "Staff"], None),
            (&["unknown", "staff"], Some("viewer")),
            (&["staff", "core"], Some("operator@core")),
            (&["core", "beta", "staff"], Some("operator@beta")),
            (&["core", "run"], Some("operator")),
            (&["run", "root", "core"], Some("owner")),
        ];
        for (groups, expected) in table {
            let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let expected = expected.map(grant);
            assert_eq!(grants.of(&groups), expected.as_ref(), "{groups:?}");
            groups.reverse();
            assert_eq!(grants.of(&groups), expected.as_ref(), "{groups:?}");
        }
    }

    #[test]
    fn who_is_in_no_group_gets_what_everybody_gets() {
        let by_group = BTreeMap::from([("core".to_owned(), grant("operator@core"))]);
        let grants = Grants { by_group, otherwise: Some(grant("viewer")) };
        assert_eq!(grants.of(&["other".into()]), Some(&grant("viewer")));
        assert_eq!(grants.of(&["core".into()]), Some(&grant("operator@core")));
    }
}
