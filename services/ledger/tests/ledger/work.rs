//! Leases and fences.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use pgtenant_ledger::{
    LedgerError, Refused, Wish, Work, check, create, finish, forget, look_now, next_due, note_definition,
    promised_connections, put_clusters, remove, renew, rotate, set_cluster_status, update, withdraw,
};
use pgtenant_model::{ClaimKey, ClaimSpec, ClusterStatus, DatabaseState, Mode, Source, Tier};
use uuid::Uuid;

use crate::world::{LEASE, World, actor, ready};

#[tokio::test]
async fn replicas_that_take_at_once_never_share_a_claim() {
    let world = World::new().await;
    for number in 0..8 {
        world.create(&format!("db-{number}")).await;
    }
    let takes = (0..6).map(|_| world.take(Uuid::new_v4(), 3, LEASE));
    let taken: Vec<Work> = join_all(takes).await.into_iter().flatten().collect();
    let names: BTreeSet<_> = taken.iter().map(|work| work.claim.key.name().to_owned()).collect();
    assert_eq!((taken.len(), names.len()), (8, 8));
    assert!(world.take(Uuid::new_v4(), 8, LEASE).await.is_empty(), "all are held");
}

#[tokio::test]
async fn a_replica_whose_lease_ran_out_can_write_nothing_any_more() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let [stalled] = <[Work; 1]>::try_from(world.take(Uuid::new_v4(), 1, Duration::ZERO).await).unwrap();
    let [next] = <[Work; 1]>::try_from(world.take(Uuid::new_v4(), 1, LEASE).await).unwrap();
    assert!(next.fence > stalled.fence);

    let mut tx = world.begin().await;
    let fenced = |result| matches!(result, Err(LedgerError::Fenced(name)) if name == "team/db");
    assert!(fenced(renew(&mut tx, &stalled, LEASE).await));
    assert!(fenced(finish(&mut tx, &stalled, &ready()).await));
    assert!(fenced(forget(&mut tx, &stalled, "gone").await));
    renew(&mut tx, &next, LEASE).await.unwrap();
    finish(&mut tx, &next, &ready()).await.unwrap();
    // It was given back, so even its last holder is nobody now.
    tx.commit().await.unwrap();
    let claim = world.claim(&key).await.unwrap();
    assert_eq!((claim.state, claim.observed_generation), (DatabaseState::Ready, 1));
}

#[tokio::test]
async fn a_wish_that_changes_under_work_is_due_at_once_and_not_called_true() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let [work] = <[Work; 1]>::try_from(world.take(Uuid::new_v4(), 1, LEASE).await).unwrap();
    let mut tx = world.begin().await;
    let asked = rotate(&mut tx, &key, &[Tier::Read], &actor()).await.unwrap().operation.unwrap();
    tx.commit().await.unwrap();
    let mut tx = world.begin().await;
    finish(&mut tx, &work, &ready()).await.unwrap();
    tx.commit().await.unwrap();

    let claim = world.claim(&key).await.unwrap();
    assert_eq!((claim.generation, claim.observed_generation), (2, 1));
    assert_eq!(claim.rotate, [Tier::Read], "asked for after the work began");
    let mut db = world.ledger.acquire().await.unwrap();
    assert_eq!(next_due(&mut db, "default").await.unwrap().0, Some(Duration::ZERO));
    let operation = pgtenant_ledger::operation(&mut db, asked.id).await.unwrap().unwrap();
    assert!(operation.finished_at.is_none(), "{operation:?}");
}

