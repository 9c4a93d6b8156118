//! What goes wrong, and what is said then.

use std::process::Stdio;

use serde_json::json;

use crate::documents::{page, problem};
use crate::run::{bare, end};
use crate::server::{Answer, Server};

#[test]
fn nobody_listens() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let ended = end(bare(&["db", "list", "--url", &url]).env("PGTENANT_TOKEN", "x")).expect(1);
    assert!(ended.stderr.starts_with(&format!("error: can not connect to {url}/v1/databases")), "{}", ended.stderr);
    assert!(ended.stderr.contains("Connection refused"), "{}", ended.stderr);
    assert!(ended.stderr.contains("\nhint: check PGTENANT_URL") && ended.stderr.contains("pgtenant dev"));
}

#[test]
fn what_a_variable_holds_is_not_asked_for() {
    for (typed, usage) in [
        (&["restore", "request"][..], "restore request <NS/NAME>"),
        (&["db", "get", "--output", "json"], "db get --output <FORMAT> <NS/NAME>"),
        (&["db", "connect", "--url", "http://localhost"], "db connect <NS/NAME>"),
        (&["cluster", "bootstrap"], "cluster bootstrap "),
    ] {
        let variables =
            [("PGTENANT_URL", "http://localhost"), ("PGTENANT_SECRETS_DIR", "/tmp"), ("AWS_REGION", "eu-1")];
        let ended = end(bare(typed).envs(variables)).expect(2);
        let line = ended.stderr.lines().find(|line| line.starts_with("Usage: ")).unwrap();
        assert!(line.starts_with(&format!("Usage: pgtenant {usage}")) && !line.contains("--url"), "{}", ended.stderr);
    }
    let help = end(bare(&["db", "get", "--help"]).env("PGTENANT_URL", "http://localhost")).expect(0).stdout;
    assert!(help.contains("--url") && help.contains("PGTENANT_URL=http://localhost"), "{help}");
}

