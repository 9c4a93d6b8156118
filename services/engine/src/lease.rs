//! A claim under work is held by a lease; when the lease is lost the work stops by itself.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pgtenant_ledger::{Ledger, LedgerError, Work, renew, within_deadline};

/// Until when this replica may act for a claim.
///
/// The clock is the process's own and monotonic: it goes on while the process is stopped, so a replica that wakes
/// up after its lease finds it over, and does nothing more.
#[derive(Debug)]
pub(crate) struct Lease {
    until: Mutex<Instant>,
    length: Duration,
}

impl Lease {
    /// `since` is a moment before the ledger granted the lease.
    pub(crate) fn new(since: Instant, length: Duration) -> Self {
        Self { until: Mutex::new(since + length), length }
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Renews at each third of the lease. Returns when another replica has the claim; never while it is ours. A ledger
    /// that does not answer is asked again: the lease runs out by itself.
    pub(crate) async fn keep(&self, ledger: &Ledger, work: &Work) {
        loop {
            tokio::time::sleep(self.length / 3).await;
            let since = Instant::now();
            let renewed = async {
                let mut db = ledger.acquire().await?;
                renew(&mut db, work, self.length).await
            };
            match within_deadline(renewed).await {
                Ok(()) => {
                    *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = since + self.length;
                }
                Err(LedgerError::Fenced(_)) => return,
                Err(error) => tracing::warn!(error = ?error, "lease not renewed"),
            }
        }
    }
}

impl pgtenant_postgres::Fence for Lease {
    fn remaining(&self) -> Option<Duration> {
        self.until().checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}
