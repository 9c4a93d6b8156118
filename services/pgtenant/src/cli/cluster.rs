//! `pgtenant cluster`.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use pgtenant_model::{
    CheckResult, Drift, Endpoint, Environment, Limits, Maintenance, Member, PgBouncer, PreflightCheck,
    ProvisionerStatus,
};
use serde::Deserialize;

use super::bootstrap;
use super::context::Context;
use super::error::{Outcome, Result};
use super::operation::{fields, json_word};
use super::output::{Paint, Table, age, note};
use super::{accept, drill, move_database, read, rotate, switchover};

/// `pgtenant cluster …`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ClusterCommand {
    /// List the clusters that may be used
    #[command(after_help = "Examples:\n  pgtenant cluster list\n  pgtenant cluster list --output yaml")]
    List,
    /// Show a cluster
    #[command(after_help = "Examples:\n  pgtenant cluster get default\n  pgtenant cluster get default --output json")]
    Get {
        /// The cluster
        name: String,
    },
    /// Show which server is the primary and how the others follow
    #[command(after_help = "Examples:\n  pgtenant cluster topology default")]
    Topology {
        /// The cluster
        name: String,
    },
    /// Try every capability that claims will need, without a trace; exit status 1 unless all have passed
    #[command(
        after_help = "The login, TLS, the clock, roles and SET ROLE, a database, extensions, the standbys, and a credential in each
store. Each line says what works; or what is missing, and the statement or policy that mends it.

Examples:
  pgtenant cluster preflight default
  pgtenant cluster preflight default --allow-warnings --output json"
    )]
    Preflight {
        /// The cluster
        name: String,
        /// Exit status 0 also where there are warnings, if nothing has failed
        #[arg(long)]
        allow_warnings: bool,
    },
    /// Have another member take the primary's place, where somebody can be asked for that
    Switchover(switchover::SwitchoverArgs),
    /// Move a database to another cluster, when it is known for how long nobody can connect
    Move(move_database::MoveArgs),
    /// Say that the data of the server which takes writes is right, where pgtenant does not write to it for its history
    Accept(accept::AcceptArgs),
    /// Replace the password of the control plane's own login, where it is in AWS Secrets Manager
    #[command(
        after_help = "The second login of the secret gets a new password and takes the place of the one in use. That one gets a new
password itself when every replica has read the secret again, some minutes later. Work goes on all the time.

Examples:
  pgtenant cluster rotate-provisioner default"
    )]
    RotateProvisioner {
        /// The cluster
        name: String,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Change nothing on a cluster for as long as you work on it
    #[command(
        after_help = "What is asked for waits, says why, and goes on by itself afterwards. Claims under work end within seconds, a dump or a
copy that is under way when it is done; restores wait at their next step. Databases are used as ever. At the end every
claim is looked at within a minute, and its logins are proven: as after an upgrade.

Examples:
  pgtenant cluster maintenance default --reason 'upgrade to PostgreSQL 17'
  pgtenant cluster maintenance default --end"
    )]
    Maintenance {
        /// The cluster
        name: String,
        /// Begin, and why
        #[arg(long, required_unless_present = "end", conflicts_with = "end")]
        reason: Option<String>,
        /// End
        #[arg(long)]
        end: bool,
    },
    /// Stop the primary, and measure what applications see of it
    Drill(Box<drill::DrillArgs>),
    /// List the drills of a cluster
    #[command(
        after_help = "Examples:\n  pgtenant cluster drills default\n  pgtenant cluster drills default --output json"
    )]
    Drills {
        /// The cluster
        name: String,
    },
    /// Print the SQL with which a superuser attaches a cluster; asks no control plane
    Bootstrap(bootstrap::BootstrapArgs),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    name: String,
    environment: Environment,
    endpoint: Option<Endpoint>,
    pgbouncer: Option<PgBouncer>,
    version: Option<String>,
    allowed_extensions: Vec<String>,
    limits: Limits,
    problem: Option<String>,
    observed_at: Option<DateTime<Utc>>,
    primary: Option<String>,
    provisioner: Option<ProvisionerStatus>,
    maintenance: Option<Maintenance>,
}

