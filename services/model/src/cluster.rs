//! A shared cluster, as the platform team describes it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host_port::{HOST_PORT, HostPort};
use crate::{ClaimSpec, InvalidField, Span, StoreSpec, check_label};

/// A shared cluster: the settings file's `[clusters.NAME]`, and the spec of a `PostgresqlCluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// What it is for.
    #[serde(default)]
    pub environment: Environment,
    /// How its primary is found: exactly one kind.
    pub topology: Topology,
    /// What tenants are given to connect to; default: from the topology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The login that makes databases and roles.
    pub provisioner: Provisioner,
    /// How connections are secured.
    #[serde(default)]
    pub tls: TlsSpec,
    /// Where credentials are written: every one of them holds every credential.
    #[schemars(length(min = 1, max = 8))]
    pub stores: Vec<StoreSpec>,
    /// Stores that were among `stores` and are to hold nothing any more: what was written there is removed, claim by claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub former_stores: Vec<StoreSpec>,
    /// Passwords older than this are replaced, as `30d`; none: only when somebody asks, or has changed a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rotate_every: Option<Span>,
    /// After a rotation the former login works for at least this time, so that everybody can read the new one.
    #[serde(default = "rotate_overlap")]
    #[schema(value_type = String)]
    pub rotate_overlap: Span,
    /// After this time the former login is locked even when it has sessions; those are not ended.
    #[serde(default = "rotate_grace")]
    #[schema(value_type = String)]
    pub rotate_grace: Span,
    /// Namespaces that may have databases here; `*` at the end of an entry stands for anything.
    #[serde(default = "everything")]
    pub allowed_namespaces: Vec<String>,
    /// Extensions that claims may ask for.
    #[serde(default)]
    pub allowed_extensions: Vec<String>,
    /// Upper bounds.
    #[serde(default)]
    pub limits: Limits,
}

fn rotate_overlap() -> Span {
    Span::from_secs(300)
}

fn rotate_grace() -> Span {
    Span::from_secs(86_400)
}

fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}

/// What a cluster is for; snapshots of the first two are kept 35 days, of the others 7.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Serves customers.
    Production,
    /// The rehearsal for production.
    Staging,
    /// Automated and manual tests.
    Test,
    /// Development.
    #[default]
    Dev,
}

/// The kind of high availability under a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Topology {
    /// A primary and streaming standbys; the writable host is found by asking each.
    Streaming(StreamingTopology),
    /// An Amazon Aurora cluster, as RDS describes it.
    Aurora(AuroraTopology),
}

/// An Amazon Aurora PostgreSQL cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuroraTopology {
    /// The region, as `eu-west-1`.
    pub region: String,
    /// The cluster's identifier.
    pub cluster_identifier: String,
    /// An RDS Proxy that is to know the tenants' credentials; needs the store `awsSecretsManager`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Makes the cluster where there is none, and shows what is not as described here; nothing is ever deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<AuroraCreate>,
}

/// How an Aurora Serverless v2 cluster is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuroraCreate {
    /// Capacity units at least, in steps of 0.5; 0 lets it pause when nobody is connected.
    #[schemars(range(min = 0.0, max = 256.0))]
    pub min_acu: Acu,
    /// Capacity units at most; RDS allows no less than 1.
    #[schemars(range(min = 1.0, max = 256.0))]
    pub max_acu: Acu,
    /// The engine's version; default: the newest that RDS offers by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// A writer and readers: how many in all.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 16))]
    pub instances: u8,
    /// The DB subnet group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_group: Option<String>,
    /// Security groups.
    #[serde(default)]
    pub security_group_ids: Vec<String>,
    /// The key that encrypts the storage; default: `aws/rds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

/// Aurora capacity units, in halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schema(value_type = f64)]
pub struct Acu(u16);

impl TryFrom<f64> for Acu {
    type Error = String;

    fn try_from(units: f64) -> Result<Self, String> {
        let halves = units * 2.0;
        let whole = (0..=512_u16).find(|number| (f64::from(*number) - halves).abs() < f64::EPSILON);
        whole.map(Self).ok_or_else(|| format!("{units} is not from 0 to 256 in steps of 0.5"))
    }
}

