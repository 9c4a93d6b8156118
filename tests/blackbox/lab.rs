//! `pgtenant lab`, as a person types it: each command is a process of its own, and the servers outlive it.

use std::path::PathBuf;
use std::process::Command;

use pgtenant_tests::{Cli, Finished, Folder, processes_in, run};
use serde_json::Value;

/// A lab that goes with the test, also with one that fails.
struct Lab {
    dir: PathBuf,
    _folder: Folder,
}

impl Lab {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        Self { dir: folder.join("lab"), _folder: folder }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Cli::new().command(&["lab"]);
        command.args(args).arg("--dir").arg(&self.dir);
        command
    }

    async fn run(&self, args: &[&str]) -> Finished {
        run(self.command(args)).await
    }

    async fn roles(&self) -> Vec<String> {
        let status = self.run(&["status", "--output", "json"]).await.expect(0).json();
        let role = |node: &Value| node["role"].as_str().unwrap().to_owned();
        status["nodes"].as_array().unwrap().iter().map(role).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.dir.exists() {
            self.command(&["down", "--remove", "--yes"]).output().ok();
        }
    }
}

#[tokio::test]
async fn a_lab_outlives_its_commands_and_leaves_nothing() {
    let lab = Lab::new("lab");
    let said = lab.run(&["status"]).await.expect(1).stderr;
    assert!(said.contains("hint: `pgtenant lab up"), "{said}");
    let said = lab.run(&["up"]).await.expect(2).stderr;
    assert!(said.contains("--topology, one of streaming"), "{said}");

    let up = lab.run(&["up", "--topology", "streaming"]).await.expect(0);
    assert!(up.stderr.contains("copying node-1 to node-2"), "{}", up.stderr);
    assert!(up.stdout.contains("node-1  primary"), "{}", up.stdout);
    assert_eq!(lab.roles().await, ["primary", "standby"]);
    lab.run(&["up"]).await.expect(0);

    let said = lab.run(&["kill", "node-1"]).await.expect(0).stderr;
    assert!(said.contains("`pgtenant lab start node-1` brings it back"), "{said}");
    assert_eq!(lab.roles().await, ["down", "standby"]);
    lab.run(&["promote", "node-2"]).await.expect(0);
    lab.run(&["start", "1"]).await.expect(0);
    assert_eq!(lab.roles().await, ["standby", "primary"]);

    // What `status` says to paste.
    let status = lab.run(&["status", "--output", "json"]).await.expect(0).json();
    let psql = format!("{} -Atc 'select 6 * 7'", status["admin"]["psql"].as_str().unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-c", &psql]);
    assert_eq!(run(shell).await.expect(0).stdout, "42\n");

    lab.run(&["down"]).await.expect(0);
    assert_eq!(lab.roles().await, ["down", "down"]);
    lab.run(&["down", "--remove", "--yes"]).await.expect(0);
    assert!(!lab.dir.exists());
    assert_eq!(processes_in(&lab.dir), []);
}

#[tokio::test]
async fn a_lab_with_haproxy_is_told_by_this_program_who_is_what() {
    let lab = Lab::new("lab-haproxy");
    let up = lab.run(&["up", "--topology", "haproxy", "--nodes", "2"]).await.expect(0);
    assert!(up.stderr.contains("starting the health service of node-2"), "{}", up.stderr);
    let status = lab.run(&["status", "--output", "json"]).await.expect(0).json();
    assert_eq!(status["services"][0]["running"], true, "{status}");
    for node in status["nodes"].as_array().unwrap() {
        let processes: Vec<&str> = node["processes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(processes, ["health", "postgres", "repmgrd"]);
    }
    let uri = status["admin"]["uri"].as_str().unwrap();
    let (write, read) = (&status["endpoints"]["write"], &status["endpoints"]["read"]);
    assert!(write.as_array().unwrap().len() == 1 && read.as_array().unwrap().len() == 1 && write != read, "{status}");
    assert!(uri.contains(write[0].as_str().unwrap()), "an administrator goes where writes go: {uri}");

    lab.run(&["rotate", "repmgr"]).await.expect(0);
    let said = lab.run(&["rotate", "tenant"]).await.expect(1).stderr;
    assert!(said.contains("hint: it has postgres, repmgr, health"), "{said}");
    lab.run(&["kill", "node-2"]).await.expect(0);
    let start = lab.run(&["start", "node-2"]).await.expect(0);
    assert!(start.stderr.contains("starting the health service of node-2"), "{}", start.stderr);
    assert_eq!(lab.roles().await, ["primary", "standby"]);
}
