//! How Kubernetes objects that hold credentials are told from others: the stores write these marks, the door of Kubernetes
//! watches what has them.

use crate::{ClaimKey, CredentialTarget, Tier};

/// Who writes what the stores keep, in `metadata.managedFields`; also the value of [`MANAGED_BY`].
pub const STORE_MANAGER: &str = "pgtenant";
/// The label of every object that a store has made.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label with the claim's name.
pub const CLAIM_LABEL: &str = "pgtenant.io/claim";
/// The label with the tier.
pub const TIER_LABEL: &str = "pgtenant.io/tier";
/// With this annotation Stakater's Reloader starts a workload anew that mounts the Secret and asks for it.
pub const RELOADER: &str = "reloader.stakater.com/match";

impl CredentialTarget {
    /// The labels of the object that holds this credential.
    #[must_use]
    pub fn labels(&self) -> [(&'static str, &str); 3] {
        [(MANAGED_BY, STORE_MANAGER), (CLAIM_LABEL, self.key.name()), (TIER_LABEL, self.tier.as_str())]
    }

    /// Whose credential an object of this name in this namespace holds; none where the name is no role's.
    #[must_use]
    pub fn of_role(namespace: &str, role: &str) -> Option<Self> {
        let rest = role.strip_prefix(namespace)?.strip_prefix('-')?;
        let (name, tier) = rest.rsplit_once('-')?;
        let tier = Tier::ALL.into_iter().find(|one| one.as_str() == tier)?;
        Some(Self { key: ClaimKey::new(namespace, name).ok()?, tier })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_names_its_claim() {
        let target = CredentialTarget { key: ClaimKey::new("a-b", "c-read").unwrap(), tier: Tier::Admin };
        assert_eq!(CredentialTarget::of_role("a-b", &target.role()), Some(target));
        for role in ["a-b-read", "a-b-c", "a-bc-read", "a-b-c-owner", "x", ""] {
            assert_eq!(CredentialTarget::of_role("a-b", role), None, "{role}");
        }
    }
}
