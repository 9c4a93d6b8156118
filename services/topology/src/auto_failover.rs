//! pg_auto_failover: its monitor says who the members are, and each server what it is.
//!
//! A look is one question to the monitor, on a connection of its own, and one to each server.

use std::path::Path;
use std::sync::Arc;

use pgtenant_model::{HostPort, Monitor, PgAutoFailoverTopology};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::Row as _;

use crate::Observation;
use crate::probe::ProbeOptions;
use crate::told::{Members, Told, ToldMember};

/// Nothing in it that `autoctl_node` may not ask (2.0).
const QUESTION: &str = "\
SELECT coalesce(json_agg(json_build_object(
           'formation', f.formationid, 'host', s.nodehost, 'port', s.nodeport, 'current', s.current_group_state::text,
           'assigned', s.assigned_group_state::text, 'healthy', s.health = 1, 'quorum', s.replication_quorum,
           'wanted', f.number_sync_standbys)), '[]')::text AS nodes
  FROM pgautofailover.formation f, pgautofailover.current_state(f.formationid) s";

/// A formation of pg_auto_failover, and the members that it has named so far. Clones are the same.
#[derive(Debug, Clone)]
pub struct AutoFailover {
    spec: PgAutoFailoverTopology,
    members: Arc<Members>,
}

/// A node as the monitor has it: <https://pg-auto-failover.readthedocs.io/en/main/failover-state-machine.html>.
#[derive(Debug, Clone, Deserialize)]
struct Node {
    formation: String,
    host: String,
    port: u16,
    current: String,
    assigned: String,
    healthy: bool,
    /// It is among those that a commit may wait for.
    quorum: bool,
    /// `number_sync_standbys`.
    wanted: u32,
}

impl Node {
    /// The states in which it takes writes.
    fn leads(&self) -> bool {
        const WRITABLE: [&str; 5] = ["single", "primary", "wait_primary", "join_primary", "apply_settings"];
        WRITABLE.contains(&self.current.as_str()) && WRITABLE.contains(&self.assigned.as_str())
    }

    fn words(&self) -> String {
        let state = if self.current == self.assigned {
            self.current.clone()
        } else {
            format!("{} to {}", self.current, self.assigned)
        };
        let health = if self.healthy { "" } else { ", unhealthy" };
        format!("{state}{health}")
    }
}

impl AutoFailover {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(spec: &PgAutoFailoverTopology) -> Self {
        Self { spec: spec.clone(), members: Arc::default() }
    }

    /// Every member that the monitor has named since this was made.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPort> {
        self.members.hosts()
    }

    pub(crate) async fn observe(&self, options: &ProbeOptions) -> Observation {
        let told = self.ask(options).await.map_err(|why| format!("the monitor did not answer: {why}"));
        self.members.observe(told, options).await
    }

    async fn ask(&self, options: &ProbeOptions) -> Result<Told, String> {
        let Monitor { address, username, database } = self.spec.monitor()?;
        let password = match &self.spec.password_file {
            Some(file) => first_line(file).await?,
            None => SecretString::default(),
        };
        let options = ProbeOptions { username, password, database, ..options.clone() };
        let row = options.ask(&address, QUESTION).await?;
        let nodes: String = row.try_get("nodes").map_err(|error| error.to_string())?;
        let nodes: Vec<Node> = serde_json::from_str(&nodes).map_err(|error| error.to_string())?;
        told(nodes, &self.spec.formation)
    }
}

async fn first_line(file: &Path) -> Result<SecretString, String> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned().into())
}

fn told(nodes: Vec<Node>, formation: &str) -> Result<Told, String> {
    let nodes: Vec<Node> = nodes.into_iter().filter(|node| node.formation == formation).collect();
    if nodes.is_empty() {
        return Err(format!("it has no nodes of formation {formation:?}"));
    }
    let policy = policy(&nodes);
    let member = |node: &Node| {
        let policy = policy.as_ref().filter(|_| node.leads()).map(|policy| format!("; {policy}")).unwrap_or_default();
        ToldMember {
            address: Some(HostPort { host: node.host.clone(), port: node.port }),
            words: format!("{}{policy}", node.words()),
            leads: node.leads(),
        }
    };
    Ok(Told { who: "the monitor", members: nodes.iter().map(member).collect(), note: None })
}

/// How many standbys a commit waits for. A third node raises `number_sync_standbys` from 0 to 1 by itself, and from then on a primary
/// without enough standbys takes no writes: <https://pg-auto-failover.readthedocs.io/en/main/fault-tolerance.html>.
fn policy(nodes: &[Node]) -> Option<String> {
    let wanted = nodes.first()?.wanted;
    let ready = nodes.iter().filter(|node| node.quorum && node.healthy && node.current == "secondary").count();
    if wanted == 0 {
        return Some("number_sync_standbys 0: without a standby it goes on alone".to_owned());
    }
    let hang = if ready < wanted as usize { "writes hang until there are enough" } else { "with fewer writes hang" };
    Some(format!("number_sync_standbys {wanted}: a commit waits for as many, {ready} are ready; {hang}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16, current: &str, assigned: &str, wanted: u32) -> Node {
        let [formation, host, current, assigned] = ["default", "db", current, assigned].map(str::to_owned);
        Node { formation, host, port, current, assigned, healthy: true, quorum: true, wanted }
    }

    #[test]
    fn states_and_the_sync_policy_are_told() {
        let words = |nodes: Vec<Node>| -> Vec<String> {
            told(nodes, "default").unwrap().members.into_iter().map(|one| one.words).collect()
        };
        let three = vec![
            node(1, "primary", "primary", 1),
            node(2, "secondary", "secondary", 1),
            node(3, "catchingup", "secondary", 1),
        ];
        let told_of = words(three.clone());
        assert_eq!(
            told_of[0],
            "primary; number_sync_standbys 1: a commit waits for as many, 1 are ready; with fewer writes hang"
        );
        assert_eq!(told_of[1..], ["secondary", "catchingup to secondary"]);
        let ill = vec![three[0].clone(), Node { healthy: false, ..three[1].clone() }];
        assert!(words(ill)[0].ends_with("0 are ready; writes hang until there are enough"));
        assert!(words(vec![node(1, "single", "single", 0)])[0].contains("goes on alone"));
        let leads = |current, assigned| node(1, current, assigned, 0).leads();
        assert!(
            leads("wait_primary", "primary")
                && !leads("primary", "draining")
                && !leads("secondary", "prepare_promotion")
        );
        assert!(told(three, "other").unwrap_err().contains("no nodes"));
    }
}
