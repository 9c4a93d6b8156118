//! Lists and single things: tables, JSON, YAML.

use serde_json::json;

use crate::documents::{OPERATION, database, operation, page};
use crate::server::{Answer, Server};

fn two_pages(server: &Server) {
    let first = page(vec![database("idp-dev", "my-db", "Ready")], Some("next/1"));
    let second = page(vec![database("shop-with-a-long-name", "orders-archive", "Failed")], None);
    server.on("GET /v1/databases?limit=500", [Answer::json(200, &first)]);
    server.on("GET /v1/databases?limit=500&cursor=next%2F1", [Answer::json(200, &second)]);
}

#[test]
fn a_table_fits_80_columns_and_has_no_colours_in_a_pipe() {
    let server = Server::start();
    two_pages(&server);
    let ended = crate::run::end(server.command(&["db", "list"]).env("COLUMNS", "80")).expect(0);
    assert!(ended.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ended.stdout);
    assert!(ended.stdout.starts_with("NAMESPACE"), "{}", ended.stdout);
    assert!(ended.stdout.contains("idp-dev") && ended.stdout.contains("orders-archive"), "{}", ended.stdout);
    assert!(!ended.stdout.contains('\x1b') && ended.stderr.is_empty());
    let wide = server.run(&["db", "list", "--all"]).expect(0).stdout;
    assert_eq!(wide.lines().count(), 3, "{wide}");
    assert!(wide.contains("permission denied to create database: ask the platform team for CREATEDB"), "{wide}");
}

#[test]
fn json_and_yaml_are_the_documents_of_rest() {
    let server = Server::start();
    two_pages(&server);
    let mut strange = database("idp-dev", "my-db", "Ready");
    strange["aFieldOfTomorrow"] = json!({"z": 1, "a": [1.5, null, true]});
    server.on("GET /v1/databases?limit=500", [Answer::json(200, &page(vec![strange.clone()], Some("next/1")))]);
    let json = server.run(&["db", "list", "--output", "json"]).expect(0);
    assert_eq!(json.json(), json!([strange, database("shop-with-a-long-name", "orders-archive", "Failed")]));
    let yaml = server.run(&["db", "list", "-o", "yaml"]).expect(0);
    let value: serde_json::Value = serde_yaml_ng::from_str(&yaml.stdout).unwrap();
    assert_eq!(value, json.json());
}

