//! The lists in the documents are those of the product: nothing is missing, nothing is left over.

use std::collections::BTreeSet;
use std::fs;

use pgtenant_tests::{Cli, files_below, repository};
use serde_json::Value;

fn document(name: &str) -> String {
    fs::read_to_string(repository().join("docs").join(name)).unwrap()
}

/// The part of a document below a heading, up to the next one of the same depth or less.
fn section(text: &str, heading: &str) -> String {
    let depth = heading.split(' ').next().unwrap().len();
    let after = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}")).1;
    let ends = |line: &&str| line.starts_with('#') && line.split(' ').next().is_some_and(|marks| marks.len() <= depth);
    let mut fenced = false;
    let inside = after.lines().take_while(|line| {
        fenced ^= line.starts_with("```");
        fenced || !ends(line)
    });
    inside.collect::<Vec<_>>().join("\n")
}

/// The cells of a table's rows, without the heads.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let body = |line: &&str| line.starts_with("| `");
    text.lines().filter(body).map(cells).collect()
}

/// What stands in backticks.
fn words(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words of the first cells.
fn first_words(text: &str) -> BTreeSet<String> {
    rows(text).iter().flat_map(|row| words(&row[0])).collect()
}

/// The sources of a crate, or of all.
fn sources(of: &str) -> String {
    let folder = repository().join("services");
    let ours = |file: &String| file.starts_with(of) && file.contains("/src/") && file.ends_with(".rs");
    files_below(&folder)
        .iter()
        .filter(|file| ours(file))
        .map(|file| fs::read_to_string(folder.join(file)).unwrap())
        .collect()
}

/// The texts in quotes that follow `sign`, spaces and line breaks between.
fn quoted(text: &str, sign: &str) -> BTreeSet<String> {
    let found = text.split(sign).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split_once('"'));
    found.map(|(text, _)| text.to_owned()).collect()
}

#[track_caller]
fn assert_same(what: &str, documented: &BTreeSet<String>, found: &BTreeSet<String>) {
    assert!(!found.is_empty(), "the test finds no {what} any more");
    let missing: Vec<_> = found.difference(documented).collect();
    let surplus: Vec<_> = documented.difference(found).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "{what}: not documented: {missing:?}; not there: {surplus:?}");
}

/// `config check` shows every setting; without a file and variables at its default.
async fn settings() -> Vec<(String, Option<String>)> {
    let check =
        Cli::new().run(&["config", "check", "--config", "/dev/null", "--output", "json"]).await.expect(1).json();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    check["settings"].as_array().unwrap().iter().map(|one| (text(&one["key"]).unwrap(), text(&one["value"]))).collect()
}

#[tokio::test]
async fn every_setting_is_documented_with_its_default() {
    let text = section(&document("operators.md"), "## Settings");
    let found = settings().await;
    let documented: Vec<_> = rows(&text).into_iter().filter(|row| row.len() == 3).collect();
    for (key, default) in &found {
        let row = documented.iter().find(|row| row[0] == format!("`{key}`"));
        let row = row.unwrap_or_else(|| panic!("{key} is in no table of operators.md"));
        match default {
            Some(default) => assert_eq!(row[1], format!("`{default}`"), "{key}"),
            None => assert!(row[1].starts_with("none"), "{key} has no default, and the table says {}", row[1]),
        }
    }
}

#[tokio::test]
async fn the_example_has_every_setting_at_its_default() {
    let text = section(&document("operators.md"), "## Settings");
    let example = text.split_once("```toml\n").unwrap().1.split_once("\n```").unwrap().0;
    let given = |key: &str| {
        let (head, name) = key.split_once('.').unwrap_or(("", key));
        let top = example.split("\n[").find(|part| part.starts_with(&format!("{head}]")) || head.is_empty()).unwrap();
        let value = top.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")))?;
        Some(value.split('#').next().unwrap().trim().trim_matches('"').to_owned())
    };
    // What has no default, or says that it is not at it.
    let own = ["ledger.url", "ledger.password", "ledger.password_file", "apps.dir", "log.format"];
    for (key, default) in settings().await.iter().filter(|(key, _)| !own.contains(&key.as_str())) {
        assert_eq!(given(key), *default, "{key} in the example of operators.md");
    }
}

/// A cluster's keys, as the API describes them.
#[test]
fn every_key_of_a_cluster_is_documented() {
    let openapi: Value =
        serde_json::from_str(&fs::read_to_string(repository().join("openapi/openapi.json")).unwrap()).unwrap();
    let spec = openapi["components"]["schemas"]["ClusterSpec"]["properties"].as_object().unwrap();
    let text = section(&document("operators.md"), "## Settings");
    let heads = |word: &String| word.split('.').next().unwrap().to_owned();
    let table = text.split_once("A cluster, `[clusters.NAME]`:").expect("the table of a cluster").1;
    let documented = first_words(table).iter().map(heads).collect();
    assert_same("keys of a cluster", &documented, &spec.keys().cloned().collect());
}

#[test]
fn every_metric_is_documented() {
    let all = sources("");
    let found: BTreeSet<_> =
        ["counter!(", "gauge!(", "histogram!("].iter().flat_map(|sign| quoted(&all, sign)).collect();
    let found = found.into_iter().filter(|name| name.starts_with("pgtenant_")).collect();
    let documented = first_words(&section(&document("operators.md"), "### Metrics"));
    assert_same("metrics", &documented, &found);
    let alerts = fs::read_to_string(repository().join(ALERTS)).unwrap();
    let used =
        alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("pgtenant_"));
    for name in used {
        assert!(documented.contains(name.trim_end_matches("_bucket")), "an alert uses {name}");
    }
}

