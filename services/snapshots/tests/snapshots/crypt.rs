//! Who can read what: the age command can, another key can not, and a dump that nobody known has sealed is not taken.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use pgtenant_snapshots::{Dumps, Opening, SnapshotError, Trust};
use tempfile::TempDir;

use crate::{CLUSTER, Pair, access, at, folder_store, in_folder, key, noise, read, spec, write};

fn found(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// What other programs make of a part.
fn by_hand(identity: &Path, part: &Path) -> Vec<u8> {
    let mut age =
        Command::new("age").arg("-d").arg("-i").arg(identity).arg(part).stdout(Stdio::piped()).spawn().unwrap();
    let zstd = Command::new("zstd").args(["-d", "-c"]).stdin(age.stdout.take().unwrap()).output().unwrap();
    assert!(age.wait().unwrap().success() && zstd.status.success(), "{}", String::from_utf8_lossy(&zstd.stderr));
    zstd.stdout
}

#[tokio::test]
async fn age_and_zstd_alone_read_a_part_with_any_of_the_keys() {
    let (dir, ours, vault) = (TempDir::new().unwrap(), Pair::new(), Pair::new());
    let dumps = Dumps::new(&spec(in_folder(dir.path()), &[&ours, &vault], Some(&ours)), &access()).unwrap();
    let data = noise(1_000_000);
    let made = write(&dumps, &key("orders"), at("2026-11-22T02:00:00Z"), &[("data", &data), ("empty", b"")]).await;
    assert_eq!(made.recipients, [ours.public.clone(), vault.public.clone()]);
    let folder = dir.path().join(format!("default/shop/orders/{}", made.id));
    let stored = fs::read(folder.join("data.zst.age")).unwrap();
    assert!(stored.starts_with(b"age-encryption.org/v1\n-> X25519 "));
    if !found("age") || !found("zstd") {
        println!("  SKIPPED: reading a part with the commands age and zstd, which are not here");
        return;
    }
    for pair in [&ours, &vault] {
        assert!(by_hand(&pair.file(), &folder.join("data.zst.age")) == data);
        assert!(by_hand(&pair.file(), &folder.join("empty.zst.age")).is_empty());
    }
    // And the other way round: age knows the key as ours.
    let shown = Command::new("age-keygen").arg("-y").arg(ours.file()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), ours.public);
}

#[tokio::test]
async fn another_key_or_none_opens_nothing() {
    let (dir, ours, other) = (TempDir::new().unwrap(), Pair::new(), Pair::new());
    let orders = key("orders");
    let made = write(&folder_store(dir.path(), &ours), &orders, at("2026-11-22T02:00:00Z"), &[("data", b"x")]).await;
    let open = async |dumps: &Dumps, trust| dumps.open(CLUSTER, &orders, made.id, trust).await.unwrap_err();

    let none = Dumps::new(&spec(in_folder(dir.path()), &[&ours], None), &access()).unwrap();
    assert_eq!(none.can_open().await.unwrap(), Opening::NoIdentity);
    let error = open(&none, Trust::Anybody).await;
    assert!(matches!(error, SnapshotError::NoIdentity) && error.explain().contains("identityFile"), "{error:?}");
    assert_eq!(none.list(CLUSTER, &orders).await.unwrap().dumps.len(), 1, "a list needs no key");

    let stranger = Dumps::new(&spec(in_folder(dir.path()), &[&ours], Some(&other)), &access()).unwrap();
    assert_eq!(stranger.can_open().await.unwrap(), Opening::NotARecipient { held: vec![other.public.clone()] });
    assert!(matches!(open(&stranger, Trust::Sealed).await, SnapshotError::NotSealed { .. }));
    let error = open(&stranger, Trust::Anybody).await;
    assert!(matches!(error, SnapshotError::WrongIdentity { .. }), "{error:?}");
    assert!(error.to_string().contains(&ours.public) && error.to_string().contains(&other.public), "{error}");

    fs::set_permissions(other.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = stranger.can_open().await.unwrap_err();
    assert!(error.explain().contains("mode is 0644") && error.explain().contains("0600"), "{}", error.explain());
    fs::remove_file(other.file()).unwrap();
    assert!(matches!(stranger.can_open().await, Err(SnapshotError::KeyFile { .. })));
    // Dumps are made all the same, and not sealed.
    let unsealed = write(&stranger, &orders, at("2026-11-22T03:00:00Z"), &[("data", b"y")]).await;
    assert_eq!(unsealed.seal, None);
}

#[tokio::test]
async fn a_dump_of_a_writer_without_a_key_is_taken_only_when_somebody_says_so() {
    let (dir, ours) = (TempDir::new().unwrap(), Pair::new());
    let orders = key("orders");
    let writer = Dumps::new(&spec(in_folder(dir.path()), &[&ours], None), &access()).unwrap();
    let made = write(&writer, &orders, at("2026-11-22T02:00:00Z"), &[("data", b"x")]).await;
    let restorer = folder_store(dir.path(), &ours);
    let error = restorer.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap_err();
    assert!(matches!(error, SnapshotError::NotSealed { .. }), "{error:?}");
    let reader = restorer.open(CLUSTER, &orders, made.id, Trust::Anybody).await.unwrap();
    assert_eq!(read(&reader, "data").await.unwrap(), b"x");
}
