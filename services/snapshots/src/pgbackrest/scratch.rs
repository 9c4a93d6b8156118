//! A server that is made of a backup for one restore, and removed.
//!
//! ```text
//! {scratch}/{the restore's id}/      0700, the server's user
//!   data/ tablespaces/               what pgBackRest has restored
//!   restored                         what it was restored to; written last
//!   postgresql.conf pg_hba.conf      its own: of those of the cluster nothing is read
//!   s/                               the socket
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Account, Backup, PgBackRestError, Repository};

/// What a server is like at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As soon as the backup is consistent.
    Backup(String),
    /// As it was then.
    Time(DateTime<Utc>),
}

/// A server of a restore.
#[derive(Debug, Clone)]
pub struct Scratch {
    repository: Repository,
    account: Account,
    dir: PathBuf,
}

/// A path of a socket may be so long, with its end (`sun_path` in unix(7)).
const LONGEST_SOCKET: usize = 107;
const SOCKET: &str = "s/.s.PGSQL.5432";
/// A restore of terabytes; whoever waits holds a lease all the time.
const RESTORE_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// For the log that is read before it takes connections.
const START_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// After this time a process that is to end is not asked any more.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(100);

/// Settings of its own. It serves one restore and goes: nothing has to outlive a crash. Whatever the cluster has loaded and archived,
/// this one does not; without standby sessions its limits need not be as high as the cluster's.
const CONF: &str = "listen_addresses = ''\nport = 5432\nunix_socket_permissions = 0700\nssl = off\narchive_mode = off\n\
     hot_standby = off\nshared_preload_libraries = ''\nsession_preload_libraries = ''\nlocal_preload_libraries = ''\n\
     max_logical_replication_workers = 0\nmax_connections = 60\nmax_prepared_transactions = 100\nshared_buffers = 128MB\n\
     huge_pages = off\nfsync = off\nfull_page_writes = off\nautovacuum = off\nlogging_collector = off\n\
     log_destination = 'stderr'\nprimary_conninfo = ''\n";
/// Only who may enter the folder of the socket comes in.
const HBA: &str = "local all all trust\n";

impl Scratch {
    /// The server of restore `id`; nothing is made yet.
    ///
    /// # Errors
    /// The folder for servers can not be used.
    pub fn new(repository: &Repository, id: Uuid) -> Result<Self, PgBackRestError> {
        let folder = &repository.spec.scratch;
        let account = Account::of(folder)?;
        let dir = folder.join(id.simple().to_string());
        if dir.join(SOCKET).as_os_str().len() > LONGEST_SOCKET {
            let text = format!("backups.pgbackrest.scratch: {} is too long for a socket in it", folder.display());
            return Err(PgBackRestError::Settings(text));
        }
        Ok(Self { repository: repository.clone(), account, dir })
    }

    /// Restores of which something is in the folder for servers.
    ///
    /// # Errors
    /// The folder can not be read.
    pub fn all(repository: &Repository) -> Result<Vec<Uuid>, PgBackRestError> {
        let entries = fs::read_dir(&repository.spec.scratch)
            .map_err(|error| PgBackRestError::failed("look for servers", error))?;
        let id =
            |entry: fs::DirEntry| Uuid::try_parse(entry.file_name().to_str().filter(|name| name.len() == 32)?).ok();
        Ok(entries.filter_map(Result::ok).filter_map(id).collect())
    }

    /// Restores `backup`, unless that is done; what a killed process has left of it goes first.
    ///
    /// # Errors
    /// There is no room, or pgBackRest failed.
    pub async fn restore(&self, backup: &Backup, target: &Target) -> Result<(), PgBackRestError> {
        let marker = self.dir.join("restored");
        // What this boot has not written may be lost: nothing was synchronised to the disk.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let restored = format!("{target:?} {}", boot.trim());
        if fs::read_to_string(&marker).is_ok_and(|text| text == restored) {
            return Ok(());
        }
        self.remove().await?;
        self.check_room(backup)?;
        let made = || {
            self.account.make_dir(&self.dir)?;
            for folder in ["data", "tablespaces", "lock", "s"] {
                self.account.make_dir(&self.dir.join(folder))?;
            }
            io::Result::Ok(())
        };
        made().map_err(|error| PgBackRestError::failed(format!("make {}", self.dir.display()), error))?;
        self.run_restore(target).await?;
        self.account.write(&marker, &restored).map_err(|error| PgBackRestError::failed("note the restore", error))
    }

    async fn run_restore(&self, target: &Target) -> Result<(), PgBackRestError> {
        let of = |name: &str| self.dir.join(name).display().to_string();
        let mut command = self.repository.command(&self.account, "restore");
        command
            .arg(format!("--pg1-path={}", of("data")))
            .arg(format!("--tablespace-map-all={}", of("tablespaces")))
            .arg(format!("--lock-path={}", of("lock")))
            .args(["--archive-mode=off", "--target-action=promote", "--process-max=2"]);
        match target {
            Target::Backup(label) => command.arg(format!("--set={label}")).arg("--type=immediate"),
            Target::Time(at) => {
                command.arg("--type=time").arg(format!("--target={}", at.format("%Y-%m-%d %H:%M:%S%.6f+00")))
            }
        };
        super::run(command, "pgbackrest restore", RESTORE_WITHIN).await.map(drop)
    }

    fn check_room(&self, backup: &Backup) -> Result<(), PgBackRestError> {
        let folder = &self.repository.spec.scratch;
        let found = rustix::fs::statvfs(folder).map_err(|error| PgBackRestError::failed("ask for the room", error))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        // What is read of the log comes on top of it.
        let needed = backup.size + backup.size / 10;
        if needed <= free {
            return Ok(());
        }
        let (folder, label) = (folder.display(), &backup.label);
        Err(PgBackRestError::Full(format!("{folder} has {free} bytes left, and {label} takes about {needed}")))
    }

