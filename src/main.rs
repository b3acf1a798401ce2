//! The `tollway` command.

/// Measured beside the system's and jemalloc (docs/performance.md, "Allocator").
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tollway::cli::main()
}
