//! A door, a ledger of its own, and tokens of every kind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures::FutureExt;
use futures::future::BoxFuture;
use pgtenant_api::{ApiParts, ApiSettings, ApiState, Check, PlanError, Planner, SnapshotsError, TrialError};
use pgtenant_ledger::{Ledger, NewToken, TokenRole, create_token, put_clusters};
use pgtenant_model::{
    CheckResult, ClaimKey, ClaimPlan, ClusterSpec, PlanAction, PlanReport, PlanRequest, PreflightCheck, Snapshot,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What the planner was asked, and what it does instead of planning.
#[derive(Default)]
pub(crate) struct FakePlanner {
    pub(crate) asked: Mutex<Vec<(PlanRequest, Option<Vec<String>>)>>,
    pub(crate) tried: Mutex<Vec<(String, Duration)>>,
    /// What every database can be restored from, if that is known, and how long it takes to say so.
    pub(crate) snapshots: Mutex<Option<(Option<Vec<Snapshot>>, Duration)>>,
    /// Whose snapshots were looked for.
    pub(crate) looked: Mutex<Vec<ClaimKey>>,
}

impl Planner for FakePlanner {
    fn plan(
        &self,
        request: PlanRequest,
        scope: Option<Vec<String>>,
    ) -> BoxFuture<'static, Result<PlanReport, PlanError>> {
        self.asked.lock().unwrap().push((request.clone(), scope));
        async move {
            let plan = |claim: pgtenant_model::PlannedClaim| ClaimPlan {
                database: format!("{}-{}", claim.namespace, claim.name),
                cluster: claim.spec().cluster,
                namespace: claim.namespace,
                name: claim.name,
                action: PlanAction::Create,
                changes: Vec::new(),
                problems: Vec::new(),
            };
            match request.claims.first().map(|claim| claim.name.as_str()) {
                Some("panics") => panic!("a bug in the planner"),
                Some("hangs") => std::future::pending().await,
                Some("unreachable") => Err(PlanError::Unreachable {
                    cluster: "default".into(),
                    source: "password authentication failed at 10.0.0.7".into(),
                }),
                Some("away") => Err(PlanError::Ledger(sqlx::Error::PoolTimedOut.into())),
                Some("breaks") => Err(PlanError::Internal("an internal matter".into())),
                _ => Ok(PlanReport { claims: request.claims.into_iter().map(plan).collect() }),
            }
        }
        .boxed()
    }

    fn preflight(
        &self,
        cluster: String,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<PreflightCheck>, TrialError>> {
        self.tried.lock().unwrap().push((cluster.clone(), limit));
        let check = PreflightCheck {
            check: "roles".to_owned(),
            result: CheckResult::Failed,
            message: format!("{cluster} lets nobody make roles"),
        };
        let answer = match cluster.as_str() {
            "default" => Ok(vec![check]),
            "closed" => Err(TrialError::Busy),
            _ => Err(TrialError::Unknown),
        };
        async move { answer }.boxed()
    }

    fn cluster_snapshots(&self, cluster: String) -> BoxFuture<'static, Result<Vec<Snapshot>, SnapshotsError>> {
        let answer = match cluster.as_str() {
            "default" => Ok(vec![Snapshot {
                id: "rds:default-2026-11-20-02-14".parse().unwrap(),
                at: chrono::DateTime::UNIX_EPOCH,
                size: None,
                contains: None,
                verified_at: None,
                location: "RDS".to_owned(),
            }]),
            _ => Err(SnapshotsError::Unknown),
        };
        async move { answer }.boxed()
    }

    fn snapshots(&self, _cluster: String, key: ClaimKey) -> BoxFuture<'static, Result<Vec<Snapshot>, SnapshotsError>> {
        self.looked.lock().unwrap().push(key.clone());
        let unreachable = |message: &str| SnapshotsError::Unreachable { message: message.to_owned() };
        if let Some((known, delay)) = self.snapshots.lock().unwrap().clone() {
            return async move {
                tokio::time::sleep(delay).await;
                known.ok_or_else(|| unreachable("the bucket <gone> does not answer"))
            }
            .boxed();
        }
        let at = chrono::DateTime::UNIX_EPOCH;
        let answer = match key.name() {
            "away" => Err(unreachable("the bucket does not answer")),
            _ => Ok(vec![Snapshot {
                id: "dump:one".parse().unwrap(),
                at,
                size: Some(1),
                contains: Some(true),
                verified_at: None,
                location: "a folder".to_owned(),
            }]),
        };
        async move { answer }.boxed()
    }
}

pub(crate) struct World {
    pub(crate) ledger: Ledger,
    pub(crate) state: ApiState,
    pub(crate) planner: Arc<FakePlanner>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) down: Arc<Mutex<Option<String>>>,
    pub(crate) platform: String,
    pub(crate) tenant: String,
    pub(crate) viewer: String,
    pub(crate) foreign: String,
    router: Router,
    settings: ApiSettings,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The slug of a problem, after a check of what every problem has.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.json["status"], self.status.as_u16(), "{self:?}");
        assert_eq!(self.json["requestId"], self.header("x-request-id"), "{self:?}");
        for field in ["title", "detail", "instance"] {
            assert!(self.json[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {self:?}");
        }
        self.json["type"].as_str().unwrap().strip_prefix(pgtenant_api::PROBLEM_BASE).unwrap()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, slug: &str) -> Self {
        assert_eq!((self.status.as_u16(), self.problem()), (status, slug), "{self:?}");
        self
    }
}

