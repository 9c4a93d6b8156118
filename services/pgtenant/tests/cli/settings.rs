//! `config check`.

use crate::run::{bare, end};

#[test]
fn good_settings_are_shown_with_their_source() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pgtenant.toml");
    std::fs::write(&file, "[ledger]\nurl = \"postgresql://u@db/l\"\npassword = \"hunter2\"\n").unwrap();
    let path = file.to_str().unwrap();
    let mut command = bare(&["config", "check", "--config", path, "--listen", "0.0.0.0:9"]);
    let ended = end(command.env("PGTENANT_LOG__FORMAT", "json").env("PGTENANT_SERVICE_PORT", "80")).expect(0);
    for (key, value, from) in [
        ("listen", "0.0.0.0:9", "--listen"),
        ("ledger.password", "********", &*format!("{path}:3")),
        ("log.format", "json", "PGTENANT_LOG__FORMAT"),
        ("log.level", "info", "default"),
        ("apps.dir", "-", "not set"),
    ] {
        let line = ended.stdout.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), format!("{key} {value} {from}"));
    }
    assert!(!ended.stdout.contains("hunter2") && ended.stdout.ends_with("The settings can be used.\n"));
    assert!(ended.stderr.contains("warning: clusters: there is no cluster"), "{}", ended.stderr);
}

#[test]
fn bad_settings_are_named_and_the_status_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pgtenant.toml");
    std::fs::write(&file, "[log]\nformat = \"xml\"\n\n[nolog]\na = 1\n").unwrap();
    let path = file.to_str().unwrap();
    let ended = end(&mut bare(&["config", "check", "--config", path])).expect(1);
    assert!(
        ended.stderr.contains(&format!("error: {path}:2: log.format: \"xml\" must be text or json\n")),
        "{ended:?}"
    );
    assert!(ended.stderr.contains(&format!("error: {path}:5: nolog.a: is not a setting")), "{ended:?}");
    let json = end(&mut bare(&["config", "check", "--config", path, "-o", "json"])).expect(1).json();
    assert_eq!((&json["ok"], &json["problems"][0]["key"]), (&false.into(), &"log.format".into()));
    assert_eq!(json["problems"][0]["place"], format!("{path}:2"));
}
