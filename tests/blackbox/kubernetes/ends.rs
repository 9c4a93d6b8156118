//! However a claim ends, it ends soon and leaves nothing; what is kept can be had back.

use std::fs;
use std::time::{Duration, Instant};

use pgtenant_tests::{
    Credential, Kube, Own, Place, Site, SiteOptions, TIERS, can, condition, database, databases, eventually, measured,
    rows, soon, try_sql,
};
use serde_json::{Value, json};

use crate::shared::{self, KubePlane};

const FINALIZER: &str = "pgtenant.io/database";

/// What there is of a claim, anywhere.
async fn left(site: &Site, kube: &Kube, namespace: &str, name: &str) -> Vec<String> {
    let database = format!("{namespace}-{name}");
    let sql = format!(
        "select 'database ' || datname from pg_database where datname = '{database}' union all
         select 'role ' || rolname from pg_roles where rolname like '{database}-%'"
    );
    let mut found = rows(&site.superuser, None, &sql).await;
    let sql = format!("select 'claim ' || state from claims where namespace = '{namespace}' and name = '{name}'");
    found.extend(site.ledger_rows(&sql).await);
    for tier in TIERS {
        if kube.secret(namespace, &format!("{database}-{tier}")).await.is_some() {
            found.push(format!("Secret {database}-{tier}"));
        }
    }
    if let Some(object) = kube.find(&format!("{}/{name}", databases(namespace))).await {
        found.push(format!("object {object}"));
    }
    found
}

/// Waits until nothing is left, for as long as the end of a claim may take.
async fn nothing_is_left(site: &Site, kube: &Kube, namespace: &str, name: &str) {
    let begun = Instant::now();
    eventually(&format!("nothing is left of {namespace}/{name}"), Duration::from_secs(120), || async {
        let found = left(site, kube, namespace, name).await;
        if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
    })
    .await;
    measured(&format!("ends: nothing is left of {name} after {:.1} s", begun.elapsed().as_secs_f64()));
}

async fn state(site: &Site, namespace: &str, name: &str) -> String {
    let sql = format!("select state from claims where namespace = '{namespace}' and name = '{name}'");
    site.ledger_rows(&sql).await.pop().unwrap_or_default()
}

