//! `migrate values`: what it prints, what git makes of it, what it writes.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::{Ended, bare, end};

const CHART: &str = "helm: {chart: idp-postgresql, chartVersion: 0.4.1}\n";
const VALUES: &str = "tenantDatabases:\n  - name: orders # the first\n    deletionProtection: false\n    \
                      roleDeletionPolicy: Orphan\n    dbDeletionPolicy: Delete\n";

fn put(root: &Path, place: &str, chart: &str, values: &str) {
    let folder = root.join(place);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("application.yaml"), chart).unwrap();
    std::fs::write(folder.join("values.yaml"), values).unwrap();
}

fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("apps"), "shop/orders", CHART, VALUES);
    put(&dir.path().join("apps"), "shop/new", &CHART.replace("0.4.1", "1.0.0"), "postgresqlDatabases: []\n");
    dir
}

fn migrate(dir: &tempfile::TempDir, more: &[&str]) -> Ended {
    end(bare(&[&["migrate", "values", "-f", "apps"], more].concat()).current_dir(dir.path()))
}

fn read(dir: &tempfile::TempDir, file: &str) -> String {
    std::fs::read_to_string(dir.path().join("apps/shop").join(file)).unwrap()
}

#[test]
fn without_write_the_difference_is_printed_and_git_applies_it() {
    let dir = repository();
    let ended = migrate(&dir, &[]).expect(0);
    assert_eq!(
        ended.stdout,
        "--- a/apps/shop/orders/application.yaml\n+++ b/apps/shop/orders/application.yaml\n@@ -1 +1 @@\n\
         -helm: {chart: idp-postgresql, chartVersion: 0.4.1}\n+helm: {chart: idp-postgresql, chartVersion: 1.0.0}\n\
         --- a/apps/shop/orders/values.yaml\n+++ b/apps/shop/orders/values.yaml\n@@ -1,5 +1,3 @@\n\
         -tenantDatabases:\n+postgresqlDatabases:\n   - name: orders # the first\n-    deletionProtection: false\n\
         -    roleDeletionPolicy: Orphan\n-    dbDeletionPolicy: Delete\n+    mode: protected\n"
    );
    assert!(
        ended.stderr.starts_with(
            "note: shop/orders/values.yaml:3: \"orders\": deletionProtection false, roleDeletionPolicy Orphan, \
             dbDeletionPolicy Delete do not agree; mode: protected was chosen, the safer one"
        ),
        "{}",
        ended.stderr
    );
    let last = ended.stderr.lines().last().unwrap();
    assert_eq!(last, "2 files would change, 2 are up to date, 0 refused; run again with --write");
    assert_eq!(read(&dir, "orders/values.yaml"), VALUES);
    migrate(&dir, &["--exit-code"]).expect(3);

    std::fs::write(dir.path().join("patch"), &ended.stdout).unwrap();
    for arguments in [&["init", "-q"][..], &["apply", "patch"]] {
        let mut git = Command::new("git");
        let status = git.args(arguments).current_dir(dir.path()).stdin(Stdio::null()).status().unwrap();
        assert!(status.success());
    }
    let ended = migrate(&dir, &["--exit-code"]).expect(0);
    let nothing = "0 files would change, 4 are up to date, 0 refused\n";
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", nothing));
}

#[test]
fn with_write_the_files_change_once() {
    let dir = repository();
    let ended = migrate(&dir, &["--write", "--chart-version", "1.2.0"]).expect(0);
    assert_eq!(ended.stdout, "changed shop/orders/application.yaml\nchanged shop/orders/values.yaml\n");
    assert!(ended.stderr.ends_with("2 files changed, 2 are up to date, 0 refused\n"), "{}", ended.stderr);
    assert_eq!(
        read(&dir, "orders/values.yaml"),
        "postgresqlDatabases:\n  - name: orders # the first\n    mode: protected\n"
    );
    assert_eq!(read(&dir, "orders/application.yaml"), "helm: {chart: idp-postgresql, chartVersion: 1.2.0}\n");
    let ended = migrate(&dir, &["--write"]).expect(0);
    let nothing = "0 files changed, 4 are up to date, 0 refused\n";
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", nothing));
}

