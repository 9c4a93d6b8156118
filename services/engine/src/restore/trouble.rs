//! Why a step did not come to its end, and whether another try may help.

use std::time::Duration;

use pgtenant_ledger::LedgerError;
use pgtenant_postgres::transfer::TransferError;
use pgtenant_postgres::{ErrorClass, PostgresError, Refusal};
use pgtenant_snapshots::SnapshotError;
use rand::RngExt as _;

use crate::failure::{Cause, Failure};

/// A step that did not come to its end.
#[derive(Debug)]
pub(super) struct Trouble {
    /// What was wrong and what to do, for people.
    pub(super) message: String,
    pub(super) kind: Kind,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The step is done again.
    Again,
    /// It waits for something that is under way: no try counts.
    Wait,
    /// It waits for something that takes minutes: it is asked again after this time, and no try counts.
    Later(Duration),
    /// It would fail again.
    Final,
    /// There is no room for it on the cluster or on this machine.
    NoRoom,
    /// Another replica has it.
    LeaseLost,
}

/// How often a job that waits for the end of a maintenance looks.
const MAINTENANCE_LOOK: Duration = Duration::from_secs(10);
/// Tries of a step that fail for what may pass.
const MOST_TRIES: i32 = 12;

/// Whoever worked on it was gone each time before it could say anything, as one that takes more memory than there is.
pub(super) fn worn_out(attempts: i32) -> Option<Trouble> {
    let message =
        || format!("it was begun {attempts} times, and whoever worked on it was ended: see why the control plane was");
    (attempts >= MOST_TRIES).then(|| Trouble::last(message()))
}

impl Trouble {
    pub(super) fn last(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Final }
    }

    pub(super) fn wait(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Wait }
    }

    pub(super) fn later(message: impl Into<String>, after: Duration) -> Self {
        Self { message: message.into(), kind: Kind::Later(after) }
    }

    pub(super) fn again(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Again }
    }

    /// Whether nothing has failed.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.kind, Kind::Wait | Kind::Later(_))
    }

    /// Whether the step is given up after `attempts` failed tries before this one.
    pub(super) fn is_final(&self, attempts: i32) -> bool {
        match self.kind {
            Kind::Final | Kind::NoRoom => true,
            Kind::Again => attempts + 1 >= MOST_TRIES,
            Kind::Wait | Kind::Later(_) | Kind::LeaseLost => false,
        }
    }

    /// When to try again after `attempts` failed tries: exponential, with jitter.
    pub(super) fn next_try(&self, attempts: i32) -> Duration {
        match self.kind {
            Kind::Wait => return Duration::from_millis(300),
            Kind::Later(after) => return after,
            Kind::Again | Kind::Final | Kind::NoRoom | Kind::LeaseLost => {}
        }
        let ceiling = f64::min(60.0, 0.5 * 2_f64.powi(attempts.clamp(0, 10)));
        Duration::from_secs_f64(rand::rng().random_range(ceiling / 2.0..=ceiling))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

fn of_class(class: ErrorClass) -> Kind {
    match class {
        ErrorClass::Transient | ErrorClass::Moved | ErrorClass::Conflict => Kind::Again,
        ErrorClass::Fenced => Kind::LeaseLost,
        ErrorClass::Refused => Kind::Final,
    }
}

impl From<PostgresError> for Trouble {
    fn from(error: PostgresError) -> Self {
        Cause::from(error).into()
    }
}

impl From<Refusal> for Trouble {
    fn from(error: Refusal) -> Self {
        Cause::from(error).into()
    }
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        let kind = if matches!(error, LedgerError::Fenced(_)) { Kind::LeaseLost } else { Kind::Again };
        Self { message: chain(&error), kind }
    }
}

impl From<Cause> for Trouble {
    fn from(cause: Cause) -> Self {
        let kind = match &cause {
            Cause::Postgres(error) => of_class(error.class()),
            Cause::LeaseLost => Kind::LeaseLost,
            Cause::Maintenance { .. } => Kind::Later(MAINTENANCE_LOOK),
            Cause::Refused(_) | Cause::Settings(_) => Kind::Final,
            _ => Kind::Again,
        };
        Self { message: Failure::at::<Cause>("restore")(cause).message(), kind }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { message: failure.message(), kind: Self::from(*failure.cause).kind }
    }
}

impl From<TransferError> for Trouble {
    fn from(error: TransferError) -> Self {
        // A dump that is damaged stays so, however often it is read.
        let damaged = match &error {
            TransferError::Data { source, .. } => SnapshotError::of(source).is_some_and(|known| !known.is_retryable()),
            _ => false,
        };
        let kind = if damaged { Kind::Final } else { of_class(error.class()) };
        Self { message: chain(&error), kind }
    }
}

impl From<SnapshotError> for Trouble {
    fn from(error: SnapshotError) -> Self {
        let kind = match &error {
            SnapshotError::Source(source) => {
                TransferError::of(source).map_or(Kind::Again, |known| of_class(known.class()))
            }
            // Old dumps go, and people make room.
            SnapshotError::Full { .. } => Kind::Again,
            known if known.is_retryable() => Kind::Again,
            _ => Kind::Final,
        };
        Self { message: error.explain(), kind }
    }
}
