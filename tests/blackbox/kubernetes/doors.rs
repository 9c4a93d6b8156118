//! Kubernetes beside the other doors: each shows the same claims, and only the one that made a claim changes it.

use std::time::Duration;

use pgtenant_tests::{Answer, Cli, TIERS, condition, database, databases, eventually, soon, try_sql};
use serde_json::json;

use crate::shared;

fn rest(namespace: &str) -> String {
    format!("/v1/namespaces/{namespace}/databases")
}

/// Asks until the ledger answers, as clients are told to do on a machine that is busy.
async fn answered<F: Future<Output = Answer>>(ask: impl Fn() -> F) -> Answer {
    soon("an answer of the ledger", || async {
        let answer = ask().await;
        if answer.status == 503 { Err(answer.text) } else { Ok(answer) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_and_the_command_line_show_claims_of_kubernetes_and_change_none() {
    let plane = shared::kubernetes().await;
    let (kube, api) = (plane.kube(), plane.plane.api());
    let namespace = kube.namespace("doors").await;
    let object = kube.ready(&namespace, "db", json!({"schemas": ["reporting"]})).await;
    let shown = api.get(&format!("{}/db", rest(&namespace))).await.expect(200).json;
    assert_eq!((&shown["source"], &shown["state"]), (&json!("kubernetes"), &json!("Ready")));
    assert_eq!((&shown["schemas"], &shown["database"]), (&object["spec"]["schemas"], &object["status"]["database"]));
    assert_eq!(shown["roles"]["read"]["stores"][0]["store"], "kubernetes");
    assert_eq!(shown["roles"]["read"]["stores"][0]["location"], format!("{namespace}/{namespace}-db-read"));
    let token = api.token().unwrap_or_default().to_owned();
    let cli = Cli::of(api.base(), &token);
    let listed = cli.run(&["db", "get", &format!("{namespace}/db"), "--output", "json"]).await;
    assert_eq!(listed.expect(0).json()["source"], "kubernetes");

    let all = rest(&namespace);
    let path = format!("{all}/db");
    let another = json!({"name": "db", "schemas": ["reporting"]});
    for answer in [
        answered(|| api.patch(&path, json!({"connectionLimit": 3}))).await,
        answered(|| api.delete(&path)).await,
        answered(|| api.post(&all, another.clone())).await,
    ] {
        let detail = answer.expect(409).json["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains("kubernetes") && detail.contains("release"), "{detail}");
    }
    let sql = format!("select actor from audit where namespace = '{namespace}' and action = 'database.create'");
    assert_eq!(plane.plane.site.ledger_rows(&sql).await, [format!("kubernetes:{namespace}/db")]);
    let metrics = api.get("/metrics").await.expect(200).text;
    assert!(
        metrics.lines().any(|line| line.starts_with("pgtenant_kubernetes_leader") && line.ends_with(" 1")),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_asked_for_by_rest_is_in_the_secret_and_told() {
    let plane = shared::kubernetes().await;
    let (kube, api) = (plane.kube(), plane.plane.api());
    let namespace = kube.namespace("rotate").await;
    kube.ready(&namespace, "db", json!({})).await;
    let before = kube.credential(&namespace, "db", "write").await;
    let path = format!("{}/db/credentials/rotate", rest(&namespace));
    answered(|| api.ask(&path)).await.expect(202);
    soon("the Secret has another password, which works", || async {
        let found = kube.credential(&namespace, "db", "write").await;
        let works = found.password != before.password && try_sql(&found, "select 1").await.is_ok();
        if works { Ok(()) } else { Err("the former".to_owned()) }
    })
    .await;
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    eventually("an Event for each tier", Duration::from_secs(30), || async {
        let list = kube.api().get(&path).await.expect(200).json;
        let rotated = |event: &&serde_json::Value| event["reason"] == "CredentialRotated";
        let count = list["items"].as_array().expect("items").iter().filter(rotated).count();
        if count == TIERS.len() { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    let object = kube.is_ready(&namespace, "db").await;
    assert_eq!(object["status"]["observedGeneration"], 1, "the spec is the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_another_door_is_left_alone_until_it_is_released_there() {
    let plane = shared::kubernetes().await;
    let (kube, api) = (plane.kube(), plane.plane.api());
    let namespace = kube.namespace("other").await;
    api.ready(&namespace, "db").await;
    let before = kube.credential(&namespace, "db", "admin").await;

    // It is said at admission, as soon as the API server knows where to ask.
    soon("an object of that name is refused", || async {
        let path = format!("{}?dryRun=All", databases(&namespace));
        let answer = kube.api().post(&path, database(&namespace, "db", json!({"connectionLimit": 4}))).await;
        let refused = answer.status >= 400 && answer.text.contains("is managed by api");
        if refused { Ok(()) } else { Err(answer.text) }
    })
    .await;

    // Released there, the object takes it over, with the same passwords.
    let path = format!("{}/db/release", rest(&namespace));
    answered(|| api.ask(&path)).await.expect(202);
    kube.ready(&namespace, "db", json!({"connectionLimit": 4})).await;
    assert_eq!(kube.credential(&namespace, "db", "admin").await, before);
    let shown = api.get(&format!("{}/db", rest(&namespace))).await.expect(200).json;
    assert_eq!((&shown["source"], &shown["connectionLimit"]), (&json!("kubernetes"), &json!(4)));

    // Released here, REST has it, and the object says whose it is now.
    let path = format!("{}/db/release", rest(&namespace));
    answered(|| api.ask(&path)).await.expect(202);
    kube.is_because(&namespace, "db", "Released").await;
    let all = rest(&namespace);
    let taken = answered(|| api.post(&all, json!({"name": "db", "connectionLimit": 4}))).await;
    assert!([200, 201].contains(&taken.status), "{}", taken.text);
    api.is_ready(&namespace, "db").await;
    let object = kube.is_because(&namespace, "db", "OtherDoor").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("managed by api"), "{object}");

    // Released there again, the object that waits for it has it at once.
    let path = format!("{}/db/release", rest(&namespace));
    answered(|| api.ask(&path)).await.expect(202);
    kube.is_ready(&namespace, "db").await;
    answered(|| api.ask(&path)).await.expect(202);
    kube.is_because(&namespace, "db", "Released").await;
    let taken = answered(|| api.post(&all, json!({"name": "db", "connectionLimit": 4}))).await;
    assert!([200, 201].contains(&taken.status), "{}", taken.text);
    kube.is_because(&namespace, "db", "OtherDoor").await;
    api.is_ready(&namespace, "db").await;

    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    assert_eq!(api.get(&format!("{}/db", rest(&namespace))).await.expect(200).json["state"], "Ready");
    assert_eq!(try_sql(&before, "select 1").await, Ok(()));
    api.delete(&format!("{}/db", rest(&namespace))).await.expect(202);
    api.is_gone(&namespace, "db").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_waits_for_another_doors_claim_goes_on_when_that_is_removed() {
    let plane = shared::kubernetes().await;
    let (kube, api) = (plane.kube(), plane.plane.api());
    let namespace = kube.namespace("waits").await;
    kube.ready(&namespace, "db", json!({})).await;
    let former = kube.credential(&namespace, "db", "admin").await;
    let all = rest(&namespace);
    let (path, release) = (format!("{all}/db"), format!("{all}/db/release"));
    answered(|| api.ask(&release)).await.expect(202);
    kube.is_because(&namespace, "db", "Released").await;
    let taken = answered(|| api.post(&all, json!({"name": "db"}))).await;
    assert!([200, 201].contains(&taken.status), "{}", taken.text);
    kube.is_because(&namespace, "db", "OtherDoor").await;
    api.is_ready(&namespace, "db").await;

    answered(|| api.delete(&path)).await.expect(202);
    kube.is_ready(&namespace, "db").await;
    let shown = api.get(&path).await.expect(200).json;
    assert_eq!(shown["source"], "kubernetes");
    let admin = kube.credential(&namespace, "db", "admin").await;
    assert_ne!(admin.password, former.password, "it is another database");
    assert_eq!(try_sql(&admin, "select 1").await, Ok(()));
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
}
