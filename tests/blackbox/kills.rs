//! kill -9 at any instant loses nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use pgtenant_tests::{
    Api, Running, Serve, Site, SiteOptions, eventually, files_below, measured, rows, unique, works_for_an_application,
};
use rand::RngExt as _;
use serde_json::{Value, json};

/// Lives of the control plane; fewer where the machine is slow or busy.
const LIVES: u32 = 240;
const BUDGET: Duration = Duration::from_secs(300);
const NAMES: usize = 40;

/// What is known of a claim from the answers that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known<T> {
    Surely(T),
    /// A request was sent that was not answered.
    Either,
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    there: Known<bool>,
    mode: Known<&'static str>,
}

/// A client who goes on asking, whoever answers.
struct Client {
    namespace: String,
    wishes: BTreeMap<String, Wish>,
    asked: u32,
    answered: u32,
}

impl Client {
    /// Sends one request at random and writes down what is known then.
    async fn ask(&mut self, api: &Api) {
        let mut random = rand::rng();
        let name = format!("db-{:02}", random.random_range(0..NAMES));
        let list = format!("/v1/namespaces/{}/databases", self.namespace);
        let path = format!("{list}/{name}");
        let wish = self
            .wishes
            .entry(name.clone())
            .or_insert(Wish { there: Known::Surely(false), mode: Known::Surely("standard") });
        let before = *wish;
        self.asked += 1;
        // Until an answer comes, whatever it was may have been done.
        let answer = match random.random_range(0..10) {
            0..4 => {
                wish.there = Known::Either;
                if before.there != Known::Surely(true) {
                    wish.mode = Known::Either;
                }
                api.try_send("POST", &list, &[], Some(&json!({"name": name}))).await
            }
            4..6 => {
                wish.there = Known::Either;
                api.try_send("DELETE", &path, &[], None).await
            }
            6 => api.try_send("POST", &format!("{path}/credentials/rotate"), &[], None).await,
            7 => api.try_send("PATCH", &path, &[], Some(&json!({"connectionLimit": random.random_range(5..50)}))).await,
            8 => {
                wish.mode = Known::Either;
                api.try_send("PATCH", &path, &[], Some(&json!({"mode": "protected"}))).await
            }
            _ => {
                wish.mode = Known::Either;
                api.try_send("PATCH", &path, &[], Some(&json!({"mode": "standard"}))).await
            }
        };
        let Ok(answer) = answer else { return };
        self.answered += 1;
        match (answer.status, answer.json["mode"].as_str()) {
            // A removal is the only 202 with an operation of this kind.
            (202, _) if answer.json["kind"] == "delete" => wish.there = Known::Surely(false),
            (200 | 201, Some(mode)) => {
                let mode = if mode == "protected" { "protected" } else { "standard" };
                *wish = Wish { there: Known::Surely(true), mode: Known::Surely(mode) };
            }
            // Refused: nothing has changed. (409: it is being removed, protected, or has another spec.)
            (202 | 404 | 409, _) => *wish = before,
            (status, _) => assert!(status >= 500, "{} was answered {}", answer.text, status),
        }
    }
}

async fn leases(site: &Site) -> i64 {
    let count = site.ledger_rows("select count(*)::text from claims where lease_until > now()").await;
    count[0].parse().unwrap()
}

