//! When something is tried again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::controller::Action;
use rand::RngExt as _;
use tokio::time::Instant;

use crate::error::Result;

/// The first wait after a failure, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(120));
/// After the API server did not answer somebody who needs it.
const PATIENTLY: Duration = Duration::from_secs(1);

/// How often each object was tried in vain, for the wait before the next try. Holds only objects that fail.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    counts: Mutex<HashMap<String, (i32, Instant)>>,
}

impl Retries {
    /// Exponential with jitter, so that many objects that failed together do not come back together.
    pub(crate) fn failed(&self, uid: &str) -> Duration {
        self.failed_at(uid, Instant::now())
    }

    fn failed_at(&self, uid: &str, now: Instant) -> Duration {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever vanished while it failed is never tried again.
        counts.retain(|_, (_, last)| now - *last < WAIT.1 * 2);
        let (count, last) = counts.entry(uid.to_owned()).or_insert((0, now));
        let ceiling = WAIT.0.mul_f64(2_f64.powi(*count)).min(WAIT.1);
        (*count, *last) = ((*count + 1).min(12), now);
        ceiling.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    pub(crate) fn succeeded(&self, uid: &str) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Looked at again around `wait` from now, should nothing be heard until then.
pub(crate) fn again(wait: Duration) -> Action {
    Action::requeue(wait.mul_f64(rand::rng().random_range(0.8..=1.2)))
}

/// Tries until it succeeds; the first failure is told.
pub(crate) async fn patiently<T, F: Future<Output = Result<T>>>(fault: &str, attempt: impl Fn() -> F) -> T {
    let mut told = false;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) if !told => {
                tracing::warn!(error = &error as &dyn std::error::Error, "{fault}");
                told = true;
            }
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "{fault}"),
        }
        tokio::time::sleep(PATIENTLY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_grow_to_two_minutes_and_nobody_is_kept_for_ever() {
        let retries = Retries::default();
        let (start, hours) = (Instant::now(), Duration::from_secs(3600));
        let waits: Vec<_> = (0..12).map(|_| retries.failed_at("a", start)).collect();
        assert!(waits[0] <= WAIT.0 && waits[11] <= WAIT.1 && waits[11] >= WAIT.1 / 2, "{waits:?}");
        retries.succeeded("a");
        assert!(retries.failed_at("a", start) <= WAIT.0);
        retries.failed_at("b", start + hours);
        assert_eq!(retries.counts.lock().unwrap().len(), 1);
    }
}
