//! The control plane's own login gets new passwords while it works.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use futures::future::join;
use pgtenant_testkit::FakeSecretsManager;
use pgtenant_tests::{
    Cli, Serve, Site, SiteOptions, eventually, soon, superuser_sql, unique, works_for_an_application,
};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

const SECRET: &str = "pgtenant/provisioner";

/// A control plane of two replicas whose login is in AWS Secrets Manager.
struct World {
    site: Site,
    serves: [Serve; 2],
    amazon: FakeSecretsManager,
    /// Its two logins.
    logins: [String; 2],
}

impl World {
    async fn new() -> Self {
        let site = Site::new(SiteOptions::shared().await).await;
        let (group, logins) = (unique("group"), [unique("prov-a"), unique("prov-b")]);
        let mut sql = vec![format!("create role \"{group}\" nologin createdb createrole")];
        for login in &logins {
            sql.extend([
                format!("create role \"{login}\" login password 'first of {login}'"),
                format!("grant \"{group}\" to \"{login}\""),
                format!("alter role \"{login}\" set role = '{group}'"),
            ]);
        }
        for statement in sql {
            superuser_sql(&site.superuser, None, &statement).await;
        }
        let amazon = FakeSecretsManager::start().await;
        let [a, b] = &logins;
        let secret = json!({
            "username": a, "password": format!("first of {a}"), "idleUsername": b, "idlePassword": format!("first of {b}"),
            "owner": "the platform team",
        });
        amazon.change(SECRET, |one| one.put(&"0".repeat(32), &secret.to_string()));
        let text = fs::read_to_string(&site.config).unwrap();
        let line = |line: &str| match line.starts_with("provisioner = ") {
            true => format!("provisioner = {{ awsSecret = {{ name = {SECRET:?}, region = \"eu-west-1\" }} }}\n"),
            false => format!("{line}\n"),
        };
        fs::write(&site.config, text.lines().map(line).collect::<String>()).unwrap();
        let env = [
            ("AWS_ENDPOINT_URL", amazon.url()),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "a"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        let serves = [site.serve_with("one", &env).await, site.serve_with("two", &env).await];
        serves[0].is_ready().await;
        serves[1].is_ready().await;
        Self { serves, amazon, logins, site }
    }

    fn secret(&self) -> Value {
        serde_json::from_str(self.amazon.secret(SECRET).unwrap().text().unwrap()).unwrap()
    }

    /// As somebody leaves it who was killed, or as it is some time later.
    fn with_secret(&self, change: impl FnOnce(&mut Value)) {
        let mut secret = self.secret();
        change(&mut secret);
        let version = format!("{:032x}", rand::random::<u128>());
        self.amazon.change(SECRET, |one| one.put(&version, &secret.to_string()));
    }

    /// The last turn, and the wish for it, were long ago: every replica has read the secret since.
    async fn long_ago(&self, change: impl FnOnce(&mut Value)) {
        // The wish first: one that is younger than the turn would be done again.
        let sql = "update clusters set login_asked_at = login_asked_at - interval '2 hours' returning name";
        self.site.ledger_rows(sql).await;
        self.with_secret(|secret| {
            secret["turnedAt"] = json!(Utc::now() - chrono::TimeDelta::hours(1));
            change(secret);
        });
    }

    /// Both replicas have read the secret after so many turns.
    async fn both_use_it(&self, turns: usize) {
        soon("both replicas use the other login", || async {
            let read = |serve: &Serve| {
                let log = Value::from(serve.log()).to_string();
                log.matches("the provisioner's login or the CA has changed").count()
            };
            let counts = self.serves.each_ref().map(read);
            if counts.iter().all(|count| *count >= turns) { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }

    async fn turn(&self) -> String {
        let cli = Cli::of(&self.serves[1].url, &self.site.token);
        cli.run(&["cluster", "rotate-provisioner", "default"]).await.expect(0).stdout
    }

    async fn lets_in(&self, login: &str, password: &str) -> bool {
        let options: PgConnectOptions = self.site.superuser.clone();
        match options.username(login).password(password).connect().await {
            Ok(session) => session.close().await.is_ok(),
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
                assert_eq!(code.as_deref(), Some("28P01"), "{error}");
                false
            }
        }
    }

    /// The login that is out of use gets a password that whoever has read the secret before does not know.
    async fn former_is_replaced(&self) {
        let before = self.secret();
        self.long_ago(|_| ()).await;
        eventually("the former login has another password", Duration::from_secs(150), || async {
            let now = self.secret();
            if now["idleReplacedAt"].is_string() { Ok(()) } else { Err(now["turnedAt"].to_string()) }
        })
        .await;
        let (now, login) = (self.secret(), before["idleUsername"].as_str().unwrap());
        assert!(!self.lets_in(login, before["idlePassword"].as_str().unwrap()).await, "{login}");
        assert!(self.lets_in(login, now["idlePassword"].as_str().unwrap()).await, "{login}");
        assert_eq!(now["password"], before["password"], "the one in use stays");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_planes_own_password_is_replaced_while_it_works() {
    let world = World::new().await;
    let (namespace, stop) = (unique("own"), AtomicBool::new(false));
    let api = world.serves[0].api();
    let [a, b] = &world.logins;
    let claims = async {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            api.ready(&namespace, &format!("db{count}")).await;
            count += 1;
        }
        count
    };
    let turns = async {
        assert!(world.turn().await.contains(&format!("logs in as {b} now")));
        let secret = world.secret();
        assert_eq!((secret["username"].as_str(), secret["idleUsername"].as_str()), (Some(&**b), Some(&**a)));
        assert_ne!(secret["password"], json!(format!("first of {b}")));
        assert!(world.lets_in(b, secret["password"].as_str().unwrap()).await);
        assert!(world.lets_in(a, &format!("first of {a}")).await, "replicas that have not read it yet");
        assert_eq!(secret["owner"], "the platform team", "what is somebody else's stays");
        world.both_use_it(1).await;
        world.former_is_replaced().await;
        world.long_ago(|_| ()).await;
        assert!(world.turn().await.contains(&format!("logs in as {a} now")));
        stop.store(true, Ordering::Relaxed);
    };
    let (count, ()) = join(claims, turns).await;
    assert!(count > 3, "{count}");
    works_for_an_application(&world.site.secrets, &namespace, "db0").await;
    let events = world.site.ledger_rows("select message from events where kind = 'Failed'").await;
    assert_eq!(events, Vec::<String>::new(), "no try has failed");
    let events = world.site.ledger_rows("select message from events where kind = 'ClusterChanged' order by id").await;
    assert!(events.iter().any(|text| text.ends_with(&format!("logs in as {b} now"))), "{events:?}");
    let audit = world.serves[0].api().get("/v1/audit?limit=20").await.json.to_string();
    assert!(audit.contains("cluster.rotateProvisioner"), "{audit}");
    let (log, secret) = (world.serves.each_ref().map(Serve::log).concat(), world.secret());
    let log = Value::from(log).to_string();
    for key in ["password", "idlePassword"] {
        assert!(!log.contains(secret[key].as_str().unwrap()), "{key} is in a log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_leaves_a_login_that_works_and_the_next_one_goes_on() {
    let world = World::new().await;
    let [a, b] = &world.logins;
    // Killed before the server was told.
    world.with_secret(|secret| secret["idleNext"] = json!("never set"));
    assert!(world.turn().await.contains(&format!("logs in as {b} now")));
    assert_eq!(world.secret()["password"], "never set");
    assert!(world.lets_in(b, "never set").await);
    assert_eq!(world.secret().get("idleNext"), None);

    // Killed after the server was told.
    superuser_sql(&world.site.superuser, None, &format!("alter role \"{a}\" password 'set already'")).await;
    let replaced = |secret: &mut Value| secret["idleReplacedAt"] = json!(Utc::now());
    world
        .long_ago(|secret| {
            replaced(secret);
            secret["idleNext"] = json!("set already");
        })
        .await;
    assert!(world.turn().await.contains(&format!("logs in as {a} now")));
    assert!(world.lets_in(a, "set already").await);

    // Nobody knows the idle login's password: it is told, and what is in use goes on.
    superuser_sql(&world.site.superuser, None, &format!("alter role \"{b}\" password 'of somebody else'")).await;
    world.long_ago(replaced).await;
    let api = world.serves[0].api();
    api.ask("/v1/clusters/default/provisioner/rotate").await.expect(202);
    soon("it is told", || async {
        let text = api.get("/v1/clusters/default/preflight").await.expect(200).json["problems"].to_string();
        if text.contains("idlePassword") && text.contains(b) { Ok(()) } else { Err(text) }
    })
    .await;
    let namespace = unique("killed");
    api.ready(&namespace, "db").await;
    assert_eq!(world.secret()["username"], json!(a));
    // Mended as the message says.
    world.with_secret(|secret| {
        secret["idlePassword"] = json!("of somebody else");
        secret.as_object_mut().unwrap().remove("idleNext");
    });
    // A turn that was begun before may still say what it has found.
    soon("the other login is in use", || async {
        let said = world.turn().await;
        if said.contains(&format!("logs in as {b} now")) { Ok(()) } else { Err(said) }
    })
    .await;
}

#[tokio::test]
async fn a_password_that_is_kept_elsewhere_is_not_replaced_here() {
    let site = Site::new(SiteOptions::shared().await).await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let refused = serve.api().ask("/v1/clusters/default/provisioner/rotate").await;
    refused.problem(422, "invalid-fields");
    let cli = Cli::of(&serve.url, &site.token);
    let said = cli.run(&["cluster", "rotate-provisioner", "default"]).await.expect(1);
    assert!(said.stderr.contains("provisioner.awsSecret"), "{}", said.stderr);
}
