//! Wishes for new passwords.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use pgtenant_ledger::{
    CredentialState, Finished, LedgerError, NextPassword, Rotating, Take, Work, claims_with_credentials, finish,
    look_soon, next_due, note_credentials, purge, release, remove, rotate_cluster, rotating, take,
};
use pgtenant_model::{Side, Source, Tier};
use uuid::Uuid;

use crate::world::{LEASE, World, actor, ready};

const LOOKS: Take = Take { holder: Uuid::nil(), limit: 9, urgent: false, lease: LEASE, head_start: Duration::ZERO };

async fn one(world: &World, holder: Uuid) -> Work {
    let [work] = <[Work; 1]>::try_from(world.take(holder, 1, LEASE).await).unwrap();
    work
}

async fn ended(world: &World, work: &Work, finished: Finished) {
    let mut tx = world.begin().await;
    finish(&mut tx, work, &finished).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_whole_cluster_is_asked_for_one_claim_after_the_other() {
    let world = World::new().await;
    let mut keys = Vec::new();
    for number in 0..4 {
        keys.push(world.create(&format!("db-{number}")).await.claim.key);
    }
    for work in world.take(Uuid::new_v4(), 4, LEASE).await {
        ended(&world, &work, ready()).await;
    }
    let mut db = world.ledger.acquire().await.unwrap();
    release(&mut db, &keys[3], None, &actor()).await.unwrap();
    let asked = rotate_cluster(&mut db, "default", Duration::from_secs(60), &actor()).await.unwrap();
    assert_eq!(asked, 3, "what is Retained is not managed");
    assert_eq!(rotate_cluster(&mut db, "default", Duration::ZERO, &actor()).await.unwrap(), 0, "they keep their turn");
    assert_eq!(rotate_cluster(&mut db, "other", Duration::ZERO, &actor()).await.unwrap(), 0);
    assert_eq!(rotating(&mut db, "default").await.unwrap(), Rotating { left: 3, failing: 0 });

    let work = one(&world, Uuid::new_v4()).await;
    assert_eq!((&work.claim.key, work.claim.rotate.as_slice()), (&keys[0], &Tier::ALL[..]), "the first one now");
    assert!(world.take(Uuid::new_v4(), 9, LEASE).await.is_empty(), "the next one in a minute");
    ended(&world, &work, Finished { done: false, next: Duration::from_secs(3600), ..ready() }).await;
    assert_eq!(rotating(&mut db, "default").await.unwrap(), Rotating { left: 3, failing: 1 });
    let last = world.claim(&keys[2]).await.unwrap();
    let turn = last.rotate_at.unwrap() - Utc::now();
    assert!((100..=120).contains(&turn.num_seconds()), "{turn}");
    assert!(last.asked().is_empty(), "a look before its turn replaces nothing");

    // A failover asks for a look at once, which is no turn.
    look_soon(&mut db, "default", Duration::ZERO).await.unwrap();
    let looked = take(&mut db, "default", LOOKS).await.unwrap();
    assert_eq!(looked.iter().map(|work| &work.claim.key).collect::<Vec<_>>(), [&keys[1], &keys[2]]);
    for work in looked {
        assert!(work.claim.asked().is_empty());
        ended(&world, &work, ready()).await;
    }
    assert_eq!(rotating(&mut db, "default").await.unwrap().left, 3);
    sqlx::query("update claims set rotate_at = now() where rotate_at is not null").execute(&mut *db).await.unwrap();
    let [second, third] = <[Work; 2]>::try_from(world.take(Uuid::new_v4(), 2, LEASE).await).unwrap();
    assert_eq!((second.claim.asked().len(), second.urgent), (Tier::ALL.len(), true));
    // Whoever dies with it leaves a claim that is due.
    sqlx::query("update claims set lease_until = now() - interval '1 second' where id = $1")
        .bind(third.claim.id)
        .execute(&mut *db)
        .await
        .unwrap();
    assert_eq!(one(&world, Uuid::new_v4()).await.claim.asked().len(), Tier::ALL.len());
}

#[tokio::test]
async fn work_on_credentials_does_not_wait_for_a_look() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let work = one(&world, Uuid::new_v4()).await;
    ended(&world, &work, Finished { keep: Some(Duration::ZERO), proven: Some(true), ..ready() }).await;
    assert!(world.claim(&key).await.unwrap().proven_at.is_some());
    let mut db = world.ledger.acquire().await.unwrap();
    let (wait, _) = next_due(&mut db, "default").await.unwrap();
    assert_eq!(wait, Some(Duration::ZERO));
    let work = one(&world, Uuid::new_v4()).await;
    assert!(!work.urgent, "nobody waits for it");
    // A try that failed is tried again at its own time.
    let failed = Finished { done: false, next: Duration::from_secs(60), proven: Some(false), ..ready() };
    ended(&world, &work, failed).await;
    assert!(world.take(Uuid::new_v4(), 9, LEASE).await.is_empty());
    assert_eq!(world.claim(&key).await.unwrap().proven_at, None);
}

