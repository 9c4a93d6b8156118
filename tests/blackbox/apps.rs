//! The apps folder: what is written there becomes true within a second; mistakes are named and drop nothing.

use std::fs;
use std::time::{Duration, Instant};

use pgtenant_tests::{APPLICATION, Api, eventually, measured, never, soon, unique, works_for_an_application};
use serde_json::Value;

use crate::shared;

/// A removal would have been believed by then.
const REMOVED: Duration = Duration::from_secs(9);

async fn problems_in(api: &Api, place: &str) -> Vec<Value> {
    let all = api.list("/v1/apps/problems").await;
    all.into_iter().filter(|problem| problem["file"].as_str().unwrap().starts_with(place)).collect()
}

/// Waits for a problem at this place, and returns its message.
async fn problem_at(api: &Api, file: &str, line: u32, key: &str) -> String {
    soon(&format!("a problem at {file}:{line} {key}"), || async {
        let found = problems_in(api, file).await;
        let here = found.iter().find(|problem| problem["line"] == line && problem["key"] == key);
        here.map(|problem| problem["message"].as_str().unwrap().to_owned()).ok_or_else(|| format!("{found:?}"))
    })
    .await
}

async fn no_problem_in(api: &Api, place: &str) {
    soon(&format!("no problem in {place}"), || async {
        let found = problems_in(api, place).await;
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_change_is_noticed_within_a_second() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("quick"));
    let mut noticed = Vec::new();
    for round in 0..5 {
        let (place, name) = (format!("{namespace}/app-{round}"), format!("db-{round}"));
        let begun = Instant::now();
        dev.apps().define(&place, &[&name]);
        eventually("the claim is there", Duration::from_secs(10), || async {
            let answer = api.get(&format!("/v1/namespaces/{namespace}/databases/{name}")).await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text) }
        })
        .await;
        noticed.push(begun.elapsed());
    }
    noticed.sort();
    measured(&format!(
        "apps folder: a change is a claim after {:?} (median of 5), {:?} at most",
        noticed[2], noticed[4]
    ));
    assert!(noticed[2] < Duration::from_secs(1), "{noticed:?}");
    api.is_ready(&namespace, "db-4").await;
    works_for_an_application(&dev.secrets(), &namespace, "db-4").await;
}

#[tokio::test]
async fn applications_are_found_at_any_depth() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("deep"));
    dev.apps().define(&format!("{namespace}/team/group/sub/app"), &["far-down"]);
    dev.apps().define(&format!("{namespace}/top"), &["near"]);
    for name in ["far-down", "near"] {
        assert_eq!(api.is_ready(&namespace, name).await["source"], "apps");
    }
}

#[tokio::test]
async fn every_field_of_the_values_reaches_the_claim_and_an_edit_changes_it() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("fields"));
    let values = "postgresqlDatabases:\n  - name: all\n    mode: protected\n    cluster: default\n    schemas: [reporting]\n    \
                  extensions: [pgcrypto]\n    connectionLimit: 7\n";
    dev.apps().write(&format!("{namespace}/app"), values);
    let db = api.is_ready(&namespace, "all").await;
    assert_eq!(db["mode"], "protected");
    assert_eq!(db["schemas"], serde_json::json!(["reporting"]));
    assert_eq!(db["extensions"], serde_json::json!(["pgcrypto"]));
    assert_eq!(db["connectionLimit"], 7);
    dev.apps().overwrite(&format!("{namespace}/app"), &values.replace('7', "9"));
    api.comes_to(&namespace, "all", "limit 9", |db| db["connectionLimit"] == 9 && db["state"] == "Ready").await;
}

#[tokio::test]
async fn an_application_that_is_removed_takes_its_standard_database_along() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("leave"));
    let place = format!("{namespace}/app");
    dev.apps().define(&place, &["stays", "goes"]);
    api.is_ready(&namespace, "stays").await;
    api.is_ready(&namespace, "goes").await;
    dev.apps().define(&place, &["stays"]);
    api.is_gone(&namespace, "goes").await;
    dev.apps().remove(&place);
    api.is_gone(&namespace, "stays").await;
}

#[tokio::test]
async fn a_broken_file_is_named_and_its_claims_stay_until_it_is_mended() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("broken"));
    let place = format!("{namespace}/app");
    let file = format!("{place}/values.yaml");
    dev.apps().define(&place, &["one", "two"]);
    api.is_ready(&namespace, "one").await;
    let before = api.is_ready(&namespace, "two").await;
    let broken = [
        // What is written, where the fault is, and a word of the message.
        ("postgresqlDatabases:\n  - name: one\n  - name: [\n", 4, "", ""),
        ("postgresqlDatabases:\n  - name: one\n  - nam: two\n", 3, "postgresqlDatabases[1].nam", "name"),
        ("postgresqlDatabases:\n  - name: one\n    colour: red\n", 3, "postgresqlDatabases[0].colour", "not known"),
        ("postgresqlDatabases:\n  - name: One_Bad\n", 2, "postgresqlDatabases[0].name", "One_Bad"),
        ("postgresqlDatabases:\n  - name: one\n  - name: one\n", 3, "postgresqlDatabases[1].name", "twice"),
        ("postgresqlDatabases:\n  - name: one\n    mode: precious\n", 3, "postgresqlDatabases[0].mode", "precious"),
        (
            "postgresqlDatabases:\n  - name: one\n    connectionLimit: 0\n",
            3,
            "postgresqlDatabases[0].connectionLimit",
            "0",
        ),
        ("postgresqlDatabase:\n  - name: one\n", 1, "postgresqlDatabase", "postgresqlDatabases"),
    ];
    for (text, line, key, word) in broken {
        dev.apps().overwrite(&place, text);
        // The YAML parser says where it noticed.
        if key.is_empty() {
            soon("a problem of the YAML", || async {
                let found = problems_in(&api, &file).await;
                found.iter().find(|p| p["line"].as_u64().unwrap() >= 3).map(|_| ()).ok_or_else(|| format!("{found:?}"))
            })
            .await;
        } else {
            let message = problem_at(&api, &file, line, key).await;
            assert!(message.contains(word), "{text}: {message}");
        }
    }
    let log = fs::read_to_string(dev.dir.join("pgtenant.log")).unwrap();
    assert!(log.contains(&file), "the log names the file");
    never("a broken file has dropped something", REMOVED, || async {
        let now = api.get(&format!("/v1/namespaces/{namespace}/databases/two")).await;
        let same = now.json["createdAt"] == before["createdAt"] && now.json["state"] == "Ready";
        if same { Ok(()) } else { Err(now.text) }
    })
    .await;
    dev.apps().define(&place, &["one", "two"]);
    no_problem_in(&api, &place).await;
    assert_eq!(api.is_ready(&namespace, "two").await["createdAt"], before["createdAt"]);
}

