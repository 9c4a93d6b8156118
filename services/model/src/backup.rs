//! What is kept of a cluster's databases, as the platform team describes it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{BackupWindow, InvalidField, Span};

/// What is kept of a cluster's databases, so that one of them can be had back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupSpec {
    /// When dumps are made, each day at a moment of it that is the database's own: `02:00-04:00 Europe/Copenhagen`; default:
    /// 02:00 to 04:00 in UTC.
    #[serde(default)]
    #[schema(value_type = String, example = "02:00-04:00 Europe/Copenhagen")]
    pub schedule: BackupWindow,
    /// How long; default: 35 days in production and staging, 7 in test and dev. The newest good one of a database is always kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub keep: Option<Span>,
    /// Dumps of each database, encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumps: Option<DumpSpec>,
    /// With topology `aurora`: snapshots of the whole cluster, which RDS makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rds: Option<RdsBackupSpec>,
    /// Backups of the whole cluster in a pgBackRest repository, which the cluster's own hosts make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgbackrest: Option<PgBackRestSpec>,
}

/// A pgBackRest repository, and how a server is made of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PgBackRestSpec {
    /// The stanza.
    pub stanza: String,
    /// pgBackRest's configuration on the control plane's machine; default: the one that pgBackRest takes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub config_file: Option<PathBuf>,
    /// The repository's path, where no configuration names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub repository: Option<PathBuf>,
    /// An absolute path of a folder on the control plane's machine, in which a server is made for each restore: it needs as much room
    /// as the cluster. Where the control plane runs as root, the servers run as its owner.
    #[schema(value_type = String)]
    pub scratch: PathBuf,
    /// The program.
    #[serde(default = "pgbackrest_command")]
    #[schema(value_type = String)]
    pub command: PathBuf,
    /// The folder of PostgreSQL's programs; `{major}` in it stands for the version.
    #[serde(default = "postgres_binaries")]
    #[schema(value_type = String)]
    pub binaries: PathBuf,
    /// A superuser of the cluster.
    #[serde(default = "postgres_superuser")]
    pub superuser: String,
    /// One database of the newest backup is restored for a test as often, another one each time. `0s`: only when somebody asks.
    #[serde(default = "try_every")]
    #[schema(value_type = String)]
    pub try_every: Span,
}

fn pgbackrest_command() -> PathBuf {
    PathBuf::from("pgbackrest")
}

fn postgres_binaries() -> PathBuf {
    PathBuf::from("/usr/lib/postgresql/{major}/bin")
}

fn postgres_superuser() -> String {
    "postgres".to_owned()
}

/// Snapshots of a whole Aurora cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RdsBackupSpec {
    /// One is asked for when the newest is older than a day; it goes when it was kept as long as dumps are.
    #[serde(default)]
    pub ensure: bool,
    /// One database of the newest is restored for a test as often, another one each time; each test makes a copy of the cluster, which
    /// costs money while it is there. `0s`: only when somebody asks.
    #[serde(default = "try_every")]
    #[schema(value_type = String)]
    pub try_every: Span,
}

impl Default for RdsBackupSpec {
    fn default() -> Self {
        Self { ensure: false, try_every: try_every() }
    }
}

/// Dumps of each database: compressed with zstd, encrypted with age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DumpSpec {
    /// Where they are kept.
    pub to: DumpPlace,
    /// Public keys of age, `age1…`: whoever holds the private key of one of them can read the dumps.
    #[schemars(length(min = 1, max = 16))]
    pub recipients: Vec<String>,
    /// A file with a private key of age; none: this control plane can make dumps and restore none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub identity_file: Option<PathBuf>,
    /// A dump of each database is restored for a try as often, as `7d`. `0s`: only when somebody asks.
    #[serde(default = "try_every")]
    #[schema(value_type = String)]
    pub try_every: Span,
    /// A database that has no dump gets one at once, and does not wait for the schedule.
    #[serde(default)]
    pub first_at_once: bool,
}

fn try_every() -> Span {
    Span::from_secs(7 * 86_400)
}

impl DumpSpec {
    /// With all that has a default left at it.
    #[must_use]
    pub fn new(to: DumpPlace, recipients: Vec<String>, identity_file: Option<PathBuf>) -> Self {
        Self { to, recipients, identity_file, try_every: try_every(), first_at_once: false }
    }
}

