//! Restores and dumps: who may have them when, and what is left when a replica dies.

use std::time::Duration;

use pgtenant_ledger::{
    Actor, Aside, BackupEnd, Decision, Refused, StepDone, aside_done, cancel_restore, decide_restore, due_backups,
    end_backup, end_restore, forget, forget_removed, hold_claim, let_go, next_restore, note_dump, open_jobs,
    removed_before, request_backup, request_restore, restore, retry_restore, set_backup_at, step_done, take_backup,
    take_restore, undo_restore,
};
use pgtenant_model::{PutAside, RestorePhase, RestoreSpec};
use serde_json::json;
use uuid::Uuid;

use crate::world::{LEASE, World};

fn spec() -> RestoreSpec {
    serde_json::from_value(json!({"from": {"latest": true}})).unwrap()
}

fn actor(name: &str) -> Actor {
    Actor::new(name)
}

#[tokio::test]
async fn a_restore_is_taken_once_and_goes_on_where_it_was() {
    let world = World::new().await;
    let key = world.create("data").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    let asked = request_restore(&mut db, &key, &spec(), &actor("alice")).await.unwrap();
    assert_eq!(asked.view.phase, RestorePhase::Requested);
    let again = request_restore(&mut db, &key, &spec(), &actor("alice")).await.unwrap_err();
    assert!(matches!(again, Refused::RestoreOpen(_)), "{again}");
    let none = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap();
    assert!(none.is_none(), "nobody has said yes");

    let id = asked.view.id;
    decide_restore(&mut db, id, Decision::Approve, false, &actor("alice")).await.unwrap();
    assert_eq!(next_restore(&mut db, "default", 2).await.unwrap(), Some(Duration::ZERO));
    let first = take_restore(&mut db, "default", Uuid::now_v7(), Duration::ZERO, 2).await.unwrap().unwrap();
    let second = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap().unwrap();
    assert!(take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap().is_none(), "it is held");

    let done = StepDone { output: json!({"at": "then"}), ..StepDone::new(RestorePhase::Copying, "copies") };
    step_done(&mut db, &first, &done).await.expect_err("the first one's lease has run out");
    let after = step_done(&mut db, &second, &done).await.unwrap();
    assert_eq!((after.view.phase, &after.steps["at"]), (RestorePhase::Copying, &json!("then")));
    retry_restore(&mut db, &second, "the server is away", Duration::ZERO, true).await.unwrap();
    let third = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap().unwrap();
    assert_eq!((third.restore.attempts, third.restore.view.phase), (1, RestorePhase::Copying));
    assert_eq!(open_jobs(&mut db, "default").await.unwrap(), [id]);

    // The end, with something put aside, and the way back.
    let until = chrono::Utc::now() + chrono::TimeDelta::days(7);
    let before = Some(PutAside { database: "shop-data-before-1".to_owned(), until });
    let switched = StepDone { before, ..StepDone::new(RestorePhase::CleaningUp, "switched") };
    step_done(&mut db, &third, &switched).await.unwrap();
    assert!(cancel_restore(&mut db, id, &actor("alice")).await.is_err(), "too late");
    end_restore(&mut db, &third, RestorePhase::Succeeded, "done").await.unwrap();
    assert!(take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap().is_none(), "kept for a week");
    let late = "update restores set before_until = now() - interval '1 second'";
    sqlx::query(late).execute(&mut *db).await.unwrap();
    let refused = undo_restore(&mut db, id, false, &actor("alice")).await.unwrap_err();
    assert!(matches!(refused, Refused::NothingAside(_)), "it may be dropped at this moment: {refused}");
    sqlx::query("update restores set before_until = $1").bind(until).execute(&mut *db).await.unwrap();
    undo_restore(&mut db, id, false, &actor("alice")).await.unwrap();
    let undo = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap().unwrap();
    assert_eq!(undo.restore.undo_asked_by.as_deref(), Some("alice"));
    aside_done(&mut db, &undo, Aside::Stays, "somebody is connected").await.unwrap();
    let stays = restore(&mut db, id).await.unwrap().unwrap();
    assert_eq!((stays.undo_asked_by, stays.view.undone_at), (None, None));
    assert_eq!(stays.view.before.unwrap().database, "shop-data-before-1");
}

#[tokio::test]
async fn a_replica_that_was_killed_is_a_failed_try() {
    let world = World::new().await;
    let key = world.create("data").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    let id = request_restore(&mut db, &key, &spec(), &actor("alice")).await.unwrap().view.id;
    decide_restore(&mut db, id, Decision::Approve, false, &actor("alice")).await.unwrap();
    for attempts in 0..3 {
        let taken = take_restore(&mut db, "default", Uuid::now_v7(), Duration::ZERO, 2).await.unwrap().unwrap();
        assert_eq!(taken.restore.attempts, attempts);
    }
    request_backup(&mut db, &key, None, &actor("schedule")).await.unwrap();
    for attempts in 0..3 {
        let taken = take_backup(&mut db, "default", Uuid::now_v7(), Duration::ZERO, 2).await.unwrap().unwrap();
        assert_eq!(taken.attempts, attempts);
    }
}

