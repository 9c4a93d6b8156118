//! What can go wrong with dumps, and what to do about it.

use std::io;

/// Why a dump could not be written, read, listed or removed. The text says what and where, [`SnapshotError::advice`] what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// There is no such thing.
    #[error("{location} is not there")]
    NotThere {
        /// Where it would be.
        location: String,
    },
    /// The place refuses.
    #[error("{location}: refused: {message}")]
    Denied {
        /// Where.
        location: String,
        /// What the place said.
        message: String,
    },
    /// The place, or the way to it, is out of order; later it may work.
    #[error("{location} can not be reached: {message}")]
    Unreachable {
        /// Where.
        location: String,
        /// What was seen.
        message: String,
    },
    /// There is no room.
    #[error("{location}: there is no room: {message}")]
    Full {
        /// Where.
        location: String,
        /// What the place said.
        message: String,
    },
    /// The place gave an answer that is none.
    #[error("{location}: {message}")]
    Unexpected {
        /// Where.
        location: String,
        /// What is wrong with it.
        message: String,
    },
    /// What is there is not what was written.
    #[error("{location} is not what was written there: {what}")]
    Corrupt {
        /// Where.
        location: String,
        /// How that is known.
        what: String,
    },
    /// It changed while it was read.
    #[error("{location} changed while it was read")]
    Changed {
        /// Where.
        location: String,
    },
    /// A newer pgtenant has written it.
    #[error("{location} has format {format}; this pgtenant knows {known} and older ones")]
    Newer {
        /// Where.
        location: String,
        /// Its format.
        format: u64,
        /// The newest that is known.
        known: u32,
    },
    /// No private key is configured.
    #[error("dumps can not be opened: no identity file is configured")]
    NoIdentity,
    /// A file with a private key, or a password, can not be used. The text quotes nothing of it.
    #[error("{file} can not be used: {why}")]
    KeyFile {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// The private key is of none of the recipients.
    #[error("{location} is encrypted for {}, and the identity file holds {}", wanted.join(", "), held.join(", "))]
    WrongIdentity {
        /// Where.
        location: String,
        /// Public keys that it is encrypted for.
        wanted: Vec<String>,
        /// Public keys of the private keys that are held.
        held: Vec<String>,
    },
    /// Nobody who holds a private key that is known here has sealed it.
    #[error("{location} is not sealed by a key of the identity file: anybody who can write there may have made it")]
    NotSealed {
        /// Where.
        location: String,
    },
    /// A name that is none.
    #[error(
        "{what} {value:?} can not be used: use 1 to 100 of a-z, 0-9, hyphens, dots and underscores, a letter or digit first"
    )]
    Name {
        /// What is named.
        what: &'static str,
        /// The name.
        value: String,
    },
    /// A part of that name was written before.
    #[error("part {0:?} was written to this dump before")]
    Twice(String),
    /// There is no part of that name in the dump.
    #[error("{location} has no part {part:?}")]
    NoPart {
        /// The dump.
        location: String,
        /// The part.
        part: String,
    },
    /// The stream that was to be stored broke off.
    #[error("the stream that was to be stored broke off")]
    Source(#[source] io::Error),
}

impl SnapshotError {
    /// Whether the same call may work later, with nothing changed by anybody.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Changed { .. })
    }

    /// What a person can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotThere { .. } => {
                "look at the list of snapshots; it may have been removed, or never have been finished"
            }
            Self::Denied { .. } => {
                "give pgtenant the right to read, write, list and delete there, or correct its credentials"
            }
            Self::Unreachable { .. } => "it is tried again; if that lasts, see to the place and the way to it",
            Self::Full { .. } => "make room where dumps are kept, or keep them for a shorter time",
            Self::Unexpected { .. } => "check the address of the place, and whether what answers there is the store",
            Self::Corrupt { .. } => "take another snapshot, and see who else can write to the place",
            Self::Changed { .. } => "see who else writes to the place",
            Self::Newer { .. } => "use a newer pgtenant",
            Self::NoIdentity => "set backups.dumps.identityFile to a file with a private key of one of the recipients",
            Self::KeyFile { .. } => {
                "put the key there as `age-keygen -o FILE` writes it, for pgtenant's user alone (mode 0600)"
            }
            Self::WrongIdentity { .. } => "put the private key of one of those recipients into the identity file",
            Self::NotSealed { .. } => {
                "restore it only after somebody has made sure where it comes from, and has allowed dumps that are not sealed"
            }
            Self::Name { .. } | Self::Twice(_) | Self::NoPart { .. } => "this is a fault of pgtenant: report it",
            Self::Source(_) => "see what the database said",
        }
    }

    /// What, why, and what to do, in one line.
    #[must_use]
    pub fn explain(&self) -> String {
        match self {
            Self::Source(source) => format!("{self}: {source}; {}", self.advice()),
            other => format!("{other}; {}", self.advice()),
        }
    }

    /// The error that a part's stream broke off with.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    pub(crate) fn corrupt(location: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Corrupt { location: location.into(), what: what.into() }
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        let kind = match &error {
            SnapshotError::NotThere { .. } | SnapshotError::NoPart { .. } => io::ErrorKind::NotFound,
            SnapshotError::Denied { .. } => io::ErrorKind::PermissionDenied,
            SnapshotError::Full { .. } => io::ErrorKind::StorageFull,
            SnapshotError::Corrupt { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
