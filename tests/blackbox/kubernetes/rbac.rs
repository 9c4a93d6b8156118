//! Roles: the control plane's has all that it needs and no more, and tenants' end at their namespace.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use pgtenant_tests::{Kube, SiteOptions, database, databases, eventually, restore, restores, soon, unique};
use serde_json::{Value, json};

use crate::shared::{self, KubePlane};

const ACCOUNT: &str = "system:serviceaccount:pgtenant-system:pgtenant";
const CLUSTERS: &str = "/apis/pgtenant.io/v1/postgresqlclusters";

/// What one request needs: `verb group/resource`, and the object where the role names it.
type Needs = BTreeSet<String>;

/// Every verb on every resource that the chart's roles give to the control plane.
fn given(objects: &[Value]) -> Needs {
    let names = |value: &Value| {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut all = Needs::new();
    for role in objects.iter().filter(|one| one["metadata"]["name"] == "pgtenant") {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let named = rule.get("resourceNames").map(names).unwrap_or_else(|| vec![String::new()]);
            for group in names(&rule["apiGroups"]) {
                for resource in names(&rule["resources"]) {
                    for verb in names(&rule["verbs"]) {
                        all.extend(
                            named.iter().map(|name| format!("{verb} {group}/{resource} {name}").trim_end().to_owned()),
                        );
                    }
                }
            }
        }
    }
    all
}

/// What the control plane asked for, and which of it was forbidden.
fn asked(log: &str, named: &Needs) -> (Needs, Vec<String>) {
    let (mut all, mut forbidden) = (Needs::new(), Vec::new());
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let object = &event["objectRef"];
        if event["user"]["username"] != ACCOUNT || object.is_null() {
            continue;
        }
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        let resource = match text("subresource") {
            "" => text("resource").to_owned(),
            subresource => format!("{}/{subresource}", text("resource")),
        };
        let plain = format!("{} {}/{resource}", event["verb"].as_str().unwrap_or_default(), text("apiGroup"));
        let exact = format!("{plain} {}", text("name"));
        all.insert(if named.contains(&exact) { exact } else { plain.clone() });
        if event["responseStatus"]["code"] == 403 && !event["responseStatus"].to_string().contains("being terminated") {
            forbidden.push(format!("{plain} {}", event["responseStatus"]));
        }
    }
    (all, forbidden)
}

/// All that the control plane does in Kubernetes.
async fn everything(plane: &KubePlane) {
    let kube = plane.kube();
    let namespace = kube.namespace("all").await;
    plane.describe("second", json!({"stores": [{"kubernetes": {}}]})).await;
    kube.ready(&namespace, "db", json!({"cluster": "second"})).await;
    let api = plane.plane.api();
    let rotate = format!("/v1/namespaces/{namespace}/databases/db/credentials/rotate");
    let before = kube.credential(&namespace, "db", "write").await;
    api.post(&rotate, json!({"tiers": ["write"]})).await.expect(202);
    allowed(plane, "second", "store kubernetes").await;
    soon("the Secret has another password", || async {
        let now = kube.credential(&namespace, "db", "write").await;
        if now.password == before.password { Err(now.username) } else { Ok(()) }
    })
    .await;
    kube.change(&namespace, "db", json!({"schemas": ["reporting"]})).await;
    kube.is_ready(&namespace, "db").await;
    // One that somebody deletes is seen, and written again.
    let secret = format!("/api/v1/namespaces/{namespace}/secrets/{namespace}-db-read");
    kube.api().delete(&secret).await.expect(200);
    soon("the Secret is back", || async { kube.find(&secret).await.map(drop).ok_or_else(String::new) }).await;
    let events = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    asked_for_and_taken_back(&kube, &namespace).await;
    soon("an Event tells", || async {
        let found = kube.api().get(&events).await.expect(200);
        if found.text.contains("\"Ready\"") { Ok(()) } else { Err(found.text) }
    })
    .await;
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    kube.api().delete(&format!("{CLUSTERS}/second")).await.expect(200);
    eventually("the cluster is gone", Duration::from_secs(30), || async {
        let found = kube.find(&format!("{CLUSTERS}/second")).await;
        found.map_or(Ok(()), |found| Err(found.to_string()))
    })
    .await;
}

