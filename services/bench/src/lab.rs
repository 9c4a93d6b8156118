//! Servers of this run: a ledger, a primary and its standby with fsync, a provisioner, a token, settings for `serve`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use pgtenant_lab::{Binaries, Cluster, ClusterOptions, free_port};
use pgtenant_ledger::{Ledger, NewToken, TokenRole, create_token};
use pgtenant_model::{
    Approval, AwsSecretsManagerStore, BackupSpec, ClusterSpec, DumpPlace, DumpSpec, Environment, FileStore,
    FolderPlace, HostPort, KubernetesStore, Limits, Provisioner, RestoreRules, Span, SslMode, StoreSpec,
    StreamingTopology, TlsSpec, Topology,
};
use pgtenant_postgres::{Bootstrap, GROUP, Server, ServerOptions, Timeouts, Verifier, bootstrap};
use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tempfile::TempDir;

use crate::connect::{Dial, Login};
use crate::error::{BenchError, Result};

const PROVISIONER: &str = "prov_a";
const LEDGER: &str = "pgtenant";
/// The cluster of claims that name none.
pub(crate) const DEFAULT: &str = "default";

/// Running servers, and how to reach them.
pub(crate) struct Lab {
    root: PathBuf,
    cluster: Cluster,
    ledger_server: Cluster,
    pub(crate) primary: Dial,
    pub(crate) standby: Dial,
    pub(crate) ledger: Dial,
    pub(crate) superuser: Login,
    pub(crate) ledger_superuser: Login,
    pub(crate) provisioner: Login,
    pub(crate) token: SecretString,
    /// What `serve` listens on.
    pub(crate) port: u16,
    /// What `serve` finds in its environment.
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// What the control plane is told of.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) kubernetes: Option<KubernetesSection>,
    /// Where Secrets Manager is.
    pub(crate) secrets_manager: Option<String>,
    /// Whether dumps of their databases are kept.
    pub(crate) dumps: bool,
    /// By name, with their stores. All of them are on the same servers.
    pub(crate) clusters: Vec<(&'static str, Vec<Store>)>,
}

/// Where credentials go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Files,
    Kubernetes,
    SecretsManager,
}

impl Described {
    /// A cluster whose credentials go into files.
    pub(crate) fn files() -> Self {
        Self { kubernetes: None, secrets_manager: None, dumps: false, clusters: vec![(DEFAULT, vec![Store::Files])] }
    }

    /// A cluster whose credentials go into Secrets of Kubernetes.
    pub(crate) fn kubernetes(section: KubernetesSection) -> Self {
        let clusters = vec![(DEFAULT, vec![Store::Kubernetes])];
        Self { kubernetes: Some(section), clusters, ..Self::files() }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(url) = &self.secrets_manager else { return Vec::new() };
        let key = |name| (name, "bench".to_owned());
        vec![("AWS_ENDPOINT_URL_SECRETS_MANAGER", url.clone()), key("AWS_ACCESS_KEY_ID"), key("AWS_SECRET_ACCESS_KEY")]
    }
}

/// The file for `--config`.
#[derive(Serialize)]
struct SettingsFile {
    listen: String,
    ledger: LedgerSection,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<KubernetesSection>,
    clusters: BTreeMap<&'static str, ClusterSpec>,
}

#[derive(Serialize)]
struct LedgerSection {
    url: String,
    password_file: PathBuf,
}

/// How the control plane takes part in Kubernetes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct KubernetesSection {
    pub(crate) enabled: bool,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) namespace: String,
    pub(crate) webhook_listen: String,
    pub(crate) webhook_url: String,
}

/// A folder for one run, which all may pass: the servers run as another user when root starts them.
pub(crate) fn folder(place: &Path) -> Result<TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("pgtenant-bench-")
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir_in(place)
        .map_err(BenchError::io("make a folder in", place))?;
    Ok(dir)
}

