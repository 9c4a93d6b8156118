//! Programs under test, and their output.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// A program that runs until it is told to end, or until this process or the value ends.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts it; `logs/NAME.out` and `.err` get what it says, after what earlier runs said.
    pub fn spawn(command: &Command, logs: &Path, name: &str) -> Self {
        let (out, err) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
        let append = |path: &Path| File::options().create(true).append(true).open(path).expect("a file for output");
        // Killed with this process: a run that is interrupted leaves nothing behind.
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => bound.env(name, value),
                None => bound.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            bound.current_dir(dir);
        }
        bound.stdin(Stdio::null()).stdout(append(&out)).stderr(append(&err)).process_group(0);
        Self { child: spawn_on_lasting_thread(bound), out, err, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has written to standard output.
    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    /// Everything that it has written to standard error.
    pub fn stderr(&self) -> String {
        read(&self.err)
    }

    /// Whether it still runs; a process that nobody has waited for yet does not.
    pub fn is_running(&self) -> bool {
        let stat = crate::read_proc(self.pid(), "stat");
        // The state follows the name, which stands in parentheses and may hold any character.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        self.ended.is_none() && state.is_some_and(|state| state != 'Z')
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("a process to send a signal to");
    }

    /// SIGKILL, and waits for the end of the process.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().ok();
            self.ended = self.child.wait().ok();
        }
    }

    /// Waits for its end.
    pub async fn end(&mut self, patience: Duration) -> ExitStatus {
        eventually(&format!("process {} ends", self.pid()), patience, || async {
            if self.is_running() { Err(format!("it runs\n{}", self.said())) } else { Ok(()) }
        })
        .await;
        *self.ended.get_or_insert_with(|| self.child.wait().expect("a child of this process"))
    }

    /// Waits for the first line of standard output that begins so.
    pub async fn line(&self, begin: &str, patience: Duration) -> String {
        self.find(&format!("a line beginning with {begin:?}"), patience, |out, _| {
            out.split_inclusive('\n').find(|line| line.starts_with(begin) && line.ends_with('\n')).map(str::to_owned)
        })
        .await
    }

    /// Waits until `find` finds something in standard output and standard error.
    pub async fn find<T>(&self, what: &str, patience: Duration, find: impl Fn(&str, &str) -> Option<T>) -> T {
        eventually(what, patience, || async {
            let running = self.is_running();
            if let Some(found) = find(&self.stdout(), &self.stderr()) {
                return Ok(found);
            }
            assert!(running, "the program has ended before {what}\n{}", self.said());
            Err(self.said())
        })
        .await
    }

    /// The end of what it said, for messages.
    pub fn said(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        format!("stdout:\n{}\nstderr:\n{}", tail(self.stdout()), tail(self.stderr()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The kernel sends the parent-death signal when the thread that forked ends, and tests have a thread each.
fn spawn_on_lasting_thread(command: Command) -> Child {
    type Job = (Command, SyncSender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in jobs {
                reply.send(command.spawn()).ok();
            }
        });
        sender
    });
    let (reply, answer) = sync_channel(1);
    spawner.send((command, reply)).expect("the thread that starts programs");
    answer.recv().expect("an answer").expect("setpriv of util-linux")
}
