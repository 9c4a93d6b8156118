//! `pg_dump` and `pg_restore` as child processes: what they are told, and what becomes of what they say.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pgtenant_model::SslMode;
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::TransferError;
use super::connect::{ACKNOWLEDGED_WITHIN, Access, KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, SETTINGS};
use super::memory::MemoryFile;
use super::sql::conninfo;

/// What is kept of what a program says about what went wrong.
const STDERR_LIMIT: usize = 1 << 20;

/// How long a program that is no longer needed has to tell the server so.
const GRACE: Duration = Duration::from_secs(5);

/// What a program said.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    pub(super) success: bool,
    pub(super) status: String,
}

/// A program that talks to a database.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) access: &'a Access,
    pub(super) arguments: Vec<OsString>,
    /// Major version of the server.
    pub(super) server: u32,
    /// More than this on its standard output is an error.
    pub(super) limit: usize,
    /// What its standard output is, for that error.
    pub(super) what: String,
}

impl Program<'_> {
    /// Runs it to its end. Whoever stops waiting ends it, and what it runs on the server.
    pub(super) async fn run(self) -> Result<Output, TransferError> {
        // Both live until the program has ended.
        let authority = self.authority()?;
        let mut command = self.command(authority.as_ref().map(MemoryFile::path));
        let program = || self.path.display().to_string();
        let child = command.spawn().map_err(|source| TransferError::Start { program: program(), source })?;
        let mut running = Running { child: Some(child) };
        let Some(child) = &mut running.child else { return Err(self.overflow()) };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = tokio::join!(read_all(out, self.limit), read_some(err, STDERR_LIMIT));
        let io = |source| TransferError::Io { what: "read what a program says", source };
        let (stdout, stderr) = (stdout.map_err(io)?, stderr.map_err(io)?);
        let Some(stdout) = stdout else { return Err(self.overflow()) };
        let status = child.wait().await.map_err(io)?;
        running.child = None;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Ok(Output { stdout, stderr, success: status.success(), status: status.to_string() })
    }

    fn overflow(&self) -> TransferError {
        TransferError::TooLarge { what: self.what.clone(), limit: self.limit }
    }

    fn command(&self, authority: Option<&Path>) -> Command {
        let options = &self.access.options;
        let mut settings = SETTINGS.to_owned();
        if self.server >= 17 {
            settings.push_str(" -c transaction_timeout=0");
        }
        let mut command = Command::new(self.path);
        command
            .arg("--no-password")
            .arg("--dbname")
            .arg(self.conninfo())
            .args(&self.arguments)
            // Nothing of this process' secrets, and no settings of whoever started it.
            .env_clear()
            .envs(["PATH", "LD_LIBRARY_PATH"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .env("PGPASSWORD", options.password.expose_secret())
            .env("PGAPPNAME", &options.application_name)
            .env("PGOPTIONS", settings)
            .env("PGSSLMODE", sslmode(options.sslmode))
            // With `require` a file that is not there means that the issuer is not checked.
            .env("PGSSLROOTCERT", authority.unwrap_or(Path::new("/nonexistent")))
            .env("PGGSSENCMODE", "disable")
            .env("PGCONNECT_TIMEOUT", options.timeouts.connect.as_secs().max(2).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn conninfo(&self) -> String {
        let options = &self.access.options;
        conninfo(&[
            ("host", &options.host),
            ("port", &options.port.to_string()),
            ("dbname", &self.access.database),
            ("user", &options.username),
            ("keepalives_idle", &KEEPALIVE_IDLE.to_string()),
            ("keepalives_interval", &KEEPALIVE_INTERVAL.to_string()),
            ("keepalives_count", &KEEPALIVE_COUNT.to_string()),
            ("tcp_user_timeout", &ACKNOWLEDGED_WITHIN.as_millis().to_string()),
        ])
    }

    /// The certificate authorities, where they are asked for.
    fn authority(&self) -> Result<Option<MemoryFile>, TransferError> {
        let options = &self.access.options;
        let pem = match (&options.ca, options.sslmode) {
            (_, SslMode::Require) => return Ok(None),
            (Some(pem), _) => pem.clone(),
            (None, _) => crate::tls::machine_authorities(),
        };
        let file = MemoryFile::new(pem.as_bytes());
        file.map(Some).map_err(|source| TransferError::Io { what: "hand the CA to a program", source })
    }
}

fn sslmode(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    }
}

/// A program and what it has started.
#[derive(Debug)]
struct Running {
    child: Option<Child>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // pg_restore's workers are processes of their own. Each cancels what it runs on the server.
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let (Some(group), Ok(runtime)) = (group, tokio::runtime::Handle::try_current())
            && kill_process_group(group, Signal::TERM).is_ok()
        {
            runtime.spawn(async move { tokio::time::timeout(GRACE, child.wait()).await.is_ok() });
        }
    }
}

/// All of it; none: it is more than `limit`.
async fn read_all(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let Some(stream) = stream else { return Ok(Some(bytes)) };
    stream.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// The beginning of it; the rest is read and forgotten, so that the program goes on.
async fn read_some(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> io::Result<Vec<u8>> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 8192]);
    let Some(mut stream) = stream else { return Ok(kept) };
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(kept);
        }
        let room = limit.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
}
