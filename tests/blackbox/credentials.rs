//! Stored credentials: what is in them, and what happens when they are lost, changed or asked for anew.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use pgtenant_tests::{
    Credential, TIERS, can, connect, eventually, files_below, run, try_sql, unique, works_for_an_application,
};
use serde_json::{Value, json};
use sqlx::Executor as _;

use crate::shared;

#[tokio::test]
async fn a_credential_is_a_private_file_with_the_keys_of_the_contract() {
    let plane = shared::calm().await;
    let namespace = unique("keys");
    plane.api().ready(&namespace, "db").await;
    let folder = plane.site.secrets.join("customer").join(&namespace);
    let names: Vec<String> = ["admin", "read", "write"].map(|tier| format!("{namespace}-db-{tier}.json")).into();
    assert_eq!(files_below(&folder), names, "three files, and nothing half-written");
    for tier in TIERS {
        let path = Credential::file(&plane.site.secrets, &namespace, "db", tier);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let document: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["ca.crt", "database", "endpoint", "password", "port", "sslmode", "uri", "username"]);
        let credential = Credential::read(&plane.site.secrets, &namespace, "db", tier);
        assert_eq!(credential.username, format!("{namespace}-db-{tier}"));
        assert_eq!(credential.database, format!("{namespace}-db"));
        assert_eq!(credential.sslmode, "verify-full");
        assert!(credential.password.len() >= 24, "{}", credential.password.len());

        // libpq understands the URI, with the CA of the document.
        let ca = plane.site.path().join(format!("{namespace}-{tier}.crt"));
        fs::write(&ca, &credential.ca).unwrap();
        let mut psql = Command::new("psql");
        psql.env("PGSSLROOTCERT", &ca).args(["-Atc", "select current_user"]).arg(&credential.uri);
        assert_eq!(run(psql).await.expect(0).stdout.trim(), credential.username);
    }
    for folder in [plane.site.secrets.clone(), folder] {
        let mode = fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} is open to others: {mode:o}", folder.display());
    }
    let passwords = Credential::of(&plane.site.secrets, &namespace, "db").map(|credential| credential.password);
    assert!(passwords[0] != passwords[1] && passwords[1] != passwords[2], "each role has a password of its own");

    let path = format!("/v1/namespaces/{namespace}/databases/db/credentials");
    let answer = plane.api().get(&path).await.expect(200);
    assert_eq!(answer.json["database"], format!("{namespace}-db"));
    let location = format!("customer/{namespace}/{namespace}-db-read.json");
    assert_eq!(answer.json["roles"]["read"]["stores"], json!([{"store": "file", "location": location}]));
    assert!(passwords.iter().all(|password| !answer.text.contains(password)), "where they are, never what they are");
}

#[tokio::test]
async fn a_rotation_gives_the_tiers_that_were_asked_for_new_passwords_and_open_sessions_go_on() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("rotate"));
    api.ready(&namespace, "db").await;
    let before = Credential::of(&plane.site.secrets, &namespace, "db");
    let mut session = connect(&before[0]).await.unwrap();
    let path = format!("/v1/namespaces/{namespace}/databases/db/credentials/rotate");
    api.post(&path, json!({"tiers": []})).await.problem(422, "invalid-fields");
    api.post(&path, json!({"tiers": ["owner"]})).await.problem(422, "invalid-fields");
    let asked = api.post(&path, json!({"tiers": ["read"]})).await.expect(202).json;
    assert_eq!(api.finished(asked["id"].as_str().unwrap()).await["state"], "Succeeded");
    let after = Credential::of(&plane.site.secrets, &namespace, "db");
    assert_ne!(after[0].password, before[0].password);
    assert_eq!(after[1..], before[1..], "the others keep theirs");
    assert_eq!(after[0].username, format!("{namespace}-db-read-b"), "the other login");
    for credential in [&after[0], &before[0]] {
        assert_eq!(try_sql(credential, "select 1").await, Ok(()), "both work for a while");
    }
    session.execute("select 1").await.expect("an open session goes on");
    let db = api.get(&format!("/v1/namespaces/{namespace}/databases/db")).await.json;
    assert!(db["roles"]["read"]["setAt"].as_str() > db["roles"]["write"]["setAt"].as_str(), "{db}");
    assert_eq!(db["roles"]["read"]["login"], after[0].username, "{db}");
    works_for_an_application(&plane.site.secrets, &namespace, "db").await;
}

