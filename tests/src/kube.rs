//! Kubernetes as its users have it: objects over HTTPS, kubectl, Helm.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgtenant_lab::KubernetesBinaries;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use crate::{Api, Credential, Finished, Folder, Relay, eventually, repository, run, unique};

/// What is in `crds/` and in the chart's roles: everything that the control plane needs there.
const KINDS: [&str; 6] =
    ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ValidatingWebhookConfiguration"];

/// An API server, and somebody's access to it.
#[derive(Debug)]
pub struct Kube {
    folder: Folder,
    kubeconfig: PathBuf,
    api: Api,
}

impl Kube {
    /// Whoever the kubeconfig is of. It is one of the lab's, which are JSON.
    pub fn new(kubeconfig: &Path) -> Self {
        let text = fs::read_to_string(kubeconfig).expect("a kubeconfig");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        let cluster = &config["clusters"][0]["cluster"];
        let ca = STANDARD.decode(cluster["certificate-authority-data"].as_str().expect("a CA")).expect("base64");
        let token = config["users"][0]["user"]["token"].as_str().expect("a token");
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .tls_certs_only([Certificate::from_pem(&ca).expect("PEM")])
            .build()
            .expect("a client");
        let api = Api::over(client, cluster["server"].as_str().expect("a URL"), Some(token));
        Self { folder: Folder::new("kube"), kubeconfig: kubeconfig.to_owned(), api }
    }

