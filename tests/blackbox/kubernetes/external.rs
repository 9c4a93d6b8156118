//! Manifests for the External Secrets Operator, which is not here: what it would fill the Secrets from.

use pgtenant_tests::{Credential, Kube, SiteOptions, TIERS, condition, soon, try_sql};
use serde_json::{Value, json};

use crate::shared::KubePlane;

fn all(namespace: &str) -> String {
    format!("/apis/external-secrets.io/v1/namespaces/{namespace}/externalsecrets")
}

/// What the documents promise, beside the operator's defaults.
fn is_as_promised(manifest: &Value, namespace: &str, name: &str, tier: &str) -> bool {
    let (spec, labels) = (&manifest["spec"], &manifest["metadata"]["labels"]);
    let role = format!("{namespace}-{name}-{tier}");
    spec["secretStoreRef"] == json!({"kind": "ClusterSecretStore", "name": "aws-secrets"})
        && spec["dataFrom"][0]["extract"]["key"] == format!("customer/{namespace}/{role}")
        && spec["dataFrom"].as_array().is_some_and(|list| list.len() == 1)
        && spec["target"]["name"] == role
        && spec["target"]["template"]["metadata"]["annotations"]["reloader.stakater.com/match"] == "true"
        && spec["refreshInterval"] == "1h"
        && labels["app.kubernetes.io/managed-by"] == "pgtenant"
        && labels["pgtenant.io/claim"] == name
        && labels["pgtenant.io/tier"] == tier
}

async fn are_as_promised(kube: &Kube, namespace: &str, name: &str, what: &str) {
    soon(what, || async {
        for tier in TIERS {
            let manifest = kube.find(&format!("{}/{namespace}-{name}-{tier}", all(namespace))).await;
            let manifest = manifest.ok_or_else(|| format!("no manifest of {tier}"))?;
            if !is_as_promised(&manifest, namespace, name, tier) {
                return Err(manifest.to_string());
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_for_the_external_secrets_operator_are_kept_as_documented() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let stores = "[{ file = { directory = \"DIR\" } }, { externalSecret = {} }]".to_owned();
    let options = SiteOptions { stores: vec![("default".to_owned(), stores)], ..SiteOptions::shared().await };
    let plane = KubePlane::start(&lab, options).await;
    let (kube, secrets) = (plane.kube(), plane.plane.site.secrets.clone());
    let roles = kube.rendered("pgtenant-system", &["--set", "externalSecrets.enabled=true"]).await;
    let roles: Vec<Value> = roles.into_iter().filter(|object| object["kind"] == "ClusterRole").collect();
    kube.apply(&roles).await.expect(0);
    let namespace = kube.namespace("external").await;

    // Without the operator it is said what is missing.
    kube.create(&namespace, "db", json!({})).await;
    let object = kube.is_because(&namespace, "db", "StoreFailed").await;
    let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("install the External Secrets Operator"), "{message}");
    kube.install_external_secrets().await;
    let object = kube.is_ready(&namespace, "db").await;
    assert_eq!(object["status"]["roles"]["read"]["secret"], format!("{namespace}-db-read"));
    are_as_promised(&kube, &namespace, "db", "as documented").await;
    let before = Credential::of(&secrets, &namespace, "db");
    assert_eq!(try_sql(&before[1], "select 1").await, Ok(()));

    // What somebody does to them is put right, and no password is another for it.
    let path = format!("{}/{namespace}-db-write", all(&namespace));
    let labels = json!({"app.kubernetes.io/managed-by": null, "pgtenant.io/claim": null});
    for patch in [
        json!({"spec": {"dataFrom": [{"extract": {"key": "elsewhere"}}]}}),
        json!({"spec": {"refreshInterval": "5m"}}),
        json!({"metadata": {"labels": labels}}),
    ] {
        kube.api().patch(&path, patch.clone()).await.expect(200);
        are_as_promised(&kube, &namespace, "db", &patch.to_string()).await;
    }
    kube.api().delete(&path).await.expect(200);
    are_as_promised(&kube, &namespace, "db", "one that was deleted").await;
    kube.api().patch(&path, json!({"spec": {"target": {"template": {"engineVersion": "v2"}}}})).await.expect(200);
    assert_eq!(Credential::of(&secrets, &namespace, "db"), before);

    // One that is somebody else's is left as it is.
    let foreign = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"name": format!("{namespace}-other-read")}, "spec": {"refreshInterval": "7m"},
    });
    let made = kube.api().post(&all(&namespace), foreign).await.expect(201).json;
    kube.create(&namespace, "other", json!({})).await;
    kube.is_because(&namespace, "other", "StoreConflict").await;
    // So is a Secret, which the operator would take over.
    let foreign = json!({"metadata": {"name": format!("{namespace}-third-read")}, "stringData": {"theirs": "x"}});
    let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
    let secret = kube.api().post(&secrets, foreign).await.expect(201).json;
    kube.create(&namespace, "third", json!({})).await;
    kube.is_because(&namespace, "third", "StoreConflict").await;
    for name in ["db", "other", "third"] {
        kube.delete(&namespace, name).await;
        kube.is_gone(&namespace, name).await;
    }
    let left = kube.api().get(&all(&namespace)).await.expect(200).json;
    let left = left["items"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let now = kube.secret(&namespace, &format!("{namespace}-third-read")).await.unwrap();
    assert_eq!(now["metadata"]["resourceVersion"], secret["metadata"]["resourceVersion"]);
}