async fn asked_for_and_taken_back(kube: &Kube, namespace: &str) {
    kube.api().post(&restores(namespace), restore(namespace, "back", "db", json!({}))).await.expect(201);
    let path = format!("{}/back", restores(namespace));
    soon("it is asked for", || async {
        let found = kube.api().get(&path).await.expect(200);
        if found.json["status"]["phase"] == "Requested" { Ok(()) } else { Err(found.text) }
    })
    .await;
    kube.api().delete(&path).await.expect(200);
    soon("it is gone", || async { kube.find(&path).await.map_or(Ok(()), |found| Err(found.to_string())) }).await;
}

/// A preflight asks what the roles allow, and finds enough.
async fn allowed(plane: &KubePlane, cluster: &str, store: &str) {
    let tried = plane.plane.api().ask(&format!("/v1/clusters/{cluster}/preflight")).await.expect(200).json;
    let found = tried["checks"].as_array().unwrap().iter().find(|check| check["check"] == store).unwrap();
    assert_eq!(found["result"], "Passed", "{found}");
}

/// With External Secrets: manifests in place of Secrets, beside a store that holds the credentials.
async fn everything_external(plane: &KubePlane) {
    let kube = plane.kube();
    let namespace = kube.namespace("eso").await;
    kube.ready(&namespace, "db", json!({"cluster": "default"})).await;
    let manifest = format!("/apis/external-secrets.io/v1/namespaces/{namespace}/externalsecrets/{namespace}-db-write");
    let right = kube.api().get(&manifest).await.expect(200).json["spec"].clone();
    kube.api().patch(&manifest, json!({"spec": {"refreshInterval": "9h"}})).await.expect(200);
    allowed(plane, "default", "store externalSecret").await;
    soon("the manifest is put right", || async {
        let now = kube.api().get(&manifest).await.expect(200).json["spec"].clone();
        if now == right { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
}

#[tokio::test]
async fn the_charts_role_has_each_verb_that_is_used_and_no_other() {
    let lab = pgtenant_testkit::audited_kubernetes().await;
    let external = "[{ file = { directory = \"DIR\" } }, { externalSecret = {} }]".to_owned();
    let stores = vec![("default".to_owned(), external)];
    let plane =
        KubePlane::start(&lab, SiteOptions { look: "2s".to_owned(), stores, ..SiteOptions::shared().await }).await;
    let kube = plane.kube();
    kube.install_external_secrets().await;
    let roles = kube.rendered("pgtenant-system", &["--set", "externalSecrets.enabled=true"]).await;
    let roles: Vec<_> = roles.into_iter().filter(|one| one["kind"] == "ClusterRole" || one["kind"] == "Role").collect();
    kube.apply(&roles).await.expect(0);
    everything(&plane).await;
    everything_external(&plane).await;
    // The Lease is renewed by then.
    let given = given(&roles);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/pgtenant-system/leases/pgtenant";
    let first = kube.api().get(lease).await.expect(200).json["spec"]["renewTime"].clone();
    soon("the Lease is renewed", || async {
        let now = kube.api().get(lease).await.expect(200).json["spec"]["renewTime"].clone();
        if now == first { Err(now.to_string()) } else { Ok(()) }
    })
    .await;

    let (asked, forbidden) = asked(&fs::read_to_string(lab.audit_log()).unwrap(), &given);
    assert_eq!(forbidden, Vec::<String>::new(), "something is missing");
    let unused: Vec<_> = given.difference(&asked).collect();
    // Kubernetes itself gives this to every account, by its role system:basic-user.
    let basic = "create authorization.k8s.io/selfsubjectaccessreviews".to_owned();
    assert!(asked.contains(&basic));
    let beyond: Vec<_> = asked.difference(&given).filter(|one| **one != basic).collect();
    assert!(unused.is_empty() && beyond.is_empty(), "never used: {unused:#?}\nnot in the role: {beyond:#?}");
}

/// Somebody who has these ClusterRoles of the chart in one namespace.
async fn member(kube: &Kube, namespace: &str, roles: &[&str]) -> Kube {
    let name = unique("member");
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}});
    let mut objects = vec![account];
    objects.extend(roles.iter().map(|role| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("{name}-{role}"), "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        })
    }));
    kube.apply(&objects).await.expect(0);
    kube.account(namespace, &name).await
}

