//! A move to another cluster from the moment it is taken: it is rehearsed, somebody says yes, and it is done as it was rehearsed, with
//! everybody kept out. Until the claim is on the other cluster, all can be left as it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use metrics::counter;
use pgtenant_ledger::{MoveStep, MoveWork, move_done, renew_move, retry_move, within_deadline};
use pgtenant_model::{MoveMethod, MovePhase, Verification};
use tracing::Instrument as _;

use super::trouble::{Kind, Trouble, worn_out};
use super::verify::describe;
use crate::Inner;
use crate::cluster::Cluster;
use crate::lease::Lease;

/// How long the answer of a rehearsal is believed.
const WAITS_FOR_YES: Duration = Duration::from_secs(3600);

/// Nobody is kept out for longer than this and three times what the rehearsal took.
const MOST_AROUND: Duration = Duration::from_secs(30);

/// A move under work.
pub(super) struct Moving {
    pub(super) engine: Arc<Inner>,
    /// Where it goes.
    pub(super) target: Arc<Cluster>,
    pub(super) lease: Lease,
    pub(super) work: MoveWork,
}

/// Does the step of a move that is due; the next one is taken like the first.
pub(super) async fn attend(engine: Arc<Inner>, target: Arc<Cluster>, work: MoveWork, since: Instant) {
    let view = &work.view;
    let span = tracing::info_span!("move", id = %view.id, claim = %format!("{}/{}", view.namespace, view.name));
    let lease = Lease::new(since, engine.settings.lease);
    let one = Moving { engine, target, lease, work };
    async {
        let ended = tokio::select! {
            biased;
            ended = one.attend() => ended,
            cancelled = one.keep() => match cancelled {
                None => {
                    counter!("pgtenant_fenced_total").increment(1);
                    tracing::warn!("another replica has taken the move; this one stops");
                    return;
                }
                // What was under way is dropped with the future; what it has left goes when that is cleaned up.
                Some(()) => one.decide(MovePhase::Cancelled, CANCELLED).await,
            },
        };
        if let Err(trouble) = ended {
            tracing::warn!(?trouble, "not written down; the lease runs out and the step is done again");
        }
    }
    .instrument(span)
    .await;
}

const CANCELLED: &str = "cancelled: it is where it was";

impl Moving {
    /// Holds the lease; returns when somebody wants the move to be cancelled, and it can be, or (none) another replica has it.
    async fn keep(&self) -> Option<()> {
        let cancellable = self.can_be_cancelled() && !self.work.cancel;
        let renew = |length| {
            let (ledger, work) = (self.engine.ledger.clone(), self.work.clone());
            async move {
                let cancel = renew_move(&mut *ledger.acquire().await?, &work, length).await?;
                Ok((cancel && cancellable).then_some(()))
            }
        };
        self.lease.keep(renew).await
    }

    fn can_be_cancelled(&self) -> bool {
        matches!(self.work.view.phase, MovePhase::Rehearsing | MovePhase::Waiting)
    }

    async fn attend(&self) -> Result<(), Trouble> {
        match Box::pin(self.step()).await {
            Ok(()) | Err(Trouble { kind: Kind::LeaseLost, .. }) => Ok(()),
            Err(trouble) => self.failed(trouble).await,
        }
    }

    async fn step(&self) -> Result<(), Trouble> {
        let MoveWork { view, cancel, attempts, .. } = &self.work;
        if *cancel && self.can_be_cancelled() {
            return self.decide(MovePhase::Cancelled, CANCELLED).await;
        }
        if let Some(trouble) = worn_out(*attempts)
            && matches!(view.phase, MovePhase::Rehearsing | MovePhase::Moving)
        {
            return Err(trouble);
        }
        match view.phase {
            MovePhase::Rehearsing => self.rehearse().await,
            MovePhase::Waiting if self.work.waits_until.is_some_and(|until| until > Utc::now()) => self.watch().await,
            MovePhase::Waiting => {
                self.decide(MovePhase::Cancelled, "nobody has said yes for an hour: it is where it was").await
            }
            MovePhase::Moving => {
                let left = self.may_be_closed_for();
                let carried = tokio::time::timeout(left, self.carry()).await;
                match carried.unwrap_or_else(|_| Err(self.took_too_long()))? {
                    report if report.is_good() => self.has_moved(&report).await,
                    report => {
                        let message = format!("{}; it is where it was", describe(&report));
                        self.decide(MovePhase::Failed, &message).await
                    }
                }
            }
            MovePhase::CleaningUp => self.clean_up().await,
            MovePhase::Succeeded | MovePhase::Failed | MovePhase::Cancelled => self.drop_aside().await,
        }
    }

    async fn carry(&self) -> Result<Verification, Trouble> {
        match self.work.view.method {
            Some(MoveMethod::Replication) => self.follow_to_the_end().await,
            Some(MoveMethod::Dump) | None => self.carry_over().await,
        }
    }

    /// How long applications may still be kept out.
    pub(super) fn may_be_closed_for(&self) -> Duration {
        let expected = self.work.view.expected_gap_seconds.unwrap_or_default().clamp(0.0, 1e6);
        let most = MOST_AROUND + Duration::from_secs_f64(expected) * 3;
        let since = self.work.closed_at.and_then(|at| (Utc::now() - at).to_std().ok());
        most.saturating_sub(since.unwrap_or_default())
    }

    fn took_too_long(&self) -> Trouble {
        let said = self.work.view.message.as_deref().unwrap_or("it takes longer than it did when it was rehearsed");
        Trouble::last(format!("given up, since nobody could connect meanwhile: {said}"))
    }

    /// A try that came to nothing: another one later, or the end.
    async fn failed(&self, trouble: Trouble) -> Result<(), Trouble> {
        let MoveWork { view, attempts, .. } = &self.work;
        if !trouble.is_waiting() {
            tracing::warn!(phase = ?view.phase, attempts, "{}", trouble.message);
        }
        if trouble.is_final(*attempts) && matches!(view.phase, MovePhase::Rehearsing | MovePhase::Moving) {
            let message = format!("{}; it is where it was", trouble.message);
            return self.decide(MovePhase::Failed, &message).await;
        }
        let next = trouble.next_try(*attempts);
        let retried = within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            retry_move(&mut tx, &self.work, &trouble.message, next, !trouble.is_waiting()).await?;
            Ok(tx.commit().await?)
        });
        Ok(retried.await?)
    }

    /// It is known what a move would cost.
    pub(super) async fn wait_for_yes(&self, message: &str, step: MoveStep) -> Result<(), Trouble> {
        let due = Some(step.due.unwrap_or(WAITS_FOR_YES));
        self.done(MovePhase::Waiting, message, &MoveStep { due, waits: Some(WAITS_FOR_YES), ..step }).await
    }

    /// Decides how it ends; what it has left is cleaned up first.
    pub(super) async fn decide(&self, outcome: MovePhase, message: &str) -> Result<(), Trouble> {
        let step = MoveStep { outcome: Some(outcome), due: Some(Duration::ZERO), ..MoveStep::default() };
        self.done(MovePhase::CleaningUp, message, &step).await
    }

    pub(super) async fn done(&self, phase: MovePhase, message: &str, step: &MoveStep) -> Result<(), Trouble> {
        let faults = &self.engine.settings.faults;
        faults.reach(&format!("before:move-to-{phase:?}")).await;
        within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            move_done(&mut tx, &self.work, phase, message, step).await?;
            Ok(tx.commit().await?)
        })
        .await?;
        tracing::info!(?phase, "{message}");
        faults.reach(&format!("after:move-to-{phase:?}")).await;
        Ok(())
    }
}