#[tokio::test]
async fn a_namespace_has_so_many_restores_at_once_and_others_are_none_the_worse() {
    let world = World::new().await;
    let key = world.create("data").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    let many = "insert into restores (id, claim, namespace, name, cluster, spec, phase, requested_by)
                select gen_random_uuid(), gen_random_uuid(), $1, n::text, 'default', '{}', 'Requested', 'bob' from generate_series(1, 50) n";
    sqlx::query(many).bind(key.namespace()).execute(&mut *db).await.unwrap();
    let refused = request_restore(&mut db, &key, &spec(), &actor("alice")).await.unwrap_err();
    assert!(matches!(refused, Refused::TooManyRestores { .. }), "{refused}");
    sqlx::query("update restores set namespace = 'other'").execute(&mut *db).await.unwrap();
    request_restore(&mut db, &key, &spec(), &actor("alice")).await.unwrap();
}

#[tokio::test]
async fn none_is_begun_while_enough_are_on_their_way() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let key = world.create(name).await.claim.key;
        let id = request_restore(&mut db, &key, &spec(), &actor("alice")).await.unwrap().view.id;
        decide_restore(&mut db, id, Decision::Approve, false, &actor("alice")).await.unwrap();
        ids.push(id);
    }
    let first = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 1).await.unwrap().unwrap();
    step_done(&mut db, &first, &StepDone::new(RestorePhase::Preparing, "a copy of the cluster")).await.unwrap();
    let hour = Duration::from_secs(3600);
    retry_restore(&mut db, &first, "RDS makes the copy", hour, false).await.unwrap();
    assert!(
        take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 1).await.unwrap().is_none(),
        "it has its copy still"
    );
    let due = next_restore(&mut db, "default", 1).await.unwrap().unwrap();
    assert!(due > hour / 2, "nobody asks each moment: {due:?}");

    // Who does not want it any more does not wait, nor does a clean-up hold up others.
    cancel_restore(&mut db, ids[1], &actor("alice")).await.unwrap();
    let second = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap().unwrap();
    assert_eq!((second.restore.view.id, second.restore.cancel), (ids[1], true));
    sqlx::query("update restores set due_at = now()").execute(&mut *db).await.unwrap();
    let first = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 2).await.unwrap().unwrap();
    step_done(&mut db, &first, &StepDone::new(RestorePhase::CleaningUp, "goes")).await.unwrap();
    retry_restore(&mut db, &first, "RDS deletes the copy", hour, false).await.unwrap();
    let key = world.create("three").await.claim.key;
    let third = request_restore(&mut db, &key, &spec(), &actor("alice")).await.unwrap().view.id;
    decide_restore(&mut db, third, Decision::Approve, false, &actor("alice")).await.unwrap();
    end_restore(&mut db, &second, RestorePhase::Cancelled, "cancelled").await.unwrap();
    let taken = take_restore(&mut db, "default", Uuid::now_v7(), LEASE, 1).await.unwrap().unwrap();
    assert_eq!(taken.restore.view.id, third);
}

