//! Copies of a cluster, and its snapshots, on the wire.

use std::collections::BTreeSet;

use pgtenant_aws::{Aws, StandIn};
use pgtenant_model::AuroraTopology;
use pgtenant_rds::{
    ClusterSnapshot, Copy, CopyName, CopyState, Origin, Rds, Removal, TAKEN_PREFIX, actions, permissions,
};
use pgtenant_testkit::{FakeRds, unique};
use serde_json::json;
use uuid::Uuid;

async fn fake() -> (FakeRds, Rds) {
    let fake = FakeRds::start("db.example", 5432).await;
    let [url, region, access_key_id, secret_access_key] = [fake.url(), "us-east-1", "any", "any"].map(str::to_owned);
    let aws = Aws::stand_in(StandIn { url, region, access_key_id, secret_access_key });
    let rds = Rds::new(&aws, "eu-west-1");
    fake.add_cluster("shared", 0);
    fake.set("shared", "MasterUsername", "master");
    fake.set("shared", "EarliestRestorableTime", "2026-11-01T00:00:00Z");
    fake.set("shared", "LatestRestorableTime", "2026-11-20T12:00:00Z");
    fake.add_snapshot("shared", "rds:shared-2026-11-20-02-14", "2026-11-20T02:14:05Z", true);
    (fake, rds)
}

fn copy(of: &pgtenant_rds::Cluster, restore: Uuid, origin: Origin) -> Copy<'_> {
    Copy { name: CopyName::of(restore), restore, of, origin, security_groups: Vec::new(), max_acu: 4.0 }
}

#[tokio::test]
async fn a_copy_is_made_once_and_removed_whole() {
    let (fake, rds) = fake().await;
    let shared = rds.cluster("shared").await.unwrap().unwrap();
    let id = Uuid::from_u128(7);
    let name = CopyName::of(id);
    assert_eq!(name.as_str(), "pgtenant-restore-000000000007");
    assert_eq!(rds.copy_state(&name, id).await.unwrap(), CopyState::Missing);
    let at = "2026-11-20T03:00:00Z".parse().unwrap();
    for origin in
        [Origin::Snapshot("rds:shared-2026-11-20-02-14".to_owned(), Some("16.6".to_owned())), Origin::Time(at)]
    {
        let wanted = copy(&shared, id, origin);
        rds.make_copy(&wanted).await.unwrap();
        rds.make_copy(&wanted).await.unwrap();
        assert_eq!(rds.copy_state(&name, id).await.unwrap(), CopyState::Busy("creating".to_owned()));
        assert_eq!(rds.remove_copy(&name, id).await.unwrap(), Removal::Busy("creating".to_owned()));
        fake.settle();
        assert_eq!(rds.copy_state(&name, id).await.unwrap(), CopyState::WithoutInstance);
        rds.make_copy_instance(&wanted).await.unwrap();
        rds.make_copy_instance(&wanted).await.unwrap();
        assert_eq!(rds.copy_state(&name, id).await.unwrap(), CopyState::Busy("creating (instance)".to_owned()));
        assert_eq!(rds.remove_copy(&name, id).await.unwrap(), Removal::Busy("creating (instance)".to_owned()));
        fake.settle();
        let CopyState::Ready(ready) = rds.copy_state(&name, id).await.unwrap() else { panic!("not ready") };
        assert_eq!((ready.master_username.as_deref(), ready.restore()), (Some("master"), Some(id)));
        let password = "of-the-copy".to_owned().into();
        rds.set_copy_password(&name, &password).await.unwrap();
        let resetting = CopyState::Busy("resetting-master-credentials".to_owned());
        assert_eq!(rds.copy_state(&name, id).await.unwrap(), resetting);
        fake.settle();
        assert_eq!(rds.copies("shared").await.unwrap().len(), 1);
        assert!(rds.copies("other").await.unwrap().is_empty(), "of another cluster");
        assert_eq!(rds.remove_copy(&name, id).await.unwrap(), Removal::Done);
        assert_eq!(rds.remove_copy(&name, id).await.unwrap(), Removal::Done, "it is deleted by now");
        fake.settle();
        assert_eq!(rds.remove_copy(&name, id).await.unwrap(), Removal::Done, "it is gone");
        assert_eq!(fake.clusters(), ["shared"]);
    }
    let outside = copy(&shared, id, Origin::Time("2026-10-01T00:00:00Z".parse().unwrap()));
    assert!(rds.make_copy(&outside).await.unwrap_err().is("InvalidRestoreFault"));
}