impl Cluster {
    /// Why nothing is done on it, if so.
    fn trouble(&self) -> Option<String> {
        let maintenance = self.maintenance.as_ref().map(|it| format!("in maintenance: {}", it.reason));
        maintenance.or_else(|| self.problem.clone())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Topology {
    members: Vec<Member>,
    problem: Option<String>,
    #[serde(default)]
    drift: Vec<Drift>,
    observed_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Preflight {
    checks: Vec<PreflightCheck>,
}

pub(super) async fn run(context: &Context, command: ClusterCommand) -> Result<Outcome> {
    match command {
        ClusterCommand::List => list(context).await,
        ClusterCommand::Get { name } => get(context, &name).await,
        ClusterCommand::Topology { name } => topology(context, &name).await,
        ClusterCommand::Preflight { name, allow_warnings } => preflight(context, &name, allow_warnings).await,
        ClusterCommand::Switchover(args) => switchover::run(context, &args).await,
        ClusterCommand::Move(args) => move_database::run(context, &args).await,
        ClusterCommand::Accept(args) => accept::run(context, &args).await,
        ClusterCommand::RotateProvisioner { name, no_wait } => rotate::provisioner(context, &name, no_wait).await,
        ClusterCommand::Maintenance { name, reason, .. } => maintain(context, &name, reason.as_deref()).await,
        ClusterCommand::Drill(args) => drill::run(context, &args).await,
        ClusterCommand::Drills { name } => drill::list(context, &name).await,
        ClusterCommand::Bootstrap(args) => bootstrap::run(context, &args),
    }
}

async fn maintain(context: &Context, name: &str, reason: Option<&str>) -> Result<Outcome> {
    let (client, path) = (context.client()?, ["v1", "clusters", name, "maintenance"]);
    let Some(reason) = reason else {
        client.delete(&path, &[]).await?;
        note("work goes on; every claim is looked at within a minute");
        return Ok(Outcome::Done);
    };
    let reply = client.post(&path, &[], Some(&serde_json::json!({"reason": reason}))).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        note(&format!("nothing is changed on {name} until: pgtenant cluster maintenance {name} --end"));
    }
    Ok(Outcome::Done)
}

async fn list(context: &Context) -> Result<Outcome> {
    let items = context.client()?.whole_list(&["v1", "clusters"]).await?;
    if context.out.is_for_machines() {
        context.out.document(&items)?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&["NAME", "ENVIRONMENT", "VERSION", "SEEN", "PROBLEM"]);
    for cluster in read::<Cluster>(items)? {
        let trouble = cluster.trouble().unwrap_or_default();
        table.row([
            cluster.name,
            json_word(cluster.environment),
            cluster.version.unwrap_or_else(|| "-".to_owned()),
            seen(cluster.observed_at),
            trouble,
        ]);
    }
    context.out.table(&table, "There are no clusters.")?;
    Ok(Outcome::Done)
}

fn seen(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "not yet".to_owned(), |at| format!("{} ago", age(at, Utc::now())))
}

async fn get(context: &Context, name: &str) -> Result<Outcome> {
    let reply = context.client()?.get(&["v1", "clusters", name], &[]).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
        return Ok(Outcome::Done);
    }
    let cluster: Cluster = reply.read()?;
    let trouble = cluster.trouble();
    let Cluster {
        name,
        environment,
        endpoint,
        pgbouncer,
        version,
        allowed_extensions,
        limits,
        observed_at,
        primary,
        provisioner,
        ..
    } = cluster;
    let login = |one: ProvisionerStatus| match one.turned_at {
        Some(at) => format!("{}, since {} ago", one.login, age(at, Utc::now())),
        None => one.login,
    };
    let number = |n: Option<u32>| n.map_or_else(|| "not limited".to_owned(), |n| n.to_string());
    let endpoint = endpoint.map_or_else(|| "from the topology".to_owned(), |e| format!("{}:{}", e.host, e.port));
    context.out.line(fields(&[
        ("Name", name),
        ("Environment", json_word(environment)),
        ("Version", version.unwrap_or_default()),
        ("Endpoint", endpoint),
        ("PgBouncer", pgbouncer.map(|it| it.address().to_string()).unwrap_or_default()),
        ("Primary", primary.unwrap_or_default()),
        ("Extensions", if allowed_extensions.is_empty() { "none".to_owned() } else { allowed_extensions.join(", ") }),
        ("Databases", format!("{} a namespace at most", limits.databases_per_namespace)),
        ("Connections", number(limits.connections)),
        ("Provisioner", provisioner.map(login).unwrap_or_default()),
        ("Seen", seen(observed_at)),
        ("Problem", trouble.map(|p| context.out.paint(&p, Paint::Bad)).unwrap_or_default()),
    ]))?;
    Ok(Outcome::Done)
}

