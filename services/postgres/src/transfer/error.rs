//! What can go wrong while a database is copied.

use std::io;

use pgtenant_model::Finding;

use crate::error::{ErrorClass, PostgresError};

/// Something that did not work. `Display` says what to do where that is known; no password is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// A server did not do what it was asked to.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// No `pg_dump` on this machine can read such a server, or no `pg_restore` such an archive.
    #[error(
        "pg_dump and pg_restore of PostgreSQL {needed} or newer are needed on this machine; {found}. Install the package \
         postgresql-client-{needed}, or name the folder that they are in"
    )]
    NoTools {
        /// A major version.
        needed: u32,
        /// What was found, and where it was looked for.
        found: String,
    },
    /// `pg_dump` or `pg_restore` could not be started.
    #[error("{program} can not be started")]
    Start {
        /// Its path.
        program: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// `pg_dump` or `pg_restore` failed.
    #[error("{program} failed ({status}): {stderr}")]
    Tool {
        /// Its path.
        program: String,
        /// How it ended.
        status: String,
        /// What it said, cut where it is long.
        stderr: String,
    },
    /// More than is held in memory.
    #[error("{what} takes more than {} MiB, which is the limit; drop what is not needed, or copy the database by hand", limit >> 20)]
    TooLarge {
        /// What.
        what: String,
        /// In bytes.
        limit: usize,
    },
    /// Tables that the login can not read whole.
    #[error("{} can not be read whole: {reason}. {remedy}", tables.join(", "))]
    Unreadable {
        /// Their names, quoted.
        tables: Vec<String>,
        /// Why.
        reason: &'static str,
        /// Who can do what about it.
        remedy: &'static str,
    },
    /// The target has something in it already.
    #[error("database {database:?} is not empty: it has {example}; copy into a database that was just made")]
    NotEmpty {
        /// The target.
        database: String,
        /// One of the things in it.
        example: String,
    },
    /// Bytes that are no archive of `pg_dump`, or one that is not known.
    #[error("the archive of definitions can not be read: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },
    /// Definitions that the target does not take. Nothing is lost: the source is as it was.
    #[error("the target refuses {} of the definitions: {}", failures.len(), first(failures))]
    Refused {
        /// All of them, with what the server says.
        failures: Vec<Finding>,
    },
    /// A part's data did not arrive.
    #[error("{part}: its data did not arrive")]
    Data {
        /// The part.
        part: String,
        /// What came in their place.
        #[source]
        source: io::Error,
    },
    /// A part's data are not what they should be.
    #[error("{part}: its data are damaged: {reason}")]
    Damaged {
        /// The part.
        part: String,
        /// What is wrong.
        reason: String,
    },
    /// A commit was sent and no answer came.
    #[error(
        "{part}: it is not known whether it was written, as the connection broke: begin again with an empty database"
    )]
    Unknown {
        /// The part.
        part: String,
    },
    /// The target was started anew, or is another server now.
    #[error(
        "the target server was restarted meanwhile, so that what was written last may be lost: begin again with an empty database"
    )]
    Restarted,
    /// Something of this machine's.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}

impl TransferError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Postgres(error) => error.class(),
            Self::Data { source, .. } => Self::of(source).map_or(ErrorClass::Transient, Self::class),
            Self::Start { .. } | Self::Tool { .. } | Self::Io { .. } | Self::Unknown { .. } | Self::Restarted => {
                ErrorClass::Transient
            }
            Self::NoTools { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. }
            | Self::NotEmpty { .. }
            | Self::Archive { .. }
            | Self::Refused { .. }
            | Self::Damaged { .. } => ErrorClass::Refused,
        }
    }

    /// The error that a stream of data broke off with.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether the same part may well succeed on another connection.
    pub(super) fn broke(&self) -> bool {
        matches!(self, Self::Postgres(_) | Self::Data { .. }) && self.class() == ErrorClass::Moved
    }

    /// The code that the server gave, where it was the server.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.sqlstate(),
            _ => None,
        }
    }
}

fn first(failures: &[Finding]) -> String {
    const SHOWN: usize = 3;
    let shown = failures.iter().take(SHOWN).map(|Finding { object, message }| format!("{object}: {message}"));
    let more = if failures.len() > SHOWN { " …" } else { "" };
    shown.collect::<Vec<_>>().join("; ") + more
}
