//! Changing, deleting, releasing, adopting, rotating.

use serde_json::{Value, json};

use crate::documents::{database, operation, plan, problem};
use crate::server::{Answer, Server};

const BASE: &str = "/v1/namespaces/idp-dev/databases/my-db";

fn pending(kind: &str) -> Answer {
    Answer::json(202, &operation(kind, "Pending", None, None))
}

#[test]
fn nothing_is_deleted_without_a_yes() {
    let server = Server::start();
    server.on(&format!("DELETE {BASE}"), [Answer::json(409, &problem(409, "protected", "it is protected"))]);
    let ended = server.run(&["db", "delete", "idp-dev/my-db"]).expect(2);
    assert!(ended.stderr.contains("hint: add --yes"), "{}", ended.stderr);
    assert!(server.lines().is_empty());
    let ended = server.run(&["db", "delete", "idp-dev/my-db", "--yes"]).expect(1);
    assert!(ended.stderr.contains("it is protected\nhint: `pgtenant db update NS/NAME --mode standard`"));
}

#[test]
fn an_update_patches_what_was_read() {
    let server = Server::start();
    let ready = database("idp-dev", "my-db", "Ready");
    server.on(&format!("GET {BASE}"), [Answer::json(200, &ready).header("etag", "\"4\"")]).on(
        &format!("PATCH {BASE}"),
        [
            Answer::json(200, &ready).header("pgtenant-operation", crate::documents::OPERATION),
            Answer::json(200, &ready),
            Answer::json(412, &problem(412, "precondition-failed", "it is at generation 5")),
        ],
    );
    let update = ["db", "update", "idp-dev/my-db", "--mode", "protected", "--no-schemas", "--no-connection-limit"];
    assert_eq!(server.run(&update).expect(0).stdout, "idp-dev/my-db changed\n");
    let patch = server.only("PATCH");
    assert_eq!(patch.body, json!({"mode": "protected", "schemas": [], "connectionLimit": null}));
    assert_eq!(patch.header("if-match"), "\"4\"");
    assert_eq!(patch.header("content-type"), "application/merge-patch+json");
    assert_eq!(server.run(&update).expect(0).stdout, "idp-dev/my-db unchanged\n");
    assert!(server.run(&update).expect(1).stderr.contains("generation 5"));
}

#[test]
fn a_channel_is_named_and_taken_back() {
    let server = Server::start();
    let ready = database("idp-dev", "my-db", "Ready");
    server
        .on(&format!("GET {BASE}"), [Answer::json(200, &ready)])
        .on(&format!("PATCH {BASE}"), [Answer::json(200, &ready), Answer::json(200, &ready)]);
    server.run(&["db", "update", "idp-dev/my-db", "--slack-channel", "#orders"]).expect(0);
    assert_eq!(server.only("PATCH").body, json!({"slackChannel": "#orders"}));
    server.run(&["db", "update", "idp-dev/my-db", "--no-slack-channel"]).expect(0);
    server.run(&["db", "update", "idp-dev/my-db", "--slack-channel", "#a", "--no-slack-channel"]).expect(2);
}

#[test]
fn releasing_and_rotating() {
    let server = Server::start();
    server
        .on(&format!("POST {BASE}/release"), [pending("release")])
        .on(&format!("POST {BASE}/credentials/rotate"), [pending("rotate")]);
    assert_eq!(server.run(&["db", "release", "idp-dev/my-db"]).expect(0).stdout, "idp-dev/my-db released\n");
    server.run(&["db", "rotate", "idp-dev/my-db"]).expect(0);
    server.run(&["db", "rotate", "idp-dev/my-db", "--tier", "read,write"]).expect(0);
    let bodies: Vec<Value> = server.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [Value::Null, Value::Null, json!({"tiers": ["read", "write"]})]);
}

#[test]
fn adopting_shows_the_plan_first() {
    let server = Server::start();
    server
        .on(&format!("POST {BASE}/adopt?dryRun=true"), [Answer::json(200, &plan(&[("my-db", "adopt")]))])
        .on(&format!("POST {BASE}/adopt"), [pending("adopt")]);
    let ended = server.run(&["db", "adopt", "idp-dev/my-db"]).expect(2);
    assert!(ended.stdout.contains("adopt idp-dev/my-db") && ended.stdout.contains("  - create database"), "{ended:?}");
    assert_eq!(server.lines().len(), 1);
    let ended = server.run(&["db", "adopt", "idp-dev/my-db", "--mode", "protected", "--yes"]).expect(0);
    assert!(ended.stdout.ends_with("Plan: 1 to adopt.\nidp-dev/my-db is being adopted\n"), "{}", ended.stdout);
    assert_eq!(server.asked().last().unwrap().body, json!({"mode": "protected"}));
    let ended = server.run(&["db", "adopt", "idp-dev/my-db", "--yes", "-o", "json"]).expect(0);
    assert_eq!(ended.json()["kind"], "adopt");
}

#[test]
fn what_can_not_be_adopted_is_not() {
    let server = Server::start();
    server.on(&format!("POST {BASE}/adopt?dryRun=true"), [Answer::json(200, &plan(&[("my-db", "refuse")]))]);
    let ended = server.run(&["db", "adopt", "idp-dev/my-db", "--yes"]).expect(1);
    assert!(ended.stdout.contains("! extensions[0]: \"postgis\" is not allowed"), "{}", ended.stdout);
    assert_eq!(server.lines().len(), 1);
}
