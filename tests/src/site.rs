//! A control plane beside clusters that are there already: settings, ledger, stores.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgtenant_testkit::{Cluster, free_port, unique};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnectOptions;

use crate::{Cli, Folder, Serve, rows, superuser_sql};

/// Where a PostgreSQL cluster is.
#[derive(Debug, Clone)]
pub struct Place {
    /// `host:port` of every member.
    pub hosts: Vec<String>,
    /// The root certificate.
    pub ca: PathBuf,
    /// A superuser, on the primary.
    pub superuser: PgConnectOptions,
}

impl Place {
    /// The server that all tests of this process share.
    pub async fn shared() -> Self {
        let server = pgtenant_testkit::cluster().await;
        let hosts = vec![format!("localhost:{}", server.port())];
        Self { hosts, ca: server.ca_file(), superuser: server.superuser().options }
    }

    /// A cluster of one's own.
    pub fn of(cluster: &Cluster) -> Self {
        Self { hosts: cluster.hosts(), ca: cluster.ca_file(), superuser: cluster.superuser() }
    }

    /// Hosts that nothing is known of but their addresses, with the certificate and superuser of another place.
    #[must_use]
    pub fn with_hosts(&self, hosts: &[String]) -> Self {
        Self { hosts: hosts.to_vec(), ..self.clone() }
    }
}

/// What a site is made of.
#[derive(Debug)]
pub struct SiteOptions {
    /// Where the ledger's database is made.
    pub ledger: Place,
    /// The shared clusters; the first one is `default`.
    pub clusters: Vec<(String, Place)>,
    /// Clusters on which no provisioner is made, since they can not be reached.
    pub without_provisioner: Vec<String>,
    /// `log.level`.
    pub level: String,
    /// `look.interval`; every claim is looked at as often, without a limit a second.
    pub look: String,
    /// `work.lease`: how long a claim waits whose replica was killed.
    pub lease: String,
    /// Claims that a namespace may have.
    pub quota: u32,
    /// Further lines of the settings file, before its tables.
    pub further: String,
    /// `work.postgresql_dir`: `pg_dump` and `pg_restore` of another version than this machine has.
    pub tools: Option<PathBuf>,
    /// Further lines of every cluster.
    pub cluster: String,
    /// Clusters with other stores than the site's: TOML of their list, in which `DIR` is the file store's folder.
    pub stores: Vec<(String, String)>,
    /// Dumps of every cluster, in the site's folder `backups`, encrypted to the key in `backup.key`.
    pub backups: bool,
    /// The control plane's access to Kubernetes: its kubeconfig and its own namespace. Credentials go into Secrets then.
    pub kubernetes: Option<(PathBuf, String)>,
}

impl SiteOptions {
    /// One cluster, the shared server, which has the ledger too; looks each second.
    pub async fn shared() -> Self {
        Self::on(Place::shared().await).await
    }

    /// One cluster, with the ledger on the shared server.
    pub async fn on(cluster: Place) -> Self {
        Self {
            ledger: Place::shared().await,
            clusters: vec![("default".to_owned(), cluster)],
            without_provisioner: Vec::new(),
            level: "info,pgtenant=debug,pgtenant_engine=debug".to_owned(),
            look: "1s".to_owned(),
            lease: "15s".to_owned(),
            quota: 1000,
            further: String::new(),
            tools: None,
            cluster: String::new(),
            stores: Vec::new(),
            backups: false,
            kubernetes: None,
        }
    }
}

/// A control plane's settings and what they name. Replicas are started with [`Site::serve`].
#[derive(Debug)]
pub struct Site {
    folder: Folder,
    /// The settings file.
    pub config: PathBuf,
    /// The file store.
    pub secrets: PathBuf,
    /// A platform token.
    pub token: String,
    /// A superuser, in the ledger's database.
    pub ledger: PgConnectOptions,
    /// A superuser of the first cluster.
    pub superuser: PgConnectOptions,
    /// Password of the provisioner, the same on every cluster.
    pub provisioner_password: String,
    /// Password of the ledger's user.
    pub ledger_password: String,
    /// The provisioner's login.
    pub provisioner: String,
    kubernetes: bool,
}

