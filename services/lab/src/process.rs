//! Child processes: as whom they run, and how they end with this process.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use crate::account::Account;
use crate::error::{Error, Result};

/// How long initdb, pg_ctl and their like may take; pg_basebackup of a large cluster is the slowest.
const COMMAND_DEADLINE: Duration = Duration::from_secs(600);

/// How a program is run: as whom, and where. Its environment holds nothing of this process's but PATH and library paths, since
/// that may hold secrets (`PGTENANT_*`) and settings that would change what the program does (`PG*`, `LC_*`).
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) account: Option<Account>,
    pub(crate) dir: PathBuf,
    /// Further variables, which win.
    pub(crate) env: Vec<(&'static str, String)>,
}

/// What a program is told when this process has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AtTheEnd {
    /// SIGINT: PostgreSQL ends its sessions and writes a checkpoint.
    Interrupt,
    /// SIGTERM, for what has to end PostgreSQL itself.
    Terminate,
    /// SIGKILL, for what loses nothing by it.
    Kill,
}

impl AtTheEnd {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Kill => "KILL",
        }
    }
}

impl Runner {
    /// Runs to the end and returns what was printed.
    pub(crate) async fn run<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = tokio::process::Command::from(self.command(program, None, false)?);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        let failed = |output: String| Error::Command { program: name.clone(), output };
        let output = match tokio::time::timeout(COMMAND_DEADLINE, command.output()).await {
            Err(_) => {
                return Err(failed(format!("not done after {} s", COMMAND_DEADLINE.as_secs())));
            }
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Ok(Ok(output)) => output,
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let all = format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
        Err(failed(format!("{}\n{}", output.status, last_lines(&all, 15))))
    }

    /// Starts a program that gets this signal when this process ends.
    pub(crate) fn spawn_bound<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        output: std::fs::File,
        at_the_end: AtTheEnd,
    ) -> Result<Child> {
        let mut command = self.command(program, Some(at_the_end), false)?;
        let errors = output.try_clone().map_err(Error::io("open the log of", program))?;
        command.args(args).stdin(Stdio::null()).stdout(output).stderr(errors);
        // Ctrl-C in a terminal goes to the whole foreground group: the servers are to end after the control plane, not before.
        command.process_group(0);
        spawn_on_lasting_thread(command).map_err(Error::io("start", program))
    }

    /// Starts a program that outlives this process, in a session of its own.
    pub(crate) fn spawn_detached<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        output: std::fs::File,
    ) -> Result<Child> {
        let mut command = self.command(program, None, true)?;
        let errors = output.try_clone().map_err(Error::io("open the log of", program))?;
        command.args(args).stdin(Stdio::null()).stdout(output).stderr(errors);
        command.spawn().map_err(Error::io("start", program))
    }

    fn command(&self, program: &Path, bound: Option<AtTheEnd>, own_session: bool) -> Result<Command> {
        let mut command = Command::new(util("setpriv")?);
        if let Some(Account { uid, gid, .. }) = &self.account {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--init-groups");
        }
        if let Some(signal) = bound {
            command.args(["--pdeathsig", signal.name()]);
        }
        command.arg("--");
        if own_session {
            command.arg(util("setsid")?);
        }
        command.arg(program).current_dir(&self.dir).env_clear();
        command.env("LC_ALL", "C.UTF-8").env("HOME", &self.dir);
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

/// The last `count` lines that are not empty.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn util(name: &'static str) -> Result<PathBuf> {
    let known = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name));
    let missing = || Error::MissingBinary { name, package: "util-linux".into() };
    known.into_iter().find(|path| path.exists()).ok_or_else(missing)
}

/// The kernel sends the parent-death signal when the THREAD that forked ends, not the process. Runtimes end threads as they like,
/// so all servers are forked by one thread that lasts as long as the process.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    type Job = (Command, SyncSender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        let work = move || {
            for (mut command, reply) in jobs {
                // Nobody waits for the answer any more: the child is dropped, and ends with the process.
                let _ = reply.send(command.spawn());
            }
        };
        if let Err(error) = thread::Builder::new().name("lab-spawner".into()).spawn(work) {
            tracing::error!(%error, "no thread to start servers from");
        }
        sender
    });
    let gone = || io::Error::other("the thread that starts servers is gone");
    let (reply, answer) = sync_channel(1);
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_end_of_a_log() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 5), "a");
        assert_eq!(last_lines("", 5), "");
    }
}
