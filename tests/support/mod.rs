//! What the tests of the built binaries share: the simulated backend, the gateway, and the callers
//! of its three APIs. Knows the programs from the outside only: their command lines, their sockets
//! and their files.

mod database;
mod dialect;
mod gateway;
pub(crate) mod people;
mod process;
mod sim;
pub(crate) mod socket;
mod sse;
mod tools;
mod waiting;

pub(crate) use database::refresh_token;
pub(crate) use dialect::Dialect;
pub(crate) use gateway::{Gateway, MASTER_KEY, Setup, json_of, key_in};
pub(crate) use process::{Program, run};
pub(crate) use sim::{Sim, SimAccount};
pub(crate) use sse::{Event, events};
pub(crate) use tools::{Tools, skip};
pub(crate) use waiting::{eventually, eventually_within};
