//! pg_auto_failover: its monitor says who the members are, and each server what it is.
//!
//! A look is one question to the monitor, on a connection of its own, and at the same time one to each server. A switchover is one call of the function that
//! `pg_autoctl perform` calls. One connection listens to the monitor, which tells of each state that it sees or assigns.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use pgtenant_model::{HostPort, Monitor, PgAutoFailoverTopology};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::Row as _;

use crate::aurora::Depth;
use crate::kind::Kind;
use crate::probe::{ProbeOptions, Unheard, first_line};
use crate::told::{Members, Told, ToldMember};
use crate::{NotSwitched, Observation, Pushes, SwitchoverWish};

/// Nothing in it that `autoctl_node` may not ask (2.0).
const QUESTION: &str = "\
SELECT coalesce(json_agg(json_build_object(
           'formation', f.formationid, 'group', s.group_id, 'name', s.nodename, 'host', s.nodehost, 'port', s.nodeport, 'current', s.current_group_state::text,
           'assigned', s.assigned_group_state::text, 'healthy', s.health = 1, 'quorum', s.replication_quorum,
           'wanted', f.number_sync_standbys)), '[]')::text AS nodes
  FROM pgautofailover.formation f, pgautofailover.current_state(f.formationid) s";

/// Both are granted to `autoctl_node` (2.0).
const FAIL_OVER: &str = "SELECT pgautofailover.perform_failover($1, $2::int)";
const PROMOTE: &str = "SELECT pgautofailover.perform_promotion($1, $2)";

/// On which the monitor tells of a node's state or health, in JSON (2.0).
const CHANNEL: &str = "state";

/// A formation of pg_auto_failover, and the members that it has named so far.
#[derive(Debug)]
pub(crate) struct AutoFailover {
    spec: PgAutoFailoverTopology,
    members: Members,
}

/// A node as the monitor has it: <https://pg-auto-failover.readthedocs.io/en/main/failover-state-machine.html>.
#[derive(Debug, Clone, Deserialize)]
struct Node {
    formation: String,
    group: i32,
    name: String,
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

    fn address(&self) -> HostPort {
        HostPort { host: self.host.clone(), port: self.port }
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
    pub(crate) fn new(spec: &PgAutoFailoverTopology) -> Self {
        Self { spec: spec.clone(), members: Members::default() }
    }

    async fn look(&self, options: &ProbeOptions) -> Observation {
        let told = async { told(&self.nodes(options).await?, &self.spec.formation) };
        let told = told.map(|told| told.map_err(|why| format!("the monitor did not answer: {why}")));
        self.members.observe(told, options).await
    }

    /// The monitor, and how to log in to it.
    async fn monitor(&self, options: &ProbeOptions) -> Result<(HostPort, ProbeOptions), String> {
        let Monitor { address, username, database } = self.spec.monitor()?;
        let password = match (&self.spec.password_file, &options.tool) {
            (Some(file), _) => first_line(file).await?,
            (None, Some(tool)) => tool.password.clone(),
            (None, None) => SecretString::default(),
        };
        Ok((address, ProbeOptions { username, password, database, ..options.clone() }))
    }

    /// Those of the formation.
    async fn nodes(&self, options: &ProbeOptions) -> Result<Vec<Node>, String> {
        let (monitor, options) = self.monitor(options).await?;
        let row = options.ask(&monitor, QUESTION).await?;
        let nodes: String = row.try_get("nodes").map_err(|error| error.to_string())?;
        let nodes: Vec<Node> = serde_json::from_str(&nodes).map_err(|error| error.to_string())?;
        Ok(nodes.into_iter().filter(|node| node.formation == self.spec.formation).collect())
    }

    async fn listen_to_monitor(&self, options: &ProbeOptions) -> Result<Pushes, String> {
        let (monitor, options) = self.monitor(options).await?;
        let formation = self.spec.formation.clone();
        Pushes::new(&monitor, &options, CHANNEL, move |payload| concerns(payload, &formation)).await
    }

    async fn ask_for_another(&self, options: &ProbeOptions, wish: &SwitchoverWish) -> Result<(), NotSwitched> {
        let nodes = self.nodes(options).await?;
        let node = |host: &str| {
            let found = nodes.iter().find(|one| one.address().to_string() == host);
            found.ok_or_else(|| format!("the monitor knows no node {host}"))
        };
        let group = node(&wish.from)?.group.to_string();
        let (statement, of) = match &wish.to {
            Some(to) => (PROMOTE, node(to)?.name.as_str()),
            None => (FAIL_OVER, group.as_str()),
        };
        let (monitor, options) = self.monitor(options).await?;
        match options.tell(&monitor, statement, &[&self.spec.formation, of]).await {
            Ok(()) => Ok(()),
            Err(Unheard::Not(why)) => Err(format!("the monitor refused: {why}").into()),
            // It may have heard, and looks will tell.
            Err(Unheard::Perhaps(why)) => {
                tracing::warn!("the monitor did not answer to a switchover: {why}");
                Ok(())
            }
        }
    }
}

impl Kind for AutoFailover {
    fn hosts(&self) -> Vec<HostPort> {
        self.members.hosts()
    }