#[tokio::test]
async fn removed_claims_are_remembered_until_nothing_is_left_of_them() {
    let world = World::new().await;
    let gone = world.create("gone").await.claim.key;
    for name in ["back", "there"] {
        world.create(name).await;
    }
    let mut db = world.ledger.acquire().await.unwrap();
    sqlx::query("update claims set wish = 'absent' where name <> 'there'").execute(&mut *db).await.unwrap();
    for work in world.take(Uuid::now_v7(), 9, LEASE).await {
        if work.claim.key.name() != "there" {
            forget(&mut db, &work, "gone").await.unwrap();
        }
    }
    world.create("back").await;
    let now = chrono::Utc::now() + chrono::TimeDelta::seconds(5);
    assert_eq!(removed_before(&mut db, "default", now).await.unwrap(), std::slice::from_ref(&gone));
    assert!(removed_before(&mut db, "other", now).await.unwrap().is_empty());
    assert!(removed_before(&mut db, "default", now - chrono::TimeDelta::days(1)).await.unwrap().is_empty());
    forget_removed(&mut db, "default", &gone).await.unwrap();
    assert!(removed_before(&mut db, "default", now).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_held_claim_is_nobodys_until_it_is_let_go() {
    let world = World::new().await;
    let key = world.create("data").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    let id: Uuid = sqlx::query_scalar("select id from claims").fetch_one(&mut *db).await.unwrap();
    let (mine, other) = (Uuid::now_v7(), Uuid::now_v7());
    assert!(hold_claim(&mut db, id, mine).await.unwrap());
    assert!(hold_claim(&mut db, id, mine).await.unwrap(), "whoever goes on holds it again");
    assert!(!hold_claim(&mut db, id, other).await.unwrap());
    assert!(world.take(Uuid::now_v7(), 4, LEASE).await.is_empty(), "nobody looks at {key}");
    let_go(&mut db, other).await.unwrap();
    assert!(world.take(Uuid::now_v7(), 4, LEASE).await.is_empty(), "who does not hold it lets nothing go");
    let_go(&mut db, mine).await.unwrap();
    let taken = world.take(Uuid::now_v7(), 4, LEASE).await;
    assert_eq!(taken.len(), 1);
    assert!(!hold_claim(&mut db, id, mine).await.unwrap(), "somebody looks at it");
}

#[tokio::test]
async fn a_dump_is_asked_for_once_and_by_the_schedule() {
    let world = World::new().await;
    let key = world.create("data").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    let first = request_backup(&mut db, &key, None, &actor("alice")).await.unwrap();
    let again = request_backup(&mut db, &key, None, &actor("bob")).await.unwrap();
    assert_eq!(first.id, again.id);
    let work = take_backup(&mut db, "default", Uuid::now_v7(), LEASE, 1).await.unwrap().unwrap();
    assert!(take_backup(&mut db, "default", Uuid::now_v7(), LEASE, 1).await.unwrap().is_none());
    let end = BackupEnd::Again(Duration::ZERO);
    end_backup(&mut db, &work, &end, "the bucket is away").await.unwrap();
    let work = take_backup(&mut db, "default", Uuid::now_v7(), LEASE, 1).await.unwrap().unwrap();
    assert_eq!(work.attempts, 1);
    let made = "dump:20261122T020000Z-00000001".parse().unwrap();
    end_backup(&mut db, &work, &BackupEnd::Done(made), "made").await.unwrap();
    let other = request_backup(&mut db, &key, None, &actor("alice")).await.unwrap();
    assert_ne!(other.id, first.id);

    assert!(due_backups(&mut db, "default", 10).await.unwrap().is_empty(), "it can not be used yet");
    sqlx::query("update claims set state = 'Ready', roles = '{}'").execute(&mut *db).await.unwrap();
    let due = due_backups(&mut db, "default", 10).await.unwrap();
    assert!(due.len() == 1 && due[0].first && !due[0].dumped, "{due:?}");
    note_dump(&mut db, due[0].claim, chrono::Utc::now(), false).await.unwrap();
    assert!(due_backups(&mut db, "default", 10).await.unwrap()[0].dumped);
    set_backup_at(&mut db, due[0].claim, chrono::Utc::now() + chrono::TimeDelta::hours(1)).await.unwrap();
    assert!(due_backups(&mut db, "default", 10).await.unwrap().is_empty());
    let restored = restore(&mut db, first.id).await.unwrap();
    assert!(restored.is_none(), "a dump is no restore");
}

#[tokio::test]
async fn a_dump_that_is_under_way_is_not_the_one_that_is_asked_for_now() {
    let world = World::new().await;
    let key = world.create("data").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    let running = request_backup(&mut db, &key, None, &actor("schedule")).await.unwrap();
    let _work = take_backup(&mut db, "default", Uuid::now_v7(), LEASE, 1).await.unwrap().unwrap();
    let after = request_backup(&mut db, &key, None, &actor("alice")).await.unwrap();
    assert_ne!(after.id, running.id, "what was written since would not be in it");
    assert_eq!(request_backup(&mut db, &key, None, &actor("bob")).await.unwrap().id, after.id, "one waits");

    let (one, two) = ("dump:20261122T020000Z-00000001", "dump:20261122T030000Z-00000002");
    let (one, two) = (one.parse().unwrap(), two.parse().unwrap());
    let first = request_backup(&mut db, &key, Some(&one), &actor("alice")).await.unwrap();
    let second = request_backup(&mut db, &key, Some(&two), &actor("alice")).await.unwrap();
    assert_ne!(first.id, second.id, "each is tried");
    take_backup(&mut db, "default", Uuid::now_v7(), LEASE, 9).await.unwrap().unwrap();
    take_backup(&mut db, "default", Uuid::now_v7(), LEASE, 9).await.unwrap().unwrap();
    take_backup(&mut db, "default", Uuid::now_v7(), LEASE, 9).await.unwrap().unwrap();
    assert_eq!(request_backup(&mut db, &key, Some(&one), &actor("bob")).await.unwrap().id, first.id);
}
