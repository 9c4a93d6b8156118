//! A server that is no PostgreSQL: one of those that Kubernetes consists of, or moto.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};
use crate::files;
use crate::postmaster::send;
use crate::process::{AtTheEnd, Runner, last_lines};

/// How often a state is looked at while it is waited for.
pub(crate) const POLL: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 15;
/// What was sent SIGKILL is gone at once, unless its disk hangs.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// It ends with this process, also when that is killed; dropping it kills it. None of them loses what it has confirmed.
#[derive(Debug)]
pub(crate) struct Part {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    runner: Runner,
    child: Option<Child>,
}

impl Part {
    /// For [`Part::settle_earlier`], the first of `args` is one that no other process has.
    pub(crate) fn new(name: &'static str, program: PathBuf, args: Vec<String>, runner: Runner) -> Self {
        Self { name, program, args, runner, child: None }
    }

    /// Kills what an earlier run left here. The kernel does that when this process ends, so there is hardly ever something.
    pub(crate) async fn settle_earlier(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_DEADLINE;
        while let Some(pid) = self.earlier() {
            if Instant::now() > deadline {
                return Err(Error::StillRunning { pid, dir: self.runner.dir.clone() });
            }
            send(pid, Signal::KILL);
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts it, unless it runs; it is not ready then.
    pub(crate) fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let log = self.log_file();
        files::write(&log, b"", 0o600, self.runner.account.as_ref())?;
        let output = OpenOptions::new().append(true).open(&log).map_err(Error::io("open", &log))?;
        self.child = Some(self.runner.spawn_bound(&self.program, &self.args, output, AtTheEnd::Kill)?);
        Ok(())
    }

    /// One step of waiting until it is ready.
    pub(crate) async fn wait_more(&mut self, deadline: Instant) -> Result<()> {
        self.require_running()?;
        if Instant::now() > deadline {
            self.kill();
            return Err(self.failed("was not ready in time"));
        }
        sleep(POLL).await;
        Ok(())
    }

    /// Lets it end by itself for as long as `patience`.
    pub(crate) async fn stop(&mut self, patience: Duration) -> Result<()> {
        for (signal, patience) in [(Signal::INT, patience), (Signal::KILL, KILL_DEADLINE)] {
            self.send(signal);
            let deadline = Instant::now() + patience;
            while self.is_running() && Instant::now() < deadline {
                sleep(POLL).await;
            }
        }
        match self.pid() {
            None => Ok(()),
            Some(pid) => Err(Error::StillRunning { pid: pid.cast_signed(), dir: self.runner.dir.clone() }),
        }
    }

    /// SIGKILL, as a crash would be. It is gone afterwards.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            send(child.id().cast_signed(), Signal::KILL);
            // That it is no child any more would be the only error.
            let _ = child.wait();
        }
    }

    /// Nothing where it does not run.
    pub(crate) fn send(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            send(pid.cast_signed(), signal);
        }
    }

    /// SIGSTOP. The signal is sent before it is heeded: each thread goes on until it is looked at next, so that is waited for.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.send(Signal::STOP);
        let deadline = Instant::now() + KILL_DEADLINE;
        while let Some(pid) = self.pid().filter(|pid| !is_paused(*pid)) {
            if Instant::now() > deadline {
                return Err(Error::StillRunning { pid: pid.cast_signed(), dir: self.runner.dir.clone() });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        self.child.is_some()
    }

    pub(crate) fn require_running(&mut self) -> Result<()> {
        if self.is_running() { Ok(()) } else { Err(self.failed("has ended")) }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn failed(&self, what: &str) -> Error {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = last_lines(&String::from_utf8_lossy(&log), LOG_LINES);
        Error::Part { program: self.name, what: what.to_owned(), log }
    }

    fn log_file(&self) -> PathBuf {
        self.runner.dir.join(format!("{}.log", self.name))
    }

    /// Another process with this one's first argument. One that is ending has lost its arguments already.
    fn earlier(&self) -> Option<i32> {
        let mark = self.args.first()?.as_bytes();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.find(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|argument| argument == mark)
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether every thread is stopped or has ended.
fn is_paused(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // The name before the state is in parentheses and may hold anything.
    states.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 'Z'])))
}