    fn remember(&self, members: &[HostPort]) {
        self.members.remember(members);
    }

    fn observe<'a>(&'a self, options: &'a ProbeOptions, _: Depth) -> BoxFuture<'a, Observation> {
        self.look(options).boxed()
    }

    fn listen<'a>(&'a self, options: &'a ProbeOptions) -> BoxFuture<'a, Result<Option<Pushes>, String>> {
        async { self.listen_to_monitor(options).await.map(Some) }.boxed()
    }

    fn switch_over<'a>(
        &'a self,
        options: &'a ProbeOptions,
        wish: &'a SwitchoverWish,
    ) -> BoxFuture<'a, Result<(), NotSwitched>> {
        self.ask_for_another(options, wish).boxed()
    }
}

/// Whether what the monitor tells may be of this formation; what is not understood may be.
fn concerns(payload: &str, formation: &str) -> bool {
    #[derive(Deserialize)]
    struct Change {
        formation: String,
    }
    serde_json::from_str(payload).map_or(true, |change: Change| change.formation == formation)
}

fn told(nodes: &[Node], formation: &str) -> Result<Told, String> {
    if nodes.is_empty() {
        return Err(format!("it has no nodes of formation {formation:?}"));
    }
    let policy = policy(nodes);
    let member = |node: &Node| {
        let policy = policy.as_ref().filter(|_| node.leads()).map(|policy| format!("; {policy}")).unwrap_or_default();
        ToldMember {
            address: Some(node.address()),
            words: format!("{}{policy}", node.words()),
            leads: node.leads(),
            sync: None,
        }
    };
    Ok(Told { who: "the monitor", decides: true, members: nodes.iter().map(member).collect(), note: None })
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
        let [formation, name, host, current, assigned] =
            ["default", "node_1", "db", current, assigned].map(str::to_owned);
        Node { formation, group: 0, name, host, port, current, assigned, healthy: true, quorum: true, wanted }
    }

    #[test]
    fn changes_of_other_formations_are_not_heard() {
        // As the monitor of 2.0 has it.
        let told = r#"{"type": "state", "formation": "default", "groupId": 0, "nodeId": 1, "name": "node-1", "host": "localhost",
                       "port": 5432, "reportedState": "primary", "goalState": "draining", "health":"bad"}"#;
        assert!(concerns(told, "default") && !concerns(told, "other"));
        assert!(concerns("what a later version may say", "default"));
    }

    #[test]
    fn states_and_the_sync_policy_are_told() {
        let words = |nodes: Vec<Node>| -> Vec<String> {
            told(&nodes, "default").unwrap().members.into_iter().map(|one| one.words).collect()
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
        assert!(told(&[], "other").unwrap_err().contains("no nodes"));
    }
}
