//! Backups of a whole cluster in a pgBackRest repository (<https://pgbackrest.org/command.html>): which there are, and a server that is
//! made of one on this machine for a restore, which nobody reaches but through a socket in a folder of its own.
//!
//! The host that has the data makes the backups; here they are only listed and restored.

mod place;
mod scratch;

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use chrono::{DateTime, Utc};
use pgtenant_model::PgBackRestSpec;
use serde::Deserialize;
use tokio::process::Command;

pub use place::Account;
pub use scratch::{Scratch, Target};

/// For a list of backups: the repository may be on the other side of a network.
const LIST_WITHIN: Duration = Duration::from_secs(60);
/// What is passed on of what a program said.
const MOST_SAID: usize = 2000;

/// Why a backup is not listed, or not restored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PgBackRestError {
    /// It would fail again: a person has to do something, which the text says.
    #[error("{0}")]
    Settings(String),
    /// There is no room on this machine.
    #[error("{0}")]
    Full(String),
    /// What is in the repository does not reach the time that is wanted, or not yet: segments of the log are archived when they are
    /// full, or at the latest after `archive_timeout`.
    #[error("the log in the repository ends before that time: take an earlier one, or a backup")]
    LogEnds,
    /// It may pass.
    #[error("{what}: {said}")]
    Failed {
        /// As `pgbackrest info`.
        what: String,
        /// What was said.
        said: String,
    },
}

impl PgBackRestError {
    /// Whether another try may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    pub(crate) fn failed(what: impl Into<String>, said: impl ToString) -> Self {
        Self::Failed { what: what.into(), said: said.to_string() }
    }
}

/// A backup in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// As `20261120-021405F`.
    pub label: String,
    /// When it was complete: what it shows is of then.
    pub at: DateTime<Utc>,
    /// Bytes that it takes in the repository, with those that it shares with earlier ones.
    pub stored: u64,
    /// Bytes of the cluster that is made of it.
    pub size: u64,
    /// The major version of the server, as 16.
    pub major: u32,
}

/// A stanza of a repository.
#[derive(Debug, Clone)]
pub struct Repository {
    spec: PgBackRestSpec,
}

impl Repository {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(spec: &PgBackRestSpec) -> Self {
        Self { spec: spec.clone() }
    }

    /// As the settings have it.
    #[must_use]
    pub fn spec(&self) -> &PgBackRestSpec {
        &self.spec
    }

    /// The backups that can be restored, the oldest first.
    ///
    /// # Errors
    /// There is no pgBackRest, it failed, or what it says can not be read.
    pub async fn backups(&self) -> Result<Vec<Backup>, PgBackRestError> {
        let account = Account::of(&self.spec.scratch)?;
        let mut command = self.command(&account, "info");
        command.arg("--output=json");
        let output = run(command, "pgbackrest info", LIST_WITHIN).await?;
        backups_in(&output.stdout)
    }

    fn command(&self, account: &Account, verb: &str) -> Command {
        let PgBackRestSpec { stanza, config_file, repository, command, .. } = &self.spec;
        let mut started = account.command(command);
        started.arg(format!("--stanza={stanza}")).args(["--log-level-file=off", "--log-level-console=error"]);
        match config_file {
            Some(file) => started.arg(format!("--config={}", file.display())),
            None => &mut started,
        };
        match repository {
            Some(path) => started.arg(format!("--repo1-path={}", path.display())),
            None => &mut started,
        };
        started.arg(verb);
        started
    }

    /// The program of PostgreSQL `major`.
    fn program(&self, major: u32, name: &str) -> PathBuf {
        let folder = self.spec.binaries.to_string_lossy().replace("{major}", &major.to_string());
        PathBuf::from(folder).join(name)
    }
}

/// Runs a program to its end; it ends with this process's wish to wait for it.
async fn run(mut command: Command, what: &str, within: Duration) -> Result<Output, PgBackRestError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let running =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).output();
    let output = tokio::time::timeout(within, running).await;
    let output = output.map_err(|_| PgBackRestError::failed(what, format!("no answer within {within:?}")))?;
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => PgBackRestError::Settings(format!(
            "{program} is not there: install it on the control plane's machine, or name it in backups.pgbackrest"
        )),
        _ => PgBackRestError::failed(what, error),
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(PgBackRestError::failed(what, said(&output)))
}

