//! Back from a snapshot by an object of Kubernetes.

use std::time::{Duration, Instant};

use pgtenant_testkit::Kubernetes;
use pgtenant_tests::{
    Api, Kube, SiteOptions, can, condition, connect, database, eventually, measured, restore, restores, soon, try_sql,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};

use crate::shared::KubePlane;

/// For what copies a small database.
const PATIENCE: Duration = Duration::from_secs(90);
pub(super) const FINALIZER: &str = "pgtenant.io/restore";

/// A control plane that keeps dumps, in Kubernetes, and what a team does with it.
struct Shop {
    plane: KubePlane,
    kube: Kube,
    namespace: String,
}

impl Shop {
    /// `cluster` are further lines of the cluster's description.
    async fn open(lab: &Kubernetes, cluster: &str) -> Self {
        let options = SiteOptions {
            backups: true,
            look: "10m".to_owned(),
            lease: "3s".to_owned(),
            cluster: cluster.to_owned(),
            ..SiteOptions::shared().await
        };
        let plane = KubePlane::start(lab, options).await;
        let kube = plane.kube();
        let namespace = kube.namespace("shop").await;
        Self { plane, kube, namespace }
    }

    fn api(&self) -> Api {
        self.plane.plane.api()
    }

    /// A database with something in it, a dump of that, and a mistake since.
    async fn stock(&self, name: &str) {
        self.kube.ready(&self.namespace, name, json!({})).await;
        let admin = self.kube.credential(&self.namespace, name, "admin").await;
        can(&admin, "create table orders as select n as id from generate_series(1, 500) n").await;
        let path = format!("/v1/namespaces/{}/databases/{name}/snapshots", self.namespace);
        let begun = self.api().ask(&path).await.expect(202).json;
        let done = self.api().finished(begun["id"].as_str().unwrap()).await;
        assert_eq!(done["state"], "Succeeded", "{done}");
        can(&admin, "delete from orders where id > 7").await;
    }

    async fn orders(&self, name: &str) -> i64 {
        let mut db = connect(&self.kube.credential(&self.namespace, name, "read").await).await.unwrap();
        let row = sqlx::query(AssertSqlSafe("select count(*) from orders")).fetch_one(&mut db).await.unwrap();
        row.get(0)
    }

    async fn create(&self, name: &str, database: &str, more: Value) -> Value {
        let object = restore(&self.namespace, name, database, more);
        self.kube.api().post(&restores(&self.namespace), object).await.expect(201).json
    }

    async fn delete(&self, name: &str) {
        self.kube.api().delete(&format!("{}/{name}", restores(&self.namespace))).await.expect(200);
    }

    async fn find(&self, name: &str) -> Option<Value> {
        self.kube.find(&format!("{}/{name}", restores(&self.namespace))).await
    }

    async fn is_gone(&self, name: &str) {
        soon(&format!("{name} is gone"), || async {
            self.find(name).await.map_or(Ok(()), |object| Err(object.to_string()))
        })
        .await;
    }

    /// Waits until the object is as wished.
    async fn comes_to(&self, name: &str, what: &str, wish: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name}: {what}"), PATIENCE, || async {
            let object = self.find(name).await.unwrap_or_default();
            if wish(&object) { Ok(object) } else { Err(object.to_string()) }
        })
        .await
    }

    async fn is_in(&self, name: &str, phase: &str) -> Value {
        self.comes_to(name, phase, |object| object["status"]["phase"] == phase).await
    }

    async fn is_because(&self, name: &str, reason: &str) -> Value {
        self.comes_to(name, reason, |object| condition(object, "Complete")["reason"] == reason).await
    }

    /// Says yes or no, or something else of the kind.
    async fn say(&self, object: &Value, word: &str) {
        self.api().ask(&format!("/v1/restores/{}/{word}", id(object))).await.expect(200);
    }

    async fn in_ledger(&self, object: &Value) -> Value {
        self.api().get(&format!("/v1/restores/{}", id(object))).await.expect(200).json
    }

    /// How many restores of the namespace there are.
    async fn count(&self) -> usize {
        let path = format!("/v1/restores?namespace={}", self.namespace);
        self.api().list(&path).await.len()
    }

    /// Reasons of the Events of an object, in their order.
    async fn events(&self, name: &str) -> Vec<String> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.namespace);
        let list = self.kube.api().get(&path).await.expect(200).json;
        let of_it =
            |event: &&Value| event["regarding"]["name"] == name && event["regarding"]["kind"] == "PostgresqlRestore";
        let mut found: Vec<_> = list["items"].as_array().unwrap().iter().filter(of_it).collect();
        found.sort_by_key(|event| event["eventTime"].as_str().unwrap().to_owned());
        found.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }
}

