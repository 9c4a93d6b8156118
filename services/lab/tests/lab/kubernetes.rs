//! The API server that `pgtenant dev --kubernetes` and the tests run on.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pgtenant_lab::{Error, Kubernetes, KubernetesBinaries, KubernetesOptions};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::{DEADLINE, folder, helper, killed_when_up};

fn options(dir: &Path) -> KubernetesOptions {
    let binaries = KubernetesBinaries::locate().expect("Kubernetes: run make kubernetes");
    KubernetesOptions { fsync: false, ..KubernetesOptions::new(dir.join("kubernetes"), binaries) }
}

async fn open(options: KubernetesOptions) -> Kubernetes {
    Kubernetes::open_or_create(options, |_| {}).await.expect("an API server")
}

/// What a kubeconfig lets one do.
struct Api {
    http: Client,
    url: String,
    token: String,
}

impl Api {
    fn of(kubernetes: &Kubernetes) -> Self {
        Self::with(&kubernetes.kubeconfig(), kubernetes.ca_pem())
    }

    fn with(kubeconfig: &Path, ca: &str) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let text = fs::read_to_string(kubeconfig).expect("a kubeconfig");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        let of = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).expect("a value").to_owned();
        let authority = Certificate::from_pem(ca.as_bytes()).expect("a certificate");
        let http = Client::builder().tls_certs_only([authority]).timeout(DEADLINE).build().expect("a client");
        Self { http, url: of("/clusters/0/cluster/server"), token: of("/users/0/user/token") }
    }

    async fn try_ask(&self, method: Method, path: &str, body: Value) -> reqwest::Result<(StatusCode, String)> {
        let request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, String) {
        self.try_ask(method, path, body).await.expect("an answer")
    }

    async fn make(&self, path: &str, object: Value) -> Value {
        let (status, text) = self.ask(Method::POST, path, object).await;
        assert_eq!(status, StatusCode::CREATED, "{text}");
        serde_json::from_str(&text).expect("an object")
    }

    async fn make_namespace(&self, name: &str) -> Value {
        self.make("/api/v1/namespaces", json!({ "metadata": { "name": name } })).await
    }

    async fn status(&self, path: &str) -> StatusCode {
        self.ask(Method::GET, path, Value::Null).await.0
    }

    /// The events that a watch from this resource version on begins with.
    async fn watch(&self, version: &Value) -> String {
        let version = version.as_str().expect("a version");
        let path = format!("/api/v1/namespaces?watch=1&timeoutSeconds=1&resourceVersion={version}");
        self.ask(Method::GET, &path, Value::Null).await.1
    }
}

fn running(pids: &[u32]) -> bool {
    let arguments = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A zombie has none.
    pids.iter().any(|pid| !arguments(pid).is_empty())
}

/// Memory of the processes, in MB.
fn memory(pids: &[u32]) -> u64 {
    let pages = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default()
    };
    pids.iter().map(pages).sum::<u64>() * 4096 / 1_000_000
}

