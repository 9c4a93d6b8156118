//! What can go wrong with local servers, and what to do about it.

use std::io;
use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what happened and what a user can do; sources are not repeated in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not on this machine.
    #[error(
        "`{name}` was not found: install it (`apt-get install {package}`), or set PGTENANT_PG_BIN to the folder that has it"
    )]
    MissingBinary {
        /// The program.
        name: &'static str,
        /// The Debian package that has it.
        package: String,
    },
    /// The versions script has not been run, or not for this version.
    #[error("PostgreSQL {major} is not in {dir}: fetch it with `.ci/postgres-versions {major}`")]
    NotCached {
        /// Major version asked for.
        major: u32,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The server found is too old or too new.
    #[error(
        "PostgreSQL {found} in {dir} is not supported: install one of 14 to 18, or set PGTENANT_PG_BIN to its bin folder"
    )]
    UnsupportedVersion {
        /// Version as the server says it.
        found: String,
        /// The folder with the binaries.
        dir: PathBuf,
    },
    /// The data folder was made by another major version.
    #[error(
        "{dir} holds data of PostgreSQL {data}, but the server found is PostgreSQL {server}: \
         install postgresql-{data}, or choose another --dir"
    )]
    VersionMismatch {
        /// The folder.
        dir: PathBuf,
        /// Its major version.
        data: u32,
        /// The binaries' major version.
        server: u32,
    },
    /// Something listens on the port.
    #[error("port {port} for {server} is in use: stop the program that listens there, or choose another port")]
    PortInUse {
        /// The port, on 127.0.0.1 or ::1.
        port: u16,
        /// Which server wanted it.
        server: String,
    },
    /// Another process has this folder open.
    #[error("{dir} is in use by another running pgtenant: stop that one, or choose another --dir")]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// An earlier server on the same data did not end.
    #[error("an earlier server (process {pid}) still runs on {dir} and does not stop: end it with `kill -QUIT {pid}`")]
    StillRunning {
        /// Its process.
        pid: i32,
        /// The data folder.
        dir: PathBuf,
    },
    /// Started as root, and there is no user to run the servers as.
    #[error(
        "PostgreSQL refuses to run as root, and /etc/passwd has neither a user postgres nor nobody: create one, or start as another user"
    )]
    NoAccount,
    /// The servers' user may not enter a folder on the way to the programs.
    #[error(
        "user {user} can not enter {blocked}, which leads to the programs in {dir}: `chmod a+x {blocked}`, or install them elsewhere"
    )]
    Unreachable {
        /// The servers' user.
        user: String,
        /// The folder that may not be entered.
        blocked: PathBuf,
        /// The folder that was to be reached.
        dir: PathBuf,
    },
    /// Data that had been put aside (see [`crate::Cluster::relocated`]) is gone.
    #[error("{link} points to {target}, which is gone: bring it back, or delete {dir} to begin anew")]
    Lost {
        /// The symbolic link.
        link: PathBuf,
        /// Where it points.
        target: PathBuf,
        /// The cluster's folder.
        dir: PathBuf,
    },
    /// The cluster's own file can not be read.
    #[error("{path} is damaged: restore it, or delete its folder to begin anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A setting's name would be more than a name in a configuration file.
    #[error("`{name}` is not the name of a PostgreSQL setting")]
    BadSetting {
        /// As it was given.
        name: String,
    },
    /// A file or folder could not be read, written, or changed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program failed.
    #[error("`{program}` failed: {output}")]
    Command {
        /// The program's name.
        program: String,
        /// Its last lines, or why it could not run.
        output: String,
    },
    /// A server did not come up.
    #[error("PostgreSQL {node} did not start: {reason}; its log ends with:\n{log}")]
    Start {
        /// Which server.
        node: String,
        /// Ended, or too slow.
        reason: String,
        /// Last lines of its log.
        log: String,
    },
    /// A standby runs but gets nothing from its primary.
    #[error("standby {node} did not begin to stream from the primary within {seconds} s; its log ends with:\n{log}")]
    NotStreaming {
        /// Which server.
        node: String,
        /// How long it was waited for.
        seconds: u64,
        /// Last lines of its log.
        log: String,
    },
    /// A part of Kubernetes is not on this machine.
    #[error(
        "`{name}` was not found: run `make kubernetes` where pgtenant's sources are, or set KUBEBUILDER_ASSETS to the folder \
         that setup-envtest made"
    )]
    MissingKubernetes {
        /// The program.
        name: &'static str,
    },
    /// moto is not on this machine, and can not be had.
    #[error(
        "moto can not be started: {why}\ninstall Python 3 with venv and pip (`apt-get install python3-venv`), or have `moto_server` on PATH (`pip install '{package}'`)"
    )]
    MissingMoto {
        /// As pip names it.
        package: &'static str,
        /// What is missing, or did not work.
        why: String,
    },
    /// A part of Kubernetes, or moto, ended or did not come up.
    #[error("{program} {what}; its log ends with:\n{log}")]
    Part {
        /// The program.
        program: &'static str,
        /// Ended, or too slow.
        what: String,
        /// Last lines of its log.
        log: String,
    },
    /// A part of Kubernetes was asked over HTTP, and did not do it.
    #[error("{program} did not do what the lab asked of it")]
    Request {
        /// The program.
        program: &'static str,
        /// Its answer, or why there was none.
        source: reqwest::Error,
    },
    /// Programs of a kind of lab are not on this machine.
    #[error(
        "a lab of kind {kind} needs what is not installed: {what}\nhint: apt-get install --no-install-recommends {packages}"
    )]
    MissingPackages {
        /// The kind.
        kind: &'static str,
        /// The programs.
        what: String,
        /// Debian's packages, with spaces between.
        packages: String,
    },
    /// There is no PgBouncer that knows what is needed.
    #[error(
        "a pooler takes PgBouncer 1.21 or newer, and this machine has {found}\nhint: Debian 13, Ubuntu 24.04 and PostgreSQL's own packages (apt.postgresql.org) have it: apt-get install --no-install-recommends pgbouncer; where pgtenant's sources are, `.ci/pgbouncer` builds it"
    )]
    MissingPgBouncer {
        /// What is there.
        found: String,
    },
    /// There is no lab in the folder.
    #[error("there is no lab in {dir}\nhint: `pgtenant lab up --topology KIND` makes one; --dir names another folder")]
    NoLab {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has something else.
    #[error("{dir} is not empty, and not a lab's folder\nhint: choose another with --dir")]
    NotALab {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder's lab is of another kind.
    #[error(
        "the lab in {dir} is of kind {found}, not {wanted}\nhint: choose another folder with --dir, or remove that lab: `pgtenant lab down --remove --dir {dir}`"
    )]
    OtherKind {
        /// The folder.
        dir: PathBuf,
        /// Its lab's kind.
        found: &'static str,
        /// The kind that was asked for.
        wanted: &'static str,
    },
    /// The lab has no node of that name.
    #[error("the lab has no node {name}\nhint: it has {known}")]
    NoSuchNode {
        /// As it was given.
        name: String,
        /// The nodes there are.
        known: String,
    },
    /// The kind does not do that.
    #[error("{what}\nhint: {instead}")]
    Unsuited {
        /// What can not be done.
        what: String,
        /// What to do instead.
        instead: String,
    },
    /// Something did not come about in time.
    #[error("{what} within {seconds} s; {log}")]
    Late {
        /// What did not.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// Last lines of a log, or what was seen.
        log: String,
    },
    /// An operation needs a standby and there is none.
    #[error("the cluster in {dir} has no running standby")]
    NoStandby {
        /// The cluster's folder.
        dir: PathBuf,
    },
    /// Certificates or keys could not be made.
    #[error("cannot make a certificate or a key in {dir}: if a key (*.key) there is damaged, delete it")]
    Certificate {
        /// The authority's folder.
        dir: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// The authority's certificate is none.
    #[error("the certificate authority in {dir} can not be used: delete ca.crt and ca.key there")]
    Authority {
        /// Its folder.
        dir: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The server answered with an error.
    #[error("PostgreSQL {node} refused what the lab asked of it")]
    Sql {
        /// Which server.
        node: String,
        /// Its answer.
        source: sqlx::Error,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
