//! What somebody with write access to the place does to dumps.

use std::fs;
use std::path::PathBuf;

use pgtenant_model::ClaimKey;
use pgtenant_snapshots::{Dumps, Manifest, SnapshotError, Trust};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CLUSTER, Pair, at, folder_store, key, noise, read, refusal, write};

struct Scene {
    dir: TempDir,
    dumps: Dumps,
}

impl Scene {
    fn new() -> Self {
        let (dir, pair) = (TempDir::new().unwrap(), Pair::new());
        let dumps = folder_store(dir.path(), &pair);
        // The key is read at each opening: it is to stay as long as the scene.
        let _ = pair.dir.keep();
        Self { dir, dumps }
    }

    fn folder(&self, key: &ClaimKey, manifest: &Manifest) -> PathBuf {
        self.dir.path().join(format!("default/{key}/{}", manifest.id))
    }

    async fn refused(&self, key: &ClaimKey, manifest: &Manifest) -> String {
        let error = self.dumps.open(CLUSTER, key, manifest.id, Trust::Anybody).await.unwrap_err();
        error.explain()
    }
}

#[tokio::test]
async fn a_part_that_was_changed_ends_in_an_error() {
    let scene = Scene::new();
    let orders = key("orders");
    let data = noise(500_000);
    let made = write(&scene.dumps, &orders, at("2026-11-22T02:00:00Z"), &[("data", &data)]).await;
    let file = scene.folder(&orders, &made).join("data.zst.age");
    let stored = fs::read(&file).unwrap();
    let reader = scene.dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    for place in [0, 30, 150, 250, stored.len() / 2, stored.len() - 1] {
        let mut flipped = stored.clone();
        flipped[place] ^= 1;
        fs::write(&file, flipped).unwrap();
        let error = refusal(&reader, "data").await;
        assert!(error.contains("is not what was written there"), "bit {place}: {error}");
    }
    for length in [0, 10, 200, stored.len() - 1] {
        fs::write(&file, &stored[..length]).unwrap();
        let error = refusal(&reader, "data").await;
        assert!(error.contains(&format!("it has {length} bytes, and {} by its manifest", stored.len())), "{error}");
    }
    fs::write(&file, [&stored[..], b"more"].concat()).unwrap();
    assert!(refusal(&reader, "data").await.contains("by its manifest"));
    fs::remove_file(&file).unwrap();
    assert!(refusal(&reader, "data").await.contains("is not there"));
    fs::write(&file, &stored).unwrap();
    assert!(read(&reader, "data").await.unwrap() == data);
}

/// Two dumps whose parts have the same length.
async fn pair_of_dumps(scene: &Scene) -> [(ClaimKey, Manifest); 2] {
    let (ours, theirs) = (key("orders"), ClaimKey::new("bank", "orders").unwrap());
    let first =
        write(&scene.dumps, &ours, at("2026-11-22T02:00:00Z"), &[("data", b"first1"), ("more", b"second")]).await;
    let second =
        write(&scene.dumps, &theirs, at("2026-11-22T02:00:00Z"), &[("data", b"their1"), ("more", b"their2")]).await;
    [(ours, first), (theirs, second)]
}

