//! Processes of a lab, known by their command lines.
//!
//! Every server of a lab is told where its folder is. So what runs is found from whatever process looks, after whatever crash, and
//! there is no file with a process id that could be of another program by now.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};
use crate::part::POLL;

/// What a lab starts; who looks at a file of the lab with another program is no part of it.
const PROGRAMS: [&str; 17] = [
    "etcd",
    "haproxy",
    "health",
    "initdb",
    "keepalived",
    "patroni",
    "pg_autoctl",
    "pg_basebackup",
    "pg_ctl",
    "pg_rewind",
    "pgbouncer",
    "pgpool",
    "postgres",
    "repmgr",
    "repmgrd",
    "setpriv",
    "setsid",
];
/// What was sent SIGKILL is gone at once, unless its disk hangs.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A process that is no zombie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    /// In ticks since the machine's start: with `pid`, it is the name of one process for ever.
    started: u64,
    /// As in [`PROGRAMS`]; empty for another program.
    pub(crate) program: &'static str,
    args: Vec<Vec<u8>>,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (parent, started) = parse_stat(&stat)?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let args: Vec<Vec<u8>> = command.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        Some(Self { pid, parent, started, program: program(&args), args })
    }

    /// Whether it is this program, or what becomes it in a moment.
    pub(crate) fn is(&self, program: &str) -> bool {
        let becomes =
            || matches!(self.program, "setpriv" | "setsid") && self.args.iter().any(|arg| base(arg) == program);
        self.program == program || becomes()
    }

    fn is_of(&self, dir: &Path) -> bool {
        !self.program.is_empty() && self.args.iter().any(|arg| mentions(arg, dir.as_os_str().as_bytes()))
    }

    /// Nothing where it is gone by now: a number that was given to another process is not taken for it.
    fn send(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
            && Self::read(self.pid).is_some_and(|now| now.started == self.started)
        {
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
}

/// What runs for a folder: the servers that were told of it, and all that those started.
pub(crate) fn of(dir: &Path) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<Process> = pids.filter_map(Process::read).collect();
    let mut found: BTreeSet<i32> = all.iter().filter(|process| process.is_of(dir)).map(|process| process.pid).collect();
    loop {
        let before = found.len();
        let children = all.iter().filter(|process| found.contains(&process.parent)).map(|process| process.pid);
        found.extend(children.collect::<Vec<_>>());
        if found.len() == before {
            return all.into_iter().filter(|process| found.contains(&process.pid)).collect();
        }
    }
}

/// The programs that run for a folder, each once.
pub(crate) fn programs(dir: &Path) -> BTreeSet<&'static str> {
    of(dir).into_iter().map(|process| process.program).filter(|program| !program.is_empty()).collect()
}

/// SIGKILL to all of it at once, until nothing is left. It looks twice: a program that is just beginning has no command line.
pub(crate) async fn kill(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + KILL_DEADLINE;
    let mut killed = BTreeSet::new();
    let mut nothing = 0;
    while nothing < 2 {
        let found = kill_all(dir);
        match found.first() {
            None => nothing += 1,
            Some(process) if Instant::now() > deadline => {
                return Err(Error::StillRunning { pid: process.pid, dir: dir.to_path_buf() });
            }
            Some(_) => nothing = 0,
        }
        killed.extend(found.iter().map(|process| process.pid));
        sleep(POLL).await;
    }
    // PostgreSQL takes a process for running until its parent, which is init by now, has taken note of its end. Children of this
    // process are taken note of by whoever has started them.
    while killed.iter().any(|pid| is_orphan(*pid)) && Instant::now() < deadline {
        sleep(POLL).await;
    }
    Ok(())
}

/// SIGKILL to what is there now. One that was there.
pub(crate) fn kill_once(dir: &Path) -> Option<i32> {
    kill_all(dir).first().map(|process| process.pid)
}

/// Who starts others goes first.
fn kill_all(dir: &Path) -> Vec<Process> {
    let mut found = of(dir);
    found.sort_by_key(|process| (!is_keeper(process.program), process.started));
    found.iter().for_each(|process| process.send(Signal::KILL));
    found
}

/// Whether it is a zombie that is not this process's own.
fn is_orphan(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
    let zombie = fields.next() == Some("Z");
    let parent = fields.next().and_then(|parent| parent.parse::<u32>().ok());
    zombie && parent != Some(std::process::id())
}

