//! A failure is a state that a person can read: at which step, what the server said, what to do, when the next try is.

use std::time::Duration;

use pgtenant_ledger::LedgerError;
use pgtenant_model::Maintenance;
use pgtenant_postgres::{ErrorClass, PostgresError, ProofError, Refusal};
use pgtenant_secrets::{Fault, StoreError, StoreErrors};
use pgtenant_topology::NoPrimary;
use rand::RngExt as _;

/// A step that did not come to its end.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its name, as fault points and conditions have it.
    pub(crate) step: &'static str,
    pub(crate) cause: Box<Cause>,
}

/// Why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Topology(#[from] NoPrimary),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreErrors),
    #[error("{}", .0.explain())]
    Reference(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Unproven(ProofError),
    #[error("this replica's lease on the claim has run out")]
    LeaseLost,
    #[error("{0}")]
    Settings(String),
    #[error("something else changes the database at the same time")]
    Unsettled,
    /// Somebody works on the cluster.
    #[error("cluster {cluster} is in maintenance since {}: {}", .maintenance.since.format("%Y-%m-%d %H:%M UTC"), .maintenance.reason)]
    Maintenance { cluster: String, maintenance: Maintenance },
}

impl Cause {
    /// Whether the primary may be another one now, or gone: it said so, or said nothing.
    pub(crate) fn moved(&self) -> bool {
        match self {
            Self::Postgres(PostgresError::Deadline { .. }) => true,
            Self::Postgres(error) => error.class() == ErrorClass::Moved,
            _ => false,
        }
    }
}

impl Failure {
    /// For `map_err`: a cause at `step`.
    pub(crate) fn at<E: Into<Cause>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self { step, cause: Box::new(cause.into()) }
    }

    /// What was wrong, with every source, and what to do.
    pub(crate) fn message(&self) -> String {
        let text = self.error();
        match self.advice() {
            Some(advice) => format!("{text}. What to do: {advice}"),
            None => text,
        }
    }

    /// What was wrong, with every source.
    pub(crate) fn error(&self) -> String {
        let mut text = self.cause.to_string();
        let mut source = std::error::Error::source(&*self.cause);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }

    /// What to do, for whoever reads nothing else.
    pub(crate) fn what_to_do(&self) -> String {
        self.advice().unwrap_or_else(|| {
            let usual = if self.needs_a_person() {
                "ask the platform team; it does not change by itself"
            } else {
                "wait, it is tried again by itself; ask the platform team if it stays so"
            };
            usual.to_owned()
        })
    }

    fn advice(&self) -> Option<String> {
        match &*self.cause {
            Cause::Postgres(error) => error.advice().map(|advice| advice.to_string()),
            Cause::Maintenance { .. } => Some("nothing here; work goes on by itself afterwards".to_owned()),
            Cause::Topology(_) => Some("nothing here; work goes on when a primary answers".to_owned()),
            Cause::Store(errors) => Some(format!("{}; the credential that was there stays valid", errors.advice())),
            Cause::Refused(_)
            | Cause::Reference(_)
            | Cause::Ledger(_)
            | Cause::Unproven(_)
            | Cause::LeaseLost
            | Cause::Settings(_)
            | Cause::Unsettled => None,
        }
    }

    /// One word for the condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match &*self.cause {
            Cause::Topology(_) => "ClusterUnavailable",
            Cause::Refused(_) => "NotOurs",
            Cause::Store(errors) if errors.any(|fault| matches!(fault, Fault::Foreign(_))) => "StoreConflict",
            Cause::Store(_) => "StoreFailed",
            Cause::Reference(_) => "BadSettings",
            Cause::Ledger(_) => "LedgerUnavailable",
            Cause::Unproven(_) => "LoginFailed",
            Cause::LeaseLost => "LeaseLost",
            Cause::Settings(_) => "BadSettings",
            Cause::Unsettled => "ServerBusy",
            Cause::Maintenance { .. } => "Maintenance",
            Cause::Postgres(error) => match error.class() {
                ErrorClass::Moved => "ClusterUnavailable",
                ErrorClass::Fenced => "LeaseLost",
                ErrorClass::Transient | ErrorClass::Conflict => "ServerBusy",
                ErrorClass::Refused => "ServerRefused",
            },
        }
    }

    /// Which part's condition it falsifies.
    pub(crate) fn part(&self) -> &'static str {
        match self.step {
            "store" | "prove" => "Credentials",
            _ => "Database",
        }
    }

    /// Whether nothing changes until a person does something.
    pub(crate) fn needs_a_person(&self) -> bool {
        match &*self.cause {
            Cause::Refused(_) | Cause::Settings(_) => true,
            Cause::Postgres(error) => error.class() == ErrorClass::Refused,
            Cause::Topology(_)
            | Cause::Store(_)
            | Cause::Reference(_)
            | Cause::Ledger(_)
            | Cause::Unproven(_)
            | Cause::LeaseLost
            | Cause::Maintenance { .. }
            | Cause::Unsettled => false,
        }
    }

    /// Whether nothing has failed, and somebody works on the cluster.
    pub(crate) fn waits_for_maintenance(&self) -> bool {
        matches!(*self.cause, Cause::Maintenance { .. })
    }

    /// As [`Cause::moved`]. What happens to a tier's login says nothing of the server: a tenant may end its own sessions.
    pub(crate) fn moved(&self) -> bool {
        self.step != "prove" && self.cause.moved()
    }

    /// Whether the server refused the control plane's own login, which somebody may have changed.
    pub(crate) fn login_refused(&self) -> bool {
        let state = match &*self.cause {
            Cause::Postgres(error) => error.sqlstate(),
            _ => None,
        };
        self.step != "prove" && state == Some("28P01")
    }

    /// What the stores said, where they are the cause.
    pub(crate) fn stores(&self) -> Option<&StoreErrors> {
        match &*self.cause {
            Cause::Store(errors) => Some(errors),
            _ => None,
        }
    }

    /// Whether a store did not answer: another replica may be able to reach it.
    pub(crate) fn cut_off(&self) -> bool {
        self.stores().is_some_and(|errors| errors.any(Fault::silent))
    }

    /// Whether another replica may have the claim by now, so that nothing is to be written about it.
    pub(crate) fn lease_lost(&self) -> bool {
        match &*self.cause {
            Cause::LeaseLost => true,
            Cause::Postgres(error) => error.class() == ErrorClass::Fenced,
            _ => false,
        }
    }

    /// When to try again after `attempts` failed tries: exponential with full jitter, so that many claims that failed
    /// together do not come back together. What a person has to mend is tried at a slow pace.
    pub(crate) fn next_try(&self, attempts: i32) -> Duration {
        let (base, cap) = match (&*self.cause, self.needs_a_person()) {
            (_, true) => (5.0, 120.0),
            // Mostly over in a moment; but a tenant can hold a lock for days, and each try waits for it.
            (Cause::Postgres(error), _) if error.class() == ErrorClass::Conflict => (0.05, 60.0),
            (Cause::Topology(_), _) => (0.5, 5.0),
            _ => (0.3, 30.0),
        };
        let ceiling = f64::min(cap, base * 2_f64.powi(attempts.clamp(0, 12)));
        Duration::from_secs_f64(rand::rng().random_range(ceiling / 2.0..=ceiling))
    }
}
