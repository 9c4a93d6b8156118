//! psql as a child: the password in a file that only this user can read, and that is gone afterwards.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use pgtenant_model::HostPort;
use pgtenant_postgres::PulseOptions;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::error::{CliError, Outcome, Result};

/// Of Debian and its like, of Fedora and its like, and of Alpine and macOS.
const TRUST_STORES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A stored credential.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Login {
    username: String,
    password: SecretString,
    endpoint: String,
    port: Port,
    database: String,
    sslmode: String,
    uri: SecretString,
    #[serde(rename = "ca.crt", default)]
    ca_crt: Option<String>,
    #[serde(rename = "readEndpoint", default)]
    read_endpoint: Option<String>,
    #[serde(rename = "readPort", default)]
    read_port: Option<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Text(String),
}

impl Port {
    fn text(&self) -> String {
        match self {
            Self::Number(port) => port.to_string(),
            Self::Text(port) => port.clone(),
        }
    }
}

impl Login {
    /// What psql needs to know beside the password.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let (hosts, ports) =
            hosts(self.uri.expose_secret()).unwrap_or_else(|| (self.endpoint.clone(), self.port.text()));
        let mut variables = vec![
            ("PGUSER", self.username.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGSSLMODE", self.sslmode.clone()),
            ("PGPORT", ports),
        ];
        if hosts.contains(',') {
            variables.push(("PGTARGETSESSIONATTRS", "read-write".to_owned()));
        }
        variables.push(("PGHOST", hosts));
        variables
    }

    /// How a client reaches the database, and how one that only reads does where that is another way.
    ///
    /// # Errors
    /// The document is not as pgtenant writes it.
    pub(in crate::cli) fn pulse(&self) -> Result<(PulseOptions, Option<PulseOptions>)> {
        let odd = |what: &str| CliError::failed(format!("the stored credential has no {what} that can be used"));
        let (hosts, ports) = hosts(self.uri.expose_secret()).ok_or_else(|| odd("uri"))?;
        let mut pairs = hosts.split(',').zip(ports.split(','));
        let address = |host: &str, port: &str| {
            let port = port.parse().map_err(|_| odd("port"))?;
            Ok::<_, CliError>(HostPort { host: host.to_owned(), port })
        };
        let ca = match (std::env::var_os("PGTENANT_CA").filter(|path| !path.is_empty()), &self.ca_crt) {
            (Some(file), _) => Some(std::fs::read_to_string(file)?),
            (None, pem) => pem.clone(),
        };
        let sslmode = serde_json::from_value(serde_json::Value::String(self.sslmode.clone()));
        let options = PulseOptions {
            hosts: pairs.by_ref().map(|(host, port)| address(host, port)).collect::<Result<_>>()?,
            sslmode: sslmode.map_err(|_| odd("sslmode"))?,
            ca,
            username: self.username.clone(),
            password: self.password.clone(),
            database: self.database.clone(),
        };
        let read = self.read_endpoint.as_ref().zip(self.read_port.as_ref());
        let read = read.map(|(host, port)| address(host, &port.text())).transpose()?;
        let read = read.map(|host| PulseOptions { hosts: vec![host], ..options.clone() });
        Ok((options, read))
    }

    /// The line of a password file: any host and port, since there may be several.
    fn password_line(&self) -> Zeroizing<String> {
        let password = self.password.expose_secret();
        let mut line = Zeroizing::new(String::with_capacity(2 * (password.len() + self.username.len()) + 16));
        line.push_str("*:*:*:");
        escape(&mut line, &self.username);
        line.push(':');
        escape(&mut line, password);
        line.push('\n');
        line
    }
}

fn escape(line: &mut String, text: &str) {
    for letter in text.chars() {
        if matches!(letter, ':' | '\\') {
            line.push('\\');
        }
        line.push(letter);
    }
}

/// Hosts and ports of a connection URI, each parted by commas. None: it is not as pgtenant writes it.
fn hosts(uri: &str) -> Option<(String, String)> {
    let rest = uri.strip_prefix("postgresql://")?;
    let (_, rest) = rest.split_once('@')?;
    let (list, _) = rest.split_once('/')?;
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for entry in list.split(',') {
        let (host, port) = entry.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Percent signs: encoded characters that no host name has.
        if host.is_empty() || host.contains('%') || port.parse::<u16>().is_err() {
            return None;
        }
        hosts.push(host);
        ports.push(port);
    }
    Some((hosts.join(","), ports.join(",")))
}

/// Runs psql until it ends. Whatever status it fails with is 1 here: its 2 and 3 have other meanings among ours.
///
/// # Errors
/// There is no psql, or the files for it can not be written.
pub(super) async fn open(login: &Login, ca: Option<&Path>, arguments: &[OsString]) -> Result<Outcome> {
    // Only this user can look into it; dropping it removes everything.
    let directory = private_directory()?;
    let passwords = write(directory.path(), "pgpass", login.password_line().as_bytes())?;
    let mut command = Command::new("psql");
    command.args(arguments).envs(login.variables()).env("PGPASSFILE", &passwords);
    for name in ["PGPASSWORD", "PGSERVICE", "PGHOSTADDR", "PGTENANT_TOKEN"] {
        command.env_remove(name);
    }
    if let Some(file) = root_certificate(login, ca, directory.path()).await? {
        command.env("PGSSLROOTCERT", file);
    }
    let status = run(command).await?;
    directory.close().map_err(|error| CliError::failed(format!("can not remove the password file: {error}")))?;
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Done,
        (None, Some(signal)) => Outcome::Status(u8::try_from(128 + signal).unwrap_or(1)),
        // It has said why.
        _ => Outcome::Failed,
    })
}

