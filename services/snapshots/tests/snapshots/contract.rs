//! What every place does.

use futures::future::join_all;
use pgtenant_snapshots::retention::{Kept, to_remove};
use pgtenant_snapshots::{Dumps, Opening, SnapshotError, Trust};
use std::time::Duration;

use crate::{CLUSTER, at, facts, key, new_id, noise, pieces, read, write};

/// `dumps` has an identity and holds nothing of the cluster.
pub(crate) async fn holds(dumps: &Dumps) {
    assert!(matches!(dumps.can_open().await.unwrap(), Opening::With(_)));
    let orders = key("orders");
    assert!(dumps.list(CLUSTER, &orders).await.unwrap().dumps.is_empty());
    let location = dumps.try_out(CLUSTER, new_id(at("2026-11-22T02:00:00Z"))).await.unwrap();
    assert!(location.contains(CLUSTER), "{location}");

    writes_and_reads(dumps).await;
    lists(dumps).await;
    gives_up(dumps).await;
    removes(dumps).await;
}

async fn writes_and_reads(dumps: &Dumps) {
    let (orders, large) = (key("orders"), noise(9 << 20));
    let parts: [(&str, &[u8]); 4] =
        [("inventory", b"{}"), ("data-0001", &large), ("empty", b""), ("schema.sql", b"CREATE TABLE orders ();")];
    let made = write(dumps, &orders, at("2026-11-20T02:00:00Z"), &parts).await;
    assert!(made.seal.is_some());
    assert_eq!(made.plain_bytes, parts.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());

    let reader = dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    assert_eq!(reader.manifest(), &made);
    let read = join_all(parts.iter().map(|(part, _)| read(&reader, part))).await;
    for ((part, bytes), read) in parts.iter().zip(read) {
        assert!(read.unwrap() == *bytes, "{part}");
    }
    assert!(matches!(reader.read("none").err(), Some(SnapshotError::NoPart { .. })));
    assert!(matches!(reader.read("../orders").err(), Some(SnapshotError::NoPart { .. })));
}

async fn lists(dumps: &Dumps) {
    let orders = key("orders");
    let newer = write(dumps, &orders, at("2026-11-21T02:00:00Z"), &[("data", b"2")]).await;
    write(dumps, &key("carts"), at("2026-11-19T02:00:00Z"), &[("data", b"3")]).await;
    dumps.mark_verified(CLUSTER, &orders, newer.id, at("2026-11-21T03:00:00Z"), "restore test").await.unwrap();

    let listed = dumps.list(CLUSTER, &orders).await.unwrap();
    assert!(listed.broken.is_empty(), "{:?}", listed.broken);
    let ids: Vec<String> = listed.dumps.iter().map(|dump| dump.manifest.at.to_rfc3339()).collect();
    assert_eq!(ids, ["2026-11-21T02:00:00+00:00", "2026-11-20T02:00:00+00:00"]);
    let [first, second] = &listed.dumps[..] else { panic!() };
    assert_eq!(first.verified.as_ref().unwrap().by, "restore test");
    assert!(second.verified.is_none());
    let snapshot = first.snapshot().unwrap();
    assert_eq!(snapshot.id.to_string(), format!("dump:{}", newer.id));
    assert_eq!(snapshot.size, Some(newer.stored_bytes));
    assert_eq!(snapshot.verified_at, Some(at("2026-11-21T03:00:00Z")));
    assert!(snapshot.location.ends_with(&format!("default/shop/orders/{}", newer.id)), "{}", snapshot.location);

    assert_eq!(dumps.list(CLUSTER, &key("carts")).await.unwrap().dumps.len(), 1);
    assert!(dumps.list("other", &orders).await.unwrap().dumps.is_empty());

    let kept: Vec<Kept> = listed.dumps.iter().map(Kept::from).collect();
    let old = to_remove(&kept, Duration::from_secs(86_400), at("2026-11-22T02:00:00Z"));
    assert_eq!(old, [second.manifest.id]);
}

