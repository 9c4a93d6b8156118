//! Parts that are killed, paused, or away: nothing is lost, nothing is done twice, and work goes on by itself.

use std::time::{Duration, Instant};

use futures::future::join_all;
use pgtenant_tests::{
    Kube, Own, Place, Serve, Site, SiteOptions, condition, database, databases, eventually, measured, never, soon,
    try_sql,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::shared::KubePlane;

const CLAIMS: usize = 20;

fn names(begin: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{begin}-{number:02}")).collect()
}

async fn create_all(kube: &Kube, namespace: &str, names: &[String]) {
    let objects: Vec<Value> = names.iter().map(|name| database(namespace, name, json!({}))).collect();
    kube.apply(&objects).await.expect(0);
}

/// How many of them are Ready.
async fn ready(kube: &Kube, namespace: &str) -> usize {
    let list = kube.api().get(&databases(namespace)).await.expect(200).json;
    let is_ready = |object: &&Value| condition(object, "Ready")["status"] == "True";
    list["items"].as_array().expect("items").iter().filter(is_ready).count()
}

async fn all_are_ready(kube: &Kube, namespace: &str, names: &[String], what: &str) {
    let begun = Instant::now();
    eventually(what, Duration::from_secs(120), || async {
        match ready(kube, namespace).await {
            count if count == names.len() => Ok(()),
            count => Err(format!("{count} of {}", names.len())),
        }
    })
    .await;
    measured(&format!("{what}: {:.1} s", begun.elapsed().as_secs_f64()));
}

/// Reasons of the Events of an object, those of one reason counted.
async fn events(kube: &Kube, namespace: &str, name: &str, reason: &str) -> usize {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let list = kube.api().get(&path).await.expect(200).json;
    let of_it = |event: &&Value| event["regarding"]["name"] == name && event["reason"] == reason;
    list["items"].as_array().expect("items").iter().filter(of_it).count()
}

/// How often something was written down of a claim.
async fn audited(site: &Site, namespace: &str, name: &str, action: &str) -> usize {
    let sql = format!(
        "select id::text from audit where namespace = '{namespace}' and name = '{name}' and action = '{action}'"
    );
    site.ledger_rows(&sql).await.len()
}

fn old_version(namespace: &str, name: &str) -> String {
    format!("/apis/pgtenant.io/v1beta1/namespaces/{namespace}/postgresqldatabases/{name}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_survives_the_api_server_and_the_ledger() {
    let mut lab = pgtenant_testkit::own_kubernetes().await;
    let mut own = Own::start(false, &[]).await;
    let place = Place::shared().await;
    let options = SiteOptions {
        ledger: own.place(),
        clusters: vec![("default".to_owned(), place.clone())],
        look: "10m".to_owned(),
        lease: "5s".to_owned(),
        ..SiteOptions::on(place).await
    };
    let plane = KubePlane::start(&lab, options).await;
    let (kube, plane) = (plane.kube(), plane.plane);
    let (site, mut serve) = (plane.site, plane.serve);

    // Killed in the middle.
    let namespace = kube.namespace("killed").await;
    let claims = names("db", CLAIMS);
    create_all(&kube, &namespace, &claims).await;
    soon("some are Ready", || async {
        let count = ready(&kube, &namespace).await;
        if count >= 3 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    lab.kill_api_server();
    let rest = serve.api();
    let begun = Instant::now();
    rest.get("/v1/databases").await.expect(200);
    soon("it is ready without an API server", || async {
        let answer = rest.get("/readyz").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    lab.start_api_server().await.unwrap();
    all_are_ready(&kube, &namespace, &claims, "20 claims, the API server killed in between").await;
    for name in &claims {
        assert_eq!(audited(&site, &namespace, name, "database.create").await, 1, "{name}");
        let reader = kube.credential(&namespace, name, "read").await;
        assert_eq!(try_sql(&reader, "select 1").await, Ok(()), "{name}");
    }

    // What was seen before is forgotten.
    lab.forget_history().await.unwrap();
    kube.change(&namespace, "db-00", json!({"connectionLimit": 7})).await;
    kube.create(&namespace, "later", json!({})).await;
    kube.delete(&namespace, "db-01").await;
    kube.is_ready(&namespace, "db-00").await;
    kube.is_ready(&namespace, "later").await;
    kube.is_gone(&namespace, "db-01").await;

    // Paused: connections stay, and nobody answers.
    create_all(&kube, &namespace, &names("paused", 5)).await;
    lab.pause_api_server().await.expect("it pauses");
    never("REST suffers", Duration::from_secs(20), || async {
        let begun = Instant::now();
        let answer = rest.get(&format!("/v1/namespaces/{namespace}/databases")).await;
        let time = begun.elapsed();
        if answer.status == 200 && time < Duration::from_secs(2) {
            Ok(())
        } else {
            Err(format!("{time:?} {}", answer.text))
        }
    })
    .await;
    lab.resume_api_server();
    all_are_ready(&kube, &namespace, &names("all", CLAIMS + 5), "5 claims, the API server paused for 20 s").await;

    // Somebody writes a status.
    let path = format!("{}/db-00", databases(&namespace));
    let lie = json!({"status": {"state": "Failed", "database": "elsewhere", "conditions": [
        {"type": "Ready", "status": "False", "reason": "Lie", "message": "a lie",
         "lastTransitionTime": "2020-01-01T00:00:00Z"}]}});
    let before = kube.find(&path).await.unwrap()["status"].clone();
    kube.api().patch(&format!("{path}/status"), lie).await.expect(200);
    kube.comes_to(&namespace, "db-00", "tells the truth again", |object| {
        let status = &object["status"];
        let known = |key: &str| status[key] == before[key];
        known("state") && known("database") && known("roles") && condition(object, "Ready")["reason"] == "Provisioned"
    })
    .await;

    // The ledger is down while objects are changed.
    own.cluster.stop().await.unwrap();
    kube.change(&namespace, "db-02", json!({"connectionLimit": 9})).await;
    kube.delete(&namespace, "db-03").await;
    kube.create(&namespace, "meanwhile", json!({})).await;
    own.cluster.start(|_| {}).await.unwrap();
    let begun = Instant::now();
    kube.is_ready(&namespace, "db-02").await;
    kube.is_ready(&namespace, "meanwhile").await;
    kube.is_gone(&namespace, "db-03").await;
    measured(&format!("objects changed without a ledger: done {:.1} s after it", begun.elapsed().as_secs_f64()));

    let serve_again = webhooks_are_away(&kube, &site, &mut serve, &namespace).await;
    a_certificate_that_is_deleted_is_made_anew(&kube, &namespace).await;
    drop(serve_again);
}

/// No webhook answers: v1 goes on, old versions fail in clear words, and nothing is lost.
async fn webhooks_are_away(kube: &Kube, site: &Site, serve: &mut Serve, namespace: &str) -> Serve {
    kube.api().get(&old_version(namespace, "db-04")).await.expect(200);
    serve.stop().await;
    let begun = Instant::now();
    kube.create(namespace, "alone", json!({"connectionLimit": 3})).await;
    kube.change(namespace, "db-04", json!({"connectionLimit": 4})).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "a control plane that is down holds up deployments");
    let answer = kube.api().get(&old_version(namespace, "db-04")).await;
    assert!(answer.status >= 500 && answer.text.contains("conversion webhook"), "{}", answer.text);
    let mut old = database(namespace, "old", json!({"deletionProtection": true}));
    old["apiVersion"] = json!("pgtenant.io/v1beta1");
    let path = old_version(namespace, "");
    let answer = kube.api().post(path.trim_end_matches('/'), old.clone()).await;
    assert!(answer.status >= 500 && answer.text.contains("conversion webhook"), "{}", answer.text);

    let serve = site.serve("again").await;
    kube.is_ready(namespace, "alone").await;
    kube.is_ready(namespace, "db-04").await;
    let written = soon("old versions are answered", || async {
        let answer = kube.api().get(&old_version(namespace, "db-04")).await;
        if answer.status == 200 { Ok(answer.json) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(written["spec"]["connectionLimit"], 4);
    kube.api().post(path.trim_end_matches('/'), old).await.expect(201);
    assert_eq!(kube.is_ready(namespace, "old").await["spec"]["mode"], "protected");
    serve
}

async fn a_certificate_that_is_deleted_is_made_anew(kube: &Kube, namespace: &str) {
    const SECRET: &str = "/api/v1/namespaces/pgtenant-system/secrets/pgtenant-webhook-tls";
    let bundle = || async {
        let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/postgresqldatabases.pgtenant.io";
        let found = kube.find(crd).await.expect("a definition");
        found["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"].clone()
    };
    let before = bundle().await;
    kube.api().delete(SECRET).await.expect(200);
    let begun = Instant::now();
    eventually("there is a new certificate, and it is trusted", Duration::from_secs(90), || async {
        let secret = kube.find(SECRET).await.is_some();
        if secret && bundle().await != before { Ok(()) } else { Err(format!("Secret: {secret}")) }
    })
    .await;
    eventually("old versions are answered", Duration::from_secs(90), || async {
        let answer = kube.api().get(&old_version(namespace, "db-04")).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    measured(&format!("certificate deleted: all is well after {:.1} s", begun.elapsed().as_secs_f64()));
}

/// Which of them leads.
async fn leader(replicas: &[Serve], among: &[usize]) -> usize {
    eventually("one of them leads", Duration::from_secs(45), || async {
        let metrics = among.iter().map(|number| replicas[*number].metric("pgtenant_kubernetes_leader"));
        let leads = join_all(metrics).await;
        let leading: Vec<usize> = among.iter().zip(&leads).filter(|(_, one)| **one == 1.0).map(|(n, _)| *n).collect();
        match leading.as_slice() {
            [one] => Ok(*one),
            _ => Err(format!("{leads:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_do_nothing_twice_and_one_that_stalled_writes_nothing_old() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let options = SiteOptions { look: "10m".to_owned(), lease: "5s".to_owned(), ..SiteOptions::shared().await };
    let plane = KubePlane::start(&lab, options).await;
    let (kube, plane) = (plane.kube(), plane.plane);
    let site = plane.site;
    let mut replicas = vec![plane.serve, site.serve("second").await];
    replicas[1].is_ready().await;
    let namespace = kube.namespace("two").await;

    // The leader is killed in the middle.
    let claims = names("db", CLAIMS);
    let first = leader(&replicas, &[0, 1]).await;
    create_all(&kube, &namespace, &claims).await;
    soon("some are Ready", || async {
        let count = ready(&kube, &namespace).await;
        if count >= 3 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    replicas[first].running.kill();
    let begun = Instant::now();
    let second = leader(&replicas, &[1 - first]).await;
    let after = begun.elapsed();
    measured(&format!("leader killed: the other leads after {:.1} s", after.as_secs_f64()));
    assert!(after < Duration::from_secs(30), "{after:?}");
    all_are_ready(&kube, &namespace, &claims, "20 claims, the leader killed in between").await;
    for name in &claims {
        assert_eq!(audited(&site, &namespace, name, "database.create").await, 1, "{name}");
        let count = eventually(&format!("{name}: an Event Ready"), Duration::from_secs(30), || async {
            match events(&kube, &namespace, name, "Ready").await {
                0 => Err("none".to_owned()),
                count => Ok(count),
            }
        })
        .await;
        assert_eq!(count, 1, "{name} was told of twice");
    }

    // The leader stalls for longer than its Lease.
    replicas[first] = site.serve("third").await;
    replicas[first].is_ready().await;
    kube.change(&namespace, "db-00", json!({"connectionLimit": 5})).await;
    kube.is_ready(&namespace, "db-00").await;
    replicas[second].running.signal(Signal::STOP);
    // The stopped one hears of this, and does not get to it.
    kube.change(&namespace, "db-00", json!({"connectionLimit": 6})).await;
    kube.change(&namespace, "db-01", json!({"connectionLimit": 6})).await;
    let begun = Instant::now();
    assert_eq!(leader(&replicas, &[first]).await, first);
    measured(&format!("leader stopped: the other leads after {:.1} s", begun.elapsed().as_secs_f64()));
    kube.is_ready(&namespace, "db-00").await;
    kube.change(&namespace, "db-00", json!({"connectionLimit": 7})).await;
    kube.is_ready(&namespace, "db-00").await;
    kube.is_ready(&namespace, "db-01").await;
    replicas[second].running.signal(Signal::CONT);
    let sql = format!(
        "select coalesce(connection_limit::text, '') || '/' || source_generation from claims
         where namespace = '{namespace}' and name = 'db-00'"
    );
    never("an old generation came back", Duration::from_secs(10), || async {
        let found = site.ledger_rows(&sql).await;
        if found == ["7/4"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    kube.is_ready(&namespace, "db-00").await;
    let leads = leader(&replicas, &[0, 1]).await;
    measured(&format!("after the stall replica {leads} leads; {first} did while {second} was stopped"));
    for name in ["db-00", "db-01"] {
        let updates = audited(&site, &namespace, name, "database.update").await;
        assert_eq!(updates, if name == "db-00" { 3 } else { 1 }, "{name}");
    }
    let admin = kube.credential(&namespace, "db-00", "admin").await;
    assert_eq!(try_sql(&admin, "select 1").await, Ok(()));
}

/// It goes on hearing the ledger, and knows objects as they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_the_api_server_undoes_nothing() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let kube = Kube::new(&lab.kubeconfig());
    let own = kube.install("pgtenant-system").await;
    let kubernetes = Some((own.kubeconfig().to_owned(), "pgtenant-system".to_owned()));
    let options =
        SiteOptions { look: "10m".to_owned(), lease: "5s".to_owned(), kubernetes, ..SiteOptions::shared().await };
    let site = Site::new(options).await;
    let (wired, relay) = own.over_relay().await;
    let kubeconfig = wired.kubeconfig().to_string_lossy().into_owned();
    let cut_off = site.serve_with("cut-off", &[("PGTENANT_KUBERNETES__KUBECONFIG", &kubeconfig)]).await;
    let mut replicas = vec![cut_off];
    assert_eq!(leader(&replicas, &[0]).await, 0);
    let namespace = kube.namespace("cut").await;
    for (name, mode) in [("gone", "standard"), ("kept", "protected"), ("changed", "standard")] {
        kube.ready(&namespace, name, json!({"mode": mode})).await;
    }

    replicas.push(site.serve("other").await);
    relay.cut(true);
    assert_eq!(leader(&replicas, &[1]).await, 1);
    for name in ["gone", "kept"] {
        kube.delete(&namespace, name).await;
        kube.is_gone(&namespace, name).await;
    }
    kube.change(&namespace, "changed", json!({"connectionLimit": 7})).await;
    kube.is_ready(&namespace, "changed").await;
    let sql = format!(
        "select name || ' ' || state || ' ' || coalesce(connection_limit, 0) from claims
         where namespace = '{namespace}' order by name"
    );
    // Longer than it waits for an answer of the API server.
    never("something came back", Duration::from_secs(20), || async {
        let found = site.ledger_rows(&sql).await;
        if found == ["changed Ready 7", "kept Retained 0"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    relay.cut(false);
    assert_eq!(leader(&replicas, &[0, 1]).await, 1);
    kube.change(&namespace, "changed", json!({"connectionLimit": 8})).await;
    kube.is_ready(&namespace, "changed").await;
}
