//! Shared clusters that are described by a resource.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgtenant_tests::{
    Kube, Own, condition, database, databases, eventually, measured, soon, superuser_sql, try_sql, unique,
};
use serde_json::{Value, json};

use crate::shared;

fn path(name: &str) -> String {
    format!("/apis/pgtenant.io/v1/postgresqlclusters/{name}")
}

async fn comes_to(kube: &Kube, name: &str, what: &str, wish: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("cluster {name}: {what}"), Duration::from_secs(60), || async {
        match kube.find(&path(name)).await {
            Some(object) if wish(&object) => Ok(object),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

fn ready_is(object: &Value, reason: &str) -> bool {
    condition(object, "Ready")["reason"] == reason
}

async fn secret(kube: &Kube, namespace: &str, name: &str, data: &[(&str, &str)]) {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text)))).collect();
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data,
    });
    kube.apply(&[object]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_applied_serves_until_it_is_deleted() {
    let plane = shared::kubernetes().await;
    let (kube, api) = (plane.kube(), plane.plane.api());
    let own = Own::start(false, &[]).await;
    let (name, provisioner, password) = (unique("cluster"), unique("prov"), unique("secret"));
    let superuser = own.cluster.superuser();
    superuser_sql(
        &superuser,
        None,
        &format!("create role \"{provisioner}\" login createdb createrole password '{password}'"),
    )
    .await;
    let vault = kube.namespace("vault").await;
    let spec = json!({
        "environment": "test",
        "topology": {"streaming": {"hosts": own.cluster.hosts()}},
        "provisioner": {"secretRef": {"name": "provisioner", "namespace": vault}},
        "tls": {"sslmode": "verify-full", "caSecretRef": {"name": "ca", "namespace": vault}},
        "stores": [{"kubernetes": {}}],
        "allowedNamespaces": [format!("{name}-*")],
    });
    let object = json!({
        "apiVersion": "pgtenant.io/v1", "kind": "PostgresqlCluster", "metadata": {"name": name}, "spec": spec,
    });
    kube.apply(&[object]).await.expect(0);

    // What is missing is said, one after the other, and found when it is there.
    let missing = |what: &str| {
        let text = format!("{vault}/{what}");
        move |object: &Value| {
            let ready = condition(object, "Ready");
            ready["status"] == "False" && ready["message"].as_str().is_some_and(|message| message.contains(&text))
        }
    };
    comes_to(&kube, &name, "says that the CA is missing", missing("ca")).await;
    let ca = std::fs::read_to_string(own.cluster.ca_file()).unwrap();
    secret(&kube, &vault, "ca", &[("ca.crt", &ca)]).await;
    comes_to(&kube, &name, "says that the provisioner's Secret is missing", missing("provisioner")).await;
    let begun = Instant::now();
    secret(&kube, &vault, "provisioner", &[("username", &provisioner), ("password", &password)]).await;
    let object = comes_to(&kube, &name, "Ready", |object| ready_is(object, "PrimaryFound")).await;
    measured(&format!("cluster: Ready {:.1} s after its Secrets", begun.elapsed().as_secs_f64()));
    assert_eq!(object["status"]["primary"], own.cluster.hosts()[0]);
    assert_eq!(object["status"]["members"][0]["role"], "primary");
    assert!(object["status"]["version"].as_str().is_some_and(|version| version.contains('.')), "{object}");

    // It serves the namespaces that it allows, and nothing is written into others.
    let namespace = kube.namespace(&name).await;
    let begun = Instant::now();
    kube.ready(&namespace, "db", json!({"cluster": name})).await;
    measured(&format!("cluster: a claim of it is Ready after {:.1} s", begun.elapsed().as_secs_f64()));
    let admin = kube.credential(&namespace, "db", "admin").await;
    assert_eq!(try_sql(&admin, "select 1").await, Ok(()));
    let elsewhere = kube.namespace("elsewhere").await;
    let object = database(&elsewhere, "db", json!({"cluster": name}));
    // Let in, since a release may bring its cluster along.
    kube.api().post(&databases(&elsewhere), object).await.expect(201);
    kube.is_because(&elsewhere, "db", "Invalid").await;
    let secrets = kube.api().get(&format!("/api/v1/namespaces/{elsewhere}/secrets")).await.expect(200).json;
    assert_eq!(secrets["items"].as_array().unwrap().len(), 0, "{secrets}");

    // Another description takes effect.
    let change = json!({"spec": {"allowedExtensions": ["pgcrypto"], "endpoint": {"host": "localhost", "port": own.cluster.superuser().get_port()}}});
    kube.api().patch(&path(&name), change).await.expect(200);
    // Refused at admission until the description is taken in.
    soon("an extension that is allowed now is asked for", || async {
        let path = format!("{}/db", databases(&namespace));
        let answer = kube.api().patch(&path, json!({"spec": {"extensions": ["pgcrypto"]}})).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    kube.is_ready(&namespace, "db").await;

    // The provisioner gets another password: on the server first, then in the Secret.
    let fresh = unique("secret");
    superuser_sql(&superuser, None, &format!("alter role \"{provisioner}\" password '{fresh}'")).await;
    let sql = format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{provisioner}'");
    superuser_sql(&superuser, None, &sql).await;
    secret(&kube, &vault, "provisioner", &[("username", &provisioner), ("password", &fresh)]).await;
    let begun = Instant::now();
    kube.create(&namespace, "later", json!({"cluster": name})).await;
    eventually("a claim is made with the new password", Duration::from_secs(90), || async {
        let object = kube.find(&format!("{}/later", databases(&namespace))).await.unwrap();
        if condition(&object, "Ready")["status"] == "True" { Ok(()) } else { Err(object["status"].to_string()) }
    })
    .await;
    measured(&format!("cluster: works with another password after {:.1} s", begun.elapsed().as_secs_f64()));

    // It goes when its claims have gone.
    kube.api().delete(&path(&name)).await.expect(200);
    let object = comes_to(&kube, &name, "in use", |object| ready_is(object, "InUse")).await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("2 databases"), "{object}");
    kube.create(&namespace, "latest", json!({"cluster": name})).await;
    let object = kube.is_because(&namespace, "latest", "Invalid").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("is being removed"), "{object}");
    for claim in ["latest", "db", "later"] {
        kube.delete(&namespace, claim).await;
        kube.is_gone(&namespace, claim).await;
    }
    eventually("the cluster is gone", Duration::from_secs(60), || async {
        match kube.find(&path(&name)).await {
            None => Ok(()),
            Some(object) => Err(object.to_string()),
        }
    })
    .await;
    api.get(&format!("/v1/clusters/{name}")).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_the_settings_is_not_taken_from_a_resource() {
    let plane = shared::kubernetes().await;
    let (kube, api) = (plane.kube(), plane.plane.api());
    let before = api.get("/v1/clusters/default").await.expect(200).json;
    let object = json!({
        "apiVersion": "pgtenant.io/v1", "kind": "PostgresqlCluster", "metadata": {"name": "default"},
        "spec": {
            "environment": "production", "topology": {"streaming": {"hosts": ["elsewhere.example:5432"]}},
            "provisioner": {"secretRef": {"name": "x", "namespace": "default"}}, "stores": [{"kubernetes": {}}],
        },
    });
    kube.apply(&[object]).await.expect(0);
    comes_to(&kube, "default", "another source", |object| ready_is(object, "OtherSource")).await;
    assert_eq!(api.get("/v1/clusters/default").await.expect(200).json["topology"], before["topology"]);
    kube.api().delete(&path("default")).await.expect(200);
    eventually("it is gone", Duration::from_secs(60), || async {
        if kube.find(&path("default")).await.is_none() { Ok(()) } else { Err("it is there".to_owned()) }
    })
    .await;
    api.get("/v1/clusters/default").await.expect(200);
}

/// The schema can not say all that a cluster has to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_can_not_be_read_says_so_and_harms_no_other() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let (broken, whole) = (unique("broken"), unique("whole"));
    let spec = json!({
        "topology": {"streaming": {"hosts": ["db1:70000"]}}, "stores": [{"kubernetes": {}}],
        "provisioner": {"secretRef": {"name": "x", "namespace": "default"}},
    });
    let object = json!({
        "apiVersion": "pgtenant.io/v1", "kind": "PostgresqlCluster", "metadata": {"name": broken}, "spec": spec,
    });
    kube.apply(&[object]).await.expect(0);
    let object = comes_to(&kube, &broken, "Invalid", |object| ready_is(object, "Invalid")).await;
    let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("\"db1:70000\" is not HOST:PORT"), "{message}");
    plane.describe(&whole, json!({})).await;
    for name in [broken, whole] {
        kube.api().delete(&path(&name)).await.expect(200);
        soon("it is gone", || async { kube.find(&path(&name)).await.map_or(Ok(()), |object| Err(object.to_string())) })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_finalizer_is_taken_away_takes_no_new_databases_and_is_forgotten_without_any() {
    let plane = shared::kubernetes().await;
    let (kube, api) = (plane.kube(), plane.plane.api());
    let (namespace, name) = (kube.namespace("stripped").await, unique("stripped"));
    plane.describe(&name, json!({})).await;
    kube.ready(&namespace, "db", json!({"cluster": name})).await;
    // All at once: the control plane puts it back where it can.
    eventually("the object is gone", Duration::from_secs(30), || async {
        kube.api().delete(&path(&name)).await;
        kube.api().patch(&path(&name), json!({"metadata": {"finalizers": null}})).await;
        kube.find(&path(&name)).await.map_or(Ok(()), |object| Err(object.to_string()))
    })
    .await;
    eventually("it takes no new databases", Duration::from_secs(60), || async {
        let other = unique("other");
        kube.create(&namespace, &other, json!({"cluster": name})).await;
        let object = kube.comes_to(&namespace, &other, "decided", |object| !object["status"].is_null()).await;
        let refused = condition(&object, "Ready")["reason"] == "Invalid";
        kube.delete(&namespace, &other).await;
        if refused { Ok(()) } else { Err(object.to_string()) }
    })
    .await;
    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    eventually("the cluster is forgotten", Duration::from_secs(90), || async {
        let answer = api.get(&format!("/v1/clusters/{name}")).await;
        if answer.status == 404 { Ok(()) } else { Err(answer.text) }
    })
    .await;
}
