//! `PostgresqlCluster`: a shared cluster, as the platform team describes it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use pgtenant_model::{ClusterSpec, InvalidField, StoreSpec, Topology};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A shared PostgreSQL cluster. The fields are those of a table in the settings file.
///
/// Files of the control plane's own machine are for the settings file alone: whoever may write a cluster could have one sent to
/// a host of theirs as a password.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "pgtenant.io",
    version = "v1",
    kind = "PostgresqlCluster",
    plural = "postgresqlclusters",
    singular = "postgresqlcluster",
    shortname = "pgcluster",
    category = "pgtenant",
    status = "ClusterResourceStatus",
    derive = "PartialEq",
    doc = "A shared PostgreSQL cluster that holds the databases of many namespaces.",
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary", description = "The writable host"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "PostgreSQL's version"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63")
        .message("metadata.name must be a DNS label of at most 63 bytes")
)]
#[x_kube(
    validation = Rule::new("!has(self.provisioner.passwordFile)")
        .message("provisioner.passwordFile is for the settings file; use secretRef")
        .field_path(".provisioner.passwordFile"),
    validation = Rule::new("has(self.provisioner.secretRef) != has(self.provisioner.awsSecret)")
        .message("name where the provisioner's login is: provisioner.secretRef or provisioner.awsSecret"),
    validation = Rule::new("!has(self.tls) || !has(self.tls.caFile)").message("tls.caFile is for the settings file; use caSecretRef"),
    validation = Rule::new("self.stores.all(s, !has(s.file))").message("store file is for the settings file; use kubernetes or another"),
    validation = Rule::new("self.stores.size() == 0 || self.stores.exists(s, !has(s.externalSecret))")
        .message("externalSecret holds no credential: name the store that it reads from as well"),
    validation = Rule::new("!(self.stores.exists(s, has(s.kubernetes)) && self.stores.exists(s, has(s.externalSecret)))")
        .message("kubernetes and externalSecret would write the same Secrets: name one of them")
)]
pub struct PostgresqlClusterSpec {
    /// As in the settings file. What the schema lets pass and [`ClusterSpec`] does not is told in the status of that cluster; it
    /// must not keep the list of all from being read.
    #[serde(flatten)]
    #[schemars(with = "ClusterSpec")]
    pub fields: Map<String, Value>,
}

impl PostgresqlClusterSpec {
    /// The cluster that is described.
    ///
    /// # Errors
    /// Fields that can not be used. Files of the control plane's own machine are among them.
    pub fn cluster(&self) -> Result<ClusterSpec, Vec<InvalidField>> {
        let spec: ClusterSpec = serde_json::from_value(Value::Object(self.fields.clone()))
            .map_err(|error| vec![InvalidField::new("spec", error.to_string())])?;
        let mut problems = spec.problems();
        let mut refuse = |field: String, instead: &str| {
            problems.push(InvalidField::new(field, format!("is for the settings file; use {instead}")));
        };
        if spec.provisioner.password_file.is_some() {
            refuse("provisioner.passwordFile".to_owned(), "secretRef");
        }
        if spec.tls.ca_file.is_some() {
            refuse("tls.caFile".to_owned(), "caSecretRef");
        }
        let file = match &spec.topology {
            Topology::Patroni(spec) => spec.password_file.as_ref().map(|_| "topology.patroni.passwordFile"),
            Topology::PgAutoFailover(spec) => {
                spec.password_file.as_ref().map(|_| "topology.pgAutoFailover.passwordFile")
            }
            _ => None,
        };
        if let Some(file) = file {
            refuse(file.to_owned(), "secretRef");
        }
        for (index, _) in spec.stores.iter().enumerate().filter(|(_, store)| matches!(store, StoreSpec::File(_))) {
            refuse(format!("stores[{index}].file"), "kubernetes or another");
        }
        if problems.is_empty() { Ok(spec) } else { Err(problems) }
    }
}

/// What was last seen of a cluster.
#[derive(Debug, Clone, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterResourceStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: claims can be served. `Preflight`: nothing was found that would bite later. `Drilled`: the last drill has
    /// passed; there is none where there was no drill.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The writable host, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// PostgreSQL's version, as `15.18`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Every server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
}

/// A server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct MemberStatus {
    /// `host:port`.
    pub host: String,
    /// primary, standby or unreachable.
    pub role: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(change: Value) -> Value {
        let mut spec = json!({
            "topology": {"streaming": {"hosts": ["db1:5432"]}}, "stores": [{"kubernetes": {}}],
            "provisioner": {"secretRef": {"name": "a", "namespace": "b"}},
        });
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec
    }

    #[test]
    fn what_can_not_be_used_is_named_and_still_an_object() {
        let cases = [
            (json!({}), None),
            (json!({"topology": {"streaming": {"hosts": ["https://db1"]}}}), Some("HOST:PORT")),
            (json!({"limits": {"connections": 1e12}}), Some("spec")),
            (json!({"provisioner": {"username": "u", "passwordFile": "/token"}}), Some("provisioner.passwordFile")),
            (json!({"tls": {"caFile": "/ca"}}), Some("tls.caFile")),
            (
                json!({"topology": {"patroni": {"urls": ["https://db1"], "secretRef": {"name": "a", "namespace": "b"}}}}),
                None,
            ),
            (
                json!({"topology": {"patroni": {"urls": ["https://db1"], "username": "u", "passwordFile": "/token"}}}),
                Some("topology.patroni.passwordFile"),
            ),
            (json!({"stores": [{"kubernetes": {}}, {"file": {"directory": "/d"}}]}), Some("stores[1].file")),
            (json!({"stores": [{"kubernetes": {}}, {"externalSecret": {}}]}), Some("the same Secrets")),
        ];
        for (change, wanted) in cases {
            let spec: PostgresqlClusterSpec = serde_json::from_value(spec(change)).unwrap();
            let text = spec.cluster().err().map(|all| all.iter().map(ToString::to_string).collect::<String>());
            assert_eq!(text.is_some(), wanted.is_some(), "{text:?}");
            assert!(text.unwrap_or_default().contains(wanted.unwrap_or_default()), "{wanted:?}");
        }
    }
}