    /// The file for `KUBECONFIG`.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's own REST. Clients belong to the runtime that makes them.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The same access, for another runtime.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(&self.kubeconfig)
    }

    /// Somebody else's access, by a bearer token.
    pub fn with_token(&self, token: &str) -> Self {
        self.with("/users/0/user/token", token)
    }

    /// The same access over a wire that can be cut.
    pub async fn over_relay(&self) -> (Self, Relay) {
        let config = self.config();
        let server = config["clusters"][0]["cluster"]["server"].as_str().expect("a URL");
        let relay = Relay::start(server.trim_start_matches("https://")).await;
        (self.with("/clusters/0/cluster/server", &format!("https://{}", relay.address())), relay)
    }

    fn with(&self, field: &str, text: &str) -> Self {
        let mut config = self.config();
        *config.pointer_mut(field).expect("the field") = json!(text);
        let file = self.folder.join(format!("{}.kubeconfig", unique("other")));
        fs::write(&file, config.to_string()).expect("a kubeconfig");
        Self::new(&file)
    }

    fn config(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(&self.kubeconfig).expect("a kubeconfig")).expect("JSON")
    }

    /// `kubectl` with these arguments.
    pub async fn kubectl(&self, args: &[&str]) -> Finished {
        self.tool(binaries().kubectl.expect("kubectl: run `make kubernetes`"), args).await
    }

    /// `helm` with these arguments.
    pub async fn helm(&self, args: &[&str]) -> Finished {
        self.tool(binaries().helm.expect("helm: run `make kubernetes`"), args).await
    }

    async fn tool(&self, program: PathBuf, args: &[&str]) -> Finished {
        let mut command = Command::new(program);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("HOME", self.folder.path());
        run(command).await
    }

    /// `kubectl apply -f`, with all of them in one file.
    pub async fn apply(&self, objects: &[Value]) -> Finished {
        let file = self.folder.join(format!("{}.json", unique("objects")));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(&file, list.to_string()).expect("a file");
        self.kubectl(&["apply", "-f", &file.to_string_lossy()]).await
    }

    /// A new namespace that no other test has.
    pub async fn namespace(&self, prefix: &str) -> String {
        let name = unique(prefix);
        self.api.post("/api/v1/namespaces", json!({"metadata": {"name": name}})).await.expect(201);
        name
    }

    /// An object; none where there is none.
    pub async fn find(&self, path: &str) -> Option<Value> {
        let answer = self.api.get(path).await;
        (answer.status != 404).then(|| answer.expect(200).json)
    }

    /// Makes a `PostgresqlDatabase` of v1.
    pub async fn create(&self, namespace: &str, name: &str, spec: Value) -> Value {
        let object = database(namespace, name, spec);
        self.api.post(&databases(namespace), object).await.expect(201).json
    }

    /// Changes its spec.
    pub async fn change(&self, namespace: &str, name: &str, spec: Value) -> Value {
        self.api.patch(&path(namespace, name), json!({"spec": spec})).await.expect(200).json
    }

    /// Deletes it; it may be there for as long as it has a finalizer.
    pub async fn delete(&self, namespace: &str, name: &str) {
        self.api.send("DELETE", &path(namespace, name), &[], None).await.expect(200);
    }

    /// Waits until the object is as wished.
    pub async fn comes_to(&self, namespace: &str, name: &str, what: &str, wish: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{namespace}/{name}: {what}"), Duration::from_secs(60), || async {
            let answer = self.api.get(&path(namespace, name)).await;
            if answer.status == 200 && wish(&answer.json) { Ok(answer.json) } else { Err(answer.text) }
        })
        .await
    }

    /// Waits until the spec that is there now is made true.
    pub async fn is_ready(&self, namespace: &str, name: &str) -> Value {
        self.comes_to(namespace, name, "Ready at its generation", |object| {
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && condition(object, "Ready")["status"] == "True"
        })
        .await
    }

    /// Makes one and waits until it is Ready.
    pub async fn ready(&self, namespace: &str, name: &str, spec: Value) -> Value {
        self.create(namespace, name, spec).await;
        self.is_ready(namespace, name).await
    }

    /// Waits until its `Ready` condition has this reason.
    pub async fn is_because(&self, namespace: &str, name: &str, reason: &str) -> Value {
        self.comes_to(namespace, name, reason, |object| condition(object, "Ready")["reason"] == reason).await
    }

    /// Waits until there is no such object.
    pub async fn is_gone(&self, namespace: &str, name: &str) {
        eventually(&format!("{namespace}/{name} is gone"), Duration::from_secs(60), || async {
            match self.find(&path(namespace, name)).await {
                None => Ok(()),
                Some(object) => Err(object.to_string()),
            }
        })
        .await;
    }

    /// A Secret, by its name.
    pub async fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        self.find(&format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await
    }

    /// What an application reads from the Secret of a tier.
    pub async fn credential(&self, namespace: &str, name: &str, tier: &str) -> Credential {
        let role = format!("{namespace}-{name}-{tier}");
        let secret = self.secret(namespace, &role).await.unwrap_or_else(|| panic!("no Secret {namespace}/{role}"));
        let get = |key: &str| {
            let text = secret["data"][key].as_str().unwrap_or_else(|| panic!("no {key} in {role}"));
            String::from_utf8(STANDARD.decode(text).expect("base64")).expect("text")
        };
        Credential {
            username: get("username"),
            password: get("password"),
            endpoint: get("endpoint"),
            port: get("port").parse().expect("a port"),
            database: get("database"),
            sslmode: get("sslmode"),
            uri: get("uri"),
            ca: get("ca.crt"),
        }
    }

    /// Installs the definitions, and from the chart the roles and the admission webhook, whose Service is left out: here the
    /// control plane runs outside. Returns its access: the ServiceAccount's, and nothing more.
    pub async fn install(&self, namespace: &str) -> Self {
        self.api.post("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await.expect(201);
        let crds = repository().join("crds");
        self.kubectl(&["apply", "--server-side", "-f", &crds.to_string_lossy()]).await.expect(0);
        let objects = self.rendered(namespace, &[]).await;
        self.apply(&objects).await.expect(0);
        self.account(namespace, "pgtenant").await
    }

    /// The External Secrets Operator's own definition of `ExternalSecret`; the operator itself does not run.
    pub async fn install_external_secrets(&self) {
        let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").expect("HOME")).join(".cache"));
        let file = cache.join("pgtenant/kubernetes/current/external-secrets.yaml");
        // Its descriptions do not fit into the annotation of `kubectl apply`.
        let applied = self.kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()]).await;
        assert_eq!(applied.status, 0, "run `make kubernetes`: {}", applied.stderr);
    }

    /// The chart's objects of the kinds that are of use without nodes. `args` are further ones of `helm template`.
    pub async fn rendered(&self, namespace: &str, args: &[&str]) -> Vec<Value> {
        let chart = repository().join("charts/pgtenant").display().to_string();
        let fixed = [
            "template",
            "pgtenant",
            &chart,
            "--namespace",
            namespace,
            "--kube-version",
            "1.36.0",
            "--set",
            "config.ledger.url=postgresql://l@l/l",
            "--set",
            "ledger.existingSecret=l",
        ];
        let text = self.helm(&[&fixed[..], args].concat()).await.expect(0).stdout;
        let documents = serde_yaml_ng::Deserializer::from_str(&text);
        let objects = documents.map(|one| <Value as serde::Deserialize>::deserialize(one).expect("YAML"));
        objects
            .filter(|object| KINDS.iter().any(|kind| object["kind"] == *kind))
            .map(|mut object| {
                for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
                    webhook["clientConfig"] = json!({"url": "https://127.0.0.1:1/validate"});
                }
                object
            })
            .collect()
    }

    /// Access as a ServiceAccount.
    pub async fn account(&self, namespace: &str, name: &str) -> Self {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 36000},
        });
        let answer = self.api.post(&path, request).await.expect(201).json;
        self.with_token(answer["status"]["token"].as_str().expect("a token"))
    }
}

fn binaries() -> KubernetesBinaries {
    KubernetesBinaries::locate().unwrap_or_else(|error| panic!("{error}"))
}

/// The path of a namespace's databases, in v1.
pub fn databases(namespace: &str) -> String {
    format!("/apis/pgtenant.io/v1/namespaces/{namespace}/postgresqldatabases")
}

fn path(namespace: &str, name: &str) -> String {
    format!("{}/{name}", databases(namespace))
}

/// A `PostgresqlDatabase` of v1.
pub fn database(namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "pgtenant.io/v1", "kind": "PostgresqlDatabase",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// The path of a namespace's restores.
pub fn restores(namespace: &str) -> String {
    format!("/apis/pgtenant.io/v1/namespaces/{namespace}/postgresqlrestores")
}

/// A `PostgresqlRestore` of the newest snapshot; `more` are further fields of its spec.
pub fn restore(namespace: &str, name: &str, database: &str, more: Value) -> Value {
    let mut spec = json!({"database": database, "from": {"latest": true}});
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({
        "apiVersion": "pgtenant.io/v1", "kind": "PostgresqlRestore",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// A condition of an object; null where there is none.
pub fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array();
    all.and_then(|all| all.iter().find(|one| one["type"] == kind)).cloned().unwrap_or_default()
}
