//! What tests share that do no harm to each other. Each takes namespaces of its own.

use pgtenant_tests::{Api, Dev, Serve, Site, SiteOptions, unique};
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
