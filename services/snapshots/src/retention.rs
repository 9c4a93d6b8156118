//! Which dumps of a claim are old enough to go.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{Dump, DumpId};

/// What is to be known of a dump for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The dump.
    pub id: DumpId,
    /// Whether it was restored for a try, and found whole.
    pub verified: bool,
}

impl From<&Dump> for Kept {
    fn from(dump: &Dump) -> Self {
        Self { id: dump.manifest.id, verified: dump.verified.is_some() }
    }
}

/// The dumps of one claim that are to be removed, oldest first: those older than `keep`. The newest good one always stays: the
/// newest verified one or, where none is, the newest.
#[must_use]
pub fn to_remove(dumps: &[Kept], keep: Duration, now: DateTime<Utc>) -> Vec<DumpId> {
    let good = dumps.iter().filter(|dump| dump.verified).map(|dump| dump.id).max();
    let good = good.or_else(|| dumps.iter().map(|dump| dump.id).max());
    // Longer than time itself: all stay.
    let since = chrono::TimeDelta::from_std(keep).ok().and_then(|keep| now.checked_sub_signed(keep));
    let old = |id: &DumpId| since.is_some_and(|since| id.at() < since) && Some(*id) != good;
    let mut remove: Vec<DumpId> = dumps.iter().map(|dump| dump.id).filter(old).collect();
    remove.sort();
    remove.dedup();
    remove
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400;

    fn now() -> DateTime<Utc> {
        "2026-11-22T02:00:00Z".parse().unwrap()
    }

    fn kept(hours_ago: i64, verified: bool) -> Kept {
        let at = now() - chrono::TimeDelta::hours(hours_ago);
        Kept { id: DumpId::new(at, &mut rand::rng()), verified }
    }

    #[test]
    fn the_newest_good_one_stays() {
        let dumps = [kept(24 * 9, true), kept(24 * 8, true), kept(24 * 3, false), kept(1, false)];
        assert_eq!(to_remove(&dumps, Duration::from_secs(7 * DAY), now()), [dumps[0].id]);
        let dumps = [kept(24 * 9, false), kept(24 * 8, false)];
        assert_eq!(
            to_remove(&dumps, Duration::from_secs(7 * DAY), now()),
            [dumps[0].id],
            "none is verified: the newest"
        );
        assert!(to_remove(&dumps, Duration::MAX, now()).is_empty());
    }

    proptest! {
        #[test]
        fn no_law_is_broken(
            dumps in prop::collection::vec((-50_i64..2_000, any::<bool>()), 0..40),
            days in 0_u64..80,
        ) {
            let dumps: Vec<Kept> = dumps.into_iter().map(|(hours, verified)| kept(hours, verified)).collect();
            let keep = Duration::from_secs(days * DAY);
            let since = now() - keep;
            let removed: BTreeSet<DumpId> = to_remove(&dumps, keep, now()).into_iter().collect();
            let stay: Vec<&Kept> = dumps.iter().filter(|dump| !removed.contains(&dump.id)).collect();
            // What is young stays; what goes is old.
            prop_assert!(removed.iter().all(|id| id.at() < since));
            // Something stays of something, and a verified one of verified ones.
            prop_assert_eq!(stay.is_empty(), dumps.is_empty());
            prop_assert_eq!(stay.iter().any(|dump| dump.verified), dumps.iter().any(|dump| dump.verified));
            // One old one stays at most.
            prop_assert!(stay.iter().filter(|dump| dump.id.at() < since).count() <= 1);
            // Nothing that is verified and newer than one that stays goes.
            let newest = dumps.iter().filter(|dump| dump.verified).map(|dump| dump.id).max();
            prop_assert!(newest.is_none_or(|id| !removed.contains(&id)));
            // Again, nothing is left to do.
            let left: Vec<Kept> = stay.into_iter().copied().collect();
            prop_assert!(to_remove(&left, keep, now()).is_empty());
        }
    }
}