async fn is_in(site: &Site, namespace: &str, name: &str, wanted: &str, patience: u64) {
    eventually(&format!("{namespace}/{name} is {wanted}"), Duration::from_secs(patience), || async {
        let found = state(site, namespace, name).await;
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
}

async fn delete_secrets(kube: &Kube, namespace: &str, name: &str) {
    for tier in TIERS {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{namespace}-{name}-{tier}");
        kube.api().delete(&path).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_ends_half_made_or_with_its_cluster_or_the_control_plane_away() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let mut own = Own::start(false, &[]).await;
    let options = SiteOptions {
        ledger: Place::shared().await,
        look: "10m".to_owned(),
        lease: "5s".to_owned(),
        ..SiteOptions::on(own.place()).await
    };
    let plane = KubePlane::start(&lab, options).await;
    let (kube, mut plane) = (plane.kube(), plane.plane);
    let (site, namespace) = (&plane.site, kube.namespace("ends").await);

    // Half made, by a replica that goes on meanwhile, and by one that is killed.
    plane.serve.stop().await;
    let stalls = site.serve_with("stalls", &[("PGTENANT_FAULT", "stall=8s@after:create-database")]).await;
    kube.create(&namespace, "half", json!({})).await;
    let sql = format!("select datname::text from pg_database where datname = '{namespace}-half'");
    eventually("it is half made", Duration::from_secs(60), || async {
        if rows(&site.superuser, None, &sql).await.is_empty() { Err("no database".to_owned()) } else { Ok(()) }
    })
    .await;
    kube.delete(&namespace, "half").await;
    nothing_is_left(site, &kube, &namespace, "half").await;
    drop(stalls);
    let mut dies = site.serve_with("dies", &[("PGTENANT_FAULT", "kill@after:roles")]).await;
    kube.create(&namespace, "killed", json!({})).await;
    dies.running.end(Duration::from_secs(60)).await;
    kube.delete(&namespace, "killed").await;
    let mut serve = site.serve("after").await;
    nothing_is_left(site, &kube, &namespace, "killed").await;

    // Deleted while nobody was there.
    for (name, mode) in [
        ("alone", "standard"),
        ("kept", "protected"),
        ("nearly", "standard"),
        ("was", "standard"),
        ("still", "protected"),
        ("stripped", "standard"),
        ("quick", "standard"),
    ] {
        kube.ready(&namespace, name, json!({"mode": mode})).await;
    }
    serve.stop().await;
    // Nobody has written that down before it is deleted.
    kube.change(&namespace, "nearly", json!({"mode": "protected"})).await;
    for name in ["alone", "kept", "nearly"] {
        kube.delete(&namespace, name).await;
        let object =
            kube.find(&format!("{}/{name}", databases(&namespace))).await.expect("it waits for a control plane");
        assert_eq!(object["metadata"]["finalizers"], json!([FINALIZER]));
    }
    let stripped = kube.credential(&namespace, "stripped", "admin").await;
    for name in ["stripped", "quick"] {
        strip(&kube, &namespace, name).await;
        kube.delete(&namespace, name).await;
        kube.is_gone(&namespace, name).await;
    }
    kube.create(&namespace, "quick", json!({})).await;
    let serve = site.serve("later").await;
    nothing_is_left(site, &kube, &namespace, "alone").await;
    for name in ["kept", "nearly"] {
        kube.is_gone(&namespace, name).await;
        assert_eq!(state(site, &namespace, name).await, "Retained", "{name}");
    }

    // Deleted while the cluster is away: it says so and waits; what is kept need not wait.
    let superuser = site.superuser.clone();
    own.cluster.stop().await.unwrap();
    kube.create(&namespace, "never", json!({})).await;
    kube.is_because(&namespace, "never", "ClusterUnavailable").await;
    for name in ["never", "was", "still"] {
        kube.delete(&namespace, name).await;
    }
    for name in ["never", "was"] {
        let object = kube
            .comes_to(&namespace, name, "says that the cluster is away", |object| {
                object["status"]["state"] == "Deleting" && condition(object, "Ready")["reason"] == "ClusterUnavailable"
            })
            .await;
        let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(message.contains("at step") && message.contains("the next one is at"), "{message}");
    }
    kube.is_gone(&namespace, "still").await;
    own.cluster.start(|_| {}).await.unwrap();
    assert_eq!(superuser.get_port(), own.cluster.superuser().get_port());
    nothing_is_left(site, &kube, &namespace, "never").await;
    nothing_is_left(site, &kube, &namespace, "was").await;
    for name in ["kept", "nearly", "still"] {
        kube.ready(&namespace, name, json!({"mode": "standard"})).await;
    }
    vanished_claims_are_kept(site, &kube, &namespace, &stripped).await;
    drop(serve);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_was_never_good_for_anything_can_be_deleted() {
    let plane = shared::kubernetes().await;
    let (site, kube) = (&plane.plane.site, plane.kube());
    let namespace = kube.namespace("bad").await;
    kube.create(&namespace, "db", json!({"cluster": "nowhere", "extensions": ["not-allowed"]})).await;
    let object = kube.is_because(&namespace, "db", "Invalid").await;
    assert_eq!(object["metadata"]["finalizers"], Value::Null, "there is nothing to clean up");
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("nowhere"), "{object}");
    kube.delete(&namespace, "db").await;
    nothing_is_left(site, &kube, &namespace, "db").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_ends_with_its_claims_and_protected_ones_are_kept() {
    let plane = shared::kubernetes().await;
    let (site, kube) = (&plane.plane.site, plane.kube());
    let namespace = kube.namespace("ns").await;
    kube.ready(&namespace, "plain", json!({"mode": "standard"})).await;
    kube.ready(&namespace, "kept", json!({"mode": "protected"})).await;
    kube.create(&namespace, "bad", json!({"cluster": "nowhere"})).await;
    let admin = kube.credential(&namespace, "kept", "admin").await;
    can(&admin, "create table orders (id int); insert into orders values (1)").await;

    let begun = Instant::now();
    let path = format!("/api/v1/namespaces/{namespace}");
    kube.api().delete(&path).await.expect(200);
    eventually("the namespace is gone", Duration::from_secs(120), || async {
        match kube.find(&path).await {
            None => Ok(()),
            Some(found) => Err(found["status"].to_string()),
        }
    })
    .await;
    measured(&format!("ends: a namespace with three claims is gone after {:.1} s", begun.elapsed().as_secs_f64()));
    nothing_is_left(site, &kube, &namespace, "plain").await;
    assert_eq!(state(site, &namespace, "kept").await, "Retained");

    // The Secrets went with it; the claim brings them back, and the data is there.
    kube.api().post("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await.expect(201);
    kube.ready(&namespace, "kept", json!({"mode": "standard"})).await;
    let reader = kube.credential(&namespace, "kept", "read").await;
    can(&reader, "select id from orders").await;
    kube.delete(&namespace, "kept").await;
    nothing_is_left(site, &kube, &namespace, "kept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_end_when_their_secrets_went_first_and_come_again_at_once() {
    let plane = shared::kubernetes().await;
    let (site, kube) = (&plane.plane.site, plane.kube());
    let namespace = kube.namespace("again").await;

    kube.ready(&namespace, "bare", json!({})).await;
    delete_secrets(&kube, &namespace, "bare").await;
    kube.delete(&namespace, "bare").await;
    nothing_is_left(site, &kube, &namespace, "bare").await;

    // The same name again, as fast as the API server allows it: another database.
    kube.ready(&namespace, "db", json!({})).await;
    let admin = kube.credential(&namespace, "db", "admin").await;
    can(&admin, "create table orders (id int)").await;
    kube.delete(&namespace, "db").await;
    soon("the name is free", || async {
        let answer = kube.api().post(&databases(&namespace), database(&namespace, "db", json!({}))).await;
        if answer.status == 201 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    kube.is_ready(&namespace, "db").await;
    let fresh = kube.credential(&namespace, "db", "admin").await;
    assert_ne!(fresh.password, admin.password);
    assert_eq!(try_sql(&fresh, "select from orders").await, Err("42P01".to_owned()), "it is a new database");

    // The same with kubectl's own way to say it.
    let folder = pgtenant_tests::Folder::new("replace");
    let file = folder.join("object.json");
    fs::write(&file, database(&namespace, "db", json!({"connectionLimit": 7})).to_string()).unwrap();
    let file = file.display().to_string();
    kube.kubectl(&["replace", "--force", "-f", &file]).await.expect(0);
    let object = kube.is_ready(&namespace, "db").await;
    assert_eq!(object["spec"]["connectionLimit"], 7);
    let replaced = kube.credential(&namespace, "db", "admin").await;
    assert_ne!(replaced.password, fresh.password);
    assert_eq!(try_sql(&replaced, "select 1").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protected_claim_that_is_made_again_has_its_passwords_and_data() {
    let plane = shared::kubernetes().await;
    let (site, kube) = (&plane.plane.site, plane.kube());
    let namespace = kube.namespace("back").await;
    kube.ready(&namespace, "db", json!({"mode": "protected"})).await;
    let mut before: Vec<Credential> = Vec::new();
    for tier in TIERS {
        before.push(kube.credential(&namespace, "db", tier).await);
    }
    can(&before[2], "create table orders (id int)").await;
    // A new object counts its generations anew.
    kube.change(&namespace, "db", json!({"connectionLimit": 7})).await;
    kube.is_ready(&namespace, "db").await;
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    assert_eq!(state(site, &namespace, "db").await, "Retained");
    for (tier, known) in TIERS.iter().zip(&before) {
        assert_eq!(kube.credential(&namespace, "db", tier).await, *known, "the Secret stays");
        assert_eq!(try_sql(known, "select 1").await, Ok(()), "it is usable");
    }
    let dump = kube.ready(&namespace, "db", json!({"mode": "protected"})).await;
    for (tier, known) in TIERS.iter().zip(&before) {
        assert_eq!(kube.credential(&namespace, "db", tier).await, *known);
    }
    can(&before[0], "select from orders").await;

    // As a backup brings it back: with the finalizer, by another writer.
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    let mut restored = database(&namespace, "db", json!({"mode": "standard"}));
    restored["metadata"]["finalizers"] = dump["metadata"]["finalizers"].clone();
    assert_eq!(restored["metadata"]["finalizers"], json!([FINALIZER]));
    kube.apply(&[restored]).await.expect(0);
    kube.is_ready(&namespace, "db").await;
    assert_eq!(kube.credential(&namespace, "db", "read").await, before[0]);
    kube.delete(&namespace, "db").await;
    nothing_is_left(site, &kube, &namespace, "db").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finalizer_that_is_taken_away_is_put_back() {
    let plane = shared::kubernetes().await;
    let (site, kube) = (&plane.plane.site, plane.kube());
    let namespace = kube.namespace("finalizer").await;
    kube.ready(&namespace, "db", json!({})).await;
    strip(&kube, &namespace, "db").await;
    let put_back = |object: &Value| object["metadata"]["finalizers"] == json!([FINALIZER]);
    kube.comes_to(&namespace, "db", "has its finalizer again", put_back).await;
    kube.delete(&namespace, "db").await;
    nothing_is_left(site, &kube, &namespace, "db").await;
}

/// Takes the finalizers away.
async fn strip(kube: &Kube, namespace: &str, name: &str) {
    let path = format!("{}/{name}", databases(namespace));
    kube.api().patch(&path, json!({"metadata": {"finalizers": []}})).await.expect(200);
}

/// The objects vanished while nobody was there to see it.
async fn vanished_claims_are_kept(site: &Site, kube: &Kube, namespace: &str, before: &Credential) {
    is_in(site, namespace, "stripped", "Retained", 120).await;
    let events = site.events(namespace, "stripped").await;
    let told = events.iter().any(|event| {
        event["type"] == "Retained" && event["message"].as_str().is_some_and(|text| text.contains("vanished"))
    });
    assert!(told, "{events:?}");
    assert_eq!(try_sql(before, "select 1").await, Ok(()), "nothing is dropped");
    assert_eq!(state(site, namespace, "quick").await, "Ready", "it was made again in time");
    kube.ready(namespace, "stripped", json!({})).await;
    assert_eq!(kube.credential(namespace, "stripped", "admin").await, *before);
    for name in ["stripped", "quick"] {
        kube.delete(namespace, name).await;
        nothing_is_left(site, kube, namespace, name).await;
    }
}
