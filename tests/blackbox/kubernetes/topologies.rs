//! Clusters whose tool wants a login, described by a resource: it is in a Secret.

use pgtenant_lab::LabKind;
use pgtenant_tests::{Cli, eventually, superuser_sql, unique};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::shared;
use crate::topologies::{Cluster, PATIENCE};

const VAULT: &str = "pgtenant-system";

fn secret(name: &str, data: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": VAULT});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
}

fn reference(name: &str) -> Value {
    json!({"name": name, "namespace": VAULT})
}

/// Its members as the tool calls them, and a switchover, which takes the tool's login.
async fn is_attached(kind: LabKind, topology: impl Fn(&Cluster, Value) -> Value, login: impl Fn(&Cluster) -> Value) {
    let cluster = Cluster::up(kind).await;
    let plane = shared::kubernetes().await;
    let (kube, name, site) = (plane.kube(), unique("tool"), &plane.plane.site);
    let (tool, ca) = (format!("{name}-tool"), format!("{name}-lab"));
    let role = format!(
        "create role \"{}\" login createdb createrole password '{}'",
        site.provisioner, site.provisioner_password
    );
    superuser_sql(&cluster.superuser().await, None, &role).await;
    let authority = std::fs::read_to_string(cluster.lab.ca_file()).unwrap();
    let objects = [secret(&tool, &login(&cluster)), secret(&ca, &json!({"ca.crt": authority}))];
    kube.apply(&objects).await.expect(0);
    let topology = topology(&cluster, reference(&tool));
    plane.describe(&name, json!({"topology": topology, "tls": {"caSecretRef": reference(&ca)}})).await;

    let api = plane.plane.api();
    let told = api.get(&format!("/v1/clusters/{name}/topology")).await.expect(200).json;
    let members = told["members"].as_array().unwrap();
    assert!(members.len() > 1 && members.iter().all(|member| member["tool"].is_string()), "{told}");
    let cli = Cli::of(&plane.plane.serve.url, &site.token);
    // Patroni names who may take its place some seconds after it is up.
    eventually("a switchover", PATIENCE, || async {
        let done = cli.run(&["cluster", "switchover", &name, "--yes"]).await;
        if done.status == 0 { Ok(()) } else { Err(done.stderr) }
    })
    .await;
    kube.api().delete(&format!("/apis/pgtenant.io/v1/postgresqlclusters/{name}")).await.expect(200);
}

fn text(secret: &SecretString) -> &str {
    secret.expose_secret()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_monitors_password_is_in_a_secret() {
    let topology = |cluster: &Cluster, secret| json!({"pgAutoFailover": {"monitor": cluster.lab.monitor_uri().unwrap(), "secretRef": secret}});
    is_attached(LabKind::PgAutoFailover, topology, |cluster| json!({"password": text(cluster.lab.service_password())}))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patronis_login_is_in_a_secret() {
    let topology =
        |cluster: &Cluster, secret| json!({"patroni": {"urls": cluster.lab.patroni_urls(), "secretRef": secret}});
    let login = |cluster: &Cluster| json!({"username": "postgres", "password": text(cluster.lab.password())});
    is_attached(LabKind::Patroni, topology, login).await;
}
