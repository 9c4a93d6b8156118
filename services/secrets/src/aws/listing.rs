//! What is known of the secrets without asking for each.
//!
//! One listing, 100 secrets a call, says of every secret which version is current: a look at 300 secrets costs three calls.
//! `ListSecrets` may not show the last five minutes
//! (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html>), so that what this process has itself
//! written or been told of one secret outweighs every listing that began less than that later.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::secret::Seen;

/// A listing is good for this long.
const FRESH: Duration = Duration::from_secs(600);
/// What `ListSecrets` may not show yet, with a minute to spare.
const LAG: Duration = Duration::from_secs(360);
/// After a listing that failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Listing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listed: HashMap<String, Seen>,
    /// When the listing began.
    began: Option<Instant>,
    /// When one last failed.
    failed: Option<Instant>,
    /// What was written or asked for one by one, and when. None: it is gone.
    own: HashMap<String, (Instant, Option<Seen>)>,
    /// Closed when the listing that is under way is done.
    under_way: Option<watch::Receiver<()>>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// This; none: there is none.
    Is(Option<Seen>),
    /// Nothing, and a listing is due: whoever is told so makes it, and drops the sender when it is done.
    Nothing,
}

/// What to do about a listing that is due.
pub(super) enum Due {
    /// Make it; drop this when it is done.
    Make(watch::Sender<()>),
    /// Somebody makes it: wait until this is closed.
    Wait(watch::Receiver<()>),
    /// The last one has just failed.
    NotNow,
}

impl Listing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self, name: &str, now: Instant) -> Known {
        self.lock().known(name, now)
    }

    /// Whether there is, or recently was, a secret of that name, as far as is known without asking.
    pub(super) fn has(&self, name: &str) -> bool {
        let state = self.lock();
        match state.own.get(name) {
            Some((_, seen)) => seen.is_some(),
            None => state.listed.contains_key(name),
        }
    }

    /// What was just written, or answered for this secret alone.
    pub(super) fn note(&self, name: &str, seen: Option<Seen>, now: Instant) {
        self.lock().own.insert(name.to_owned(), (now, seen));
    }

    pub(super) fn due(&self, now: Instant) -> Due {
        let mut state = self.lock();
        if let Some(under_way) = state.under_way.as_ref().filter(|receiver| receiver.has_changed().is_ok()) {
            return Due::Wait(under_way.clone());
        }
        if state.failed.is_some_and(|failed| now.duration_since(failed) < PATIENCE) {
            return Due::NotNow;
        }
        let (sender, receiver) = watch::channel(());
        state.under_way = Some(receiver);
        Due::Make(sender)
    }

    /// A listing that began then; none: it failed.
    pub(super) fn finish(&self, listed: Option<HashMap<String, Seen>>, began: Instant, now: Instant) {
        let mut state = self.lock();
        state.under_way = None;
        match listed {
            Some(listed) => {
                state.own.retain(|_, (at, _)| began < *at + LAG);
                (state.listed, state.began, state.failed) = (listed, Some(began), None);
            }
            None => state.failed = Some(now),
        }
    }
}

impl State {
    fn known(&self, name: &str, now: Instant) -> Known {
        let began = self.began.filter(|began| now.duration_since(*began) < FRESH);
        let own = self.own.get(name).filter(|(at, _)| match began {
            Some(began) => began < *at + LAG,
            None => now.duration_since(*at) < FRESH,
        });
        match (own, began) {
            (Some((_, seen)), _) => Known::Is(seen.clone()),
            (None, Some(_)) => Known::Is(self.listed.get(name).cloned()),
            (None, None) => Known::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgtenant_model::{ClaimKey, CredentialTarget, Tier};

    fn seen(version: &str) -> Seen {
        let key = ClaimKey::new("ns", "db").unwrap();
        Seen::written(&CredentialTarget { key, tier: Tier::Read }, version, None)
    }

    fn listed(version: &str) -> Option<HashMap<String, Seen>> {
        Some([("a".to_owned(), seen(version))].into())
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_listing_is_not_believed_over_a_later_write() {
        let (listing, start) = (Listing::default(), Instant::now());
        assert_eq!(listing.known("a", start), Known::Nothing);
        listing.finish(listed("1"), start, start);
        assert_eq!(listing.known("a", start), Known::Is(Some(seen("1"))));
        assert_eq!(listing.known("b", start), Known::Is(None));

        listing.note("a", Some(seen("2")), start + 9 * MINUTE);
        // One that began after it may still not show it.
        listing.finish(listed("1"), start + 11 * MINUTE, start + 11 * MINUTE);
        assert_eq!(listing.known("a", start + 20 * MINUTE), Known::Is(Some(seen("2"))));
        // One that began long after it shows what somebody else has done since.
        listing.finish(listed("3"), start + 21 * MINUTE, start + 21 * MINUTE);
        assert_eq!(listing.known("a", start + 21 * MINUTE), Known::Is(Some(seen("3"))));
        assert!(listing.lock().own.is_empty());

        listing.note("a", None, start + 22 * MINUTE);
        assert!(!listing.has("a"));
        assert_eq!(listing.known("a", start + 22 * MINUTE), Known::Is(None));
    }

    #[test]
    fn nothing_is_known_for_ever() {
        let (listing, start) = (Listing::default(), Instant::now());
        listing.finish(listed("1"), start, start);
        assert_eq!(listing.known("a", start + 10 * MINUTE), Known::Nothing);
        listing.note("a", Some(seen("2")), start + 10 * MINUTE);
        assert_eq!(listing.known("a", start + 19 * MINUTE), Known::Is(Some(seen("2"))));
        assert_eq!(listing.known("a", start + 20 * MINUTE), Known::Nothing);
        assert!(listing.has("a"), "it is described first, and not created");
    }

    #[test]
    fn one_listing_is_made_at_a_time() {
        let (listing, start) = (Listing::default(), Instant::now());
        let Due::Make(maker) = listing.due(start) else { panic!("nobody makes one") };
        assert!(matches!(listing.due(start), Due::Wait(_)));
        // Who made it was dropped.
        drop(maker);
        let Due::Make(_maker) = listing.due(start) else { panic!("nobody makes one") };
        listing.finish(None, start, start);
        assert!(matches!(listing.due(start + MINUTE / 2), Due::NotNow));
        assert!(matches!(listing.due(start + MINUTE), Due::Make(_)));
    }
}