#[tokio::test]
async fn after_a_failover_what_was_proven_is_to_be_proven_again() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let work = one(&world, Uuid::new_v4()).await;
    ended(&world, &work, Finished { proven: Some(true), ..ready() }).await;
    let mut db = world.ledger.acquire().await.unwrap();
    look_soon(&mut db, "default", Duration::ZERO).await.unwrap();
    assert_eq!(world.claim(&key).await.unwrap().proven_at, None);
    // What was under work while the primary changed was proven on the former one.
    let work = take(&mut db, "default", LOOKS).await.unwrap().remove(0);
    look_soon(&mut db, "default", Duration::ZERO).await.unwrap();
    ended(&world, &work, Finished { proven: Some(true), ..ready() }).await;
    let claim = world.claim(&key).await.unwrap();
    assert_eq!(claim.proven_at, None);
    assert!(claim.due_at - Utc::now() < chrono::TimeDelta::seconds(3), "it is looked at again soon");
}

#[tokio::test]
async fn a_wish_for_all_during_a_rotation_of_one_tier_is_answered_for_all() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    pgtenant_ledger::rotate(&mut db, &key, &[Tier::Read], &actor()).await.unwrap();
    let work = one(&world, Uuid::new_v4()).await;
    rotate_cluster(&mut db, "default", Duration::from_secs(60), &actor()).await.unwrap();
    ended(&world, &work, Finished { rotated: work.claim.asked().to_vec(), ..ready() }).await;
    let claim = world.claim(&key).await.unwrap();
    assert_eq!(claim.asked().len(), Tier::ALL.len(), "the one that was under way does not answer it");
    assert!(claim.due_at - Utc::now() < chrono::TimeDelta::seconds(3));
}

#[tokio::test]
async fn what_is_released_under_work_asks_for_no_new_password_either() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let work = one(&world, Uuid::new_v4()).await;
    let mut db = world.ledger.acquire().await.unwrap();
    release(&mut db, &key, None, &actor()).await.unwrap();
    ended(&world, &work, Finished { waits: true, to_rotate: vec![Tier::Write], ..ready() }).await;
    assert_eq!(world.claim(&key).await.unwrap().rotate, []);
}

#[tokio::test]
async fn what_is_kept_asks_for_no_new_password() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    rotate_cluster(&mut db, "default", Duration::from_secs(60), &actor()).await.unwrap();
    release(&mut db, &key, None, &actor()).await.unwrap();
    let kept = world.claim(&key).await.unwrap();
    assert_eq!((kept.rotate.as_slice(), kept.rotate_at), (&[][..], None), "it is taken back with the passwords it has");
}

#[tokio::test]
async fn a_wish_for_one_tier_is_no_reason_to_pass_a_claim_over() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    pgtenant_ledger::rotate(&mut db, &key, &[Tier::Read], &actor()).await.unwrap();
    let before = world.claim(&key).await.unwrap();
    assert_eq!(rotate_cluster(&mut db, "default", Duration::from_secs(60), &actor()).await.unwrap(), 1);
    let claim = world.claim(&key).await.unwrap();
    assert_eq!((claim.rotate_at, claim.due_at), (None, before.due_at), "when it is its turn anyway");
    assert_eq!(claim.asked().len(), 3, "all tiers");
    assert!(claim.asked_at > before.asked_at, "what is under way does not answer it");
}

#[tokio::test]
async fn what_is_to_be_replaced_later_is_written_down() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let work = one(&world, Uuid::new_v4()).await;
    ended(&world, &work, Finished { waits: true, to_rotate: vec![Tier::Write], ..ready() }).await;
    assert_eq!(world.claim(&key).await.unwrap().rotate, [Tier::Write]);
}

#[tokio::test]
async fn a_removal_for_good_that_is_asked_for_late_is_not_lost() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    remove(&mut db, &key, Source::Api, None, &actor()).await.unwrap();
    let work = one(&world, Uuid::new_v4()).await;
    purge(&mut db, &key).await.unwrap();
    let mut tx = world.begin().await;
    let forgotten = pgtenant_ledger::forget(&mut tx, &work, "gone").await;
    assert!(matches!(forgotten, Err(LedgerError::Fenced(_))), "{forgotten:?}");
    tx.rollback().await.unwrap();
    assert!(world.claim(&key).await.unwrap().purge, "and looked at once more");
}