#[tokio::test]
async fn what_was_not_made_for_the_restore_is_left_alone() {
    let (fake, rds) = fake().await;
    let id = Uuid::from_u128(9);
    let name = CopyName::of(id);
    // Somebody's own, of the same name.
    fake.add_cluster(name.as_str(), 0);
    assert!(matches!(rds.copy_state(&name, id).await.unwrap(), CopyState::Broken(_)));
    assert_eq!(rds.remove_copy(&name, id).await.unwrap(), Removal::Done);
    assert!(fake.actions().iter().all(|action| !action.starts_with("Delete")));
    assert!(rds.copies("shared").await.unwrap().is_empty());
    // Nor is a snapshot deleted that pgtenant has not taken.
    let all = rds.snapshots("shared").await.unwrap();
    rds.delete_snapshot(&all[0]).await.unwrap();
    assert_eq!(fake.snapshots().len(), 1);
}

#[tokio::test]
async fn a_snapshot_is_taken_once_and_removed() {
    let (fake, rds) = fake().await;
    let name = format!("{TAKEN_PREFIX}shared-2026-11-20");
    rds.take_snapshot("shared", &name).await.unwrap();
    rds.take_snapshot("shared", &name).await.unwrap();
    let all = rds.snapshots("shared").await.unwrap();
    let kinds: Vec<_> = all.iter().map(|one| (one.automatic, one.is_taken_by_pgtenant())).collect();
    assert_eq!(kinds, [(false, true), (true, false)], "{all:?}");
    rds.delete_snapshot(&all[0]).await.unwrap();
    rds.delete_snapshot(&all[0]).await.unwrap();
    assert_eq!(fake.snapshots(), ["rds:shared-2026-11-20-02-14"]);
}

/// What is asked of RDS is what the permissions allow, and nothing that they allow is needless.
#[tokio::test]
async fn the_permissions_are_those_that_are_used() {
    let (fake, rds) = fake().await;
    let shared = rds.cluster("shared").await.unwrap().unwrap();
    let (id, at) = (Uuid::from_u128(7), "2026-11-20T03:00:00Z".parse().unwrap());
    let (name, wanted) = (CopyName::of(id), copy(&shared, id, Origin::Time(at)));
    fake.settle_by_itself();
    rds.make_copy(&wanted).await.unwrap();
    rds.make_copy(&copy(&shared, id, Origin::Snapshot("rds:shared-2026-11-20-02-14".to_owned(), None))).await.unwrap();
    rds.copy_state(&name, id).await.unwrap();
    rds.make_copy_instance(&wanted).await.unwrap();
    rds.set_copy_password(&name, &"of-the-copy".to_owned().into()).await.unwrap();
    rds.copies("shared").await.unwrap();
    rds.remove_copy(&name, id).await.unwrap();
    let taken = format!("{TAKEN_PREFIX}one");
    rds.take_snapshot("shared", &taken).await.unwrap();
    let all = rds.snapshots("shared").await.unwrap();
    rds.delete_snapshot(all.iter().find(|one| one.identifier == taken).unwrap()).await.unwrap();
    let mut used: BTreeSet<String> = fake.actions().iter().map(|action| format!("rds:{action}")).collect();
    // For the tags of what is made.
    used.insert("rds:AddTagsToResource".to_owned());

    let topology: AuroraTopology =
        serde_json::from_value(json!({"region": "eu-west-1", "clusterIdentifier": "Shared"})).unwrap();
    let narrow = permissions(&topology, true);
    let allowed: BTreeSet<&str> = narrow.iter().flat_map(|one| one.actions.clone()).chain(actions(&topology)).collect();
    let describe = |action: &&str| !action.starts_with("rds:Describe");
    let used: Vec<&str> = used.iter().map(String::as_str).filter(describe).collect();
    assert_eq!(used, allowed.into_iter().filter(describe).collect::<Vec<_>>());
    // What deletes and changes is for pgtenant's own alone.
    for one in &narrow {
        assert!(one.actions.is_sorted(), "{one:?}");
        if one.actions.iter().any(|action| action.contains("Delete") || action.contains("Modify")) {
            let own = |end: &String| end.contains(":pgtenant-") || end == "cluster:shared";
            assert!(one.resources.iter().all(own), "{one:?}");
        }
    }
    assert!(permissions(&topology, false).iter().all(|one| one.name != "RdsSnapshot"));
}

