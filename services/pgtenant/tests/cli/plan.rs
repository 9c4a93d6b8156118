//! `plan` and `apply` of an apps folder.

use std::path::Path;

use serde_json::{Value, json};

use crate::documents::{OPERATION, database, page, plan, problem};
use crate::server::{Answer, Server};

fn write(root: &Path, place: &str, values: &str) {
    let directory = root.join(place);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("application.yaml"), "helm: {chart: idp-postgresql}\n").unwrap();
    std::fs::write(directory.join("values.yaml"), values).unwrap();
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "idp-dev/orders", "postgresqlDatabases:\n  - name: a\n    mode: standard\n  - name: b\n");
    dir
}

fn arguments<'a>(command: &'a str, dir: &'a tempfile::TempDir, more: &[&'a str]) -> Vec<&'a str> {
    [&[command, "-f", dir.path().to_str().unwrap()], more].concat()
}

#[test]
fn a_plan_has_three_ends() {
    let (server, dir) = (Server::start(), folder());
    server.on("POST /v1/plan", [Answer::json(200, &plan(&[("a", "create"), ("b", "none")]))]);
    let ended = server.run(&arguments("plan", &dir, &[])).expect(0);
    assert!(
        ended.stdout.contains("create idp-dev/a (database \"idp-dev-a\" on cluster \"default\")"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.ends_with("Plan: 1 to create, 1 unchanged.\n"), "{}", ended.stdout);
    server.run(&arguments("plan", &dir, &["--exit-code"])).expect(3);
    let sql = server.run(&arguments("plan", &dir, &["--sql"])).expect(0).stdout;
    assert!(sql.contains("\nCREATE DATABASE \"idp-dev-a\";\n"), "{sql}");
    let json = server.run(&arguments("plan", &dir, &["-o", "json"])).expect(0).json();
    assert_eq!(json, plan(&[("a", "create"), ("b", "none")]));
    let body = &server.asked()[0].body;
    assert_eq!((&body["source"], &body["complete"]), (&json!("apps"), &json!(true)));
    assert_eq!(body["claims"].as_array().unwrap().len(), 2);

    server.on("POST /v1/plan", [Answer::json(200, &plan(&[("a", "none")]))]);
    server.run(&arguments("plan", &dir, &["--exit-code"])).expect(0);
    server.on("POST /v1/plan", [Answer::json(200, &plan(&[("a", "create"), ("b", "refuse")]))]);
    let ended = server.run(&arguments("plan", &dir, &["--exit-code"])).expect(1);
    assert!(ended.stdout.contains("! extensions[0]: \"postgis\" is not allowed"), "{}", ended.stdout);
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let (server, dir) = (Server::start(), folder());
    write(dir.path(), "idp-dev/broken", "postgresqlDatabases:\n  - name: c\n    colour: red\n");
    server.on("POST /v1/plan", [Answer::json(200, &plan(&[("a", "none")]))]);
    let ended = server.run(&arguments("plan", &dir, &[])).expect(1);
    assert!(ended.stderr.contains("error: idp-dev/broken/values.yaml:3: postgresqlDatabases[0].colour: "), "{ended:?}");
    assert_eq!(server.only("POST").body["complete"], false);
    server.run(&["plan", "-f", "/nonexistent"]).expect(1);
    server.run(&["plan", "-f", dir.path().join("idp-dev/orders/values.yaml").to_str().unwrap()]).expect(2);
}

#[test]
fn apply_goes_on_after_a_refusal() {
    let (server, dir) = (Server::start(), folder());
    write(dir.path(), "shop/cart", "postgresqlDatabases:\n  - name: c\n  - name: d\n    mode: protected\n");
    let exists = Answer::json(409, &problem(409, "database-exists", "another spec"));
    let taken = Answer::json(409, &problem(409, "name-taken", "the name belongs to another claim"));
    server
        .on("POST /v1/namespaces/idp-dev/databases", [taken])
        .on("POST /v1/namespaces/shop/databases", [exists])
        .on("PATCH /v1/namespaces/shop/databases/c", [Answer::json(200, &database("shop", "c", "Ready"))])
        .on(
            "PATCH /v1/namespaces/shop/databases/d",
            [Answer::json(200, &database("shop", "d", "Ready")).header("pgtenant-operation", OPERATION)],
        );
    let ended = server.run(&arguments("apply", &dir, &[])).expect(1);
    assert_eq!(ended.stdout, "shop/c unchanged\nshop/d changed\n");
    assert!(ended.stderr.contains("error: idp-dev/a refused: the name belongs to another claim\n"), "{}", ended.stderr);
    let mut asked = server.asked();
    asked.retain(|asked| asked.line.ends_with("/d"));
    assert_eq!(
        asked[0].body,
        json!({"mode": "protected", "cluster": "default", "schemas": [], "extensions": [], "connectionLimit": null, "slackChannel": null})
    );
    let results = server.run(&arguments("apply", &dir, &["-o", "json"])).expect(1).json();
    let words: Vec<&Value> = results.as_array().unwrap().iter().map(|one| &one["result"]).collect();
    assert_eq!(words, ["refused", "refused", "unchanged", "changed"]);
}

fn surplus(server: &Server) {
    let mut protected = database("idp-dev", "kept", "Ready");
    protected["mode"] = "protected".into();
    let mut other_door = database("idp-dev", "other", "Ready");
    other_door["source"] = "apps".into();
    let all = vec![
        database("idp-dev", "a", "Ready"),
        database("idp-dev", "old", "Ready"),
        database("idp-dev", "going", "Deleting"),
        protected,
        other_door,
    ];
    server
        .on("GET /v1/namespaces/idp-dev/databases", [Answer::json(200, &page(all, None))])
        .on("POST /v1/namespaces/idp-dev/databases", [Answer::json(200, &database("idp-dev", "a", "Ready"))])
        .on("DELETE /v1/namespaces/idp-dev/databases/old", [Answer::json(202, &json!({}))])
        .on("POST /v1/namespaces/idp-dev/databases/kept/release", [Answer::json(202, &json!({}))])
        .on("POST /v1/plan", [Answer::json(200, &plan(&[("a", "none")]))]);
}

#[test]
fn prune_removes_what_rest_made_and_the_folder_does_not_define() {
    let (server, dir) = (Server::start(), folder());
    surplus(&server);
    let ended = server.run(&arguments("apply", &dir, &["--prune", "--dry-run"])).expect(0);
    assert!(ended.stdout.contains("drop idp-dev/old (with all its data)\nretain idp-dev/kept"), "{}", ended.stdout);
    let ended = server.run(&arguments("apply", &dir, &["--prune"])).expect(2);
    assert!(ended.stderr.contains("--yes") && ended.stdout.is_empty(), "{ended:?}");
    assert!(server.lines().iter().all(|line| line.starts_with("GET ") || line == "POST /v1/plan"));
    let ended = server.run(&arguments("apply", &dir, &["--prune", "--yes"])).expect(0);
    assert_eq!(ended.stdout, "idp-dev/a unchanged\nidp-dev/b unchanged\nidp-dev/old deleted\nidp-dev/kept released\n");
}

#[test]
fn nothing_is_pruned_while_a_file_is_broken() {
    let (server, dir) = (Server::start(), folder());
    surplus(&server);
    write(dir.path(), "idp-dev/broken", "postgresqlDatabases: [\n");
    let ended = server.run(&arguments("apply", &dir, &["--prune", "--yes"])).expect(1);
    assert!(ended.stderr.contains("--prune needs a folder without broken files"), "{}", ended.stderr);
    assert!(server.lines().is_empty());
}

#[test]
fn an_empty_checkout_prunes_nothing() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    surplus(&server);
    std::fs::create_dir(dir.path().join("idp-dev")).unwrap();
    for further in [&["--prune", "--yes"][..], &["--prune", "--yes", "--prune-limit", "100"], &["--prune", "--dry-run"]]
    {
        let ended = server.run(&arguments("apply", &dir, further)).expect(1);
        assert!(ended.stderr.contains("has no application of the chart idp-postgresql"), "{}", ended.stderr);
        assert!(ended.stderr.contains("write `postgresqlDatabases: []`"), "{}", ended.stderr);
    }
    assert!(server.lines().is_empty());
}

