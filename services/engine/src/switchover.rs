//! Another primary, because somebody wants one: the cluster's tool is asked once, and the servers are watched until it is there.

use std::time::{Duration, Instant};

use pgtenant_ledger::{
    Ledger, LedgerError, begin_switchover, end_switchover, renew_switchover, take_switchover, within_deadline,
};
use pgtenant_model::{Member, MemberRole, Switchover};
use pgtenant_topology::{Observation, SwitchoverWish};

use crate::cluster::Cluster;

/// A wish that was announced while nobody listened is found after this time.
const LOOK: Duration = Duration::from_secs(10);
/// A wish that a replica has left is taken by another one after this time. Longer than the tool may take to answer.
const LEASE: Duration = Duration::from_secs(60);
/// For the next primary. A tool that has begun is not stopped by it: what comes later is seen by looks.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before it is said that there is no primary to be left.
const LOOKS: u32 = 3;
/// Between looks at the servers.
const PAUSE: Duration = Duration::from_millis(250);

/// The switchovers of one cluster.
pub(crate) struct Switchovers<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) cluster: &'a Cluster,
}

/// How it ended: who is the primary now, where it has succeeded, and what a person is told.
type Ended = (Option<String>, String);

impl Switchovers<'_> {
    /// Carries out what is wished for, for ever.
    pub(crate) async fn run(&self) {
        loop {
            if let Err(error) = self.work().await {
                tracing::warn!(cluster = self.cluster.name, error = ?error, "a switchover was not carried on");
            }
            tokio::select! {
                () = self.cluster.switchovers.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn work(&self) -> Result<(), LedgerError> {
        let take = async { take_switchover(&mut *self.ledger.acquire().await?, &self.cluster.name, LEASE).await };
        let Some(wish) = within_deadline(take).await? else { return Ok(()) };
        tracing::info!(cluster = self.cluster.name, to = wish.to, by = wish.requested_by, "a switchover");
        let (after, message) = self.carry_out(&wish).await?;
        match &after {
            Some(_) => tracing::info!(cluster = self.cluster.name, "{message}"),
            None => tracing::warn!(cluster = self.cluster.name, "no switchover: {message}"),
        }
        within_deadline(async {
            let mut tx = self.ledger.begin().await?;
            end_switchover(&mut tx, &wish, after.as_deref(), &message).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn carry_out(&self, wish: &Switchover) -> Result<Ended, LedgerError> {
        let begun = Instant::now();
        let before = match &wish.before {
            // A replica that is gone may have asked; nobody asks twice.
            Some(before) => before.clone(),
            None => {
                let before = match self.ready(wish).await {
                    Ok(before) => before,
                    Err(why) => return Ok((None, why)),
                };
                let write = async { begin_switchover(&mut *self.ledger.acquire().await?, wish, &before).await };
                within_deadline(write).await?;
                let asked = SwitchoverWish { from: before.clone(), to: wish.to.clone() };
                if let Err(why) = self.cluster.switch_over(&asked).await {
                    return Ok((None, why));
                }
                before
            }
        };
        self.arrival(wish, &before, begun).await
    }

    /// The primary, where it can be left for the one that is wished for. Busy servers may have not answered one look in time.
    async fn ready(&self, wish: &Switchover) -> Result<String, String> {
        for _ in 1..LOOKS {
            if let Ok(before) = self.is_ready(wish).await {
                return Ok(before);
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.is_ready(wish).await
    }

    async fn is_ready(&self, wish: &Switchover) -> Result<String, String> {
        let seen = self.cluster.observe().await.map_err(|cause| cause.to_string())?;
        let before = primary(&seen).ok_or_else(|| problem(&seen))?;
        let Some(to) = &wish.to else { return Ok(before) };
        match seen.members.iter().find(|member| member.host == *to) {
            Some(Member { role: MemberRole::Standby, .. }) => Ok(before),
            Some(Member { role: MemberRole::Primary, .. }) => Err(format!("{to} is the primary already")),
            Some(Member { message, .. }) => {
                Err(format!("{to} did not answer: {}", message.as_deref().unwrap_or_default()))
            }
            None => Err(format!("there is no member {to}")),
        }
    }

    async fn arrival(&self, wish: &Switchover, before: &str, begun: Instant) -> Result<Ended, LedgerError> {
        let mut renewed = Instant::now();
        loop {
            let seen = self.cluster.observe().await;
            let now = seen.as_ref().ok().and_then(|seen| primary(seen));
            if let Some(now) = now.filter(|now| now != before) {
                self.cluster.look.notify_one();
                let seconds = begun.elapsed().as_secs_f64();
                return Ok(match &wish.to {
                    Some(to) if *to != now => {
                        (None, format!("{now} is the primary now, and not {to}; before it was {before}"))
                    }
                    _ => {
                        let message = format!("{now} is the primary after {seconds:.1} s, before it was {before}");
                        (Some(now), message)
                    }
                });
            }
            if begun.elapsed() > PATIENCE {
                let problem = seen.map_or_else(|cause| cause.to_string(), |seen| problem(&seen));
                return Ok((None, format!("after {} s there is no other primary: {problem}", PATIENCE.as_secs())));
            }
            if renewed.elapsed() > LEASE / 4 {
                let renew = async { renew_switchover(&mut *self.ledger.acquire().await?, wish, LEASE).await };
                within_deadline(renew).await?;
                renewed = Instant::now();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The member that is the primary, which an endpoint's name may hide.
fn primary(seen: &Observation) -> Option<String> {
    let mut primaries = seen.members.iter().filter(|member| member.role == MemberRole::Primary);
    seen.primary.as_ref().and(primaries.next()).map(|member| member.host.clone())
}

fn problem(seen: &Observation) -> String {
    match (&seen.problem, primary(seen)) {
        (Some(problem), _) => problem.clone(),
        (None, Some(primary)) => format!("it is {primary} as before"),
        (None, None) => "there is no primary".to_owned(),
    }
}
