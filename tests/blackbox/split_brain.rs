//! Two servers that take writes, and one that was left behind: nothing is written until it is clear which is right.

use pgtenant_lab::LabKind;
use pgtenant_tests::{Api, Cli, Stream, eventually, rows, superuser_sql, unique};
use serde_json::{Value, json};

use crate::topologies::{Cluster, PATIENCE, seen};

/// Waits until the claim says that it waits for this reason.
async fn waits(api: &Api, namespace: &str, name: &str, why: &str) {
    eventually("the claim says why it waits", PATIENCE, || async {
        let found = api.get(&format!("/v1/namespaces/{namespace}/databases/{name}")).await.expect(200);
        let said = found.json["conditions"].to_string().contains(why);
        if said && found.json["state"] != "Ready" { Ok(()) } else { Err(found.text) }
    })
    .await;
}

async fn databases(cluster: &Cluster, node: usize, name: &str) -> Vec<String> {
    let login = cluster.lab.login(cluster.lab.nodes()[node].1);
    rows(&login, None, &format!("select datname::text from pg_database where datname = '{name}'")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_to_two_primaries_nor_to_one_that_was_left_behind() {
    let mut cluster = Cluster::up(LabKind::Streaming).await;
    let site = cluster.site().await;
    let mut serve = site.serve("serve").await;
    serve.is_ready().await;
    let (api, namespace) = (serve.api(), unique("split"));
    api.ready(&namespace, "orders").await;
    let nodes = cluster.lab.nodes();
    let [(first, _), (second, standby)] = nodes.as_slice() else { panic!("{nodes:?}") };

    // Somebody promotes the standby, and the primary goes on.
    superuser_sql(&cluster.lab.login(*standby), None, "select pg_promote()").await;
    let told = seen(&api, "both are seen", |told, _| told["splitBrain"] == true).await;
    let problem = told["problem"].as_str().unwrap();
    assert!(problem.starts_with("split brain: ") && told["primary"].is_null(), "{told}");
    api.create(&namespace, "meanwhile").await;
    waits(&api, &namespace, "meanwhile", "split brain: ").await;
    for node in 0..2 {
        assert!(databases(&cluster, node, &format!("{namespace}-meanwhile")).await.is_empty(), "node {node}");
    }
    assert!((serve.metric("pgtenant_cluster_split_brain").await - 1.0).abs() < f64::EPSILON);
    let mut stream = Stream::open(&api, "/v1/events?after=0&name=default").await;
    stream.until("everybody is told", |event| event["detail"]["splitBrain"] == true).await;

    // One of the two is stopped, and all goes on by itself.
    cluster.lab.kill(first).await.unwrap();
    api.is_ready(&namespace, "meanwhile").await;
    seen(&api, "it is over", |told, _| told["splitBrain"] == false && told["history"]["timeline"] == 2).await;

    // The other one comes back alone: what was written since is not there.
    cluster.lab.kill(second).await.unwrap();
    cluster.lab.start(first, |_| {}).await.unwrap();
    let left_behind = |told: &Value, _: &[Value]| told["refused"]["timeline"] == 1;
    let told = seen(&api, "it is refused", left_behind).await;
    let problem = told["problem"].as_str().unwrap();
    assert!(problem.contains("its timeline went back from 2 to 1") && told["splitBrain"] == true, "{told}");
    api.create(&namespace, "later").await;
    waits(&api, &namespace, "later", "its timeline went back from 2 to 1").await;

    // Another control plane knows it as well.
    let before = told["observedAt"].clone();
    serve.stop().await;
    let serve = site.serve("serve-again").await;
    serve.is_ready().await;
    let api = serve.api();
    seen(&api, "it is still refused", |told, members| left_behind(told, members) && told["observedAt"] != before).await;
    waits(&api, &namespace, "later", "its timeline went back from 2 to 1").await;
    assert!(databases(&cluster, 0, &format!("{namespace}-later")).await.is_empty());

    // A person says that it is right, and nothing but what was shown.
    let system = told["refused"]["system"].clone();
    api.post("/v1/clusters/default/accept", json!({"system": system, "timeline": 3})).await.problem(409, "not-refused");
    let cli = Cli::of(&serve.url, &site.token);
    let asked = cli.run(&["cluster", "accept", "default"]).await.expect(2).stderr;
    assert!(asked.contains("must be confirmed"), "{asked}");
    let accepted = cli.run(&["cluster", "accept", "default", "--yes"]).await.expect(0).stdout;
    assert!(accepted.contains("timeline 1"), "{accepted}");
    api.is_ready(&namespace, "later").await;
    let told = seen(&api, "it is the primary", |told, _| told["primary"].is_string()).await;
    assert!(told["history"]["acceptedAt"].is_string() && told["splitBrain"] == false, "{told}");
    cli.run(&["cluster", "accept", "default", "--yes"]).await.expect(1);
    assert!(api.get("/v1/audit").await.expect(200).text.contains("cluster.accept"));
}
