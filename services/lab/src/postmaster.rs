//! `postmaster.pid`: who runs on a data folder, and how far it is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};
use crate::files;

/// How often a state is looked at while it is waited for.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Line 8 of the file, see `pidfile.h` of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Starting,
    /// Accepts connections; on a standby, read-only ones.
    Ready,
}

/// What the server with this process id says of itself.
pub(crate) fn status(data: &Path, pid: u32) -> Status {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    let same = lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid);
    if same && lines.nth(6).map(str::trim) == Some("ready") { Status::Ready } else { Status::Starting }
}

/// Waits for a server that an earlier run left on this data; it is shutting down by itself, normally. Ends it where it does not.
/// Afterwards no postmaster runs there. Orphans of a killed one may, for a moment: the next postmaster sees them by itself.
pub(crate) async fn settle_earlier(data: &Path) -> Result<()> {
    let steps = [
        (None, Duration::from_secs(5)),
        (Some(Signal::INT), Duration::from_secs(20)),
        (Some(Signal::QUIT), Duration::from_secs(10)),
    ];
    let Some(pid) = earlier(data)? else { return Ok(()) };
    for (signal, patience) in steps {
        if let Some(signal) = signal {
            tracing::warn!(%pid, ?signal, data = %data.display(), "ending an earlier PostgreSQL");
            send(pid, signal);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if earlier(data)?.is_none() {
                return Ok(());
            }
            sleep(POLL).await;
        }
        if is_zombie(pid) {
            // Nobody takes note of its end. PostgreSQL has the last word.
            return Ok(());
        }
    }
    Err(Error::StillRunning { pid, dir: data.to_path_buf() })
}

/// A process that is gone by now is as good as told.
pub(crate) fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// The postmaster that runs on this data. After a reboot the file may name a process that has nothing to do with it; PostgreSQL
/// would refuse to start then, so that file is removed. A file that names no process is left: PostgreSQL checks more of it.
fn earlier(data: &Path) -> Result<Option<i32>> {
    let path = data.join("postmaster.pid");
    let Some(text) = files::read_if_there(&path)? else { return Ok(None) };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()) else {
        return Ok(None);
    };
    // To PostgreSQL a process is there until its parent has taken note of its end.
    if is_zombie(pid) {
        return Ok(Some(pid));
    }
    let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else { return Ok(None) };
    if command.is_empty() {
        return Ok(None);
    }
    let wanted = data.as_os_str().as_encoded_bytes();
    if command.split(|byte| *byte == 0).any(|argument| argument == wanted) {
        return Ok(Some(pid));
    }
    tracing::info!(pid, path = %path.display(), "the file names a process that is no PostgreSQL of this folder; removing it");
    files::remove_file(&path)?;
    Ok(None)
}

/// The state is behind the name, which is in parentheses and may hold anything.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_process_is_waited_for_until_its_end_is_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        let pid = child.id().cast_signed();
        fs::write(dir.path().join("postmaster.pid"), format!("{pid}\n")).expect("written");
        while !is_zombie(pid) {
            sleep(POLL).await;
        }
        let settled = settle_earlier(dir.path());
        tokio::pin!(settled);
        let early = tokio::time::timeout(POLL * 5, &mut settled).await;
        assert!(early.is_err(), "PostgreSQL would not start yet");
        child.wait().expect("its end");
        settled.await.expect("nothing is there");
    }

    #[tokio::test]
    async fn a_reused_process_id_does_not_hold_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("postmaster.pid");
        fs::write(&path, format!("{}\n{}\n", std::process::id(), dir.path().display())).expect("written");
        settle_earlier(dir.path()).await.expect("nothing to wait for");
        assert!(!path.exists());
    }

    #[test]
    fn ready_is_said_by_the_right_process() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = "4242\n/data\n1700000000\n5432\n\nlocalhost\n  1 2\nready   \n";
        fs::write(dir.path().join("postmaster.pid"), text).expect("written");
        assert_eq!(status(dir.path(), 4242), Status::Ready);
        assert_eq!(status(dir.path(), 4243), Status::Starting);
    }
}
