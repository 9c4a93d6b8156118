//! The RDS Proxy of an Aurora cluster knows the secrets of the cluster's claims, those in Secrets Manager of its region.
//!
//! Every replica sees to it by itself. RDS takes the whole list at once, so that of two replicas the later one wins; the one whose
//! list was the older one finds another in the ledger at its next look.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgtenant_ledger::{Ledger, claims_with_credentials};
use pgtenant_model::{CredentialTarget, InvalidField, StoreSpec, Tier};
use pgtenant_rds::Registered;
use pgtenant_topology::Aurora;
use rand::RngExt as _;

use crate::cluster::Cluster;
use crate::failure::Cause;

/// How often the proxy is asked although the claims are the same.
const INSPECTION: Duration = Duration::from_secs(300);

/// A cluster's proxy in this replica.
#[derive(Debug)]
pub(crate) struct Proxy<'a> {
    ledger: &'a Ledger,
    cluster: &'a Cluster,
    aurora: &'a Aurora,
    name: &'a str,
    findings: Mutex<Vec<InvalidField>>,
}

/// The secrets that the proxy knew, and when it said so.
#[derive(Debug)]
struct Known {
    secrets: BTreeSet<String>,
    at: Instant,
}

impl<'a> Proxy<'a> {
    /// None: the cluster's description names no proxy.
    pub(crate) fn of(ledger: &'a Ledger, cluster: &'a Cluster) -> Option<Self> {
        let aurora = &cluster.aurora()?.aurora;
        let name = aurora.spec().proxy.as_deref()?;
        Some(Self { ledger, cluster, aurora, name, findings: Mutex::default() })
    }

    /// What a preflight says of it.
    pub(crate) fn findings(&self) -> Vec<InvalidField> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Registers secrets for as long as it is polled. Which claims there are is looked at each `interval`.
    pub(crate) async fn keep(&self, interval: Duration) {
        let mut known = None;
        loop {
            if let Some(findings) = self.look(&mut known).await {
                *self.findings.lock().unwrap_or_else(PoisonError::into_inner) = findings;
            }
            // With jitter, so that replicas do not look together.
            let jitter = rand::rng().random_range(0.9..=1.1);
            tokio::time::sleep(interval.mul_f64(jitter)).await;
        }
    }

    /// What was found; none: nothing new.
    async fn look(&self, known: &mut Option<Known>) -> Option<Vec<InvalidField>> {
        let say = |message: String| Some(vec![InvalidField::new("topology.aurora.proxy", message)]);
        let region = self.aurora.spec().region.as_str();
        if !self.cluster.spec.stores.iter().any(|store| may_be_in(store, region)) {
            return say(format!(
                "an RDS Proxy knows logins from Secrets Manager in {region} alone, and no store is there: add \
                 awsSecretsManager to stores, or take proxy out of the description"
            ));
        }
        let secrets = match self.secrets(region).await {
            Ok(secrets) => secrets,
            Err(Cause::Ledger(error)) => {
                tracing::warn!(cluster = self.cluster.name, error = ?error, "the ledger does not answer");
                return None;
            }
            // Of an incomplete list the rest would be taken for removed.
            Err(cause) => return say(format!("no secrets are registered: {cause}")),
        };
        if known.as_ref().is_some_and(|known| known.secrets == secrets && known.at.elapsed() < INSPECTION) {
            return None;
        }
        *known = None;
        match self.aurora.rds().register_secrets(self.name, &secrets).await {
            Ok(registered) => {
                if registered == Registered::Changed {
                    let count = secrets.len();
                    tracing::info!(cluster = self.cluster.name, proxy = self.name, count, "registered secrets");
                }
                // What was changed is asked for once more: another replica may have been at it.
                if matches!(registered, Registered::Same | Registered::Full(_)) {
                    *known = Some(Known { secrets, at: Instant::now() });
                }
                Some(registered.finding(self.name).into_iter().collect())
            }
            Err(fault) => say(format!("{fault}; {}", fault.advice())),
        }
    }

    /// The ARNs of all secrets that the cluster's claims have in the region.
    async fn secrets(&self, region: &str) -> Result<BTreeSet<String>, Cause> {
        let claims = claims_with_credentials(&mut *self.ledger.acquire().await?, &self.cluster.name).await?;
        let of = |key| Tier::ALL.map(|tier| CredentialTarget { key: Clone::clone(&key), tier });
        let targets: Vec<CredentialTarget> = claims.into_iter().flat_map(of).collect();
        Ok(self.cluster.stores.arns(region, &targets).await?)
    }
}

fn may_be_in(store: &StoreSpec, region: &str) -> bool {
    match store {
        // Without a region it is the environment's, which may be this one.
        StoreSpec::AwsSecretsManager(store) => store.region.as_deref().is_none_or(|one| one == region),
        StoreSpec::File(_) | StoreSpec::Kubernetes(_) | StoreSpec::ExternalSecret(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_another_region_is_of_no_use_to_a_proxy() {
        let aws = |region: Option<&str>| {
            let spec = serde_json::json!({"awsSecretsManager": {"region": region}});
            may_be_in(&serde_json::from_value(spec).unwrap(), "eu-west-1")
        };
        assert!(aws(Some("eu-west-1")) && aws(None));
        assert!(!aws(Some("eu-central-1")));
        let kubernetes = serde_json::from_value(serde_json::json!({"kubernetes": {}})).unwrap();
        assert!(!may_be_in(&kubernetes, "eu-west-1"));
    }
}
