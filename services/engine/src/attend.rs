//! One claim from the moment it is taken until the ledger has what came of it.

use std::sync::{Arc, Mutex};

use chrono::Utc;
use metrics::counter;
use pgtenant_ledger::{Finished, LedgerError, Wish, Work, finish, forget, renew, within_deadline};
use pgtenant_postgres::Beyond;
use tracing::Instrument as _;

use crate::Inner;
use crate::cluster::Cluster;
use crate::failure::{Cause, Failure};
use crate::lease::Lease;
use crate::outcome;
use crate::progress::Progress;
use crate::reconcile::{Attempt, Done};
use crate::schedule::Taken;

/// Works on claims of one cluster.
pub(crate) struct Attendant {
    pub(crate) engine: Arc<Inner>,
    pub(crate) cluster: Arc<Cluster>,
}

impl Attendant {
    /// Never fails: what goes wrong is written into the claim, or the lease runs out.
    pub(crate) async fn attend(self, Taken { work, since }: Taken) {
        let span = tracing::info_span!(
            "claim", claim = %work.claim.key, cluster = self.cluster.name, generation = work.claim.generation,
            fence = work.fence,
        );
        async {
            let lease = Lease::new(since, self.engine.settings.lease);
            let ledger = &self.engine.ledger;
            let renew = |length| {
                let work = &work;
                async move { renew(&mut *ledger.acquire().await?, work, length).await.map(|()| None::<()>) }
            };
            tokio::select! {
                biased;
                () = self.work(&work, &lease) => {}
                _ = lease.keep(renew) => {
                    counter!("pgtenant_fenced_total").increment(1);
                    tracing::warn!("another replica has taken the claim; this one stops");
                }
            }
        }
        .instrument(span)
        .await;
    }

    async fn work(&self, work: &Work, lease: &Lease) {
        let attempt = Attempt {
            work,
            ledger: &self.engine.ledger,
            cluster: &self.cluster,
            lease,
            faults: &self.engine.settings.faults,
            progress: Mutex::default(),
        };
        // The ledger's word of this moment: an announcement may come a little later.
        if let Some(maintenance) = work.maintenance.clone() {
            let cause = Cause::Maintenance { cluster: self.cluster.name.clone(), maintenance };
            let written = self.failed(work, &Failure::at("find-primary")(cause), attempt.into_progress()).await;
            return said(written);
        }
        said(match work.claim.wish {
            Wish::Absent => match attempt.remove().await {
                Ok(left) => self.gone(work, &left).await,
                Err(failure) => self.failed(work, &failure, attempt.into_progress()).await,
            },
            Wish::Present => match attempt.provide().await {
                Ok(done) => {
                    self.engine.settings.faults.reach("before:finish").await;
                    self.succeeded(work, done, attempt.into_progress()).await
                }
                Err(failure) => self.failed(work, &failure, attempt.into_progress()).await,
            },
            Wish::Retained => Ok(()),
        });
    }
}

/// What keeps the outcome from being written down is said to nobody but the log: the claim is looked at again.
fn said(written: Result<(), LedgerError>) {
    match written {
        Ok(()) => {}
        Err(LedgerError::Fenced(_)) => {
            counter!("pgtenant_fenced_total").increment(1);
            tracing::warn!("another replica has taken the claim; what this one did is looked at again there");
        }
        Err(error) => {
            tracing::warn!(error = ?error, "not written down; the lease runs out and the claim is looked at again")
        }
    }
}

impl Attendant {
    async fn succeeded(&self, work: &Work, done: Done, progress: Progress) -> Result<(), LedgerError> {
        let result = if progress.changes.is_empty() { "unchanged" } else { "changed" };
        counter!("pgtenant_looks_total", "result" => result).increment(1);
        self.cluster.note_cut_off(false);
        self.finish(work, &outcome::succeeded(work, done, progress, &self.engine.settings, Utc::now())).await
    }

    async fn failed(&self, work: &Work, failure: &Failure, progress: Progress) -> Result<(), LedgerError> {
        if failure.lease_lost() {
            return Err(LedgerError::Fenced(work.claim.key.to_string()));
        }
        if failure.waits_for_maintenance() {
            return self.finish(work, &outcome::waits(work, failure, Utc::now())).await;
        }
        counter!("pgtenant_looks_total", "result" => "failed").increment(1);
        if failure.cut_off() {
            self.cluster.note_cut_off(true);
        }
        tracing::warn!(step = failure.step, reason = failure.reason(), "{}", failure.message());
        self.finish(work, &outcome::failed(work, failure, progress, Utc::now())).await
    }

    async fn finish(&self, work: &Work, finished: &Finished) -> Result<(), LedgerError> {
        within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            finish(&mut tx, work, finished).await?;
            Ok(tx.commit().await?)
        })
        .await?;
        for (kind, message, _) in &finished.events {
            tracing::info!(?kind, "{message}");
        }
        Ok(())
    }

    async fn gone(&self, work: &Work, left: &[Beyond]) -> Result<(), LedgerError> {
        counter!("pgtenant_looks_total", "result" => "removed").increment(1);
        let message = outcome::gone(work, left);
        within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            forget(&mut tx, work, &message).await?;
            Ok(tx.commit().await?)
        })
        .await?;
        tracing::info!("{message}");
        Ok(())
    }
}