pub(crate) const DATABASES: &str = "/v1/namespaces/team/databases";

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(ApiSettings { rate_burst: 10_000, failures_burst: 10_000, ..ApiSettings::default() }).await
    }

    pub(crate) async fn with(settings: ApiSettings) -> Self {
        let ledger = Ledger::new(pgtenant_testkit::fresh_database("api").await, 8);
        ledger.migrate().await.unwrap();
        let mut db = ledger.acquire().await.unwrap();
        put_clusters(&mut db, &[cluster("default", "*"), cluster("closed", "team*")]).await.unwrap();
        let mut secrets = Vec::new();
        for (name, role, namespaces) in [
            ("platform", TokenRole::Platform, &[][..]),
            ("tenant", TokenRole::Tenant, &["team", "team-b"]),
            ("viewer", TokenRole::Viewer, &["team"]),
            ("foreign", TokenRole::Tenant, &["other"]),
        ] {
            let namespaces = namespaces.iter().map(ToString::to_string).collect();
            let new = NewToken { name: name.into(), role, namespaces, expires_at: None };
            secrets.push(create_token(&mut db, new).await.unwrap().1.expose_secret().to_owned());
        }
        drop(db);
        let [platform, tenant, viewer, foreign] = secrets.try_into().unwrap();
        Self::over(ledger, settings, [platform, tenant, viewer, foreign])
    }

    pub(crate) fn over(ledger: Ledger, settings: ApiSettings, tokens: [String; 4]) -> Self {
        let planner = Arc::new(FakePlanner::default());
        let (down, shutdown) = (Arc::<Mutex<Option<String>>>::default(), CancellationToken::new());
        let engine = Arc::clone(&down);
        let state = ApiState::new(ApiParts {
            ledger: ledger.clone(),
            planner: Arc::<FakePlanner>::clone(&planner),
            metrics: Arc::new(|| "pgtenant_build_info 1\n".to_owned()),
            readiness: Arc::new(move || {
                let problem = engine.lock().unwrap().clone();
                async move { vec![Check { part: "engine".to_owned(), problem }] }.boxed()
            }),
            settings: settings.clone(),
            shutdown: shutdown.clone(),
        });
        tokio::spawn(pgtenant_api::follow_events(state.clone()));
        let router = pgtenant_api::router(state.clone());
        let [platform, tenant, viewer, foreign] = tokens;
        Self { ledger, state, planner, shutdown, down, platform, tenant, viewer, foreign, router, settings }
    }

    /// How the door is set.
    pub(crate) fn state_settings(&self) -> ApiSettings {
        self.settings.clone()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let asked = format!("{} {} {:?}", request.method(), request.uri(), request.headers().get("last-event-id"));
        let response = self.stream(request).await;
        let (parts, body) = response.into_parts();
        let read = tokio::time::timeout(Duration::from_secs(20), axum::body::to_bytes(body, 10 << 20)).await;
        let bytes = read.unwrap_or_else(|_| panic!("{asked}: {} does not end", parts.status)).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status: parts.status, headers: parts.headers, json, text }
    }

    /// The answer whose body is not read yet.
    pub(crate) async fn stream(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn ask(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.ask_with(token, method, path, body, &[]).await
    }

    pub(crate) async fn ask_with(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        let mut headers = headers.to_vec();
        if !text.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            headers.push(("content-type", "application/json"));
        }
        self.send(request(token, method, path, text, &headers)).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Reply {
        self.ask(token, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: Value) -> Reply {
        self.ask(token, Method::POST, path, Some(body)).await
    }

    /// A database of namespace `team`.
    pub(crate) async fn make(&self, name: &str) -> Value {
        self.post(&self.tenant, DATABASES, json!({"name": name})).await.expect(201).json
    }

    /// One number from the ledger.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let mut db = self.ledger.acquire().await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut *db).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        let mut db = self.ledger.acquire().await.unwrap();
        sqlx::query(sql).execute(&mut *db).await.unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) fn request(
    token: &str,
    method: Method,
    path: &str,
    body: impl Into<Body>,
    headers: &[(&str, &str)],
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn cluster(name: &str, namespaces: &str) -> (String, ClusterSpec) {
    let spec = json!({
        "topology": {"streaming": {"hosts": ["db1:5432", "db2:5432"]}},
        "provisioner": {"username": "provisioner", "passwordFile": "/run/secrets/provisioner"},
        "stores": [{"file": {"directory": "/var/lib/pgtenant/secrets"}}],
        "allowedNamespaces": [namespaces],
        "allowedExtensions": ["pgcrypto"],
        "limits": {"databasesPerNamespace": 5},
    });
    (name.to_owned(), serde_json::from_value(spec).unwrap())
}

/// Waits for what a test wants to be true, with a deadline.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Operations of the document: path, method, operation.
pub(crate) fn operations() -> Vec<(String, Method, Value)> {
    let document = pgtenant_api::openapi();
    let paths: HashMap<String, HashMap<String, Value>> = serde_json::from_value(document["paths"].clone()).unwrap();
    let mut all = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item {
            all.push((path.clone(), method.to_uppercase().parse::<Method>().unwrap(), operation));
        }
    }
    all.sort_by_key(|(path, method, _)| (path.clone(), method.to_string()));
    all
}