/// The value of `PGSSLROOTCERT`. None: libpq's own default.
async fn root_certificate(login: &Login, ca: Option<&Path>, directory: &Path) -> Result<Option<PathBuf>> {
    match (ca, &login.ca_crt) {
        (Some(file), _) => Ok(Some(file.to_owned())),
        (None, Some(pem)) => write(directory, "ca.crt", pem.as_bytes()).map(Some),
        (None, None) if std::env::var_os("PGSSLROOTCERT").is_some_and(|value| !value.is_empty()) => Ok(None),
        (None, None) => machines_trust(&login.sslmode).await,
    }
}

/// Without a CA the server's certificate is signed by one that the machine trusts, but libpq would look for
/// `~/.postgresql/root.crt` alone.
async fn machines_trust(sslmode: &str) -> Result<Option<PathBuf>> {
    // With any other mode a root certificate would change what the mode means.
    if !sslmode.starts_with("verify-") {
        return Ok(None);
    }
    let version = Command::new("psql").arg("--version").output().await.map_err(not_started)?;
    let version = major_version(&String::from_utf8_lossy(&version.stdout));
    // From 16 on, and not for verify-ca.
    if sslmode == "verify-full" && version.is_some_and(|major| major >= 16) {
        return Ok(Some("system".into()));
    }
    Ok(TRUST_STORES.map(PathBuf::from).into_iter().find(|file| file.is_file()))
}

/// Of `psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(text: &str) -> Option<u32> {
    let (_, number) = text.split_once("(PostgreSQL) ")?;
    number.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// In memory where the system offers that to users.
fn private_directory() -> Result<tempfile::TempDir> {
    let fault = |error| CliError::failed(format!("can not make a directory for psql's password file: {error}"));
    let mut builder = tempfile::Builder::new();
    builder.prefix("pgtenant-").permissions(std::fs::Permissions::from_mode(0o700));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.and_then(|directory| builder.tempdir_in(directory).ok()) {
        Some(directory) => Ok(directory),
        None => builder.tempdir().map_err(fault),
    }
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| CliError::failed(format!("can not write {}: {error}", path.display())))?;
    Ok(path)
}

/// Runs a command in the foreground. Signals do not end us before it: the terminal sends Ctrl-C to both, and what is sent
/// to us alone is handed on.
async fn run(mut command: Command) -> Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let terminal = std::io::stdin().is_terminal();
    let mut child = command.spawn().map_err(not_started)?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = interrupt.recv() => if !terminal { send(&child, Signal::INT) },
            _ = quit.recv() => if !terminal { send(&child, Signal::QUIT) },
            _ = terminate.recv() => send(&child, Signal::TERM),
            _ = hangup.recv() => send(&child, Signal::HUP),
        }
    }
}

fn not_started(error: std::io::Error) -> CliError {
    match error.kind() {
        ErrorKind::NotFound => CliError::failed("psql is not installed").hint(
            "Debian and Ubuntu: apt-get install postgresql-client; Fedora: dnf install postgresql; macOS: brew install \
             libpq && brew link --force libpq",
        ),
        _ => CliError::failed(format!("can not start psql: {error}")),
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended a moment ago.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(uri: &str) -> Login {
        let document = serde_json::json!({
            "username": "a-b-read", "password": "p:a\\ss", "endpoint": "db1", "port": "5432", "database": "a-b",
            "sslmode": "verify-full", "uri": uri, "ca.crt": "PEM",
        });
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn every_host_of_the_uri_is_tried() {
        let uri = "postgresql://a-b-read:x@db1:5432,[::1]:5433/a-b?sslmode=verify-full&target_session_attrs=read-write";
        let variables = login(uri).variables();
        for expected in [
            ("PGHOST", "db1,::1"),
            ("PGPORT", "5432,5433"),
            ("PGTARGETSESSIONATTRS", "read-write"),
            ("PGSSLMODE", "verify-full"),
        ] {
            assert!(variables.contains(&(expected.0, expected.1.to_owned())), "{expected:?}");
        }
        let variables = login("something else").variables();
        assert!(
            variables.contains(&("PGHOST", "db1".to_owned())) && variables.contains(&("PGPORT", "5432".to_owned()))
        );
    }

    #[test]
    fn the_password_is_in_the_file_only() {
        let login = login("postgresql://u:p@db1:1/a");
        assert_eq!(login.password_line().as_str(), "*:*:*:a-b-read:p\\:a\\\\ss\n");
        assert!(login.variables().iter().all(|(_, value)| !value.contains("ss\n") && !value.contains("p:a")));
        assert!(!format!("{login:?}").contains("p:a"));
    }

    #[test]
    fn versions_of_psql_are_read() {
        for (text, major) in [
            ("psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("psql (PostgreSQL) 17.0\n", Some(17)),
            ("psql (PostgreSQL) 19beta1\n", Some(19)),
            ("", None),
        ] {
            assert_eq!(major_version(text), major, "{text}");
        }
    }

    #[test]
    fn files_are_private() {
        let directory = private_directory().unwrap();
        let file = write(directory.path(), "pgpass", b"x").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
