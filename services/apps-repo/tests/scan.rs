//! What a look at a folder says, with everything in it that people and programs leave there.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a helper fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pgtenant_apps_repo::{Kept, Limits, Names, Scan, Scanner, render_problems, scan, to_plan_request};
use tempfile::TempDir;

const OURS: &str = "helm: {chart: idp-postgresql}\n";

fn put(root: &TempDir, name: &str, text: impl AsRef<[u8]>) {
    let path = root.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn application(root: &TempDir, place: &str, databases: &[&str]) {
    put(root, &format!("{place}/application.yaml"), OURS);
    let list: String = databases.iter().map(|name| format!("  - name: {name}\n")).collect();
    put(root, &format!("{place}/values.yaml"), format!("postgresqlDatabases:\n{list}"));
}

fn look(root: &TempDir) -> Scan {
    scan(root.path(), &Limits::default())
}

fn keys(scan: &Scan) -> Vec<String> {
    scan.definitions.iter().map(|d| format!("{} {}:{}", d.key, d.file, d.line)).collect()
}

fn told(scan: &Scan) -> String {
    render_problems(&scan.problems)
}

fn kept(scan: &Scan) -> Vec<&str> {
    scan.kept.iter().map(|Kept { place, .. }| &**place).collect()
}

#[test]
fn an_applications_channel_is_that_of_its_databases() {
    let root = TempDir::new().unwrap();
    put(&root, "idp-dev/orders/application.yaml", format!("slackChannel: '#orders'\n{OURS}"));
    put(
        &root,
        "idp-dev/orders/values.yaml",
        "postgresqlDatabases:\n  - name: a\n  - name: b\n    slackChannel: C0OWN\n",
    );
    application(&root, "idp-dev/quiet", &["c"]);
    let scan = look(&root);
    assert_eq!(told(&scan), "");
    let channels: Vec<_> = scan.definitions.iter().map(|one| one.spec.slack_channel.as_deref()).collect();
    assert_eq!(channels, [Some("#orders"), Some("C0OWN"), None]);
    assert_eq!(to_plan_request(&scan).claims[0].slack_channel.as_deref(), Some("#orders"));
}

#[test]
fn applications_are_found_at_any_depth() {
    let root = TempDir::new().unwrap();
    application(&root, "idp-dev/orders", &["b", "a"]);
    application(&root, "idp-dev/team/x/billing", &["c"]);
    application(&root, "idp-dev/orders/inner", &["d"]);
    application(&root, "zeta/orders", &["a"]);
    application(&root, "zeta/.hidden", &["h"]);
    application(&root, ".git/orders", &["h"]);
    put(&root, "zeta/web/application.yaml", "colour: red\nhelm: {chart: web}\n");
    put(&root, "zeta/web/values.yaml", "postgresqlDatabases: nonsense\n\0");
    put(&root, "zeta/notes/values.yaml", "postgresqlDatabases: nonsense");
    put(&root, "README.md", "x");
    let scan = look(&root);
    assert_eq!(
        keys(&scan),
        [
            "idp-dev/d idp-dev/orders/inner/values.yaml:2",
            "idp-dev/b idp-dev/orders/values.yaml:2",
            "idp-dev/a idp-dev/orders/values.yaml:3",
            "idp-dev/c idp-dev/team/x/billing/values.yaml:2",
            "zeta/a zeta/orders/values.yaml:2",
        ]
    );
    assert_eq!((told(&scan), scan.applications, scan.is_complete()), (String::new(), 4, true));
    assert_eq!(
        scan.unused.iter().map(|k| &*k.place).collect::<Vec<_>>(),
        ["zeta/notes/values.yaml", "zeta/web/values.yaml"]
    );
    let request = to_plan_request(&scan);
    assert_eq!((request.claims.len(), request.complete, request.source.as_str()), (5, true, "apps"));
    assert_eq!((&*request.claims[0].name, request.claims[0].cluster.as_deref()), ("d", Some("default")));
}

#[test]
fn a_broken_file_defines_nothing_and_says_why() {
    let root = TempDir::new().unwrap();
    application(&root, "ns/good", &["a"]);
    application(&root, "ns/typo", &["b"]);
    put(&root, "ns/typo/values.yaml", "postgresqlDatabases:\n- name: b\n- name: c\n  mdoe: x\n");
    application(&root, "ns/chart", &["d"]);
    put(&root, "ns/chart/application.yaml", "helm: {chart: idp-postgresql, x: 1}");
    put(&root, "ns/unclear/application.yaml", "helm:\n");
    put(&root, "ns/unclear/values.yaml", "never read");
    put(&root, "ns/missing/application.yaml", OURS);
    put(&root, "ns/empty/application.yaml", OURS);
    put(&root, "ns/empty/values.yaml", "");
    let scan = look(&root);
    assert_eq!(keys(&scan), ["ns/a ns/good/values.yaml:2"]);
    assert_eq!(
        told(&scan),
        "ns/chart/application.yaml:1: helm.x: is not known (allowed: chart, chartVersion)\n\
         ns/missing/values.yaml: is missing beside application.yaml; write `postgresqlDatabases: []` for no databases\n\
         ns/typo/values.yaml:4: postgresqlDatabases[1].mdoe: is not known; did you mean `mode`? (allowed: name, mode, cluster, schemas, extensions, connectionLimit, slackChannel)\n\
         ns/unclear/application.yaml:1: helm.chart: is missing or not text; it must name the application's chart, for databases \"idp-postgresql\"\n"
    );
    let places = ["chart", "empty", "missing", "typo", "unclear"].map(|p| format!("ns/{p}/values.yaml"));
    assert_eq!(kept(&scan), places);
    let Names::Known(names) = &scan.kept[3].names else { panic!("{:?}", scan.kept) };
    assert_eq!(names.iter().map(|(name, line)| (&**name, *line)).collect::<Vec<_>>(), [("b", 2), ("c", 3)]);
    assert_eq!(scan.kept[4].names, Names::Unknown);
    assert_eq!((scan.applications, scan.is_complete(), to_plan_request(&scan).complete), (6, false, false));
}

#[test]
fn a_name_belongs_to_the_first_file_of_its_namespace() {
    let root = TempDir::new().unwrap();
    application(&root, "ns/a", &["x", "w"]);
    application(&root, "ns/b", &["z", "x"]);
    application(&root, "other/b", &["x"]);
    let scan = look(&root);
    assert_eq!(
        keys(&scan),
        [
            "ns/x ns/a/values.yaml:2",
            "ns/w ns/a/values.yaml:3",
            "ns/z ns/b/values.yaml:2",
            "other/x other/b/values.yaml:2"
        ]
    );
    let again = "ns/b/values.yaml:3: postgresqlDatabases[1].name: \"x\" is defined in ns/a/values.yaml:2 already, and that one counts\n";
    assert_eq!(told(&scan), again);
    // It stays the first one's while that is broken.
    put(&root, "ns/a/values.yaml", "postgresqlDatabases:\n- name: x\n  mode: 1\n");
    let scan = look(&root);
    assert_eq!(keys(&scan), ["ns/z ns/b/values.yaml:2", "other/x other/b/values.yaml:2"]);
    assert!(told(&scan).ends_with(again), "{}", told(&scan));
}

#[test]
fn places_where_no_application_can_be() {
    let root = TempDir::new().unwrap();
    application(&root, "No_Label/orders", &["a"]);
    application(&root, "No_Label/billing", &["b"]);
    application(&root, "lonely", &["c"]);
    put(&root, "application.yaml", OURS);
    put(&root, "Other_Things/web/application.yaml", "helm: {chart: web}");
    let scan = look(&root);
    assert_eq!(keys(&scan), [""; 0]);
    assert_eq!(
        told(&scan),
        "No_Label: namespace \"No_Label\" is not a DNS label: use a-z, 0-9 and hyphens, with a letter or digit first and last; the first folder is the namespace\n\
         application.yaml: must be in a folder {namespace}/{application}, the namespace's and its own\n\
         lonely/application.yaml: must be in a folder {namespace}/{application}, the namespace's and its own\n"
    );
}

#[test]
fn files_that_are_no_text_are_told_and_not_waited_for() {
    let root = TempDir::new().unwrap();
    let values = |place: &str| {
        put(&root, &format!("ns/{place}/application.yaml"), OURS);
        root.path().join(format!("ns/{place}/values.yaml"))
    };
    fs::create_dir(values("a-folder")).unwrap();
    symlink("nothing", values("b-dangling")).unwrap();
    symlink("/etc/hostname", values("c-outside")).unwrap();
    fs::write(values("d-latin1"), b"# ok\n# caf\xe9\n").unwrap();
    fs::write(values("e-large"), vec![b'#'; (1 << 20) + 1]).unwrap();
    let pipe = values("f-pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    symlink("values.yaml", values("g-loop")).unwrap();
    fs::create_dir_all(root.path().join("ns/h/application.yaml")).unwrap();
    fs::write(values("i-largest"), vec![b'#'; 1 << 20]).unwrap();
    let scan = look(&root);
    assert_eq!(
        told(&scan),
        "ns/a-folder/values.yaml: is a folder and must be a file\n\
         ns/b-dangling/values.yaml: is a symbolic link that leads nowhere\n\
         ns/c-outside/values.yaml: is a symbolic link that leads out of the apps folder; it is not followed\n\
         ns/d-latin1/values.yaml:2: is not UTF-8 text\n\
         ns/e-large/values.yaml: has 1048577 bytes; at most 1048576 are read\n\
         ns/f-pipe/values.yaml: is not a regular file\n\
         ns/g-loop/values.yaml: can not be read: Too many levels of symbolic links (os error 40)\n\
         ns/h/application.yaml: is a folder and must be a file\n"
    );
    assert_eq!(scan.kept.iter().filter(|k| k.place.ends_with("/values.yaml")).count(), 9);
}

#[test]
fn links_within_the_folder_are_followed_and_others_are_not() {
    let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    application(&outside, "secret", &["s"]);
    application(&root, "ns/real", &["a"]);
    put(&root, "ns/linked/application.yaml", OURS);
    symlink("../../shared.yaml", root.path().join("ns/linked/values.yaml")).unwrap();
    put(&root, "shared.yaml", "postgresqlDatabases: [{name: b}]");
    symlink("ns", root.path().join("other")).unwrap();
    symlink("..", root.path().join("ns/up")).unwrap();
    symlink(outside.path(), root.path().join("ns/out")).unwrap();
    symlink("gone", root.path().join("ns/nowhere")).unwrap();
    symlink("real/values.yaml", root.path().join("ns/a-file")).unwrap();
    let scan = look(&root);
    assert_eq!(
        keys(&scan),
        [
            "ns/b ns/linked/values.yaml:1",
            "ns/a ns/real/values.yaml:2",
            "other/b other/linked/values.yaml:1",
            "other/a other/real/values.yaml:2"
        ]
    );
    assert_eq!(
        told(&scan),
        "ns/out: is a symbolic link that leads out of the apps folder; it is not followed\n\
         ns/up: is a symbolic link to a folder that it lies in; it is not followed\n\
         other/out: is a symbolic link that leads out of the apps folder; it is not followed\n\
         other/up: is a symbolic link to a folder that it lies in; it is not followed\n"
    );
    assert_eq!(kept(&scan), ["ns/nowhere", "ns/out", "other/nowhere", "other/out"]);
}

#[test]
fn hostile_names_stay_on_one_line() {
    use std::os::unix::ffi::OsStrExt;
    let root = TempDir::new().unwrap();
    application(&root, "ns/a\nb\u{1b}[31m", &["a"]);
    put(&root, "ns/a\nb\u{1b}[31m/values.yaml", "x: 1");
    let odd = root.path().join(Path::new(std::ffi::OsStr::from_bytes(b"ns/\xff\xfe")));
    fs::create_dir_all(&odd).unwrap();
    fs::write(odd.join("application.yaml"), OURS).unwrap();
    let scan = look(&root);
    assert_eq!(
        told(&scan),
        "ns/a\\nb\\u{1b}[31m/values.yaml:1: x: is not known (allowed: postgresqlDatabases, global, idp_oidc_provider_url, idp_aws_account)\n\
         ns/\u{fffd}\u{fffd}: is a folder whose name is not UTF-8; it is not read\n"
    );
}

#[test]
fn a_folder_without_end_is_not_read_to_it() {
    let root = TempDir::new().unwrap();
    let deep = format!("ns{}", "/d".repeat(20));
    application(&root, &deep, &["a"]);
    let found = look(&root);
    assert!(told(&found).ends_with("is nested deeper than 16 folders; it is not read\n"), "{}", told(&found));
    assert_eq!((found.kept.len(), found.unreadable), (1, false));

    for limits in [Limits { applications: 2, ..Limits::default() }, Limits { entries: 8, ..Limits::default() }] {
        let root = TempDir::new().unwrap();
        for name in ["a", "b", "c"] {
            application(&root, &format!("ns/{name}"), &[name]);
        }
        let cut = scan(root.path(), &limits);
        assert!(cut.unreadable && cut.definitions.len() < 3, "{cut:?}");
        assert!(told(&cut).contains("no database is removed until that is mended"), "{}", told(&cut));
    }
}

#[test]
fn a_root_that_is_away_is_no_empty_folder() {
    let root = TempDir::new().unwrap();
    put(&root, "file", "");
    symlink("nowhere", root.path().join("link")).unwrap();
    for name in ["missing", "file", "link", "file/below"] {
        let scan = scan(&root.path().join(name), &Limits::default());
        assert!(scan.unreadable && scan.definitions.is_empty(), "{name}");
        assert!(told(&scan).starts_with("the apps folder "), "{}", told(&scan));
    }
    let empty = look(&TempDir::new().unwrap());
    assert_eq!((empty.unreadable, empty.applications, told(&empty)), (false, 0, String::new()));
}

#[test]
fn a_second_look_sees_what_changed_in_place() {
    let root = TempDir::new().unwrap();
    application(&root, "ns/a", &["x"]);
    let mut scanner = Scanner::new(Limits::default(), Duration::ZERO);
    // The same length and perhaps the same time stamp.
    for name in ["x", "w", "z"] {
        application(&root, "ns/a", &[name]);
        assert_eq!(scanner.scan(root.path()).definitions[0].key.name(), name);
    }
    assert_eq!(scanner.scan(root.path()), look(&root));
}

#[test]
fn a_file_that_may_not_be_written_to_its_end_is_looked_at_again() {
    let root = TempDir::new().unwrap();
    application(&root, "ns/a", &["x"]);
    let mut scanner = Scanner::new(Limits::default(), Duration::from_secs(3600));
    assert_eq!(keys(&scanner.scan(root.path())), ["ns/x ns/a/values.yaml:2"]);
    // Half a name would be a name, and half a chart another chart.
    for (file, half) in
        [("values", "postgresqlDatabases:\n  - name: x\n  - name: or"), ("application", "helm:\n  chart: idp")]
    {
        let file = format!("ns/a/{file}.yaml");
        application(&root, "ns/a", &["x"]);
        put(&root, &file, half);
        let scan = scanner.scan(root.path());
        assert_eq!((keys(&scan), told(&scan), scan.unsettled), (vec![], String::new(), true), "{half}");
        assert_eq!(kept(&scan), ["ns/a/values.yaml"]);
        // A file without its last newline counts when it is old, or nobody can be writing.
        assert!(!look(&root).unsettled);
        let written = SystemTime::now() - Duration::from_secs(3601);
        fs::File::options().write(true).open(root.path().join(file)).unwrap().set_modified(written).unwrap();
        assert!(!scanner.scan(root.path()).unsettled);
    }
    application(&root, "ns/a", &["x"]);
    put(&root, "ns/a/values.yaml", "postgresqlDatabases: [{name: z}]");
    assert_eq!(keys(&look(&root)), ["ns/z ns/a/values.yaml:1"]);
}
