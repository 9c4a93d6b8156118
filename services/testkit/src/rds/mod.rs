//! Amazon RDS on the wire, as far as a real one differs from moto: what is made takes time, what exists is not replaced, and
//! calls can be refused. The servers behind the endpoints are real ones, which the test names.
//!
//! The protocol is [AWS Query](https://smithy.io/2.0/aws/protocols/aws-query-protocol.html): a form in, XML out. What RDS says of
//! a thing is kept as a list of paths and values, as `DBClusterMembers.DBClusterMember.1.IsClusterWriter`, which are mostly those
//! of the form that made it.

mod proxy;
mod restore;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::xml::xml;
use state::{Refusal, State, prefixed, set};

/// Paths and values.
pub type RdsFields = BTreeMap<String, String>;

/// What was asked of RDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdsCall {
    /// As `DescribeDBClusters`.
    pub action: String,
    /// The form, without `Action` and `Version`.
    pub parameters: RdsFields,
}

/// RDS of one region. It ends with the test's runtime.
#[derive(Debug, Clone)]
pub struct FakeRds {
    url: String,
    state: Arc<Mutex<State>>,
}

impl FakeRds {
    /// Without any cluster; the endpoints of those that are made will lead to `host` and `port`.
    pub async fn start(host: &str, port: u16) -> Self {
        let state = Arc::new(Mutex::new(State { endpoint: (host.to_owned(), port), ..State::default() }));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.unwrap_or_else(|error| panic!("no port for RDS: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no address of RDS: {error}"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url: format!("http://{address}"), state }
    }

    /// For `AWS_ENDPOINT_URL_RDS`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was asked so far.
    pub fn calls(&self) -> Vec<RdsCall> {
        self.lock().calls.clone()
    }

    /// The names of the calls so far.
    pub fn actions(&self) -> Vec<String> {
        self.lock().calls.iter().map(|call| call.action.clone()).collect()
    }

    /// A Serverless v2 cluster that somebody else has made, with a writer and `readers`, available.
    pub fn add_cluster(&self, name: &str, readers: u32) {
        let mut state = self.lock();
        state.make_cluster(name);
        for number in 1..=readers + 1 {
            state.make_instance(name, &format!("{name}-{number}"));
        }
        state.settle();
    }

    /// A snapshot of a cluster, available: `rds:NAME` where it is automatic.
    pub fn add_snapshot(&self, cluster: &str, name: &str, at: &str, automatic: bool) {
        self.lock().add_snapshot(cluster, name, at, automatic);
    }

    /// As [`FakeRds::set`], of a snapshot.
    pub fn set_snapshot(&self, snapshot: &str, path: &str, value: &str) {
        set(self.lock().restores.snapshots.entry(snapshot.to_owned()).or_default(), path, value);
    }

    /// Forgets a snapshot, as if somebody had deleted it.
    pub fn delete_snapshot(&self, name: &str) {
        self.lock().restores.snapshots.remove(name);
    }

    /// The names of the snapshots that there are.
    pub fn snapshots(&self) -> Vec<String> {
        self.lock().restores.snapshots.keys().cloned().collect()
    }

    /// Where the endpoints of clusters lead that are made of snapshots or at points in time, and who replaces the password of a master
    /// login there: cluster, login, password.
    pub fn restores_are_at(
        &self,
        host: &str,
        port: u16,
        set_password: impl Fn(&str, &str, &str) + Send + Sync + 'static,
    ) {
        let mut state = self.lock();
        state.restores.endpoint = Some((host.to_owned(), port));
        state.restores.set_password = Some(Box::new(set_password));
    }

    /// Each call settles what was begun before it: a thing is in a state of transition when it is made, and not any more when it is
    /// asked for.
    pub fn settle_by_itself(&self) {
        self.lock().restores.quick = true;
    }

    /// The names of the clusters that there are.
    pub fn clusters(&self) -> Vec<String> {
        self.lock().clusters.keys().cloned().collect()
    }

    /// What was begun comes to its end: clusters and instances become `available`, or are gone.
    pub fn settle(&self) {
        self.lock().settle();
    }

    /// Sets what RDS says of a cluster; an empty value takes the path away.
    pub fn set(&self, cluster: &str, path: &str, value: &str) {
        set(self.lock().clusters.entry(cluster.to_owned()).or_default(), path, value);
    }

    /// As [`FakeRds::set`], of an instance.
    pub fn set_instance(&self, instance: &str, path: &str, value: &str) {
        set(self.lock().instances.entry(instance.to_owned()).or_default(), path, value);
    }

    /// What RDS says of a cluster under `path`.
    pub fn get(&self, cluster: &str, path: &str) -> Option<String> {
        self.lock().clusters.get(cluster)?.get(path).cloned()
    }

    /// Forgets a cluster, as if somebody had deleted it.
    pub fn delete_cluster(&self, cluster: &str) {
        self.lock().clusters.remove(cluster);
    }

    /// Sets a parameter of a group.
    pub fn set_parameter(&self, group: &str, name: &str, value: &str) {
        self.lock().groups.entry(group.to_owned()).or_default().insert(name.to_owned(), value.to_owned());
    }

    /// A proxy with these secrets.
    pub fn add_proxy(&self, name: &str, secrets: &[&str]) {
        self.lock().proxies.add(name, secrets);
    }

    /// As [`FakeRds::set`], of a proxy.
    pub fn set_proxy(&self, name: &str, path: &str, value: &str) {
        self.lock().proxies.set(name, path, value);
    }

    /// Forgets a proxy, as if somebody had deleted it.
    pub fn delete_proxy(&self, name: &str) {
        self.lock().proxies.remove(name);
    }

    /// The secrets that a proxy has.
    pub fn proxy_secrets(&self, name: &str) -> Vec<String> {
        self.lock().proxies.secrets(name)
    }

    /// Maintenance that is due on every cluster.
    pub fn plan_maintenance(&self, action: &str, description: &str) {
        self.lock().maintenance.push((action.to_owned(), description.to_owned()));
    }

    /// The writer of `cluster` is lost. [`FakeRds::fail_over`] ends it. During it the status is `failing-over`:
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/accessing-monitoring.html>.
    pub fn begin_failover(&self, cluster: &str) {
        self.set(cluster, "Status", "failing-over");
    }

    /// `instance` is the writer now, and the cluster endpoint leads to `host` and `port`: with the real one the name stays and
    /// leads elsewhere, which no name on this machine can.
    pub fn fail_over(&self, cluster: &str, instance: &str, host: &str, port: u16) {
        let mut state = self.lock();
        let fields = state.clusters.entry(cluster.to_owned()).or_default();
        let names: Vec<(String, bool)> = fields
            .iter()
            .filter(|(path, _)| path.ends_with(".DBInstanceIdentifier"))
            .map(|(path, name)| (path.replace("DBInstanceIdentifier", "IsClusterWriter"), name == instance))
            .collect();
        fields.extend(names.into_iter().map(|(path, writer)| (path, writer.to_string())));
        set(fields, "Endpoint", host);
        set(fields, "Port", &port.to_string());
        set(fields, "Status", "available");
    }

    /// Refuses a call from now on, as IAM does:
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/CommonErrors.html>.
    pub fn deny(&self, action: &str) {
        let message =
            format!("User: arn:aws:sts::123456789012:assumed-role/pgtenant is not authorized to perform: rds:{action}");
        self.refuse(action, StatusCode::FORBIDDEN, "AccessDenied", message, None);
    }

    /// Refuses a call so many times, as RDS does when it is asked too often (same list of errors).
    pub fn throttle(&self, action: &str, times: u32) {
        self.refuse(action, StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded".to_owned(), Some(times));
    }

    /// Refuses nothing any more.
    pub fn allow_everything(&self) {
        self.lock().refusals.clear();
    }

    fn refuse(&self, action: &str, status: StatusCode, code: &'static str, message: String, times: Option<u32>) {
        self.lock().refusals.push((action.to_owned(), Refusal { status, code, message, times }));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(Shared(state): Shared<Arc<Mutex<State>>>, body: String) -> Response {
    let mut form: RdsFields = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let action = form.remove("Action").unwrap_or_default();
    form.remove("Version");
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.calls.push(RdsCall { action: action.clone(), parameters: form.clone() });
    let (status, body) = match state.refused(&action).map_or_else(|| state.act(&action, form), Err) {
        Ok(fields) => {
            let result = prefixed(&format!("{action}Response.{action}Result"), fields);
            (StatusCode::OK, xml(&result, &format!("{action}Response.{action}Result")))
        }
        Err(Refusal { status, code, message, times: _ }) => {
            let fields = [("Type", "Sender"), ("Code", code), ("Message", &message)];
            let fields = fields.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
            (status, xml(&prefixed("ErrorResponse.Error", fields), "ErrorResponse"))
        }
    };
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}
