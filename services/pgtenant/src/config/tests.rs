//! Every setting by every layer, and what is said of those that can not be used.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as _, Command, FromArgMatches as _};
use secrecy::ExposeSecret as _;

use super::field::{FIELDS, Kind};
use super::*;

/// A value of each setting that is not its default: as TOML, and as text.
const SAMPLES: &[(&str, &str, &str)] = &[
    ("listen", "\"0.0.0.0:9\"", "0.0.0.0:9"),
    ("ledger.url", "\"postgresql://u@db/l\"", "postgresql://u@db/l"),
    ("ledger.password", "\"hunter2\"", "hunter2"),
    ("ledger.password_file", "\"/run/secrets/ledger\"", "/run/secrets/ledger"),
    ("ledger.max_connections", "17", "17"),
    ("log.format", "\"json\"", "json"),
    ("log.level", "\"debug\"", "debug"),
    ("apps.dir", "\"/srv/apps\"", "/srv/apps"),
    ("apps.rescan", "\"7s\"", "7s"),
    ("apps.max_removals", "3", "3"),
    ("apps.allow_mass_removal", "true", "true"),
    ("kubernetes.enabled", "true", "true"),
    ("kubernetes.kubeconfig", "\"/k\"", "/k"),
    ("kubernetes.namespace", "\"ops\"", "ops"),
    ("kubernetes.webhook_listen", "\"0.0.0.0:1\"", "0.0.0.0:1"),
    ("kubernetes.webhook_service", "\"hook\"", "hook"),
    ("kubernetes.webhook_url", "\"https://here:9443\"", "https://here:9443"),
    ("kubernetes.webhook_tls_dir", "\"/tls\"", "/tls"),
    ("look.interval", "\"9m\"", "9m"),
    ("look.max_per_second", "2.5", "2.5"),
    ("work.concurrency", "2", "2"),
    ("work.lease", "\"5s\"", "5s"),
    ("work.watch", "\"2s\"", "2s"),
    ("work.postgresql_dir", "\"/opt/pg\"", "/opt/pg"),
    ("api.body_limit", "\"1MiB\"", "1MiB"),
    ("api.request_timeout", "\"11s\"", "11s"),
    ("api.rate_limit", "5", "5"),
    ("api.rate_burst", "6", "6"),
    ("slack.signing_secret", "\"hunter3\"", "hunter3"),
    ("slack.signing_secret_file", "\"/run/secrets/signing\"", "/run/secrets/signing"),
    ("slack.bot_token", "\"xoxb\"", "xoxb"),
    ("slack.bot_token_file", "\"/run/secrets/bot\"", "/run/secrets/bot"),
    ("slack.api_url", "\"http://127.0.0.1:9/\"", "http://127.0.0.1:9/"),
    ("slack.platform_channel", "\"C0P\"", "C0P"),
    ("slack.channels", "[]", "[]"),
    ("slack.users", "[]", "[]"),
    ("slack.unlisted", "\"tenant\"", "tenant"),
    ("slack.team", "\"T0TEAM\"", "T0TEAM"),
    ("shutdown.grace", "\"3s\"", "3s"),
];

const CLUSTER: &str = r#"
[clusters.default]
environment = "test"
topology = { streaming = { hosts = ["db1:5432", "db2"] } }
provisioner = { username = "prov", passwordFile = "/run/secrets/prov" }
stores = [{ file = { directory = "/srv/secrets" } }]
allowedExtensions = ["pgcrypto"]
"#;

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgtenant.toml");
    std::fs::write(&path, text).unwrap();
    File { _dir: dir, path }
}

fn args(list: &[&str]) -> SettingsArgs {
    let command = SettingsArgs::augment_args(Command::new("serve"));
    SettingsArgs::from_arg_matches(&command.get_matches_from([&["serve"], list].concat())).unwrap()
}

