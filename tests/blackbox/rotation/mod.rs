//! New passwords: on request, by age, for a whole cluster. No application is refused, and no session ended.

mod application;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use pgtenant_tests::{
    Api, Credential, Own, Serve, Site, SiteOptions, TIERS, connect, eventually, measured, rows, soon, superuser_sql,
    try_as_an_application, try_sql, unique, works_for_an_application,
};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use self::application::{Application, OVERLAP, Tally};
use crate::shared::Plane;

/// Claims, and rotations of all three tiers of each.
const CLAIMS: usize = 5;
const ROTATIONS: usize = 21;
/// Rounds in the middle of which a replica is killed.
const KILLED_IN: [usize; 4] = [3, 7, 13, 17];
async fn rotate(api: &Api, namespace: &str, name: &str) -> Option<String> {
    let path = format!("/v1/namespaces/{namespace}/databases/{name}/credentials/rotate");
    let answer = api.try_send("POST", &path, &[], None).await.ok()?;
    answer.json["id"].as_str().map(str::to_owned)
}

/// Asks until it is written down, and waits until every tier has another login than before.
async fn rotated(api: &Api, site: &Site, namespace: &str, name: &str) {
    let before = Credential::of(&site.secrets, namespace, name);
    eventually("the rotation is taken", Duration::from_secs(60), || async {
        rotate(api, namespace, name).await.map(drop).ok_or_else(|| "no answer".to_owned())
    })
    .await;
    eventually(&format!("{name} has new passwords"), Duration::from_secs(90), || async {
        let now = Credential::of(&site.secrets, namespace, name);
        let same: Vec<&str> = now
            .iter()
            .zip(&before)
            .filter(|(new, old)| new.password == old.password)
            .map(|(new, _)| &*new.username)
            .collect();
        if same.is_empty() {
            return Ok(());
        }
        let path = format!("/v1/namespaces/{namespace}/databases/{name}");
        let claim = api.try_send("GET", &path, &[], None).await.map(|answer| answer.text).unwrap_or_default();
        Err(format!("{same:?}; {claim}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_rotations_with_a_failover_and_kills_refuse_nobody() {
    // What was committed is on the standby too: otherwise a failover would lose passwords that applications have.
    let synchronous =
        [("synchronous_standby_names", "*"), ("synchronous_commit", "remote_apply"), ("max_connections", "300")];
    let mut own = Own::start(true, &synchronous).await;
    let cluster = format!("rotateOverlap = \"{}s\"\nrotateGrace = \"1h\"", OVERLAP.as_secs());
    let options = SiteOptions { lease: "5s".to_owned(), cluster, ..SiteOptions::on(own.place()).await };
    let site = Site::new(options).await;
    let mut serves: Vec<Serve> = vec![site.serve("one").await, site.serve("two").await];
    serves[0].is_ready().await;
    let namespace = "turns";
    let names: Vec<String> = (0..CLAIMS).map(|number| format!("db{number}")).collect();
    for name in &names {
        serves[0].api().ready(namespace, name).await;
        let admin = Credential::read(&site.secrets, namespace, name, "admin");
        pgtenant_tests::can(&admin, "create table items (n int)").await;
    }
    let tally = Tally::default();
    let applications: Vec<_> = names
        .iter()
        .flat_map(|name| {
            TIERS.map(|tier| Application {
                secrets: site.secrets.clone(),
                namespace,
                name: name.clone(),
                tier,
                tally: &tally,
            })
        })
        .collect();
    let begun = Instant::now();
    let work = async {
        for round in 0..ROTATIONS {
            if round == 10 {
                tally.failover.store(true, Ordering::Relaxed);
                fail_over(&mut own).await;
                let port = own.cluster.primary().port();
                let there = |db: &Value| db["state"] == "Ready" && db["endpoint"]["port"] == port;
                for name in &names {
                    serves[1].api().comes_to(namespace, name, "Ready on the new primary", there).await;
                }
                *tally.failed_over.lock().unwrap() = Some(Instant::now());
                tally.failover.store(false, Ordering::Relaxed);
            }
            let api = serves[1].api();
            let before = Credential::of(&site.secrets, namespace, &names[0]);
            let turns = join_all(names.iter().map(|name| rotated(&api, &site, namespace, name)));
            let kills = async {
                if KILLED_IN.contains(&round) {
                    soon("they are in the middle of it", || async {
                        let now = Credential::of(&site.secrets, namespace, &names[0]);
                        if now == before { Err("nothing has changed".to_owned()) } else { Ok(()) }
                    })
                    .await;
                    serves[0].running.kill();
                    serves[0] = site.serve("again").await;
                }
            };
            join(turns, kills).await;
        }
        tally.stop.store(true, Ordering::Relaxed);
    };
    join(work, join_all(applications.iter().map(Application::run))).await;
    measured(&format!(
        "rotation: {} claims rotated {ROTATIONS} times in {:.0} s, with {} logins ({} too slow), a failover and {} kills",
        CLAIMS,
        begun.elapsed().as_secs_f64(),
        tally.logins.load(Ordering::Relaxed),
        tally.late.load(Ordering::Relaxed),
        KILLED_IN.len(),
    ));
    assert_eq!(*tally.refused.lock().unwrap(), Vec::<String>::new(), "nobody is refused");
    assert_eq!(*tally.ended.lock().unwrap(), Vec::<String>::new(), "no session is ended");
    for name in &names {
        let database = format!("{namespace}-{name}");
        let sql =
            "select distinct c.relowner::regrole::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
                   where n.nspname = 'public'";
        let owners = rows(&own.place().superuser, Some(&database), sql).await;
        assert_eq!(owners, [format!("\"{database}-admin\"")], "what either login makes is the tier's");
        works_for_an_application(&site.secrets, namespace, name).await;
        let events = site.events(namespace, name).await;
        assert!(!events.iter().any(|event| event["type"] == "DriftRepaired"), "a rotation is no drift: {events:#?}");
    }
}

/// The primary dies, and the standby takes its place without waiting for another standby.
async fn fail_over(own: &mut Own) {
    own.cluster.primary().kill().await;
    own.cluster.promote_standby().await.unwrap();
    let sql = "alter system set synchronous_standby_names = ''; select pg_reload_conf()";
    for statement in sql.split("; ") {
        superuser_sql(&own.place().superuser, None, statement).await;
    }
}

async fn plane(cluster: &str) -> Plane {
    Plane::start(SiteOptions { cluster: cluster.to_owned(), ..SiteOptions::shared().await }).await
}

#[tokio::test]
async fn the_former_login_is_locked_when_nobody_uses_it_and_its_sessions_go_on() {
    let plane = plane("rotateOverlap = \"1s\"\nrotateGrace = \"1h\"").await;
    let (api, namespace) = (plane.api(), unique("former"));
    api.ready(&namespace, "db").await;
    let [former, idle, _] = Credential::of(&plane.site.secrets, &namespace, "db");
    let mut session = connect(&former).await.unwrap();
    rotated(&api, &plane.site, &namespace, "db").await;
    let locked = |credential: Credential| async move {
        eventually(&format!("{} is locked", credential.username), Duration::from_secs(20), || async {
            let login = try_sql(&credential, "select 1").await;
            if login == Err("28000".to_owned()) { Ok(()) } else { Err(format!("{login:?}")) }
        })
        .await;
    };
    locked(idle).await;
    // By now those without sessions are locked, and this one has one.
    assert_eq!(try_sql(&former, "select 1").await, Ok(()), "it is in use");
    session.execute("select 1").await.unwrap();
    session.close().await.unwrap();
    locked(former).await;
    works_for_an_application(&plane.site.secrets, &namespace, "db").await;
    let events = plane.site.events(&namespace, "db").await;
    assert!(!events.iter().any(|event| event["type"] == "DriftRepaired"), "{events:#?}");
}

#[tokio::test]
async fn after_the_grace_a_former_login_is_locked_and_its_sessions_go_on() {
    let plane = plane("rotateOverlap = \"1s\"\nrotateGrace = \"2s\"").await;
    let (api, namespace) = (plane.api(), unique("grace"));
    api.ready(&namespace, "db").await;
    let former = Credential::read(&plane.site.secrets, &namespace, "db", "write");
    let mut session = connect(&former).await.unwrap();
    rotated(&api, &plane.site, &namespace, "db").await;
    eventually("it is locked although it has a session", Duration::from_secs(20), || async {
        let login = try_sql(&former, "select 1").await;
        if login == Err("28000".to_owned()) { Ok(()) } else { Err(format!("{login:?}")) }
    })
    .await;
    session.execute("select 1").await.expect("nobody ends sessions");
    // Back on the first login, which is opened again with another password.
    rotated(&api, &plane.site, &namespace, "db").await;
    let now = Credential::read(&plane.site.secrets, &namespace, "db", "write");
    assert_eq!(now.username, former.username);
    assert_eq!(try_sql(&former, "select 1").await, Err("28P01".to_owned()));
    works_for_an_application(&plane.site.secrets, &namespace, "db").await;
}

#[tokio::test]
async fn a_second_rotation_waits_until_everybody_has_read_the_first() {
    let plane = plane("rotateOverlap = \"3s\"").await;
    let (api, namespace) = (plane.api(), unique("waits"));
    api.ready(&namespace, "db").await;
    rotated(&api, &plane.site, &namespace, "db").await;
    let turned = Instant::now();
    let first = Credential::of(&plane.site.secrets, &namespace, "db");
    let id = rotate(&api, &namespace, "db").await.unwrap();
    let path = format!("/v1/operations/{id}");
    let told = eventually("the operation says why", Duration::from_secs(10), || async {
        let operation = api.get(&path).await.expect(200).json;
        if operation["message"].as_str().is_some_and(|text| text.contains("waits until")) {
            Ok(operation)
        } else {
            Err(operation.to_string())
        }
    })
    .await;
    assert_eq!((told["state"].as_str(), told["step"].as_str()), (Some("Running"), Some("rotate")), "{told}");
    let db = api.get(&format!("/v1/namespaces/{namespace}/databases/db")).await.json;
    assert_eq!(db["state"], "Ready", "nothing is wrong: {db}");
    assert_eq!(Credential::of(&plane.site.secrets, &namespace, "db"), first);
    assert_eq!(api.finished(&id).await["state"], "Succeeded");
    assert!(turned.elapsed() > Duration::from_millis(2500), "{:?}", turned.elapsed());
    assert_ne!(Credential::of(&plane.site.secrets, &namespace, "db"), first);
}

#[tokio::test]
async fn a_ledger_from_a_backup_takes_no_password_from_an_application() {
    let plane = plane("rotateOverlap = \"1s\"\nrotateGrace = \"2s\"").await;
    let (api, namespace) = (plane.api(), unique("behind"));
    api.ready(&namespace, "db").await;
    let known = format!("select credentials::text from claims where namespace = '{namespace}'");
    let backup = rows(&plane.site.ledger, None, &known).await.remove(0);
    rotated(&api, &plane.site, &namespace, "db").await;
    let former = Credential::read(&plane.site.secrets, &namespace, "db", "read");
    soon("the former login is locked", || async {
        let state = rows(&plane.site.ledger, None, &known).await.remove(0);
        if state.contains("formerSince") { Err(state) } else { Ok(()) }
    })
    .await;
    let before = Credential::of(&plane.site.secrets, &namespace, "db");
    assert_eq!(before[0], former);
    let restore =
        format!("update claims set credentials = '{backup}' where namespace = '{namespace}' returning name::text");
    rows(&plane.site.ledger, None, &restore).await;
    soon("the ledger knows again which login is in use", || async {
        let state = rows(&plane.site.ledger, None, &known).await.remove(0);
        let turned = state.matches("\"side\": \"b\"").count();
        if turned == 3 { Ok(()) } else { Err(state) }
    })
    .await;
    api.is_ready(&namespace, "db").await;
    assert_eq!(Credential::of(&plane.site.secrets, &namespace, "db"), before, "no new password");
    for credential in &before {
        assert_eq!(try_sql(credential, "select 1").await, Ok(()), "{}", credential.username);
    }
    // From there on all goes its way.
    rotated(&api, &plane.site, &namespace, "db").await;
    works_for_an_application(&plane.site.secrets, &namespace, "db").await;
}

#[tokio::test]
async fn passwords_that_are_too_old_are_replaced_by_themselves() {
    let plane = plane("rotateEvery = \"3s\"\nrotateOverlap = \"1s\"").await;
    let (api, namespace) = (plane.api(), unique("aged"));
    api.ready(&namespace, "db").await;
    let events = eventually("each tier had three passwords", Duration::from_secs(60), || async {
        let events = plane.site.events(&namespace, "db").await;
        let rotated: Vec<_> = events.into_iter().filter(|event| event["type"] == "CredentialRotated").collect();
        if rotated.len() >= 6 { Ok(rotated) } else { Err(format!("{}", rotated.len())) }
    })
    .await;
    let reasons = events.iter().map(|event| event["detail"]["reason"].as_str().unwrap());
    assert!(reasons.clone().all(|reason| reason == "it is older than 3s"), "{:?}", reasons.collect::<Vec<_>>());
    // A password is replaced each three seconds: an application that was slow reads it again.
    soon("each tier works with what is stored", || try_as_an_application(&plane.site.secrets, &namespace, "db")).await;
}

#[tokio::test]
async fn a_whole_cluster_gets_new_passwords_at_a_pace() {
    let plane = plane("rotateOverlap = \"1s\"").await;
    let (api, namespace) = (plane.api(), unique("all"));
    let names = ["a", "b", "c", "d"];
    for name in names {
        api.ready(&namespace, name).await;
    }
    api.ready_with(&namespace, json!({"name": "kept", "mode": "protected"})).await;
    api.ask(&format!("/v1/namespaces/{namespace}/databases/kept/release")).await.expect(202);
    let before = names.map(|name| Credential::of(&plane.site.secrets, &namespace, name));
    let kept = Credential::of(&plane.site.secrets, &namespace, "kept");

    let tenant = plane.api_of("tenant", &[&namespace]).await;
    tenant.ask("/v1/clusters/default/rotate").await.problem(403, "forbidden");
    api.post("/v1/clusters/default/rotate", json!({"perMinute": 0})).await.problem(422, "invalid-fields");
    api.ask("/v1/clusters/nowhere/rotate").await.problem(404, "not-found");

    let cli = pgtenant_tests::Cli::of(&plane.serve.url, &plane.site.token);
    cli.run(&["rotate", "--cluster", "default"]).await.expect(2);
    let said = cli.run(&["rotate", "--all", "--cluster", "default", "--per-minute", "60"]).await.expect(0);
    assert!(said.stdout.contains("4 claims have new passwords"), "{}", said.stdout);
    let mut times = Vec::new();
    for (name, before) in names.iter().zip(&before) {
        let now = Credential::of(&plane.site.secrets, &namespace, name);
        assert!(now.iter().zip(before).all(|(new, old)| new.password != old.password), "{name}");
        let db = api.get(&format!("/v1/namespaces/{namespace}/databases/{name}")).await.json;
        let set_at = db["roles"]["admin"]["setAt"].as_str().unwrap().to_owned();
        times.push(chrono::DateTime::parse_from_rfc3339(&set_at).unwrap());
    }
    let spread = times.iter().max().unwrap().signed_duration_since(times.iter().min().unwrap());
    assert!(spread.num_milliseconds() > 1500, "one a second: {times:?}");
    assert_eq!(Credential::of(&plane.site.secrets, &namespace, "kept"), kept, "what is Retained is not managed");
    let audit = api.get("/v1/audit?limit=20").await.json.to_string();
    assert!(audit.contains("cluster.rotate"), "{audit}");
    let rotation = api.get("/v1/clusters/default/rotation").await.expect(200).json;
    assert_eq!(rotation, json!({"cluster": "default", "left": 0, "failing": 0}));
}
