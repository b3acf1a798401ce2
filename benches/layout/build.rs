//! Tells the linker in which order the functions of a release lie: those that a start goes through beside each
//! other, then those of requests, then the rest as ever. `order` names them and `run` writes it. What is in use of a
//! program is kept in memory in pieces of 64 KB: scattered over all of it, a start's five megabytes of functions keep
//! fifteen there.
//!
//! Names that the program has not, as after a change, are passed over. Linkers that take no order, as GNU's, are
//! left alone: that is tried here.

use std::env;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=benches/layout/order");
    println!("cargo::rerun-if-changed=benches/layout/build.rs");
    if env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let order = Path::new(&here).join("benches/layout/order");
    let arguments = [format!("-Wl,--symbol-ordering-file={}", order.display()), "-Wl,--no-warn-symbol-ordering".into()];
    if links(&arguments).unwrap_or(false) {
        for argument in arguments {
            println!("cargo::rustc-link-arg-bin=tollway={argument}");
        }
    } else {
        println!(
            "cargo::warning=this linker takes no order of functions: an idle gateway will keep 10 MB more in memory"
        );
    }
}

/// Whether the linker of this build takes these arguments.
fn links(arguments: &[String]) -> Option<bool> {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut rustc = Command::new(env::var_os("RUSTC")?);
    rustc.args(["--crate-name=trial", "--crate-type=bin", "--edition=2024", "-"]);
    rustc.arg("--target").arg(env::var_os("TARGET")?);
    rustc.arg("-o").arg(Path::new(&env::var_os("OUT_DIR")?).join("trial"));
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.display()));
    }
    rustc.args(arguments.iter().map(|argument| format!("-Clink-arg={argument}")));
    let mut running = rustc.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    running.stdin.take()?.write_all(b"fn main() {}").ok()?;
    Some(running.wait().ok()?.success())
}
