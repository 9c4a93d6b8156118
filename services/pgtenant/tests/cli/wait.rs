//! Waiting for the end of a request.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::documents::{OPERATION, database, operation, problem};
use crate::server::{Answer, Server};

const DATABASES: &str = "POST /v1/namespaces/idp-dev/databases";
const DATABASE: &str = "GET /v1/namespaces/idp-dev/databases/my-db";

fn operation_line() -> String {
    format!("GET /v1/operations/{OPERATION}")
}

fn made() -> Answer {
    Answer::json(201, &database("idp-dev", "my-db", "Pending")).header("pgtenant-operation", OPERATION)
}

fn running(step: Option<&str>, message: Option<&str>) -> Answer {
    Answer::json(200, &operation("create", "Running", step, message))
}

fn succeeded(kind: &str) -> Answer {
    Answer::json(200, &operation(kind, "Succeeded", None, Some("done")))
}

#[test]
fn without_wait_the_answer_is_enough() {
    let server = Server::start();
    server.on(DATABASES, [made()]);
    let arguments =
        ["db", "create", "idp-dev/my-db", "--mode", "protected", "--schema", "a,b", "--extension", "pgcrypto"];
    let ended = server.run(&[&arguments[..], &["--connection-limit", "5", "--cluster", "main"]].concat()).expect(0);
    assert_eq!(ended.stdout, "idp-dev/my-db created\n");
    assert_eq!(
        server.only("POST").body,
        json!({"name": "my-db", "mode": "protected", "cluster": "main", "schemas": ["a", "b"],
               "extensions": ["pgcrypto"], "connectionLimit": 5})
    );
    let json = server.run(&["db", "create", "idp-dev/my-db", "--no-wait", "-o", "json"]).expect(0);
    assert_eq!(json.json()["state"], "Pending");
    server.on(DATABASES, [Answer::json(200, &database("idp-dev", "my-db", "Ready"))]);
    assert_eq!(server.run(&["db", "create", "idp-dev/my-db"]).expect(0).stdout, "idp-dev/my-db unchanged\n");
}

