//! Goes one of the hot paths so many times, for callgrind to count: see `run` beside this.
//!
//! Of the gateway's own sources it takes what decodes and translates, which is pure. Without sockets,
//! databases and TLS that is built optimised within a minute, which the whole gateway is not.

// The workload names the gateway.
extern crate self as tollway;

/// As in the gateway, without what speaks to the backend.
#[path = "../../src/codex"]
pub mod codex {
    pub mod event;
    pub mod failure;
    mod item;
    pub mod limits;
    pub mod raw;
    pub mod request;
    pub(crate) mod skim;
    pub mod sse;
    pub(crate) mod text;

    pub use event::{Event, Usage};
    pub use failure::{Failure, FailureKind};
    pub use request::Request;
}
#[path = "../../src/dialect/mod.rs"]
#[expect(dead_code, reason = "the gateway's other rooms use it")]
pub mod dialect;
#[path = "../paths/workload.rs"]
#[expect(dead_code, reason = "what the time is divided by")]
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let paths = workload::paths();
    let [name, times] = &arguments[..] else {
        for path in &paths {
            println!("{}", path.name);
        }
        return ExitCode::SUCCESS;
    };
    let (Some(path), Ok(times)) = (paths.iter().find(|path| path.name == *name), times.parse::<u32>()) else {
        eprintln!("no such path, or no number: {name} {times}");
        return ExitCode::FAILURE;
    };
    for _ in 0..times {
        path.run();
    }
    ExitCode::SUCCESS
}