#[tokio::test]
async fn a_name_that_another_file_defines_is_a_problem_and_the_first_one_counts() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("twice"));
    dev.apps().define(&format!("{namespace}/a"), &["db"]);
    api.is_ready(&namespace, "db").await;
    dev.apps().define(&format!("{namespace}/b"), &["db"]);
    let message = problem_at(&api, &format!("{namespace}/b/values.yaml"), 2, "postgresqlDatabases[0].name").await;
    assert!(message.contains(&format!("{namespace}/a/values.yaml:2")), "{message}");
    // The first one is removed: the second takes over, and the database is the same.
    let before = api.is_ready(&namespace, "db").await;
    dev.apps().remove(&format!("{namespace}/a"));
    no_problem_in(&api, &namespace).await;
    assert_eq!(api.is_ready(&namespace, "db").await["createdAt"], before["createdAt"]);
}

#[tokio::test]
async fn a_name_of_56_bytes_and_a_bad_namespace_are_named() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("long"));
    let name = "x".repeat(55 - namespace.len());
    dev.apps().define(&format!("{namespace}/app"), &[&name]);
    let file = format!("{namespace}/app/values.yaml");
    let message = problem_at(&api, &file, 2, "postgresqlDatabases[0].name").await;
    assert!(message.contains("56 bytes") && message.contains("55"), "{message}");
    let bad = format!("Bad_{}", unique("ns"));
    dev.apps().define(&format!("{bad}/app"), &["db"]);
    let message = problem_at(&api, &bad, 0, "").await;
    assert!(message.contains("namespace"), "{message}");
}

#[tokio::test]
async fn a_file_that_is_being_written_drops_nothing() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("half"));
    let place = format!("{namespace}/app");
    let whole = "postgresqlDatabases:\n  - name: one\n  - name: two\n  - name: three\n";
    dev.apps().write(&place, whole);
    let mut made = Vec::new();
    for name in ["one", "two", "three"] {
        made.push(api.is_ready(&namespace, name).await["createdAt"].clone());
    }
    let upto = |text: &str| whole.find(text).unwrap();
    let halves = [0, upto("- name: two"), upto("  - name: three"), upto("- name: one") + 4, upto("three") + 2];
    for end in halves {
        dev.apps().overwrite(&place, &whole[..end]);
        // Not to wait for something: the pace at which this writer writes.
        tokio::time::sleep(Duration::from_millis(120)).await;
        dev.apps().overwrite(&place, whole);
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    dev.apps().overwrite(&place, "");
    never("a half-written file has dropped something", REMOVED, || async {
        for (name, made) in ["one", "two", "three"].into_iter().zip(&made) {
            let now = api.get(&format!("/v1/namespaces/{namespace}/databases/{name}")).await;
            if now.json["createdAt"] != *made || now.json["state"] != "Ready" {
                return Err(now.text);
            }
        }
        Ok(())
    })
    .await;
    dev.apps().overwrite(&place, whole);
    no_problem_in(&api, &place).await;
}

#[tokio::test]
async fn an_application_of_another_chart_is_none_of_its_business() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("chart"));
    let foreign = dev.apps().root().join(&namespace).join("web");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("application.yaml"), APPLICATION.replace("idp-postgresql", "web-server")).unwrap();
    fs::write(foreign.join("values.yaml"), "replicas: 3\npostgresqlDatabases:\n  - name: not-ours\n").unwrap();
    dev.apps().define(&format!("{namespace}/ours"), &["ours"]);
    api.is_ready(&namespace, "ours").await;
    assert_eq!(problems_in(&api, &namespace).await, Vec::<Value>::new());
    api.get(&format!("/v1/namespaces/{namespace}/databases/not-ours")).await.problem(404, "not-found");
}

#[tokio::test]
async fn what_the_folder_defines_is_changed_in_the_folder_only() {
    let dev = shared::dev().await;
    let (api, namespace) = (dev.api(), unique("door"));
    dev.apps().define(&format!("{namespace}/app"), &["db"]);
    api.is_ready(&namespace, "db").await;
    let path = format!("/v1/namespaces/{namespace}/databases/db");
    api.patch(&path, serde_json::json!({"connectionLimit": 3})).await.problem(409, "other-door");
    api.delete(&path).await.problem(409, "other-door");
    let body = serde_json::json!({"name": "db", "connectionLimit": 3});
    api.post(&format!("/v1/namespaces/{namespace}/databases"), body).await.problem(409, "other-door");
}
