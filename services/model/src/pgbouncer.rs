//! PgBouncer in front of a cluster.

use serde::{Deserialize, Serialize};

use crate::{HostPort, InvalidField};

/// PgBouncer, which shares the servers' connections among clients, a transaction at a time (`pool_mode = transaction`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PgBouncer {
    /// Where tenants reach it. Its certificate is checked as those of the servers are.
    pub host: String,
    /// Port of `host`.
    #[serde(default = "usual_port")]
    pub port: u16,
}

/// What PgBouncer listens on unless it is told otherwise (`listen_port`).
fn usual_port() -> u16 {
    6432
}

impl PgBouncer {
    /// The same as an address.
    #[must_use]
    pub fn address(&self) -> HostPort {
        HostPort { host: self.host.clone(), port: self.port }
    }

    /// Rules that need no connection.
    pub(crate) fn problem(&self) -> Option<InvalidField> {
        let named = self.host.parse::<HostPort>().is_ok_and(|host| host.host == self.host);
        let wrong = !named || self.port == 0;
        wrong.then(|| InvalidField::new("pgbouncer.host", "name one host, and its port from 1 to 65535"))
    }
}

#[cfg(test)]
mod tests {
    use crate::ClusterSpec;

    #[test]
    fn a_pooler_is_one_address_and_not_before_aurora() {
        let of = |topology: serde_json::Value, pgbouncer: serde_json::Value| {
            let spec: ClusterSpec = serde_json::from_value(serde_json::json!({
                "topology": topology,
                "pgbouncer": pgbouncer,
                "provisioner": {"username": "prov_a", "passwordFile": "/run/secrets/prov"},
                "stores": [{"file": {"directory": "/var/lib/pgtenant/secrets"}}],
            }))
            .unwrap();
            let address = spec.pgbouncer.as_ref().map(|pgbouncer| pgbouncer.address().to_string());
            (address.unwrap_or_default(), spec.problems().into_iter().map(|it| it.field).collect::<Vec<_>>().join(" "))
        };
        let streaming = serde_json::json!({"streaming": {"hosts": ["db1:5432"]}});
        let found = of(streaming.clone(), serde_json::json!({"host": "pool.example"}));
        assert_eq!(found, ("pool.example:6432".to_owned(), String::new()));
        for wrong in [
            serde_json::json!({"host": ""}),
            serde_json::json!({"host": "a,b"}),
            serde_json::json!({"host": "pool.example:6432"}),
            serde_json::json!({"host": "a/b"}),
            serde_json::json!({"host": "a", "port": 0}),
        ] {
            assert_eq!(of(streaming.clone(), wrong.clone()).1, "pgbouncer.host", "{wrong}");
        }
        let aurora = serde_json::json!({"aurora": {"region": "eu-west-1", "clusterIdentifier": "shared"}});
        assert_eq!(of(aurora, serde_json::json!({"host": "pool.example"})).1, "pgbouncer");
    }
}
