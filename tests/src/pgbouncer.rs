//! PgBouncer, with the settings that the documents give.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use pgtenant_lab::Cluster;
use secrecy::ExposeSecret as _;

use crate::{Cli, Folder, Running, listens, repository, soon};

/// The login that the documents give it.
const LOGIN: &str = "pgbouncer";
/// It refuses to run as root.
const ACCOUNT: &str = "postgres";

/// A running PgBouncer in front of a cluster.
#[derive(Debug)]
pub struct PgBouncer {
    /// Ended before its folder goes.
    pub running: Running,
    /// Its own password.
    pub password: String,
    folder: Folder,
}

impl PgBouncer {
    /// Bootstraps the cluster for it, as a superuser with psql, and starts it. `changes` are settings that differ from the documents'.
    pub async fn start(cluster: &Cluster, port: u16, changes: &[(&str, &str)]) -> Self {
        let folder = Folder::new("pgbouncer");
        let password = bootstrap(cluster, folder.path()).await;
        let address = &cluster.hosts()[0];
        let (host, server) = address.split_once(':').expect("host:port");
        let text = documented()
            .replace("host=db.example port=5432", &format!("host={host} port={server}"))
            .replace("listen_addr = *", "listen_addr = localhost")
            .replace("listen_port = 6432", &format!("listen_port = {port}"))
            .replace("/etc/pgbouncer/", &format!("{}/", folder.path().display()));
        let settings = changes.iter().fold(text, |text, change| changed(&text, change));
        let issued = cluster.authority().issue_for_loopback().expect("a certificate");
        for (name, text) in [
            ("pgbouncer.ini", settings.as_str()),
            ("userlist.txt", &format!("\"{LOGIN}\" \"{password}\"\n")),
            ("server.crt", &issued.certificate),
            ("server.key", issued.key.expose_secret()),
            ("ca.crt", cluster.authority().certificate()),
        ] {
            fs::write(folder.join(name), text).expect("a file");
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).expect("a mode");
            if let Some(user) = account() {
                chown(folder.join(name), Some(user), None).expect("a file for PgBouncer");
            }
        }
        let mut command = Command::new(program());
        if account().is_some() {
            command.args(["--user", ACCOUNT]);
        }
        command.arg(folder.join("pgbouncer.ini"));
        let running = Running::spawn(&command, folder.path(), "pgbouncer");
        soon("PgBouncer listens", || async { if listens(port) { Ok(()) } else { Err(running.said()) } }).await;
        Self { running, password, folder }
    }

    /// Changes one of its settings, and has them read, as `systemctl reload` does.
    pub fn change(&self, change: (&str, &str)) {
        let file = self.folder.join("pgbouncer.ini");
        let text = fs::read_to_string(&file).expect("settings");
        fs::write(&file, changed(&text, &change)).expect("settings");
        self.running.signal(rustix::process::Signal::HUP);
    }
}

/// The settings in the documents.
fn documented() -> String {
    let text = fs::read_to_string(repository().join("docs/pgbouncer.md")).expect("the document");
    let after = text.split_once("<!-- file: /etc/pgbouncer/pgbouncer.ini -->\n```ini\n").expect("its settings").1;
    after.split_once("```").expect("their end").0.to_owned()
}

/// The text with another value for a setting that it has.
fn changed(text: &str, (name, value): &(&str, &str)) -> String {
    let is_it = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| key == *name);
    assert_eq!(text.lines().filter(is_it).count(), 1, "{name} in\n{text}");
    text.lines().map(|line| if is_it(&line) { format!("{name} = {value}\n") } else { format!("{line}\n") }).collect()
}

/// Has the script printed, runs it twice, and returns PgBouncer's password.
async fn bootstrap(cluster: &Cluster, folder: &Path) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    let major = cluster.version().split('.').next().expect("a version").to_owned();
    let (provisioner, own) = (file("prov_a.password"), file("pgbouncer.password"));
    let args = ["cluster", "bootstrap", "--postgres-version", &major, "--login", "prov_a", "--password-file"];
    let further = [provisioner.as_str(), "--pgbouncer-login", LOGIN, "--pgbouncer-password-file", &own];
    for _ in 0..2 {
        let script = Cli::new().run(&[&args[..], &further].concat()).await.expect(0).stdout;
        fs::write(file("bootstrap.sql"), script).expect("a script");
        let superuser = cluster.superuser();
        let place = format!(
            "host={} port={} user={} dbname=postgres sslmode=verify-full sslrootcert={}",
            superuser.get_host(),
            superuser.get_port(),
            superuser.get_username(),
            cluster.ca_file().display()
        );
        let mut psql = Command::new("psql");
        psql.env("PGPASSWORD", cluster.superuser_password().expose_secret());
        psql.args([&place, "--no-psqlrc", "--file", &file("bootstrap.sql")]);
        let done = psql.output().expect("psql");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    fs::read_to_string(own).expect("a password").trim().to_owned()
}

/// The first that is new enough to have `auth_dbname`, of the distribution's and of what `.ci/pgbouncer` has built.
fn program() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let built = cache.or_else(home).unwrap_or_default().join("pgtenant/pgbouncer/pgbouncer");
    let new_enough = |program: &PathBuf| {
        let said = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let minor: u32 = text.strip_prefix("PgBouncer 1.")?.split('.').next()?.parse().ok()?;
        (minor >= 21).then_some(())
    };
    let all = ["pgbouncer".into(), "/usr/sbin/pgbouncer".into(), built];
    let found = all.into_iter().find(|program| new_enough(program).is_some());
    found.expect("no PgBouncer 1.21 or newer; run `.ci/pgbouncer`")
}

/// Whom it runs as, where that is not whoever runs the tests.
fn account() -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let said = Command::new("id").args(["-u", ACCOUNT]).output().expect("id");
    Some(String::from_utf8_lossy(&said.stdout).trim().parse().expect("the servers' user"))
}
