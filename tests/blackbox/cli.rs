//! The command line, as people and scripts use it.

use std::fs;

use pgtenant_tests::{Cli, Place, superuser_sql, unique};
use serde_json::{Value, json};

use crate::shared;

#[tokio::test]
async fn a_database_goes_through_its_life() {
    let dev = shared::dev().await;
    let (cli, namespace) = (dev.cli(), unique("life"));
    let target = format!("{namespace}/orders");
    let made = cli.run(&["db", "create", &target, "--wait"]).await.expect(0);
    assert!(
        made.stdout.contains("is Ready") && made.stdout.contains(&format!("{namespace}-orders")),
        "{}",
        made.stdout
    );
    let again = cli.run(&["db", "create", "-n", &namespace, "orders"]).await.expect(0);
    assert!(again.stdout.contains("unchanged"), "{}", again.stdout);
    let other = cli.run(&["db", "create", &target, "--mode", "protected"]).await.expect(1);
    assert!(other.stderr.contains("exists"), "{}", other.stderr);

    let shown = cli.run(&["db", "get", &target]).await.expect(0).stdout;
    for part in ["Ready", "standard", &format!("customer/{namespace}/{namespace}-orders-read.json"), "Provisioned"] {
        assert!(shown.contains(part), "no {part}: {shown}");
    }
    let json = cli.run(&["db", "get", &target, "--output", "json"]).await.expect(0).json();
    let rest = dev.api().get(&format!("/v1/namespaces/{namespace}/databases/orders")).await.json;
    assert_eq!(json["roles"], rest["roles"]);
    let yaml = cli.run(&["db", "get", &target, "-o", "yaml"]).await.expect(0).stdout;
    let yaml: Value = serde_yaml_ng::from_str(&yaml).unwrap();
    assert_eq!(yaml["roles"], json["roles"]);
    let list = cli.run(&["db", "list", "-n", &namespace, "--output", "json"]).await.expect(0).json();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["name"]), (1, &json!("orders")));

    cli.run(&["db", "update", &target, "--mode", "protected", "--wait"]).await.expect(0);
    let refused = cli.run(&["db", "delete", &target, "--yes"]).await.expect(1);
    assert!(refused.stderr.contains("protected"), "{}", refused.stderr);
    cli.run(&["db", "rotate", &target, "--tier", "read", "--wait"]).await.expect(0);
    cli.run(&["db", "release", &target]).await.expect(0);
    let retained = cli.run(&["db", "list", "--state", "Retained", "-n", &namespace]).await.expect(0).stdout;
    assert!(retained.contains("orders"), "{retained}");
    cli.run(&["db", "adopt", &target, "--yes", "--wait"]).await.expect(0);
    cli.run(&["db", "update", &target, "--mode", "standard", "--wait"]).await.expect(0);
    let unsure = cli.run(&["db", "delete", &target]).await;
    assert_ne!(unsure.status, 0, "without a terminal nobody can be asked: {}", unsure.stdout);
    let gone = cli.run(&["db", "delete", &target, "--yes"]).await.expect(0);
    assert!(gone.stdout.contains("deleted"), "{}", gone.stdout);
    cli.run(&["db", "get", &target]).await.expect(1);
}

#[tokio::test]
async fn tables_fit_eighty_columns_and_have_no_colours_in_a_pipe() {
    let dev = shared::dev().await;
    let namespace = unique("a-rather-long-namespace");
    dev.api().ready(&namespace, "quite-a-long-name").await;
    let cli = dev.cli().env("COLUMNS", "80");
    for args in [
        &["db", "list", "-n", &*namespace][..],
        &["db", "list"],
        &["db", "get", &format!("{namespace}/quite-a-long-name")],
        &["cluster", "list"],
        &["cluster", "topology", "default"],
        &["audit", "--limit", "20"],
        &["token", "list"],
    ] {
        let out = cli.run(args).await.expect(0).stdout;
        let long = out.lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "{args:?}");
        assert!(!out.contains('\u{1b}'), "{args:?}: colours in a pipe");
    }
    let list = cli.run(&["db", "list", "-n", &namespace]).await.expect(0).stdout;
    assert!(list.lines().next().unwrap().contains("NAMESPACE") && list.contains("Ready"), "{list}");
    assert!(list.replace(['\n', ' '], "").contains("quite-a-long-name"), "a name is cut: {list}");
}

