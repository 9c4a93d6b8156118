//! What looking costs.

use futures::future::join_all;
use pgtenant_secrets::Removal;

use super::*;
use crate::tiers;

fn many() -> Vec<Entry> {
    (0..100).flat_map(|number| tiers("ns", &format!("db{number}"), "one")).collect()
}

#[tokio::test]
async fn a_look_at_300_secrets_costs_three_listings_and_no_read() {
    let (fake, writer) = begun().await;
    let entries = many();
    for entries in entries.chunks(60) {
        writer.put_many(entries).await.unwrap();
    }
    // Somebody else's, of the same account.
    fake.change("customer/x", |secret| secret.put(&"a".repeat(32), "theirs"));
    fake.change("elsewhere/x", |secret| secret.tags.extend(tags("db")));
    let idle = store(&fake);
    for _ in 0..2 {
        fake.forget_calls();
        // All at once, as claims are looked at.
        let looks = join_all(entries.iter().map(|entry| is_unread(&idle, entry))).await;
        assert!(looks.into_iter().all(|unread| unread));
        assert!(fake.calls().iter().all(|call| call.operation == "ListSecrets"), "{:?}", fake.calls());
    }
    assert_eq!(fake.calls().len(), 0, "a listing serves many looks");
    // A replica that has just written them knows without asking.
    assert!(is_unread(&writer, &entries[7]).await);
    assert_eq!(fake.calls().len(), 0);

    fake.forget_calls();
    let fresh = store(&fake);
    assert!(is_unread(&fresh, &entries[299]).await);
    assert_eq!(fake.count("ListSecrets"), 3);
    // Whoever needs the password says so, and gets it.
    assert!(matches!(read(&fresh, &entries[0].0).await, Held::Credential(_)));
    assert_eq!(fake.count("GetSecretValue"), 1);
}

#[tokio::test]
async fn what_a_listing_shows_to_be_wrong_is_asked_for() {
    let (fake, writer) = begun().await;
    let entries = tiers("ns", "db", "one");
    writer.put_many(&entries).await.unwrap();
    fake.change("customer/ns/ns-db-read", |secret| secret.put(&"a".repeat(32), "theirs"));
    fake.change("customer/ns/ns-db-write", |secret| {
        secret.tags.remove("pgtenant.io/settings");
    });
    fake.change("customer/ns/ns-db-admin", |secret| {
        secret.tags.remove("claim");
    });
    let look = store(&fake);
    let held = async |index: usize| {
        let (target, credential): &Entry = &entries[index];
        look.get(target, Some(id(credential))).await
    };
    assert!(matches!(held(0).await.unwrap(), Held::Broken(_)));
    assert!(matches!(held(1).await.unwrap(), Held::Blemished(_)));
    assert!(matches!(held(2).await.unwrap_err().fault, Fault::Foreign(_)));
    fake.forget_secrets();
    assert!(matches!(held(0).await.unwrap(), Held::Missing));
}

#[tokio::test]
async fn where_nothing_can_be_listed_each_is_asked_for() {
    let (fake, writer) = begun().await;
    let entry = entry("one");
    put(&writer, &entry).await.unwrap();
    let store = store(&fake);
    fake.forget_calls();
    fake.order("ListSecrets", pgtenant_testkit::Trouble::Deny, 1);
    for _ in 0..3 {
        assert!(is_unread(&store, &entry).await);
    }
    assert_eq!((fake.count("ListSecrets"), fake.count("DescribeSecret"), fake.count("GetSecretValue")), (1, 1, 0));
}

#[tokio::test]
async fn a_listing_goes_on_when_who_began_it_has_gone() {
    let (fake, writer) = begun().await;
    let entry = entry("one");
    put(&writer, &entry).await.unwrap();
    let store = store(&fake);
    fake.forget_calls();
    fake.order("ListSecrets", pgtenant_testkit::Trouble::LoseAnswer, 1);
    let expected = Some(id(&entry.1));
    tokio::select! {
        held = store.get(&entry.0, expected) => panic!("it was not asked: {held:?}"),
        () = fake.hung(1) => {}
    }
    // The listing is made again by the SDK, and serves the next.
    assert!(is_unread(&store, &entry).await);
    assert_eq!((fake.count("ListSecrets"), fake.count("DescribeSecret")), (2, 0));
}

#[tokio::test]
async fn arns_are_known_from_a_listing_and_asked_for_where_it_shows_none() {
    let (fake, writer) = begun().await;
    let (first, later) = (tiers("ns", "db", "one"), tiers("ns", "later", "one"));
    writer.put_many(&first).await.unwrap();
    fake.forget_calls();
    let arn = Some(format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{NAME}-a1b2c3"));
    let target = target("ns", "db", Tier::Read);
    assert_eq!(writer.arn(&target).await.unwrap(), arn);
    assert_eq!(fake.calls().len(), 0, "whoever has written it knows");

    let other = store(&fake);
    for (target, _) in &first {
        assert!(other.arn(target).await.unwrap().is_some());
    }
    assert_eq!((fake.count("ListSecrets"), fake.count("DescribeSecret")), (1, 0));
    assert_eq!(other.arn(&later[0].0).await.unwrap(), None);
    writer.put_many(&later).await.unwrap();
    assert!(other.arn(&later[0].0).await.unwrap().is_some(), "another process has just made it");

    writer.delete_many(std::slice::from_ref(&target), Removal::Usual).await.unwrap();
    assert_eq!(writer.arn(&target).await.unwrap(), None, "it is scheduled for deletion");
    fake.change("customer/ns/ns-later-write", |secret| {
        secret.tags.remove("claim");
    });
    let write = super::target("ns", "later", Tier::Write);
    assert_eq!(store(&fake).arn(&write).await.unwrap(), None, "it is somebody else's");
}