/// One Kubernetes for all of this: each start takes seconds of both cores.
#[tokio::test]
async fn a_kubernetes_lives_through_what_a_cluster_does() {
    let dir = folder();
    let start = Instant::now();
    let mut kubernetes = open(options(dir.path())).await;
    println!("  measured: Kubernetes was ready after {:?}", start.elapsed());
    let api = Api::of(&kubernetes);
    let pids = kubernetes.pids();
    assert_eq!(pids.len(), 3);

    // Who may what.
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(api.status(secrets).await, StatusCode::OK);
    let file = dir.path().join("stranger");
    kubernetes.write_kubeconfig(&file, "no-such-token").expect("written");
    assert_eq!(Api::with(&file, kubernetes.ca_pem()).status(secrets).await, StatusCode::UNAUTHORIZED);
    for file in [file, kubernetes.kubeconfig(), dir.path().join("kubernetes/admin.token")] {
        assert_eq!(fs::metadata(&file).expect("the file").mode() & 0o777, 0o600, "{}", file.display());
    }
    let home = dir.path().join("kubernetes/nodes/kubernetes");
    assert_eq!(fs::metadata(&home).expect("the folder").mode() & 0o777, 0o700);
    let me = fs::metadata("/proc/self").expect("this process").uid();
    for pid in &pids {
        let server = fs::metadata(format!("/proc/{pid}")).expect("the process").uid();
        assert!(server != 0 && (me == 0 || me == server), "process {pid} is user {server}'s");
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).expect("its arguments");
        assert!(!String::from_utf8_lossy(&arguments).contains(&api.token), "the token is among them");
    }

    // Another process.
    let error = Kubernetes::open_or_create(options(dir.path()), |_| {}).await.expect_err("it is refused");
    assert!(matches!(error, Error::Busy { .. }), "{error}");

    // A namespace and what is in it come to an end.
    let made = api.make_namespace("ending").await;
    api.make("/api/v1/namespaces/ending/configmaps", json!({ "metadata": { "name": "inside" } })).await;
    assert_eq!(api.ask(Method::DELETE, "/api/v1/namespaces/ending", Value::Null).await.0, StatusCode::OK);
    let start = Instant::now();
    while api.status("/api/v1/namespaces/ending").await != StatusCode::NOT_FOUND {
        assert!(start.elapsed() < DEADLINE, "the namespace is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("  measured: Kubernetes takes {} MB", memory(&pids));

    // Even a client that has seen all of the past is told that it is gone.
    let version = &made["metadata"]["resourceVersion"];
    assert!(api.watch(version).await.starts_with(r#"{"type":"MODIFIED""#));
    let latest = api.make_namespace("latest").await;
    kubernetes.forget_history().await.expect("forgotten");
    for version in [version, &latest["metadata"]["resourceVersion"]] {
        let event: Value = serde_json::from_str(&api.watch(version).await).expect("one event");
        assert_eq!(event["object"]["code"], 410, "{event}");
    }
    let exact =
        format!("/api/v1/namespaces?resourceVersionMatch=Exact&resourceVersion={}", version.as_str().expect("it"));
    assert_eq!(api.status(&exact).await, StatusCode::GONE);

    // The API server is away, or does not answer.
    kubernetes.kill_api_server();
    let error = kubernetes.require_running().expect_err("it was killed");
    assert!(error.to_string().starts_with("kube-apiserver has ended; its log ends with:"), "{error}");
    api.try_ask(Method::GET, secrets, Value::Null).await.expect_err("nobody answers");
    kubernetes.start_api_server().await.expect("a start");
    assert_eq!(api.status("/api/v1/namespaces/latest").await, StatusCode::OK);
    kubernetes.pause_api_server().await.expect("it pauses");
    let asked = tokio::time::timeout(Duration::from_millis(500), api.status(secrets)).await;
    asked.expect_err("nothing is answered");
    kubernetes.resume_api_server();
    assert_eq!(api.status(secrets).await, StatusCode::OK);
    kubernetes.require_running().expect("all of it runs");

    let pids = kubernetes.pids();
    let start = Instant::now();
    kubernetes.stop().await.expect("a stop");
    println!("  measured: Kubernetes was stopped after {:?}", start.elapsed());
    assert!(!running(&pids));
    assert!(kubernetes.pids().is_empty());
}

#[tokio::test]
#[ignore = "not a test: the process that the next one kills"]
async fn helper_that_runs_until_it_is_killed() {
    let dir = helper::dir();
    let kubernetes = open(options(&dir)).await;
    Api::of(&kubernetes).make_namespace("kept").await;
    let pids: Vec<String> = kubernetes.pids().iter().map(ToString::to_string).collect();
    fs::write(dir.join("pids"), pids.join(" ")).expect("written");
    helper::is_up(&dir).await;
}

#[tokio::test]
async fn all_of_it_ends_with_a_killed_process_and_the_next_goes_on() {
    let dir = folder();
    killed_when_up("kubernetes::helper_that_runs_until_it_is_killed", dir.path()).await;
    let pids = fs::read_to_string(dir.path().join("pids")).expect("the processes");
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().expect("a number")).collect();
    let kubeconfig = fs::read(dir.path().join("kubernetes/kubeconfig")).expect("the kubeconfig");

    let mut kubernetes = open(options(dir.path())).await;
    assert!(!running(&pids));
    assert_eq!(fs::read(kubernetes.kubeconfig()).expect("the kubeconfig"), kubeconfig);
    let api = Api::of(&kubernetes);
    assert_eq!(api.status("/api/v1/namespaces/kept").await, StatusCode::OK);

    // A ServiceAccount's token outlives a crash of all of it.
    let account = "/api/v1/namespaces/kept/serviceaccounts";
    api.make(account, json!({ "metadata": { "name": "tenant" } })).await;
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    let token = api.make(&format!("{account}/tenant/token"), request).await;
    let file = dir.path().join("tenant");
    kubernetes.write_kubeconfig(&file, token["status"]["token"].as_str().expect("a token")).expect("written");
    kubernetes.kill();
    kubernetes.start().await.expect("a start");
    let tenant = Api::with(&file, kubernetes.ca_pem());
    assert_eq!(tenant.status("/api/v1/namespaces/kept/secrets").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_port_in_use_is_named_and_a_part_that_ends_shows_its_log() {
    let dir = folder();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let options = KubernetesOptions { port: Some(port), ..options(dir.path()) };
    let error = Kubernetes::open_or_create(options.clone(), |_| {}).await.expect_err("it is refused");
    assert!(error.to_string().starts_with(&format!("port {port} for kube-apiserver is in use")), "{error}");

    let mut options = KubernetesOptions { port: None, dir: dir.path().join("broken"), ..options };
    options.binaries.etcd = "/usr/bin/env".into();
    let error = Kubernetes::open_or_create(options, |_| {}).await.expect_err("that is no etcd");
    assert!(matches!(&error, Error::Part { log, .. } if log.contains("--data-dir")), "{error}");
}

/// `pgtenant dev` does all this on a runtime with several threads.
#[test]
fn a_kubernetes_can_be_sent_to_another_thread() {
    fn sendable<T: Send>(_: &T) {}
    let dir = folder();
    sendable(&Kubernetes::open_or_create(options(dir.path()), |_| {}));
    fn shareable<T: Send + Sync>() {}
    shareable::<Kubernetes>();
}
