//! A folder, a ledger with one cluster, and words to speak of them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pgtenant_apps_repo::{Guard, Limits, Scanner, Synced, Syncer, render_problems};
use pgtenant_ledger::{Actor, Ledger, apps_problems, put_clusters};
use pgtenant_model::{ClaimKey, ClusterSpec, Source};
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) const OURS: &str = "helm: {chart: idp-postgresql}\n";

pub(crate) const REST: Duration = Duration::from_secs(5);

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) root: PathBuf,
    pub(crate) ledger: Ledger,
    pub(crate) options: PgConnectOptions,
    pub(crate) syncer: Syncer,
    pub(crate) now: Instant,
    /// When something in the folder was heard of.
    pub(crate) changed: Option<Instant>,
    pub(crate) unfinished: Duration,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::guarded(Guard::default()).await
    }

    pub(crate) async fn guarded(guard: Guard) -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("apps");
        fs::create_dir(&root).unwrap();
        let options = pgtenant_testkit::fresh_database("apps").await;
        let ledger = Ledger::new(options.clone(), 4);
        ledger.migrate().await.unwrap();
        let spec: ClusterSpec = serde_json::from_value(serde_json::json!({
            "topology": {"streaming": {"hosts": ["db.example:5432"]}},
            "provisioner": {"username": "p", "passwordFile": "/p"},
            "stores": [{"file": {"directory": "/s"}}],
            "allowedNamespaces": ["ns", "other", "a*"],
            "allowedExtensions": ["pgcrypto"],
            "limits": {"databasesPerNamespace": 30},
        }))
        .unwrap();
        put_clusters(&mut ledger.acquire().await.unwrap(), &[("default".to_owned(), spec)]).await.unwrap();
        Self {
            dir,
            root,
            ledger,
            options,
            syncer: Syncer::new(guard, REST),
            now: Instant::now(),
            changed: None,
            unfinished: Duration::ZERO,
        }
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// An application with these entries, each the inside of a flow mapping; a bare word is a name.
    pub(crate) fn application(&self, place: &str, entries: &[&str]) {
        self.put(&format!("{place}/application.yaml"), OURS);
        self.put(&format!("{place}/values.yaml"), &values(entries));
    }

    pub(crate) fn remove(&self, name: &str) {
        let path = self.root.join(name);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    /// One look, later after the last one than any removal waits.
    pub(crate) async fn look(&mut self) -> Synced {
        self.look_after(REST * 2).await
    }

    pub(crate) async fn look_after(&mut self, wait: Duration) -> Synced {
        self.now += wait;
        let scan = Scanner::new(Limits::default(), self.unfinished).scan(&self.root);
        self.syncer.sync(&self.ledger, &scan, self.now, self.changed).await.unwrap()
    }

    /// Looks twice, and expects no problem.
    pub(crate) async fn settle(&mut self) {
        self.look().await;
        let synced = self.look().await;
        assert_eq!(render_problems(&synced.problems), "");
    }

    /// `namespace/name wish mode file`.
    pub(crate) async fn claims(&self) -> Vec<String> {
        let sql = "select format('%s/%s %s %s %s', namespace, name, wish, mode, coalesce(source_ref, source))
                   from claims order by namespace, name";
        sqlx::query_scalar(sql).fetch_all(&mut *self.ledger.acquire().await.unwrap()).await.unwrap()
    }

    /// `namespace/name wish`.
    pub(crate) async fn wishes(&self) -> Vec<String> {
        self.claims().await.iter().map(|c| c.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    /// The problems as the ledger has them.
    pub(crate) async fn problems(&self) -> String {
        render_problems(&apps_problems(&mut self.ledger.acquire().await.unwrap()).await.unwrap())
    }

    pub(crate) async fn one<T>(&self, sql: &'static str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(sql).fetch_one(&mut *self.ledger.acquire().await.unwrap()).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut *self.ledger.acquire().await.unwrap()).await.unwrap();
    }

    pub(crate) async fn create_over_rest(&self, namespace: &str, name: &str) {
        let mut db = self.ledger.begin().await.unwrap();
        let (key, spec) = (key(namespace, name), pgtenant_model::ClaimSpec::default());
        pgtenant_ledger::create(&mut db, &key, &spec, (Source::Api, None), &Actor::new("token:t")).await.unwrap();
        db.commit().await.unwrap();
    }

    pub(crate) async fn release(&self, namespace: &str, name: &str) {
        let mut db = self.ledger.begin().await.unwrap();
        pgtenant_ledger::release(&mut db, &key(namespace, name), None, &Actor::new("token:t")).await.unwrap();
        db.commit().await.unwrap();
    }
}

pub(crate) fn key(namespace: &str, name: &str) -> ClaimKey {
    ClaimKey::new(namespace, name).unwrap()
}

pub(crate) fn values(entries: &[&str]) -> String {
    let mut text = "postgresqlDatabases:\n".to_owned();
    for entry in entries {
        let entry = if entry.contains(':') { (*entry).to_owned() } else { format!("name: {entry}") };
        text.push_str(&format!("  - {{{entry}}}\n"));
    }
    if entries.is_empty() { "postgresqlDatabases: []\n".to_owned() } else { text }
}
