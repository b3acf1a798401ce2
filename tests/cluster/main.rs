//! Several built gateways over one real Postgres, in front of the simulated backend. Skipped, with
//! a line that says so, where PostgreSQL is not installed.

#![allow(dead_code, unused_imports, reason = "the support that these tests share with others has more than they need")]

#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/mod.rs"]
mod support;

mod anywhere;
mod changes;
mod chaos;
mod duties;
mod limits;
mod members;
mod outages;
mod pooler;
mod proxy;
mod refresh;
mod tls;