#[test]
fn keys_keep_their_order() {
    let server = Server::start();
    server.on(
        "GET /v1/operations/01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11",
        [Answer::text(200, r#"{"z":1,"a":{"y":2,"b":3}}"#)],
    );
    let ended = server.run(&["operation", "get", OPERATION, "-o", "json"]).expect(0);
    assert_eq!(ended.stdout, "{\n  \"z\": 1,\n  \"a\": {\n    \"y\": 2,\n    \"b\": 3\n  }\n}\n");
}

#[test]
fn lists_are_narrowed_and_carry_the_token() {
    let server = Server::start();
    server.on("GET /v1/namespaces/idp-dev/databases", [Answer::json(200, &page(vec![], None))]);
    let ended = server.run(&["db", "list", "-n", "idp-dev", "--state", "failed"]).expect(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", "There are no databases.\n"));
    let asked = server.only("GET");
    assert_eq!(asked.line, "GET /v1/namespaces/idp-dev/databases?state=Failed&limit=500");
    assert_eq!(asked.header("authorization"), "Bearer pgt_test");
    let ended = server.run(&["db", "list", "-n", "idp-dev", "-o", "json"]).expect(0);
    assert_eq!(ended.stdout, "[]\n");
}

#[test]
fn a_database_is_described() {
    let server = Server::start();
    server
        .on("GET /v1/namespaces/idp-dev/databases/my-db", [Answer::json(200, &database("idp-dev", "my-db", "Failed"))]);
    let text = server.run(&["db", "get", "-n", "idp-dev", "my-db"]).expect(0).stdout;
    for expected in [
        "Name:         idp-dev/my-db\n",
        "State:        Failed\n",
        "Endpoint:     db1.example:5432\n",
        "Schemas:      reporting\n",
        "Connections:  no limit\n",
        "Next try:     in 7",
        "ServerRefused",
        "permission denied to create database: ask the platform team for CREATEDB",
        "file: customer/idp-dev/idp-dev-my-db-write.json",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let narrow = crate::run::end(server.command(&["db", "get", "idp-dev/my-db"]).env("COLUMNS", "80")).expect(0);
    assert!(narrow.stdout.lines().all(|line| line.chars().count() <= 80), "{}", narrow.stdout);
}

#[test]
fn clusters() {
    let server = Server::start();
    let cluster = json!({"name": "default", "environment": "production", "endpoint": null, "version": "17.2",
        "allowedExtensions": ["pgcrypto"], "limits": {"databasesPerNamespace": 20}, "problem": null,
        "observedAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "primary": "db1:5432"});
    let members = json!([{"host": "db1:5432", "role": "primary", "timeline": 3, "message": null},
                         {"host": "db2:5432", "role": "unreachable", "timeline": null, "message": "refused"}]);
    server
        .on("GET /v1/clusters", [Answer::json(200, &page(vec![cluster.clone()], None))])
        .on("GET /v1/clusters/default", [Answer::json(200, &cluster)])
        .on(
            "GET /v1/clusters/default/topology",
            [Answer::json(
                200,
                &json!({"cluster": "default", "primary": "db1:5432",
            "version": "17.2", "members": members, "problem": null, "observedAt": "2026-01-01T00:00:00Z"}),
            )],
        )
        .on(
            "POST /v1/clusters/default/preflight",
            ["Passed", "Warning", "Warning", "Failed", "Failed"].map(|result| {
                let line = |check: &str, result: &str, message: &str| json!({"check": check, "result": result, "message": message});
                let roles = line("roles", result, "ALTER ROLE x CREATEROLE;");
                let checks = [line("primary", "Passed", "db1:5432 is writable"), roles];
                Answer::json(200, &json!({"cluster": "default", "ok": result == "Passed", "checks": checks}))
            }),
        );
    assert!(server.run(&["cluster", "list"]).expect(0).stdout.contains("production"));
    assert!(server.run(&["cluster", "get", "default"]).expect(0).stdout.contains("Extensions:   pgcrypto"));
    let text = server.run(&["cluster", "topology", "default"]).expect(0).stdout;
    assert!(text.contains("db1:5432  primary") && text.contains("refused"), "{text}");
    let preflight = |status: i32, flags: &[&str]| {
        server.run(&[&["cluster", "preflight", "default"], flags].concat()).expect(status).stdout
    };
    let table = preflight(0, &[]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("CHECK    RESULT  MESSAGE"), "{table}");
    assert!(lines[1].starts_with("primary  Passed  db1:5432 is writable"), "{table}");
    assert!(preflight(1, &[]).contains("Warning  ALTER ROLE x CREATEROLE;"), "a warning is told by the status");
    preflight(0, &["--allow-warnings"]);
    preflight(1, &["--allow-warnings"]);
    assert!(preflight(1, &["--output", "yaml"]).contains("result: Failed"));
}

#[test]
fn operations_and_audit() {
    let server = Server::start();
    let document = operation("create", "Running", Some("grant"), Some("the server said no"));
    server.on(&format!("GET /v1/operations/{OPERATION}"), [Answer::json(200, &document)]);
    let text = server.run(&["operation", "get", OPERATION]).expect(0).stdout;
    assert!(text.contains("Step:      grant\n") && text.contains("the server said no"), "{text}");

    let entry = |id: i32| {
        json!({"id": id, "at": "2026-01-01T00:00:00Z", "actor": "token:ci", "action": "database.create",
               "namespace": "idp-dev", "name": "my-db", "requestId": null, "detail": {}})
    };
    server
        .on("GET /v1/audit?namespace=idp-dev&limit=2", [Answer::json(200, &page(vec![entry(3), entry(2)], Some("c")))]);
    let text = server.run(&["audit", "-n", "idp-dev", "--limit", "2"]).expect(0).stdout;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("2026-01-01T00:00:00Z  token:ci  database.create  idp-dev/my-db"), "{text}");
}

#[test]
fn tokens() {
    let server = Server::start();
    let token = json!({"id": OPERATION, "name": "ci", "role": "tenant", "namespaces": ["idp-dev"],
        "createdAt": "2026-01-01T00:00:00Z", "expiresAt": "2099-01-01T00:00:00Z", "revokedAt": null});
    let mut made = token.clone();
    made["secret"] = "pgt_0123".into();
    server
        .on("POST /v1/tokens", [Answer::json(201, &made)])
        .on("GET /v1/tokens", [Answer::json(200, &page(vec![token], None))])
        .on(&format!("DELETE /v1/tokens/{OPERATION}"), [Answer::text(204, "")]);
    let create = ["token", "create", "--name", "ci", "--role", "tenant", "--namespace", "idp-dev", "--expires", "90d"];
    let ended = server.run(&create).expect(0);
    // Only the secret goes to stdout, so that $(…) is the token.
    assert_eq!(ended.stdout, "pgt_0123\n");
    assert!(ended.stderr.contains("shown this once") && !ended.stderr.contains("pgt_"), "{}", ended.stderr);
    let body = server.only("POST").body;
    assert_eq!(body, json!({"name": "ci", "role": "tenant", "namespaces": ["idp-dev"], "expiresInSeconds": 7_776_000}));
    assert!(server.run(&["token", "list"]).expect(0).stdout.contains("idp-dev"));
    server.run(&["token", "revoke", OPERATION]).expect(0);
    let revoked = server.run(&["token", "revoke", OPERATION, "--output", "json"]).expect(0);
    assert_eq!(revoked.json(), json!({"id": OPERATION, "revoked": true}));
    server.run(&["token", "create", "--name", "x", "--role", "tenant"]).expect(2);
    server.run(&["token", "create", "--name", "x", "--role", "platform", "--namespace", "a"]).expect(2);
}

#[test]
fn events_are_lines() {
    let server = Server::start();
    let event = r#"{"id":7,"at":"2026-01-01T00:00:00Z","type":"Ready","namespace":"idp-dev","name":"my-db","message":"idp-dev/my-db is Ready","detail":{}}"#;
    server.on(
        "GET /v1/events?namespace=idp-dev&after=0",
        [Answer::events(&format!(": hi\n\nid: 7\nevent: Ready\ndata: {event}\n\n: caught-up\n\n"))],
    );
    let ended = server.run(&["events", "-n", "idp-dev"]).expect(0);
    assert_eq!(ended.stdout, "2026-01-01T00:00:00Z  Ready              idp-dev/my-db  idp-dev/my-db is Ready\n");
    let ended = server.run(&["events", "-n", "idp-dev", "-o", "json"]).expect(0);
    assert_eq!(ended.stdout.trim_end(), event);
}

#[test]
fn events_that_may_not_be_all_are_a_failure() {
    let server = Server::start();
    let line = "GET /v1/events?after=0";
    let silent = Answer::events(": hi\n\n");
    let over = Answer::text(200, "").header("content-type", "text/event-stream");
    for (answer, why) in [(silent, "nothing came for 1s"), (over, "the control plane ended the stream")] {
        server.on(line, [answer]);
        let ended = server.run(&["events", "--timeout", "1s"]).expect(1);
        assert!(ended.stderr.starts_with(&format!("error: these may not be all events: {why}\n")), "{}", ended.stderr);
    }
}
