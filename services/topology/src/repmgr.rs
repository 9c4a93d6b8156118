//! repmgr: each server says what it is, and repmgr's own table what repmgr takes it for.
//!
//! repmgr decides on the servers themselves and offers nothing to ask but its table `repmgr.nodes`, which follows a failover with a delay.
//! So the servers' answers are the truth, and the table is shown beside them where the provisioner may read it.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use pgtenant_model::{HostPort, RepmgrTopology};
use serde::Deserialize;
use sqlx::Row as _;

use crate::Observation;
use crate::aurora::Depth;
use crate::kind::Kind;
use crate::probe::ProbeOptions;
use crate::streaming::ask_servers;
use crate::told::{Told, ToldMember, compare};

/// Where `CREATE EXTENSION repmgr` is made by repmgr's own guide and by the charts that have it.
const DATABASE: &str = "repmgr";

/// Of `conninfo`, which may hold a password, nothing but the address leaves the server.
const QUESTION: &str = "\
SELECT coalesce(json_agg(json_build_object(
           'name', node_name, 'type', type, 'active', active,
           'host', substring(conninfo FROM '(?:^| )host=''?([^ '']+)'),
           'port', coalesce(substring(conninfo FROM '(?:^| )port=''?([0-9]+)'), '5432')::int)), '[]')::text AS nodes
  FROM repmgr.nodes";

/// Servers under repmgr, and pgpool-II in front of them or not.
#[derive(Debug)]
pub(crate) struct Repmgr {
    spec: RepmgrTopology,
}

/// A row of `repmgr.nodes`: <https://www.repmgr.org/docs/current/repmgr-node-check.html>.
#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    /// `primary`, `standby` or `witness`.
    #[serde(rename = "type")]
    kind: String,
    active: bool,
    host: Option<String>,
    port: u16,
}

impl Repmgr {
    pub(crate) fn new(spec: &RepmgrTopology) -> Self {
        Self { spec: spec.clone() }
    }

    async fn look(&self, options: &ProbeOptions, depth: Depth) -> Observation {
        let mut seen = ask_servers(&self.spec.hosts, options).await;
        let Some(primary) = seen.primary.clone().filter(|_| depth == Depth::Look) else { return seen };
        match nodes(&primary, options).await {
            Ok(told) => compare(seen, &told),
            Err(why) => {
                let of_it = |one: &&mut pgtenant_model::Member| one.host == primary.to_string();
                if let Some(member) = seen.members.iter_mut().find(of_it) {
                    member.add_message(&format!("repmgr.nodes is not seen: {why}"));
                }
                seen
            }
        }
    }
}

impl Kind for Repmgr {
    fn hosts(&self) -> Vec<HostPort> {
        self.spec.pgpool.clone().map_or_else(|| self.spec.hosts.clone(), |pgpool| vec![pgpool])
    }

    fn endpoint(&self) -> Option<HostPort> {
        self.spec.pgpool.clone()
    }

    fn observe<'a>(&'a self, options: &'a ProbeOptions, depth: Depth) -> BoxFuture<'a, Observation> {
        self.look(options, depth).boxed()
    }
}

async fn nodes(primary: &HostPort, options: &ProbeOptions) -> Result<Told, String> {
    let options = ProbeOptions { database: DATABASE.to_owned(), ..options.clone() };
    let row = options.ask(primary, QUESTION).await?;
    let nodes: String = row.try_get("nodes").map_err(|error| error.to_string())?;
    let nodes: Vec<Node> = serde_json::from_str(&nodes).map_err(|error| error.to_string())?;
    Ok(nodes.into())
}

impl From<Vec<Node>> for Told {
    fn from(nodes: Vec<Node>) -> Self {
        let member = |Node { name, kind, active, host, port }: Node| ToldMember {
            address: host.map(|host| HostPort { host, port }),
            leads: active && kind == "primary",
            words: format!("{name}, {kind}{}", if active { "" } else { ", inactive" }),
            sync: None,
        };
        let members = nodes.into_iter().map(member).collect();
        Self { who: "repmgr", decides: false, members, note: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_repmgr_are_read() {
        let rows = r#"[{"name": "node-1", "type": "primary", "active": false, "host": "db1", "port": 5432},
                       {"name": "node-2", "type": "standby", "active": true, "host": null, "port": 5432}]"#;
        let told = Told::from(serde_json::from_str::<Vec<Node>>(rows).unwrap());
        let members: Vec<_> = told.members.iter().map(|one| (one.words.as_str(), one.leads)).collect();
        assert_eq!(members, [("node-1, primary, inactive", false), ("node-2, standby", false)]);
    }
}