impl Lab {
    pub(crate) async fn start(
        root: &Path,
        described: Described,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<Self> {
        let binaries = Binaries::locate(None)?;
        progress(&format!("PostgreSQL {} from {}", binaries.version(), binaries.dir().display()));
        let options = ClusterOptions {
            standby: false,
            extra_conf: vec![("max_connections".into(), "50".into())],
            ..ClusterOptions::new(root.join("ledger"), binaries.clone())
        };
        let mut ledger_server = Cluster::open_or_create(options, &mut progress).await?;
        let options = ClusterOptions {
            extra_conf: vec![("max_connections".into(), "300".into())],
            ..ClusterOptions::new(root.join("cluster"), binaries)
        };
        let mut cluster = Cluster::open_or_create(options, &mut progress).await?;
        let primary = Dial::new(cluster.primary().port(), &cluster.ca_file())?;
        let standby_port = cluster.standby().map_or(0, |node| node.port());
        let standby = Dial::new(standby_port, &cluster.ca_file())?;
        let ledger = Dial::new(ledger_server.primary().port(), &ledger_server.ca_file())?;
        let (superuser, ledger_superuser) = (superuser(&cluster), superuser(&ledger_server));
        let provisioner = make_provisioner(root, &mut cluster).await?;
        let token = make_ledger(root, &ledger_server, &ledger, &ledger_superuser).await?;
        let port = free_port();
        let lab = Self {
            root: root.to_owned(),
            cluster,
            ledger_server,
            primary,
            standby,
            ledger,
            superuser,
            ledger_superuser,
            provisioner,
            token,
            port,
            environment: described.environment(),
        };
        lab.write_settings(described)?;
        Ok(lab)
    }

    pub(crate) fn settings_file(&self) -> PathBuf {
        self.root.join("pgtenant.toml")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.root.join("pgtenant.log")
    }

    /// Process ids of the postmasters: primary, standby, ledger.
    pub(crate) fn postmasters(&mut self) -> [Option<u32>; 3] {
        let primary = self.cluster.primary().pid();
        let standby = self.cluster.standby().and_then(|node| node.pid());
        [primary, standby, self.ledger_server.primary().pid()]
    }

    /// The stored credential of a role.
    pub(crate) fn credential(&self, namespace: &str, role: &str) -> Result<Login> {
        let path = self.secrets().join(format!("customer/{namespace}/{role}.json"));
        let text = fs::read_to_string(&path).map_err(BenchError::io("read", &path))?;
        let json: serde_json::Value = serde_json::from_str(&text).map_err(BenchError::text("read a credential"))?;
        let text = |key: &str| json.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        Ok(Login { user: text("username"), password: text("password").into() })
    }

    /// Stops the servers. Their files go with the folder of the run.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.cluster.stop().await?;
        Ok(self.ledger_server.stop().await?)
    }

    fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    fn write_settings(&self, described: Described) -> Result<()> {
        let directory = self.secrets();
        fs::create_dir_all(&directory).map_err(BenchError::io("make", &directory))?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&directory, private).map_err(BenchError::io("close", &directory))?;
        let backups = described.dumps.then(|| self.dumps()).transpose()?;
        let spec = |stores: &[Store]| ClusterSpec { backups: backups.clone(), ..self.spec(stores) };
        let clusters = described.clusters.iter().map(|(name, stores)| (*name, spec(stores))).collect();
        let settings = SettingsFile {
            listen: format!("127.0.0.1:{}", self.port),
            ledger: LedgerSection {
                url: format!(
                    "postgresql://{LEDGER}@localhost:{}/{LEDGER}?sslmode=verify-full&sslrootcert={}",
                    self.ledger.port(),
                    self.ledger_server.ca_file().display(),
                ),
                password_file: self.root.join("ledger.password"),
            },
            kubernetes: described.kubernetes,
            clusters,
        };
        let text = toml::to_string(&settings).map_err(BenchError::text("write the settings"))?;
        let path = self.settings_file();
        fs::write(&path, text).map_err(BenchError::io("write", path))
    }

    /// Dumps in a folder, which nobody tries, and restores that nobody has to approve.
    fn dumps(&self) -> Result<BackupSpec> {
        let (identity, recipient) = pgtenant_snapshots::generate_identity();
        let file = write_secret(&self.root, "backup.key", identity.expose_secret())?;
        let to = DumpPlace::Folder(FolderPlace { directory: self.root.join("dumps") });
        let dumps = DumpSpec { try_every: Span::from_secs(0), ..DumpSpec::new(to, vec![recipient], Some(file)) };
        Ok(BackupSpec { dumps: Some(dumps), ..BackupSpec::default() })
    }

    fn spec(&self, stores: &[Store]) -> ClusterSpec {
        let hosts = self.cluster.hosts().iter().filter_map(|host| HostPort::from_str(host).ok()).collect();
        let provisioner = Provisioner::from_file(PROVISIONER, self.root.join("provisioner.password"));
        let topology = Topology::Streaming(StreamingTopology { hosts });
        let tls = TlsSpec { ca_file: Some(self.cluster.ca_file()), ..TlsSpec::default() };
        let stores = stores.iter().map(|store| match store {
            Store::Files => {
                let name = "customer/{namespace}/{role}".to_owned();
                StoreSpec::File(FileStore { directory: self.secrets(), name })
            }
            Store::Kubernetes => StoreSpec::Kubernetes(KubernetesStore {}),
            Store::SecretsManager => {
                let region = Some("eu-west-1".to_owned());
                StoreSpec::AwsSecretsManager(AwsSecretsManagerStore { region, ..AwsSecretsManagerStore::default() })
            }
        });
        ClusterSpec {
            environment: Environment::Test,
            restores: RestoreRules { approval: Some(Approval::Nobody), ..RestoreRules::default() },
            limits: Limits { databases_per_namespace: 1000, ..Limits::default() },
            ..ClusterSpec::new(topology, provisioner, tls, stores.collect())
        }
    }
}

