//! Decisions and statuses, from objects and claims that are made up.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use kube::api::ObjectMeta;
use pgtenant_ledger::{Claim, Wish};
use pgtenant_model::{
    ClaimKey, ClaimSpec, Condition, ConditionStatus, DatabaseState, Endpoint, Mode, RoleStatus, Roles, Source,
    StoreLocation,
};

use super::decide::{Ending, Refusal, Step, decide, ending};
use super::status::{nothing_to_tell, status};
use crate::crd::{DatabaseStatus, PostgresqlDatabase, PostgresqlDatabaseSpec};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn object(generation: i64) -> PostgresqlDatabase {
    PostgresqlDatabase {
        metadata: ObjectMeta {
            name: Some("db".into()),
            namespace: Some("ns".into()),
            uid: Some("uid".into()),
            generation: Some(generation),
            ..ObjectMeta::default()
        },
        spec: PostgresqlDatabaseSpec {
            mode: Mode::Standard,
            cluster: "default".into(),
            schemas: Vec::new(),
            extensions: Vec::new(),
            connection_limit: None,
            slack_channel: None,
        },
        status: None,
    }
}

fn claim(wish: Wish) -> Claim {
    Claim {
        id: uuid::Uuid::nil(),
        key: ClaimKey::new("ns", "db").unwrap(),
        spec: ClaimSpec::default(),
        moved_from: Vec::new(),
        source: Source::Kubernetes,
        source_ref: Some("uid".into()),
        source_generation: Some(1),
        wish,
        released: false,
        adopt: false,
        purge: false,
        rotate: Vec::new(),
        rotate_at: None,
        asked_at: None,
        keep_at: None,
        proven_at: None,
        generation: 1,
        observed_generation: 0,
        state: DatabaseState::Provisioning,
        conditions: Vec::new(),
        endpoint: None,
        roles: None,
        credentials: BTreeMap::new(),
        created_at: at(0),
        wished_at: at(0),
        due_at: at(0),
        attempts: 0,
    }
}

fn ready_claim() -> Claim {
    let role = |store: &str| RoleStatus {
        role: "r".into(),
        login: "r".into(),
        set_at: Some(at(5)),
        stores: vec![StoreLocation::new(store, "ns/r")],
    };
    let condition = Condition {
        kind: "Ready".into(),
        status: ConditionStatus::True,
        reason: "Provisioned".into(),
        message: "connect".into(),
        last_transition_time: at(7),
    };
    Claim {
        observed_generation: 1,
        state: DatabaseState::Ready,
        conditions: vec![condition],
        endpoint: Some(Endpoint { host: "h".into(), port: 5432, read_host: None, read_port: None }),
        roles: Some(Roles { read: role("kubernetes"), write: role("file"), admin: role("externalSecret") }),
        ..claim(Wish::Present)
    }
}

fn ready(status: &DatabaseStatus) -> (&str, &str, i64) {
    let one = &status.conditions[0];
    assert_eq!(one.type_, "Ready", "it comes first");
    (&one.status, &one.reason, one.last_transition_time.0.as_second())
}

#[test]
fn a_wish_is_written_down_once_for_each_generation() {
    assert!(matches!(decide(&object(1), None), Step::Create(_)));
    assert_eq!(decide(&object(1), Some(&claim(Wish::Present))), Step::Keep);
    assert!(matches!(decide(&object(2), Some(&claim(Wish::Present))), Step::Update(_)));
    let another = Claim { source_ref: Some("older".into()), ..claim(Wish::Present) };
    assert!(matches!(decide(&object(1), Some(&another)), Step::Update(_)), "an object that was made again");
}

#[test]
fn what_was_released_stays_so_until_the_object_is_made_again() {
    let kept = claim(Wish::Retained);
    assert!(matches!(decide(&object(1), Some(&kept)), Step::Create(_)), "its definition is back");
    let released = Claim { released: true, ..kept };
    assert_eq!(decide(&object(1), Some(&released)), Step::Keep);
    let another = Claim { source_ref: Some("older".into()), ..released.clone() };
    assert!(matches!(decide(&object(1), Some(&another)), Step::Create(_)));
    let from_apps = Claim { source: Source::Apps, ..released };
    assert!(matches!(decide(&object(1), Some(&from_apps)), Step::Create(_)), "this door takes it over");
    assert_eq!(decide(&object(1), Some(&claim(Wish::Absent))), Step::Keep, "first it has to be gone");
}

#[test]
fn another_doors_claim_and_a_bad_name_are_refused_with_the_reason() {
    let reason = |step| match step {
        Step::Refuse(Refusal { reason, message }) => (reason, message),
        other => panic!("{other:?}"),
    };
    let other = Claim { source: Source::Api, ..claim(Wish::Present) };
    let (word, message) = reason(decide(&object(1), Some(&other)));
    assert_eq!(word, "OtherDoor");
    assert!(message.contains("managed by api"), "{message}");
    let mut long = object(1);
    long.metadata.name = Some("d".repeat(53));
    let (word, message) = reason(decide(&long, None));
    assert_eq!(word, "Invalid");
    assert!(message.contains("has 56 bytes; at most 55"), "{message}");
}

