//! The primary is killed and the standby promoted while claims are on their way: nobody has to do anything.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use pgtenant_tests::{
    Credential, Own, Place, Site, SiteOptions, TIERS, eventually, measured, rows, soon, works_for_an_application,
};

const CLAIMS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_on_their_way_all_become_ready_on_the_new_primary() {
    let mut own = Own::start(true, &[("max_wal_size", "256MB")]).await;
    let site = Site::new(SiteOptions::on(own.place()).await).await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let api = serve.api();
    for name in ["before-1", "before-2"] {
        api.ready("failover", name).await;
    }
    let old = own.cluster.primary().port();
    // Both are there from now on, so that passwords can be compared with later ones.
    let before = Credential::of(&site.secrets, "failover", "before-1");
    assert!(before.iter().all(|credential| credential.port == old));

    let names: Vec<String> = (0..CLAIMS).map(|number| format!("db-{number:02}")).collect();
    futures::future::join_all(names.iter().map(|name| api.create("failover", name))).await;
    soon("some are made, and some are not", || async {
        let ready = api.list("/v1/databases?state=Ready").await.len();
        if ready >= 2 + 5 { Ok(()) } else { Err(format!("{ready} are Ready")) }
    })
    .await;
    own.cluster.primary().kill().await;
    let killed = Instant::now();
    let made = api.list("/v1/databases?state=Ready").await.len() - 2;
    assert!(made < CLAIMS, "all were made before the kill; the test shows nothing");
    own.cluster.promote_standby().await.unwrap();
    let new = own.cluster.primary().port();
    assert_ne!(new, old);

    eventually("every claim is Ready on the new primary", Duration::from_secs(120), || async {
        let all = api.list("/v1/databases").await;
        let right = |db: &&serde_json::Value| db["state"] == "Ready" && db["endpoint"]["port"] == new;
        match all.iter().find(|db| !right(db)) {
            None if all.len() == CLAIMS + 2 => Ok(()),
            other => Err(format!("{} claims, {other:?}", all.len())),
        }
    })
    .await;
    measured(&format!(
        "failover: {made} of {CLAIMS} were made when the primary was killed; all Ready on the new one after {:.1} s",
        killed.elapsed().as_secs_f64()
    ));
    for name in names.iter().chain(["before-1".to_owned(), "before-2".to_owned()].iter()) {
        for credential in Credential::of(&site.secrets, "failover", name) {
            assert_eq!(credential.port, new, "{name}: the stored endpoint is the new primary");
            assert!(credential.uri.contains(&old.to_string()) && credential.uri.contains(&new.to_string()), "{}", name);
        }
    }
    for (tier, old) in TIERS.iter().zip(&before) {
        let now = Credential::read(&site.secrets, "failover", "before-1", tier);
        assert_eq!(now.password, old.password, "{tier}: what was Ready keeps its password");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["before-1", "before-2"]).collect();
    stream::iter(&names).for_each_concurrent(3, |name| works_for_an_application(&site.secrets, "failover", name)).await;

    // Exactly these, on the new primary.
    let place = Place::of(&own.cluster);
    let count = "select count(*)::text from pg_database where datname like 'failover-%'";
    assert_eq!(rows(&place.superuser, None, count).await, [(CLAIMS + 2).to_string()]);
    let topology = api.get("/v1/clusters/default/topology").await.expect(200).json;
    assert_eq!(topology["primary"], format!("localhost:{new}"), "{topology}");
    let mut stream = pgtenant_tests::Stream::open(&api, "/v1/events?after=0&name=default").await;
    stream.until("the change of the primary is told", |event| event["type"] == "ClusterChanged").await;

    // The old primary comes back as a standby, and work goes on.
    own.cluster.start(|_| {}).await.unwrap();
    api.ready("failover", "after").await;
    works_for_an_application(&site.secrets, "failover", "after").await;
}