async fn gives_up(dumps: &Dumps) {
    let begun = at("2026-11-22T02:00:00Z");
    for name in ["orders", "carts"] {
        let key = key(name);
        let writer = dumps.begin(CLUSTER, &key, &key.database(), new_id(begun)).await.unwrap();
        writer.write("data", pieces(b"half")).await.unwrap();
        assert!(matches!(writer.write("data", pieces(b"x")).await, Err(SnapshotError::Twice(_))));
        for name in ["../x", "", "a/b", "manifest.json/..", "A"] {
            assert!(matches!(writer.write(name, pieces(b"x")).await, Err(SnapshotError::Name { .. })), "{name}");
        }
        let before = dumps.list(CLUSTER, &key).await.unwrap();
        assert!(before.broken.is_empty() && before.dumps.iter().all(|dump| dump.manifest.at < begun));
        let error = dumps.open(CLUSTER, &key, writer.id(), Trust::Anybody).await.unwrap_err();
        assert!(matches!(error, SnapshotError::NotThere { .. }), "{error:?}");
        let error = dumps.mark_verified(CLUSTER, &key, writer.id(), begun, "x").await.unwrap_err();
        assert!(matches!(error, SnapshotError::NotThere { .. }), "{error:?}");

        let found = dumps.unfinished(CLUSTER, &key, at("2026-11-22T02:00:01Z")).await.unwrap();
        assert_eq!(found.iter().map(|one| one.id).collect::<Vec<_>>(), [writer.id()]);
        assert!(found[0].bytes > 100, "{found:?}");
        assert!(dumps.unfinished(CLUSTER, &key, begun).await.unwrap().is_empty(), "it may be at work");
        match name {
            "orders" => writer.abandon().await.unwrap(),
            _ => {
                drop(writer);
                dumps.remove(CLUSTER, &key, found[0].id).await.unwrap();
            }
        }
        assert!(dumps.unfinished(CLUSTER, &key, at("2026-11-23T00:00:00Z")).await.unwrap().is_empty());
    }
    // One that is empty is one.
    let writer = dumps.begin(CLUSTER, &key("carts"), "shop-carts", new_id(begun)).await.unwrap();
    let made = writer.finish(facts()).await.unwrap();
    assert_eq!(dumps.get(CLUSTER, &key("carts"), made.id).await.unwrap().manifest, made);
}

async fn removes(dumps: &Dumps) {
    let orders = key("orders");
    let listed = dumps.list(CLUSTER, &orders).await.unwrap().dumps;
    let id = listed[0].manifest.id;
    for _ in 0..2 {
        dumps.remove(CLUSTER, &orders, id).await.unwrap();
    }
    assert!(matches!(dumps.get(CLUSTER, &orders, id).await, Err(SnapshotError::NotThere { .. })));
    assert_eq!(dumps.list(CLUSTER, &orders).await.unwrap().dumps.len(), listed.len() - 1);

    // A claim's that is gone, finished or not.
    let (gone, old) = (key("gone"), at("2026-11-20T02:00:00Z"));
    write(dumps, &gone, old, &[("data", b"1")]).await;
    write(dumps, &gone, at("2026-11-22T02:00:00Z"), &[("data", b"2")]).await;
    let unfinished = dumps.begin(CLUSTER, &gone, "shop-gone", new_id(old)).await.unwrap();
    unfinished.write("data", pieces(b"x")).await.unwrap();
    drop(unfinished);
    let before = at("2026-11-21T00:00:00Z");
    assert_eq!(dumps.remove_before(CLUSTER, &gone, before).await.unwrap(), 2);
    assert_eq!(dumps.remove_before(CLUSTER, &gone, before).await.unwrap(), 0);
    assert_eq!(dumps.list(CLUSTER, &gone).await.unwrap().dumps.len(), 1);
    assert!(dumps.unfinished(CLUSTER, &gone, before).await.unwrap().is_empty());
}

/// Whoever calls may do it in a task of its own.
#[expect(dead_code, reason = "it is enough that it compiles")]
fn all_of_it_may_move_to_another_thread(dumps: &Dumps, writer: &pgtenant_snapshots::DumpWriter) {
    fn sends<T: Send>(_: T) {}
    let (key, id) = (key("orders"), new_id(at("2026-11-22T02:00:00Z")));
    sends(dumps.begin(CLUSTER, &key, "x", id));
    sends(dumps.open(CLUSTER, &key, id, Trust::Sealed));
    sends(dumps.list(CLUSTER, &key));
    sends(dumps.remove_before(CLUSTER, &key, at("2026-11-22T02:00:00Z")));
    sends(dumps.unfinished(CLUSTER, &key, id.at()));
    sends(dumps.try_out(CLUSTER, id));
    sends(dumps.remove(CLUSTER, &key, id));
    sends(writer.write("data", pieces(b"x")));
}