#[tokio::test]
async fn a_credential_that_is_lost_or_changed_is_replaced_by_a_new_password() {
    let plane = shared::watchful().await;
    let (api, namespace) = (plane.api(), unique("lost"));
    api.ready(&namespace, "db").await;
    let secrets = &plane.site.secrets;
    let file = |tier: &str| Credential::file(secrets, &namespace, "db", tier);
    let replaced = async |tier: &str, old: &Credential| {
        let new = eventually(&format!("a new password of {tier}"), Duration::from_secs(20), || async {
            let new = Credential::try_read(secrets, &namespace, "db", tier)?;
            if new.password == old.password || new.password == "mine" {
                return Err("the old password".to_owned());
            }
            try_sql(&new, "select 1").await.map(|()| new)
        })
        .await;
        assert_eq!(try_sql(old, "select 1").await, Ok(()), "the former login works until everybody has the new one");
        assert_eq!(fs::metadata(file(tier)).unwrap().permissions().mode() & 0o777, 0o600);
        new
    };
    let before = Credential::of(secrets, &namespace, "db");
    fs::remove_file(file("read")).unwrap();
    replaced("read", &before[0]).await;
    let changed = fs::read_to_string(file("write")).unwrap().replace(&before[1].password, "mine");
    fs::write(file("write"), changed).unwrap();
    replaced("write", &before[1]).await;
    fs::write(file("admin"), "{ not JSON").unwrap();
    replaced("admin", &before[2]).await;
    api.is_ready(&namespace, "db").await;
    let events = plane.site.events(&namespace, "db").await;
    let rotated: Vec<_> = events.iter().filter(|event| event["type"] == "CredentialRotated").collect();
    assert_eq!(rotated.len(), 3, "{events:#?}");
    assert!(
        !events.iter().any(|event| event["type"] == "DriftRepaired"),
        "what a rotation takes is no drift: {events:#?}"
    );
    assert!(rotated.iter().all(|event| !event["detail"]["reason"].as_str().unwrap().is_empty()), "{rotated:#?}");

    // A changed mode or another endpoint is put right under the same password.
    let before = Credential::read(secrets, &namespace, "db", "read");
    let text = fs::read_to_string(file("read")).unwrap();
    fs::write(file("read"), text.replace(&format!("\"{}\"", before.port), "\"1\"")).unwrap();
    eventually("the right port is back", Duration::from_secs(20), || async {
        let now = Credential::try_read(secrets, &namespace, "db", "read")?;
        if now == before {
            Ok(())
        } else {
            Err(format!("port {}, same password: {}", now.port, now.password == before.password))
        }
    })
    .await;
    works_for_an_application(secrets, &namespace, "db").await;
    api.delete(&format!("/v1/namespaces/{namespace}/databases/db")).await.expect(202);
    api.is_gone(&namespace, "db").await;
}

#[tokio::test]
async fn a_rotation_whose_tries_fail_is_one_rotation() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("fails"));
    api.ready(&namespace, "db").await;
    let before = Credential::of(&plane.site.secrets, &namespace, "db");
    let [read, write] = ["read", "write"].map(|tier| format!("{namespace}-db-{tier}"));
    // What the control plane has to put right waits for a transaction that the tenant leaves open.
    can(&before[2], &format!("revoke usage on schema public from \"{read}\"")).await;
    let mut held = connect(&before[2]).await.unwrap();
    let lock = format!("begin; grant usage on schema public to \"{write}\"");
    held.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.unwrap();
    let path = format!("/v1/namespaces/{namespace}/databases/db");
    api.ask(&format!("{path}/credentials/rotate")).await.expect(202);
    let tries = |db: &Value| db["conditions"].to_string().contains("Try 2 failed");
    api.comes_to(&namespace, "db", "two tries have failed", tries).await;
    let stored = Credential::of(&plane.site.secrets, &namespace, "db");
    assert!(stored.iter().zip(&before).all(|(new, old)| new.password != old.password));
    api.comes_to(&namespace, "db", "another has failed", |db| db["conditions"].to_string().contains("Try 4 failed"))
        .await;
    assert_eq!(Credential::of(&plane.site.secrets, &namespace, "db"), stored, "each try has made another password");
    for credential in &stored {
        connect(credential).await.unwrap();
    }
    held.execute("rollback").await.unwrap();
    api.is_ready(&namespace, "db").await;
    assert_eq!(Credential::of(&plane.site.secrets, &namespace, "db"), stored);
    let events = plane.site.events(&namespace, "db").await;
    let rotated = events.iter().filter(|event| event["type"] == "CredentialRotated").count();
    assert_eq!(rotated, 3, "one for each tier: {events:#?}");
    works_for_an_application(&plane.site.secrets, &namespace, "db").await;
}