#[tokio::test]
async fn adopt_shows_the_plan_first_and_does_nothing_without_a_yes() {
    let dev = shared::dev().await;
    let (cli, namespace) = (dev.cli(), unique("takeover"));
    let database = format!("{namespace}-legacy");
    let owner = format!("{namespace}-owner");
    let superuser = dev.superuser();
    for sql in [
        format!("create role \"{owner}\""),
        format!("grant \"{owner}\" to prov_a"),
        format!("grant \"{owner}\" to pgtenant"),
        format!("create database \"{database}\" owner \"{owner}\" template template0"),
    ] {
        superuser_sql(&superuser, None, &sql).await;
    }
    let sql = format!("alter schema public owner to \"{owner}\"; set role \"{owner}\"; create table t (n int)");
    superuser_sql(&superuser, Some(&database), &sql).await;
    let target = format!("{namespace}/legacy");
    let dry = cli.run(&["db", "adopt", &target, "--dry-run"]).await.expect(0).stdout;
    assert!(
        dry.contains("adopt") && dry.contains(&format!("{database}-read")) && dry.contains("grant SELECT"),
        "{dry}"
    );
    let unsure = cli.run(&["db", "adopt", &target]).await;
    assert_ne!(unsure.status, 0, "without a terminal nobody can be asked: {}", unsure.stdout);
    cli.run(&["db", "get", &target]).await.expect(1);
    let done = cli.run(&["db", "adopt", &target, "--yes", "--wait"]).await.expect(0).stdout;
    assert!(done.contains("adopted"), "{done}");
    dev.api().is_ready(&namespace, "legacy").await;
    let read = cli.run(&["db", "connect", &target, "--", "-Atc", "select count(*) from t"]).await.expect(0);
    assert_eq!(read.stdout.trim(), "0");
}

#[tokio::test]
async fn tokens_events_audit_and_operations_can_be_asked_for() {
    let dev = shared::dev().await;
    let (cli, namespace) = (dev.cli(), unique("ask"));
    let name = unique("ci");
    let args = ["token", "create", "--name", &name, "--role", "tenant", "--namespace", &namespace, "--expires", "1h"];
    let secret = cli.run(&args).await.expect(0).stdout.trim().to_owned();
    assert!(secret.starts_with("pgt_"), "the token alone is on standard output: {secret}");
    let tenant = Cli::of(&dev.url, &secret);
    tenant.run(&["db", "create", &format!("{namespace}/db"), "--wait"]).await.expect(0);
    tenant.run(&["db", "create", "somebody-else/db"]).await.expect(1);
    let listed = cli.run(&["token", "list", "--output", "json"]).await.expect(0).json();
    let token = listed.as_array().unwrap().iter().find(|token| token["name"] == name).unwrap();
    assert_eq!(token["namespaces"], json!([namespace]));
    let events = cli.run(&["events", "-n", &namespace, "--output", "json"]).await.expect(0).stdout;
    let kinds: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["Created", "Ready"]);
    let audit = cli.run(&["audit", "-n", &namespace]).await.expect(0).stdout;
    assert!(audit.contains("database.create") && audit.contains(&format!("token:{name}")), "{audit}");
    let operation = {
        let path = format!("/v1/namespaces/{namespace}/databases/db/credentials/rotate");
        dev.api().ask(&path).await.expect(202).json["id"].as_str().unwrap().to_owned()
    };
    dev.api().finished(&operation).await;
    let shown = cli.run(&["operation", "get", &operation]).await.expect(0).stdout;
    assert!(shown.contains("Succeeded") && shown.contains("rotate"), "{shown}");
    let revoked = cli.run(&["token", "revoke", token["id"].as_str().unwrap(), "--output", "json"]).await.expect(0);
    assert_eq!(revoked.json(), json!({"id": token["id"], "revoked": true}));
    let ended = pgtenant_tests::soon("the token has ended", || async {
        let done = tenant.run(&["db", "list"]).await;
        if done.status == 1 { Ok(done.stderr) } else { Err(done.stdout) }
    })
    .await;
    assert!(!ended.contains(&secret), "{ended}");
}

#[tokio::test]
async fn apply_makes_what_a_folder_defines_and_prunes_only_when_told() {
    let plane = shared::calm().await;
    let namespace = unique("apply");
    let cli = Cli::of(&plane.serve.url, &plane.site.token);
    let folder = pgtenant_tests::Folder::new("apply");
    let apps = pgtenant_tests::Apps::new(folder.join("apps"));
    let root = apps.root().to_string_lossy().into_owned();
    apps.define(&format!("{namespace}/app"), &["one", "two"]);
    cli.run(&["apply", "-f", &root, "--dry-run"]).await.expect(0);
    assert_eq!(plane.api().list(&format!("/v1/namespaces/{namespace}/databases")).await.len(), 0);
    cli.run(&["apply", "-f", &root]).await.expect(0);
    for name in ["one", "two"] {
        assert_eq!(plane.api().is_ready(&namespace, name).await["source"], "api");
    }
    apps.define(&format!("{namespace}/app"), &["one"]);
    cli.run(&["apply", "-f", &root]).await.expect(0);
    plane.api().is_ready(&namespace, "two").await;
    cli.run(&["apply", "-f", &root, "--prune", "--yes"]).await.expect(0);
    plane.api().is_gone(&namespace, "two").await;
    apps.write(&format!("{namespace}/app"), "postgresqlDatabases:\n  - nome: one\n");
    let broken = cli.run(&["apply", "-f", &root, "--prune", "--yes"]).await.expect(1);
    assert!(broken.stderr.contains("values.yaml:2"), "{}", broken.stderr);
    plane.api().is_ready(&namespace, "one").await;
}