#[test]
fn a_wait_goes_on_until_it_is_ready() {
    let server = Server::start();
    let trouble = problem(503, "ledger-unavailable", "the ledger does not answer");
    server
        .on(DATABASES, [made()])
        .on(&operation_line(), [running(None, None), running(Some("connect"), Some("no primary")), succeeded("create")])
        .on(
            DATABASE,
            [
                Answer::json(200, &database("idp-dev", "my-db", "Pending")),
                Answer::json(503, &trouble),
                Answer::json(200, &retrying()),
                Answer::json(200, &database("idp-dev", "my-db", "Ready")),
            ],
        );
    let ended = server.run(&["db", "create", "idp-dev/my-db", "--wait"]).expect(0);
    assert_eq!(
        ended.stdout,
        "idp-dev/my-db created\nidp-dev/my-db is Ready: database idp-dev-my-db on db1.example:5432\n"
    );
    // No terminal: a line for each change, no spinner.
    assert!(ended.stderr.contains("idp-dev/my-db: Provisioning: no primary\n"), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\x1b') && !ended.stderr.contains('\r'), "{:?}", ended.stderr);
}

fn retrying() -> serde_json::Value {
    let mut document = database("idp-dev", "my-db", "Provisioning");
    document["conditions"][0]["reason"] = "ClusterUnavailable".into();
    document
}

#[test]
fn with_json_only_the_end_is_printed() {
    let server = Server::start();
    let ready = database("idp-dev", "my-db", "Ready");
    server
        .on(DATABASES, [made()])
        .on(&operation_line(), [succeeded("create")])
        .on(DATABASE, [Answer::json(200, &ready)]);
    let ended = server.run(&["db", "create", "idp-dev/my-db", "--wait", "-o", "json"]).expect(0);
    assert_eq!(ended.json(), ready);
}

#[test]
fn events_end_a_pause() {
    let server = Server::start();
    server
        .on(DATABASES, [made()])
        .on(&operation_line(), [running(None, None), succeeded("create")])
        .on(DATABASE, [Answer::json(200, &database("idp-dev", "my-db", "Ready"))])
        .on("GET /v1/events?namespace=idp-dev&name=my-db", [Answer::events("id: 1\ndata: {}\n\n")]);
    let begun = Instant::now();
    server.run(&["db", "create", "idp-dev/my-db", "--wait"]).expect(0);
    // While a stream is open and silent, three seconds lie between two looks.
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    assert_eq!(server.streams(), ["GET /v1/events?namespace=idp-dev&name=my-db"]);
}

#[test]
fn a_database_that_can_be_used_is_not_waited_for() {
    let server = Server::start();
    let mut degraded = database("idp-dev", "my-db", "Ready");
    degraded["state"] = "Degraded".into();
    server.on(DATABASES, [Answer::json(200, &degraded)]).on(DATABASE, [Answer::json(200, &degraded)]);
    let ended = server.run(&["db", "create", "idp-dev/my-db", "--wait", "--timeout", "5s"]).expect(0);
    assert_eq!(
        ended.stdout,
        "idp-dev/my-db unchanged\nidp-dev/my-db is Degraded: database idp-dev-my-db on db1.example:5432\n"
    );
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_failure_says_what_to_do() {
    let server = Server::start();
    let message = "at step database: permission denied to create database. Ask for CREATEDB. Try 1 failed";
    server
        .on(DATABASES, [made()])
        .on(&operation_line(), [running(Some("database"), Some(message))])
        .on(DATABASE, [Answer::json(200, &database("idp-dev", "my-db", "Failed"))]);
    let ended = server.run(&["db", "create", "idp-dev/my-db", "--wait"]).expect(1);
    let expected = format!("error: idp-dev/my-db failed\n  {message}\nhint: the next try is in 7");
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    assert_eq!(ended.stdout, "idp-dev/my-db created\n");
}

#[test]
fn a_wait_has_an_end() {
    let server = Server::start();
    server
        .on(DATABASES, [made()])
        .on(&operation_line(), [running(Some("connect"), Some("no primary answers"))])
        .on(DATABASE, [Answer::json(200, &retrying())]);
    let ended = server.run(&["db", "create", "idp-dev/my-db", "--wait", "--timeout", "1s"]).expect(1);
    assert!(ended.stderr.contains("error: idp-dev/my-db is not done after 1s at step connect\n  no primary answers\n"));
}

#[test]
fn deleting_waits_until_it_is_gone() {
    let server = Server::start();
    server
        .on(
            "DELETE /v1/namespaces/idp-dev/databases/my-db",
            [Answer::json(202, &operation("delete", "Pending", None, None))],
        )
        .on(&operation_line(), [Answer::json(200, &operation("delete", "Running", None, None)), succeeded("delete")])
        .on(
            DATABASE,
            [
                Answer::json(200, &database("idp-dev", "my-db", "Deleting")),
                Answer::json(404, &problem(404, "not-found", "there is no database idp-dev/my-db")),
            ],
        );
    let ended = server.run(&["db", "delete", "idp-dev/my-db", "--yes"]).expect(0);
    assert_eq!(ended.stdout, "idp-dev/my-db is being deleted\nidp-dev/my-db deleted\n");
    let json = server.run(&["db", "delete", "idp-dev/my-db", "--yes", "-o", "json"]).expect(0);
    assert_eq!(json.json()["state"], "Succeeded");
}

#[test]
fn ctrl_c_ends_the_wait_and_not_the_work() {
    let server = Server::start();
    server
        .on(DATABASES, [made()])
        .on(&operation_line(), [running(None, None)])
        .on(DATABASE, [Answer::json(200, &database("idp-dev", "my-db", "Provisioning"))]);
    let mut command = server.command(&["db", "create", "idp-dev/my-db", "--wait"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.lines().iter().any(|line| line.starts_with("GET /v1/operations/")) {
        assert!(Instant::now() < deadline, "it never looked");
        std::thread::sleep(Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = crate::run::Ended::from(child.wait_with_output().unwrap()).expect(130);
    assert!(ended.stderr.contains("idp-dev/my-db goes on without you"), "{}", ended.stderr);
}