/// moto answers as RDS does where it need not take time: what is made is there at once, and it does not tell a state on the way.
#[tokio::test]
async fn moto_takes_every_call_of_a_copy() {
    let moto = pgtenant_testkit::moto().await;
    let [url, region, access_key_id, secret_access_key] = [moto.url(), "eu-north-1", "any", "any"].map(str::to_owned);
    let aws = Aws::stand_in(StandIn { url, region: region.clone(), access_key_id, secret_access_key });
    let rds = Rds::new(&aws, &region);
    let (cluster, snapshot) = (unique("shared"), format!("{TAKEN_PREFIX}{}", unique("nightly")));
    let sdk = aws_sdk_rds::Client::new(&aws.config(Some(&region)).await);
    let made =
        sdk.create_db_cluster().db_cluster_identifier(&cluster).engine("aurora-postgresql").engine_version("16.6");
    made.master_username("master").master_user_password("of-the-cluster").send().await.unwrap();
    let shared = rds.cluster(&cluster).await.unwrap().unwrap();
    rds.take_snapshot(&cluster, &snapshot).await.unwrap();
    rds.take_snapshot(&cluster, &snapshot).await.unwrap();
    let listed = rds.snapshots(&cluster).await.unwrap();
    let [automatic, taken] = [true, false].map(|automatic| {
        listed
            .iter()
            .find(|one| one.automatic == automatic && one.is_available())
            .unwrap_or_else(|| panic!("{listed:?}"))
    });
    assert!(taken.is_taken_by_pgtenant() && !automatic.is_taken_by_pgtenant(), "{listed:?}");
    let of = |one: &ClusterSnapshot| Origin::Snapshot(one.identifier.clone(), one.engine_version.clone());
    for origin in [of(automatic), of(taken), Origin::Time(taken.at.unwrap())] {
        let id = Uuid::now_v7();
        let name = CopyName::of(id);
        let wanted = copy(&shared, id, origin);
        assert_eq!(rds.copy_state(&name, id).await.unwrap(), CopyState::Missing);
        rds.make_copy(&wanted).await.unwrap();
        assert_eq!(rds.copy_state(&name, id).await.unwrap(), CopyState::WithoutInstance);
        rds.make_copy_instance(&wanted).await.unwrap();
        let CopyState::Ready(ready) = rds.copy_state(&name, id).await.unwrap() else { panic!("not ready") };
        assert_eq!((ready.master_username.as_deref(), ready.restore()), (Some("master"), Some(id)));
        rds.set_copy_password(&name, &"of-the-copy".to_owned().into()).await.unwrap();
        assert_eq!(rds.copies(&cluster).await.unwrap().len(), 1);
        assert_eq!(rds.remove_copy(&name, id).await.unwrap(), Removal::Done);
        assert_eq!(rds.copy_state(&name, id).await.unwrap(), CopyState::Missing);
        assert!(rds.copies(&cluster).await.unwrap().is_empty());
    }
    for one in &listed {
        rds.delete_snapshot(one).await.unwrap();
    }
    assert_eq!(rds.snapshots(&cluster).await.unwrap(), std::slice::from_ref(automatic), "what RDS makes is its own");
}