#[tokio::test]
async fn tenants_may_do_in_their_namespace_what_their_role_says_and_nothing_elsewhere() {
    let admin = shared::kubernetes().await.kube();
    let (own, other) = (admin.namespace("own").await, admin.namespace("other").await);
    admin.ready(&other, "db", json!({})).await;
    let viewer = member(&admin, &own, &["pgtenant-view"]).await;
    let editor = member(&admin, &own, &["pgtenant-view", "pgtenant-edit"]).await;
    soon("the bindings hold", || async {
        let (one, two) = (viewer.api().get(&databases(&own)).await, editor.api().get(&databases(&own)).await);
        if (one.status, two.status) == (200, 200) { Ok(()) } else { Err(one.text + &two.text) }
    })
    .await;

    editor.ready(&own, "db", json!({})).await;
    let in_own = format!("{}/db", databases(&own));
    viewer.api().get(&format!("{in_own}/status")).await.expect(200);
    viewer.api().patch(&in_own, json!({"spec": {"mode": "protected"}})).await.expect(403);
    viewer.api().delete(&in_own).await.expect(403);
    viewer.api().post(&databases(&own), database(&own, "more", json!({}))).await.expect(403);
    editor.change(&own, "db", json!({"connectionLimit": 3})).await;
    editor.is_ready(&own, "db").await;

    // Restores are asked for by those who may change databases, and nobody writes what became of them.
    let back = restore(&own, "back", "db", json!({}));
    viewer.api().post(&restores(&own), back.clone()).await.expect(403);
    editor.api().post(&restores(&own), back.clone()).await.expect(201);
    viewer.api().get(&format!("{}/back", restores(&own))).await.expect(200);
    for somebody in [&viewer, &editor] {
        let lie = json!({"status": {"phase": "Approved"}});
        somebody.api().patch(&format!("{}/back/status", restores(&own)), lie).await.expect(403);
        somebody.api().post(&restores(&other), restore(&other, "back", "db", json!({}))).await.expect(403);
        somebody.api().get(&restores(&other)).await.expect(403);
    }
    viewer.api().delete(&format!("{}/back", restores(&own))).await.expect(403);
    editor.api().delete(&format!("{}/back", restores(&own))).await.expect(200);

    for somebody in [&viewer, &editor] {
        let api = somebody.api();
        for version in ["v1", "v1beta1", "v1alpha1"] {
            api.get(&databases(&other).replace("/v1/", &format!("/{version}/"))).await.expect(403);
        }
        api.get(&format!("{}/db", databases(&other))).await.expect(403);
        api.delete(&format!("{}/db", databases(&other))).await.expect(403);
        api.post(&databases(&other), database(&other, "theirs", json!({}))).await.expect(403);
        api.get("/apis/pgtenant.io/v1/postgresqldatabases").await.expect(403);
        api.patch(&format!("{in_own}/status"), json!({"status": {"database": "theirs"}})).await.expect(403);
        api.get(CLUSTERS).await.expect(403);
        let cluster =
            json!({"apiVersion": "pgtenant.io/v1", "kind": "PostgresqlCluster", "metadata": {"name": "mine"}});
        api.post(CLUSTERS, cluster).await.expect(403);
        api.delete(&format!("{CLUSTERS}/default")).await.expect(403);
        api.get(&format!("/api/v1/namespaces/{other}/secrets/{other}-db-read")).await.expect(403);
    }

    // What is written into the status with the rest is not taken.
    let mut object = editor.api().get(&in_own).await.expect(200).json;
    object["status"]["database"] = json!("theirs");
    let written = editor.api().send("PUT", &in_own, &[], Some(&object)).await;
    if written.status != 409 {
        assert_eq!(written.expect(200).json["status"]["database"], format!("{own}-db"));
    }
    editor.delete(&own, "db").await;
    editor.is_gone(&own, "db").await;
}

#[tokio::test]
async fn kubernetes_own_roles_have_the_charts_by_their_labels() {
    let kube = shared::kubernetes().await.kube();
    // Here no controller adds them up; what it goes by is there.
    for (role, into) in [("pgtenant-view", &["view", "edit", "admin"][..]), ("pgtenant-edit", &["edit", "admin"])] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}");
        let labels = kube.api().get(&path).await.expect(200).json["metadata"]["labels"].clone();
        for one in ["view", "edit", "admin"] {
            let label = &labels[format!("rbac.authorization.k8s.io/aggregate-to-{one}")];
            assert_eq!(label == "true", into.contains(&one), "{role} in {one}");
        }
    }
}
