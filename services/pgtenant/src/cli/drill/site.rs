//! The cluster and the drill's own database, through the doors that everybody uses.

use std::time::Duration;

use pgtenant_model::{ClaimKey, Drill, Member, OperationState, Switchover, Tier};
use pgtenant_postgres::PulseOptions;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::DrillArgs;
use crate::cli::context::Context;
use crate::cli::db::connect::login;
use crate::cli::error::{CliError, Result};
use crate::cli::http::{Client, HttpError};
use crate::cli::name::database_path;
use crate::cli::switchover::follow;

/// Between looks at what is waited for.
const LOOK: Duration = Duration::from_millis(100);
/// How long a cluster may take to be seen as healthy.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// How long a database may take to be made.
const MADE_WITHIN: Duration = Duration::from_secs(120);
/// A control plane that does not answer one request is asked again.
const REQUEST: Duration = Duration::from_secs(5);
/// The claim's connection limit is one of these, and becomes the other: a change that means nothing to anybody, and that a server has
/// to make.
const LIMITS: [u32; 2] = [5, 6];

/// A cluster that is healthy.
#[derive(Debug)]
pub(super) struct Site {
    client: Client,
    name: String,
    /// The kind of its topology, as the settings name it.
    pub(super) kind: String,
    /// `host:port`.
    pub(super) primary: String,
    members: usize,
}

/// The database of a drill, and how its tiers reach it.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) key: ClaimKey,
    pub(super) admin: PulseOptions,
    pub(super) write: PulseOptions,
    pub(super) read: PulseOptions,
    /// Its connection limit is set to this meanwhile.
    limit: u32,
}

#[derive(Debug, Deserialize)]
struct Topology {
    primary: Option<String>,
    members: Vec<Member>,
    problem: Option<String>,
}

