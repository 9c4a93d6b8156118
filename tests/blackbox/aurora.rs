//! A cluster of Aurora, from nothing to claims and through a failover. RDS and Secrets Manager are played; the servers behind the
//! endpoints are real, and have a master login as RDS gives it.

use std::fs;
use std::time::Duration;

use pgtenant_testkit::{FakeRds, FakeSecretsManager};
use pgtenant_tests::{
    Credential, Own, Place, Serve, Site, SiteOptions, eventually, rows, soon, superuser_sql, works_for_an_application,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

pub(crate) const MASTER_PASSWORD: &str = "Master-of-this-test";
/// Where the fake says that RDS keeps the master login of a cluster that was made.
pub(crate) const MASTER_SECRET: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!cluster";
const SECRET: &str = "pgtenant/provisioner";

/// Everything that a control plane meets at AWS.
pub(crate) struct Amazon {
    pub(crate) rds: FakeRds,
    secrets: FakeSecretsManager,
    authorities: String,
    pub(crate) own: Own,
    pub(crate) site: Site,
    /// `work.watch`.
    watch: &'static str,
}

impl Amazon {
    async fn new(create: Value) -> Self {
        Self::with(json!({"create": create}), |options| options).await
    }

    /// With these fields of the topology beside its name.
    pub(crate) async fn with(fields: Value, options: impl FnOnce(SiteOptions) -> SiteOptions) -> Self {
        let mut own = Own::start(true, &[]).await;
        let place = own.place();
        for sql in [
            "create role rds_password",
            &format!("create role postgres_master login createdb createrole password '{MASTER_PASSWORD}'"),
            "grant rds_password to postgres_master with admin option",
            "alter database postgres owner to postgres_master",
            "alter database template1 owner to postgres_master",
        ] {
            superuser_sql(&place.superuser, None, sql).await;
        }
        let rds = FakeRds::start("localhost", own.cluster.primary().port()).await;
        let secrets = FakeSecretsManager::start().await;
        let login = json!({"username": "postgres_master", "password": MASTER_PASSWORD}).to_string();
        secrets.change(MASTER_SECRET, |secret| secret.put("one", &login));
        let authorities = serve_file(fs::read(own.cluster.ca_file()).unwrap()).await;

        let site = Site::new(options(SiteOptions::on(place).await)).await;
        let mut topology = json!({"aurora": {"region": "eu-west-1", "clusterIdentifier": "shared"}});
        topology["aurora"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let changes = [
            ("topology = ", toml(&topology)),
            ("provisioner = ", format!("{{ awsSecret = {{ name = {SECRET:?}, region = \"eu-west-1\" }} }}")),
            ("tls = ", "{}".to_owned()),
        ];
        let text = fs::read_to_string(&site.config).unwrap();
        let line = |line: &str| match changes.iter().find(|(key, _)| line.starts_with(key)) {
            Some((key, value)) => format!("{key}{value}\n"),
            None => format!("{line}\n"),
        };
        fs::write(&site.config, text.lines().map(line).collect::<String>()).unwrap();
        Self { rds, secrets, authorities, own, site, watch: "10s" }
    }

    async fn serve(&self, name: &str) -> Serve {
        self.serve_with(name, &[]).await
    }

    /// With further variables.
    pub(crate) async fn serve_with(&self, name: &str, further: &[(&str, &str)]) -> Serve {
        let cache = self.site.path().join(format!("cache-{name}"));
        let cache = cache.to_string_lossy();
        let usual = [
            ("AWS_ENDPOINT_URL_RDS", self.rds.url()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.secrets.url()),
            ("AWS_ACCESS_KEY_ID", "any"),
            ("AWS_SECRET_ACCESS_KEY", "any"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("PGTENANT_RDS_CA_URL", &self.authorities),
            ("PGTENANT_CACHE_DIR", &cache),
            ("PGTENANT_WORK__WATCH", self.watch),
        ];
        let serve = self.site.serve_with(name, &[&usual, further].concat()).await;
        serve.is_ready().await;
        serve
    }

    pub(crate) fn count(&self, action: &str) -> usize {
        self.rds.actions().iter().filter(|one| *one == action).count()
    }
}

/// A JSON value as an inline table.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields: Vec<_> = fields.map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// A web server that has one file.
async fn serve_file(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/{{region}}-bundle.pem", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_made_attached_and_followed_through_a_failover() {
    let mut amazon = Amazon::new(json!({"minAcu": 0.5, "maxAcu": 8})).await;
    let serve = amazon.serve("one").await;
    let second = amazon.serve("two").await;
    let api = serve.api();
    api.create("aurora", "db").await;
    let problem = async || api.get("/v1/clusters/default").await.expect(200).json["problem"].to_string();
    soon("the progress is shown", || async {
        let text = problem().await;
        if text.contains("creating, since 2026-11-20 02:14 UTC") { Ok(()) } else { Err(text) }
    })
    .await;
    amazon.rds.settle();
    soon("the instances are made", || async {
        let count = amazon.count("CreateDBInstance");
        if count >= 2 { Ok(()) } else { Err(format!("{count} calls")) }
    })
    .await;
    amazon.rds.settle();
    let db = api.is_ready("aurora", "db").await;

    let old = amazon.own.cluster.primary().port();
    let endpoint = json!({"host": "localhost", "port": old, "readHost": "localhost", "readPort": old});
    assert_eq!(db["endpoint"], endpoint);
    for credential in Credential::of(&amazon.site.secrets, "aurora", "db") {
        assert_eq!((credential.port, credential.sslmode.as_str()), (old, "verify-full"));
        assert!(credential.ca.contains("BEGIN CERTIFICATE"), "the authorities of RDS");
    }
    works_for_an_application(&amazon.site.secrets, "aurora", "db").await;

    // The provisioner is no superuser, its login is in the secret, and the master login is in no log.
    let secret = amazon.secrets.secret(SECRET).unwrap();
    let login: Value = serde_json::from_str(secret.text().unwrap()).unwrap();
    assert_eq!((login["username"].as_str(), login["madeBy"].as_str()), (Some("prov_a"), Some("pgtenant")));
    let who = "select rolname || rolsuper from pg_roles where rolname in ('pgtenant', 'prov_a', 'prov_b') order by 1";
    let superuser = Place::of(&amazon.own.cluster).superuser;
    assert_eq!(rows(&superuser, None, who).await, ["pgtenantfalse", "prov_afalse", "prov_bfalse"]);
    for log in [serve.running.stderr(), second.running.stderr()] {
        assert!(!log.contains(MASTER_PASSWORD) && !log.contains(login["password"].as_str().unwrap()));
    }
    soon("both instances are shown", || async {
        let topology = api.get("/v1/clusters/default/topology").await.expect(200).json;
        let roles: Vec<_> = topology["members"].as_array().unwrap().iter().map(|one| &one["role"]).collect();
        if roles == ["primary", "standby"] { Ok(()) } else { Err(topology.to_string()) }
    })
    .await;

    amazon.own.cluster.primary().kill().await;
    amazon.rds.begin_failover("shared");
    soon("the failover is shown", || async {
        let text = problem().await;
        if text.contains("a failover is under way") { Ok(()) } else { Err(text) }
    })
    .await;
    amazon.own.cluster.promote_standby().await.unwrap();
    let new = amazon.own.cluster.primary().port();
    amazon.rds.fail_over("shared", "shared-2", "localhost", new);
    soon("the claim has the new endpoint", || async {
        let db = api.get("/v1/namespaces/aurora/databases/db").await.expect(200).json;
        if db["state"] == "Ready" && db["endpoint"]["port"] == new { Ok(()) } else { Err(db.to_string()) }
    })
    .await;
    works_for_an_application(&amazon.site.secrets, "aurora", "db").await;
    api.ready("aurora", "after").await;

    // What was made is as described, nothing was removed.
    let topology = api.get("/v1/clusters/default/topology").await.expect(200).json;
    assert_eq!(topology["drift"], json!([]), "{topology}");
    assert!(amazon.rds.actions().iter().all(|action| !action.starts_with("Delete")));
    assert!(amazon.count("CreateDBCluster") <= 2, "at most once for each replica");

    // A cluster that is gone is not made anew.
    let made = amazon.count("CreateDBCluster");
    amazon.rds.delete_cluster("shared");
    soon("that it is gone is shown", || async {
        let text = problem().await;
        if text.contains("It is not made anew") { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(amazon.count("CreateDBCluster"), made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_that_was_cut_short_is_mended_and_drift_is_shown() {
    let amazon = Amazon::new(json!({"minAcu": 1, "maxAcu": 8, "instances": 3})).await;
    amazon.rds.add_cluster("shared", 1);
    amazon.rds.set("shared", "MasterUserSecret.SecretArn", MASTER_SECRET);
    // The replica that made the secret was killed before PostgreSQL knew the password.
    let login = json!({"username": "prov_a", "password": "of-a-killed-replica", "madeBy": "pgtenant"}).to_string();
    amazon.secrets.change(SECRET, |secret| secret.put("one", &login));
    let serve = amazon.serve("one").await;
    let api = serve.api();
    api.ready("aurora", "mended").await;
    assert_eq!(
        amazon.secrets.secret(SECRET).unwrap().text(),
        Some(login.as_str()),
        "the password of the secret was set"
    );

    soon("the drift is shown", || async {
        let topology = api.get("/v1/clusters/default/topology").await.expect(200).json;
        if topology["drift"] == json!([]) { Err(topology.to_string()) } else { Ok(()) }
    })
    .await;
    let topology = api.get("/v1/clusters/default/topology").await.expect(200).json;
    let drift = topology["drift"].as_array().unwrap();
    let found = |setting: &str| drift.iter().find(|one| one["setting"] == setting).map(|one| one["found"].clone());
    assert_eq!(found("minAcu and maxAcu"), Some(json!("0.5 to 16 ACU")), "{topology}");
    assert_eq!(found("instances"), Some(json!("2")));
    assert_eq!(found("backup window"), None, "it is moved");
    assert_eq!((amazon.count("ModifyDBCluster"), amazon.count("CreateDBInstance")), (1, 0));
    let preflight = api.get("/v1/clusters/default/preflight").await.expect(200).text;
    assert!(preflight.contains("deletion protection is off"), "{preflight}");
    // Tried now: the same, and when minor versions come; the provisioner that was made may do all that claims take.
    let tried = api.ask("/v1/clusters/default/preflight").await.expect(200).json;
    let checks = tried["checks"].as_array().unwrap();
    let of =
        |check: &str| checks.iter().find(|one| one["check"] == check).unwrap_or_else(|| panic!("{check}: {tried}"));
    for check in ["login", "logins", "primary", "tls", "roles", "database", "extensions", "maintenance", "store file"] {
        assert_eq!(of(check)["result"], "Passed", "{}", of(check));
    }
    assert_eq!(of("logins")["message"], "\"prov_a\" and \"prov_b\" act as \"pgtenant\"");
    assert!(of("maintenance")["message"].as_str().unwrap().contains("minor version"), "{tried}");
    assert!(
        of("topology.aurora")["result"] == "Warning" && tried.to_string().contains("deletion protection"),
        "{tried}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_pauses_is_left_alone_and_woken_by_work() {
    let cluster = "rotateOverlap = \"1s\"".to_owned();
    let create = json!({"create": {"minAcu": 0, "maxAcu": 4}});
    let amazon = Amazon::with(create, |options| SiteOptions { cluster, ..options }).await;
    let serve = amazon.serve("one").await;
    let api = serve.api();
    api.create("aurora", "db").await;
    soon("the cluster is made", || async {
        amazon.rds.settle();
        let db = api.get("/v1/namespaces/aurora/databases/db").await.json;
        if db["state"] == "Ready" { Ok(()) } else { Err(db.to_string()) }
    })
    .await;
    let looks = async || serve.metric("pgtenant_looks_total").await;
    // Claims are looked at each second, for a minute after somebody has used the cluster.
    eventually("nobody looks any more", Duration::from_secs(120), || async {
        let before = looks().await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let now = looks().await;
        if now > before { Err(format!("{now} looks")) } else { Ok(()) }
    })
    .await;
    let superuser = Place::of(&amazon.own.cluster).superuser;
    let ours = "select usename::text from pg_stat_activity where application_name = 'pgtenant'";
    assert_eq!(rows(&superuser, None, ours).await, Vec::<String>::new(), "a connection would keep it awake");
    let before = Credential::of(&amazon.site.secrets, "aurora", "db");
    api.ask("/v1/namespaces/aurora/databases/db/credentials/rotate").await.expect(202);
    soon("the passwords are others", || async {
        let now = Credential::of(&amazon.site.secrets, "aurora", "db");
        let new = now.iter().zip(&before).all(|(new, old)| new.password != old.password);
        if new { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    soon("the former logins are locked", || async {
        let sql = "select rolname::text from pg_roles where rolname like 'aurora-db-%' and not rolcanlogin order by 1";
        let locked = rows(&superuser, None, sql).await;
        if locked.len() == 3 { Ok(()) } else { Err(format!("{locked:?}")) }
    })
    .await;
    works_for_an_application(&amazon.site.secrets, "aurora", "db").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_knows_the_secrets_of_all_claims_and_of_no_removed_one() {
    const STORES: &str = r#"[{ file = { directory = "DIR" } }, { awsSecretsManager = { region = "eu-west-1" } }]"#;
    let stores = vec![("default".to_owned(), STORES.to_owned())];
    let mut amazon = Amazon::with(json!({"proxy": "door"}), |options| SiteOptions { stores, ..options }).await;
    amazon.watch = "1s";
    amazon.rds.add_cluster("shared", 1);
    amazon.rds.set("shared", "MasterUserSecret.SecretArn", MASTER_SECRET);
    let (serve, _second) = (amazon.serve("one").await, amazon.serve("two").await);
    let api = serve.api();
    api.ready("aurora", "first").await;
    let preflight = async || api.get("/v1/clusters/default/preflight").await.expect(200).text;
    let told = async |what: &str| {
        let shown = async || {
            let text = preflight().await;
            if text.contains(what) { Ok(()) } else { Err(text) }
        };
        soon("it is told", shown).await;
    };
    told("there is no RDS Proxy").await;

    amazon.rds.add_proxy("door", &["arn:foreign"]);
    let of = |claim: &str| ["admin", "read", "write"].map(|tier| format!("customer/aurora/aurora-{claim}-{tier}"));
    let knows = async |claims: &[&str]| {
        let names = claims.iter().flat_map(|claim| of(claim));
        let arns = names.map(|name| format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}-a1b2c3"));
        let mut expected: Vec<String> = arns.chain(["arn:foreign".to_owned()]).collect();
        expected.sort();
        let shown = async || {
            let mut known = amazon.rds.proxy_secrets("door");
            known.sort();
            if known == expected { Ok(()) } else { Err(format!("{known:?}")) }
        };
        soon("the proxy knows them", shown).await;
    };
    knows(&["first"]).await;
    api.ready("aurora", "second").await;
    knows(&["first", "second"]).await;
    // Whoever is led through it can tell that it is the proxy.
    for credential in Credential::of(&amazon.site.secrets, "aurora", "first") {
        assert!(credential.ca.ends_with(include_str!("../../services/rds/amazon_root_ca_1.pem")));
    }

    // The secrets are the same after a rotation, with other logins in them.
    let modified = amazon.count("ModifyDBProxy");
    let before = amazon.secrets.secret("customer/aurora/aurora-first-read").unwrap().current().map(ToOwned::to_owned);
    api.ask("/v1/namespaces/aurora/databases/first/credentials/rotate").await.expect(202);
    soon("it is rotated", || async {
        let secret = amazon.secrets.secret("customer/aurora/aurora-first-read").unwrap();
        if secret.current().map(ToOwned::to_owned) == before { Err("the same".to_owned()) } else { Ok(()) }
    })
    .await;
    api.is_ready("aurora", "first").await;
    assert_eq!(amazon.count("ModifyDBProxy"), modified);

    api.delete("/v1/namespaces/aurora/databases/first").await.expect(202);
    api.is_gone("aurora", "first").await;
    knows(&["second"]).await;
    amazon.rds.deny("ModifyDBProxy");
    api.ready("aurora", "third").await;
    told("rds:ModifyDBProxy").await;
    amazon.rds.allow_everything();
    knows(&["second", "third"]).await;
}
