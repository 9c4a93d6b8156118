//! A reader who remembers the last event misses none.

use std::time::Duration;

use futures::future::join_all;
use pgtenant_ledger::{NewEvent, append_event, events_after};
use pgtenant_model::EventKind;
use serde_json::json;

use crate::world::World;

fn event(name: &str) -> NewEvent<'_> {
    NewEvent { kind: EventKind::Updated, namespace: Some("team"), name, message: String::new(), detail: json!({}) }
}

#[tokio::test]
async fn events_become_visible_in_the_order_of_their_ids() {
    let world = World::new().await;
    let writers = join_all((0..6).map(|writer| {
        let world = &world;
        async move {
            for number in 0..20 {
                let mut tx = world.begin().await;
                append_event(&mut tx, event(&format!("{writer}-{number}"))).await.unwrap();
                // Without a turn of each writer, one that was given a lower id would often commit later.
                tokio::time::sleep(Duration::from_millis(number % 3)).await;
                tx.commit().await.unwrap();
            }
        }
    }));
    let reader = async {
        let (mut last, mut seen) = (0, 0);
        while seen < 120 {
            let mut db = world.ledger.acquire().await.unwrap();
            let events = events_after(&mut db, last, None, 500).await.unwrap();
            seen += events.len();
            last = events.last().map_or(last, |event| event.id);
        }
    };
    let all = async { tokio::join!(writers, reader) };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("the reader has missed an event");
}

#[tokio::test]
async fn a_replica_that_stops_in_a_transaction_holds_up_others_for_seconds_only() {
    let world = World::new().await;
    let mut stopped = world.begin().await;
    append_event(&mut stopped, event("stopped")).await.unwrap();
    let mut tx = world.begin().await;
    append_event(&mut tx, event("other")).await.unwrap();
    tx.commit().await.unwrap();
    assert!(stopped.commit().await.is_err(), "the server has ended it");
}

#[tokio::test]
async fn a_tenant_reads_events_of_its_own_namespaces() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    append_event(&mut db, event("mine")).await.unwrap();
    append_event(&mut db, NewEvent { namespace: Some("other"), ..event("theirs") }).await.unwrap();
    append_event(&mut db, NewEvent { namespace: None, ..event("cluster") }).await.unwrap();
    let names = |events: Vec<pgtenant_model::Event>| events.into_iter().map(|one| one.name).collect::<Vec<_>>();
    let own = events_after(&mut db, 0, Some(&["team".to_owned()]), 10).await.unwrap();
    assert_eq!(names(own), ["mine"]);
    assert_eq!(names(events_after(&mut db, 0, None, 10).await.unwrap()), ["mine", "theirs", "cluster"]);
}
