//! What the files look like, and what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use pgtenant_model::{FileStore, HostPort, SslMode, StoreSpec};
use pgtenant_secrets::{Access, Action, Fault, FileSecrets, Removal, SecretStore, StoreError, Stores, same};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use crate::{store, targets, temporaries, tiers, tree};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn broken(error: &StoreError) -> &str {
    match &error.fault {
        Fault::Broken(why) => why,
        _ => panic!("{}", error.explain()),
    }
}

#[tokio::test]
async fn the_document_is_what_the_contract_says() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("made/secrets");
    let store = store(&root);
    let entries = tiers("idp-dev", "my-db", "pass\"word");
    store.put_many(&entries).await.unwrap();

    let file = root.join("customer/idp-dev/idp-dev-my-db-read.json");
    let document: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let uri = "postgresql://idp-dev-my-db-read:pass%22word@db1.example:5433,db2.example:5434/idp-dev-my-db\
               ?sslmode=verify-full&target_session_attrs=read-write";
    assert_eq!(
        document,
        serde_json::json!({
            "username": "idp-dev-my-db-read",
            "password": "pass\"word",
            "endpoint": "db1.example",
            "port": "5433",
            "database": "idp-dev-my-db",
            "sslmode": "verify-full",
            "uri": uri,
            "ca.crt": "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n",
            "readEndpoint": "read.example",
            "readPort": "5433",
            "readUri": "postgresql://idp-dev-my-db-read:pass%22word@read.example:5433/idp-dev-my-db?sslmode=verify-full",
            "poolEndpoint": "pool.example",
            "poolPort": "6432",
            "poolUri": "postgresql://idp-dev-my-db-read:pass%22word@pool.example:6432/idp-dev-my-db?sslmode=verify-full",
        })
    );
    assert_eq!(mode(&file), 0o600);
    for path in ["made", "made/secrets", "made/secrets/customer", "made/secrets/customer/idp-dev"] {
        assert_eq!(mode(&dir.path().join(path)), 0o700, "{path}");
    }
    assert_eq!(store.location(&entries[0].0), "customer/idp-dev/idp-dev-my-db-read.json");
    for (target, credential) in &entries {
        assert!(same(credential, store.get(target, None).await.unwrap().credential().unwrap()));
    }
    assert_eq!(tree(&root).len(), 5, "{:?}", tree(&root));
    assert!(!format!("{entries:?} {store:?}").contains("word\""));
}

#[tokio::test]
async fn what_is_there_is_not_written_again() {
    let dir = TempDir::new().unwrap();
    let store = store(dir.path());
    let entries = tiers("ns", "db", "one");
    let file = dir.path().join("customer/ns/ns-db-read.json");
    let inode = || fs::metadata(&file).unwrap().ino();
    store.put_many(&entries).await.unwrap();
    let first = inode();
    store.put_many(&entries).await.unwrap();
    assert_eq!(inode(), first);
    // Others could read it: that is put right.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    store.put_many(&entries).await.unwrap();
    assert_eq!(mode(&file), 0o600);
    store.put_many(&tiers("ns", "db", "two")).await.unwrap();
    let (target, _) = &entries[0];
    assert_eq!(store.get(target, None).await.unwrap().credential().unwrap().password.expose_secret(), "two");
}

#[tokio::test]
async fn a_store_that_is_away_is_not_an_empty_one() {
    let dir = TempDir::new().unwrap();
    let away = store(&dir.path().join("not-mounted"));
    assert!(away.reach().await.unwrap_err().explain().contains("not-mounted"));
    let entries = tiers("ns", "db", "one");
    away.put_many(&entries).await.unwrap();
    away.reach().await.unwrap();
}

#[tokio::test]
async fn deleting_leaves_nothing_and_touches_no_other() {
    let dir = TempDir::new().unwrap();
    let store = store(dir.path());
    let (first, second) = (tiers("ns", "a", "p"), tiers("ns", "b", "p"));
    let other = tiers("ns2", "a", "p");
    for entries in [&first, &second, &other] {
        store.put_many(entries).await.unwrap();
    }
    // What a kill left behind goes too.
    fs::write(dir.path().join("customer/ns/.ns-a-read.json.0.tmp"), "half").unwrap();
    store.delete_many(&targets(&first), Removal::Usual).await.unwrap();
    assert!(store.get(&first[0].0, None).await.unwrap().credential().is_none());
    assert!(store.get(&second[0].0, None).await.unwrap().credential().is_some());
    assert_eq!(tree(&dir.path().join("customer/ns")).len(), 3);

    store.delete_many(&targets(&second), Removal::Usual).await.unwrap();
    store.delete_many(&targets(&second), Removal::Usual).await.unwrap();
    assert!(!dir.path().join("customer/ns").exists());
    store.delete_many(&targets(&other), Removal::Usual).await.unwrap();
    assert_eq!(tree(dir.path()), BTreeSet::from(["customer".to_owned()]));
    store.put_many(&first).await.unwrap();
    assert!(store.get(&first[0].0, None).await.unwrap().credential().is_some());
}