impl Site {
    /// Makes the ledger's database, the provisioner and the settings, and brings the ledger up to date.
    pub async fn new(options: SiteOptions) -> Self {
        let folder = Folder::new("site");
        let name = unique("site");
        let (provisioner, provisioner_password) = (unique("provisioner"), unique("prov-secret"));
        let (ledger_user, ledger_password) = (unique("ledger"), unique("ledger-secret"));
        let sql = format!("create role \"{ledger_user}\" login password '{}'", verifier(&ledger_password));
        superuser_sql(&options.ledger.superuser, None, &sql).await;
        let sql = format!("create database \"{name}\" owner \"{ledger_user}\" template template0");
        superuser_sql(&options.ledger.superuser, None, &sql).await;
        for (cluster, place) in &options.clusters {
            if !options.without_provisioner.contains(cluster) {
                let secret = verifier(&provisioner_password);
                let sql = format!("create role \"{provisioner}\" login createdb createrole password '{secret}'");
                superuser_sql(&place.superuser, None, &sql).await;
            }
        }
        secret(&folder.join("provisioner.password"), &provisioner_password);
        secret(&folder.join("ledger.password"), &ledger_password);
        if options.backups {
            secret(&folder.join("backup.key"), IDENTITY);
        }
        let config = folder.join("pgtenant.toml");
        fs::write(&config, settings(&options, &folder, (&ledger_user, &name), &provisioner)).expect("settings");
        let site = Self {
            config,
            secrets: folder.join("secrets"),
            token: format!("pgt_{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()),
            ledger: options.ledger.superuser.clone().database(&name),
            superuser: options.clusters[0].1.superuser.clone(),
            provisioner,
            provisioner_password,
            ledger_password,
            kubernetes: options.kubernetes.is_some(),
            folder,
        };
        site.cli().run(&["migrate", "--config", &site.config.to_string_lossy()]).await.expect(0);
        site.add_token("tests", "platform", &[], &site.token).await;
        site
    }

    /// The folder of settings, logs and stores.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The command line, without a control plane.
    pub fn cli(&self) -> Cli {
        Cli::new()
    }

    /// The command that starts a replica on any port.
    pub fn command(&self, env: &[(&str, &str)]) -> Command {
        let mut cli = self.cli();
        if self.kubernetes {
            // The leader tells the API server where its own webhooks are.
            let address = format!("127.0.0.1:{}", free_port());
            cli = cli.env("PGTENANT_KUBERNETES__WEBHOOK_URL", format!("https://{address}"));
            cli = cli.env("PGTENANT_KUBERNETES__WEBHOOK_LISTEN", address);
        }
        let cli = env.iter().fold(cli, |cli, (name, value)| cli.env(name, value));
        cli.command(&["serve", "--listen", "127.0.0.1:0", "--config", &self.config.to_string_lossy()])
    }

    /// Starts a replica.
    pub async fn serve(&self, name: &str) -> Serve {
        self.serve_with(name, &[]).await
    }

    /// Starts a replica with further variables.
    pub async fn serve_with(&self, name: &str, env: &[(&str, &str)]) -> Serve {
        Serve::start(&self.command(env), self.path(), name, &self.token).await
    }

    /// Puts a token into the ledger, as an administrator of the ledger can.
    pub async fn add_token(&self, name: &str, role: &str, namespaces: &[&str], secret: &str) {
        let mut hash = String::new();
        for byte in Sha256::digest(secret.as_bytes()) {
            write!(hash, "{byte:02x}").expect("text");
        }
        let namespaces = namespaces.join(",");
        let sql = format!(
            "insert into tokens (id, name, hash, role, namespaces)
             values (gen_random_uuid(), '{name}', '\\x{hash}', '{role}', '{{{namespaces}}}')"
        );
        superuser_sql(&self.ledger, None, &sql).await;
    }

    /// All events of a claim, the oldest first, as the ledger has them.
    pub async fn events(&self, namespace: &str, name: &str) -> Vec<Value> {
        let sql = format!(
            "select json_build_object('type', kind, 'message', message, 'detail', detail)::text from events
             where namespace = '{namespace}' and name = '{name}' order by id"
        );
        let rows = self.ledger_rows(&sql).await;
        rows.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect()
    }

    /// The first column of a query to the ledger.
    pub async fn ledger_rows(&self, sql: &str) -> Vec<String> {
        rows(&self.ledger, None, sql).await
    }
}

/// A key of age that is good for tests alone, and its public key.
const IDENTITY: &str = "AGE-SECRET-KEY-1P3489A5EJTN052F3VK3DEGSHX9WX2S7HYHVGENL03XVJ3DTLGAVQ6YKYMC\n";
const RECIPIENT: &str = "age1vnh7p0dxxrks8v685033d4n84uhnsw25lf3qdzxxtsdkkekm5f9sjdr7jx";

/// What a careful administrator sends in place of a password.
fn verifier(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

fn settings(options: &SiteOptions, folder: &Folder, ledger: (&str, &str), provisioner: &str) -> String {
    let (user, database) = ledger;
    let file = |name: &str| folder.join(name).display().to_string();
    let (host, ca) = (options.ledger.hosts.join(","), options.ledger.ca.display());
    let mut text = format!(
        "{further}
[ledger]
url = \"postgresql://{user}@{host}/{database}?sslmode=verify-full&sslrootcert={ca}\"
password_file = {password:?}
max_connections = 16

[log]
format = \"json\"
level = {level:?}

[look]
interval = {look:?}
max_per_second = 1000

[work]
lease = {lease:?}
{tools}
",
        tools = options.tools.iter().map(|dir| format!("postgresql_dir = {dir:?}")).collect::<String>(),
        further = options.further,
        password = file("ledger.password"),
        level = options.level,
        look = options.look,
        lease = options.lease,
    );
    if let Some((kubeconfig, namespace)) = &options.kubernetes {
        write!(text, "\n[kubernetes]\nenabled = true\nkubeconfig = {kubeconfig:?}\nnamespace = {namespace:?}\n")
            .expect("text");
    }
    let store = match &options.kubernetes {
        Some(_) => "kubernetes = {}".to_owned(),
        None => format!("file = {{ directory = {:?} }}", file("secrets")),
    };
    let backups = format!(
        "backups.dumps = {{ to = {{ folder = {{ directory = {:?} }} }}, recipients = [{RECIPIENT:?}], identityFile = {:?} }}",
        file("backups"),
        file("backup.key"),
    );
    let backups = if options.backups { backups } else { String::new() };
    for (name, place) in &options.clusters {
        let own = options.stores.iter().find(|(cluster, _)| cluster == name);
        let stores = own.map_or_else(|| format!("[{{ {store} }}]"), |(_, list)| list.replace("DIR", &file("secrets")));
        write!(
            text,
            "
[clusters.{name}]
topology = {{ streaming = {{ hosts = {hosts:?} }} }}
provisioner = {{ username = {provisioner:?}, passwordFile = {password:?} }}
tls = {{ caFile = {ca:?} }}
stores = {stores}
allowedExtensions = [\"pgcrypto\", \"pg_trgm\"]
limits = {{ databasesPerNamespace = {quota} }}
{backups}
{further}
",
            hosts = place.hosts,
            password = file("provisioner.password"),
            ca = place.ca,
            quota = options.quota,
            further = options.cluster,
        )
        .expect("text");
    }
    text
}
