//! `pgtenant serve` as a child of this process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::error::{BenchError, Result};
use crate::lab::Lab;

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// The control plane under measurement. Dropping it kills it.
pub(crate) struct Serve {
    child: Child,
    pid: u32,
    log: PathBuf,
}

/// `given`, or the `pgtenant` beside this program.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().map_err(BenchError::io("find", "this program"))?.with_file_name("pgtenant"),
    };
    if !path.is_file() {
        let advice = "build it first (cargo build --release -p pgtenant), or name another with --pgtenant";
        return Err(BenchError::Serve(format!("{} is not there; {advice}", path.display())));
    }
    Ok(path)
}

/// As `pgtenant 0.1.0`.
pub(crate) async fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output().await;
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

impl Serve {
    /// Returns when it is ready.
    pub(crate) async fn start(binary: &Path, lab: &Lab, set: &[String]) -> Result<Self> {
        Self::start_on(lab.port, binary, lab, set).await
    }

    /// On another port than the settings' own.
    pub(crate) async fn start_on(port: u16, binary: &Path, lab: &Lab, set: &[String]) -> Result<Self> {
        let log = lab.log_file();
        let out = File::options().create(true).append(true).open(&log).map_err(BenchError::io("open", &log))?;
        let mut command = Command::new("setpriv");
        // It ends with this process, however that ends.
        command.args(["--pdeathsig", "TERM", "--"]).arg(binary).args(["serve", "--config"]).arg(lab.settings_file());
        command.args(["--set", &format!("listen=127.0.0.1:{port}")]);
        for setting in set {
            command.args(["--set", setting]);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PGTENANT_")) {
            command.env_remove(name);
        }
        command.envs(lab.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(BenchError::io("start", binary))?;
        let pid = child.id().unwrap_or_default();
        let mut serve = Self { child, pid, log };
        serve.ready(port).await?;
        Ok(serve)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it as an operator would.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may be gone by itself.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(BenchError::Serve(format!("did not stop within {} s", STOP.as_secs()))),
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    async fn ready(&mut self, port: u16) -> Result<()> {
        let url = format!("http://127.0.0.1:{port}/readyz");
        let client = reqwest::Client::new();
        let until = Instant::now() + START;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(BenchError::Serve(format!("ended with {status}\n{}", self.last_words())));
            }
            let answer = client.get(&url).timeout(Duration::from_secs(5)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(BenchError::Serve(format!("not ready after {} s\n{}", START.as_secs(), self.last_words())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