impl From<Acu> for f64 {
    fn from(acu: Acu) -> Self {
        Self::from(acu.0) / 2.0
    }
}

impl schemars::JsonSchema for Acu {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Acu".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "multipleOf": 0.5})
    }
}

fn two() -> u8 {
    2
}

/// Hosts of which one is writable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamingTopology {
    /// `host:port` of every member, primary and standbys in any order.
    #[schema(value_type = Vec<String>)]
    #[schemars(with = "Vec<String>", length(min = 1, max = 32), inner(length(max = 261), regex(pattern = HOST_PORT)))]
    pub hosts: Vec<HostPort>,
}

/// Where tenants connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// For reading and writing.
    pub host: String,
    /// Port of `host`.
    #[serde(default = "postgres_port")]
    pub port: u16,
    /// For reading only, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_host: Option<String>,
    /// Port of `readHost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_port: Option<u16>,
}

fn postgres_port() -> u16 {
    5432
}

/// The login that makes databases and roles: CREATEDB and CREATEROLE, not superuser. Its password comes from exactly one of
/// `passwordFile`, `secretRef` and `awsSecret`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provisioner {
    /// The login's name; default: key `username` of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file on the control plane's machine whose first line is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub password_file: Option<PathBuf>,
    /// A Kubernetes Secret with the keys `username` and `password`, of type `kubernetes.io/basic-auth` for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A secret in AWS Secrets Manager: JSON with the keys `username` and `password`. Where it does not exist and the topology
    /// is `aurora`, pgtenant makes the provisioner with the cluster's master login and writes it there. Its password can be
    /// rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_secret: Option<AwsSecretRef>,
    /// The database in which it works when it is in no tenant's.
    #[serde(default = "maintenance_database")]
    pub database: String,
}

/// A secret in AWS Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsSecretRef {
    /// The secret's name or ARN.
    pub name: String,
    /// The region; default: the one of the environment or the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl fmt::Display for AwsSecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AWS secret {}", self.name)
    }
}

/// A Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret's name.
    pub name: String,
    /// The Secret's namespace.
    pub namespace: String,
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}/{}", self.namespace, self.name)
    }
}

fn maintenance_database() -> String {
    "postgres".to_owned()
}

/// How connections are secured, by the control plane and by tenants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSpec {
    /// As libpq's `sslmode`.
    #[serde(default)]
    pub sslmode: SslMode,
    /// A file with the certificate authority, PEM; neither this nor `caSecretRef`: the machine's own trust store, and no
    /// `ca.crt` for tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ca_file: Option<PathBuf>,
    /// A Kubernetes Secret whose key `ca.crt` is the certificate authority, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
}

/// libpq's `sslmode`, without the modes that allow clear text.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Encrypted, not authenticated.
    Require,
    /// The certificate's issuer is checked.
    VerifyCa,
    /// The certificate's issuer and host name are checked.
    #[default]
    VerifyFull,
}

impl SslMode {
    /// As libpq spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Upper bounds of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Claims that a namespace may have.
    #[serde(default = "default_databases_per_namespace")]
    #[schemars(range(max = 1_000_000))]
    pub databases_per_namespace: u32,
    /// Connections that the claims' `connectionLimit` may add up to; no value: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub connections: Option<u32>,
}

fn default_databases_per_namespace() -> u32 {
    20
}

impl Default for Limits {
    fn default() -> Self {
        Self { databases_per_namespace: default_databases_per_namespace(), connections: None }
    }
}

impl Topology {
    fn problems(&self) -> Vec<InvalidField> {
        let mut problems = Vec::new();
        let mut say =
            |field: &str, message: String| problems.push(InvalidField::new(format!("topology.{field}"), message));
        match self {
            Self::Streaming(StreamingTopology { hosts }) => {
                if hosts.is_empty() || hosts.len() > 32 {
                    say("streaming.hosts", "list 1 to 32 hosts".to_owned());
                }
            }
            Self::Aurora(aurora) => aurora.problems(&mut say),
        }
        problems
    }
}

