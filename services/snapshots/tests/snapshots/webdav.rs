//! WebDAV: a real server, and what goes wrong on the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use pgtenant_model::{DumpPlace, WebDavPlace};
use pgtenant_snapshots::{Access, Dumps, Manifest, Patience, SnapshotError, Trust};
use pgtenant_testkit::WebDavServer;
use tempfile::TempDir;

use crate::peer::{Peer, Wrong};
use crate::{
    CLUSTER, Pair, access, at, contract, facts, folder_store, key, new_id, noise, patience, pieces, read, refusal,
    spec, write,
};

struct Store {
    dumps: Dumps,
    pair: Pair,
    login: TempDir,
}

impl Store {
    fn new(url: &str, password: &str) -> Self {
        Self::with(url, password, patience().silence)
    }

    fn with(url: &str, password: &str, silence: Duration) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (login, pair) = (TempDir::new().unwrap(), Pair::new());
        let file = login.path().join("password");
        fs::write(&file, format!("{password}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let access = Access { patience: Patience { silence, ..patience() }, ..Access::default() };
        let place = WebDavPlace { url: url.to_owned(), username: WebDavServer::USER.to_owned(), password_file: file };
        let dumps = Dumps::new(&spec(DumpPlace::WebDav(place), &[&pair], Some(&pair)), &access).unwrap();
        Self { dumps, pair, login }
    }
}

fn files(folder: &std::path::Path) -> Vec<String> {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push(path.file_name().unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found
}

#[tokio::test]
async fn a_server_keeps_dumps() {
    let server = WebDavServer::start();
    fs::create_dir(server.folder().join("back ups")).unwrap();
    let store = Store::new(&format!("{}/back%20ups/", server.url()), WebDavServer::PASSWORD);
    contract::holds(&store.dumps).await;

    let orders = key("orders");
    let writer = store.dumps.begin(CLUSTER, &orders, "shop-orders", new_id(at("2026-11-25T02:00:00Z"))).await.unwrap();
    let cut = pieces(&noise(5 << 20)).chain(stream::iter([Err(std::io::Error::other("gone"))]));
    assert!(matches!(writer.write("large", cut).await, Err(SnapshotError::Source(_))));
    let left = files(server.folder());
    assert!(left.iter().all(|name| !name.contains("large") && !name.ends_with(".tmp")), "{left:?}");
    writer.write("large", pieces(b"whole")).await.unwrap();
    writer.finish(facts()).await.unwrap();
}

#[tokio::test]
async fn what_the_server_refuses_is_said() {
    let server = WebDavServer::start();
    let orders = key("orders");
    let wrong = Store::new(server.url(), "another");
    let error = wrong.dumps.list(CLUSTER, &orders).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Denied { .. }), "{error:?}");
    assert!(!error.explain().contains("another"), "{error}");
    fs::set_permissions(wrong.login.path().join("password"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = wrong.dumps.list(CLUSTER, &orders).await.unwrap_err();
    assert!(matches!(error, SnapshotError::KeyFile { .. }), "{error:?}");

    let nowhere = Store::new(&format!("{}/none/here", server.url()), WebDavServer::PASSWORD);
    let error = nowhere.dumps.try_out(CLUSTER, new_id(at("2026-11-25T02:00:00Z"))).await.unwrap_err();
    assert!(error.to_string().contains("make the one that backups.dumps.to.webDav.url names"), "{error}");

    let gone = Store::new("http://127.0.0.1:9/", "x");
    let error = gone.dumps.list(CLUSTER, &orders).await.unwrap_err();
    assert!(error.is_retryable() && error.explain().contains("see to the place"), "{error}");
}

/// A dump of one part, as `peer` holds it.
async fn dump_in(peer: &Peer, store: &Store, data: &[u8]) -> Manifest {
    let dir = TempDir::new().unwrap();
    let local = folder_store(dir.path(), &store.pair);
    let made = write(&local, &key("orders"), at("2026-11-22T02:00:00Z"), &[("data", data)]).await;
    let folder = format!("default/shop/orders/{}", made.id);
    for file in ["data.zst.age", "manifest.json"] {
        peer.put(&format!("/dav/{folder}/{file}"), fs::read(dir.path().join(&folder).join(file)).unwrap());
    }
    made
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let (peer, data) = (Peer::start().await, noise(3_000_000));
    let store = Store::new(&format!("{}/dav", peer.url), "secret");
    let made = dump_in(&peer, &store, &data).await;
    let reader = store.dumps.open(CLUSTER, &key("orders"), made.id, Trust::Sealed).await.unwrap();
    let busy = || Wrong::Answer(503, String::new());
    peer.wrong("data", [Wrong::CutAfter(1_000_000), busy(), busy(), Wrong::CutAfter(500_000), Wrong::Fine]);
    assert!(read(&reader, "data").await.unwrap() == data);
    assert_eq!(peer.seen("data").len(), 5);

    // A server that knows no ranges sends all again, of which what is known is left out.
    peer.forget();
    peer.wrong("data", [Wrong::CutAfter(1_000_000), Wrong::NoRange]);
    assert!(read(&reader, "data").await.unwrap() == data);

    for (wrongs, expected) in [
        (vec![Wrong::CutAfter(1_000_000), Wrong::Changed], "changed while it was read"),
        (vec![Wrong::CutAfter(1_000_000), Wrong::Answer(404, String::new())], "is not there"),
        (vec![Wrong::Answer(403, String::new())], "refused"),
        (std::iter::repeat_n(Wrong::CutAfter(0), 50).collect(), "can not be reached"),
    ] {
        peer.forget();
        peer.wrong("data", wrongs);
        let text = refusal(&reader, "data").await;
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(peer.seen("data").len() <= 5, "{:?}", peer.seen("data"));
    }
}

#[tokio::test]
async fn the_password_goes_to_no_other_server() {
    let (peer, other) = (Peer::start().await, Peer::start().await);
    let store = Store::new(&format!("{}/dav", peer.url), "secret");
    peer.wrong("PROPFIND", [Wrong::Redirect(format!("{}/dav/", other.url))]);
    let error = store.dumps.list(CLUSTER, &key("orders")).await.unwrap_err();
    assert!(
        error.to_string().contains(&other.url) && error.to_string().contains("no redirection is followed"),
        "{error}"
    );
    assert!(other.seen("").is_empty() && other.headers().is_empty());
    assert!(peer.headers().to_lowercase().contains("authorization: basic"));
}

#[tokio::test]
async fn a_server_that_keeps_less_than_it_takes_is_found_out() {
    let peer = Peer::start().await;
    let store = Store::new(&format!("{}/dav", peer.url), "secret");
    let writer = store.dumps.begin(CLUSTER, &key("orders"), "x", new_id(at("2026-11-22T02:00:00Z"))).await.unwrap();
    let found = |length: u32| {
        let href = "<d:href>/dav/x</d:href>";
        Wrong::Answer(
            207,
            format!(
                "<d:multistatus xmlns:d='DAV:'><d:response>{href}<d:propstat><d:prop><d:getcontentlength>{length}\
                 </d:getcontentlength></d:prop></d:propstat></d:response></d:multistatus>"
            ),
        )
    };
    peer.wrong("PROPFIND", [found(0)]);
    let error = writer.write("data", pieces(b"some")).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Unexpected { .. }), "{error:?}");
    assert!(peer.objects().is_empty(), "what it keeps of it is removed: {:?}", peer.objects().keys());
    peer.wrong("PUT", [Wrong::Answer(507, String::new())]);
    let error = writer.write("data", pieces(b"some")).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Full { .. }), "{error:?}");
}