    /// Starts the server, unless it runs, and waits until it has read the log and takes connections. Says in which folder its socket is.
    ///
    /// # Errors
    /// There is no PostgreSQL of its version, or it did not come up.
    pub async fn start(&self) -> Result<PathBuf, PgBackRestError> {
        let data = self.dir.join("data");
        let major = fs::read_to_string(data.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
        let major =
            major.ok_or_else(|| PgBackRestError::failed("start the restored server", "it has no PG_VERSION"))?;
        let log = self.dir.join("postgres.log");
        if self.postmaster().is_none() {
            self.spawn(major, &data, &log)?;
        }
        let begun = Instant::now();
        loop {
            if self.is_ready() {
                return Ok(self.dir.join("s"));
            }
            // It writes its pid in its first moments.
            if self.postmaster().is_none() && begun.elapsed() > Duration::from_secs(5) {
                return Err(self.failure(&log));
            }
            if begun.elapsed() > START_WITHIN {
                return Err(PgBackRestError::failed("start the restored server", "it still reads the log"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn spawn(&self, major: u32, data: &Path, log: &Path) -> Result<(), PgBackRestError> {
        let (conf, hba) = (self.dir.join("postgresql.conf"), self.dir.join("pg_hba.conf"));
        let written = || {
            self.account.write(&conf, CONF)?;
            self.account.write(&hba, HBA)?;
            self.account.write(log, "")?;
            fs::OpenOptions::new().append(true).open(log)
        };
        let what = "start the restored server";
        let out = written().map_err(|error| PgBackRestError::failed(what, error))?;
        let errors = out.try_clone().map_err(|error| PgBackRestError::failed(what, error))?;
        let program = self.repository.program(major, "postgres");
        let mut command = self.account.command(&program);
        command.arg("-D").arg(data);
        // On the command line they win over what ALTER SYSTEM has left in the data folder.
        for line in CONF.lines() {
            command.arg("-c").arg(line.replacen(" = ", "=", 1).replace('\'', ""));
        }
        for (name, path) in
            [("config_file", &conf), ("hba_file", &hba), ("unix_socket_directories", &self.dir.join("s"))]
        {
            command.arg("-c").arg(format!("{name}={}", path.display()));
        }
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        // It outlives this process, and whoever comes next goes on with it.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PgBackRestError::Settings(format!(
                "{} is not there: install PostgreSQL {major} on the control plane's machine, or name its folder in \
                 backups.pgbackrest.binaries",
                program.display()
            )),
            _ => PgBackRestError::failed(what, error),
        })?;
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    fn failure(&self, log: &Path) -> PgBackRestError {
        let text = fs::read_to_string(log).unwrap_or_default();
        if text.contains("recovery ended before configured recovery target was reached") {
            return PgBackRestError::LogEnds;
        }
        let last = text.lines().rev().find(|line| line.contains("FATAL") || line.contains("PANIC"));
        PgBackRestError::failed(
            "start the restored server",
            last.or_else(|| text.lines().last()).unwrap_or("it said nothing"),
        )
    }

    /// The eighth line of the file is `ready` from then on (`src/include/utils/pidfile.h`).
    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap_or_default();
        self.postmaster().is_some() && file.lines().nth(7).is_some_and(|status| status.trim() == "ready")
    }

    fn postmaster(&self) -> Option<Pid> {
        let file = fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?;
        self.process(file.lines().next()?)
    }

    /// pgBackRest at work here, and the processes by which it copies: these outlive it for as long as one file takes.
    fn restoring(&self) -> Vec<Pid> {
        let sign = format!("--pg1-path={}", self.dir.join("data").display());
        let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let of_ours = |entry: fs::DirEntry| {
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let ours = command.split(|byte| *byte == 0).any(|argument| argument == sign.as_bytes());
            ours.then(|| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)).flatten()
        };
        processes.filter_map(of_ours).collect()
    }

    /// A process that runs, and was started for this folder: a number may be another one's by now.
    fn process(&self, pid: &str) -> Option<Pid> {
        let pid: i32 = pid.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = String::from_utf8_lossy(&command).contains(&*self.dir.to_string_lossy());
        Pid::from_raw(pid).filter(|_| ours)
    }

    /// Stops what runs and removes all of it; nothing happens where there is nothing.
    ///
    /// # Errors
    /// A process does not end, or a file can not be removed.
    pub async fn remove(&self) -> Result<(), PgBackRestError> {
        if !self.dir.exists() {
            return Ok(());
        }
        if let Some(pid) = self.postmaster() {
            self.end(pid, Signal::QUIT).await?;
        }
        for pid in self.restoring() {
            self.end(pid, Signal::KILL).await?;
        }
        let dir = self.dir.clone();
        let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(dir)).await;
        match removed.map_err(io::Error::other).and_then(|removed| removed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PgBackRestError::failed(format!("remove {}", self.dir.display()), error))
            }
            _ => Ok(()),
        }
    }

    async fn end(&self, pid: Pid, signal: Signal) -> Result<(), PgBackRestError> {
        let number = pid.as_raw_nonzero().to_string();
        if self.process(&number).is_some() {
            kill_process(pid, signal).ok();
        }
        let begun = Instant::now();
        while test_kill_process(pid).is_ok() && self.process(&number).is_some() {
            if begun.elapsed() > STOP_WITHIN {
                kill_process(pid, Signal::KILL).ok();
                return Err(PgBackRestError::failed(
                    format!("end process {pid:?} of {}", self.dir.display()),
                    "it goes on",
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}
