//! PgBouncer with the settings of `docs/pgbouncer.md`: in front of a [`crate::Cluster`], or of a lab.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use crate::account::Account;
use crate::error::{Error, Result};
use crate::files;
use crate::part::Part;
use crate::process::Runner;
use crate::reach;
use crate::tls::CertificateAuthority;

/// The program and, in a lab, its folder.
pub(crate) const PGBOUNCER: &str = "pgbouncer";
/// Its own login on the servers.
pub(crate) const LOGIN: &str = "pgbouncer";
pub(crate) const CONF: &str = "pgbouncer.ini";
/// Read again at each reload.
pub(crate) const LOGINS: &str = "userlist.txt";
/// As in the document, where users take them from.
const SETTINGS: &str = include_str!("pgbouncer.ini");
/// It has `auth_dbname` since 1.19, and prepared statements in transaction mode since 1.21.
const OLDEST: (u32, u32) = (1, 21);
const START_DEADLINE: Duration = Duration::from_secs(30);
const ASK_DEADLINE: Duration = Duration::from_secs(3);

/// What a PgBouncer is made of.
#[derive(Debug, Clone, Copy)]
pub struct PgBouncerOptions<'a> {
    /// Its files are there. Those above it let the servers' user pass.
    pub dir: &'a Path,
    /// Signs its certificate, and has signed the server's.
    pub authority: &'a CertificateAuthority,
    /// `host:port` that leads to the primary.
    pub server: &'a str,
    /// Where it listens, on `localhost`.
    pub port: u16,
    /// Of its own login, which is to be on the server with the function of `pgtenant cluster bootstrap --pgbouncer-login`.
    pub password: &'a SecretString,
    /// Settings that differ from the document's; those with an empty value are taken out.
    pub changes: &'a [(&'a str, &'a str)],
}

/// A running PgBouncer. It ends with this process, or when it is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    part: Part,
    dir: PathBuf,
    account: Option<Account>,
}

impl PgBouncer {
    /// Starts it, and returns when it answers.
    ///
    /// # Errors
    /// There is no program that is new enough, a setting is none of the document's, or it does not come up.
    pub async fn start(options: PgBouncerOptions<'_>) -> Result<Self> {
        let PgBouncerOptions { dir, authority, server, port, password, changes } = options;
        let account = Account::for_servers()?;
        files::make_dir(dir, 0o700, account.as_ref())?;
        let mut conf = settings(dir, server, port)?;
        for (name, value) in changes {
            conf = changed(&conf, name, value)?;
        }
        let issued = authority.issue_for_loopback()?;
        for (name, text) in [
            (CONF, conf.as_str()),
            (LOGINS, logins(password).as_str()),
            ("server.crt", &issued.certificate),
            ("server.key", issued.key.expose_secret()),
            ("ca.crt", authority.certificate()),
        ] {
            files::write(&dir.join(name), text.as_bytes(), 0o600, account.as_ref())?;
        }
        let program = reach::program(&locate()?, PGBOUNCER, account.as_ref(), dir)?;
        let runner = Runner { account: account.clone(), dir: dir.to_path_buf(), env: Vec::new() };
        let mut part = Part::new(PGBOUNCER, program, vec![dir.join(CONF).display().to_string()], runner);
        part.start()?;
        let deadline = Instant::now() + START_DEADLINE;
        while !answers("localhost", port).await {
            part.wait_more(deadline).await?;
        }
        Ok(Self { part, dir: dir.to_path_buf(), account })
    }

    /// SIGKILL. It is gone afterwards.
    pub fn kill(&mut self) {
        self.part.kill();
    }

    /// Changes a setting that it has, and has it read.
    ///
    /// # Errors
    /// It has no such setting, or its file can not be written.
    pub fn change(&self, name: &str, value: &str) -> Result<()> {
        let file = self.dir.join(CONF);
        let text = files::read_if_there(&file)?.unwrap_or_default();
        files::write(&file, changed(&text, name, value)?.as_bytes(), 0o600, self.account.as_ref())?;
        self.part.send(Signal::HUP);
        Ok(())
    }
}

