//! A folder of older charts on a real file system: what is found, what is refused, what is written.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a helper fails the test")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use pgtenant_apps_repo::{FileState, Limits, Migration, plan_migration, render_problems, scan};
use tempfile::TempDir;

const OLD_CHART: &str = "helm:\n  chart: idp-postgresql\n  chartVersion: 0.5.0 # old\n";
const NEW_CHART: &str = "helm:\n  chart: idp-postgresql\n  chartVersion: 1.0.0 # old\n";
const OLD: &str = "tenantDatabases:\n  - name: a # x\n    deletionProtection: true\n";
const NEW: &str = "postgresqlDatabases:\n  - name: a # x\n    mode: protected\n";

fn put(root: &TempDir, name: &str, text: impl AsRef<[u8]>) {
    let path = root.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn application(root: &TempDir, place: &str, chart: &str, values: &str) {
    put(root, &format!("{place}/application.yaml"), chart);
    put(root, &format!("{place}/values.yaml"), values);
}

fn text(root: &TempDir, name: &str) -> String {
    fs::read_to_string(root.path().join(name)).unwrap()
}

fn plan(root: &TempDir) -> Migration {
    plan_migration(root.path(), &Limits::default(), &"1.0.0".parse().unwrap())
}

fn states(plan: &Migration) -> Vec<(&str, FileState)> {
    plan.files.iter().map(|file| (&*file.file, file.state)).collect()
}

fn told(plan: &Migration) -> String {
    plan.files.iter().map(|file| render_problems(&file.problems)).collect()
}

#[test]
fn a_folder_is_written_and_then_up_to_date() {
    let root = TempDir::new().unwrap();
    application(&root, "shop/orders", OLD_CHART, OLD);
    application(&root, "shop/team/x/cart", OLD_CHART, &OLD.replace("name: a", "name: c"));
    application(&root, "shop/new", NEW_CHART, "postgresqlDatabases: [{name: b}]\n");
    application(&root, "shop/web", "helm: {chart: web, chartVersion: 0.1.0}\n", "replicas: 3\n");
    put(&root, "shop/.hidden/values.yaml", OLD);
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(root.path().join("shop/orders/values.yaml"), mode).unwrap();
    let planned = plan(&root);
    assert_eq!(
        states(&planned),
        [
            ("shop/new/application.yaml", FileState::UpToDate),
            ("shop/new/values.yaml", FileState::UpToDate),
            ("shop/orders/application.yaml", FileState::Changes),
            ("shop/orders/values.yaml", FileState::Changes),
            ("shop/team/x/cart/application.yaml", FileState::Changes),
            ("shop/team/x/cart/values.yaml", FileState::Changes),
        ]
    );
    assert_eq!(text(&root, "shop/orders/values.yaml"), OLD, "a plan changes nothing");
    let done = planned.write().unwrap();
    assert_eq!(
        done,
        [
            "shop/orders/application.yaml",
            "shop/team/x/cart/application.yaml",
            "shop/orders/values.yaml",
            "shop/team/x/cart/values.yaml"
        ]
    );
    assert_eq!(
        (text(&root, "shop/orders/values.yaml"), text(&root, "shop/orders/application.yaml")),
        (NEW.into(), NEW_CHART.into())
    );
    assert_eq!(fs::metadata(root.path().join("shop/orders/values.yaml")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(root.path().join("shop/orders")).unwrap().count(), 2, "nothing else is left");
    let found = scan(root.path(), &Limits::default());
    assert_eq!((render_problems(&found.problems), found.definitions.len()), (String::new(), 3));
    let again = plan(&root);
    assert_eq!((again.count(FileState::UpToDate), again.files.len()), (6, 6));
    assert_eq!(again.write().unwrap(), [""; 0]);
}

#[test]
fn both_files_of_an_application_change_or_none() {
    let root = TempDir::new().unwrap();
    application(&root, "ns/a", OLD_CHART, "tenantDatabases: &x []\n");
    application(&root, "ns/b", &OLD_CHART.replace("0.5.0", "'>=0.4'"), OLD);
    application(&root, "ns/c", "helm: {chart: idp-postgresql}\n", &OLD.replace("name: a", "name: c"));
    put(&root, "ns/d/application.yaml", OLD_CHART);
    application(&root, "ns/e", "helm:\n", OLD);
    application(&root, "lonely", OLD_CHART, OLD);
    let planned = plan(&root);
    assert_eq!(
        states(&planned),
        [
            ("lonely/application.yaml", FileState::Refused),
            ("lonely/values.yaml", FileState::UpToDate),
            ("ns/a/application.yaml", FileState::Waits),
            ("ns/a/values.yaml", FileState::Refused),
            ("ns/b/application.yaml", FileState::Refused),
            ("ns/b/values.yaml", FileState::Waits),
            ("ns/c/application.yaml", FileState::UpToDate),
            ("ns/c/values.yaml", FileState::Changes),
            ("ns/d/application.yaml", FileState::Waits),
            ("ns/d/values.yaml", FileState::Refused),
            ("ns/e/application.yaml", FileState::Refused),
            ("ns/e/values.yaml", FileState::Waits),
        ]
    );
    assert_eq!(
        told(&planned),
        "lonely/application.yaml: must be in a folder {namespace}/{application}, the namespace's and its own\n\
         ns/a/values.yaml:1: an anchor stands here, so one value counts in several places; change this file by hand\n\
         ns/b/application.yaml:3: helm.chartVersion: \">=0.4\" does not tell which chart is used; write a version, as 1.0.0\n\
         ns/d/values.yaml: is missing beside application.yaml\n\
         ns/e/application.yaml:1: helm.chart: is missing or not text; it must name the application's chart, for databases \"idp-postgresql\"\n"
    );
    let notes: Vec<_> = planned.files.iter().flat_map(|file| &file.notes).map(|note| &*note.message).collect();
    assert_eq!(notes[0], "is left as it is until ns/a/values.yaml is mended");
    assert!(notes.iter().any(|note| note.starts_with("names no helm.chartVersion")), "{notes:?}");
    assert_eq!(planned.write().unwrap(), ["ns/c/values.yaml"]);
    assert_eq!(text(&root, "ns/b/values.yaml"), OLD);
}

#[test]
fn links_lead_to_one_file_that_is_within() {
    let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(&outside, "values.yaml", OLD);
    put(&root, "shared.yaml", OLD);
    for place in ["ns/a", "ns/b", "ns/c"] {
        put(&root, &format!("{place}/application.yaml"), OLD_CHART);
    }
    symlink("../../shared.yaml", root.path().join("ns/a/values.yaml")).unwrap();
    symlink("../../shared.yaml", root.path().join("ns/b/values.yaml")).unwrap();
    symlink(outside.path().join("values.yaml"), root.path().join("ns/c/values.yaml")).unwrap();
    symlink("ns", root.path().join("other")).unwrap();
    symlink(outside.path(), root.path().join("ns/out")).unwrap();
    let planned = plan(&root);
    assert_eq!(
        states(&planned),
        [
            ("ns/a/application.yaml", FileState::Changes),
            ("shared.yaml", FileState::Changes),
            ("ns/b/application.yaml", FileState::Changes),
            ("ns/c/application.yaml", FileState::Waits),
            ("ns/c/values.yaml", FileState::Refused),
            ("other/c/values.yaml", FileState::Refused),
        ]
    );
    assert!(told(&planned).contains("leads out of the apps folder; it is not followed"), "{}", told(&planned));
    assert!(render_problems(&planned.problems).contains("ns/out: is a symbolic link that leads out"));
    planned.write().unwrap();
    assert_eq!((text(&root, "shared.yaml"), text(&root, "ns/a/values.yaml")), (NEW.into(), NEW.into()));
    assert!(fs::symlink_metadata(root.path().join("ns/a/values.yaml")).unwrap().is_symlink());
    assert_eq!(text(&outside, "values.yaml"), OLD);
    // One that shares a file and is broken holds the others back.
    put(&root, "shared.yaml", OLD);
    for place in ["a", "b"] {
        put(&root, &format!("ns/{place}/application.yaml"), OLD_CHART);
    }
    put(&root, "ns/b/application.yaml", "helm: [\n");
    let waits = states(&plan(&root)).into_iter().filter(|(_, state)| *state == FileState::Waits).count();
    assert_eq!(waits, 3);
}

#[test]
fn a_file_that_changes_meanwhile_is_not_overwritten() {
    let root = TempDir::new().unwrap();
    application(&root, "ns/a", OLD_CHART, OLD);
    application(&root, "ns/b", NEW_CHART, &OLD.replace("name: a", "name: b"));
    let planned = plan(&root);
    let edited = format!("{OLD}# mine\n");
    put(&root, "ns/b/values.yaml", &edited);
    let error = planned.write().unwrap_err();
    assert_eq!(
        (&*error.file, &error.done[..]),
        ("ns/b/values.yaml", &["ns/a/application.yaml".to_owned(), "ns/a/values.yaml".to_owned()][..])
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "it was changed since it was read; try again");
    assert_eq!(text(&root, "ns/b/values.yaml"), edited);
    assert_eq!(fs::read_dir(root.path().join("ns/b")).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn what_can_not_be_read_is_told() {
    let root = TempDir::new().unwrap();
    application(&root, "ns/a", OLD_CHART, OLD);
    put(&root, "ns/a/values.yaml", vec![b'#'; (1 << 20) + 1]);
    application(&root, "ns/b", OLD_CHART, OLD);
    put(&root, "ns/b/values.yaml", b"# \xff\n");
    put(&root, "ns/stray/values.yaml", OLD);
    application(&root, "ns/umbrella", "helm: {chart: web}\n", OLD);
    application(&root, "ns/else", "helm: {chart: web}\n", "x: 1\n");
    let planned = plan(&root);
    assert_eq!(
        told(&planned),
        "ns/a/values.yaml: has 1048577 bytes; at most 1048576 are read\nns/b/values.yaml:1: is not UTF-8 text\n"
    );
    let alone: Vec<_> = planned.left_alone.iter().map(|problem| &*problem.file).collect();
    assert_eq!(alone, ["ns/stray/values.yaml", "ns/umbrella/values.yaml"]);
    assert!(plan_migration(Path::new("/nonexistent"), &Limits::default(), &"1.0.0".parse().unwrap()).incomplete);
    let few = Limits { applications: 1, ..Limits::default() };
    assert!(plan_migration(root.path(), &few, &"1.0.0".parse().unwrap()).incomplete);
}

/// Runs git; what it says if it fails.
fn git(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("git").args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn git_applies_the_differences() {
    let root = TempDir::new().unwrap();
    let long = format!("{}{OLD}{}# end", "# a\r\n\n".repeat(20), "  - {name: b, deletionProtection: no}\n");
    for (index, place) in ["plain", "with space", "q\"uo\\te", "tab\tnew\nline\u{1b}", "ünï"].iter().enumerate() {
        let values = [OLD, &OLD.replace('\n', "\r\n"), OLD.trim_end(), &long][index % 4].to_owned();
        application(&root, &format!("apps/{place}"), OLD_CHART, &values.replace("name: ", &format!("name: n{index}")));
    }
    let planned = plan(&root);
    assert_eq!(told(&planned), "");
    let diff: String = planned.files.iter().map(|file| file.diff("")).collect();
    assert!(
        diff.starts_with(
            "--- a/apps/plain/application.yaml\n+++ b/apps/plain/application.yaml\n@@ -1,3 +1,3 @@\n helm:\n"
        ),
        "{diff}"
    );
    let copy = TempDir::new().unwrap();
    let tree = |root: &TempDir| planned.files.iter().map(|file| text(root, &file.file)).collect::<Vec<_>>();
    for file in &planned.files {
        put(&copy, &file.file, text(&root, &file.file));
    }
    let patch = copy.path().join("patch");
    fs::write(&patch, diff).unwrap();
    git(copy.path(), &["init", "-q"]).unwrap();
    git(copy.path(), &["apply", "patch"]).unwrap();
    assert_eq!(planned.write().unwrap().len(), 10);
    assert_eq!(tree(&copy), tree(&root));
}