impl AuroraTopology {
    fn problems(&self, say: &mut impl FnMut(&str, String)) {
        let Self { region, cluster_identifier, proxy, create } = self;
        let region_like = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || region.len() > 32 || !region.bytes().all(region_like) {
            say("aurora.region", format!("{region:?} is not a region, as eu-west-1"));
        }
        if !is_rds_identifier(cluster_identifier) {
            say("aurora.clusterIdentifier", format!("{cluster_identifier:?} is not {RDS_IDENTIFIER}"));
        }
        if let Some(proxy) = proxy.as_ref().filter(|proxy| !is_rds_identifier(proxy)) {
            say("aurora.proxy", format!("{proxy:?} is not {RDS_IDENTIFIER}"));
        }
        let Some(create) = create else { return };
        if cluster_identifier.len() > MAX_CREATED_IDENTIFIER {
            let message = format!("has more than {MAX_CREATED_IDENTIFIER} letters: its instances add -1 to -16");
            say("aurora.clusterIdentifier", message);
        }
        create.problems(say);
    }
}

impl AuroraCreate {
    fn problems(&self, say: &mut impl FnMut(&str, String)) {
        let Self { min_acu, max_acu, engine_version, instances, subnet_group, security_group_ids, kms_key_id } = self;
        if max_acu < min_acu || f64::from(*max_acu) < 1.0 {
            say("aurora.create.maxAcu", "must be at least 1 and not below minAcu".to_owned());
        }
        if !(1..=16).contains(instances) {
            say("aurora.create.instances", "must be from 1 to 16".to_owned());
        }
        let version_like = |text: &String| {
            text.len() <= 16 && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        };
        if let Some(version) = engine_version.as_ref().filter(|version| !version_like(version)) {
            say("aurora.create.engineVersion", format!("{version:?} is not a version, as 16.6"));
        }
        let major = engine_version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major < 15) {
            let message = "must be 15 or later: for 14 a superuser is needed, which RDS does not give";
            say("aurora.create.engineVersion", message.to_owned());
        }
        let name_like = |text: &String| {
            (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b" ._-".contains(&b))
        };
        if let Some(group) = subnet_group.as_ref().filter(|group| !name_like(group)) {
            say("aurora.create.subnetGroup", format!("{group:?} is not the name of a subnet group"));
        }
        let group_like = |id: &str| {
            id.strip_prefix("sg-")
                .is_some_and(|rest| (8..=17).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        for (index, id) in security_group_ids.iter().enumerate().filter(|(_, id)| !group_like(id)) {
            let message = format!("{id:?} is not a security group, as sg-0a1b2c3d4e5f60718");
            say(&format!("aurora.create.securityGroupIds[{index}]"), message);
        }
        if kms_key_id.as_ref().is_some_and(|key| key.is_empty() || key.len() > 2048) {
            say("aurora.create.kmsKeyId", "is not the id, the ARN or an alias of a key".to_owned());
        }
    }
}

/// Constraints of `DBClusterIdentifier` in CreateDBCluster, and of names of RDS Proxies.
const RDS_IDENTIFIER: &str =
    "1 to 63 letters, digits and single hyphens, beginning with a letter and not ending in a hyphen";
/// RDS allows instances 63 letters.
const MAX_CREATED_IDENTIFIER: usize = 60;

fn is_rds_identifier(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && !text.ends_with('-')
        && !text.contains("--")
}

impl Provisioner {
    /// A login whose password is the first line of a file.
    #[must_use]
    pub fn from_file(username: impl Into<String>, password_file: PathBuf) -> Self {
        let (username, password_file) = (Some(username.into()), Some(password_file));
        Self { username, password_file, secret_ref: None, aws_secret: None, database: maintenance_database() }
    }