/// What a program said that failed: the end says most.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let from = text.ceil_char_boundary(text.len().saturating_sub(MOST_SAID));
    format!("{} ({})", &text[from..], output.status)
}

/// <https://pgbackrest.org/command.html#command-info>: the JSON is kept as it is between releases.
fn backups_in(json: &[u8]) -> Result<Vec<Backup>, PgBackRestError> {
    let stanzas: Vec<Stanza> =
        serde_json::from_slice(json).map_err(|error| PgBackRestError::failed("pgbackrest info", error))?;
    let mut all = Vec::new();
    for Stanza { name, status, db, backup } in stanzas {
        // 2: there are no valid backups, which is an empty list.
        if ![0, 2].contains(&status.code) && backup.is_empty() {
            return Err(PgBackRestError::Settings(format!("pgbackrest info: stanza {name}: {}", status.message)));
        }
        for one in backup.into_iter().filter(|one| one.error != Some(true)) {
            let version = db.iter().find(|db| db.id == one.database.id).map(|db| db.version.clone());
            let major = version.and_then(|version| version.split('.').next()?.parse().ok());
            let at = DateTime::from_timestamp(one.timestamp.stop, 0);
            let (Some(major), Some(at)) = (major, at) else { continue };
            all.push(Backup { label: one.label, at, stored: one.info.repository.size, size: one.info.size, major });
        }
    }
    all.sort_by_key(|one| one.at);
    Ok(all)
}

#[derive(Deserialize)]
struct Stanza {
    name: String,
    status: Status,
    #[serde(default)]
    db: Vec<Db>,
    #[serde(default)]
    backup: Vec<Info>,
}

#[derive(Deserialize)]
struct Status {
    code: i32,
    message: String,
}

#[derive(Deserialize)]
struct Db {
    id: u64,
    version: String,
}

#[derive(Deserialize)]
struct Info {
    label: String,
    timestamp: Times,
    info: Sizes,
    database: DbRef,
    #[serde(default)]
    error: Option<bool>,
}

#[derive(Deserialize)]
struct Times {
    stop: i64,
}

#[derive(Deserialize)]
struct Sizes {
    size: u64,
    repository: Stored,
}

#[derive(Deserialize)]
struct Stored {
    /// With block incremental backups (2.46) it is not told.
    #[serde(default)]
    size: u64,
}

#[derive(Deserialize)]
struct DbRef {
    id: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_are_read_from_what_pgbackrest_says() {
        let json = r#"[{"name":"main","status":{"code":0,"message":"ok"},"db":[{"id":1,"version":"15"}],"backup":[
            {"label":"20261120-021405F","timestamp":{"start":1,"stop":1763604845},"database":{"id":1,"repo-key":1},
             "info":{"size":30,"delta":30,"repository":{"size":10,"delta":10}},"error":false},
            {"label":"20261121-021405F","timestamp":{"start":1,"stop":1763691245},"database":{"id":1,"repo-key":1},
             "info":{"size":30,"delta":30,"repository":{"size":10,"delta":10}},"error":true}]}]"#;
        let found = backups_in(json.as_bytes()).unwrap();
        assert_eq!(found.len(), 1, "one of them has damaged pages");
        assert_eq!(
            (found[0].label.as_str(), found[0].stored, found[0].size, found[0].major),
            ("20261120-021405F", 10, 30, 15)
        );
        let none = br#"[{"name":"main","status":{"code":2,"message":"no valid backups"},"db":[],"backup":[]}]"#;
        assert_eq!(backups_in(none).unwrap(), []);
        let missing = br#"[{"name":"main","status":{"code":1,"message":"missing stanza path"},"db":[],"backup":[]}]"#;
        assert!(!backups_in(missing).unwrap_err().is_retryable());
        assert!(backups_in(b"nonsense").is_err());
    }
}