/// The first that is new enough, of the distribution's and of what `.ci/pgbouncer` has built.
pub(crate) fn locate() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let built = cache.or_else(home).unwrap_or_default().join("pgtenant/pgbouncer/pgbouncer");
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&on_path).map(|dir| dir.join(PGBOUNCER));
    let mut old = None;
    for program in on_path.chain([PathBuf::from("/usr/sbin/pgbouncer"), built]) {
        let Ok(said) = Command::new(&program).arg("--version").output() else { continue };
        let said = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().to_owned();
        match version(&said) {
            Some(found) if found >= OLDEST => return Ok(program),
            _ => old = old.or(Some(format!("{said} in {}", program.display()))),
        }
    }
    Err(Error::MissingPgBouncer { found: old.unwrap_or_else(|| "none".to_owned()) })
}

/// `PgBouncer 1.24.1` → 1, 24.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut parts = said.strip_prefix("PgBouncer ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The document's settings, for this machine: files in `dir`, the server's `host:port`, and a port on `localhost`.
pub(crate) fn settings(dir: &Path, server: &str, port: u16) -> Result<String> {
    let (host, server) = server.rsplit_once(':').unwrap_or((server, "5432"));
    let text = changed(SETTINGS, "*", &format!("host={host} port={server}"))?;
    let text = changed(&text, "listen_addr", "localhost")?;
    let text = changed(&text, "listen_port", &port.to_string())?;
    Ok(text.replace("/etc/pgbouncer/", &format!("{}/", dir.display())))
}

/// PgBouncer's own login; the others are looked up.
pub(crate) fn logins(password: &SecretString) -> Zeroizing<String> {
    Zeroizing::new(format!("\"{LOGIN}\" \"{}\"\n", password.expose_secret()))
}

/// The text with another value for a setting that it has; an empty one takes it out.
fn changed(text: &str, name: &str, value: &str) -> Result<String> {
    let is_it = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| key == name);
    if text.lines().filter(|line| is_it(line)).count() != 1 {
        return Err(Error::Unsuited {
            what: format!("{name} is not among PgBouncer's settings here"),
            instead: "docs/pgbouncer.md has those that there are".to_owned(),
        });
    }
    let line = |line| match is_it(line) {
        true if value.is_empty() => String::new(),
        true => format!("{name} = {value}\n"),
        false => format!("{line}\n"),
    };
    Ok(text.lines().map(line).collect())
}

/// Whether there is something that speaks PostgreSQL's protocol with TLS.
pub(crate) async fn answers(host: &str, port: u16) -> bool {
    /// `SSLRequest`: its length, and a number that is no version.
    const TLS_PLEASE: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let question = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.write_all(&TLS_PLEASE).await?;
        stream.read_u8().await
    };
    timeout(ASK_DEADLINE, question).await.is_ok_and(|answer| answer.is_ok_and(|answer| answer == b'S'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_these_settings() {
        let document = include_str!("../../../docs/pgbouncer.md");
        let block = format!("<!-- file: /etc/pgbouncer/pgbouncer.ini -->\n```ini\n{SETTINGS}```\n");
        assert!(document.contains(&block), "docs/pgbouncer.md differs from services/lab/src/pgbouncer.ini");
    }

    #[test]
    fn settings_of_this_machine() {
        let text = settings(Path::new("/lab/pgbouncer"), "localhost:5000", 7000).expect("settings");
        for line in [
            "* = host=localhost port=5000",
            "listen_addr = localhost",
            "listen_port = 7000",
            "auth_file = /lab/pgbouncer/userlist.txt",
            "pool_mode = transaction",
        ] {
            assert_eq!(text.lines().filter(|it| *it == line).count(), 1, "{line} in\n{text}");
        }
        assert!(!text.contains("/etc/"), "{text}");
        assert!(changed(&text, "pool_modes", "session").is_err());
    }

    #[test]
    fn versions_as_it_says_them() {
        assert_eq!(version("PgBouncer 1.24.1"), Some((1, 24)));
        assert!(version("PgBouncer 1.18.0").is_some_and(|found| found < OLDEST));
        assert!(version("PgBouncer 2.0.0").is_some_and(|found| found > OLDEST));
        assert_eq!(version(""), None);
    }
}