#[tokio::test]
async fn a_foreign_document_is_broken_and_is_replaced() {
    let dir = TempDir::new().unwrap();
    let store = store(dir.path());
    let entries = tiers("ns", "db", "one");
    let (target, wanted) = &entries[0];
    store.put_many(&entries).await.unwrap();
    let file = dir.path().join("customer/ns/ns-db-read.json");
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, fs::read(&file).unwrap()).unwrap();

    let write = |text: &str| fs::write(&file, text).unwrap();
    let fifo = || assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let cases: [(&str, &dyn Fn()); 6] = [
        ("JSON that ends too early", &|| write("")),
        ("not JSON", &|| write("hunter2")),
        ("a key is missing", &|| write(r#"{"username":"hunter2"}"#)),
        ("more than 65536 bytes", &|| write(&" ".repeat(70_000))),
        ("a symbolic link", &|| symlink(&elsewhere, &file).unwrap()),
        ("not a regular file", &fifo),
    ];
    for (why, spoil) in cases {
        fs::remove_file(&file).unwrap();
        spoil();
        let error = store.get(target, None).await.unwrap_err();
        assert!(broken(&error).contains(why), "{error:?}");
        assert!(!error.explain().contains("hunter2"));
        store.put_many(&entries).await.unwrap();
        assert!(same(store.get(target, None).await.unwrap().credential().unwrap(), wanted));
    }
    assert!(fs::read(&elsewhere).unwrap().ends_with(b"}\n"), "what the link led to is untouched");

    // A directory in the file's place is more than it may remove.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(broken(&store.get(target, None).await.unwrap_err()).contains("not a regular file"));
    let error = store.put_many(&entries).await.unwrap_err();
    assert_eq!((error.action, error.location.as_str()), (Action::Write, "customer/ns/ns-db-read.json"));
    assert!(error.explain().contains("move away"), "{}", error.explain());
    assert!(temporaries(dir.path()).is_empty(), "{:?}", tree(dir.path()));
}

#[tokio::test]
async fn no_link_in_place_of_a_directory_is_followed() {
    let dir = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    let store = store(dir.path());
    fs::create_dir(dir.path().join("customer")).unwrap();
    symlink(outside.path(), dir.path().join("customer/ns")).unwrap();
    let entries = tiers("ns", "db", "one");
    let error = store.put_many(&entries).await.unwrap_err();
    assert!(error.explain().contains("symbolic links are not followed"), "{}", error.explain());
    assert!(store.get(&entries[0].0, None).await.is_err());
    assert!(store.delete_many(&targets(&entries), Removal::Usual).await.is_err());
    assert!(tree(outside.path()).is_empty());
}

#[test]
fn templates_that_lead_elsewhere_are_refused() {
    let spec = |directory: &str, name: &str| FileStore { directory: directory.into(), name: name.to_owned() };
    assert_eq!(FileSecrets::new(&spec("relative", "{role}")).unwrap_err().field, "directory");
    assert_eq!(FileSecrets::new(&spec("/x", "../{role}")).unwrap_err().field, "name");
    let specs = [StoreSpec::File(spec("/x", "{role}")), StoreSpec::File(spec("/x", "{namespace}"))];
    assert_eq!(Stores::from_specs("stores", &specs, &Access::default()).unwrap_err().field, "stores[1].file.name");
}

/// libpq itself reads the URI: it fails to connect, at every host and port that the URI names.
#[test]
fn libpq_accepts_the_uri() {
    let hosts: Vec<HostPort> = ["127.0.0.1:1", "[::1]:2"].iter().map(|h| h.parse().unwrap()).collect();
    let password = SecretString::from("p:@/?#%& ä");
    let uri = pgtenant_secrets::uri("u@:/", &password, &hosts, "a-b", SslMode::Require);
    let mut psql = Command::new("psql");
    psql.args(["--command", "SELECT 1", uri.expose_secret()]).env("PGCONNECT_TIMEOUT", "5").env("LC_ALL", "C");
    let Ok(output) = psql.output() else {
        eprintln!("skipped: there is no psql");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("\"127.0.0.1\", port 1 failed"), "{said}");
    assert!(said.contains("\"::1\", port 2 failed"), "{said}");
}
