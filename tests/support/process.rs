//! A child process that does not outlive its test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use super::eventually_within;

/// A running program whose output goes to a file.
pub(crate) struct Program {
    child: Child,
    /// Where both its streams go.
    output: PathBuf,
}

impl Program {
    /// Starts `command`; what it prints is added to `output`.
    pub(crate) fn start(mut command: Command, output: &Path) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command, output)
    }

    /// The same for a program that reads what somebody types.
    pub(crate) fn start_typing(mut command: Command, output: &Path) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut program = Self::spawn(command, output);
        let keyboard = program.child.stdin.take().expect("a pipe");
        (program, keyboard)
    }

    fn spawn(mut command: Command, output: &Path) -> Self {
        let file = File::options().create(true).append(true).open(output).expect("the output file can be written");
        let copy = file.try_clone().expect("a second handle on the output file");
        let child = command.stdout(file).stderr(copy).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, output: output.to_owned() }
    }

    /// Everything it has printed.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The number that the system knows it by.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the process can be asked")
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name: `STOP`, `CONT` …. SIGKILL is for [`Program::kill`].
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.expect("kill can be run").success(), "SIG{name}");
    }

    /// Sends SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("a killed process ends");
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of process {}", self.id());
        eventually_within(deadline, what, async || self.ended()).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Gone already when the test ended it; nothing to do about another error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end with `input` on its standard input.
pub(crate) fn run(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that refuses early does not read; that is its right.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the output can be read")
}

/// A command with nothing of the test's own environment but what programs need to run, and how many threads a
/// gateway is to have, for a run of all tests with another number.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in ["PATH", "HOME", "LANG", "TMPDIR", "TOKIO_WORKER_THREADS"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
