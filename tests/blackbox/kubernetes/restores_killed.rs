//! An object asks for one restore, whoever is killed meanwhile.

use std::time::Duration;

use pgtenant_tests::{SiteOptions, database, eventually, never, restore, restores, soon};
use serde_json::{Value, json};

use super::restores::{FINALIZER, finalizers};
use crate::shared::KubePlane;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_planes_that_are_killed_ask_once_for_each_object() {
    const OBJECTS: usize = 12;
    let lab = pgtenant_testkit::own_kubernetes().await;
    let options = SiteOptions { look: "10m".to_owned(), lease: "3s".to_owned(), ..SiteOptions::shared().await };
    let plane = KubePlane::start(&lab, options).await;
    let kube = plane.kube();
    let namespace = kube.namespace("asks").await;
    let (site, serve) = (plane.plane.site, plane.plane.serve);
    let mut replicas = [serve, site.serve("second").await];
    replicas[1].is_ready().await;
    let names: Vec<_> = (0..OBJECTS).map(|number| format!("db-{number:02}")).collect();
    let claims: Vec<_> = names.iter().map(|name| database(&namespace, name, json!({}))).collect();
    kube.apply(&claims).await.expect(0);
    for name in &names {
        kube.is_ready(&namespace, name).await;
    }
    let sql = format!("select name from restores where namespace = '{namespace}' order by name");
    let all_are_asked_for = async || {
        soon("each is asked for", || async {
            let list = kube.api().get(&restores(&namespace)).await.expect(200).json;
            let asked = |object: &&Value| object["status"]["id"].is_string();
            let count = list["items"].as_array().unwrap().iter().filter(asked).count();
            if count == OBJECTS { Ok(()) } else { Err(count.to_string()) }
        })
        .await;
        assert_eq!(site.ledger_rows(&sql).await, names, "each once");
    };

    // The leader is killed in between.
    let leads = usize::from(replicas[1].metric("pgtenant_kubernetes_leader").await == 1.0);
    let objects: Vec<_> = names.iter().map(|name| restore(&namespace, name, name, json!({}))).collect();
    let (applied, ()) = tokio::join!(kube.apply(&objects), async {
        soon("some are asked for", || async {
            let count = site.ledger_rows(&sql).await.len();
            if count >= 3 { Ok(()) } else { Err(count.to_string()) }
        })
        .await;
        replicas[leads].running.kill();
    });
    applied.expect(0);
    all_are_asked_for().await;

    // All of them are, and come back.
    replicas[1 - leads].running.kill();
    let mut third = site.serve("third").await;
    third.is_ready().await;
    never("something is asked for again", Duration::from_secs(5), || async {
        let found = site.ledger_rows(&sql).await;
        if found == names { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    all_are_asked_for().await;

    // Deleted while nobody is there: the end waits for somebody.
    third.running.kill();
    let path = |name: &str| format!("{}/{name}", restores(&namespace));
    for name in &names {
        kube.api().delete(&path(name)).await.expect(200);
    }
    let held = kube.find(&path(&names[0])).await.expect("its restore can still be cancelled");
    assert_eq!(finalizers(&held), [FINALIZER]);
    let fourth = site.serve("fourth").await;
    fourth.is_ready().await;
    for name in &names {
        eventually(&format!("{name} is gone"), Duration::from_secs(90), || async {
            kube.find(&path(name)).await.map_or(Ok(()), |object| Err(object.to_string()))
        })
        .await;
    }
    let sql = format!("select phase || ' ' || count(*) from restores where namespace = '{namespace}' group by phase");
    assert_eq!(site.ledger_rows(&sql).await, [format!("Cancelled {OBJECTS}")]);
}