#[test]
fn tokens_that_are_missing_or_wrong() {
    let ended = end(&mut bare(&["db", "list"])).expect(1);
    assert!(ended.stderr.starts_with("error: there is no token\nhint: set PGTENANT_TOKEN"), "{}", ended.stderr);

    let server = Server::start();
    server.on("GET /v1/databases", [Answer::json(401, &problem(401, "unauthenticated", "a valid token is needed"))]);
    let ended = server.run(&["db", "list"]).expect(1);
    assert!(ended.stderr.starts_with("error: a valid token is needed\nhint: set PGTENANT_TOKEN"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("pgt_test"));
}

#[test]
fn a_token_can_lie_in_a_file() {
    let server = Server::start();
    server.on("GET /v1/databases", [Answer::json(200, &page(vec![], None))]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "pgt_file\n").unwrap();
    end(bare(&["db", "list", "--url", &server.url()]).env("PGTENANT_TOKEN_FILE", &file)).expect(0);
    assert_eq!(server.only("GET").header("authorization"), "Bearer pgt_file");
    let mut both = bare(&["db", "list", "--url", &server.url(), "--token-file", file.to_str().unwrap()]);
    end(both.env("PGTENANT_TOKEN", "pgt_variable")).expect(0);
    assert_eq!(server.asked().last().unwrap().header("authorization"), "Bearer pgt_file");
    let ended = end(&mut bare(&["db", "list", "--url", &server.url(), "--token-file", "/nonexistent"])).expect(1);
    assert!(ended.stderr.contains("can not read /nonexistent: No such file"), "{}", ended.stderr);
}

#[test]
fn fields_and_advice_are_shown() {
    let server = Server::start();
    let mut invalid = problem(422, "invalid-fields", "schemas[0]: no; cluster: none");
    invalid["errors"] = json!([{"field": "schemas[0]", "message": "\"public\" is always there"},
                               {"field": "cluster", "message": "there is no cluster \"x\""}]);
    server.on(
        "POST /v1/namespaces/a/databases",
        [
            Answer::json(422, &invalid),
            Answer::json(409, &problem(409, "database-exists", "database a/b exists with another spec")),
            Answer::json(500, &problem(500, "internal", "something went wrong")),
        ],
    );
    let ended = server.run(&["db", "create", "a/b", "--schema", "public"]).expect(1);
    assert_eq!(
        ended.stderr,
        "error: the title of invalid-fields\n  schemas[0]: \"public\" is always there\n  cluster: there is no cluster \"x\"\n"
    );
    let ended = server.run(&["db", "create", "a/b"]).expect(1);
    assert!(ended.stderr.contains("another spec\nhint: ") && ended.stderr.contains("pgtenant db update"));
    let ended = server.run(&["db", "create", "a/b"]).expect(1);
    assert!(ended.stderr.contains("req-1"), "{}", ended.stderr);
}

#[test]
fn what_is_not_pgtenant_is_not_believed() {
    let server = Server::start();
    server.on("GET /v1/databases", [Answer::text(200, "<html>hello</html>")]);
    let ended = server.run(&["db", "list"]).expect(1);
    assert!(
        ended.stderr.contains("can not be understood") && ended.stderr.contains("PGTENANT_URL"),
        "{}",
        ended.stderr
    );
    server.on("GET /v1/databases", [Answer::text(302, "").header("location", "http://127.0.0.1:1/steal")]);
    let ended = server.run(&["db", "list"]).expect(1);
    assert!(ended.stderr.contains("answered 302") && ended.stderr.contains("redirects"), "{}", ended.stderr);
}

#[test]
fn a_server_that_is_silent_is_not_waited_for() {
    let server = Server::start();
    server.on("GET /v1/databases", [Answer::events("")]);
    let ended = server.run(&["db", "list", "--timeout", "200ms"]).expect(1);
    assert!(ended.stderr.contains("did not answer within 200ms"), "{}", ended.stderr);
}

#[test]
fn reading_is_tried_again_and_changing_under_one_key() {
    let server = Server::start();
    let busy = || Answer::json(503, &problem(503, "overloaded", "busy"));
    server.on("GET /v1/databases", [busy(), busy(), Answer::json(200, &page(vec![], None))]);
    server.run(&["db", "list"]).expect(0);
    assert_eq!(server.lines().len(), 3);

    let server = Server::start();
    let made = Answer::json(201, &crate::documents::database("a", "b", "Pending"));
    server.on("POST /v1/namespaces/a/databases", [busy(), made]);
    server.run(&["db", "create", "a/b"]).expect(0);
    let keys: Vec<String> = server.asked().iter().map(|asked| asked.header("idempotency-key").to_owned()).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].as_bytes()[14] == b'7', "{keys:?}");

    let server = Server::start();
    server.on("DELETE /v1/namespaces/a/databases/b", [busy()]);
    server.run(&["db", "delete", "a/b", "--yes"]).expect(1);
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn wrong_use_is_2() {
    for arguments in [
        &["db", "get", "my-db"][..],
        &["db", "get", "Idp/my-db"],
        &["db", "get", "a/b/c"],
        &["db", "create", "a/b", "--mode", "eternal"],
        &["db", "list", "-n", "a", "--all"],
        &["db", "list", "--output", "xml"],
        &["db", "list", "--url", "ftp://x"],
        &["operation", "get", "x"],
        &["events", "--after", "-1"],
        &["frobnicate"],
        &["db", "update", "a/b"],
    ] {
        let ended = end(bare(arguments).env("PGTENANT_TOKEN", "x"));
        assert_eq!(ended.status, 2, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains("error: "), "{ended:?}");
    }
    // A shell would expand the name of a namespace that is forgotten.
    let ended = end(bare(&["db", "get", "my-db"]).env("PGTENANT_TOKEN", "x"));
    assert!(ended.stderr.contains("hint: write NAMESPACE/my-db, or -n NAMESPACE my-db"), "{}", ended.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = bare(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn completions_are_scripts() {
    let script = end(&mut bare(&["completions", "bash"])).expect(0).stdout;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("completion.bash");
    std::fs::write(&file, &script).unwrap();
    let checked = std::process::Command::new("bash").arg("-n").arg(&file).status().unwrap();
    assert!(checked.success());
    for shell in ["zsh", "fish"] {
        assert!(end(&mut bare(&["completions", shell])).expect(0).stdout.contains("pgtenant"));
    }
}

#[test]
fn help_has_examples_and_shows_no_secret() {
    let ended = end(bare(&["db", "create", "--help"]).env("PGTENANT_TOKEN", "hunter2")).expect(0);
    assert!(ended.stdout.contains("Examples:") && !ended.stdout.contains("hunter2"), "{}", ended.stdout);
    assert!(end(&mut bare(&["--version"])).expect(0).stdout.starts_with("pgtenant 0."));
}
