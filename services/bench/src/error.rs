//! What ends a run.

use std::path::PathBuf;

/// Each says what the benchmark was about to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("a cluster of this machine")]
    Lab(#[from] pgtenant_lab::Error),
    #[error("Kubernetes")]
    Kubernetes(#[from] pgtenant_operator::OperatorError),
    #[error("the ledger")]
    Ledger(#[from] pgtenant_ledger::LedgerError),
    #[error("the cluster's provisioner")]
    Bootstrap(#[from] pgtenant_postgres::PostgresError),
    #[error("PostgreSQL: {doing}")]
    Postgres {
        doing: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("{doing} {}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("request {0}")]
    Http(String, #[source] reqwest::Error),
    #[error("{request} was answered {status}: {body}")]
    Refused { request: String, status: u16, body: String },
    #[error("claim {claim}: {message}")]
    Claim { claim: String, message: String },
    #[error("pgtenant: {0}")]
    Serve(String),
    #[error("{doing}")]
    Text {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("stopped")]
    Interrupted,
}

pub(crate) type Result<T, E = BenchError> = std::result::Result<T, E>;

impl BenchError {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn postgres(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Postgres { doing, source }
    }

    pub(crate) fn text<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Text { doing, source: Box::new(source) }
    }
}
