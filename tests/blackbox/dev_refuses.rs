//! `pgtenant dev` says what to do where it can not start, and leaves things as they were.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use pgtenant_tests::{Cli, Dev, Finished, Folder, processes_in, run};

use crate::shared;

/// Runs it; it ends by itself, with status 1, a message and a hint, and no process is left.
async fn refused(command: Command, dir: &Path) -> Finished {
    let done = run(command).await.expect(1);
    assert!(done.stderr.contains("hint: ") || done.stderr.contains("install"), "what to do? {}", done.stderr);
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    assert!(!done.stdout.contains("ready"), "{}", done.stdout);
    assert_eq!(processes_in(dir), []);
    done
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let folder = Folder::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = folder.join("data");
    let said = refused(Dev::command(&dir, port), &dir).await.stderr;
    assert!(said.contains(&port.to_string()) && said.contains("--listen"), "{said}");
}

#[tokio::test]
async fn a_folder_of_another_version_is_left_alone() {
    let folder = Folder::new("version");
    let dir = folder.join("data");
    fs::create_dir_all(&dir).unwrap();
    let marker = r#"{"format":99,"version":"9.9.9"}"#;
    fs::write(dir.join("pgtenant.json"), marker).unwrap();
    let said = refused(Dev::command(&dir, 0), &dir).await.stderr;
    for part in ["9.9.9", "99", "--dir", &*dir.to_string_lossy()] {
        assert!(said.contains(part), "no {part}: {said}");
    }
    assert_eq!(fs::read_to_string(dir.join("pgtenant.json")).unwrap(), marker);
    assert_eq!(entries(&dir), ["pgtenant.json"]);
}

#[tokio::test]
async fn a_folder_of_something_else_is_left_alone() {
    let folder = Folder::new("foreign");
    let dir = folder.join("data");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("holiday.jpg"), "").unwrap();
    let said = refused(Dev::command(&dir, 0), &dir).await.stderr;
    assert!(said.contains("not empty") && said.contains("--dir"), "{said}");
    assert_eq!(entries(&dir), ["holiday.jpg"]);
}

#[tokio::test]
async fn a_missing_postgresql_is_named_with_what_to_install() {
    let folder = Folder::new("nothing");
    let empty = folder.join("bin");
    fs::create_dir_all(&empty).unwrap();
    let dir = folder.join("data");
    let dir_text = dir.to_string_lossy();
    let command =
        Cli::new().env("PGTENANT_PG_BIN", &empty).command(&["dev", "--listen", "127.0.0.1:0", "--dir", &dir_text]);
    let said = refused(command, &dir).await.stderr;
    assert!(said.contains("postgres") && said.contains("PGTENANT_PG_BIN") && said.contains("install"), "{said}");
}

#[tokio::test]
async fn a_second_one_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let dev = shared::dev().await;
    let mut command = Dev::command(&dev.dir, 0);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let done = run(command).await.expect(1);
    assert!(done.stderr.contains(&*dev.dir.to_string_lossy()) && done.stderr.contains("--dir"), "{}", done.stderr);
    assert!(fs::read_to_string(dev.dir.join("env")).unwrap().contains(&dev.url), "DIR/env still names the first");
    dev.api().get("/readyz").await.expect(200);
}

#[tokio::test]
async fn wrong_usage_ends_with_status_2() {
    for args in [&["dev", "--listen", "nowhere"][..], &["dev", "--no-such-flag"], &["no-such-command"], &[]] {
        let done = Cli::new().run(args).await.expect(2);
        assert!(done.stderr.contains("Usage") || done.stderr.contains("invalid value"), "{args:?}: {}", done.stderr);
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
