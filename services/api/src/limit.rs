//! Rate limits by token and by address, requests and streams at the same time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::clock::{Clock, MonotonicClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::ApiSettings;
use crate::problem::{OVERLOADED, Problem, Result, TOO_MANY_REQUESTS};

/// Keys that a limiter remembers: at most 100 bytes each. Beyond, keys share one place.
const MAX_KEYS: usize = 10_000;

/// Every limit that is shared by requests.
pub(crate) struct Limits {
    by_token: Keyed<Uuid>,
    failures: Keyed<IpAddr>,
    streams: Places,
    requests: Places,
    in_flight: Arc<Semaphore>,
}

impl Limits {
    pub(crate) fn new(settings: &ApiSettings) -> Self {
        Self {
            by_token: Keyed::new(settings.rate_per_second, settings.rate_burst, Uuid::nil()),
            failures: Keyed::new(
                settings.failures_per_second,
                settings.failures_burst,
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ),
            streams: Places { taken: Arc::default(), most: settings.sse_per_token },
            requests: Places { taken: Arc::default(), most: settings.max_in_flight_per_token },
            in_flight: Arc::new(Semaphore::new(settings.max_in_flight)),
        }
    }

    /// Counts a request of a token.
    pub(crate) fn request(&self, token: Uuid) -> Result<()> {
        self.by_token.check(token)
    }

    /// Counts a wrong token that came from `address`.
    pub(crate) fn failure(&self, address: IpAddr) -> Result<()> {
        self.failures.check(network(address))
    }

    /// A place for a stream of events; free again when it is dropped.
    pub(crate) fn stream(&self, token: Uuid) -> Result<Place> {
        let refused = |most| format!("this token has {most} streams of events open; close one first");
        self.streams.take(token, refused)
    }

    /// A place among the token's own requests that are answered, so that one who sends slowly takes no more of them.
    pub(crate) fn in_flight_of(&self, token: Uuid) -> Result<Place> {
        self.requests.take(token, |most| format!("{most} requests of this token are being answered; wait for one"))
    }

    /// A place among the requests that are answered.
    pub(crate) fn in_flight(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.in_flight).try_acquire_owned();
        permit.map_err(|_| Problem::plain(&OVERLOADED).retry_after(1))
    }
}

/// One who has an IPv6 address has at least 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        },
    }
}

struct Keyed<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K>, MonotonicClock>,
    overflow: K,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(per_second: u32, burst: u32, overflow: K) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        Self { limiter: RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock), overflow }
    }

    fn check(&self, key: K) -> Result<()> {
        if self.limiter.len() >= MAX_KEYS {
            self.limiter.retain_recent();
        }
        let key = if self.limiter.len() < MAX_KEYS { &key } else { &self.overflow };
        self.limiter.check_key(key).map_err(|until| {
            let wait = until.wait_time_from(MonotonicClock.now());
            let detail = format!("wait {} ms before the next request", wait.as_millis().max(1));
            Problem::new(&TOO_MANY_REQUESTS, detail).retry_after(wait.as_secs() + 1)
        })
    }
}

/// So many at the same time for each token.
struct Places {
    taken: Arc<Mutex<HashMap<Uuid, usize>>>,
    most: usize,
}

impl Places {
    fn take(&self, token: Uuid, refused: impl FnOnce(usize) -> String) -> Result<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(token).or_default();
        if *count >= self.most {
            return Err(Problem::new(&TOO_MANY_REQUESTS, refused(self.most)).retry_after(5));
        }
        *count += 1;
        Ok(Place { token, taken: Arc::clone(&self.taken) })
    }
}

/// One of a token's places; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    token: Uuid,
    taken: Arc<Mutex<HashMap<Uuid, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = taken.entry(self.token) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(settings: ApiSettings) -> Limits {
        Limits::new(&settings)
    }

    #[test]
    fn a_burst_is_answered_and_then_refused_with_a_wait() {
        let limits = limits(ApiSettings { rate_per_second: 1, rate_burst: 3, ..ApiSettings::default() });
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        assert!((0..3).all(|_| limits.request(one).is_ok()));
        assert_eq!(limits.request(one).unwrap_err().kind.status, 429);
        assert!(limits.request(other).is_ok(), "another token is not held back");
    }

    #[test]
    fn addresses_of_one_network_share_a_limit() {
        let limits = limits(ApiSettings { failures_per_second: 1, failures_burst: 1, ..ApiSettings::default() });
        assert!(limits.failure("2001:db8::1".parse().unwrap()).is_ok());
        assert!(limits.failure("2001:db8::2".parse().unwrap()).is_err());
        assert!(limits.failure("::ffff:192.0.2.1".parse().unwrap()).is_ok());
        assert!(limits.failure("192.0.2.1".parse().unwrap()).is_err());
    }

    #[test]
    fn keys_are_bounded() {
        let limits = limits(ApiSettings { failures_per_second: 1, failures_burst: 2, ..ApiSettings::default() });
        for n in 0..20_000u32 {
            let _ = limits.failure(IpAddr::V4(n.into()));
        }
        assert!(limits.failures.limiter.len() <= MAX_KEYS + 1);
    }

    #[test]
    fn streams_are_bounded_and_given_back() {
        let limits = limits(ApiSettings { sse_per_token: 1, ..ApiSettings::default() });
        let token = Uuid::now_v7();
        let place = limits.stream(token).unwrap();
        assert_eq!(limits.stream(token).unwrap_err().kind.status, 429);
        drop(place);
        assert!(limits.stream(token).is_ok());
        assert!(limits.streams.taken.lock().unwrap().is_empty());
    }
}
