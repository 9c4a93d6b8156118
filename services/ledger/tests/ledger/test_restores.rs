//! Tests of what is kept of a cluster: which database is next, and how they make room.

use chrono::{TimeDelta, Utc};
use pgtenant_ledger::{
    Actor, Decision, LastTest, StepDone, ask_test, decide_restore, end_restore, events_after, last_test, makes_room,
    renew_restore, request_restore, step_done, take_restore, tested,
};
use pgtenant_model::{ClaimKey, RestorePhase, SnapshotId};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

use crate::world::{LEASE, World};

fn snapshot() -> SnapshotId {
    "rds:nightly".parse().unwrap()
}

/// A claim that can be used.
async fn usable(world: &World, name: &str) -> ClaimKey {
    let key = world.create(name).await.claim.key;
    let role = json!({"role": "r", "login": "r", "setAt": null, "stores": []});
    let roles = json!({"read": role, "write": role, "admin": role});
    let sql = "update claims set state = 'Ready', roles = $2, created_at = now() - interval '2 days' where name = $1";
    sqlx::query(sql).bind(name).bind(roles).execute(&mut *world.ledger.acquire().await.unwrap()).await.unwrap();
    key
}

#[tokio::test]
async fn each_database_has_its_turn_and_one_cluster_one_test() {
    let world = World::new().await;
    let actor = Actor::new("schedule");
    let (at, old) = (Utc::now() - TimeDelta::days(1), Utc::now() - TimeDelta::days(9));
    let mut db = world.ledger.acquire().await.unwrap();
    assert_eq!(ask_test(&mut db, "default", &snapshot(), at, &actor).await.unwrap(), None, "there is no claim");
    let (one, two) = (usable(&world, "one").await, usable(&world, "two").await);
    world.create("being-made").await;
    assert_eq!(ask_test(&mut db, "default", &snapshot(), old, &actor).await.unwrap(), None, "all came after it");
    assert_eq!(last_test(&mut db, "default").await.unwrap(), LastTest::default());

    let mut turns = Vec::new();
    for _ in 0..4 {
        assert!(!last_test(&mut db, "default").await.unwrap().busy);
        turns.push(ask_test(&mut db, "default", &snapshot(), at, &actor).await.unwrap().unwrap());
        let work = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 1).await.unwrap().unwrap();
        assert!(work.restore.scheduled && last_test(&mut db, "default").await.unwrap().busy);
        let named = StepDone { snapshot: Some(snapshot()), ..StepDone::new(RestorePhase::Preparing, "is made ready") };
        step_done(&mut db, &work, &named).await.unwrap();
        end_restore(&mut db, &work, RestorePhase::Succeeded, "is good").await.unwrap();
    }
    assert_eq!(turns, [one.clone(), two.clone(), one.clone(), two]);
    assert!(last_test(&mut db, "default").await.unwrap().good.is_some());
    for of in [None, Some(&one)] {
        let good = tested(&mut db, "default", of).await.unwrap();
        assert_eq!(good.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [snapshot()]);
    }
    let other = ClaimKey::new("other", "db").unwrap();
    assert!(tested(&mut db, "default", Some(&other)).await.unwrap().is_empty(), "a test of others says nothing of it");
    assert!(events_after(&mut db, 0, None, 100).await.unwrap().iter().all(|event| event.detail["restore"].is_null()));
}

#[tokio::test]
async fn a_test_makes_room_for_whoever_waits() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    let key = usable(&world, "data").await;
    let tested = ask_test(&mut db, "default", &snapshot(), Utc::now(), &Actor::new("schedule")).await.unwrap();
    assert_eq!(tested, Some(key.clone()));
    let holder = Uuid::now_v7();
    let test = take_restore(&mut db, "default", holder, LEASE, 1).await.unwrap().unwrap();
    step_done(&mut db, &test, &StepDone::new(RestorePhase::Copying, "copies")).await.unwrap();

    // Of the same database, on a cluster that has one restore at once.
    let spec = serde_json::from_value(json!({"from": {"latest": true}})).unwrap();
    let alice = Actor::new("alice");
    let asked = request_restore(&mut db, &key, &spec, &alice).await.unwrap().view.id;
    assert!(!renew_restore(&mut db, &test, LEASE).await.unwrap(), "nobody has said yes");
    decide_restore(&mut db, asked, Decision::Approve, true, &alice).await.unwrap();
    assert!(renew_restore(&mut db, &test, Duration::ZERO).await.unwrap(), "it is to end");
    let work = take_restore(&mut db, "default", holder, LEASE, 1).await.unwrap().unwrap();
    let again = take_restore(&mut db, "default", holder, LEASE, 1).await.unwrap().unwrap();
    let (work, again) = if work.restore.scheduled { (again, work) } else { (work, again) };
    assert_eq!((work.restore.view.id, again.restore.view.id), (asked, test.restore.view.id));
    assert!(makes_room(&mut db, "default").await.unwrap());
    end_restore(&mut db, &again, RestorePhase::Cancelled, "made room").await.unwrap();
    assert!(!makes_room(&mut db, "default").await.unwrap());
    assert!(last_test(&mut db, "default").await.unwrap().busy, "somebody waits");
    // Asked for in that moment all the same, it is not begun.
    ask_test(&mut db, "default", &snapshot(), Utc::now(), &Actor::new("schedule")).await.unwrap().unwrap();
    assert!(take_restore(&mut db, "default", holder, LEASE, 1).await.unwrap().is_none(), "the test waits");
    end_restore(&mut db, &work, RestorePhase::Succeeded, "done").await.unwrap();
    let again = take_restore(&mut db, "default", holder, LEASE, 1).await.unwrap().unwrap();
    assert!(again.restore.scheduled);

    // One that fails is told of as a backup.
    end_restore(&mut db, &again, RestorePhase::Failed, "differs").await.unwrap();
    let events = events_after(&mut db, 0, None, 100).await.unwrap();
    let of_it: Vec<_> = events.iter().filter(|one| one.detail["restore"] == json!(again.restore.view.id)).collect();
    assert!(of_it.len() == 1 && of_it[0].detail["kind"] == "test", "{of_it:?}");
    let last = last_test(&mut db, "default").await.unwrap();
    assert!(last.good.is_none() && last.last.is_some(), "{last:?}");
}
