//! The store's ids: UUIDv7, one type each, so that a key's id cannot be passed for an account's.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id; ids made later sort later.
            #[expect(clippy::new_without_default, reason = "two defaults would not be equal")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// The id of an account, given by the gateway; the backend does not know it.
    AccountId
);
id!(
    /// The id of a gateway key; not secret, and no part of the key itself.
    KeyId
);
id!(
    /// The id of a pool.
    PoolId
);
id!(
    /// The id of a team.
    TeamId
);
id!(
    /// The id of a model alias.
    AliasId
);
id!(
    /// The id of a key of the admin API.
    AdminKeyId
);
id!(
    /// The id of a user.
    UserId
);

/// A map by ids. They are ours, and their last eight bytes are random: nothing has to be mixed, and
/// nobody can choose them so that they collide.
pub type IdMap<Id, V> = HashMap<Id, V, BuildHasherDefault<IdHasher>>;

/// Takes the last eight bytes of an id for its hash.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_ne_bytes(*last);
        }
    }

    /// The length that goes before the bytes is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl KeyId {
    /// Stands for everybody where no key is asked for: always the same, so that what is kept for
    /// everybody is found after a restart.
    pub const fn nobody() -> Self {
        Self(Uuid::nil())
    }
}
