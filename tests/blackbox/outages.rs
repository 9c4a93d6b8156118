//! Parts that are down or full: it is said which, nothing else is held up, and work resumes by itself.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use pgtenant_tests::{
    Credential, Own, Place, Site, SiteOptions, SmallDisk, Stream, eventually, measured, never, skipped, soon, try_sql,
    unique, works_for_an_application,
};
use serde_json::{Value, json};

use crate::shared::Plane;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_ledger_is_down_readyz_says_so_and_afterwards_work_resumes() {
    let mut own = Own::start(false, &[]).await;
    let options = SiteOptions { ledger: own.place(), ..SiteOptions::shared().await };
    let plane = Plane::start(options).await;
    let (api, namespace) = (plane.api(), unique("ledger"));
    api.ready(&namespace, "before").await;
    let mut stream = Stream::open(&api, &format!("/v1/events?namespace={namespace}")).await;
    let names: Vec<String> = (0..12).map(|number| format!("way-{number}")).collect();
    futures::future::join_all(names.iter().map(|name| api.create(&namespace, name))).await;
    own.cluster.stop().await.unwrap();

    let answer = soon("/readyz answers 503", || async {
        let answer = api.get("/readyz").await;
        if answer.status == 503 { Ok(answer) } else { Err(answer.text) }
    })
    .await;
    let errors = answer.json["errors"].clone();
    assert!(errors.as_array().unwrap().iter().any(|error| error["field"] == "ledger"), "{errors}");
    assert!(!answer.header("retry-after").is_empty());
    answer.problem(503, "not-ready");
    never("it does not answer as it should without a ledger", Duration::from_secs(4), || async {
        let (health, metrics) = (api.get("/healthz").await, api.get("/metrics").await);
        let asked = Instant::now();
        let wish = api.post(&format!("/v1/namespaces/{namespace}/databases"), json!({"name": "during"})).await;
        if (health.status, metrics.status) != (200, 200) || asked.elapsed() > Duration::from_secs(15) {
            return Err(format!("{} {} {:?}", health.status, metrics.status, asked.elapsed()));
        }
        assert!(!wish.header("retry-after").is_empty(), "{:?}", wish.headers);
        wish.problem(503, "ledger-unavailable");
        Ok(())
    })
    .await;
    // Databases go on without the control plane.
    works_for_an_application(&plane.site.secrets, &namespace, "before").await;

    own.cluster.start(|_| {}).await.unwrap();
    let begun = Instant::now();
    soon("/readyz answers 200", || async {
        let answer = api.get("/readyz").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    measured(&format!("ledger outage: ready {:.1} s after the ledger's server", begun.elapsed().as_secs_f64()));
    for name in &names {
        api.is_ready(&namespace, name).await;
    }
    measured(&format!("ledger outage: all work done {:.1} s after the ledger's server", begun.elapsed().as_secs_f64()));
    api.ready(&namespace, "after").await;
    works_for_an_application(&plane.site.secrets, &namespace, "after").await;
    // The stream either went on or was ended; it does not hang.
    loop {
        match stream.next(Duration::from_secs(20)).await {
            Some(event) if event["name"] == "after" && event["type"] == "Ready" => break,
            Some(_) => {}
            None if stream.has_ended() => break,
            None => panic!("the stream of events is silent after an outage"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_starts_before_its_ledger_waits_for_it() {
    let mut own = Own::start(false, &[]).await;
    let site = Site::new(SiteOptions { ledger: own.place(), ..SiteOptions::shared().await }).await;
    own.cluster.stop().await.unwrap();
    let serve = site.serve("early").await;
    serve.api().get("/readyz").await.problem(503, "not-ready");
    own.cluster.start(|_| {}).await.unwrap();
    serve.is_ready().await;
    let namespace = unique("early");
    serve.api().ready(&namespace, "db").await;
}

/// Accepts connections and never says anything.
fn tarpit() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            held.push(stream);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_never_answers_holds_up_no_claim_of_another() {
    let place = Place::shared().await;
    let mut options = SiteOptions::shared().await;
    options.look = "10m".to_owned();
    options.clusters.push(("tarpit".to_owned(), place.with_hosts(&[format!("localhost:{}", tarpit())])));
    options.without_provisioner.push("tarpit".to_owned());
    let plane = Plane::start(options).await;
    let (api, namespace) = (plane.api(), unique("slow"));
    let take = async |kind: &str| {
        let mut times = Vec::new();
        for number in 0..7 {
            let begun = Instant::now();
            api.ready(&namespace, &format!("{kind}-{number}")).await;
            times.push(begun.elapsed());
        }
        times.sort();
        times
    };
    let before = take("before").await;
    for number in 0..12 {
        api.create_with(&namespace, json!({"name": format!("stuck-{number}"), "cluster": "tarpit"})).await;
    }
    let beside = take("beside").await;
    measured(&format!(
        "tarpit: claims of the other cluster are Ready after {:?} (median of 7) beside 12 that are stuck, {:?} before",
        beside[3], before[3]
    ));
    assert!(beside[3] < before[3] * 3 + Duration::from_secs(1), "{before:?} {beside:?}");
    api.get("/readyz").await.expect(200);

    let stuck = api
        .comes_to(&namespace, "stuck-0", "a reason", |db| {
            let conditions = db["conditions"].as_array().unwrap();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "False")
        })
        .await;
    let ready = stuck["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!(ready["reason"], "ClusterUnavailable", "{ready}");
    assert!(ready["message"].as_str().unwrap().contains("step"), "which step? {ready}");
    assert!(!stuck["nextLookAt"].is_null(), "when is the next try? {stuck}");
    let cluster = soon("the cluster's page says so", || async {
        let cluster = api.get("/v1/clusters/tarpit").await.expect(200).json;
        if cluster["problem"].is_string() { Ok(cluster) } else { Err(cluster.to_string()) }
    })
    .await;
    assert_eq!(cluster["primary"], Value::Null);
    let plan = json!({"claims": [{"namespace": namespace, "name": "x", "cluster": "tarpit"}]});
    let asked = Instant::now();
    let answer = api.post("/v1/plan", plan).await;
    assert!(asked.elapsed() < Duration::from_secs(31), "{:?}", asked.elapsed());
    answer.problem(503, "cluster-unreachable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_store_is_said_and_passes_when_there_is_room_again() {
    let site = Site::new(SiteOptions { look: "10m".to_owned(), ..SiteOptions::shared().await }).await;
    let Some(disk) = SmallDisk::mount(&site.secrets, "32k") else {
        return skipped("a_full_disk_of_the_store_is_said_and_passes_when_there_is_room_again: mount needs root");
    };
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let (api, namespace) = (serve.api(), unique("full"));
    api.ready(&namespace, "fits").await;
    let mut full = None;
    for number in 0..5 {
        let name = format!("db-{number}");
        api.create(&namespace, &name).await;
        let db = eventually("Ready or a reason", Duration::from_secs(30), || async {
            let db = api.get(&format!("/v1/namespaces/{namespace}/databases/{name}")).await.json;
            let failed =
                db["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Ready" && c["status"] == "False");
            if failed || db["state"] == "Ready" { Ok(db) } else { Err(db.to_string()) }
        })
        .await;
        if db["state"] != "Ready" {
            full = Some((name, db));
            break;
        }
    }
    let (name, db) = full.expect("32 KiB hold no six databases' credentials");
    let ready = db["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    let message = ready["message"].as_str().unwrap();
    assert_eq!(ready["reason"], "StoreFailed", "{ready}");
    assert!(message.contains("step store") && message.to_lowercase().contains("no space"), "{message}");

    // A rotation that can not be stored changes nothing: the old passwords stay valid.
    let before = Credential::of(&site.secrets, &namespace, "fits");
    api.ask(&format!("/v1/namespaces/{namespace}/databases/fits/credentials/rotate")).await.expect(202);
    api.is_in(&namespace, "fits", "Degraded").await;
    let stored = Credential::of(&site.secrets, &namespace, "fits");
    for (old, stored) in before.iter().zip(&stored) {
        let valid = try_sql(stored, "select 1").await;
        assert!(stored == old || valid.is_ok(), "a password is stored that does not work");
        assert_eq!(valid, Ok(()), "an application that reads its credential now can not log in");
    }

    disk.resize("2m");
    let begun = Instant::now();
    api.is_ready(&namespace, &name).await;
    api.is_ready(&namespace, "fits").await;
    measured(&format!("full disk: all is Ready {:.1} s after there is room again", begun.elapsed().as_secs_f64()));
    for name in ["fits", &name] {
        works_for_an_application(&site.secrets, &namespace, name).await;
    }
    let after = Credential::of(&site.secrets, &namespace, "fits");
    assert!(after.iter().zip(&before).all(|(new, old)| new.password != old.password), "the rotation is done");
}
