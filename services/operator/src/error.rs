//! What can go wrong between the ledger and the API server.

use pgtenant_ledger::LedgerError;

/// A try that has come to no end; it is made again.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The API server refused.
    #[error("the API server refuses: {message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// What it says.
        message: String,
    },
    /// The API server can not be reached, or what it says can not be read.
    #[error("the API server does not answer")]
    Kubernetes(#[source] kube::Error),
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The API server did not answer in time.
    #[error("the API server did not answer within {0} s")]
    Silent(u64),
    /// The object was changed since it was read: its next version is looked at.
    #[error("the object has changed since it was read")]
    Stale,
    /// The Lease could not be asked for.
    #[error("the Lease")]
    Lease(#[from] kube_lease_manager::LeaseManagerError),
    /// The webhooks' certificate.
    #[error("the webhooks' certificate: {0}")]
    Certificate(String),
    /// The webhooks' socket.
    #[error("the webhooks can not listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// `Result` with [`OperatorError`].
pub(crate) type Result<T, E = OperatorError> = std::result::Result<T, E>;

impl From<kube::Error> for OperatorError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused { code: status.code, message: status.message },
            error => Self::Kubernetes(error),
        }
    }
}

impl OperatorError {
    /// The HTTP status with which the API server refused.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
