//! Amazon Aurora: RDS says what the members do, and the server behind the cluster endpoint whether it takes writes.
//!
//! The cluster endpoint follows the writer by itself, so it is the primary for everybody; which instance is behind it is shown in
//! the status. RDS is asked once at each look, `DescribeDBClusters` (with ten seconds between looks that are 6 calls a minute
//! and replica), and `DescribeDBInstances` when the members are not what they were, while something is not `available`, and every
//! five minutes. What a preflight wants to know beside it costs two more calls, each time that it is made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use pgtenant_aws::Aws;
use pgtenant_model::{AuroraTopology, HostPort, Member, MemberRole};
use pgtenant_rds::{Cluster, Facts, Instance, Rds, RdsFault};
use sqlx::Row;
use tokio::time::Instant;

use crate::Observation;
use crate::kind::Kind;
use crate::probe::{ProbeOptions, reason};

/// Instances are asked for again after this time, when nothing else makes it worth a call.
const INSTANCES_AGE: Duration = Duration::from_secs(300);
/// A server that was at 0 ACU answers after 15 s, and after half a minute and more when it slept for a day:
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2-auto-pause.html>.
const PATIENCE: Duration = Duration::from_secs(40);

/// Functions of the log are not to be had on Aurora, whose storage keeps it.
const QUESTION: &str = "\
SELECT pg_is_in_recovery() AS in_recovery,
       current_setting('transaction_read_only') = 'on' AS read_only,
       current_setting('server_version') AS version";

/// An Aurora cluster as RDS described it last. Clones are the same.
#[derive(Debug, Clone)]
pub struct Aurora {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spec: AuroraTopology,
    rds: Rds,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    cluster: Option<Arc<Cluster>>,
    /// RDS said that there is none, when it was last asked.
    missing: bool,
    /// Why RDS did not describe it, when it was last asked.
    fault: Option<RdsFault>,
    instances: Vec<Instance>,
    instances_at: Option<Instant>,
}

/// How deep a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// For the status: a cluster that pauses when nobody is connected is not connected to.
    Look,
    /// Somebody wants to work.
    Work,
}

/// What the server behind the cluster endpoint says of itself.
struct Answer {
    writable: bool,
    version: String,
}

impl Aurora {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(spec: &AuroraTopology, aws: &Aws) -> Self {
        let rds = Rds::new(aws, &spec.region);
        Self { inner: Arc::new(Inner { spec: spec.clone(), rds, known: Mutex::default() }) }
    }

    /// RDS in the cluster's region.
    #[must_use]
    pub fn rds(&self) -> &Rds {
        &self.inner.rds
    }

    /// As it is described in the settings.
    #[must_use]
    pub fn spec(&self) -> &AuroraTopology {
        &self.inner.spec
    }

