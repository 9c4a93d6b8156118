//! Why a wish is not written down.

use pgtenant_model::{ClaimKey, InvalidField, MovePhase, RestorePhase, Source};
use uuid::Uuid;

use crate::LedgerError;

/// Why a wish was not written down. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such claim.
    #[error("there is no database {0}")]
    NotFound(ClaimKey),
    /// It is there with another spec.
    #[error("database {0} exists with another spec; change it with PATCH")]
    Exists(ClaimKey),
    /// `{namespace}-{name}` means a database that another claim owns.
    #[error("the name {database:?} on cluster {cluster:?} belongs to another claim; choose another name")]
    NameTaken {
        /// The database.
        database: String,
        /// The cluster.
        cluster: String,
        /// Its owner: for the log and the platform team, not for other tenants.
        owner: String,
    },
    /// Another door made the claim.
    #[error("database {key} is managed by {}; release it there first", .source_door.as_str())]
    OtherDoor {
        /// The claim.
        key: ClaimKey,
        /// The door that made it.
        source_door: Source,
    },
    /// It is being removed.
    #[error("database {0} is being removed; try again when it is gone")]
    Deleting(ClaimKey),
    /// It is kept without a claim.
    #[error("database {0} is Retained; define it again or adopt it first")]
    Retained(ClaimKey),
    /// Protected databases are not removed.
    #[error("database {0} is protected; switch its mode to standard first, or release it to keep the database")]
    Protected(ClaimKey),
    /// The claim has changed since it was read.
    #[error("database {key} is at generation {found}; read it again")]
    Changed {
        /// The claim.
        key: ClaimKey,
        /// Its generation now.
        found: i64,
    },
    /// A field that can not be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<InvalidField>),
    /// The namespace has as many as it may have.
    #[error("namespace {namespace:?} has {limit} databases on cluster {cluster:?}, which is its limit")]
    Quota {
        /// The tenant.
        namespace: String,
        /// The cluster.
        cluster: String,
        /// `limits.databasesPerNamespace`.
        limit: u32,
    },
    /// There is no such restore.
    #[error("there is no restore {0}")]
    NoRestore(Uuid),
    /// One restore of a database at a time.
    #[error("a restore of database {0} is under way; wait for its end, or cancel it")]
    RestoreOpen(ClaimKey),
    /// It is too late.
    #[error("the restore {id} is {phase:?}: it is too late for that")]
    RestoreOver {
        /// The restore.
        id: Uuid,
        /// Where it is.
        phase: RestorePhase,
    },
    /// There is nothing to go back to.
    #[error("the restore {0} has put no database aside, or it was kept long enough: there is nothing to go back to")]
    NothingAside(Uuid),
    /// The namespace has as many restores as it may have.
    #[error("namespace {namespace:?} has {limit} restores that are not over, which is the limit; try again later")]
    TooManyRestores {
        /// The tenant.
        namespace: String,
        /// How many it may have.
        limit: i64,
    },
    /// One move of a database at a time, and no restore meanwhile.
    #[error("database {0} is being moved to another cluster; wait for its end, or cancel it")]
    MoveOpen(ClaimKey),
    /// There is no such move.
    #[error("database {0} has no such move")]
    NoMove(ClaimKey),
    /// It is too early, or too late.
    #[error(
        "the move of {key} is {phase:?}: only one that waits is confirmed, and none is cancelled once it has begun"
    )]
    MoveNotWaiting {
        /// The claim.
        key: ClaimKey,
        /// Where it is.
        phase: MovePhase,
    },
    /// Somebody else has to say it.
    #[error("{0}")]
    NotYours(&'static str),
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(error.into())
    }
}

impl Refused {
    /// One word for a condition's reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NotFound",
            Self::Exists(_) => "Exists",
            Self::NameTaken { .. } => "NameTaken",
            Self::OtherDoor { .. } => "OtherDoor",
            Self::Deleting(_) => "Deleting",
            Self::Retained(_) => "Released",
            Self::Protected(_) => "Protected",
            Self::Changed { .. } => "Changed",
            Self::Invalid(_) => "Invalid",
            Self::Quota { .. } => "QuotaExceeded",
            Self::NoRestore(_) => "NoRestore",
            Self::RestoreOpen(_) => "RestoreOpen",
            Self::RestoreOver { .. } => "RestoreOver",
            Self::NothingAside(_) => "NothingAside",
            Self::TooManyRestores { .. } => "TooManyRestores",
            Self::MoveOpen(_) => "MoveOpen",
            Self::NoMove(_) => "NoMove",
            Self::MoveNotWaiting { .. } => "MoveNotWaiting",
            Self::NotYours(_) => "NotYours",
            Self::Ledger(_) => "LedgerUnavailable",
        }
    }
}

pub(crate) type Result<T, E = Refused> = std::result::Result<T, E>;
