//! Decisions and statuses, from objects and restores that are made up.

use chrono::{DateTime, TimeDelta, Utc};
use kube::api::ObjectMeta;
use pgtenant_ledger::{Refused, StoredRestore};
use pgtenant_model::{ClaimKey, Finding, InvalidField, LeftOut, Restore, RestorePhase, RestoreProgress, Verification};
use serde_json::json;

use super::decide::{Refusal, Step, decide, is_waiting, refusal};
use super::status::{refused, status};
use crate::crd::{PostgresqlRestore, RestoreResourceStatus};
use crate::time::time;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn object(spec: serde_json::Value) -> PostgresqlRestore {
    PostgresqlRestore {
        metadata: ObjectMeta {
            name: Some("back".into()),
            namespace: Some("ns".into()),
            uid: Some("uid".into()),
            generation: Some(1),
            creation_timestamp: Some(time(at(0))),
            ..ObjectMeta::default()
        },
        spec: serde_json::from_value(spec).unwrap(),
        status: None,
    }
}

fn newest() -> PostgresqlRestore {
    object(json!({"database": "db", "from": {"latest": true}}))
}

fn restore(phase: RestorePhase) -> StoredRestore {
    StoredRestore {
        view: Restore {
            id: uuid::Uuid::nil(),
            namespace: "ns".into(),
            name: "db".into(),
            cluster: "default".into(),
            spec: serde_json::from_value(json!({"from": {"latest": true}})).unwrap(),
            snapshot: None,
            phase,
            message: None,
            progress: RestoreProgress::default(),
            report: None,
            before: None,
            undone_at: None,
            requested_by: "kubernetes:ns/back".into(),
            decided_by: None,
            created_at: at(1),
            finished_at: None,
        },
        claim: uuid::Uuid::nil(),
        outcome: None,
        steps: json!({}),
        cancel: false,
        undo_asked_by: None,
        attempts: 0,
        object: Some("uid".into()),
        scheduled: false,
    }
}

/// `Approved Complete Failed`, each with its reason.
fn conditions(status: &RestoreResourceStatus) -> String {
    let each = status.conditions.iter().map(|one| format!("{}={} {}", one.type_, one.status, one.reason));
    each.collect::<Vec<_>>().join(", ")
}

#[test]
fn an_object_is_asked_for_until_it_was_or_was_refused_for_good() {
    let Step::Ask(wished) = decide(&newest(), None) else { panic!("it is new") };
    assert_eq!((wished.key.to_string(), wished.spec.from.latest), ("ns/db".to_owned(), true));
    assert_eq!(decide(&newest(), Some(&restore(RestorePhase::Failed))), Step::Keep);

    let waits = Refusal { reason: "NotFound", message: "there is none".into(), last: false };
    let told = refused(&newest(), &waits, at(2));
    let waiting = PostgresqlRestore { status: Some(told), ..newest() };
    assert!(is_waiting(&waiting) && matches!(decide(&waiting, None), Step::Ask(_)));
    let told = refused(&newest(), &Refusal { last: true, ..waits }, at(2));
    assert_eq!(decide(&PostgresqlRestore { status: Some(told), ..newest() }, None), Step::Keep);

    let told = status(&newest(), &restore(RestorePhase::Succeeded), at(2));
    let known = PostgresqlRestore { status: Some(told), ..newest() };
    assert_eq!(decide(&known, None), Step::Keep, "the ledger was set back: nothing is restored a second time");
}

#[test]
fn a_wish_is_what_rest_would_be_asked_for() {
    let spec = json!({"database": "db", "from": {"time": "2026-11-20T03:00:00.5Z"}, "strategy": "copy",
                      "copyName": "old", "reason": "why"});
    let Step::Ask(wished) = decide(&object(spec), None) else { panic!("it is right") };
    let asked = serde_json::to_value(&wished.spec).unwrap();
    let wanted = json!({"from": {"time": "2026-11-20T03:00:00.500Z"}, "strategy": "copy", "copyName": "old",
                        "reason": "why"});
    assert_eq!(asked, wanted);

    for (spec, field) in [
        (json!({"database": "db", "from": {"snapshot": "s3:x"}}), "from.snapshot"),
        (json!({"database": "db", "from": {}}), "from: name one"),
        (json!({"database": "db", "from": {"latest": true}, "strategy": "copy"}), "copyName"),
        (json!({"database": "db", "from": {"latest": true}, "strategy": "copy", "copyName": "db"}), "copyName"),
        (json!({"database": "d".repeat(53), "from": {"latest": true}}), "database"),
    ] {
        let Step::Refuse(Refusal { reason, message, last }) = decide(&object(spec), None) else { panic!("{field}") };
        assert!((reason, last) == ("Invalid", true) && message.contains(field), "{message}");
    }
}

