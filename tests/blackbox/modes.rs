//! Modes: what removing a claim drops, and what it keeps.

use std::time::Duration;

use pgtenant_tests::{
    Credential, TIERS, connect, eventually, files_below, rows, try_sql, unique, works_for_an_application,
};
use serde_json::json;
use sqlx::Executor as _;

use crate::shared::{self, Plane};

/// What of a claim is on the cluster: databases and roles of that name.
async fn on_the_cluster(plane: &Plane, namespace: &str, name: &str) -> Vec<String> {
    let sql = format!(
        "select 'database ' || datname from pg_database where datname = '{namespace}-{name}'
         union all select 'role ' || rolname from pg_roles where rolname like '{namespace}-{name}-%' order by 1"
    );
    rows(&plane.site.superuser, None, &sql).await
}

fn in_the_store(plane: &Plane, namespace: &str) -> Vec<String> {
    files_below(&plane.site.secrets.join("customer").join(namespace))
}

#[tokio::test]
async fn removing_a_standard_claim_ends_sessions_and_drops_database_roles_and_credentials() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("standard"));
    api.ready(&namespace, "db").await;
    assert_eq!(on_the_cluster(plane, &namespace, "db").await.len(), 4);
    assert_eq!(in_the_store(plane, &namespace).len(), 3);
    let mut sessions = Vec::new();
    for tier in TIERS {
        let credential = Credential::read(&plane.site.secrets, &namespace, "db", tier);
        sessions.push(connect(&credential).await.unwrap());
    }
    sessions[2].execute("create table busy (n int)").await.unwrap();
    sessions[2].execute("begin; insert into busy values (1)").await.unwrap();
    let admin = Credential::read(&plane.site.secrets, &namespace, "db", "admin");

    let asked = api.delete(&format!("/v1/namespaces/{namespace}/databases/db")).await.expect(202).json;
    assert_eq!(asked["kind"], "delete");
    let again = api.delete(&format!("/v1/namespaces/{namespace}/databases/db")).await;
    assert!(again.status == 404 || (again.status == 202 && again.json["id"] == asked["id"]), "{}", again.text);
    let done = api.finished(asked["id"].as_str().unwrap()).await;
    assert_eq!(done["state"], "Succeeded", "{done}");
    api.is_gone(&namespace, "db").await;
    assert_eq!(on_the_cluster(plane, &namespace, "db").await, Vec::<String>::new());
    assert_eq!(in_the_store(plane, &namespace), Vec::<String>::new());
    for mut session in sessions {
        assert!(session.execute("select 1").await.is_err(), "a session goes on after its database is gone");
    }
    assert_eq!(try_sql(&admin, "select 1").await, Err("28P01".to_owned()));
    let kinds: Vec<_> =
        plane.site.events(&namespace, "db").await.iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.last().map(String::as_str), Some("Deleted"), "{kinds:?}");

    // The name is free again, with new passwords.
    api.ready(&namespace, "db").await;
    assert_ne!(Credential::read(&plane.site.secrets, &namespace, "db", "admin").password, admin.password);
}

#[tokio::test]
async fn a_protected_database_is_not_removed_by_delete() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("protected"));
    api.ready_with(&namespace, json!({"name": "db", "mode": "protected"})).await;
    let path = format!("/v1/namespaces/{namespace}/databases/db");
    api.delete(&path).await.problem(409, "protected");
    works_for_an_application(&plane.site.secrets, &namespace, "db").await;
    // Either way round.
    api.patch(&path, json!({"mode": "standard"})).await.expect(200);
    api.is_ready(&namespace, "db").await;
    api.patch(&path, json!({"mode": "protected"})).await.expect(200);
    api.delete(&path).await.problem(409, "protected");
    api.patch(&path, json!({"mode": "standard"})).await.expect(200);
    api.delete(&path).await.expect(202);
    api.is_gone(&namespace, "db").await;
    assert_eq!(on_the_cluster(plane, &namespace, "db").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_protected_definition_that_is_removed_is_retained_and_taken_back_with_the_same_passwords() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("kept"));
    let place = format!("{namespace}/app");
    let values = "postgresqlDatabases:\n  - name: db\n    mode: protected\n";
    dev.apps().write(&place, values);
    api.is_ready(&namespace, "db").await;
    let before = Credential::of(&dev.secrets(), &namespace, "db");
    pgtenant_tests::can(&before[2], "create table precious (n int); insert into precious values (42)").await;
    dev.apps().define(&place, &[]);
    let retained = api.is_in(&namespace, "db", "Retained").await;
    assert_eq!(retained["mode"], "protected");
    let listed = api.list("/v1/databases?state=Retained").await;
    assert!(listed.iter().any(|db| db["namespace"] == namespace), "{listed:?}");
    for credential in &before {
        assert_eq!(try_sql(credential, "select n from precious").await, Ok(()), "all of it is kept");
    }
    dev.apps().write(&place, values);
    api.is_ready(&namespace, "db").await;
    assert_eq!(Credential::of(&dev.secrets(), &namespace, "db"), before);
    pgtenant_tests::can(&before[0], "select n from precious").await;
}

