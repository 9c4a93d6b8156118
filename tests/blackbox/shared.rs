//! What tests share that do no harm to each other. Each takes namespaces of its own.

use pgtenant_testkit::Kubernetes;
use pgtenant_tests::{Api, Dev, Kube, Place, Serve, Site, SiteOptions, condition, database, databases, soon, unique};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// A running `pgtenant dev`. Looks at each claim every ten seconds.
pub(crate) async fn dev() -> &'static Dev {
    static DEV: OnceCell<Dev> = OnceCell::const_new();
    DEV.get_or_init(Dev::fresh).await
}

/// A control plane beside a cluster.
pub(crate) struct Plane {
    pub(crate) site: Site,
    pub(crate) serve: Serve,
}

impl Plane {
    pub(crate) async fn start(options: SiteOptions) -> Self {
        let site = Site::new(options).await;
        let serve = site.serve("serve").await;
        serve.is_ready().await;
        Self { site, serve }
    }

    pub(crate) fn api(&self) -> Api {
        self.serve.api()
    }

    /// A client with a token of this role.
    pub(crate) async fn api_of(&self, role: &str, namespaces: &[&str]) -> Api {
        let body = serde_json::json!({"name": unique(role), "role": role, "namespaces": namespaces});
        let made = self.api().post("/v1/tokens", body).await.expect(201).json;
        self.api().with_token(made["secret"].as_str())
    }
}

/// A control plane in Kubernetes, with the roles of its chart.
pub(crate) struct KubePlane {
    admin: Kube,
    pub(crate) plane: Plane,
}

impl KubePlane {
    pub(crate) async fn start(lab: &Kubernetes, options: SiteOptions) -> Self {
        let admin = Kube::new(&lab.kubeconfig());
        let own = admin.install("pgtenant-system").await;
        let kubernetes = Some((own.kubeconfig().to_owned(), "pgtenant-system".to_owned()));
        let plane = Plane::start(SiteOptions { kubernetes, ..options }).await;
        let started = Self { admin, plane };
        started.is_asked().await;
        started
    }

    /// Waits until the API server was told of the webhooks: until then it lets everything in.
    pub(crate) async fn is_asked(&self) {
        let kube = self.kube();
        let long = "a".repeat(53);
        let path = format!("{}?dryRun=All", databases("default"));
        soon("the API server asks the admission webhook", || async {
            let answer = kube.api().post(&path, database("default", &long, json!({}))).await;
            if answer.text.contains("denied the request") { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }

    /// Describes the shared server as a cluster of this name, whose Secrets are in the control plane's namespace; `changes` are
    /// further fields of its spec.
    pub(crate) async fn describe(&self, name: &str, changes: Value) -> Value {
        let (place, site) = (Place::shared().await, &self.plane.site);
        let secret = |name: &str, data: Value| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "stringData": data,
                "metadata": {"name": name, "namespace": "pgtenant-system"},
            })
        };
        let reference = |name: &str| json!({"name": name, "namespace": "pgtenant-system"});
        let (login, ca) = (format!("{name}-provisioner"), format!("{name}-ca"));
        let authority = std::fs::read_to_string(&place.ca).expect("the authority");
        let mut spec = json!({
            "topology": {"streaming": {"hosts": place.hosts}}, "provisioner": {"secretRef": reference(&login)},
            "tls": {"caSecretRef": reference(&ca)}, "stores": [{"kubernetes": {}}],
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let cluster = json!({
            "apiVersion": "pgtenant.io/v1", "kind": "PostgresqlCluster", "metadata": {"name": name}, "spec": spec,
        });
        let kube = self.kube();
        let objects = [
            secret(&login, json!({"username": site.provisioner, "password": site.provisioner_password})),
            secret(&ca, json!({"ca.crt": authority})),
            cluster,
        ];
        kube.apply(&objects).await.expect(0);
        let path = format!("/apis/pgtenant.io/v1/postgresqlclusters/{name}");
        soon(&format!("cluster {name} is Ready"), || async {
            let found = kube.api().get(&path).await.expect(200);
            if condition(&found.json, "Ready")["status"] == "True" { Ok(found.json) } else { Err(found.text) }
        })
        .await
    }

    /// An administrator's access.
    pub(crate) fn kube(&self) -> Kube {
        self.admin.again()
    }
}

/// One that looks seldom, in the Kubernetes that tests share: for wishes and answers.
pub(crate) async fn kubernetes() -> &'static KubePlane {
    static PLANE: OnceCell<KubePlane> = OnceCell::const_new();
    PLANE
        .get_or_init(|| async {
            let options = SiteOptions { look: "10m".to_owned(), ..SiteOptions::shared().await };
            KubePlane::start(pgtenant_testkit::kubernetes().await, options).await
        })
        .await
}

/// One that looks seldom: for wishes and answers.
pub(crate) async fn calm() -> &'static Plane {
    static PLANE: OnceCell<Plane> = OnceCell::const_new();
    PLANE
        .get_or_init(|| async {
            Plane::start(SiteOptions { look: "10m".to_owned(), ..SiteOptions::shared().await }).await
        })
        .await
}

/// One that looks at each claim every second: for drift. Tests remove their claims, since each look costs three logins.
pub(crate) async fn watchful() -> &'static Plane {
    static PLANE: OnceCell<Plane> = OnceCell::const_new();
    PLANE.get_or_init(|| async { Plane::start(SiteOptions::shared().await).await }).await
}
