//! Restores that objects of Kubernetes ask for, and what is told of those that are under way.

use pgtenant_ledger::{
    Actor, Decision, Refused, StepDone, cancel_restore, decide_restore, events_after, open_restores_by_phase,
    request_restore, request_restore_of_object, restore_of_object, step_done, take_restore,
};
use pgtenant_model::{ClaimKey, RestorePhase, RestoreSpec};
use serde_json::json;
use uuid::Uuid;

use crate::world::{LEASE, World};

fn spec() -> RestoreSpec {
    serde_json::from_value(json!({"from": {"latest": true}})).unwrap()
}

/// What one replica does with an object that it sees.
async fn ask(world: &World, key: &ClaimKey, object: &str) -> Result<Uuid, Refused> {
    let mut tx = world.begin().await;
    let asked = request_restore_of_object(&mut tx, key, &spec(), object, &Actor::new("kubernetes:team/back")).await?;
    tx.commit().await.unwrap();
    Ok(asked.view.id)
}

#[tokio::test]
async fn an_object_asks_once_whoever_sees_it_and_whatever_became_of_it() {
    let world = World::new().await;
    let key = world.create("data").await.claim.key;
    let (one, two) = tokio::join!(ask(&world, &key, "uid-1"), ask(&world, &key, "uid-1"));
    let id = one.unwrap();
    assert_eq!(two.unwrap(), id, "two replicas that see it at once");
    let other = ask(&world, &key, "uid-2").await.unwrap_err();
    assert!(matches!(other, Refused::RestoreOpen(_)), "{other}");

    let mut db = world.ledger.acquire().await.unwrap();
    cancel_restore(&mut db, id, &Actor::new("alice")).await.unwrap();
    assert_eq!(ask(&world, &key, "uid-1").await.unwrap(), id, "what is over is not asked for again");
    let second = ask(&world, &key, "uid-2").await.unwrap();
    assert_ne!(second, id, "another object of the same name");
    assert_eq!(restore_of_object(&mut db, "uid-2").await.unwrap().unwrap().view.id, second);
    assert!(restore_of_object(&mut db, "uid-3").await.unwrap().is_none());

    let events = events_after(&mut db, 0, None, 100).await.unwrap();
    let of_object = |uid: &str| events.iter().filter(|event| event.detail["object"] == uid).count();
    assert_eq!((of_object("uid-1"), of_object("uid-2")), (2, 1), "events say whose they are");
}

#[tokio::test]
async fn it_is_known_how_many_restores_wait_where_and_for_how_long() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    assert!(open_restores_by_phase(&mut db).await.unwrap().is_empty());
    let alice = Actor::new("alice");
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let key = world.create(name).await.claim.key;
        ids.push(request_restore(&mut db, &key, &spec(), &alice).await.unwrap().view.id);
    }
    let hour_ago = "update restores set phase_since = now() - interval '1 hour' where id = $1";
    for id in &ids {
        sqlx::query(hour_ago).bind(id).execute(&mut *db).await.unwrap();
    }
    let found = open_restores_by_phase(&mut db).await.unwrap();
    let swap = pgtenant_model::RestoreStrategy::Swap;
    let seen = (found.len(), found[0].phase, found[0].strategy, found[0].count);
    assert_eq!(seen, (1, RestorePhase::Requested, swap, 2), "{found:?}");
    assert!((3600.0..3700.0).contains(&found[0].longest), "{found:?}");

    // What moves on has not waited there.
    decide_restore(&mut db, ids[0], Decision::Approve, true, &Actor::new("bob")).await.unwrap();
    let work = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap().unwrap();
    let longest = async |db: &mut pgtenant_ledger::PgConnection, phase| {
        let found = open_restores_by_phase(db).await.unwrap();
        found.iter().find(|one| one.phase == phase).map(|one| one.longest)
    };
    assert!(longest(&mut db, RestorePhase::Approved).await.unwrap() < 60.0);
    step_done(&mut db, &work, &StepDone::new(RestorePhase::Copying, "copies")).await.unwrap();
    assert!(longest(&mut db, RestorePhase::Copying).await.unwrap() < 60.0);
    // The same phase again is no step further.
    sqlx::query(hour_ago).bind(ids[0]).execute(&mut *db).await.unwrap();
    step_done(&mut db, &work, &StepDone::new(RestorePhase::Copying, "copies again")).await.unwrap();
    assert!(longest(&mut db, RestorePhase::Copying).await.unwrap() > 3000.0);
    cancel_restore(&mut db, ids[1], &alice).await.unwrap();
    assert_eq!(longest(&mut db, RestorePhase::Requested).await, None, "it is over");
}
