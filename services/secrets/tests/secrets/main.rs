//! The file store on a real file system, Secrets of a real API server and of AWS Secrets Manager, and several stores together.
#![expect(clippy::unwrap_used, reason = "helpers of tests are no tests to clippy")]

mod aws;
mod cost;
mod faults;
mod file;
mod kubernetes;
mod stores;
mod trial;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pgtenant_model::{ClaimKey, Credential, CredentialTarget, Endpoint, FileStore, SslMode, Tier};
use pgtenant_secrets::{FileSecrets, Login, credential};
use secrecy::SecretString;

type Entry = (CredentialTarget, Credential);

fn target(namespace: &str, name: &str, tier: Tier) -> CredentialTarget {
    CredentialTarget { key: ClaimKey::new(namespace, name).unwrap(), tier }
}

fn made(target: &CredentialTarget, password: &str) -> Credential {
    let role = target.role();
    credential(&Login {
        username: &role,
        password: &SecretString::from(password),
        database: &target.key.database(),
        endpoint: &Endpoint {
            host: "db1.example".to_owned(),
            port: 5433,
            read_host: Some("read.example".to_owned()),
            read_port: None,
        },
        hosts: &["db1.example:5433".parse().unwrap(), "db2.example:5434".parse().unwrap()],
        sslmode: SslMode::VerifyFull,
        ca_crt: Some("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"),
        reads: target.tier == Tier::Read,
        pool: (target.tier != Tier::Admin).then_some(&"pool.example:6432".parse().unwrap()),
    })
}

fn tiers(namespace: &str, name: &str, password: &str) -> Vec<Entry> {
    let entry = |tier| {
        let target = target(namespace, name, tier);
        let credential = made(&target, password);
        (target, credential)
    };
    Tier::ALL.map(entry).to_vec()
}

fn targets(entries: &[Entry]) -> Vec<CredentialTarget> {
    entries.iter().map(|(target, _)| target.clone()).collect()
}

fn spec(directory: &Path) -> FileStore {
    FileStore { directory: directory.to_owned(), name: "customer/{namespace}/{role}".to_owned() }
}

fn store(directory: &Path) -> FileSecrets {
    FileSecrets::new(&spec(directory)).unwrap()
}

/// Every path below `directory`, relative.
fn tree(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        // Others may remove it in the same moment.
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            found.insert(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                open.push(path);
            }
        }
    }
    found
}

fn temporaries(directory: &Path) -> Vec<String> {
    tree(directory).into_iter().filter(|path| path.ends_with(".tmp")).collect()
}
