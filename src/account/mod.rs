//! An account's life: its credentials and who renews them, its health, and which account is next.
//!
//! [`Accounts`] holds one [`TokenManager`] an account and what is known about its load; [`pool`]
//! orders candidates as a pure function; [`ahead`] renews before anybody has to wait. This room
//! must not know requests, dialects or HTTP: it is told "this generation was refused" or "limited
//! until then" and answers with credentials or with the reason there are none.

pub mod ahead;
mod directory;
pub mod keeper;
mod live;
mod memory;
mod persist;
pub mod pool;
mod ports;
mod protocol;
mod refresh;
mod settings;
mod snapshot;
mod stored;
mod tidings;
mod token_error;
mod token_manager;
mod verdict;

#[cfg(test)]
pub(crate) mod testing;

pub use directory::{Accounts, Member};
pub use live::InFlight;
pub use ports::{
    Clock, Context, CredentialStore, Observer, Random, RefreshEvent, RefreshOutcome, StoreFault, Stored, TokenIssuer,
};
pub use settings::TokenSettings;
pub use snapshot::{Snapshot, Standing};
pub use tidings::Tidings;
pub use token_error::TokenError;
pub use token_manager::TokenManager;