async fn topology(context: &Context, name: &str) -> Result<Outcome> {
    let reply = context.client()?.get(&["v1", "clusters", name, "topology"], &[]).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
        return Ok(Outcome::Done);
    }
    let Topology { members, problem, drift, observed_at } = reply.read()?;
    let mut table = Table::new(&["HOST", "ROLE", "TIMELINE", "LAG", "SYNC", "SAYS", "SEEN", "MESSAGE"]);
    for member in members {
        let lag = lag(&member);
        let Member { host, role, said_by, timeline, sync, tool, message, .. } = member;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let says: Vec<String> = said_by.into_iter().chain(tool).collect();
        table.row([
            host,
            json_word(role),
            or_dash(timeline.map(|n| n.to_string())),
            or_dash(lag),
            or_dash(sync.map(json_word)),
            says.join("; "),
            seen(observed_at),
            message.unwrap_or_default(),
        ]);
    }
    context.out.table(&table, "The cluster was not seen yet.")?;
    if !drift.is_empty() {
        let mut table = Table::new(&["NOT AS DESCRIBED", "WANTED", "FOUND", "MENDED BY"]);
        for Drift { setting, wanted, found, mend } in drift {
            table.row([setting, wanted, found, mend]);
        }
        context.out.table(&table, "")?;
    }
    if let Some(problem) = problem {
        note(&format!("{} {problem}", context.out.paint("problem:", Paint::Bad)));
    }
    Ok(Outcome::Done)
}

/// How far a standby is behind, as `16 kB, 3 s`.
fn lag(member: &Member) -> Option<String> {
    let bytes = member.lag_bytes.map(|bytes| match bytes {
        ..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} kB", bytes / 1024),
        _ => format!("{} MB", bytes / 1_048_576),
    });
    let seconds = member.lag_seconds.map(|seconds| format!("{seconds} s"));
    let parts: Vec<String> = bytes.into_iter().chain(seconds).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

async fn preflight(context: &Context, name: &str, allow_warnings: bool) -> Result<Outcome> {
    let reply = context.client()?.post(&["v1", "clusters", name, "preflight"], &[], None::<&()>).await?;
    let Preflight { checks } = reply.read()?;
    let good = |check: &PreflightCheck| match check.result {
        CheckResult::Passed => true,
        CheckResult::Warning => allow_warnings,
        CheckResult::Failed => false,
    };
    let all_good = checks.iter().all(good);
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        let mut table = Table::new(&["CHECK", "RESULT", "MESSAGE"]);
        for PreflightCheck { check, result, message } in checks {
            table.row([check, json_word(result), message]);
        }
        context.out.table(&table, "Nothing was tried.")?;
    }
    Ok(if all_good { Outcome::Done } else { Outcome::Failed })
}