    fn problem(&self) -> Option<InvalidField> {
        let sources = [self.password_file.is_some(), self.secret_ref.is_some(), self.aws_secret.is_some()];
        match sources.into_iter().filter(|named| *named).count() {
            0 => Some(InvalidField::new("provisioner", "name passwordFile, secretRef or awsSecret")),
            1 if self.password_file.is_some() && self.username.is_none() => {
                Some(InvalidField::new("provisioner.username", "missing"))
            }
            1 => None,
            _ => {
                Some(InvalidField::new("provisioner", "name one of passwordFile, secretRef and awsSecret, not several"))
            }
        }
    }
}

impl ClusterSpec {
    /// With all that has a default left at it.
    #[must_use]
    pub fn new(topology: Topology, provisioner: Provisioner, tls: TlsSpec, stores: Vec<StoreSpec>) -> Self {
        Self {
            environment: Environment::default(),
            topology,
            endpoint: None,
            provisioner,
            tls,
            stores,
            former_stores: Vec::new(),
            rotate_every: None,
            rotate_overlap: rotate_overlap(),
            rotate_grace: rotate_grace(),
            allowed_namespaces: everything(),
            allowed_extensions: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Checks every rule that needs no connection.
    #[must_use]
    pub fn problems(&self) -> Vec<InvalidField> {
        let mut problems = Vec::new();
        problems.extend(self.topology.problems());
        if self.stores.is_empty() || self.stores.len() > 8 {
            problems.push(InvalidField::new("stores", "name 1 to 8 stores"));
        }
        let has = |kind: fn(&StoreSpec) -> bool| self.stores.iter().any(kind);
        let external = has(|store| matches!(store, StoreSpec::ExternalSecret(_)));
        if external && !has(|store| !matches!(store, StoreSpec::ExternalSecret(_))) {
            let message = "externalSecret holds no credential: name the store that it reads from as well";
            problems.push(InvalidField::new("stores", message));
        }
        if external && has(|store| matches!(store, StoreSpec::Kubernetes(_))) {
            let message = "kubernetes and externalSecret would write the same Secrets: name one of them";
            problems.push(InvalidField::new("stores", message));
        }
        for (list, stores) in [("stores", &self.stores), ("formerStores", &self.former_stores)] {
            for (index, store) in stores.iter().enumerate() {
                problems.extend(store.problems().into_iter().map(|InvalidField { field, message }| InvalidField {
                    field: format!("{list}[{index}].{field}"),
                    message,
                }));
            }
        }
        let used = |former: &StoreSpec| self.stores.iter().any(|store| store.same_place(former));
        if let Some(index) = self.former_stores.iter().position(used) {
            let message = "holds the credentials of a store in use, which would be removed";
            problems.push(InvalidField::new(format!("formerStores[{index}]"), message));
        }
        if self.rotate_every.is_some_and(|every| every <= self.rotate_overlap) {
            problems.push(InvalidField::new(
                "rotateEvery",
                format!("must be longer than rotateOverlap, {}", self.rotate_overlap),
            ));
        }
        if self.rotate_grace < self.rotate_overlap {
            problems.push(InvalidField::new(
                "rotateGrace",
                format!("must not be shorter than rotateOverlap, {}", self.rotate_overlap),
            ));
        }
        problems.extend(self.provisioner.problem());
        if self.tls.ca_file.is_some() && self.tls.ca_secret_ref.is_some() {
            problems.push(InvalidField::new("tls.caSecretRef", "name caFile or caSecretRef, not both"));
        }
        for (index, pattern) in self.allowed_namespaces.iter().enumerate() {
            let stem = pattern.strip_suffix('*').unwrap_or(pattern);
            if !stem.is_empty() && check_label("namespace", stem.trim_end_matches('-')).is_err() {
                problems.push(InvalidField::new(
                    format!("allowedNamespaces[{index}]"),
                    format!("{pattern:?} is not a namespace, nor the beginning of one and `*`"),
                ));
            }
        }
        problems
    }

    /// What this cluster refuses of a claim, apart from its name.
    #[must_use]
    pub fn refuses(&self, namespace: &str, spec: &ClaimSpec) -> Vec<InvalidField> {
        if !self.allows_namespace(namespace) {
            return vec![Self::unknown(&spec.cluster, namespace)];
        }
        let mut problems = Vec::new();
        for (index, extension) in spec.extensions.iter().enumerate() {
            if !self.allowed_extensions.contains(extension) {
                let allowed = match self.allowed_extensions.as_slice() {
                    [] => "this cluster allows none".to_owned(),
                    some => format!("allowed: {}", some.join(", ")),
                };
                let message = format!("{extension:?} is not allowed; {allowed}");
                problems.push(InvalidField::new(format!("extensions[{index}]"), message));
            }
        }
        problems
    }

    /// What is answered of a cluster that is not there, and of one that does not serve the namespace: who may not use a
    /// cluster is not told that there is one.
    #[must_use]
    pub fn unknown(name: &str, namespace: &str) -> InvalidField {
        InvalidField::new("cluster", format!("there is no cluster {name:?} for namespace {namespace:?}"))
    }

    /// Whether `namespace` may have databases here.
    #[must_use]
    pub fn allows_namespace(&self, namespace: &str) -> bool {
        self.allowed_namespaces.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(stem) => namespace.starts_with(stem),
            None => namespace == pattern,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_parses() {
        let spec: ClusterSpec = serde_json::from_value(serde_json::json!({
            "environment": "production",
            "topology": {"streaming": {"hosts": ["db1:5432", "db2:5432"]}},
            "provisioner": {"username": "prov_a", "passwordFile": "/run/secrets/prov"},
            "tls": {"sslmode": "verify-full", "caFile": "/etc/ca.crt"},
            "stores": [{"file": {"directory": "/var/lib/pgtenant/secrets"}}],
            "allowedNamespaces": ["idp-*", "shop"],
            "limits": {"databasesPerNamespace": 20, "connections": 400},
        }))
        .unwrap();
        assert!(spec.problems().is_empty(), "{:?}", spec.problems());
        assert!(spec.allows_namespace("idp-dev") && spec.allows_namespace("shop"));
        assert!(!spec.allows_namespace("shop2") && !spec.allows_namespace("other"));
    }

    #[test]
    fn aurora_is_checked_as_rds_checks_it() {
        let field = |aurora: serde_json::Value| {
            let topology: Topology = serde_json::from_value(serde_json::json!({"aurora": aurora})).unwrap();
            topology.problems().into_iter().map(|problem| problem.field).collect::<Vec<_>>().join(" ")
        };
        let of = |identifier: &str, create: serde_json::Value| {
            field(serde_json::json!({"region": "eu-west-1", "clusterIdentifier": identifier, "create": create}))
        };
        let null = serde_json::Value::Null;
        assert_eq!(of("shared-2", null.clone()), "");
        for wrong in ["", "2shared", "shared-", "sha--red", "sha_red", "sh.ared", &"x".repeat(64)] {
            assert_eq!(of(wrong, null.clone()), "topology.aurora.clusterIdentifier", "{wrong}");
        }
        assert_eq!(of("shared", serde_json::json!({"minAcu": 0, "maxAcu": 16, "engineVersion": "16.6"})), "");
        let wrong = serde_json::json!({
            "minAcu": 4, "maxAcu": 2, "instances": 17, "engineVersion": "16.", "subnetGroup": "a/b",
            "securityGroupIds": ["sg-0a1b2c3d", "sg-x"], "kmsKeyId": "",
        });
        assert_eq!(
            of("shared", wrong),
            "topology.aurora.create.maxAcu topology.aurora.create.instances topology.aurora.create.engineVersion \
             topology.aurora.create.subnetGroup topology.aurora.create.securityGroupIds[1] \
             topology.aurora.create.kmsKeyId"
        );
        let long = serde_json::json!({"minAcu": 0.5, "maxAcu": 1});
        assert_eq!(of(&"x".repeat(61), long), "topology.aurora.clusterIdentifier");
        let hostile = serde_json::json!({"region": "evil.example/", "clusterIdentifier": "a", "proxy": "p q"});
        assert_eq!(field(hostile), "topology.aurora.region topology.aurora.proxy");
    }
}
