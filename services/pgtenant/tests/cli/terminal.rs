//! On a terminal: colours, a spinner, questions. `script` gives the command one.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::documents::{OPERATION, database, operation, page};
use crate::run::Ended;
use crate::server::{Answer, Server};

fn on_a_terminal(server: &Server, arguments: &str, typed: &str, environment: &[(&str, &str)]) -> Ended {
    let line = format!("stty cols 80 rows 24; exec {} {arguments}", env!("CARGO_BIN_EXE_pgtenant"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("TERM", "xterm").env("SHELL", "/bin/sh");
    command.env("PGTENANT_URL", server.url()).env("PGTENANT_TOKEN", "x").envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(typed.as_bytes()).unwrap();
    // Its end would be typed as Ctrl-D, perhaps before the question.
    let ended = child.wait_with_output().unwrap().into();
    drop(input);
    ended
}

#[test]
fn a_terminal_has_colours_unless_it_is_told_not_to() {
    let server = Server::start();
    server.on("GET /v1/databases", [Answer::json(200, &page(vec![database("idp-dev", "my-db", "Failed")], None))]);
    let ended = on_a_terminal(&server, "db list", "", &[]).expect(0);
    assert!(ended.stdout.contains("\x1b["), "{:?}", ended.stdout);
    for (arguments, environment) in [("db list", &[("NO_COLOR", "1")][..]), ("db list --no-color", &[])] {
        let ended = on_a_terminal(&server, arguments, "", environment).expect(0);
        assert!(!ended.stdout.contains('\x1b'), "{:?}", ended.stdout);
        assert!(ended.stdout.lines().all(|line| line.trim_end().chars().count() <= 80), "{}", ended.stdout);
    }
}

#[test]
fn deleting_asks_for_the_name() {
    let server = Server::start();
    let gone = operation("delete", "Succeeded", None, None);
    server
        .on("DELETE /v1/namespaces/idp-dev/databases/my-db", [Answer::json(202, &gone)])
        .on(&format!("GET /v1/operations/{OPERATION}"), [Answer::json(200, &gone)]);
    let ended = on_a_terminal(&server, "db delete idp-dev/my-db", "yes\n", &[]).expect(1);
    assert!(ended.stdout.contains("drops database idp-dev-my-db with all its data"), "{}", ended.stdout);
    assert!(ended.stdout.contains("nothing was done") && server.lines().is_empty(), "{}", ended.stdout);
    let ended = on_a_terminal(&server, "db delete idp-dev/my-db", "idp-dev/my-db\n", &[]).expect(0);
    assert!(ended.stdout.contains("idp-dev/my-db deleted"), "{}", ended.stdout);
}

#[test]
fn creating_waits_on_a_terminal() {
    let server = Server::start();
    let made = Answer::json(201, &database("idp-dev", "my-db", "Pending")).header("pgtenant-operation", OPERATION);
    let done = operation("create", "Succeeded", None, None);
    let going = operation("create", "Running", None, None);
    server
        .on("POST /v1/namespaces/idp-dev/databases", [made])
        .on(&format!("GET /v1/operations/{OPERATION}"), [Answer::json(200, &going), Answer::json(200, &done)])
        .on("GET /v1/namespaces/idp-dev/databases/my-db", [Answer::json(200, &database("idp-dev", "my-db", "Ready"))]);
    let ended = on_a_terminal(&server, "db create idp-dev/my-db", "", &[]).expect(0);
    assert!(ended.stdout.contains("idp-dev/my-db is Ready: database idp-dev-my-db"), "{}", ended.stdout);
}
