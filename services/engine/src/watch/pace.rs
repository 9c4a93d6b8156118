//! How often a cluster is looked at while nobody tells that it has changed.

use std::time::{Duration, Instant};

use pgtenant_model::{ClusterStatus, Member};
use rand::RngExt as _;

/// How often at first, and for how long, while it has no primary: everything waits for the next one. Longer than Patroni or
/// pg_auto_failover take for it with the settings that they come with.
pub(super) const LEADERLESS: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(120));
/// The same while it lacks a member, which somebody may have just mended.
pub(super) const UNWELL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// For how long it has not been as it should be.
#[derive(Debug, Default)]
pub(super) struct Pace {
    leaderless: Option<Instant>,
    unwell: Option<Instant>,
}

impl Pace {
    /// What a look has seen.
    pub(super) fn note(&mut self, status: &ClusterStatus) {
        let since = |is: bool, since: Option<Instant>| is.then(|| since.unwrap_or_else(Instant::now));
        let leaderless = status.primary.is_none();
        self.leaderless = since(leaderless, self.leaderless);
        self.unwell = since(leaderless || !status.members.iter().all(Member::is_well), self.unwell);
    }

    /// Until the next look, which is after about `usual`, or sooner. With jitter, so that replicas do not look together.
    pub(super) fn wait(&self, usual: Duration, leaderless: (Duration, Duration)) -> Duration {
        let paces = [(self.leaderless, leaderless), (self.unwell, UNWELL)];
        let sooner = paces.into_iter().filter_map(|(since, (pace, long))| (since?.elapsed() < long).then_some(pace));
        sooner.fold(usual, Duration::min).mul_f64(rand::rng().random_range(0.9..=1.1))
    }
}

#[cfg(test)]
mod tests {
    use pgtenant_model::MemberRole;

    use super::*;

    const USUAL: Duration = Duration::from_secs(10);

    fn is_about(pace: &Pace, expected: Duration) {
        let wait = pace.wait(USUAL, LEADERLESS);
        assert!((expected.mul_f64(0.89)..expected.mul_f64(1.11)).contains(&wait), "{wait:?}, not {expected:?}");
    }

    #[test]
    fn looks_are_more_often_while_something_is_wrong_and_not_for_ever() {
        let whole = ClusterStatus { primary: Some("db1:5432".to_owned()), ..ClusterStatus::default() };
        let lost = Member::new("db2:5432", MemberRole::Unreachable);
        let lacks = ClusterStatus { members: vec![lost], ..whole.clone() };
        let none = ClusterStatus::default();
        let long_ago = |long: Duration| Instant::now().checked_sub(long + Duration::from_secs(1));

        let mut pace = Pace::default();
        pace.note(&whole);
        is_about(&pace, USUAL);
        pace.note(&lacks);
        is_about(&pace, UNWELL.0);
        pace.note(&none);
        is_about(&pace, LEADERLESS.0);
        pace.leaderless = long_ago(LEADERLESS.1);
        is_about(&pace, UNWELL.0);
        pace.unwell = long_ago(UNWELL.1);
        pace.note(&none);
        is_about(&pace, USUAL);
        pace.note(&whole);
        pace.note(&none);
        is_about(&pace, LEADERLESS.0);
    }
}