/// Tells pgpool to end, whose shared memory would stay for good if it were killed. Whether there is one.
pub(crate) fn end_tidily(dir: &Path) -> bool {
    let found: Vec<Process> = of(dir).into_iter().filter(|process| process.program == "pgpool").collect();
    tops(&found).for_each(|process| process.send(gentle(process.program)));
    !found.is_empty()
}

/// Has a program of a folder read its configuration again.
pub(crate) fn reload(dir: &Path, program: &str) {
    let found: Vec<Process> = of(dir).into_iter().filter(|process| process.program == program).collect();
    tops(&found).for_each(|process| process.send(Signal::HUP));
}

/// Those that none of the others started: the rest is theirs to end.
fn tops(found: &[Process]) -> impl Iterator<Item = &Process> {
    found.iter().filter(|process| !found.iter().any(|other| other.pid == process.parent))
}

/// Ends these programs of a folder in good order; where `patience` is not enough, with SIGKILL.
pub(crate) async fn stop(dir: &Path, programs: &[&str], patience: Duration) -> Result<()> {
    let chosen = || of(dir).into_iter().filter(|process| programs.contains(&process.program)).collect::<Vec<_>>();
    tops(&chosen()).for_each(|process| process.send(gentle(process.program)));
    let deadline = Instant::now() + patience;
    while !chosen().is_empty() {
        if Instant::now() > deadline + KILL_DEADLINE {
            let pid = chosen().first().map_or(0, |process| process.pid);
            return Err(Error::StillRunning { pid, dir: dir.to_path_buf() });
        }
        if Instant::now() > deadline {
            chosen().iter().for_each(|process| process.send(Signal::KILL));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Sessions are ended, not waited for.
fn gentle(program: &str) -> Signal {
    match program {
        "postgres" | "pgpool" => Signal::INT,
        // To anything else it waits for its clients, since 1.23.
        "pgbouncer" => Signal::QUIT,
        _ => Signal::TERM,
    }
}

fn is_keeper(program: &str) -> bool {
    matches!(program, "patroni" | "pg_autoctl" | "repmgrd")
}

/// A script is known by its own name, and a subcommand of pgtenant by its.
fn program(args: &[Vec<u8>]) -> &'static str {
    let word = |at: usize| args.get(at).map(|arg| base(arg)).unwrap_or_default();
    let mut name = word(0);
    if name.starts_with("python3") || name == "pgtenant" {
        name = word(1);
    }
    PROGRAMS.into_iter().find(|known| *known == name).unwrap_or_default()
}

/// The last part of a path; a process that has named itself has a colon behind its name.
fn base(arg: &[u8]) -> String {
    let text = String::from_utf8_lossy(arg);
    text.rsplit('/').next().unwrap_or_default().trim_end_matches(':').to_owned()
}

/// Whether the path, or one below it, is in the argument.
fn mentions(arg: &[u8], path: &[u8]) -> bool {
    let mut places = arg.windows(path.len()).enumerate().filter(|(_, window)| *window == path);
    places.any(|(at, _)| matches!(arg.get(at + path.len()), None | Some(b'/')))
}

/// Parent and start time; none for a zombie. The second field is in parentheses and may hold anything.
fn parse_stat(stat: &str) -> Option<(i32, u64)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some((parent, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_not_taken_for_another_one() {
        assert!(mentions(b"--pgdata=/lab/node-1/data", b"/lab/node-1"));
        assert!(mentions(b"/lab/node-1", b"/lab/node-1"));
        assert!(!mentions(b"/lab/node-10/data", b"/lab/node-1"));
        assert!(mentions(b"/lab/node-10:/lab/node-1/x", b"/lab/node-1"));
        assert!(!mentions(b"", b"/lab/node-1"));
    }

    #[test]
    fn programs_by_their_command_lines() {
        let args = |text: &str| text.split(' ').map(|arg| arg.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(program(&args("/usr/bin/python3 /usr/bin/patroni /lab/patroni.yml")), "patroni");
        assert_eq!(program(&args("/usr/lib/postgresql/15/bin/postgres -D /lab/data")), "postgres");
        assert_eq!(program(&args("target/debug/pgtenant health --listen x")), "health");
        assert_eq!(program(&args("target/debug/pgtenant lab up")), "");
        assert_eq!(program(&args("tail -f /lab/node-1/log")), "");
    }

    #[test]
    fn what_stat_says() {
        let fields = "1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        assert_eq!(parse_stat(&format!("42 (a) b) S {fields}")), Some((1, 4711)));
        assert_eq!(parse_stat(&format!("42 (a) Z {fields}")), None);
        let me = std::process::id().cast_signed();
        assert_eq!(Process::read(me).map(|process| process.pid), Some(me));
    }
}
