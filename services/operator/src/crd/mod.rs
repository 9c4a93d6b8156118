//! The custom resources, as types and as the definitions that are generated from them.

#![expect(unreachable_pub, reason = "KubeSchema derives the schema from a private copy of the type")]

mod cluster;
mod database;
mod restore;
mod restore_status;
mod rules;
mod status;
pub mod v1alpha1;
pub mod v1beta1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use kube::core::crd::merge_crds;
use serde_json::Value;

pub use cluster::{ClusterResourceStatus, MemberStatus, PostgresqlCluster, PostgresqlClusterSpec};
pub use database::{PostgresqlDatabase, PostgresqlDatabaseSpec};
pub use restore::{PostgresqlRestore, PostgresqlRestoreSpec, RestoreSource, RestoreStrategy};
pub use restore_status::{PutAsideStatus, RestoreProgressStatus, RestoreReportStatus, RestoreResourceStatus};
pub use status::{DatabaseStatus, EndpointStatus, RoleResourceStatus, RolesStatus, StoreStatus};

/// The version in which databases are stored.
pub const STORED: &str = "v1";

/// Every definition, without a conversion webhook: that is where the control plane runs.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let versions =
        vec![PostgresqlDatabase::crd(), v1beta1::PostgresqlDatabase::crd(), v1alpha1::PostgresqlDatabase::crd()];
    let databases = merge_crds(versions, STORED).unwrap_or_else(|error| unreachable!("versions of one kind: {error}"));
    [databases, PostgresqlCluster::crd(), PostgresqlRestore::crd()].map(without_unsigned).into()
}

/// Kubernetes knows no formats of unsigned numbers, and warns whoever applies them; the bounds say the same.
fn without_unsigned(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|key, value| {
                    key != "format" || !value.as_str().is_some_and(|text| text.starts_with("uint"))
                });
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let stripped = serde_json::to_value(&definition).and_then(|mut value| {
        strip(&mut value);
        serde_json::from_value(value)
    });
    stripped.unwrap_or(definition)
}

/// The name of the definition that has several versions.
pub const DATABASES: &str = "postgresqldatabases.pgtenant.io";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_served_in_three_versions_and_stored_in_one() {
        let databases = definitions().remove(0);
        assert_eq!(databases.metadata.name.as_deref(), Some(DATABASES));
        let versions: Vec<_> = databases.spec.versions.iter().map(|v| (&*v.name, v.served, v.storage)).collect();
        assert_eq!(versions, [("v1", true, true), ("v1alpha1", true, false), ("v1beta1", true, false)]);
    }
}
