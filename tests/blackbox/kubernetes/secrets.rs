//! The Secrets: what is in them, and who else may touch them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgtenant_tests::{Cli, Credential, Kube, TIERS, condition, databases, eventually, measured, rows, soon, try_sql};
use serde_json::{Value, json};

use crate::shared;

fn path(namespace: &str, secret: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{secret}")
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// Waits until all three Secrets are whole and log in.
async fn are_whole(kube: &Kube, namespace: &str, name: &str, what: &str) -> Vec<Credential> {
    let begun = Instant::now();
    let whole = eventually(what, Duration::from_secs(30), || async {
        let mut whole = Vec::new();
        for tier in TIERS {
            let role = format!("{namespace}-{name}-{tier}");
            let Some(secret) = kube.secret(namespace, &role).await else { return Err(format!("no {role}")) };
            is_as_promised(&secret, name, tier)?;
            let credential = kube.credential(namespace, name, tier).await;
            try_sql(&credential, "select 1").await.map_err(|error| format!("{role}: {error}"))?;
            whole.push(credential);
        }
        Ok(whole)
    })
    .await;
    measured(&format!("Secrets: {what} after {:.1} s", begun.elapsed().as_secs_f64()));
    whole
}

fn is_as_promised(secret: &Value, name: &str, tier: &str) -> Result<(), String> {
    let keys: BTreeSet<&str> = secret["data"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let all = ["username", "password", "endpoint", "port", "database", "sslmode", "uri", "ca.crt"];
    let labels = &secret["metadata"]["labels"];
    let right = all.iter().all(|key| keys.contains(key))
        && labels["app.kubernetes.io/managed-by"] == "pgtenant"
        && labels["pgtenant.io/claim"] == name
        && labels["pgtenant.io/tier"] == tier
        && secret["metadata"]["annotations"]["reloader.stakater.com/match"] == "true"
        && secret["type"] == "Opaque";
    if right { Ok(()) } else { Err(secret.to_string()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_first_moment_of_ready_every_secret_is_there_and_logs_in() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let namespace = kube.namespace("first").await;
    for number in 0..3 {
        let name = format!("db-{number}");
        kube.create(&namespace, &name, json!({})).await;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let object = kube.find(&format!("{}/{name}", databases(&namespace))).await.unwrap();
            if condition(&object, "Ready")["status"] == "True" {
                break;
            }
            assert!(Instant::now() < deadline, "{object}");
        }
        for tier in TIERS {
            let role = format!("{namespace}-{name}-{tier}");
            let secret = kube.secret(&namespace, &role).await.expect("a Secret");
            assert_eq!(is_as_promised(&secret, &name, tier), Ok(()));
            assert_eq!(secret["data"].as_object().unwrap().len(), 8, "{:?}", secret["data"]);
            let credential = kube.credential(&namespace, &name, tier).await;
            assert_eq!(credential.username, role);
            assert_eq!(try_sql(&credential, "select 1").await, Ok(()), "{role}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_does_to_a_secret_is_put_right_within_seconds() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let namespace = kube.namespace("repair").await;
    kube.ready(&namespace, "db", json!({})).await;
    let role = |tier: &str| format!("{namespace}-db-{tier}");
    let at = |tier: &str| path(&namespace, &role(tier));
    let before = are_whole(&kube, &namespace, "db", "as they were made").await;

    // Keys of others are theirs.
    let extra = json!({"data": {"note": base64("mine")}, "metadata": {"labels": {"team": "shop"}}});
    kube.api().patch(&at("read"), extra).await.expect(200);

    kube.api().patch(&at("write"), json!({"data": {"endpoint": base64("elsewhere")}})).await.expect(200);
    let after = are_whole_again(&kube, &namespace, &before, "an endpoint that was edited").await;
    assert_eq!(after, before, "the password stays");
    kube.api().patch(&at("read"), json!({"data": {"uri": null}})).await.expect(200);
    are_whole_again(&kube, &namespace, &before, "a key that was removed").await;
    kube.api().patch(&at("admin"), json!({"data": {"password": base64("guessed")}})).await.expect(200);
    let after = soon("a password that was edited is another", || async {
        let found = kube.credential(&namespace, "db", "admin").await;
        let works = found.password != "guessed" && try_sql(&found, "select 1").await.is_ok();
        if works { Ok(found) } else { Err("it is not".to_owned()) }
    })
    .await;
    assert_ne!(after.password, before[2].password, "whoever edits a Secret may have read it");
    kube.api().delete(&at("write")).await.expect(200);
    are_whole(&kube, &namespace, "db", "one that was deleted").await;
    let labels = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null, "pgtenant.io/claim": null}}});
    let before = are_whole(&kube, &namespace, "db", "all").await;
    kube.api().patch(&at("write"), labels).await.expect(200);
    let after = are_whole(&kube, &namespace, "db", "one without labels").await;
    assert_eq!(after, before, "the password stays");
    let annotation = json!({"metadata": {"annotations": {"reloader.stakater.com/match": null}}});
    kube.api().patch(&at("write"), annotation).await.expect(200);
    are_whole(&kube, &namespace, "db", "one without its annotation").await;

    // Another type takes another Secret.
    let mut other = kube.secret(&namespace, &role("write")).await.unwrap();
    other["type"] = json!("example.com/other");
    for key in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        other["metadata"].as_object_mut().unwrap().remove(key);
    }
    kube.api().delete(&at("write")).await.expect(200);
    kube.api().post(path(&namespace, "").trim_end_matches('/'), other).await;
    are_whole(&kube, &namespace, "db", "one of another type").await;

    let read = kube.secret(&namespace, &role("read")).await.unwrap();
    assert_eq!((&read["data"]["note"], &read["metadata"]["labels"]["team"]), (&json!(base64("mine")), &json!("shop")));
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    for tier in TIERS {
        assert!(kube.secret(&namespace, &role(tier)).await.is_none(), "{tier}");
    }
}

async fn are_whole_again(kube: &Kube, namespace: &str, before: &[Credential], what: &str) -> Vec<Credential> {
    soon(what, || async {
        let mut found = Vec::new();
        for (tier, known) in TIERS.iter().zip(before) {
            let secret = kube.secret(namespace, &format!("{namespace}-db-{tier}")).await.ok_or("no Secret")?;
            is_as_promised(&secret, "db", tier)?;
            let credential = kube.credential(namespace, "db", tier).await;
            if (&credential.endpoint, &credential.username) != (&known.endpoint, &known.username) {
                return Err(format!("{} at {}", credential.username, credential.endpoint));
            }
            try_sql(&credential, "select 1").await?;
            found.push(credential);
        }
        Ok(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_somebody_elses_is_never_touched() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let namespace = kube.namespace("foreign").await;
    let name = format!("{namespace}-db-write");
    let foreign = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
        "stringData": {"password": "theirs"},
    });
    let all = path(&namespace, "").trim_end_matches('/').to_owned();
    let made = kube.api().post(&all, foreign).await.expect(201).json;
    kube.create(&namespace, "db", json!({})).await;
    let object = kube.is_because(&namespace, "db", "StoreConflict").await;
    let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&name) && message.contains("What to do"), "{message}");
    let version = |secret: Option<Value>| secret.map(|one| one["metadata"]["resourceVersion"].clone());
    assert_eq!(version(kube.secret(&namespace, &name).await), version(Some(made.clone())));

    // Deleting the claim leaves it, and making room for ours makes it Ready.
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    assert_eq!(version(kube.secret(&namespace, &name).await), version(Some(made)));
    kube.create(&namespace, "db", json!({})).await;
    kube.is_because(&namespace, "db", "StoreConflict").await;
    kube.api().delete(&path(&namespace, &name)).await.expect(200);
    kube.is_ready(&namespace, "db").await;
    are_whole(&kube, &namespace, "db", "where another one was").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_may_not_be_written_is_said_and_passes() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let namespace = kube.namespace("quota").await;
    let quotas = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"secrets": "1"}}});
    kube.api().post(&quotas, quota).await.expect(201);
    // As the controller of quotas would count, which does not run here.
    let counted = json!({"status": {"hard": {"secrets": "1"}, "used": {"secrets": "1"}}});
    kube.api().patch(&format!("{quotas}/few/status"), counted).await.expect(200);
    kube.create(&namespace, "db", json!({})).await;
    let object = kube.is_because(&namespace, "db", "StoreFailed").await;
    let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("quota") && message.contains("ResourceQuota for secrets"), "{message}");
    kube.api().delete(&format!("{quotas}/few")).await.expect(200);
    kube.is_ready(&namespace, "db").await;

    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let policy = json!({
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                                   "resources": ["secrets"]}],
            },
            "validations": [{"expression": "object.metadata.name.endsWith('-allowed')", "message": "ask the platform team"}],
        },
    });
    kube.api().post(policies, policy).await.expect(201);
    let binding = json!({
        "metadata": {"name": namespace}, "spec": {"policyName": namespace, "validationActions": ["Deny"]},
    });
    kube.api().post(bindings(), binding).await.expect(201);
    soon("the policy holds", || async {
        let probe = json!({"metadata": {"name": format!("probe-{:08x}", rand::random::<u32>())}});
        let answer = kube.api().post(path(&namespace, "").trim_end_matches('/'), probe).await;
        if answer.status == 422 || answer.status == 403 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    kube.create(&namespace, "ruled", json!({})).await;
    let object = kube.is_because(&namespace, "ruled", "StoreFailed").await;
    let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("ask the platform team") && message.contains("do not allow"), "{message}");
    kube.api().delete(&format!("{}/{namespace}", bindings())).await.expect(200);
    kube.api().delete(&format!("{policies}/{namespace}")).await.expect(200);
    kube.is_ready(&namespace, "ruled").await;
    for name in ["db", "ruled"] {
        are_whole(&kube, &namespace, name, "after a refusal").await;
    }
}

