//! The built gateway over real sockets, in front of the simulated backend: one module an area of
//! behaviour.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod admin;
mod anything;
mod apply;
mod background;
mod batches;
mod clients;
mod codex_paths;
mod collector;
mod config;
mod crash;
mod cuts;
mod deploy;
mod errors;
mod failover;
mod fault_matrix;
mod images;
mod keep_alive;
mod kept_responses;
mod keys;
mod ledger;
mod ledger_crash;
mod limits;
mod models;
mod moving;
mod observability;
mod openapi;
mod pool;
mod prometheus;
mod refresh;
mod refusals;
mod secrets;
mod serving;
mod shutdown;
mod sign_in;
mod socket;
mod socket_upstream;
mod status;
mod surface;
mod traces;
mod webhook;
mod workspace;
