//! The built gateway over real sockets, in front of the simulated backend: one module an area of
//! behaviour.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod anything;
mod clients;
mod config;
mod crash;
mod cuts;
mod errors;
mod failover;
mod keep_alive;
mod keys;
mod observability;
mod openapi;
mod refresh;
mod refusals;
mod secrets;
mod serving;
mod shutdown;
mod socket;
mod socket_upstream;
mod surface;
