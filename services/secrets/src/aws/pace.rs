//! How fast Secrets Manager is called.
//!
//! Its quotas hold for an account and a region, and cannot be raised: 50 calls a second of each kind of change, 100 of
//! `ListSecrets`, 10,000 of reads (<https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>). This
//! process takes at most half of them, so that there is room for a second replica and for whoever else works in the account;
//! where more come together, the SDK's adaptive retries slow down as AWS says.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Calls that share a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// DescribeSecret, GetSecretValue.
    Read,
    /// ListSecrets.
    List,
    /// CreateSecret.
    Create,
    /// PutSecretValue, UpdateSecret, UpdateSecretVersionStage, and the regions of copies.
    Change,
    /// RestoreSecret.
    Restore,
    /// DeleteSecret.
    Delete,
    /// TagResource, UntagResource.
    Tag,
    /// PutResourcePolicy, DeleteResourcePolicy.
    Policy,
}

const KINDS: usize = 8;

impl Kind {
    const ALL: [Self; KINDS] =
        [Self::Read, Self::List, Self::Create, Self::Change, Self::Restore, Self::Delete, Self::Tag, Self::Policy];

    /// Calls a second.
    const fn rate(self) -> u32 {
        match self {
            Self::Read => 500,
            Self::List => 50,
            Self::Create | Self::Change | Self::Restore | Self::Delete | Self::Tag | Self::Policy => 25,
        }
    }
}

/// The token buckets of one region.
#[derive(Debug)]
pub(super) struct Pace([DefaultDirectRateLimiter; KINDS]);

impl Default for Pace {
    fn default() -> Self {
        Self(Kind::ALL.map(|kind| {
            let rate = NonZeroU32::new(kind.rate()).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(rate))
        }))
    }
}

impl Pace {
    /// Waits until a call of this kind may be made.
    pub(super) async fn turn(&self, kind: Kind) {
        self.0[kind as usize].until_ready().await;
    }
}

/// One [`Pace`] for each region, which all stores of this process share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paces(Arc<Mutex<BTreeMap<Option<String>, Arc<Pace>>>>);

impl Paces {
    pub(super) fn of(&self, region: Option<&str>) -> Arc<Pace> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(paces.entry(region.map(ToOwned::to_owned)).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_bucket_of_its_own_and_half_of_its_quota() {
        let pace = Pace::default();
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            let taken = (0..1000).take_while(|_| pace.0[index].check().is_ok()).count();
            let quota = match kind {
                Kind::Read => 10_000,
                Kind::List => 100,
                _ => 50,
            };
            assert!(taken > 0 && taken <= quota / 2 + 1, "{kind:?}: {taken} at once");
        }
        let paces = Paces::default();
        assert!(Arc::ptr_eq(&paces.of(Some("eu-west-1")), &paces.of(Some("eu-west-1"))));
        assert!(!Arc::ptr_eq(&paces.of(Some("eu-west-1")), &paces.of(None)));
    }
}