#[tokio::test]
async fn whoever_is_at_work_on_a_claim_finds_the_wish_afterwards() {
    let world = World::new().await;
    world.create("db").await;
    let work = one(&world, Uuid::new_v4()).await;
    let mut db = world.ledger.acquire().await.unwrap();
    assert_eq!(rotate_cluster(&mut db, "default", Duration::ZERO, &actor()).await.unwrap(), 1);
    ended(&world, &work, Finished { rotated: work.claim.rotate.clone(), ..ready() }).await;
    let again = one(&world, Uuid::new_v4()).await;
    assert_eq!(again.claim.asked().len(), Tier::ALL.len(), "at once, and not at the next look");
}

#[tokio::test]
async fn a_wish_that_has_to_wait_stays_open() {
    let world = World::new().await;
    let written = world.create("db").await;
    let work = one(&world, Uuid::new_v4()).await;
    let waits = Finished { waits: true, step: Some("rotate"), message: Some("waits".to_owned()), ..ready() };
    ended(&world, &work, Finished { next: Duration::ZERO, ..waits }).await;
    let mut db = world.ledger.acquire().await.unwrap();
    let operation = pgtenant_ledger::operation(&mut db, written.operation.unwrap().id).await.unwrap().unwrap();
    assert_eq!((operation.step.as_deref(), operation.finished_at), (Some("rotate"), None));
    let again = one(&world, Uuid::new_v4()).await;
    assert_eq!(again.claim.attempts, 0, "nothing has failed");
}

#[tokio::test]
async fn what_is_about_to_be_set_is_noted_by_its_holder_alone() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let stalled = one(&world, Uuid::new_v4()).await;
    let now = Utc::now();
    let next = NextPassword { fingerprint: "f".repeat(32), reason: "asked for".to_owned(), made_at: now };
    let state = CredentialState {
        fingerprint: "0".repeat(32),
        side: Side::B,
        set_at: now,
        former_since: Some(now),
        next: Some(next),
        cleaned: None,
    };
    let states = BTreeMap::from([(Tier::Write, state)]);
    let mut db = world.ledger.acquire().await.unwrap();
    note_credentials(&mut db, &stalled, &states).await.unwrap();
    assert_eq!(world.claim(&key).await.unwrap().credentials, states);
    // Another replica has it by now.
    let sql = "update claims set lease_until = now() - interval '1 second'";
    sqlx::query(sql).execute(&mut *db).await.unwrap();
    one(&world, Uuid::new_v4()).await;
    let late = note_credentials(&mut db, &stalled, &BTreeMap::new()).await;
    assert!(matches!(late, Err(LedgerError::Fenced(_))), "{late:?}");
    assert_eq!(world.claim(&key).await.unwrap().credentials, states);
}

#[tokio::test]
async fn only_what_is_being_removed_is_removed_for_good() {
    let world = World::new().await;
    let key = world.create("db").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    purge(&mut db, &key).await.unwrap();
    assert!(!world.claim(&key).await.unwrap().purge);
    remove(&mut db, &key, Source::Api, None, &actor()).await.unwrap();
    purge(&mut db, &key).await.unwrap();
    assert!(world.claim(&key).await.unwrap().purge);
}

#[tokio::test]
async fn who_can_do_it_better_goes_first() {
    let world = World::new().await;
    world.create("db").await;
    let mut db = world.ledger.acquire().await.unwrap();
    let head_start = Duration::from_secs(60);
    let cut_off = Take { holder: Uuid::new_v4(), limit: 1, urgent: true, lease: LEASE, head_start };
    assert!(take(&mut db, "default", cut_off).await.unwrap().is_empty());
    sqlx::query("update claims set due_at = now() - interval '61 seconds'").execute(&mut *db).await.unwrap();
    assert_eq!(take(&mut db, "default", cut_off).await.unwrap().len(), 1, "nobody else does it");
}

#[tokio::test]
async fn credentials_that_are_to_stay_are_told_from_others() {
    let world = World::new().await;
    let mut keys = Vec::new();
    for name in ["kept", "new", "released", "removed"] {
        keys.push(world.create(name).await.claim.key);
    }
    let known = CredentialState {
        fingerprint: "one".to_owned(),
        side: Side::A,
        set_at: Utc::now(),
        former_since: None,
        next: None,
        cleaned: None,
    };
    for work in world.take(Uuid::new_v4(), 4, LEASE).await {
        let stored = work.claim.key != keys[1];
        let credentials: BTreeMap<_, _> = stored.then(|| (Tier::Read, known.clone())).into_iter().collect();
        ended(&world, &work, Finished { credentials, ..ready() }).await;
    }
    let mut db = world.ledger.acquire().await.unwrap();
    release(&mut db, &keys[2], None, &actor()).await.unwrap();
    remove(&mut db, &keys[3], Source::Api, None, &actor()).await.unwrap();
    assert_eq!(claims_with_credentials(&mut db, "default").await.unwrap(), [keys[0].clone(), keys[2].clone()]);
    assert!(claims_with_credentials(&mut db, "other").await.unwrap().is_empty());
}