#[tokio::test]
async fn a_released_database_of_either_mode_is_kept_and_comes_back_by_create_or_adopt() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("release"));
    for (name, mode) in [("loose", "standard"), ("tight", "protected")] {
        api.ready_with(&namespace, json!({"name": name, "mode": mode})).await;
        let before = Credential::of(&plane.site.secrets, &namespace, name);
        let path = format!("/v1/namespaces/{namespace}/databases/{name}");
        let asked = api.ask(&format!("{path}/release")).await.expect(202).json;
        assert_eq!((&asked["kind"], &asked["state"]), (&json!("release"), &json!("Succeeded")));
        assert_eq!(api.get(&path).await.json["state"], "Retained");
        api.patch(&path, json!({"connectionLimit": 3})).await.problem(409, "retained");
        api.delete(&path).await.problem(409, "retained");
        api.ask(&format!("{path}/credentials/rotate")).await.problem(409, "retained");
        works_for_an_application(&plane.site.secrets, &namespace, name).await;

        let body = json!({"name": name, "mode": mode});
        api.post(&format!("/v1/namespaces/{namespace}/databases"), body).await.expect(200);
        api.is_ready(&namespace, name).await;
        assert_eq!(Credential::of(&plane.site.secrets, &namespace, name), before, "the same passwords");

        api.ask(&format!("{path}/release")).await.expect(202);
        let plan = api.ask(&format!("{path}/adopt?dryRun=true")).await.expect(200).json;
        assert_eq!(plan["claims"][0]["name"], name, "{plan}");
        assert_eq!(api.get(&path).await.json["state"], "Retained", "a dry run does nothing");
        let asked = api.ask(&format!("{path}/adopt")).await.expect(202).json;
        assert_eq!(api.finished(asked["id"].as_str().unwrap()).await["state"], "Succeeded");
        let back = api.is_ready(&namespace, name).await;
        assert_eq!(back["mode"], mode);
        assert_eq!(Credential::of(&plane.site.secrets, &namespace, name), before, "the same passwords");
        works_for_an_application(&plane.site.secrets, &namespace, name).await;
    }
}

#[tokio::test]
async fn what_the_folder_defined_is_left_alone_after_a_release_until_it_was_gone_once() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("letgo"));
    let place = format!("{namespace}/app");
    dev.apps().define(&place, &["db"]);
    api.is_ready(&namespace, "db").await;
    let before = Credential::of(&dev.secrets(), &namespace, "db");
    api.ask(&format!("/v1/namespaces/{namespace}/databases/db/release")).await.expect(202);
    // A change in the folder makes it look again.
    dev.apps().define(&format!("{namespace}/other"), &["other"]);
    api.is_ready(&namespace, "other").await;
    assert_eq!(api.get(&format!("/v1/namespaces/{namespace}/databases/db")).await.json["state"], "Retained");
    // An absence counts when it was seen twice; defined again too early, the claim is still left alone.
    eventually("it is taken back", Duration::from_secs(40), || async {
        dev.apps().define(&place, &[]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        dev.apps().define(&place, &["db"]);
        for _look in 0..30 {
            let db = api.get(&format!("/v1/namespaces/{namespace}/databases/db")).await.json;
            if db["state"] == "Ready" {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("Retained".to_owned())
    })
    .await;
    assert_eq!(Credential::of(&dev.secrets(), &namespace, "db"), before);
}
