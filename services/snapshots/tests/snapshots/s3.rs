//! S3: as moto plays it, and with what goes wrong on the way.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use pgtenant_aws::{Aws, StandIn};
use pgtenant_model::{DumpPlace, S3Place};
use pgtenant_snapshots::{Access, Dumps, Manifest, SnapshotError, Trust};
use tempfile::TempDir;

use crate::peer::{Peer, Wrong, error, slow_down};
use crate::{
    CLUSTER, Pair, at, contract, facts, folder_store, key, new_id, noise, patience, pieces, read, refusal, spec, write,
};

fn access(url: &str) -> Access {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stand_in = StandIn {
        url: url.to_owned(),
        region: "eu-west-1".to_owned(),
        access_key_id: "test".to_owned(),
        secret_access_key: "test".to_owned(),
    };
    Access { aws: Aws::stand_in(stand_in), patience: patience() }
}

fn store(url: &str, bucket: &str, pair: &Pair) -> Dumps {
    let place =
        S3Place { bucket: bucket.to_owned(), prefix: Some("back/ups/".to_owned()), region: None, endpoint: None };
    Dumps::new(&spec(DumpPlace::S3(place), &[pair], Some(pair)), &access(url)).unwrap()
}

async fn bucket(url: &str) -> String {
    let bucket = pgtenant_testkit::unique("dumps");
    let client = reqwest::Client::builder().build().unwrap();
    let made = client
        .put(format!("{url}/{bucket}"))
        .header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20261122/eu-west-1/s3/aws4_request")
        .body(
            "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>",
        )
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success(), "{made:?}");
    bucket
}

#[tokio::test]
async fn a_bucket_keeps_dumps() {
    let pair = Pair::new();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let moto = pgtenant_testkit::moto().await;
    let dumps = store(moto.url(), &bucket(moto.url()).await, &pair);
    contract::holds(&dumps).await;

    // 21 MiB: three pieces; and a stream that breaks off behind the first leaves nothing.
    let (orders, large) = (key("orders"), noise(21 << 20));
    let made = write(&dumps, &orders, at("2026-11-24T02:00:00Z"), &[("large", &large)]).await;
    let reader = dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    assert!(read(&reader, "large").await.unwrap() == large);
    let writer = dumps.begin(CLUSTER, &orders, "shop-orders", new_id(at("2026-11-25T02:00:00Z"))).await.unwrap();
    let cut = pieces(&large).chain(stream::iter([Err(std::io::Error::other("gone"))]));
    assert!(matches!(writer.write("large", cut).await, Err(SnapshotError::Source(_))));
    assert!(dumps.unfinished(CLUSTER, &orders, at("2026-11-26T00:00:00Z")).await.unwrap().is_empty());
}

