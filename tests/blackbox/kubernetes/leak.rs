//! With Kubernetes, too, no password is anywhere but in its Secret.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgtenant_tests::{Dev, Folder, Kube, Running, TIERS, files_below};
use serde_json::json;

/// Every value of every Secret that nobody but its readers may know, as it is and as Kubernetes writes it.
async fn secrets(kube: &Kube, found: &mut BTreeSet<String>) {
    let all = kube.api().get("/api/v1/secrets").await.expect(200).json;
    for secret in all["items"].as_array().unwrap() {
        for key in ["password", "uri", "tls.key"] {
            let Some(encoded) = secret["data"][key].as_str() else { continue };
            let text = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
            found.insert(encoded.to_owned());
            // A key has lines, and any of them tells it.
            found.extend(text.lines().filter(|line| line.len() > 20 && !line.starts_with("---")).map(str::to_owned));
        }
    }
}

#[tokio::test]
async fn no_password_is_in_an_object_an_event_or_a_log_however_much_is_logged() {
    let folder = Folder::new("kube-trace");
    let dir = folder.join("data");
    let mut command = Dev::command(&dir, 0);
    command.arg("--kubernetes").env("RUST_LOG", "trace");
    let mut dev = Dev::up(Running::spawn(&command, folder.path(), "dev"), &dir).await;
    let kube = Kube::new(&dir.join("kubernetes/kubeconfig"));
    let namespace = kube.namespace("leak").await;
    let mut known = BTreeSet::from([dev.token.clone()]);

    // Everything that handles a password: made, rotated, lost, changed by hand, removed; and a Secret that is somebody else's.
    kube.ready(&namespace, "one", json!({})).await;
    kube.ready(&namespace, "gone", json!({})).await;
    secrets(&kube, &mut known).await;
    let rotate = format!("/v1/namespaces/{namespace}/databases/one/credentials/rotate");
    let before = kube.credential(&namespace, "one", "read").await;
    let asked = dev.api().ask(&rotate).await.expect(202).json;
    dev.api().finished(asked["id"].as_str().unwrap()).await;
    assert_ne!(kube.credential(&namespace, "one", "read").await.password, before.password);
    secrets(&kube, &mut known).await;
    for tier in TIERS {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{namespace}-one-{tier}");
        kube.api().send("DELETE", &path, &[], None).await.expect(200);
    }
    kube.delete(&namespace, "gone").await;
    kube.is_gone(&namespace, "gone").await;
    let foreign =
        json!({"metadata": {"name": format!("{namespace}-taken-read")}, "stringData": {"password": "x".repeat(40)}});
    kube.api().post(&format!("/api/v1/namespaces/{namespace}/secrets"), foreign).await.expect(201);
    kube.create(&namespace, "taken", json!({})).await;
    kube.is_because(&namespace, "taken", "StoreConflict").await;
    kube.is_ready(&namespace, "one").await;
    secrets(&kube, &mut known).await;

    let mut written = Vec::new();
    for kind in
        ["pgdb", "pgcluster", "events", "events.v1.events.k8s.io", "leases", "crd", "validatingwebhookconfigurations"]
    {
        let list = kube.kubectl(&["get", kind, "--all-namespaces", "--output", "yaml", "--show-managed-fields"]).await;
        written.push((format!("kubectl get {kind}"), list.expect(0).stdout));
    }
    for path in ["/v1/databases", "/v1/audit", "/v1/clusters/default", "/metrics"] {
        written.push((format!("GET {path}"), dev.api().get(path).await.expect(200).text));
    }
    dev.interrupt().await;
    let log = std::fs::read_to_string(dir.join("pgtenant.log")).unwrap();
    assert!(log.contains(" TRACE ") && log.contains("kube_client"), "the log tells all");
    written.push(("pgtenant.log".to_owned(), log));
    for file in files_below(&dir).into_iter().filter(|file| file.ends_with(".log") || file.contains("/log/")) {
        written.push((file.clone(), String::from_utf8_lossy(&std::fs::read(dir.join(file)).unwrap()).into_owned()));
    }
    // Two databases of three tiers, one of them twice or thrice, each as text and encoded; the webhooks' key.
    assert!(known.len() > 2 * (6 + 3), "{} secrets were seen", known.len());
    assert!(written.len() > 12 + 3, "{} places", written.len());
    for (place, text) in &written {
        for secret in &known {
            assert!(!text.contains(secret.as_str()), "a secret ({}…) is in {place}", &secret[..4]);
        }
    }
    pgtenant_tests::measured(&format!("leaks, Kubernetes: {} secrets in {} places", known.len(), written.len()));
}
