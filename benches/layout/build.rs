//! Tells the linker where the functions of a release lie: those that a start goes through beside each other, then
//! those of requests, then the rest as ever. `order` names them and `run` writes it. What a program uses of itself is
//! kept in memory in pieces of 64 KB: scattered over all of it, a start's five megabytes of functions keep fifteen there.
//!
//! A function's name holds numbers of crates that change with each dependency and setting, so those are left out.
//! Names that the program has not are passed over. Whether the linker takes this is tried.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() -> Result<(), std::io::Error> {
    println!("cargo::rerun-if-changed=benches/layout/order");
    println!("cargo::rerun-if-changed=benches/layout/build.rs");
    if env::var("PROFILE").as_deref() != Ok("release") {
        return Ok(());
    }
    let [here, out] =
        ["CARGO_MANIFEST_DIR", "OUT_DIR"].map(|name| PathBuf::from(env::var_os(name).unwrap_or_default()));
    let script = out.join("order.ld");
    fs::write(&script, linker_script(&fs::read_to_string(here.join("benches/layout/order"))?))?;
    let argument = format!("-Wl,-T,{}", script.display());
    if links(&argument, &out).unwrap_or(false) {
        println!("cargo::rustc-link-arg-bin=tollway={argument}");
    } else {
        println!(
            "cargo::warning=this linker takes no order of functions: an idle gateway will keep 10 MB more in memory"
        );
    }
    Ok(())
}

/// A section for each part of the order, before all other functions. A line is a function's name, or the name of a part.
fn linker_script(order: &str) -> String {
    let mut script = String::from("SECTIONS\n{\n");
    for part in order.split("# ").skip(1) {
        let (name, functions) = part.split_once('\n').unwrap_or((part, ""));
        script.extend(["  .text.", name.trim(), " :\n  {\n"]);
        for function in functions.lines() {
            script.extend(["    *(.text.", function, " .text.unlikely.", function, ")\n"]);
        }
        script.push_str("  }\n");
    }
    script + "}\nINSERT BEFORE .text;\n"
}

/// Whether the linker of this build takes the argument.
fn links(argument: &str, out: &Path) -> Option<bool> {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut rustc = Command::new(env::var_os("RUSTC")?);
    rustc.args(["--crate-name=trial", "--crate-type=bin", "--edition=2024", "-"]);
    rustc.arg("--target").arg(env::var_os("TARGET")?);
    rustc.arg("-o").arg(out.join("trial"));
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.display()));
    }
    rustc.arg(format!("-Clink-arg={argument}"));
    let mut running = rustc.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    running.stdin.take()?.write_all(b"fn main() {}").ok()?;
    Some(running.wait().ok()?.success())
}