fn variables(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    list.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn load_with(text: &str, env: &[(&str, &str)], flags: &[&str]) -> (Loaded, String) {
    let file = file(text);
    let path = file.path.display().to_string();
    let loaded = load(&args(&[&["--config", path.as_str()], flags].concat()), variables(env));
    (loaded, path)
}

fn toml(key: &str, value: &str) -> String {
    match key.split_once('.') {
        Some((section, key)) => format!("[{section}]\n{key} = {value}\n"),
        None => format!("{key} = {value}\n"),
    }
}

fn shown(loaded: &Loaded, key: &str) -> (String, String) {
    let found = loaded.effective().into_iter().find(|effective| effective.key == key).unwrap();
    (found.value.unwrap_or_default(), found.source)
}

#[test]
fn the_samples_are_all_settings() {
    let keys: Vec<&str> = SAMPLES.iter().map(|(key, ..)| *key).collect();
    let fields: Vec<&str> = FIELDS.iter().map(|field| field.key).collect();
    assert_eq!(keys, fields);
}

#[test]
fn every_setting_can_be_set_by_file_variable_and_flag() {
    for (field, (key, as_toml, text)) in FIELDS.iter().zip(SAMPLES) {
        let expected = if field.kind == Kind::Secret { "********" } else { text };
        let (loaded, path) = load_with(&toml(key, as_toml), &[], &[]);
        let line = if key.contains('.') { 2 } else { 1 };
        assert_eq!(shown(&loaded, key), (expected.to_owned(), format!("{path}:{line}")));

        let variable = field.variable();
        let (loaded, _) = load_with(&toml(key, as_toml), &[(&variable, text)], &[]);
        assert_eq!(shown(&loaded, key), (expected.to_owned(), variable.clone()));

        let Some(flag) = field.flag() else { continue };
        let argument = format!("--{flag}={text}");
        let (loaded, _) = load_with(&toml(key, as_toml), &[(&variable, text)], &[&argument]);
        assert_eq!(shown(&loaded, key), (expected.to_owned(), format!("--{flag}")));

        let (loaded, _) = load_with("", &[], &["--set", &format!("{key}={text}")]);
        assert_eq!(shown(&loaded, key), (expected.to_owned(), format!("--set {key}")));
    }
}

#[test]
fn what_is_set_arrives() {
    let mut text: String = SAMPLES
        .iter()
        .filter(|(key, ..)| !key.ends_with("_file"))
        .map(|(key, value, _)| format!("{key} = {value}\n"))
        .collect();
    text.push_str(CLUSTER);
    let settings = load_with(&text, &[], &[]).0.settings().unwrap();
    let Settings { listen, ledger, log, apps, kubernetes, look, work, api, slack, shutdown, clusters } = settings;
    assert_eq!(listen.port(), 9);
    assert_eq!(ledger.url.as_deref(), Some("postgresql://u@db/l"));
    assert_eq!(ledger.password().unwrap().unwrap().expose_secret(), "hunter2");
    assert_eq!((ledger.max_connections, ledger.password_file), (17, None));
    assert_eq!((log.format, log.level.as_str()), (LogFormat::Json, "debug"));
    assert_eq!((apps.dir, apps.rescan.as_secs()), (Some("/srv/apps".into()), 7));
    assert_eq!((apps.max_removals, apps.allow_mass_removal), (3, true));
    assert_eq!((kubernetes.enabled, kubernetes.namespace.as_deref()), (true, Some("ops")));
    assert_eq!((kubernetes.kubeconfig, kubernetes.webhook_tls_dir), (Some("/k".into()), Some("/tls".into())));
    assert_eq!((kubernetes.webhook_listen.port(), kubernetes.webhook_service.as_str()), (1, "hook"));
    assert_eq!(kubernetes.webhook_url.as_deref(), Some("https://here:9443"));
    assert_eq!((look.interval.as_secs(), look.max_per_second), (540, 2.5));
    assert_eq!((work.concurrency, work.lease.as_secs(), work.watch.as_secs()), (2, 5, 2));
    assert_eq!(work.postgresql_dir, Some("/opt/pg".into()));
    assert_eq!((api.body_limit, api.request_timeout.as_secs()), (1 << 20, 11));
    assert_eq!((api.rate_limit, api.rate_burst), (5, 6));
    let slack = slack.settings().unwrap().unwrap();
    assert_eq!((slack.bot_token.expose_secret(), &*slack.api_url), ("xoxb", "http://127.0.0.1:9/"));
    assert_eq!(slack.platform_channel.as_deref(), Some("C0P"));
    assert_eq!((slack.unlisted, slack.team.as_deref()), (pgtenant_api::SlackUnlisted::Tenant, Some("T0TEAM")));
    assert_eq!(shutdown.grace.as_secs(), 3);
    assert_eq!(clusters["default"].allowed_extensions, ["pgcrypto"]);
}

#[test]
fn slack_takes_a_connection_more() {
    let said = |slack: &str, connections: u32| {
        let text =
            format!("ledger.url = \"postgresql://u@db/l\"\nledger.max_connections = {connections}\n{slack}{CLUSTER}");
        load_with(&text, &[], &[]).0.settings().err().map(|error| error.to_string()).unwrap_or_default()
    };
    let slack = "slack.signing_secret = \"s\"\nslack.bot_token = \"t\"\n";
    assert!(said(slack, 5).contains("ledger.max_connections: must be 6 or more with Slack"), "{}", said(slack, 5));
    assert_eq!((said(slack, 6), said("", 5)), (String::new(), String::new()));
}

#[test]
fn the_defaults_need_a_ledger_and_nothing_else() {
    let (loaded, _) = load_with("", &[], &["--ledger-url", "postgresql://u@db/l"]);
    let settings = loaded.settings().unwrap();
    assert_eq!((settings.log.format, settings.shutdown.grace.as_secs()), (LogFormat::Text, 20));
    assert!(settings.clusters.is_empty() && settings.ledger.password().unwrap().is_none());

    let error = load_with("", &[], &[]).0.settings().unwrap_err();
    assert!(error.to_string().starts_with("ledger.url: must be set"), "{error}");
}

fn problems(text: &str, env: &[(&str, &str)], flags: &[&str]) -> Vec<String> {
    let flags = [&["--ledger-url", "postgresql://u@db/l"], flags].concat();
    let (loaded, path) = load_with(text, env, &flags);
    assert_ne!(loaded.settings.is_none(), loaded.problems.is_empty());
    loaded.problems.iter().map(|problem| problem.to_string().replace(&path, "FILE")).collect()
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let text =
        "listen = 1\n[log]\nformat = \"xml\"\nlevl = \"info\"\n[ledger]\nmax_connections = \"5\"\n[nolog]\na = 1\n";
    assert_eq!(
        problems(text, &[("PGTENANT_API__RATE_LIMIT", "many"), ("PGTENANT_LGO__FORMAT", "json")], &["--listen", "x"]),
        [
            "FILE:1: listen: 1 must be an address and a port, as 127.0.0.1:8080 or [::]:8080",
            "FILE:3: log.format: \"xml\" must be text or json",
            "FILE:4: log.levl: is not a setting; [log] has format, level",
            "FILE:6: ledger.max_connections: \"5\" must be a whole number from 5 to 200",
            "FILE:8: nolog.a: is not a setting; there are listen, ledger, log, apps, kubernetes, look, work, api, \
             slack, shutdown, clusters",
            "PGTENANT_API__RATE_LIMIT: api.rate_limit: \"many\" must be a whole number from 1 to 1000000",
            "PGTENANT_LGO__FORMAT: lgo.format: is not a setting; there are listen, ledger, log, apps, kubernetes, look, \
             work, api, slack, shutdown, clusters",
            "--listen: listen: \"x\" must be an address and a port, as 127.0.0.1:8080 or [::]:8080",
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_or_not_there() {
    let found = problems("a = \nb = 1", &[], &[]);
    assert!(found.len() == 1 && found[0].starts_with("FILE:1: is not TOML: "), "{found:?}");
    let loaded = load(&args(&["--config", "/nonexistent/x.toml"]), []);
    assert!(loaded.problems[0].to_string().starts_with("/nonexistent/x.toml: can not be read: No such file"));
    assert_eq!(problems("log = 1", &[], &[]), ["FILE:1: log: must be a table"]);
    assert_eq!(problems("[nolog]", &[], &[]).len(), 1);
    assert_eq!(problems("[log.format]\na = 1", &[], &[]), ["FILE:1: log.format: must be text or json"]);
}

#[test]
fn mistakes_in_clusters_are_named_with_their_place() {
    let wrong = CLUSTER.replace("\"test\"", "\"prod\"");
    assert_eq!(
        problems(&wrong, &[], &[]),
        ["FILE:3: clusters.default.environment: unknown variant `prod`, expected one of `production`, `staging`, \
          `test`, `dev`"]
    );
    let wrong = CLUSTER.replace("allowedExtensions", "allowedExtension");
    let found = problems(&wrong, &[], &[]);
    assert!(found[0].starts_with("FILE:7: clusters.default.allowedExtension: unknown field"), "{found:?}");
    let wrong = CLUSTER.replace("/srv/secrets", "srv/secrets");
    assert_eq!(
        problems(&wrong, &[], &[]),
        ["FILE:6: clusters.default.stores[0].file.directory: srv/secrets is not an absolute path"]
    );
    let found = problems(CLUSTER, &[("PGTENANT_CLUSTERS__DEFAULT__LIMITS__CONNECTIONS", "many")], &[]);
    assert!(
        found[0].starts_with("PGTENANT_CLUSTERS__DEFAULT__LIMITS__CONNECTIONS: clusters.default.limits.connections: ")
    );
    let found = problems("[clusters]\ndefault = 1", &[], &[]);
    assert_eq!(found, ["FILE:2: clusters.default: must be a table, as [clusters.default] in the file"]);
    let found = problems(&CLUSTER.replace("clusters.default", "clusters.\"Not A Name\""), &[], &[]);
    assert!(found[0].contains("is not a DNS label"), "{found:?}");
}

#[test]
fn clusters_come_from_every_layer() {
    let spec = r#"{"topology":{"streaming":{"hosts":["db1"]}},"provisioner":{"username":"p","passwordFile":"/p"},
                   "stores":[{"file":{"directory":"/s"}}]}"#;
    let env = [
        ("PGTENANT_CLUSTERS__EU_WEST", spec),
        ("PGTENANT_CLUSTERS__EU_WEST__ALLOWED_NAMESPACES", "[\"idp-*\"]"),
        ("PGTENANT_CLUSTERS__EU_WEST__LIMITS__DATABASES_PER_NAMESPACE", "7"),
        ("PGTENANT_CLUSTERS__DEFAULT__ENVIRONMENT", "staging"),
    ];
    let flags = ["--ledger-url=postgresql://u@db/l", "--set", "clusters.default.environment=production"];
    let (loaded, path) = load_with(CLUSTER, &env, &flags);
    assert_eq!(
        shown(&loaded, "clusters.default.environment"),
        ("production".into(), "--set clusters.default.environment".into())
    );
    assert_eq!(shown(&loaded, "clusters.default.provisioner.username").1, format!("{path}:5"));
    let settings = loaded.settings().unwrap();
    assert_eq!(settings.clusters["eu-west"].allowed_namespaces, ["idp-*"]);
    assert_eq!(settings.clusters["eu-west"].limits.databases_per_namespace, 7);
    assert_eq!(settings.clusters["default"].environment, pgtenant_model::Environment::Production);
}

#[test]
fn secrets_are_not_shown() {
    let text = "[ledger]\nurl = \"postgresql://u:hunter2@db/l\"\npassword = \"hunter2\"\npassword_file = \"/x\"\n";
    let (mut loaded, _) = load_with(text, &[("PGTENANT_LEDGER__PASSWORD", "hunter2")], &[]);
    check(&mut loaded);
    let all = format!("{:?} {:?} {:?}", loaded.effective(), loaded.problems, loaded.warnings);
    assert!(!all.contains("hunter2"), "{all}");

    let (loaded, _) = load_with("[ledger]\npassword = 12\n", &[], &["--set", "ledger.password=hunter2"]);
    let all: String = loaded.problems.iter().map(|problem| format!("{problem}\n")).collect();
    assert!(all.contains("ledger.password_file") && !all.contains("12 must") && !all.contains("hunter2"), "{all}");

    let (loaded, _) = load_with("[ledger]\nurl = \"postgresql://u@db/l\"\npassword = \"hunter2\"\n", &[], &[]);
    assert!(!format!("{:?}", loaded.settings).contains("hunter2"));
}

#[test]
fn files_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("open"), "secret\n").unwrap();
    std::fs::set_permissions(at("open"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(at("ca"), "no certificate").unwrap();
    let text = CLUSTER.replace("/run/secrets/prov", &at("missing")).replace("/srv/secrets", &at("open"));
    let text = format!(
        "{text}tls = {{ caFile = \"{}\" }}\n[ledger]\nurl = \"postgresql://u@db/l\"\npassword_file = \"{}\"\n",
        at("ca"),
        at("open")
    );
    let (mut loaded, path) = load_with(&text, &[], &[]);
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    check(&mut loaded);
    let lines = |list: &[Problem]| -> Vec<String> {
        list.iter().map(|p| p.to_string().replace(&path, "FILE").replace(&at(""), "")).collect()
    };
    assert_eq!(
        lines(&loaded.problems),
        [
            "FILE:5: clusters.default.provisioner.passwordFile: can not read missing: No such file or directory (os error 2)",
            "FILE:8: clusters.default.tls.caFile: ca has no PEM certificate",
            "FILE:6: clusters.default.stores[0].file.directory: open is not a directory",
        ]
    );
    assert_eq!(
        lines(&loaded.warnings),
        ["FILE:11: ledger.password_file: everyone on this machine can read open; chmod 0600 it"]
    );
}
