//! The `tollway` command.

fn main() -> std::process::ExitCode {
    tollway::cli::main()
}
