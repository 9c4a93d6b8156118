//! What can go wrong between the ledger and the API server.

use pgtenant_ledger::LedgerError;

/// A try that has come to no end; it is made again.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The API server refused, or did not answer.
    #[error("the API server")]
    Kubernetes(#[from] kube::Error),
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

/// The HTTP status with which the API server refused.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