#[tokio::test]
async fn hundreds_of_kills_at_random_moments_end_with_exactly_what_was_claimed() {
    let (look, lease) = ("5s".to_owned(), "3s".to_owned());
    let site = Site::new(SiteOptions {
        look,
        lease,
        level: "warn,pgtenant::serve=info".to_owned(),
        cluster: "rotateOverlap = \"1s\"".to_owned(),
        ..SiteOptions::shared().await
    })
    .await;
    site.serve("first").await.is_ready().await;
    let namespace = unique("kill");
    let mut client = Client { namespace: namespace.clone(), wishes: BTreeMap::new(), asked: 0, answered: 0 };
    let begun = Instant::now();
    let (mut lives, mut at_work) = (0, 0);
    while lives < LIVES && begun.elapsed() < BUDGET {
        let life = Duration::from_millis(rand::rng().random_range(20..400));
        // Some lives are counted from the first moment, others from the first answer.
        if lives % 3 == 0 {
            let mut running = Running::spawn(&site.command(&[]), site.path(), "unserved");
            tokio::time::sleep(life).await;
            running.kill();
        } else {
            let mut serve = site.serve("serve").await;
            let api = serve.api();
            client.ask(&api).await;
            let asking = async {
                loop {
                    client.ask(&api).await;
                }
            };
            tokio::time::timeout(life, asking).await.ok();
            serve.running.kill();
        }
        lives += 1;
        // The life before may have left leases, so this is at most one too many for each.
        at_work += i64::from(lives % 10 == 0 && leases(&site).await > 0);
    }
    let took = begun.elapsed();
    let mut serve = site.serve("last").await;
    serve.is_ready().await;
    settled(&serve, &site, &namespace).await;
    let settled = begun.elapsed() - took;
    check(&serve, &site, &client).await;
    serve.stop().await;
    assert_eq!(leases(&site).await, 0, "leases that nobody holds");
    measured(&format!(
        "kills: {lives} lives in {:.0} s, {} requests of which {} were answered; in {at_work} of {} samples the dead held \
         leases; settled {:.0} s after the last start",
        took.as_secs_f64(),
        client.asked,
        client.answered,
        lives / 10,
        settled.as_secs_f64(),
    ));
    assert!(lives >= 60, "only {lives} lives: this shows little");
}

/// Everything that is wished is Ready, and everything else is gone.
async fn settled(serve: &Serve, site: &Site, namespace: &str) {
    let api = serve.api();
    eventually("every claim is Ready", Duration::from_secs(120), || async {
        let all = api.list(&format!("/v1/namespaces/{namespace}/databases")).await;
        let settled = |db: &Value| db["state"] == "Ready" && db["generation"] == db["observedGeneration"];
        match all.iter().find(|db| !settled(db)) {
            None => Ok(()),
            Some(other) => Err(other.to_string()),
        }
    })
    .await;
    eventually("no operation is open", Duration::from_secs(30), || async {
        let open = site.ledger_rows("select o::text from operations o where finished_at is null").await;
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
}

async fn check(serve: &Serve, site: &Site, client: &Client) {
    let namespace = &client.namespace;
    let all = serve.api().list(&format!("/v1/namespaces/{namespace}/databases")).await;
    let there: BTreeMap<&str, &Value> = all.iter().map(|db| (db["name"].as_str().unwrap(), db)).collect();
    for (name, wish) in &client.wishes {
        let db = there.get(name.as_str());
        if let Known::Surely(wished) = wish.there {
            assert_eq!(db.is_some(), wished, "{name}: what was answered is not what is there");
        }
        if let (Some(db), Known::Surely(mode), Known::Surely(true)) = (db, wish.mode, wish.there) {
            assert_eq!(db["mode"], mode, "{name}");
        }
    }
    assert!(!there.is_empty(), "nothing is left to look at");
    let names: Vec<&str> = there.keys().copied().collect();
    let databases: Vec<String> = names.iter().map(|name| format!("{namespace}-{name}")).collect();
    let sql = format!("select datname::text from pg_database where datname like '{namespace}-%' order by 1");
    eventually("no orphan database", Duration::from_secs(30), || async {
        let found = rows(&site.superuser, None, &sql).await;
        if found == databases { Ok(()) } else { Err(format!("{found:?}, not {databases:?}")) }
    })
    .await;
    let roles: Vec<String> = databases
        .iter()
        .flat_map(|database| ["admin", "read", "write"].map(|tier| format!("{database}-{tier}")))
        .collect();
    let sql = format!("select rolname::text from pg_roles where rolname like '{namespace}-%' order by 1");
    let mut found = rows(&site.superuser, None, &sql).await;
    // Those that were rotated have a second login.
    found.retain(|role| role.strip_suffix("-b").is_none_or(|first| !roles.iter().any(|role| role == first)));
    assert_eq!(found, roles, "roles");
    let files: Vec<String> = roles.iter().map(|role| format!("customer/{namespace}/{role}.json")).collect();
    assert_eq!(files_below(&site.secrets), files, "stored credentials");
    stream::iter(&names).for_each_concurrent(3, |name| works_for_an_application(&site.secrets, namespace, name)).await;
}