#[tokio::test]
async fn a_look_that_is_asked_for_under_work_comes_after_it_and_not_in_a_loop() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let [work] = <[Work; 1]>::try_from(world.take(Uuid::new_v4(), 1, LEASE).await).unwrap();
    let mut db = world.ledger.acquire().await.unwrap();
    assert!(look_now(&mut db, &key).await.unwrap());
    assert!(!look_now(&mut db, &key).await.unwrap(), "it was asked for already");
    let mut tx = world.begin().await;
    finish(&mut tx, &work, &ready()).await.unwrap();
    tx.commit().await.unwrap();

    let soon = |wait: Option<Duration>| wait.is_some_and(|wait| wait <= Duration::from_secs(2));
    assert!(soon(next_due(&mut db, "default").await.unwrap().0));
    assert!(!look_now(&mut db, &key).await.unwrap(), "it is due anyway");
    assert!(world.take(Uuid::new_v4(), 1, LEASE).await.is_empty(), "it was looked at a moment ago");
    let [again] = loop {
        if let Ok(work) = <[Work; 1]>::try_from(world.take(Uuid::new_v4(), 1, LEASE).await) {
            break work;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut tx = world.begin().await;
    finish(&mut tx, &again, &ready()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(next_due(&mut db, "default").await.unwrap().0, None, "once was enough");
}

#[tokio::test]
async fn a_cluster_that_nobody_describes_any_more_takes_no_new_claims() {
    let world = World::new().await;
    let claim = world.create("db").await.claim;
    let mut db = world.ledger.acquire().await.unwrap();
    let described = pgtenant_ledger::cluster(&mut db, "default").await.unwrap().unwrap();
    assert_eq!(put_clusters(&mut db, &[]).await.unwrap(), ["default"], "it has a claim");

    let (other, spec) = (ClaimKey::new("team", "other").unwrap(), ClaimSpec::default());
    let refused = |result: &Refused| result.to_string().contains("is being removed");
    assert!(refused(&check(&mut db, &other, &spec, Source::Api).await.unwrap_err()));
    assert!(refused(&create(&mut db, &other, &spec, (Source::Api, None), &actor()).await.unwrap_err()));
    // The claims that it has go on.
    let changed = ClaimSpec { schemas: vec!["more".to_owned()], ..spec.clone() };
    check(&mut db, &claim.key, &changed, claim.source).await.unwrap();

    put_clusters(&mut db, &[("default".to_owned(), described.spec.0)]).await.unwrap();
    create(&mut db, &other, &spec, (Source::Api, None), &actor()).await.unwrap();
}

#[tokio::test]
async fn what_is_taken_back_counts_its_definitions_anew() {
    let world = World::new().await;
    let (key, spec, actor) = (ClaimKey::new("team", "kept").unwrap(), ClaimSpec::default(), actor());
    let mut db = world.ledger.acquire().await.unwrap();
    let claim = create(&mut db, &key, &spec, (Source::Kubernetes, Some("first")), &actor).await.unwrap().claim;
    assert!(note_definition(&mut db, claim.id, "first", 7).await.unwrap());
    assert!(!note_definition(&mut db, claim.id, "first", 6).await.unwrap(), "an old one");
    // It said protected at last, which nobody had written down.
    let kept = withdraw(&mut db, &key, Source::Kubernetes, Some(Mode::Protected), &actor).await.unwrap().claim;
    assert_eq!(kept.wish, Wish::Retained);
    let back = create(&mut db, &key, &spec, (Source::Kubernetes, Some("second")), &actor).await.unwrap().claim;
    assert_eq!(back.wish, Wish::Present);
    assert!(note_definition(&mut db, back.id, "second", 1).await.unwrap());
    let gone = withdraw(&mut db, &key, Source::Kubernetes, Some(Mode::Standard), &actor).await.unwrap().claim;
    assert_eq!(gone.wish, Wish::Absent);
}

#[tokio::test]
async fn claims_ask_for_no_more_connections_than_their_cluster_has() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    let mut described = pgtenant_ledger::cluster(&mut db, "default").await.unwrap().unwrap().spec.0;
    described.limits.connections = Some(300);
    described.limits.connections_per_namespace = Some(270);
    put_clusters(&mut db, &[("default".to_owned(), described.clone())]).await.unwrap();
    let of = |connections| ClaimSpec { connection_limit: connections, ..ClaimSpec::default() };
    let key = |name: &str| ClaimKey::new(if name == "most" { "team" } else { "other" }, name).unwrap();
    let actor = actor();
    create(&mut db, &key("most"), &of(Some(80)), (Source::Api, None), &actor).await.unwrap();
    let refused = create(&mut db, &key("more"), &of(Some(21)), (Source::Api, None), &actor).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "connectionLimit: 3 roles with 21 connections each are 63, and cluster \"default\" has 300 (limits.connections) - 240 of \
         other claims = 60 left"
    );
    create(&mut db, &key("rest"), &of(Some(20)), (Source::Api, None), &actor).await.unwrap();
    create(&mut db, &key("unlimited"), &of(None), (Source::Api, None), &actor).await.unwrap();
    // What it has itself does not count against it.
    update(&mut db, &key("most"), |_| of(Some(79)), Source::Api, None, &actor).await.unwrap();
    assert!(update(&mut db, &key("most"), |_| of(Some(81)), Source::Api, None, &actor).await.is_err());
    // A namespace has a budget of its own, and no budget is larger than what the servers have.
    described.limits.connections = Some(3000);
    put_clusters(&mut db, &[("default".to_owned(), described)]).await.unwrap();
    let refused =
        update(&mut db, &key("most"), |_| of(Some(91)), Source::Api, None, &actor).await.unwrap_err().to_string();
    assert!(
        refused.contains("namespace \"team\" on cluster \"default\" has 270 (limits.connectionsPerNamespace) - 0"),
        "{refused}"
    );
    let seen = ClusterStatus { max_connections: Some(330), ..ClusterStatus::default() };
    set_cluster_status(&mut db, "default", &seen).await.unwrap();
    let refused =
        create(&mut db, &key("late"), &of(Some(5)), (Source::Api, None), &actor).await.unwrap_err().to_string();
    assert!(
        refused.ends_with(
            "cluster \"default\" has 310 (max_connections less those reserved) - 297 of other claims = 13 left"
        ),
        "{refused}"
    );
    // Over the budget, a claim can still be changed, and ask for less.
    update(
        &mut db,
        &key("most"),
        |spec| ClaimSpec { mode: Mode::Protected, ..spec.clone() },
        Source::Api,
        None,
        &actor,
    )
    .await
    .unwrap();
    update(&mut db, &key("most"), |_| of(Some(79)), Source::Api, None, &actor).await.unwrap();
    check(&mut db, &key("most"), &of(Some(79)), Source::Api).await.unwrap();
    assert_eq!(promised_connections(&mut db, "default").await.unwrap(), 297);
}

