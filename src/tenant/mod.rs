//! Who may call, and how much: gateway keys, the directory that knows them without asking the
//! database, and the limits of keys, users and teams.
//!
//! This room must not know what a key is used for, nor how keys are stored beyond reading them.

mod directory;
mod key;
mod meter;
mod meters;
mod minute;
mod period;
mod rules;
mod slice;
#[cfg(test)]
pub(crate) mod testing;

pub use directory::{KeyRefusal, Keys, Prepare};
pub use key::{KeyDigest, KeyFormatError, KeySecret, UnknownDigest};
pub use meter::{Amount, Counted, Demand, Full, Gauge, Short};
pub use meters::{Exceeded, Exchange, Meters, Reservation, Spent, Standing, Subject, Waiting};
pub use period::first_hour_of_all;
pub use rules::{Forbidden, Level, Shut, admits, allows, limits, may_see};
