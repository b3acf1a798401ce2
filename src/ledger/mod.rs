//! The books: what each request used and what that would have cost, written off the request's path.
//!
//! [`prices`] is pure; [`Ledger`] gathers rows in memory and writes them in batches. Nothing is
//! dropped: when the database does not keep up, new requests wait for room. This room must not know
//! how a request is served, nor who may make one.

pub mod prices;
mod writer;

pub use prices::{PriceFault, Prices};
pub use writer::{Backlog, Ledger, Options};