/// Where dumps are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DumpPlace {
    /// Below a folder.
    Folder(FolderPlace),
    /// In an S3 bucket, or one of a store that speaks its protocol.
    S3(S3Place),
    /// On a WebDAV server, as Nextcloud is one.
    WebDav(WebDavPlace),
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FolderPlace {
    /// An absolute path on the control plane's machine.
    #[schema(value_type = String)]
    pub directory: PathBuf,
}

/// A bucket. Who pgtenant is there, the SDK's default chain says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Place {
    /// The bucket.
    pub bucket: String,
    /// What all names in it begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The region; default: the one of the environment or the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The URL of a store other than Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// A collection of a WebDAV server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebDavPlace {
    /// The collection's URL: `https://cloud.example/remote.php/dav/files/pgtenant/backups`.
    pub url: String,
    /// Who logs in.
    pub username: String,
    /// A file whose first line is the password, or an app password.
    #[schema(value_type = String)]
    pub password_file: PathBuf,
}

impl BackupSpec {
    /// How often a backup of the whole cluster is restored for a test; none: only when somebody asks.
    #[must_use]
    pub fn try_cluster_every(&self) -> Option<Duration> {
        let rds = self.rds.as_ref().map(|rds| rds.try_every);
        let every = self.pgbackrest.as_ref().map(|pgbackrest| pgbackrest.try_every).or(rds)?;
        Some(every.duration()).filter(|every| !every.is_zero())
    }

    pub(crate) fn problems(&self) -> Vec<InvalidField> {
        let mut problems = Vec::new();
        let mut say = |field: &str, message: &str| problems.push(InvalidField::new(field, message));
        let Self { schedule: _, keep: _, dumps, rds: _, pgbackrest } = self;
        if let Some(PgBackRestSpec {
            stanza,
            config_file,
            repository,
            scratch,
            command: _,
            binaries: _,
            superuser: _,
            try_every: _,
        }) = pgbackrest
        {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if stanza.is_empty() || !stanza.bytes().all(plain) {
                say("pgbackrest.stanza", "letters, digits, '.', '_' and '-'");
            }
            let paths =
                [("configFile", config_file.as_ref()), ("repository", repository.as_ref()), ("scratch", Some(scratch))];
            for (field, _) in paths.iter().filter(|(_, path)| path.is_some_and(|path| !path.is_absolute())) {
                say(&format!("pgbackrest.{field}"), "use an absolute path");
            }
        }
        if let Some(DumpSpec { to, recipients, identity_file, try_every: _, first_at_once: _ }) = dumps {
            if recipients.is_empty() || recipients.len() > 16 {
                say("dumps.recipients", "name 1 to 16 public keys of age");
            }
            if recipients.iter().any(|one| !one.starts_with("age1")) {
                say("dumps.recipients", "public keys of age begin with age1; a private key does not belong here");
            }
            if identity_file.as_ref().is_some_and(|file| !file.is_absolute()) {
                say("dumps.identityFile", "use an absolute path");
            }
            match to {
                DumpPlace::Folder(FolderPlace { directory }) if !directory.is_absolute() => {
                    say("dumps.to.folder.directory", "use an absolute path");
                }
                DumpPlace::Folder(_) => {}
                DumpPlace::S3(S3Place { bucket, prefix: _, region: _, endpoint }) => {
                    if bucket.is_empty() {
                        say("dumps.to.s3.bucket", "missing");
                    }
                    if endpoint.as_ref().is_some_and(|url| !is_http(url)) {
                        say("dumps.to.s3.endpoint", "use a URL that begins with https:// or http://");
                    }
                }
                DumpPlace::WebDav(WebDavPlace { url, username, password_file }) => {
                    if !is_http(url) {
                        say("dumps.to.webDav.url", "use a URL that begins with https:// or http://");
                    }
                    if username.is_empty() {
                        say("dumps.to.webDav.username", "missing");
                    }
                    if !password_file.is_absolute() {
                        say("dumps.to.webDav.passwordFile", "use an absolute path");
                    }
                }
            }
        }
        problems
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}
