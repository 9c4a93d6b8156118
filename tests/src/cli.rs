//! The command line as a person types it.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// How long any command may take that does not serve.
const PATIENCE: Duration = Duration::from_secs(600);

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit status; -1 after a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    command: String,
}

impl Finished {
    /// Panics unless it ended with this status.
    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        assert!(
            self.status == status,
            "`{}` ended with {}, not {status}\nstdout: {}\nstderr: {}",
            self.command,
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.stdout))
    }
}

/// Runs a command to its end, with no input.
pub async fn run(command: Command) -> Finished {
    run_within(command, PATIENCE).await
}

/// The same for one that may take longer than usual.
pub async fn run_within(command: Command, patience: Duration) -> Finished {
    let shown = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(patience, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("not done after {patience:?}: {shown}"));
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    Finished {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: shown,
    }
}

/// `pgtenant` with an environment of its own.
#[derive(Debug, Clone, Default)]
pub struct Cli {
    env: Vec<(String, OsString)>,
}

impl Cli {
    /// Without any setting.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a control plane.
    pub fn of(url: &str, token: &str) -> Self {
        Self::new().env("PGTENANT_URL", url).env("PGTENANT_TOKEN", token)
    }

    /// With a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The command, for tests that run it in their own way.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(crate::binary(), args)
    }

    /// Another program in the same environment.
    pub fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let ours = ["PG", "AWS_"].iter().any(|prefix| text.starts_with(prefix));
            if ours || text == "RUST_LOG" || text == "COLUMNS" {
                command.env_remove(&name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value))).args(args);
        command
    }

    /// Runs it to its end.
    pub async fn run(&self, args: &[&str]) -> Finished {
        run(self.command(args)).await
    }
}