/// Writes the manifest of `to` so that its parts are as they are on the disk now, as a forger without a key does.
fn forge(scene: &Scene, to: &ClaimKey, manifest: &Manifest, change: impl FnOnce(&mut Value)) {
    let file = scene.folder(to, manifest).join("manifest.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

#[tokio::test]
async fn a_part_of_another_tenant_or_dump_is_refused_at_its_label() {
    let scene = Scene::new();
    let [(ours, mine), (theirs, other)] = pair_of_dumps(&scene).await;
    let (here, there) = (scene.folder(&ours, &mine), scene.folder(&theirs, &other));
    let entry = |manifest: &Manifest, part: &str| serde_json::to_value(manifest.part(part).unwrap()).unwrap();
    // The forger makes the manifest fit, and takes the seal away.
    for (source, file, part) in
        [(&other, there.join("data.zst.age"), "data"), (&mine, here.join("more.zst.age"), "more")]
    {
        let kept = fs::read(here.join("data.zst.age")).unwrap();
        let manifest = fs::read(here.join("manifest.json")).unwrap();
        fs::copy(file, here.join("data.zst.age")).unwrap();
        let mut forged = entry(source, part);
        forged["name"] = json!("data");
        forge(&scene, &ours, &mine, |json| {
            let stored = json["parts"].as_array().unwrap()[1]["storedBytes"].as_u64().unwrap();
            let plain = json["parts"].as_array().unwrap()[1]["plainBytes"].as_u64().unwrap();
            json["storedBytes"] = json!(stored + forged["storedBytes"].as_u64().unwrap());
            json["plainBytes"] = json!(plain + forged["plainBytes"].as_u64().unwrap());
            json["parts"][0] = forged;
            json.as_object_mut().unwrap().remove("seal");
        });
        let error = scene.dumps.open(CLUSTER, &ours, mine.id, Trust::Sealed).await.unwrap_err();
        assert!(matches!(error, SnapshotError::NotSealed { .. }), "{error:?}");
        let reader = scene.dumps.open(CLUSTER, &ours, mine.id, Trust::Anybody).await.unwrap();
        let error = refusal(&reader, "data").await;
        assert!(
            error.contains(&format!("it was written as default/{}/", if part == "data" { &theirs } else { &ours })),
            "{error}"
        );
        assert!(error.contains(&format!("/{part}")), "{error}");
        fs::write(here.join("data.zst.age"), kept).unwrap();
        fs::write(here.join("manifest.json"), manifest).unwrap();
    }
}

#[tokio::test]
async fn a_whole_dump_under_another_name_is_refused() {
    let scene = Scene::new();
    let [(ours, mine), (theirs, other)] = pair_of_dumps(&scene).await;
    fs::copy(scene.folder(&theirs, &other).join("manifest.json"), scene.folder(&ours, &mine).join("manifest.json"))
        .unwrap();
    let error = scene.refused(&ours, &mine).await;
    assert!(error.contains(&format!("it is of default/bank/orders/{}", other.id)), "{error}");
    let listed = scene.dumps.list(CLUSTER, &ours).await.unwrap();
    assert!(listed.dumps.is_empty() && listed.broken.len() == 1, "a broken one does not hide");
}

#[tokio::test]
async fn a_manifest_that_was_changed_is_refused() {
    let scene = Scene::new();
    let orders = key("orders");
    let made = write(&scene.dumps, &orders, at("2026-11-22T02:00:00Z"), &[("data", b"x")]).await;
    let file = scene.folder(&orders, &made).join("manifest.json");
    let whole = fs::read(&file).unwrap();
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 11] = [
        ("its seal is not of what is in it", |json| json["tables"][0]["rows"] = json!(4)),
        ("its seal is not of what is in it", |json| json["seal"]["mac"] = json!("00")),
        ("its seal is not of what is in it", |json| json["parts"][0]["sha256"] = json!("0".repeat(64))),
        ("the SHA-256 of part", |json| json["parts"][0]["sha256"] = json!("../x")),
        ("not the sums", |json| json["parts"][0]["storedBytes"] = json!(u64::MAX)),
        ("not the sums", |json| json["plainBytes"] = json!(2)),
        ("can not be used", |json| json["parts"][0]["name"] = json!("../../x")),
        ("unknown field", |json| json["colour"] = json!(1)),
        ("its name of", |json| json["at"] = json!("2026-11-22T02:00:01Z")),
        ("has format 2; this pgtenant knows 1", |json| *json = json!({"format": 2, "new": true})),
        ("there is no format 0", |json| json["format"] = json!(0)),
    ];
    for (expected, change) in changes {
        forge(&scene, &orders, &made, change);
        let error = scene.refused(&orders, &made).await;
        assert!(error.contains(expected), "{expected}: {error}");
        fs::write(&file, &whole).unwrap();
    }
    for (text, expected) in [(&b""[..], "EOF"), (b"{", "EOF"), (b"\xff", "expected value"), (b"[]", "invalid")] {
        fs::write(&file, text).unwrap();
        let error = scene.refused(&orders, &made).await;
        assert!(error.contains("is not what was written there"), "{expected}: {error}");
    }
    fs::File::create(&file).unwrap().set_len(17 << 20).unwrap();
    assert!(scene.refused(&orders, &made).await.contains("more than 16777216 bytes"));
}

#[tokio::test]
async fn a_mark_that_was_changed_makes_a_dump_no_worse() {
    let scene = Scene::new();
    let orders = key("orders");
    let made = write(&scene.dumps, &orders, at("2026-11-22T02:00:00Z"), &[("data", b"x")]).await;
    for text in [r#"{"format":1,"id":"20261122T020000Z-00000000","at":"2026-11-22T02:00:00Z","by":"x"}"#, "", "{}"] {
        fs::write(scene.folder(&orders, &made).join("verified.json"), text).unwrap();
        let listed = scene.dumps.list(CLUSTER, &orders).await.unwrap();
        assert!(listed.broken.is_empty() && listed.dumps[0].verified.is_none(), "{text}");
        scene.dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    }
}