fn bindings() -> &'static str {
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_claim_keeps_its_secrets() {
    let plane = shared::kubernetes().await;
    let (kube, rest) = (plane.kube(), plane.plane.api());
    let namespace = kube.namespace("released").await;
    kube.ready(&namespace, "db", json!({})).await;
    let before = kube.credential(&namespace, "db", "admin").await;
    rest.ask(&format!("/v1/namespaces/{namespace}/databases/db/release")).await.expect(202);
    let object = kube.is_because(&namespace, "db", "Released").await;
    assert_eq!(object["status"]["state"], "Retained");
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    for tier in TIERS {
        let kept = kube.credential(&namespace, "db", tier).await;
        assert_eq!(try_sql(&kept, "select 1").await, Ok(()), "{tier}");
    }
    let sql = format!("select datname::text from pg_database where datname = '{namespace}-db'");
    assert_eq!(rows(&plane.plane.site.superuser, None, &sql).await.len(), 1, "the database stays");
    kube.ready(&namespace, "db", json!({})).await;
    assert_eq!(kube.credential(&namespace, "db", "admin").await, before, "and is taken back by another object");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_read_a_secret_connects_and_drills_with_it() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let namespace = kube.namespace("reader").await;
    kube.ready(&namespace, "db", json!({})).await;
    let cli = Cli::of(&plane.plane.serve.url, &plane.plane.site.token).env("KUBECONFIG", kube.kubeconfig());
    let target = format!("{namespace}/db");
    let connect = ["db", "connect", &target, "--tier", "write", "--", "-Atc", "select current_user"];
    assert_eq!(cli.run(&connect).await.expect(0).stdout.trim(), format!("{namespace}-db-write"));

    // With the rights of whoever runs it, and of nobody else.
    let stranger = kube.with_token("nobodys");
    let refused = cli.clone().env("KUBECONFIG", stranger.kubeconfig()).run(&connect).await.expect(1).stderr;
    assert!(
        refused.contains(&format!("Secret {namespace}/{namespace}-db-write")) && refused.contains("Unauthorized"),
        "{refused}"
    );
    let nowhere = cli.clone().env("KUBECONFIG", "/nowhere").run(&connect).await.expect(1).stderr;
    assert!(nowhere.contains("set KUBECONFIG"), "{nowhere}");

    // A drill has its clients log in with them; nothing is stopped here.
    let stop =
        ["cluster", "drill", "default", "--namespace", &namespace, "--yes", "--i-mean-it", "--stop-with", "exit 7"];
    let drilled = cli.run(&stop).await.expect(2).stdout;
    assert!(drilled.contains("`exit 7` failed") && drilled.contains("0 acknowledged writes"), "{drilled}");
}
