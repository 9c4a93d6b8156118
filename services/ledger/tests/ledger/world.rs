//! A ledger with one cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use pgtenant_ledger::{
    Actor, Claim, Finished, Ledger, LedgerTransaction, Take, Work, Written, claim, create, put_clusters, take,
};
use pgtenant_model::{ClaimKey, ClaimSpec, ClusterSpec, DatabaseState, Source};
use serde_json::json;
use uuid::Uuid;

pub(crate) const LEASE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) ledger: Ledger,
}

impl World {
    pub(crate) async fn new() -> Self {
        let ledger = Ledger::new(pgtenant_testkit::fresh_database("ledger").await, 8);
        ledger.migrate().await.unwrap();
        let spec: ClusterSpec = serde_json::from_value(json!({
            "topology": {"streaming": {"hosts": ["db1:5432", "db2:5432"]}},
            "provisioner": {"username": "provisioner", "passwordFile": "/run/secrets/provisioner"},
            "stores": [{"file": {"directory": "/var/lib/pgtenant/secrets"}}],
            "allowedNamespaces": ["*"],
            "limits": {"databasesPerNamespace": 10},
        }))
        .unwrap();
        put_clusters(&mut ledger.acquire().await.unwrap(), &[("default".to_owned(), spec)]).await.unwrap();
        Self { ledger }
    }

    pub(crate) async fn begin(&self) -> LedgerTransaction {
        self.ledger.begin().await.unwrap()
    }

    pub(crate) async fn create(&self, name: &str) -> Written {
        let key = ClaimKey::new("team", name).unwrap();
        let mut tx = self.begin().await;
        let written = create(&mut tx, &key, &ClaimSpec::default(), (Source::Api, None), &actor()).await.unwrap();
        tx.commit().await.unwrap();
        written
    }

    pub(crate) async fn claim(&self, key: &ClaimKey) -> Option<Claim> {
        claim(&mut self.ledger.acquire().await.unwrap(), key).await.unwrap()
    }

    /// What `holder` is given of all wishes.
    pub(crate) async fn take(&self, holder: Uuid, limit: i64, lease: Duration) -> Vec<Work> {
        let take_all = Take { holder, limit, urgent: true, lease, head_start: Duration::ZERO };
        take(&mut self.ledger.acquire().await.unwrap(), "default", take_all).await.unwrap()
    }
}

pub(crate) fn actor() -> Actor {
    Actor::new("test")
}

pub(crate) fn ready() -> Finished {
    Finished {
        state: DatabaseState::Ready,
        conditions: Vec::new(),
        done: true,
        step: None,
        message: None,
        next: Duration::from_secs(600),
        endpoint: None,
        roles: None,
        credentials: BTreeMap::new(),
        rotated: Vec::new(),
        waits: false,
        to_rotate: Vec::new(),
        keep: None,
        proven: None,
        events: Vec::new(),
    }
}
