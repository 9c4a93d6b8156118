//! A shared cluster, as the platform team describes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    BackupSpec, ClaimSpec, HostPort, InvalidField, PgBouncer, Provisioner, RestoreRules, Span, StoreSpec, TlsSpec,
    Topology, check_label,
};

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
    /// PgBouncer in front of it, which the credentials of the read and write tier name beside the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgbouncer: Option<PgBouncer>,
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
    /// What is kept of its databases, so that one can be had back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<BackupSpec>,
    /// How its databases are restored.
    #[serde(default)]
    pub restores: RestoreRules,
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
    /// Port of `readHost`; default: `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_port: Option<u16>,
}

impl Endpoint {
    /// Where whoever only reads is led to, where there is such a place.
    #[must_use]
    pub fn read(&self) -> Option<HostPort> {
        let host = self.read_host.clone()?;
        Some(HostPort { host, port: self.read_port.unwrap_or(self.port) })
    }

    fn problems(&self) -> Vec<InvalidField> {
        let nowhere = |host: &str, port: u16| host.parse::<HostPort>().is_err() || host.contains(',') || port == 0;
        let mut problems = Vec::new();
        if nowhere(&self.host, self.port) {
            problems.push(InvalidField::new("endpoint.host", "name one host, and its port from 1 to 65535"));
        }
        match self.read() {
            Some(read) if nowhere(&read.host, read.port) => {
                problems.push(InvalidField::new("endpoint.readHost", "name one host, and its port from 1 to 65535"));
            }
            None if self.read_port.is_some() => {
                problems.push(InvalidField::new("endpoint.readPort", "is of readHost, which is not there"));
            }
            _ => {}
        }
        problems
    }
}

fn postgres_port() -> u16 {
    5432
}

/// Upper bounds of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Claims that a namespace may have.
    #[serde(default = "default_databases_per_namespace")]
    #[schemars(range(max = 1_000_000))]
    pub databases_per_namespace: u32,
    /// Connections that the claims' roles may add up to: a claim has three roles, each with its `connectionLimit`. No more than the
    /// servers have beside `reservedConnections`. No value: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub connections: Option<u32>,
    /// The same for the claims of each namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub connections_per_namespace: Option<u32>,
    /// Of the servers' `max_connections`, beside those that PostgreSQL keeps for superusers: for the control plane, which takes up to
    /// eight for each replica, for monitoring and for people.
    #[serde(default = "default_reserved_connections")]
    #[schemars(range(max = 1_000_000))]
    pub reserved_connections: u32,
}

fn default_reserved_connections() -> u32 {
    20
}

fn default_databases_per_namespace() -> u32 {
    20
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            databases_per_namespace: default_databases_per_namespace(),
            connections: None,
            connections_per_namespace: None,
            reserved_connections: default_reserved_connections(),
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
            pgbouncer: None,
            provisioner,
            tls,
            stores,
            former_stores: Vec::new(),
            rotate_every: None,
            rotate_overlap: rotate_overlap(),
            rotate_grace: rotate_grace(),
            backups: None,
            restores: RestoreRules::default(),
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
        problems.extend(self.endpoint.iter().flat_map(Endpoint::problems));
        problems.extend(self.pgbouncer.as_ref().and_then(PgBouncer::problem));
        if self.pgbouncer.is_some() && matches!(self.topology, Topology::Aurora(_)) {
            let message = "asks the servers for verifiers, which RDS shows nobody: use topology.aurora.proxy";
            problems.push(InvalidField::new("pgbouncer", message));
        }
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
        problems.extend(self.restores.problems());
        let backups = self.backups.iter().flat_map(BackupSpec::problems);
        problems.extend(
            backups.map(|InvalidField { field, message }| InvalidField::new(format!("backups.{field}"), message)),
        );
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

    /// How long backups of its databases are kept: 35 days in production and staging, 7 in test and dev, unless it says otherwise.
    #[must_use]
    pub fn keep_backups(&self) -> Duration {
        let days = match self.environment {
            Environment::Production | Environment::Staging => 35,
            Environment::Test | Environment::Dev => 7,
        };
        let keep = self.backups.as_ref().and_then(|backups| backups.keep);
        keep.map_or(Duration::from_secs(days * 86_400), Span::duration)
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
    fn a_former_store_is_not_one_in_use() {
        let of = |stores: serde_json::Value, former: serde_json::Value| {
            let spec: ClusterSpec = serde_json::from_value(serde_json::json!({
                "topology": {"streaming": {"hosts": ["db1:5432"]}},
                "provisioner": {"username": "prov_a", "passwordFile": "/run/secrets/prov"},
                "stores": [stores], "formerStores": [former],
            }))
            .unwrap();
            spec.problems().into_iter().map(|problem| problem.field).collect::<Vec<_>>().join(" ")
        };
        let aws = |region: Option<&str>| serde_json::json!({"awsSecretsManager": {"region": region}});
        let (west, central) = (aws(Some("eu-west-1")), aws(Some("eu-central-1")));
        assert_eq!(of(west.clone(), central), "");
        assert_eq!(of(west.clone(), west.clone()), "formerStores[0]");
        assert_eq!(of(west, aws(None)), "formerStores[0]", "it may be the same region");
        let kubernetes = serde_json::json!({"kubernetes": {}});
        assert_eq!(of(kubernetes.clone(), kubernetes), "formerStores[0]");
    }
}
