//! What several replicas write of one cluster: switchovers, and where its data comes from.

use std::time::Duration;

use pgtenant_ledger::{
    ClusterSource, LedgerError, MoveStep, accept_history, ask_for_switchover, begin_switchover, closing_move, cluster,
    end_move, end_switchover, last_switchover, move_done, put_cluster, remove_cluster, renew_switchover, request_move,
    retry_move, set_cluster_status, take_move, take_switchover,
};
use pgtenant_model::{ClusterStatus, History, MoveMethod, MovePhase, OperationState};
use serde_json::json;

use crate::world::{LEASE, World, actor};

#[tokio::test]
async fn a_switchover_is_one_at_a_time_and_begun_once() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    let first = ask_for_switchover(&mut db, "default", Some("db2:5432"), &actor()).await.unwrap();
    let again = ask_for_switchover(&mut db, "default", None, &actor()).await.unwrap();
    assert_eq!(again, first, "the one that is open");

    // One replica is at it; when it says nothing for so long, another one is.
    let taken = take_switchover(&mut db, "default", LEASE).await.unwrap().unwrap();
    assert_eq!((taken.id, taken.state), (first.id, OperationState::Running));
    assert_eq!(take_switchover(&mut db, "default", LEASE).await.unwrap(), None);
    begin_switchover(&mut db, &taken, "db1:5432").await.unwrap();
    renew_switchover(&mut db, &taken, Duration::ZERO).await.unwrap();
    let left = take_switchover(&mut db, "default", LEASE).await.unwrap().unwrap();
    assert_eq!(left.before.as_deref(), Some("db1:5432"), "somebody may have asked");
    let twice = begin_switchover(&mut db, &left, "db1:5432").await;
    assert!(matches!(twice, Err(LedgerError::Fenced(_))), "{twice:?}");

    // Who ends it first has the last word, and the next wish is another one.
    end_switchover(&mut db, &left, Some("db2:5432"), "done").await.unwrap();
    let late = end_switchover(&mut db, &taken, None, "not done").await;
    assert!(matches!(late, Err(LedgerError::Fenced(_))), "{late:?}");
    let ended = last_switchover(&mut db, "default").await.unwrap().unwrap();
    assert_eq!((ended.state, ended.after.as_deref()), (OperationState::Succeeded, Some("db2:5432")));
    assert!(ended.finished_at.is_some());
    let next = ask_for_switchover(&mut db, "default", None, &actor()).await.unwrap();
    assert!(next.id != first.id && next.finished_at.is_none());
}

#[tokio::test]
async fn what_was_last_right_stays_until_a_person_says_otherwise() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    let history = |timeline| History { system: "7".to_owned(), timeline, accepted_at: None };
    let seen = |history, refused| ClusterStatus { history, refused, ..ClusterStatus::default() };
    for status in [
        seen(Some(history(1)), None),
        seen(Some(history(3)), None),
        // A replica that is late, one that sees no primary, and one that refuses it.
        seen(Some(history(2)), None),
        seen(None, None),
        seen(None, Some(history(1))),
    ] {
        set_cluster_status(&mut db, "default", &status).await.unwrap();
    }
    let known = cluster(&mut db, "default").await.unwrap().unwrap().status.0.history.unwrap();
    assert_eq!(known, history(3));

    assert!(!accept_history(&mut db, "default", &history(2), &actor()).await.unwrap(), "it is not what is refused");
    assert!(accept_history(&mut db, "default", &history(1), &actor()).await.unwrap());
    // A replica that has not heard of it yet.
    set_cluster_status(&mut db, "default", &seen(Some(history(3)), None)).await.unwrap();
    let known = cluster(&mut db, "default").await.unwrap().unwrap().status.0.history.unwrap();
    assert!(known.timeline == 1 && known.accepted_at.is_some(), "{known:?}");
}

#[tokio::test]
async fn a_cluster_that_a_database_is_moved_to_stays_until_that_is_over() {
    let world = World::new().await;
    let key = world.create("data").await.claim.key;
    let mut db = world.ledger.acquire().await.unwrap();
    let spec = cluster(&mut db, "default").await.unwrap().unwrap().spec.0;
    put_cluster(&mut db, "other", &spec, ClusterSource::Kubernetes).await.unwrap();
    request_move(&mut db, &key, "other", Some(MoveMethod::Replication), &actor()).await.unwrap();
    assert_eq!(remove_cluster(&mut db, "other", ClusterSource::Kubernetes).await.unwrap(), 1);
    let work = take_move(&mut db, "other", LEASE).await.unwrap().unwrap();
    assert_eq!(work.wanted, Some(MoveMethod::Replication));
    assert!(closing_move(&mut db, "default").await.unwrap().is_none(), "maintenance may begin");
    let following = Some(json!({"leftOut": []}));
    let step = MoveStep { method: Some(MoveMethod::Replication), following: following.clone(), ..MoveStep::default() };
    move_done(&mut db, &work, MovePhase::Rehearsing, "it follows", &step).await.unwrap();
    assert!(closing_move(&mut db, "default").await.unwrap().is_some(), "its log is kept");
    retry_move(&mut db, &work, "later", Duration::ZERO, false).await.unwrap();
    let work = take_move(&mut db, "other", LEASE).await.unwrap().unwrap();
    assert_eq!(work.following, following);
    end_move(&mut db, &work, MovePhase::Failed, "over", None).await.unwrap();
    assert_eq!(remove_cluster(&mut db, "other", ClusterSource::Kubernetes).await.unwrap(), 0);
}