fn superuser(cluster: &Cluster) -> Login {
    Login { user: cluster.superuser().get_username().to_owned(), password: cluster.superuser_password().clone() }
}

/// A fresh password, also in a file that only this user may read.
fn secret(root: &Path, name: &str) -> Result<SecretString> {
    let password = Alphanumeric.sample_string(&mut rand::rng(), 40);
    write_secret(root, name, &password)?;
    Ok(password.into())
}

fn write_secret(root: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = root.join(name);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(BenchError::io("write", &path))?;
    Ok(path)
}

/// What a superuser does once when a cluster is attached.
async fn make_provisioner(root: &Path, cluster: &mut Cluster) -> Result<Login> {
    let password = secret(root, "provisioner.password")?;
    let Login { user, password: superusers } = superuser(cluster);
    let server = Server::new(ServerOptions {
        host: "localhost".to_owned(),
        port: cluster.primary().port(),
        sslmode: SslMode::VerifyFull,
        ca: Some(fs::read_to_string(cluster.ca_file()).map_err(BenchError::io("read", &cluster.ca_file()))?),
        username: user,
        password: superusers,
        maintenance_database: "postgres".to_owned(),
        application_name: "bench".to_owned(),
        timeouts: Timeouts::default(),
    })?;
    let what = Bootstrap {
        group: GROUP.to_owned(),
        logins: vec![(PROVISIONER.to_owned(), Verifier::of(&password))],
        close_to_public: true,
        pgbouncer: None,
        logical_replication: false,
    };
    bootstrap(&server, &what).await?;
    Ok(Login { user: PROVISIONER.to_owned(), password })
}

async fn make_ledger(root: &Path, server: &Cluster, dial: &Dial, superuser: &Login) -> Result<SecretString> {
    let password = secret(root, "ledger.password")?;
    let db = dial.connect(superuser, "postgres").await?;
    let verifier = postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes());
    db.batch(&format!("CREATE ROLE {LEDGER} LOGIN PASSWORD '{verifier}'")).await?;
    db.batch(&format!("CREATE DATABASE {LEDGER} OWNER {LEDGER}")).await?;
    db.close().await;
    let options = server.superuser().username(LEDGER).password(password.expose_secret()).database(LEDGER);
    let ledger = Ledger::new(options, 1);
    ledger.migrate().await?;
    let mut tx = ledger.begin().await?;
    let new =
        NewToken { name: "bench".to_owned(), role: TokenRole::Platform, namespaces: Vec::new(), expires_at: None };
    let (_, token) = create_token(&mut tx, new).await?;
    tx.commit().await.map_err(BenchError::text("make a token"))?;
    ledger.close().await;
    Ok(token)
}