    /// As RDS described it last; none: it was not asked, or there is none.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Cluster>> {
        self.known().cluster.clone()
    }

    /// Whether RDS said, when it was last asked, that there is no such cluster.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.known().missing
    }

    /// Why RDS did not describe it when it was last asked: then what is known may be old.
    #[must_use]
    pub fn fault(&self) -> Option<RdsFault> {
        self.known().fault.clone()
    }

    /// Asks RDS; none: there is no such cluster.
    ///
    /// # Errors
    /// RDS refused or did not answer; what is known stays.
    pub async fn describe(&self) -> Result<Option<Arc<Cluster>>, RdsFault> {
        let asked = self.inner.rds.cluster(&self.identifier()).await;
        self.known().fault = asked.as_ref().err().cloned();
        let found = asked?.map(Arc::new);
        let before = {
            let mut known = self.known();
            known.missing = found.is_none();
            std::mem::replace(&mut known.cluster, found.clone())
        };
        if let Some(cluster) = &found {
            self.describe_instances(before.as_deref(), cluster).await;
        }
        Ok(found)
    }

    /// What a preflight is made of. Asks RDS for what a look does not. A part that RDS refuses is left out, and the refusal comes
    /// with it. None: nothing is known of the cluster.
    pub async fn facts(&self) -> Option<(Facts, Vec<RdsFault>)> {
        let (cluster, instances) = {
            let known = self.known();
            (known.cluster.clone()?, known.instances.clone())
        };
        let mut facts = Facts { cluster: (*cluster).clone(), instances, ..Facts::default() };
        let mut faults = Vec::new();
        if let Some(group) = &cluster.parameter_group {
            facts.parameters = self.inner.rds.parameters(group).await.map_err(|fault| faults.push(fault)).ok();
        }
        if let Some(arn) = &cluster.arn {
            let due = self.inner.rds.maintenance(arn).await.map_err(|fault| faults.push(fault));
            facts.maintenance = due.unwrap_or_default();
        }
        Some((facts, faults))
    }

    /// The cluster endpoint, once RDS has named it.
    #[must_use]
    pub fn endpoint(&self) -> Option<HostPort> {
        let cluster = self.last()?;
        Some(HostPort { host: cluster.endpoint.clone()?, port: cluster.port? })
    }

    /// The reader endpoint, where there are readers behind it.
    #[must_use]
    pub fn read_endpoint(&self) -> Option<HostPort> {
        let cluster = self.last().filter(|cluster| cluster.has_readers())?;
        Some(HostPort { host: cluster.reader_endpoint.clone()?, port: cluster.port? })
    }

    /// Whether the cluster pauses when nobody is connected: then a connection is dear, and takes its time.
    #[must_use]
    pub fn can_pause(&self) -> bool {
        self.last().is_some_and(|cluster| cluster.can_pause())
    }

    /// How long a connection may take: a paused server has to wake up.
    #[must_use]
    pub fn patience(&self, usual: Duration) -> Duration {
        if self.can_pause() { PATIENCE.max(usual) } else { usual }
    }

    async fn look(&self, options: &ProbeOptions, depth: Depth) -> Observation {
        let described = self.describe().await;
        let Some(cluster) = self.last() else {
            return Observation::without_primary(match described {
                Err(fault) => format!("{fault}. What to do: {}", fault.advice()),
                Ok(_) => self.missing(),
            });
        };
        let mut seen = Observation {
            members: self.members(&cluster),
            identity: cluster.resource_id.as_ref().map(|id| format!("{}{id}", self.identity_prefix())),
            version: cluster.engine_version.clone(),
            ..Observation::without_primary(String::new())
        };
        let endpoint = self.endpoint().filter(|_| !cluster.members.is_empty());
        let Some(endpoint) = endpoint else {
            seen.problem = Some(state_of(&cluster).unwrap_or_else(|| "the cluster has no instances".to_owned()));
            return seen;
        };
        let sleepy = cluster.can_pause() && depth == Depth::Look;
        let answer = if sleepy { Ok(None) } else { self.ask(options, &endpoint).await.map(Some) };
        match answer {
            Ok(None) if cluster.status != "available" => seen.problem = state_of(&cluster),
            Ok(Some(Answer { writable: false, .. })) => {
                let why = state_of(&cluster).unwrap_or_else(|| "a failover is under way".to_owned());
                seen.problem = Some(format!("{endpoint} leads to an instance that does not take writes: {why}"));
            }
            Err(why) => {
                let state = state_of(&cluster).map(|state| format!("; {state}")).unwrap_or_default();
                seen.problem = Some(format!("{endpoint} did not answer: {why}{state}"));
            }
            Ok(answer) => {
                seen.version = answer.map(|answer| answer.version).or(seen.version);
                (seen.primary, seen.problem) = (Some(endpoint), None);
            }
        }
        if let Err(fault) = described {
            tracing::warn!(cluster = cluster.identifier, "described as RDS did it last: {fault}; {}", fault.advice());
        }
        seen
    }

    async fn ask(&self, options: &ProbeOptions, endpoint: &HostPort) -> Result<Answer, String> {
        let options = ProbeOptions { connect_timeout: self.patience(options.connect_timeout), ..options.clone() };
        let row = options.ask(endpoint, QUESTION).await?;
        let read = || {
            let version: String = row.try_get("version")?;
            Ok(Answer {
                writable: !row.try_get::<bool, _>("in_recovery")? && !row.try_get::<bool, _>("read_only")?,
                version: version.split(' ').next().unwrap_or_default().to_owned(),
            })
        };
        read().map_err(|error: sqlx::Error| reason(&error))
    }

    async fn describe_instances(&self, before: Option<&Cluster>, cluster: &Cluster) {
        let due = {
            let known = self.known();
            let old = known.instances_at.is_none_or(|at| at.elapsed() > INSTANCES_AGE);
            let restless = known.instances.iter().any(|one| one.status != "available") || cluster.status != "available";
            old || restless || before.is_none_or(|before| before.members != cluster.members)
        };
        if !due {
            return;
        }
        match self.inner.rds.instances(&cluster.identifier).await {
            Ok(instances) => {
                let mut known = self.known();
                (known.instances, known.instances_at) = (instances, Some(Instant::now()));
            }
            // The status is poorer without them, and nothing else.
            Err(fault) => tracing::warn!(cluster = cluster.identifier, "{fault}; {}", fault.advice()),
        }
    }

    fn members(&self, cluster: &Cluster) -> Vec<Member> {
        let instances = self.known().instances.clone();
        let one = |member: &pgtenant_rds::ClusterMember| {
            let instance = instances.iter().find(|one| one.identifier == member.instance);
            let ill = instance.filter(|one| one.status != "available").map(|one| one.status.clone());
            let role = match (&ill, member.writer) {
                (Some(status), _) if OUT_OF_REACH.contains(&status.as_str()) => MemberRole::Unreachable,
                (_, true) => MemberRole::Primary,
                (_, false) => MemberRole::Standby,
            };
            let failing_over =
                (member.writer && cluster.status == FAILING_OVER).then(|| "failover in progress".to_owned());
            let alone = (member.writer && !cluster.has_readers())
                .then(|| "no readers: the reader endpoint leads here".to_owned());
            let message = ill.or(failing_over).or(alone);
            Member { said_by: Some("RDS".to_owned()), message, ..Member::new(&member.instance, role) }
        };
        cluster.members.iter().map(one).collect()
    }

    /// With what the identity of every cluster begins that has this name in this region.
    #[must_use]
    pub fn identity_prefix(&self) -> String {
        format!("{}/{}/", self.inner.spec.region, self.identifier())
    }

    fn identifier(&self) -> String {
        self.inner.spec.cluster_identifier.to_ascii_lowercase()
    }

    fn missing(&self) -> String {
        let AuroraTopology { region, cluster_identifier, .. } = &self.inner.spec;
        format!("RDS has no cluster {cluster_identifier:?} in {region}")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind for Aurora {
    fn hosts(&self) -> Vec<HostPort> {
        self.endpoint().into_iter().collect()
    }

    fn endpoint(&self) -> Option<HostPort> {
        Self::endpoint(self)
    }

    fn read_host(&self) -> Option<HostPort> {
        self.read_endpoint()
    }

    fn observe<'a>(&'a self, options: &'a ProbeOptions, depth: Depth) -> BoxFuture<'a, Observation> {
        self.look(options, depth).boxed()
    }
}

const FAILING_OVER: &str = "failing-over";

/// Statuses of an instance in which it takes no connections:
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/accessing-monitoring.html>.
const OUT_OF_REACH: [&str; 8] =
    ["creating", "deleting", "failed", "rebooting", "restore-error", "starting", "stopped", "stopping"];

/// Why a cluster may not be writable; none: RDS sees no reason.
fn state_of(cluster: &Cluster) -> Option<String> {
    let since = cluster.created_at.map(|at| format!(", since {}", at.format("%Y-%m-%d %H:%M UTC")));
    Some(match cluster.status.as_str() {
        "available" => return None,
        "creating" => format!(
            "the cluster is being created{}; it takes about ten minutes, and work begins when it is there",
            since.unwrap_or_default()
        ),
        FAILING_OVER => "a failover is under way; it takes about half a minute, and work goes on by itself".to_owned(),
        "stopped" => "the cluster is stopped; start it with StartDBCluster".to_owned(),
        "inaccessible-encryption-credentials" | "inaccessible-encryption-credentials-recoverable" => {
            "the cluster's key can not be used; look at the key in KMS and at its grants".to_owned()
        }
        other => format!("RDS calls the cluster {other:?}"),
    })
}