#[test]
fn a_refused_file_has_its_place_and_the_others_are_written() {
    let dir = repository();
    put(&dir.path().join("apps"), "shop/odd", CHART, "global: &x {}\ntenantDatabases: []\n");
    let ended = migrate(&dir, &["--write"]).expect(1);
    assert!(ended.stderr.contains("error: shop/odd/values.yaml:1: an anchor stands here"), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    assert_eq!(last, "2 files changed, 2 are up to date, 1 refused, 1 waits for another");
    assert_eq!(read(&dir, "odd/application.yaml"), CHART);
    assert!(read(&dir, "orders/values.yaml").contains("mode: protected"));
    // A refusal counts for more than changes.
    put(&dir.path().join("apps"), "shop/orders", CHART, VALUES);
    migrate(&dir, &["--exit-code"]).expect(1);
}

#[test]
fn machines_read_files_changes_and_notes() {
    let dir = repository();
    put(&dir.path().join("apps"), "shop/odd", CHART, "tenantDatabases: [{name: a, deletionProtection: 1}]\n");
    let json = migrate(&dir, &["--output", "json"]).expect(1).json();
    let files = json["files"].as_array().unwrap();
    let states: Vec<_> =
        files.iter().map(|file| (file["file"].as_str().unwrap(), file["state"].as_str().unwrap())).collect();
    assert_eq!(
        states,
        [
            ("shop/new/application.yaml", "upToDate"),
            ("shop/new/values.yaml", "upToDate"),
            ("shop/odd/application.yaml", "waits"),
            ("shop/odd/values.yaml", "refused"),
            ("shop/orders/application.yaml", "changes"),
            ("shop/orders/values.yaml", "changes"),
        ]
    );
    assert_eq!(files[3]["problems"][0]["key"], "tenantDatabases[0].deletionProtection");
    assert_eq!(
        files[5]["changes"][0],
        serde_json::json!({"line": 1, "message": "tenantDatabases becomes postgresqlDatabases"})
    );
    assert_eq!((&files[5]["notes"][0]["line"], &json["written"]), (&3.into(), &false.into()));
    assert!(files[5]["diff"].as_str().unwrap().starts_with("--- a/apps/shop/orders/values.yaml\n"));
    let json = migrate(&dir, &["--output", "json", "--write"]).expect(1).json();
    assert_eq!((&json["written"], &json["files"][5]["state"]), (&true.into(), &"changed".into()));
    let text = migrate(&dir, &["--output", "text"]).expect(1);
    assert_eq!(text.stdout, "");
}

#[test]
fn a_write_that_fails_says_what_is_done() {
    let dir = repository();
    put(&dir.path().join("apps"), "zoo/last", CHART, VALUES);
    // Nobody may write into it, root neither.
    let folder = dir.path().join("apps/zoo/last");
    let immutable = |set: &str| Command::new("chattr").args([set]).arg(&folder).stderr(Stdio::null()).status();
    let blocked = immutable("+i").is_ok_and(|status| status.success());
    if !blocked {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).unwrap();
        if std::fs::write(folder.join("probe"), "").is_ok() {
            return; // Root in a file system without the flag writes everywhere.
        }
    }
    let ended = migrate(&dir, &["--write"]).expect(1);
    let _ = immutable("-i");
    assert!(ended.stderr.contains("error: zoo/last/application.yaml could not be written: "), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("these are changed already, and no other: shop/orders/application.yaml\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(read(&dir, "orders/values.yaml"), VALUES);
}

#[test]
fn wrong_usage_is_told() {
    let dir = repository();
    migrate(&dir, &["--write", "--exit-code"]).expect(2);
    let ended = migrate(&dir, &["--chart-version", "0.6.0"]).expect(2);
    assert!(ended.stderr.contains("a version from 1.0.0 on is needed"), "{}", ended.stderr);
    end(&mut bare(&["migrate", "values"])).expect(2);
    end(&mut bare(&["migrate", "--config", "x", "values", "-f", "."])).expect(2);
    end(&mut bare(&["migrate", "values", "-f", "/nonexistent"])).expect(1);
    let ended = end(bare(&["migrate", "values", "-f", "shop"]).current_dir(dir.path().join("apps"))).expect(1);
    assert!(ended.stderr.contains("must be in a folder {namespace}/{application}"), "{}", ended.stderr);
    let empty = tempfile::tempdir().unwrap();
    let ended = end(&mut bare(&["migrate", "values", "-f", empty.path().to_str().unwrap()])).expect(0);
    assert!(ended.stderr.contains("there is no application of the chart idp-postgresql"), "{}", ended.stderr);
    // Without the subcommand it is the ledger's.
    let ended = end(&mut bare(&["migrate"])).expect(1);
    assert!(ended.stderr.contains("ledger.url: must be set"), "{}", ended.stderr);
    // What the variables of clients say does not matter.
    let mut command = bare(&["-o", "json", "migrate", "values", "-f", "apps"]);
    end(command.current_dir(dir.path()).env("PGTENANT_URL", "http://x")).expect(0).json();
}
