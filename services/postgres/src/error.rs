//! What can go wrong on a cluster, and what to do about it.

use std::time::Duration;

use tokio_postgres::error::DbError;

use crate::verifier::redact;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Try again later, with jitter.
    Transient,
    /// The primary may be another server now: ask the topology, then try again.
    Moved,
    /// Somebody else was at the same object: try again soon.
    Conflict,
    /// Another replica holds the claim: leave it.
    Fenced,
    /// It fails again until a human does something.
    Refused,
}

/// Something that did not work on a cluster. `Display` says what was tried and what the server answered; no password or
/// verifier is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The server answered with an error.
    #[error("{what}: {message} (SQLSTATE {sqlstate})")]
    Server {
        /// What was tried.
        what: String,
        /// Five characters.
        sqlstate: String,
        /// The server's message, detail and hint.
        message: String,
        /// The server's function that raised it; unlike the message it is never translated.
        routine: Option<String>,
        /// Whether it ended the session or kept it from beginning.
        fatal: bool,
    },
    /// The connection could not be made, or broke.
    #[error("{what}: {reason}")]
    Connection {
        /// What was tried.
        what: String,
        /// What the client library or the operating system says.
        reason: String,
    },
    /// No answer came in time; whether it was done is not known.
    #[error("{what}: no answer within {} s", after.as_secs_f32())]
    Deadline {
        /// What was tried.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// All connections that may be open at once were in use.
    #[error("{what}: none of the {limit} connections came free within {} s", after.as_secs_f32())]
    Busy {
        /// What was tried.
        what: String,
        /// How many there are.
        limit: usize,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server is a standby.
    #[error("{what}: the server is a standby")]
    Standby {
        /// What was tried.
        what: String,
    },
    /// The caller may no longer act for the claim.
    #[error("{what}: another replica holds the claim")]
    Fenced {
        /// What was tried.
        what: String,
    },
    /// What somebody else has put there is in the way.
    #[error("{what}: {reason}")]
    Occupied {
        /// What was tried.
        what: String,
        /// What is there, and who can do what about it.
        reason: String,
    },
    /// The plan can only be printed.
    #[error("role {role:?} has no password in this plan")]
    NoPassword {
        /// The role.
        role: String,
    },
    /// The server's answer is not what was asked for.
    #[error("{what}: {reason}")]
    Answer {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The client can not be set up as it was asked to.
    #[error("{what}: {reason}")]
    Setup {
        /// What is set up.
        what: String,
        /// What is wrong.
        reason: String,
    },
}

impl PostgresError {
    /// From the client library, while doing `what`.
    pub(crate) fn new(what: impl Into<String>, error: &tokio_postgres::Error) -> Self {
        let what = what.into();
        match error.as_db_error() {
            Some(answer) => Self::answer(what, answer),
            None => Self::Connection { what, reason: chain(error) },
        }
    }

    fn answer(what: String, error: &DbError) -> Self {
        let sqlstate = error.code().code().to_owned();
        let parts = [Some(error.message()), error.detail(), error.hint()];
        let message = parts.into_iter().flatten().map(redact).collect::<Vec<_>>().join("; ");
        let routine = error.routine().map(str::to_owned);
        let fatal = matches!(error.severity(), "FATAL" | "PANIC");
        Self::Server { what, sqlstate, message, routine, fatal }
    }

    /// The server's SQLSTATE, if it answered with one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { sqlstate, .. } => Some(sqlstate),
            _ => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            // Somebody's session is in a database that is to be dropped, and may not be ended: a superuser's, or one of
            // the control plane's own that is just closing.
            Self::Server { routine: Some(routine), .. } if routine == "TerminateOtherDBBackends" => {
                ErrorClass::Conflict
            }
            Self::Server { sqlstate, .. } => class_of(sqlstate),
            Self::Connection { .. } | Self::Standby { .. } => ErrorClass::Moved,
            Self::Deadline { .. } | Self::Busy { .. } => ErrorClass::Transient,
            Self::Fenced { .. } => ErrorClass::Fenced,
            Self::Occupied { .. } | Self::NoPassword { .. } | Self::Answer { .. } | Self::Setup { .. } => {
                ErrorClass::Refused
            }
        }
    }

    /// What a human should do, where there is something.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Server { sqlstate, .. } => advice_on(sqlstate),
            Self::Setup { .. } => Some("correct the cluster's settings"),
            Self::Connection { reason, .. } if reason.contains("certificate") => Some(
                "the server's certificate is not from the cluster's CA or not for this host name: see tls.caFile or \
                 tls.caSecretRef, and tls.sslmode",
            ),
            _ => None,
        }
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn class_of(sqlstate: &str) -> ErrorClass {
    match sqlstate {
        // read_only_sql_transaction; admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout
        "25006" | "57P01" | "57P02" | "57P03" | "57P05" => ErrorClass::Moved,
        // lock_not_available, object_in_use, a database that is just closed, serialization_failure, deadlock_detected, `tuple concurrently updated`,
        // a name that was made or dropped between the look and the change, its unique index
        "55P03" | "55006" | "55000" | "40001" | "40P01" | "XX000" | "42710" | "42P04" | "42P06" | "42704" | "42P01"
        | "3F000" | "3D000" | "23505" => ErrorClass::Conflict,
        // query_canceled (statement_timeout), too_many_connections
        "57014" | "53300" => ErrorClass::Transient,
        code => match &code[..code.len().min(2)] {
            "08" => ErrorClass::Moved,
            "53" | "58" => ErrorClass::Transient,
            _ => ErrorClass::Refused,
        },
    }
}