#[test]
fn deletion_ends_what_this_door_has_made_and_nothing_else() {
    assert!(matches!(ending(Some(claim(Wish::Present))), Ending::Withdraw(_)));
    assert!(matches!(ending(Some(claim(Wish::Absent))), Ending::Wait(_)));
    assert!(matches!(ending(Some(claim(Wish::Retained))), Ending::Done));
    let other = Claim { source: Source::Apps, ..claim(Wish::Present) };
    assert!(matches!(ending(Some(other)), Ending::Done));
    assert!(matches!(ending(None), Ending::Done));
}

#[test]
fn a_status_speaks_of_a_generation_only_when_it_was_tried() {
    let fresh = status(&object(1), Some(&claim(Wish::Present)), None, at(9));
    assert_eq!((ready(&fresh), fresh.observed_generation), (("Unknown", "Pending", 9), None));

    let done = status(&object(1), Some(&ready_claim()), None, at(9));
    assert_eq!((ready(&done), done.observed_generation), (("True", "Provisioned", 7), Some(1)));
    let roles = done.roles.clone().unwrap();
    assert_eq!((roles.read.secret.as_deref(), roles.read.stores.len()), (Some("r"), 0));
    assert_eq!((roles.write.secret, roles.write.stores.len()), (None, 1));
    assert_eq!(roles.admin.secret.as_deref(), Some("r"));

    let changed = PostgresqlDatabase { status: Some(done), ..object(2) };
    let under_way = Claim { generation: 2, ..ready_claim() };
    assert_eq!(status(&changed, Some(&under_way), None, at(9)).observed_generation, Some(1));
    let failed = Claim { attempts: 1, ..under_way };
    assert_eq!(status(&changed, Some(&failed), None, at(9)).observed_generation, Some(2));
}

#[test]
fn a_refusal_keeps_its_transition_time() {
    let refusal = Refusal { reason: "NameTaken", message: "taken".into() };
    let first = status(&object(1), None, Some(&refusal), at(3));
    assert_eq!((ready(&first), first.state.as_deref()), (("False", "NameTaken", 3), Some("Failed")));
    let known = PostgresqlDatabase { status: Some(first), ..object(1) };
    let other = Refusal { reason: "QuotaExceeded", message: "full".into() };
    let second = status(&known, None, Some(&other), at(8));
    assert_eq!(ready(&second), ("False", "QuotaExceeded", 3), "it was False all the time");

    let kept = status(&object(2), Some(&ready_claim()), Some(&refusal), at(8));
    assert!(kept.conditions[0].message.ends_with("The database stays as it was"));
}

#[test]
fn what_is_kept_or_going_says_so() {
    let retained = Claim { wish: Wish::Retained, state: DatabaseState::Retained, ..ready_claim() };
    assert_eq!(ready(&status(&object(1), Some(&retained), None, at(9))), ("False", "Released", 9));
    let going = Claim { wish: Wish::Absent, state: DatabaseState::Deleting, ..ready_claim() };
    assert_eq!(ready(&status(&object(1), Some(&going), None, at(9))), ("False", "Deleting", 9));
    let mut stuck = going;
    stuck.conditions[0].status = ConditionStatus::False;
    stuck.conditions[0].reason = "ClusterUnavailable".into();
    assert_eq!(ready(&status(&object(1), Some(&stuck), None, at(9))), ("False", "ClusterUnavailable", 7));
}

#[test]
fn a_claim_that_is_ready_soon_is_not_told_that_it_waits() {
    let (new, now) = (claim(Wish::Present), at(4));
    let wait = |object: &PostgresqlDatabase, claim: &Claim, now| {
        nothing_to_tell(object, claim, now).map(|left| left.as_secs())
    };
    assert_eq!(wait(&object(1), &new, now), Some(1));
    assert_eq!(wait(&object(1), &new, at(-3)), Some(5), "the ledger's clock is ahead");
    assert_eq!(wait(&object(1), &new, at(10)), None, "it waits for long");
    assert_eq!(wait(&object(1), &ready_claim(), now), None);
    assert_eq!(wait(&object(1), &Claim { attempts: 1, ..new.clone() }, now), None, "it was tried");
    assert_eq!(wait(&object(1), &Claim { wish: Wish::Absent, ..new.clone() }, now), None);
    let told = PostgresqlDatabase { status: Some(DatabaseStatus::default()), ..object(1) };
    assert_eq!(wait(&told, &new, now), None);
}