#[test]
fn what_others_can_put_right_is_waited_for_an_hour_and_nothing_else() {
    let key = || ClaimKey::new("ns", "db").unwrap();
    let waits = [
        Refused::NotFound(key()),
        Refused::Deleting(key()),
        Refused::Retained(key()),
        Refused::TooManyRestores { namespace: "shop".into(), limit: 50 },
    ];
    for one in waits {
        let early = refusal(&one, &newest(), at(3599));
        assert!(!early.last && early.message.contains("until 01:00 UTC"), "{early:?}");
        let late = refusal(&one, &newest(), at(3600));
        assert!(late.last && late.message.contains("make another object"), "{late:?}");
    }
    for one in [Refused::RestoreOpen(key()), Refused::Invalid(vec![InvalidField::new("cluster", "is not there")])] {
        assert!(refusal(&one, &newest(), at(1)).last, "{one}");
    }
}

#[test]
fn conditions_tell_what_people_and_kubectl_wait_for() {
    let told = |restore: &StoredRestore| conditions(&status(&newest(), restore, at(2)));
    let of = |phase, by: Option<&str>| {
        let mut one = restore(phase);
        one.view.decided_by = by.map(str::to_owned);
        told(&one)
    };
    use RestorePhase::{Cancelled, Copying, Failed, Rejected, Requested, Succeeded};
    assert_eq!(of(Requested, None), "Approved=False Requested, Complete=False Requested, Failed=False Requested");
    assert_eq!(of(Copying, None), "Approved=True NotNeeded, Complete=False Copying, Failed=False Copying");
    assert_eq!(of(Copying, Some("bob")), "Approved=True Approved, Complete=False Copying, Failed=False Copying");
    assert_eq!(of(Succeeded, Some("bob")), "Approved=True Approved, Complete=True Succeeded, Failed=False Succeeded");
    assert_eq!(of(Failed, Some("bob")), "Approved=True Approved, Complete=False Failed, Failed=True Failed");
    assert_eq!(of(Rejected, Some("bob")), "Approved=False Rejected, Complete=False Rejected, Failed=True Rejected");
    assert_eq!(of(Cancelled, None), "Approved=False Cancelled, Complete=False Cancelled, Failed=True Cancelled");

    let waits = status(&newest(), &restore(Requested), at(2));
    assert!(waits.message.unwrap().contains("pgtenant restore approve 00000000-"));
    let refusal = Refusal { reason: "NotFound", message: "there is none".into(), last: false };
    let told = refused(&newest(), &refusal, at(2));
    assert_eq!(
        (conditions(&told), told.phase),
        ("Approved=False NotFound, Complete=False NotFound, Failed=False NotFound".to_owned(), None)
    );
    let told = refused(&newest(), &Refusal { last: true, ..refusal }, at(2));
    assert_eq!((&*told.conditions[2].status, told.phase.as_deref()), ("True", Some("Failed")));
}

#[test]
fn a_condition_keeps_the_time_of_its_last_transition() {
    let first = status(&newest(), &restore(RestorePhase::Copying), at(2));
    let known = PostgresqlRestore { status: Some(first), ..newest() };
    let later = status(&known, &restore(RestorePhase::Succeeded), at(9));
    let since = later.conditions.iter().map(|one| one.last_transition_time.0.as_second()).collect::<Vec<_>>();
    assert_eq!(since, [2, 9, 2]);
}

#[test]
fn progress_is_told_at_each_percent_and_at_the_end() {
    let copied = |bytes, known: Option<RestoreResourceStatus>, phase| {
        let mut one = restore(phase);
        let tables_total = Some(4);
        one.view.progress =
            RestoreProgress { bytes, bytes_total: Some(1000), tables: 1, tables_total, estimated_end: None };
        status(&PostgresqlRestore { status: known, ..newest() }, &one, at(3))
    };
    let first = copied(501, None, RestorePhase::Copying);
    assert_eq!(first.progress.as_ref().unwrap().percent, Some(50));
    assert_eq!(copied(509, Some(first.clone()), RestorePhase::Copying), first, "nothing is written");
    assert_eq!(copied(510, Some(first.clone()), RestorePhase::Copying).progress.unwrap().bytes, 510);
    assert_eq!(copied(509, Some(first), RestorePhase::Failed).progress.unwrap().bytes, 509);
    assert_eq!(status(&newest(), &restore(RestorePhase::Approved), at(2)).progress, None);
}

#[test]
fn a_report_is_summed_up() {
    let finding = |number| Finding { object: format!("table {number}"), message: "5 rows of 6".into() };
    let left = LeftOut { object: "extension postgis".into(), reason: "not trusted".into(), remedy: "ask".into() };
    let report = Verification {
        rows: u64::MAX,
        tables: 20,
        differences: (0..20).map(finding).collect(),
        left_out: vec![left.clone()],
        ..Verification::default()
    };
    let mut one = restore(RestorePhase::Failed);
    one.view.report = Some(report);
    let told = status(&newest(), &one, at(2)).report.unwrap();
    assert_eq!((told.rows, told.tables, told.differences, told.left_out), (i64::MAX, 20, 20, 1));
    assert_eq!((told.findings.len(), &*told.findings[0]), (10, "table 0: 5 rows of 6"));
    one.view.report = Some(Verification { left_out: vec![left], ..Verification::default() });
    let told = status(&newest(), &one, at(2)).report.unwrap();
    assert_eq!(told.findings, ["extension postgis: not trusted; ask"]);
}
