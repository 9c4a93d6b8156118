//! PgBouncer as the lab starts it, for a cluster that is bootstrapped as the documents say.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pgtenant_lab::{CertificateAuthority, Cluster, Lab, PgBouncerOptions};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;

use crate::{Cli, Folder, run_script};

/// The login that the documents give it.
const LOGIN: &str = "pgbouncer";

/// A running PgBouncer in front of a cluster.
#[derive(Debug)]
pub struct PgBouncer {
    running: pgtenant_lab::PgBouncer,
    /// Its own password.
    pub password: SecretString,
    /// It goes after what runs there.
    folder: Folder,
}

impl PgBouncer {
    /// Bootstraps the cluster for it, as a superuser with psql, and starts it. `changes` are settings that differ from the documents'.
    pub async fn start(cluster: &Cluster, port: u16, changes: &[(&str, &str)]) -> Self {
        let folder = Folder::new("pgbouncer");
        let superuser = (cluster.superuser(), cluster.superuser_password());
        let own = folder.join("pgbouncer.password");
        bootstrap(cluster.version(), superuser, &cluster.ca_file(), &own, folder.path()).await;
        let password = SecretString::from(fs::read_to_string(own).expect("a password").trim());
        let options = PgBouncerOptions {
            dir: &folder.join("pgbouncer"),
            authority: cluster.authority(),
            server: &cluster.hosts()[0],
            port,
            password: &password,
            changes,
        };
        let running = pgtenant_lab::PgBouncer::start(options).await;
        let running = running.unwrap_or_else(|error| panic!("{error}; run `.ci/pgbouncer`"));
        Self { running, password, folder }
    }

    /// Makes what the PgBouncer of a lab asks, in the same way.
    pub async fn prepare(lab: &Lab) {
        let folder = Folder::new("pgbouncer");
        let primary = lab.primary().await.expect("a primary");
        let (_, port) = lab.nodes().into_iter().find(|(name, _)| *name == primary).expect("its port");
        let own = lab.dir().join("pgbouncer.password");
        let version = lab.status().await.version;
        bootstrap(&version, (lab.login(port), lab.password()), &lab.ca_file(), &own, folder.path()).await;
    }

    /// Gives it another certificate, from another authority.
    pub fn change_certificate(&self) {
        let other = self.folder.join("other");
        let authority = CertificateAuthority::open_or_create(&other).expect("an authority");
        let issued = authority.issue_for_loopback().expect("a certificate");
        let write = |name: &str, text: &str| {
            fs::write(other.join(name), text).expect("a file");
            // The account that it runs as is another one, and nobody else comes through the folder above.
            fs::set_permissions(other.join(name), fs::Permissions::from_mode(0o644)).expect("a mode");
            other.join(name).display().to_string()
        };
        let (certificate, key) =
            (write("server.crt", &issued.certificate), write("server.key", issued.key.expose_secret()));
        self.change(("client_tls_cert_file", &certificate));
        self.change(("client_tls_key_file", &key));
    }

    /// Ends it.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// Changes one of its settings, and has them read, as `systemctl reload` does.
    pub fn change(&self, (name, value): (&str, &str)) {
        self.running.change(name, value).expect("a setting");
    }
}

/// Has the script printed and runs it, twice. `own` has PgBouncer's password, or gets one.
async fn bootstrap(
    version: &str,
    (superuser, password): (PgConnectOptions, &SecretString),
    ca: &Path,
    own: &Path,
    folder: &Path,
) {
    let file = |name: &str| folder.join(name).display().to_string();
    let major = version.split('.').next().expect("a version");
    let (provisioner, own) = (file("prov_a.password"), own.display().to_string());
    let args = ["cluster", "bootstrap", "--postgres-version", major, "--login", "prov_a", "--password-file"];
    let further = [provisioner.as_str(), "--pgbouncer-login", LOGIN, "--pgbouncer-password-file", &own];
    for _ in 0..2 {
        let script = Cli::new().run(&[&args[..], &further].concat()).await.expect(0).stdout;
        fs::write(file("bootstrap.sql"), script).expect("a script");
        run_script(&superuser, password, ca, &folder.join("bootstrap.sql"));
    }
}