#[tokio::test]
async fn many_dumps_in_a_bucket_are_listed() {
    let pair = Pair::new();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let moto = pgtenant_testkit::moto().await;
    let dumps = store(moto.url(), &bucket(moto.url()).await, &pair);
    let ids: Vec<_> =
        (0..200).map(|hour| new_id(at("2026-01-01T02:00:00Z") + chrono::TimeDelta::hours(hour))).collect();
    let written = stream::iter(ids).map(async |id| {
        let writer = dumps.begin(CLUSTER, &key("orders"), "shop-orders", id).await.unwrap();
        writer.finish(facts()).await.unwrap();
    });
    written.buffer_unordered(16).collect::<Vec<()>>().await;
    let start = std::time::Instant::now();
    assert_eq!(dumps.list(CLUSTER, &key("orders")).await.unwrap().dumps.len(), 200);
    let took = start.elapsed().as_millis();
    println!("  measured: 200 dumps in moto are listed in {took} ms");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_said() {
    let pair = Pair::new();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let moto = pgtenant_testkit::moto().await;
    let dumps = store(moto.url(), "no-such-bucket-of-ours", &pair);
    for error in [
        dumps.try_out(CLUSTER, new_id(at("2026-11-22T02:00:00Z"))).await.err(),
        dumps.list(CLUSTER, &key("orders")).await.err(),
    ] {
        let error = error.unwrap().explain();
        assert!(error.starts_with("s3://no-such-bucket-of-ours: there is no such bucket"), "{error}");
    }
}

/// A dump of one part, as a bucket of `peer` holds it.
async fn dump_in(peer: &Peer, pair: &Pair, data: &[u8]) -> (Dumps, Manifest) {
    let dir = TempDir::new().unwrap();
    let made =
        write(&folder_store(dir.path(), pair), &key("orders"), at("2026-11-22T02:00:00Z"), &[("data", data)]).await;
    let folder = format!("default/shop/orders/{}", made.id);
    for file in ["data.zst.age", "manifest.json"] {
        peer.put(&format!("/b/back/ups/{folder}/{file}"), std::fs::read(dir.path().join(&folder).join(file)).unwrap());
    }
    (store(&peer.url, "b", pair), made)
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let (peer, pair, data) = (Peer::start().await, Pair::new(), noise(3_000_000));
    let (dumps, made) = dump_in(&peer, &pair, &data).await;
    peer.wrong("data.zst.age", [Wrong::CutAfter(1_000_000), slow_down(), Wrong::CutAfter(700_000), Wrong::CutAfter(0)]);
    peer.wrong("manifest.json", [slow_down(), slow_down(), Wrong::CutAfter(30)]);
    let reader = dumps.open(CLUSTER, &key("orders"), made.id, Trust::Sealed).await.unwrap();
    assert!(read(&reader, "data").await.unwrap() == data);
    let seen = peer.seen("data.zst.age");
    let froms: Vec<usize> = seen.iter().filter_map(|one| one.split(" from ").nth(1)?.parse().ok()).collect();
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert!(froms.is_sorted() && froms.first().is_some_and(|from| *from > 500_000), "nothing is read twice: {froms:?}");
}

#[tokio::test]
async fn what_does_not_come_back_is_an_error_in_the_end() {
    let (peer, pair, data) = (Peer::start().await, Pair::new(), noise(500_000));
    let (dumps, made) = dump_in(&peer, &pair, &data).await;
    let orders = key("orders");
    let reader = dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();

    peer.wrong("data", std::iter::once(Wrong::CutAfter(100_000)).chain(std::iter::repeat_n(slow_down(), 100)));
    let text = refusal(&reader, "data").await;
    assert!(text.contains("can not be reached") && text.contains("SlowDown: Please reduce"), "{text}");
    assert!(peer.seen("data").len() <= 20, "tries are bounded: {}", peer.seen("data").len());

    // Another object of the same length.
    peer.forget();
    peer.wrong("data", std::iter::once(Wrong::CutAfter(100_000)).chain(std::iter::repeat_n(Wrong::Changed, 9)));
    let text = refusal(&reader, "data").await;
    assert!(text.contains("changed while it was read"), "{text}");

    peer.forget();
    peer.wrong("data", [Wrong::Answer(403, error("AccessDenied", "Access Denied"))]);
    let text = refusal(&reader, "data").await;
    assert!(text.contains("refused: AccessDenied: Access Denied; give pgtenant the right"), "{text}");

    peer.forget();
    peer.wrong("data", [Wrong::Answer(301, error("PermanentRedirect", "The bucket is in eu-north-1"))]);
    let text = refusal(&reader, "data").await;
    assert!(text.contains("incorrectly configured region"), "{text}");

    let path = format!("/b/back/ups/default/shop/orders/{}/data.zst.age", made.id);
    let stored = peer.objects()[&path].clone();
    peer.put(&path, stored[..1000].to_vec());
    assert!(refusal(&reader, "data").await.contains("it has 1000 bytes, and"));
    let error = dumps.open(CLUSTER, &orders, new_id(at("2026-11-22T02:00:00Z")), Trust::Sealed).await.unwrap_err();
    assert!(matches!(error, SnapshotError::NotThere { .. }), "{error:?}");
}

#[tokio::test]
async fn pieces_of_an_upload_are_tried_again_and_one_that_fails_is_aborted() {
    let (peer, pair, data) = (Peer::start().await, Pair::new(), noise(18 << 20));
    let (dumps, orders) = (store(&peer.url, "b", &pair), key("orders"));
    peer.wrong("partNumber=2", [slow_down(), Wrong::HangUp]);
    let made = write(&dumps, &orders, at("2026-11-22T02:00:00Z"), &[("data", &data)]).await;
    let reader = dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    assert!(read(&reader, "data").await.unwrap() == data);
    assert_eq!(peer.seen("partNumber=2").len(), 3);
    assert_eq!(peer.seen("DELETE").len(), 0);

    let writer = dumps.begin(CLUSTER, &orders, "shop-orders", new_id(at("2026-11-23T02:00:00Z"))).await.unwrap();
    let before = peer.objects().len();
    peer.wrong("partNumber=2", std::iter::repeat_n(slow_down(), 50));
    let error = writer.write("data", pieces(&data)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("SlowDown"), "{error}");
    assert_eq!(peer.seen("DELETE").len(), 1, "{:?}", peer.seen("DELETE"));
    assert_eq!(peer.objects().len(), before);

    // A writer that goes away in the middle.
    peer.forget();
    let endless = stream::repeat_with(|| Ok(Bytes::from(noise(1_000_000))));
    {
        let write = std::pin::pin!(writer.write("data", endless));
        let begun = async {
            while peer.seen("partNumber=1").is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let begun = std::pin::pin!(begun);
        futures::future::select(write, begun).await;
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while peer.seen("DELETE").is_empty() {
        assert!(std::time::Instant::now() < deadline, "the upload is not aborted");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_can_not_be_a_bucket_is_refused_at_once() {
    let pair = Pair::new();
    for (bucket, prefix) in [("", None), ("a/b", None), ("b", Some("a/../b")), ("b", Some("a//b"))] {
        let place = S3Place { bucket: bucket.into(), prefix: prefix.map(str::to_owned), region: None, endpoint: None };
        let spec = spec(DumpPlace::S3(place), &[&pair], None);
        assert!(Dumps::new(&spec, &Access::default()).is_err(), "{bucket} {prefix:?}");
    }
}