/// Prometheus' rules, which the chart has, too.
const ALERTS: &str = "charts/pgtenant/files/alerts/pgtenant.yaml";

#[test]
fn every_alert_is_documented() {
    let alerts = fs::read_to_string(repository().join(ALERTS)).unwrap();
    let found = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    let documented = first_words(&section(&document("operators.md"), "### Alerts"));
    assert_same("alerts", &documented, &found);
}

#[test]
fn every_reason_and_state_is_documented() {
    let text = section(&document("operators.md"), "## States and reasons");
    let failure = fs::read_to_string(repository().join("services/engine/src/failure.rs")).unwrap();
    let reasons = failure.split_once("fn reason(").unwrap().1.split_once("\n    }\n").unwrap().0;
    let mut found = quoted(reasons, "=>");
    let outcome = fs::read_to_string(repository().join("services/engine/src/outcome.rs")).unwrap();
    found.extend(quoted(&outcome, "falsify(&mut conditions, \"Database\","));
    let tables: Vec<_> = rows(&text);
    let documented = tables.iter().filter(|row| row.len() == 4).flat_map(|row| words(&row[0])).collect();
    assert_same("reasons", &documented, &found);
    for reason in ["Database", "Credentials", "Ready"]
        .iter()
        .flat_map(|kind| quoted(&outcome, &format!("hold(&mut conditions, \"{kind}\",")))
    {
        assert!(text.contains(&format!("`{reason}`")), "{reason} is not in operators.md");
    }

    let status = fs::read_to_string(repository().join("services/model/src/status.rs")).unwrap();
    let states = status.split_once("fn as_str(").unwrap().1.split_once("\n    }\n").unwrap().0;
    let documented = tables.iter().filter(|row| row.len() == 2).flat_map(|row| words(&row[0])).collect();
    assert_same("states", &documented, &quoted(states, "=>"));
}

#[test]
fn every_step_is_documented() {
    let text = section(&document("operators.md"), "## States and reasons");
    let documented = words(text.split_once("\nSteps: ").unwrap().1.split_once("\n\n").unwrap().0);
    assert_same("steps", &documented, &quoted(&sources("engine/"), "Failure::at("));
}

#[test]
fn every_problem_is_documented() {
    let source = fs::read_to_string(repository().join("services/api/src/problem.rs")).unwrap();
    let table = source.split_once("problem_types! {\n").unwrap().1.split_once("\n}\n").unwrap().0;
    let entries: Vec<&str> = table.split(';').filter(|entry| entry.contains(" = ")).collect();
    // Advice may hold a semicolon: an entry begins with the name.
    let status_and_slug = |entry: &&str| {
        let (_, rest) = entry.split_once(" = ")?;
        let (status, rest) = rest.split_once(" \"")?;
        Some(format!("`{}` {status}", rest.split_once('"')?.0))
    };
    let found = entries.iter().filter_map(status_and_slug).collect();
    let text = section(&document("api.md"), "### Problems");
    let documented = rows(&text).iter().map(|row| format!("{} {}", row[0], row[1])).collect();
    assert_same("problems", &documented, &found);
}

#[test]
fn every_path_is_documented() {
    let openapi: Value =
        serde_json::from_str(&fs::read_to_string(repository().join("openapi/openapi.json")).unwrap()).unwrap();
    let mut found = BTreeSet::from(["GET /docs".to_owned()]);
    for (path, item) in openapi["paths"].as_object().unwrap() {
        found.extend(item.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let text = section(&document("api.md"), "### All paths");
    let documented = rows(&text).iter().flat_map(|row| words(&row[0])).collect();
    assert_same("paths", &documented, &found);
}

/// The commands that `pgtenant … --help` lists.
async fn commands() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = Cli::new().run(&args).await.expect(0).stdout;
        let Some((_, rest)) = help.split_once("\nCommands:\n") else {
            found.insert(format!("pgtenant {}", path.join(" ")));
            continue;
        };
        // `migrate` does something of its own as well.
        if !help.lines().any(|line| line.starts_with("Usage: ") && line.ends_with("<COMMAND>")) {
            found.insert(format!("pgtenant {}", path.join(" ")));
        }
        let list = rest.split("\n\n").next().unwrap();
        // A line that goes on is indented further.
        let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        open.extend(names.map(|name| path.iter().cloned().chain([name.to_owned()]).collect()));
    }
    found
}

#[tokio::test]
async fn every_command_has_an_example() {
    let text = section(&document("api.md"), "## Command line");
    let mut used = BTreeSet::new();
    let found = commands().await;
    for command in &found {
        let shown =
            text.lines().any(|line| line.split("$(").any(|part| part.trim_start().starts_with(command.as_str())));
        if shown {
            used.insert(command.clone());
        }
    }
    assert_same("commands", &used, &found);
}

#[test]
fn every_fault_point_is_documented() {
    let mut found: BTreeSet<String> = quoted(&sources("engine/"), ".reach(");
    let plan = fs::read_to_string(repository().join("services/postgres/src/plan/mod.rs")).unwrap();
    let steps = plan.split_once("pub mod step {").unwrap().1.split_once("\n}").unwrap().0;
    for step in quoted(steps, "&str =") {
        found.extend([format!("before:{step}"), format!("after:{step}")]);
    }
    let documented = first_words(&section(&document("development.md"), "### Fault points"));
    assert_same("fault points", &documented, &found);
}