impl Site {
    /// Looks at the cluster, for as long as it may take to be seen after a start of the control plane.
    ///
    /// # Errors
    /// It is not healthy, or the control plane does not say.
    pub(super) async fn wait_until_healthy(client: Client, name: &str) -> Result<Self> {
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            match Self::look(client.clone(), name).await {
                Err(_) if Instant::now() < deadline => sleep(LOOK).await,
                seen => return seen,
            }
        }
    }

    /// Looks at the cluster.
    ///
    /// # Errors
    /// It is not healthy, or the control plane does not say.
    async fn look(client: Client, name: &str) -> Result<Self> {
        let cluster: Value = client.get(&["v1", "clusters", name], &[]).await?.read()?;
        let kind = cluster["spec"]["topology"].as_object().and_then(|kinds| kinds.keys().next().cloned());
        let kind = kind.ok_or_else(|| {
            CliError::failed("the token may not see how the cluster is described").hint("use a platform token")
        })?;
        let topology = topology(&client, name).await?;
        let unwell = topology.members.iter().find(|member| !member.is_well());
        match (&topology.primary, unwell, topology.problem) {
            (Some(primary), None, None) => {
                let (primary, members) = (primary.clone(), topology.members.len());
                Ok(Self { client, name: name.to_owned(), kind, primary, members })
            }
            (_, _, Some(problem)) => Err(CliError::failed(format!("cluster {name} is not healthy: {problem}"))),
            (_, Some(Member { host, message, .. }), _) => {
                let why = message.as_deref().unwrap_or("it does not answer");
                Err(CliError::failed(format!("cluster {name} is not healthy: {host}: {why}")))
            }
            _ => Err(CliError::failed(format!("cluster {name} has no primary"))),
        }
    }

    /// The primary at the moment, as the control plane knows it.
    pub(super) async fn current_primary(&self) -> Option<String> {
        topology(&self.client, &self.name).await.ok()?.primary
    }

    /// Waits until as many members as before are well, and there is a primary.
    pub(super) async fn recovered(&self, deadline: Instant) -> bool {
        loop {
            if let Ok(Topology { primary: Some(_), members, problem: None }) = topology(&self.client, &self.name).await
                && members.iter().filter(|member| member.is_well()).count() >= self.members
            {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    /// Makes the drill's database, or takes the one that a drill before has left, and its table.
    ///
    /// # Errors
    /// It was not made, or its credentials can not be read here.
    pub(super) async fn make_database(&self, context: &Context, args: &DrillArgs) -> Result<Database> {
        let key = ClaimKey::new(args.namespace.as_str(), format!("drill-{}", self.name))
            .map_err(|error| CliError::usage(error.to_string()).hint("--namespace takes another one"))?;
        let limit = self.make_claim(&key).await?;
        if !self.is_ready(&key, None, Instant::now() + MADE_WITHIN).await {
            return Err(CliError::failed(format!("database {key} is not Ready"))
                .hint(format!("`pgtenant db get {key}` says why")));
        }
        let stored = async |tier| login(context, &key, tier, args.secrets_dir.as_deref()).await?.pulse();
        let tiers = async {
            Ok::<_, CliError>([stored(Tier::Admin).await?, stored(Tier::Write).await?, stored(Tier::Read).await?])
        };
        match tiers.await {
            Ok([admin, write, read]) => {
                Ok(Database { key, admin: admin.0, write: write.0, read: read.1.unwrap_or(read.0), limit })
            }
            Err(problem) => {
                self.remove(&key).await.ok();
                Err(problem)
            }
        }
    }

    /// Says which connection limit it does not have.
    async fn make_claim(&self, key: &ClaimKey) -> Result<u32> {
        let deadline = Instant::now() + MADE_WITHIN;
        loop {
            let known = match self.client.get(&database_path(key), &[]).await {
                Ok(reply) => reply.read::<Value>()?,
                Err(error) if error.is_not_found() => {
                    let body = json!({"name": key.name(), "cluster": self.name, "connectionLimit": LIMITS[0]});
                    self.client.post(&["v1", "namespaces", key.namespace(), "databases"], &[], Some(&body)).await?;
                    return Ok(LIMITS[1]);
                }
                Err(error) => return Err(error.into()),
            };
            match known["state"].as_str() {
                // That of the drill before.
                Some("Deleting") if Instant::now() < deadline => sleep(LOOK).await,
                _ if self.is_a_drills(&known) => {
                    return Ok(if known["connectionLimit"] == LIMITS[1] { LIMITS[0] } else { LIMITS[1] });
                }
                _ => {
                    return Err(CliError::failed(format!("there is a database {key} that no drill has made"))
                        .hint("--namespace takes another one"));
                }
            }
        }
    }

    /// Whether a database is as drills make them: what anybody else has asked for is not touched.
    fn is_a_drills(&self, known: &Value) -> bool {
        let nothing = |key: &str| known[key].as_array().is_some_and(Vec::is_empty);
        known["cluster"] == self.name.as_str()
            && known["source"] == "api"
            && known["mode"] == "standard"
            && LIMITS.iter().any(|limit| known["connectionLimit"] == *limit)
            && nothing("schemas")
            && nothing("extensions")
    }

    /// Removes the drill's database.
    ///
    /// # Errors
    /// The control plane did not take it.
    pub(super) async fn remove(&self, key: &ClaimKey) -> Result<()> {
        Ok(self.client.delete(&database_path(key), &[]).await.map(drop)?)
    }

    /// Has the database's limit changed, and waits until that is done: the control plane has to reach the new primary for it.
    pub(super) async fn serves_again(&self, database: &Database, deadline: Instant) -> bool {
        let path = database_path(&database.key);
        let client = self.client.with_timeout_up_to(REQUEST);
        loop {
            let asked = client.patch(&path, None, &json!({"connectionLimit": database.limit})).await;
            let generation = asked.and_then(|reply| reply.read::<Value>()).ok();
            if let Some(generation) = generation.and_then(|claim| claim["generation"].as_i64()) {
                return self.is_ready(&database.key, Some(generation), deadline).await;
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    async fn is_ready(&self, key: &ClaimKey, generation: Option<i64>, deadline: Instant) -> bool {
        let client = self.client.with_timeout_up_to(REQUEST);
        loop {
            let claim = client.get(&database_path(key), &[]).await.and_then(|reply| reply.read::<Value>());
            if let Ok(claim) = claim
                && claim["state"] == "Ready"
                && claim["observedGeneration"].as_i64() >= generation.or(claim["generation"].as_i64())
            {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    /// Has the topology switch over, and waits for what comes of it.
    ///
    /// # Errors
    /// It refuses, or fails.
    pub(super) async fn switch_over(&self) -> Result<()> {
        let path = ["v1", "clusters", &self.name, "switchover"];
        let asked: Switchover = self.client.post(&path, &[], None::<&Value>).await?.read()?;
        let ended = follow(&self.client, &asked).await?;
        if ended.state == OperationState::Succeeded {
            return Ok(());
        }
        Err(CliError::failed(ended.message.unwrap_or_else(|| "the switchover has failed".to_owned())))
    }

    /// Has the control plane keep the result.
    ///
    /// # Errors
    /// It does not.
    pub(super) async fn write_down(&self, drill: &Drill) -> Result<()> {
        Ok(self.client.post(&["v1", "clusters", &self.name, "drills"], &[], Some(drill)).await.map(drop)?)
    }
}

async fn topology(client: &Client, name: &str) -> Result<Topology, HttpError> {
    let client = client.with_timeout_up_to(REQUEST);
    client.get(&["v1", "clusters", name, "topology"], &[]).await?.read()
}