#[tokio::test]
async fn what_goes_wrong_is_said_with_what_to_do() {
    let dev = shared::dev().await;
    let none = Cli::new().env("PGTENANT_URL", &dev.url).run(&["db", "list"]).await.expect(1);
    assert!(none.stderr.contains("PGTENANT_TOKEN"), "{}", none.stderr);
    let port = pgtenant_tests::free_port();
    let nobody = Cli::of(&format!("http://127.0.0.1:{port}"), &dev.token).run(&["db", "list"]).await.expect(1);
    assert!(nobody.stderr.contains(&port.to_string()), "{}", nobody.stderr);
    assert!(!nobody.stderr.contains(&dev.token), "{}", nobody.stderr);
    dev.cli().run(&["db", "get", "Not/A_Name"]).await.expect(2);
    dev.cli().run(&["db", "get", "no-namespace"]).await.expect(2);
    let missing = dev.cli().run(&["db", "get", "nowhere/nothing"]).await.expect(1);
    assert!(missing.stderr.contains("nowhere/nothing"), "{}", missing.stderr);
    // A token in a file, as a mounted secret.
    let file = pgtenant_tests::Folder::new("token");
    fs::write(file.join("token"), format!("{}\n", dev.token)).unwrap();
    let cli = Cli::new().env("PGTENANT_URL", &dev.url).env("PGTENANT_TOKEN_FILE", file.join("token"));
    cli.run(&["db", "list"]).await.expect(0);
}

#[tokio::test]
async fn create_waits_until_the_end_and_says_why_it_can_not_be() {
    let plane = shared::calm().await;
    let namespace = unique("wait");
    let place = Place::shared().await;
    superuser_sql(&place.superuser, None, &format!("create database \"{namespace}-db\"")).await;
    let cli = Cli::of(&plane.serve.url, &plane.site.token);
    let failed = cli.run(&["db", "create", &format!("{namespace}/db"), "--wait", "--timeout", "20s"]).await.expect(1);
    assert!(failed.stderr.contains("adopt") && failed.stderr.contains("next try"), "{}", failed.stderr);
}

#[tokio::test]
async fn completions_work_in_a_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Cli::new().run(&["completions", shell]).await.expect(0).stdout;
        assert!(script.contains("pgtenant") && script.contains("connect"), "{shell}");
    }
    let folder = pgtenant_tests::Folder::new("completions");
    let script = Cli::new().run(&["completions", "bash"]).await.expect(0).stdout;
    fs::write(folder.join("complete"), script).unwrap();
    let typed = format!(
        ". {}; COMP_WORDS=(pgtenant db cr); COMP_CWORD=2; _pgtenant pgtenant cr db; echo \"${{COMPREPLY[*]}}\"",
        folder.join("complete").display()
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &typed]);
    assert_eq!(pgtenant_tests::run(bash).await.expect(0).stdout.trim(), "create");
}

#[tokio::test]
async fn the_first_token_is_a_document_as_rest_makes_them() {
    let plane = shared::calm().await;
    let config = plane.site.config.to_string_lossy().into_owned();
    let folder = pgtenant_tests::Folder::new("first-token");
    let file = folder.join("token").to_string_lossy().into_owned();
    let name = unique("first");
    let bootstrap = ["token", "bootstrap", "--config", &config, "--name", &name, "--output", "json"];
    let made = plane.site.cli().run(&bootstrap).await.expect(0).json();
    let body = json!({"name": unique("second"), "role": "platform"});
    let by_rest = plane.api().post("/v1/tokens", body).await.expect(201).json;
    let fields = |token: &Value| token.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&made), fields(&by_rest));
    assert_eq!((&made["name"], &made["role"]), (&json!(name), &json!("platform")));
    plane.api().with_token(made["secret"].as_str()).get("/v1/tokens").await.expect(200);

    let kept = plane.site.cli().run(&[&bootstrap[..], &["--file", &file]].concat()).await.expect(0).json();
    assert_eq!(kept["secret"], Value::Null, "the file has it");
    plane.api().with_token(Some(fs::read_to_string(&file).unwrap().trim())).get("/v1/tokens").await.expect(200);
}