#[test]
fn more_removals_than_the_limit_are_refused() {
    let (server, dir) = (Server::start(), folder());
    surplus(&server);
    let all = (0..11).map(|i| database("idp-dev", &format!("old-{i}"), "Ready")).collect();
    server.on("GET /v1/namespaces/idp-dev/databases", [Answer::json(200, &page(all, None))]);
    for i in 0..11 {
        server.on(&format!("DELETE /v1/namespaces/idp-dev/databases/old-{i}"), [Answer::json(202, &json!({}))]);
    }
    let ended = server.run(&arguments("apply", &dir, &["--prune", "--yes"])).expect(1);
    assert!(ended.stderr.contains("11 databases would be removed, and --prune-limit is 10"), "{}", ended.stderr);
    assert!(ended.stderr.contains("add --prune-limit 11"), "{}", ended.stderr);
    let ended = server.run(&arguments("apply", &dir, &["--prune", "--dry-run"])).expect(1);
    assert_eq!(ended.stdout.matches("drop idp-dev/old-").count(), 11, "it shows them: {}", ended.stdout);
    assert!(server.lines().iter().all(|line| line.starts_with("GET ") || line == "POST /v1/plan"));
    let ended = server.run(&arguments("apply", &dir, &["--prune", "--yes", "--prune-limit", "11"])).expect(0);
    assert_eq!(ended.stdout.matches(" deleted").count(), 11, "{}", ended.stdout);
    server.run(&arguments("apply", &dir, &["--prune-limit", "11"])).expect(2);
}

#[test]
fn what_a_file_that_is_not_in_use_names_is_not_pruned() {
    let (server, dir) = (Server::start(), folder());
    surplus(&server);
    write(dir.path(), "idp-dev/slip", "postgresqlDatabases:\n  - name: old\n");
    std::fs::write(dir.path().join("idp-dev/slip/application.yaml"), "helm: {chart: idp-postgre}\n").unwrap();
    let ended = server.run(&arguments("apply", &dir, &["--prune", "--yes"])).expect(0);
    assert!(
        ended.stderr.contains("idp-dev/old stays: idp-dev/slip/values.yaml belongs to an application"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stdout, "idp-dev/a unchanged\nidp-dev/b unchanged\nidp-dev/kept released\n");
    // Cut off before the list: the whole folder is not believed.
    write(dir.path(), "idp-dev/slip", "global: {}\n");
    let ended = server.run(&arguments("apply", &dir, &["--prune", "--yes"])).expect(1);
    assert!(ended.stderr.contains("idp-dev/slip/values.yaml has no `postgresqlDatabases`"), "{}", ended.stderr);
}