fn advice_on(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "28P01" => "check the password: it is wrong, expired, or the role does not exist",
        "28000" => "check pg_hba.conf: it needs a hostssl line with scram-sha-256 for this login, and the role LOGIN",
        "42501" => {
            "the provisioner may not do this: run the cluster's preflight, or have a superuser run the statement"
        }
        "2BP01" => {
            "the role has something outside of its database: a superuser runs DROP OWNED BY it in the database named there"
        }
        "53300" => "raise max_connections, or the role's CONNECTION LIMIT",
        "53100" => "the server's disk is full",
        "55P03" => "somebody holds a lock for long: look into pg_locks",
        "0A000" | "58P01" => "what is asked for is not installed on the server",
        _ => return None,
    })
}

/// An error and all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    redact(&text)
}

/// Why a login of a tier did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The password is wrong or expired, or there is no such role.
    #[error("{login:?} can not log in: the password is wrong or expired, or the role does not exist")]
    WrongPassword {
        /// The login.
        login: String,
    },
    /// The password is right; the role may not connect to the database, or not log in at all.
    #[error("the password of {login:?} is right, but: {message}")]
    NotAllowed {
        /// The login.
        login: String,
        /// What the server says.
        message: String,
    },
    /// The password is right; the role or the database has all the connections that it may have.
    #[error("the password of {login:?} is right, but all its connections are in use")]
    Full {
        /// The login.
        login: String,
    },
    /// Nothing is known of the password.
    #[error(transparent)]
    Unknown(#[from] PostgresError),
}

impl ProofError {
    pub(crate) fn new(login: &str, error: PostgresError) -> Self {
        let login = login.to_owned();
        let PostgresError::Server { sqlstate, routine, message, .. } = &error else {
            return Self::Unknown(error);
        };
        // Both are raised after the password was checked.
        let checked = matches!(routine.as_deref(), Some("InitializeSessionUserId" | "CheckMyDatabase"));
        match sqlstate.as_str() {
            "28P01" => Self::WrongPassword { login },
            "53300" if checked => Self::Full { login },
            "42501" | "55000" | "28000" | "3D000" if checked || sqlstate == "42501" => {
                Self::NotAllowed { login, message: message.clone() }
            }
            _ => Self::Unknown(error),
        }
    }

    /// Whether the server said that the password is right, or wrong.
    #[must_use]
    pub fn password_is_right(&self) -> Option<bool> {
        match self {
            Self::WrongPassword { .. } => Some(false),
            Self::NotAllowed { .. } | Self::Full { .. } => Some(true),
            Self::Unknown(_) => None,
        }
    }
}
