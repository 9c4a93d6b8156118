//! Tests of what is kept of a whole cluster: by the schedule one database of the newest is restored beside the live one, compared, and
//! dropped. Each is a restore with strategy `test`, so whatever it needs is cleaned up as for any other.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pgtenant_ledger::{Actor, LastTest, ask_test, last_test, within_deadline};
use pgtenant_model::{BackupWindow, InvalidField};

use super::choose;
use super::trouble::Trouble;
use crate::Inner;
use crate::cluster::Cluster;

/// The window comes once a day.
const DAY: TimeDelta = TimeDelta::days(1);

/// Asks for a test where one is due, in the window of the schedule. Notes when one was last found good; where none was, since when
/// tests are made.
pub(super) async fn ask(engine: &Inner, cluster: &Cluster) -> Result<(), Trouble> {
    let Some(spec) = &cluster.spec.backups else { return Ok(()) };
    let Some(every) = cluster.tests_every() else { return Ok(()) };
    let all = choose::of_cluster(cluster, None).await.map_err(|error| Trouble::again(error.to_string()))?;
    let Some(newest) = all.first() else { return Ok(()) };
    let (name, actor) = (&cluster.name, Actor::new("schedule"));
    let asked = within_deadline(async {
        let mut tx = engine.ledger.begin().await?;
        let last = last_test(&mut tx, name).await?;
        cluster.kept_at().extend(last.good.or(last.first).map(|at| ("tested", at)));
        if !is_due(last, every, &spec.schedule, name, Utc::now()) {
            return Ok(None);
        }
        let asked = ask_test(&mut tx, name, &newest.id, newest.at, &actor).await?;
        tx.commit().await?;
        Ok(asked)
    });
    if let Some(key) = asked.await? {
        tracing::info!(cluster = name, claim = %key, snapshot = %newest.id, "a backup is restored for a test");
    }
    Ok(())
}

impl Cluster {
    /// How often what is kept of it is restored for a test; none: only when somebody asks. What nobody has asked for must not fill the
    /// disk: where that does not grow by itself, it has to be known how much there is.
    fn tests_every(&self) -> Option<Duration> {
        let every = self.spec.backups.as_ref()?.try_cluster_every()?;
        (self.aurora().is_some() || self.spec.restores.storage_bytes.is_some()).then_some(every)
    }

    /// Why none is made, though one should be.
    pub(super) fn untested(&self) -> Option<InvalidField> {
        self.spec.backups.as_ref()?.try_cluster_every()?;
        let text = "no backup is restored for a test, since it is not known how much room there is: set restores.storageBytes, or \
                    tryEvery to 0s";
        self.tests_every().is_none().then(|| InvalidField::new("backups.pgbackrest.tryEvery", text))
    }
}

/// One that came to nothing is made again in the next night.
fn is_due(last: LastTest, every: Duration, window: &BackupWindow, seed: &str, now: DateTime<Utc>) -> bool {
    // A window before, so that the one is taken in which the time comes.
    let wait = TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX).max(DAY) - DAY;
    let Some(begun) = window.begun(now, seed).filter(|_| !last.busy) else { return false };
    let good = last.good.map(|good| good.checked_add_signed(wait).unwrap_or(DateTime::<Utc>::MAX_UTC));
    good.into_iter().chain(last.last).all(|before| before < begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_due_in_the_window_of_the_night() {
        let window: BackupWindow = "02:00-04:00".parse().unwrap();
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let (week, hour) = (Duration::from_secs(7 * 86_400), Duration::from_secs(3600));
        let due = |good: Option<&str>, last: Option<&str>, every, now: &str| {
            let last = LastTest { good: good.map(at), last: last.or(good).map(at), ..LastTest::default() };
            is_due(last, every, &window, "shared", at(now))
        };
        assert!(!due(None, None, week, "2026-11-20T12:00:00Z"), "outside the window");
        assert!(!due(None, None, week, "2026-11-20T02:00:00Z"), "before the cluster's moment of it");
        assert!(due(None, None, week, "2026-11-20T03:59:59Z"));
        let good = Some("2026-11-01T03:59:00Z");
        assert!(!due(good, None, week, "2026-11-07T03:59:59Z"), "six days later");
        assert!(due(good, None, week, "2026-11-08T03:59:59Z"));
        assert!(!due(good, None, hour, "2026-11-01T03:59:59Z"), "once a day at the most");
        assert!(due(good, None, hour, "2026-11-02T03:59:59Z"));
        let failed = Some("2026-11-08T03:59:00Z");
        assert!(!due(good, failed, week, "2026-11-08T03:59:59Z"));
        assert!(due(good, failed, week, "2026-11-09T03:59:59Z"), "the night after one that failed");
        let busy = LastTest { busy: true, ..LastTest::default() };
        assert!(!is_due(busy, week, &window, "shared", at("2026-11-20T03:59:59Z")));
    }
}
