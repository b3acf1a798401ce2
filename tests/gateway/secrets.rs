//! No token and no key is ever written where somebody may read it: not in the database, not in the
//! log, not on the metrics page, not in an error.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use serde_json::json;

use crate::support::{Dialect, Setup, Sim};

/// Every file below `root` that holds one of the secrets, with the secret's name.
fn leaks(root: &Path, secrets: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(leaks(&path, secrets));
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        found.extend(
            secrets.iter().filter(|(_, secret)| holds(secret)).map(|(name, _)| format!("{name} in {}", path.display())),
        );
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_no_key_is_written_anywhere() {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    let setup = Setup::new(&sim).set("TOLLWAY_LOG__LEVEL", "debug");
    let imported = setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    let prompt = "a-prompt-nobody-may-log";
    for dialect in Dialect::ALL {
        gateway.whole(&key, dialect, &dialect.ask(prompt)).await;
        gateway.streamed(&key, dialect, &dialect.ask_streamed(prompt)).await;
        sim.fault(json!({"kind": "server_error", "times": 2})).await;
        assert_ne!(gateway.send(&key, dialect, &dialect.ask(prompt)).await.status(), 200);
    }
    sim.fault(json!({"kind": "unauthorized"})).await;
    assert_eq!(gateway.status(&key).await, 200);
    let renewed = sim.live_refresh_tokens(&account).await.pop().expect("a live token");
    let secrets = [
        ("the first access token".to_owned(), account.access_token.clone()),
        ("the first refresh token".to_owned(), account.refresh_token.clone()),
        ("the id token".to_owned(), account.id_token.clone()),
        ("the renewed refresh token".to_owned(), renewed),
        ("the gateway key".to_owned(), key.clone()),
        ("the gateway key's secret part".to_owned(), key[12..].to_owned()),
        ("the prompt".to_owned(), prompt.to_owned()),
    ];
    let (_, metrics) = gateway.ops_page("/metrics").await;
    let listed =
        [setup.ok(&["account", "list"]), setup.ok(&["account", "show", &account.email]), setup.ok(&["key", "list"])];
    assert!(gateway.log().contains("req_"), "there is a log to be searched");
    // Stopped, so that SQLite has folded its log into the database file.
    let setup = gateway.stop().await;
    let found = leaks(setup.root(), &secrets);
    assert!(found.is_empty(), "{found:#?}");
    for (name, secret) in &secrets {
        for page in listed.iter().chain([&metrics, &imported]) {
            assert!(!page.contains(secret), "{name} is printed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_writes_no_memory_to_a_disk() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    if !crashed("cat", &setup.command(&["-"])).core_dumped() {
        eprintln!("skipped: this machine writes no core files");
        return;
    }
    let status = crashed("tollway", &setup.command(&["account", "import", "-"]));
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false), "{status:?}");
}

/// How `command` ends, run by a shell that would have core files written, when it is told to abort
/// while it reads its input. `program` is what it is called; another one than its own may be named.
fn crashed(program: &str, command: &Command) -> ExitStatus {
    let path = if program == "cat" { OsStr::new("cat") } else { command.get_program() };
    let mut shell = Command::new("bash");
    shell.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]).arg(path).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
        .current_dir(command.get_current_dir().expect("the installation's"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = shell.spawn().expect("a shell");
    let stat = format!("/proc/{}/stat", child.id());
    let waits = format!("({program}) S");
    while !std::fs::read_to_string(&stat).expect("it runs").contains(&waits) {
        std::thread::yield_now();
    }
    let sent = Command::new("kill").args(["-ABRT", &child.id().to_string()]).status();
    assert!(sent.expect("kill can be run").success());
    child.wait().expect("it ends")
}