fn id(object: &Value) -> &str {
    object["status"]["id"].as_str().unwrap_or_else(|| panic!("no id: {object}"))
}

pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_brings_a_database_back_and_says_how_that_went() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let shop = Shop::open(&lab, "").await;
    shop.stock("data").await;
    let admin = shop.kube.credential(&shop.namespace, "data", "admin").await;
    shop.create("back", "data", json!({"reason": "a mistake"})).await;
    let object = shop.is_in("back", "Requested").await;
    assert_eq!(finalizers(&object), [FINALIZER]);
    assert_eq!(condition(&object, "Approved")["status"], "False");
    let told = object["status"]["message"].as_str().unwrap();
    assert!(told.contains(&format!("pgtenant restore approve {}", id(&object))), "{told}");
    let asked = shop.in_ledger(&object).await;
    let by = format!("kubernetes:{}/back", shop.namespace);
    assert_eq!((&asked["requestedBy"], &asked["reason"]), (&json!(by), &json!("a mistake")), "{asked}");

    // One at a time; and what was asked for is not changed.
    shop.create("another", "data", json!({})).await;
    let refused = shop.is_because("another", "RestoreOpen").await;
    assert_eq!(
        (&refused["status"]["phase"], &condition(&refused, "Failed")["status"]),
        (&json!("Failed"), &json!("True"))
    );
    assert!(finalizers(&refused).is_empty(), "nothing holds it");
    let change = json!({"spec": {"strategy": "copy", "copyName": "old"}});
    let path = format!("{}/back", restores(&shop.namespace));
    let answer = shop.kube.api().patch(&path, change).await.expect(422);
    assert!(answer.text.contains("a restore can not be changed"), "{}", answer.text);

    shop.say(&object, "approve").await;
    let done = shop.is_in("back", "Succeeded").await;
    assert_eq!((shop.orders("data").await, shop.kube.credential(&shop.namespace, "data", "admin").await), (500, admin));
    for (kind, status) in [("Approved", "True"), ("Complete", "True"), ("Failed", "False")] {
        let found = condition(&done, kind);
        assert_eq!((&found["status"], &found["observedGeneration"]), (&json!(status), &json!(1)), "{done}");
    }
    let (status, report) = (&done["status"], &done["status"]["report"]);
    assert!(status["snapshot"].as_str().unwrap().starts_with("dump:"), "{status}");
    assert_eq!((&report["rows"], &report["tables"], &report["differences"]), (&json!(500), &json!(1), &json!(0)));
    assert_eq!((&report["logins"], &status["progress"]["percent"]), (&json!(3), &json!(100)), "{status}");
    assert!(status["before"]["database"].as_str().unwrap().contains("-before-"), "{status}");
    assert!(status["finishedAt"].as_str() > status["requestedAt"].as_str(), "{status}");

    as_kubectl_shows_it(&shop).await;
    soon("each phase is told once", || async {
        let told = shop.events("back").await;
        let wanted =
            ["Requested", "Approved", "Preparing", "Copying", "Verifying", "Switching", "CleaningUp", "Succeeded"];
        if told == wanted { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    assert_eq!(shop.events("another").await, ["RestoreOpen"]);

    // The way back is told, too; and what is over goes without anybody's help, with the data left alone.
    shop.say(&done, "undo").await;
    shop.comes_to("back", "undone", |object| object["status"]["undoneAt"].is_string()).await;
    assert_eq!(shop.orders("data").await, 7);
    shop.comes_to("back", "nothing holds it", |object| finalizers(object).is_empty()).await;
    for name in ["back", "another"] {
        shop.delete(name).await;
        shop.is_gone(name).await;
    }
    assert_eq!((shop.orders("data").await, shop.count().await), (7, 1));
}

async fn as_kubectl_shows_it(shop: &Shop) {
    let kubectl = async |args: &[&str]| {
        let args: Vec<_> = [&["--namespace", &shop.namespace], args].concat();
        shop.kube.kubectl(&args).await.expect(0).stdout
    };
    kubectl(&["wait", "pgrestore/back", "--for=condition=Complete", "--timeout=5s"]).await;
    kubectl(&["wait", "pgrestore/another", "--for=condition=Failed", "--timeout=5s"]).await;
    let shown = kubectl(&["get", "pgrestore"]).await;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = shown.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "DATABASE", "STRATEGY", "SNAPSHOT", "PHASE", "AGE"], "{shown}");
    let back = lines.iter().find(|line| line[0] == "back").unwrap();
    assert_eq!((&*back[1], &*back[2], &*back[4]), ("data", "swap", "Succeeded"), "{shown}");
    let wide = kubectl(&["get", "pgrestore", "--output", "wide"]).await;
    assert!(wide.contains("a restore of database") && wide.contains("is under way"), "{wide}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_production_the_platform_team_approves_and_a_deleted_object_cancels() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let mut shop = Shop::open(&lab, "environment = \"production\"").await;
    shop.stock("data").await;
    let tenant = shop.plane.plane.api_of("tenant", &[&shop.namespace]).await;
    shop.create("rejected", "data", json!({})).await;
    let object = shop.is_in("rejected", "Requested").await;
    let told = tenant.ask(&format!("/v1/restores/{}/approve", id(&object))).await.problem(403, "forbidden");
    assert!(told.contains("platform team"), "{told}");
    // Whoever may write objects has no say in it.
    let path = format!("{}/rejected", restores(&shop.namespace));
    let lie = json!({"metadata": {"annotations": {"pgtenant.io/approve": "true"}}, "status": {"phase": "Approved"}});
    shop.kube.api().patch(&path, lie).await.expect(200);
    shop.say(&object, "reject").await;
    let object = shop.is_in("rejected", "Rejected").await;
    assert_eq!(
        (&condition(&object, "Failed")["status"], &condition(&object, "Approved")["reason"]),
        (&json!("True"), &json!("Rejected"))
    );

    // Nobody has said anything yet.
    shop.create("unsaid", "data", json!({})).await;
    let object = shop.is_in("unsaid", "Requested").await;
    shop.delete("unsaid").await;
    shop.is_gone("unsaid").await;
    assert_eq!(shop.in_ledger(&object).await["phase"], "Cancelled");

    // In the middle.
    shop.plane.plane.serve.stop().await;
    let fault = [("PGTENANT_FAULT", "stall=60s@before:restore-to-Verifying")];
    shop.plane.plane.serve = shop.plane.plane.site.serve_with("stalls", &fault).await;
    shop.plane.plane.serve.is_ready().await;
    shop.create("begun", "data", json!({})).await;
    let object = shop.is_in("begun", "Requested").await;
    shop.say(&object, "approve").await;
    shop.is_in("begun", "Copying").await;
    shop.delete("begun").await;
    shop.is_gone("begun").await;
    eventually("it is cancelled", PATIENCE, || async {
        let found = shop.in_ledger(&object).await;
        if found["phase"] == "Cancelled" { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    assert_eq!(shop.orders("data").await, 7, "the database is as it was");

    // Too late: it goes on.
    shop.plane.plane.serve.stop().await;
    let fault = [("PGTENANT_FAULT", "stall=8s@after:restore-to-Switching")];
    shop.plane.plane.serve = shop.plane.plane.site.serve_with("late", &fault).await;
    shop.plane.plane.serve.is_ready().await;
    shop.create("late", "data", json!({})).await;
    let object = shop.is_in("late", "Requested").await;
    shop.say(&object, "approve").await;
    shop.is_in("late", "Switching").await;
    shop.delete("late").await;
    shop.is_gone("late").await;
    eventually("it is done all the same", PATIENCE, || async {
        let found = shop.in_ledger(&object).await;
        if found["phase"] == "Succeeded" { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    assert_eq!(shop.orders("data").await, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_waits_for_its_own_claim_and_never_sees_anothers() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let shop = Shop::open(&lab, "restores = { approval = \"nobody\" }").await;
    shop.stock("data").await;
    let other = shop.kube.namespace("other").await;
    // Another namespace's database, however it is called.
    let theirs = restore(&other, "theirs", "data", json!({}));
    shop.kube.api().post(&restores(&other), theirs).await.expect(201);
    let path = format!("{}/theirs", restores(&other));
    let waits = async |path: &str| {
        soon("it waits", || async {
            let object = shop.kube.find(path).await.unwrap();
            if condition(&object, "Complete")["reason"] == "NotFound" { Ok(object) } else { Err(object.to_string()) }
        })
        .await
    };
    let object = waits(&path).await;
    assert!(object["status"]["phase"].is_null() && finalizers(&object).is_empty(), "{object}");
    let told = object["status"]["message"].as_str().unwrap();
    assert!(told.starts_with(&format!("there is no database {other}/data. It is asked for as soon as")), "{told}");

    // With a claim of its own it is asked for; there is nothing to come back from.
    shop.kube.create(&other, "data", json!({})).await;
    let object = eventually("it was asked for", PATIENCE, || async {
        let object = shop.kube.find(&path).await.unwrap();
        if object["status"]["phase"] == "Failed" { Ok(object) } else { Err(object.to_string()) }
    })
    .await;
    assert!(object["status"]["message"].as_str().unwrap().contains("no snapshot"), "{object}");
    assert_eq!(shop.in_ledger(&object).await["namespace"], other);
    assert_eq!((shop.orders("data").await, shop.count().await), (7, 0), "nobody touched the other one");

    // A claim and its restore in one, in either order.
    let claim = database(&shop.namespace, "more", json!({}));
    let copy = restore(&shop.namespace, "copy", "data", json!({"strategy": "copy", "copyName": "old"}));
    let early = restore(&shop.namespace, "early", "more", json!({}));
    shop.kube.apply(&[early, copy, claim]).await.expect(0);
    shop.is_in("copy", "Succeeded").await;
    let reader = shop.kube.credential(&shop.namespace, "old", "read").await;
    assert_eq!(try_sql(&reader, "select 1 / (count(*) = 500)::int from orders").await, Ok(()));
    shop.is_in("early", "Failed").await;
    assert_eq!(shop.orders("data").await, 7);

    // However many wishes there are, one at a time is granted, and no other waits.
    let crowd: Vec<_> =
        (0..100).map(|n| restore(&shop.namespace, &format!("crowd-{n:03}"), "data", json!({}))).collect();
    let (before, begun) = (shop.count().await, Instant::now());
    shop.kube.apply(&crowd).await.expect(0);
    let phases = eventually("each has its answer", PATIENCE * 2, || async {
        let list = shop.kube.api().get(&restores(&shop.namespace)).await.expect(200).json;
        let of_crowd = |object: &&Value| object["metadata"]["name"].as_str().unwrap().starts_with("crowd-");
        let phases: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of_crowd)
            .map(|object| object["status"]["phase"].as_str().unwrap_or_default().to_owned())
            .collect();
        let over = phases.iter().filter(|phase| ["Succeeded", "Failed"].contains(&phase.as_str())).count();
        if over == crowd.len() { Ok(phases) } else { Err(format!("{over}")) }
    })
    .await;
    let succeeded = phases.iter().filter(|phase| *phase == "Succeeded").count();
    let asked = shop.count().await - before;
    assert!(succeeded >= 1 && asked == succeeded, "{asked} asked, {succeeded} succeeded");
    measured(&format!(
        "100 objects for one database: {asked} restores, all answered after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
}
