//! Tests of what is kept of a whole cluster: by the schedule one database of the newest is restored beside the live one, compared, and
//! dropped. Each is a restore with strategy `test`, so whatever it needs is cleaned up as for any other.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pgtenant_ledger::{Actor, LastTest, ask_test, last_test, tested, within_deadline};
use pgtenant_model::BackupWindow;

use super::choose;
use super::trouble::Trouble;
use crate::Inner;
use crate::cluster::Cluster;

/// The window comes once a day.
const DAY: TimeDelta = TimeDelta::days(1);

/// Asks for a test where one is due: the first at once, later ones in the window of the schedule. Notes when one was last found good;
/// where none was, since when there is something to test.
pub(super) async fn ask(engine: &Inner, cluster: &Cluster) -> Result<(), Trouble> {
    let Some(spec) = &cluster.spec.backups else { return Ok(()) };
    let Some(every) = spec.try_cluster_every() else { return Ok(()) };
    let all = choose::of_cluster(cluster, None).await.map_err(|error| Trouble::again(error.to_string()))?;
    let (Some(newest), Some(oldest)) = (all.first(), all.last()) else { return Ok(()) };
    let (name, actor) = (&cluster.name, Actor::new("schedule"));
    let asked = within_deadline(async {
        let mut tx = engine.ledger.begin().await?;
        let good = tested(&mut tx, name).await?.into_iter().map(|(_, at)| at).max();
        cluster.kept_at().insert("tested", good.unwrap_or(oldest.at));
        let last = last_test(&mut tx, name).await?;
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

/// After one that failed the next is in the next window.
fn is_due(last: LastTest, every: Duration, window: &BackupWindow, seed: &str, now: DateTime<Utc>) -> bool {
    // A window before, so that the one is taken in which the time comes.
    let wait = TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX).max(DAY) - DAY;
    let after = |last: Option<DateTime<Utc>>, wait| {
        let from = last.map(|last: DateTime<Utc>| last.checked_add_signed(wait).unwrap_or(DateTime::<Utc>::MAX_UTC));
        from.is_none_or(|from| from <= now && window.next(from, seed) <= now)
    };
    after(last.done, wait) && after(last.failed, TimeDelta::zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_at_once_and_later_ones_in_the_window() {
        let window: BackupWindow = "02:00-04:00".parse().unwrap();
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let week = Duration::from_secs(7 * 86_400);
        let due = |done: Option<&str>, failed: Option<&str>, every, now: &str| {
            let last = LastTest { done: done.map(at), failed: failed.map(at) };
            is_due(last, every, &window, "shared", at(now))
        };
        assert!(due(None, None, week, "2026-11-20T12:00:00Z"));
        let done = Some("2026-11-01T12:00:00Z");
        assert!(!due(done, None, week, "2026-11-07T12:00:00Z"), "six days later");
        assert!(!due(done, None, week, "2026-11-08T01:59:59Z"), "before the window");
        assert!(due(done, None, week, "2026-11-08T04:00:00Z"), "after its begin");
        assert!(due(done, None, week, "2026-12-24T12:00:00Z"), "nobody was there to ask");
        let hour = Duration::from_secs(3600);
        assert!(!due(done, None, hour, "2026-11-01T20:00:00Z"), "once a day at the most");
        assert!(due(done, None, hour, "2026-11-02T04:00:00Z"));
        let failed = Some("2026-11-08T04:00:00Z");
        assert!(!due(done, failed, week, "2026-11-08T23:00:00Z"));
        assert!(due(done, failed, week, "2026-11-09T04:00:00Z"), "the day after one that failed");
    }
}