#[tokio::test]
async fn a_stream_may_take_its_time_and_the_server_may_not() {
    let silence = Duration::from_millis(600);
    let server = WebDavServer::start();
    let store = Store::with(server.url(), WebDavServer::PASSWORD, silence);
    let orders = key("orders");
    let writer = store.dumps.begin(CLUSTER, &orders, "x", new_id(at("2026-11-22T02:00:00Z"))).await.unwrap();
    let slow = stream::iter(0..3).then(async |_| {
        tokio::time::sleep(silence).await;
        Ok(noise(300_000).into())
    });
    // 1.8 s, of which none is the server's.
    assert_eq!(writer.write("data", slow.boxed()).await.unwrap().plain_bytes, 900_000);

    // One that takes what its system's buffers take, and no more.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stalled = Store::with(&url, "secret", silence);
    let answers = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4];
            stream.peek(&mut head).await.unwrap();
            // Folders are there; the rest is never read.
            if head == *b"MKCO" {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut request = [0; 4096];
                stream.read(&mut request).await.map(drop).unwrap();
                stream.write_all(b"HTTP/1.1 405 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
            } else {
                held.push(stream);
            }
        }
    });
    let writer = stalled.dumps.begin(CLUSTER, &orders, "x", new_id(at("2026-11-22T02:00:00Z"))).await.unwrap();
    let error = writer.write("data", pieces(&noise(40 << 20))).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("takes nothing"), "{error}");
    answers.abort();
}

#[tokio::test]
async fn what_can_not_be_a_collection_is_refused_at_once() {
    let pair = Pair::new();
    for (url, why) in [
        ("http://cloud.example/dav", "in clear"),
        ("https://me:secret@cloud.example/dav", "no login"),
        ("https://cloud.example/dav?x=1", "query"),
        ("ftp://cloud.example/dav", "https://"),
        ("cloud.example/dav", "relative URL"),
    ] {
        let place = WebDavPlace { url: url.into(), username: "u".into(), password_file: "/nowhere".into() };
        let error = Dumps::new(&spec(DumpPlace::WebDav(place), &[&pair], None), &access()).unwrap_err();
        assert!(error.field == "to.webDav.url" && error.message.contains(why), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
}