#[tokio::test]
async fn a_claim_that_is_to_go_is_forgotten_only_while_it_is() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let [work] = <[Work; 1]>::try_from(world.take(Uuid::new_v4(), 1, LEASE).await).unwrap();
    let mut tx = world.begin().await;
    assert!(matches!(forget(&mut tx, &work, "gone").await, Err(LedgerError::Fenced(_))), "nobody asked for it");
    tx.rollback().await.unwrap();

    let mut tx = world.begin().await;
    remove(&mut tx, &key, Source::Api, None, &actor()).await.unwrap();
    let again = create(&mut tx, &key, &ClaimSpec::default(), (Source::Api, None), &actor()).await;
    assert!(matches!(again, Err(Refused::Deleting(_))), "its name is not free yet");
    tx.commit().await.unwrap();
    assert_eq!(world.claim(&key).await.unwrap().wish, Wish::Absent);
    let mut tx = world.begin().await;
    forget(&mut tx, &work, "gone").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.claim(&key).await, None);
    assert_ne!(world.create("db").await.claim.id, work.claim.id);
}

#[tokio::test]
async fn of_two_claims_that_mean_the_same_database_the_first_wins() {
    let world = World::new().await;
    let (first, second) = (ClaimKey::new("a", "b-c").unwrap(), ClaimKey::new("a-b", "c").unwrap());
    assert_eq!(first.database(), second.database());
    let mut one = world.begin().await;
    create(&mut one, &first, &ClaimSpec::default(), (Source::Api, None), &actor()).await.unwrap();
    let late = async {
        let mut two = world.begin().await;
        create(&mut two, &second, &ClaimSpec::default(), (Source::Api, None), &actor()).await.map(|_| ())
    };
    // The second waits for the first one's commit.
    let (late, ()) = tokio::join!(late, async { one.commit().await.unwrap() });
    assert!(matches!(late, Err(Refused::NameTaken { ref owner, .. }) if owner == "a/b-c"), "{late:?}");
}

#[tokio::test]
async fn of_many_at_once_a_namespace_gets_no_more_than_its_limit() {
    let world = World::new().await;
    let asks = (0..16).map(|number| {
        let world = &world;
        async move {
            let key = ClaimKey::new("team", format!("db-{number}")).unwrap();
            let mut tx = world.begin().await;
            let result = create(&mut tx, &key, &ClaimSpec::default(), (Source::Api, None), &actor()).await;
            tx.commit().await.unwrap();
            result.is_ok()
        }
    });
    assert_eq!(join_all(asks).await.into_iter().filter(|made| *made).count(), 10);
}

#[tokio::test]
async fn connections_that_a_burst_has_left_are_closed() {
    let world = World::new().await;
    let held = join_all((0..8).map(|_| world.ledger.acquire())).await;
    assert_eq!(world.ledger.connections(), 8);
    drop(held);
    // A connection comes back to the pool a moment after it is dropped.
    for _ in 0..200 {
        world.ledger.trim().await;
        if world.ledger.connections() <= 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} connections", world.ledger.connections());
}
