//! `pgtenant lab`: highly available clusters on this machine. It asks no control plane.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use pgtenant_lab::{Binaries, Lab, LabKind, LabOptions, LabStatus, Lifetime};

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::operation::fields;
use super::output::{Table, note};
use super::server::explain;
use crate::attach::Superuser;
use crate::dev::{data_folder, make_passable};

/// What there is to do with a lab.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum LabCommand {
    /// Make a lab, or start what does not run of it
    #[command(
        after_help = "Real servers from Debian's packages, as the kind's users run them: as user postgres where root starts them, on
loopback alone, with TLS and SCRAM. They go on until `lab down`. What is missing on this machine is named before
anything is started. Failures are noticed within 2 to 6 s, which is sooner than the kinds' own settings have it.

Examples:
  pgtenant lab up --topology patroni
  pgtenant lab up --topology streaming --nodes 3 --dir ./try
  pgtenant lab up --topology haproxy --pgbouncer
  pgtenant lab up --topology haproxy --keepalived
  pgtenant lab up                      # the lab that is there goes on, killed nodes included"
    )]
    Up(UpArgs),
    /// Show nodes, what they are, and where clients go
    #[command(after_help = "Examples:\n  pgtenant lab status\n  pgtenant lab status --output json")]
    Status(DirArgs),
    /// End all processes of a node with SIGKILL, as a machine that loses power
    #[command(
        after_help = "Examples:\n  pgtenant lab kill node-1\n  pgtenant lab kill 1 --dir ./try\n  pgtenant lab kill pgbouncer"
    )]
    Kill(NodeArgs),
    /// Start a node; it is rewound, or copied anew, where it has to be
    #[command(after_help = "Examples:\n  pgtenant lab start node-1")]
    Start(NodeArgs),
    /// Make a standby the primary; only for `streaming`, where nothing else does
    #[command(after_help = "A primary that runs is stopped first; `lab start` brings it back as a standby.

Examples:
  pgtenant lab promote node-2")]
    Promote(NodeArgs),
    /// Add nodes, or take standbys away with their data
    #[command(after_help = "Examples:\n  pgtenant lab scale 3")]
    Scale(ScaleArgs),
    /// New passwords for the lab's own logins, while everything runs
    #[command(after_help = "Standbys, tools and clients go on. Interrupted, it is done again with the same command.

Examples:
  pgtenant lab rotate                  # postgres, and those by which servers and tools log in
  pgtenant lab rotate repmgr")]
    Rotate(RotateArgs),
    /// Stop all of it; its data stays, unless --remove is given
    #[command(after_help = "Examples:\n  pgtenant lab down\n  pgtenant lab down --remove --yes")]
    Down(DownArgs),
}

#[derive(Debug, Clone, Args)]
pub(super) struct DirArgs {
    /// The lab's folder [default: `lab` beside that of `pgtenant dev`]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct UpArgs {
    /// How the cluster is kept available; a lab that is there keeps its own
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    topology: Option<LabKind>,
    /// How many nodes [default: 2; 3 for `patroni`, `repmgr` and `haproxy`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// PgBouncer in front, with transaction pooling; behind it HAProxy, where the kind has none. It stays
    #[arg(long)]
    pgbouncer: bool,
    /// Of kind haproxy, as root: two HAProxies in network namespaces, behind an address that Keepalived moves
    #[arg(long)]
    keepalived: bool,
    #[command(flatten)]
    dir: DirArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct NodeArgs {
    /// The node, as `lab status` names it; of what is in front, `haproxy` (`balancer-1`, `balancer-2`) and `pgbouncer`
    node: String,
    #[command(flatten)]
    dir: DirArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ScaleArgs {
    /// How many nodes there are to be
    #[arg(value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    #[command(flatten)]
    dir: DirArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct RotateArgs {
    /// One of the lab's own logins [default: all]
    login: Option<String>,
    #[command(flatten)]
    dir: DirArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct DownArgs {
    /// Remove the folder, with all data
    #[arg(long)]
    remove: bool,
    /// Do not ask
    #[arg(short, long, requires = "remove")]
    yes: bool,
    #[command(flatten)]
    dir: DirArgs,
}

fn kinds() -> impl clap::builder::TypedValueParser<Value = LabKind> {
    PossibleValuesParser::new(LabKind::ALL.map(LabKind::name)).try_map(|text| text.parse::<LabKind>())
}

pub(super) async fn run(context: &Context, command: LabCommand) -> Result<Outcome> {
    match command {
        LabCommand::Up(args) => up(context, args).await?,
        LabCommand::Status(args) => show(context, &args.open()?.status().await)?,
        LabCommand::Kill(NodeArgs { node, dir }) => {
            let mut lab = dir.open()?;
            lab.kill(&node).await.map_err(fault)?;
            note(&format!("{node} is dead; `pgtenant lab start {node}` brings it back"));
        }
        LabCommand::Start(NodeArgs { node, dir }) => dir.open()?.start(&node, note).await.map_err(fault)?,
        LabCommand::Promote(NodeArgs { node, dir }) => dir.open()?.promote(&node, note).await.map_err(fault)?,
        LabCommand::Scale(ScaleArgs { nodes, dir }) => {
            let mut lab = dir.open()?;
            lab.scale(nodes, note).await.map_err(fault)?;
            show(context, &lab.status().await)?;
        }
        LabCommand::Rotate(RotateArgs { login, dir }) => {
            dir.open()?.rotate(login.as_deref(), note).await.map_err(fault)?;
        }
        LabCommand::Down(args) => down(context, args).await?,
    }
    Ok(Outcome::Done)
}

async fn up(context: &Context, args: UpArgs) -> Result<()> {
    let UpArgs { topology, nodes, pgbouncer, keepalived, dir } = args;
    let dir = dir.path()?;
    let kind = match topology {
        Some(kind) => kind,
        None => Lab::kind_of(&dir).map_err(fault)?.ok_or_else(|| {
            let known = LabKind::ALL.map(LabKind::name).join(", ");
            CliError::usage(format!("there is no lab in {} yet", dir.display()))
                .hint(format!("say which kind it is to be: --topology, one of {known}"))
        })?,
    };
    make_passable(&dir).map_err(|error| CliError::failed(format!("can not make {}: {error}", dir.display())))?;
    let options = LabOptions {
        nodes,
        pgbouncer,
        keepalived,
        health_program: std::env::current_exe().ok(),
        ..LabOptions::new(&dir, kind, Binaries::locate(None).map_err(fault)?)
    };
    let mut lab = Lab::create(options).map_err(fault)?;
    note(&format!("everything is kept in {}", lab.dir().display()));
    lab.up(note).await.map_err(fault)?;
    if let Some(pooler) = lab.pooler().map_err(fault)? {
        let prepared = async { Superuser::of(&lab).await?.attach(Vec::new(), Some(pooler)).await }.await;
        prepared.map_err(|error| explain(&*error))?;
    }
    show(context, &lab.status().await)
}

async fn down(context: &Context, args: DownArgs) -> Result<()> {
    let DownArgs { remove, yes, dir } = args;
    let mut lab = dir.open()?;
    if !remove {
        return lab.down(note).await.map_err(fault);
    }
    let question = format!("Remove {} with all data of the lab?", lab.dir().display());
    confirm(context, yes, &question)?;
    lab.remove(note).await.map_err(fault)
}

impl DirArgs {
    fn path(&self) -> Result<PathBuf> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => data_folder("lab").map_err(|error| explain(&*error)),
        }
    }

    fn open(&self) -> Result<Lab> {
        let binaries = Binaries::locate(None).map_err(fault)?;
        Lab::open(&self.path()?, binaries, Lifetime::Detached).map_err(fault)
    }
}

fn fault(error: pgtenant_lab::Error) -> CliError {
    explain(&error)
}

fn show(context: &Context, status: &LabStatus) -> Result<()> {
    if context.out.is_for_machines() {
        return Ok(context.out.document(status)?);
    }
    let mut table = Table::new(&["NODE", "ROLE", "PORT", "RUNS", "SAID"]);
    for node in &status.nodes {
        let runs = if node.processes.is_empty() { "-".to_owned() } else { node.processes.join(", ") };
        table.row([node.name.clone(), node.role.word().to_owned(), node.port.to_string(), runs, node.said.clone()]);
    }
    context.out.table(&table, "The lab has no nodes.")?;
    let services = status.services.iter().map(|service| {
        let dead = if service.running { "" } else { " (does not run)" };
        let holds = service.holds.map(|address| format!(" (has {address})")).unwrap_or_default();
        format!("{} {}{dead}{holds}", service.name, service.address)
    });
    context.out.line(format!(
        "\n{}",
        fields(&[
            ("Kind", format!("{}, PostgreSQL {}", status.kind, status.version)),
            ("Folder", status.dir.display().to_string()),
            ("Beside", services.collect::<Vec<_>>().join(", ")),
            ("Write", status.endpoints.write.join(", ")),
            ("Read", status.endpoints.read.join(", ")),
            ("Pool", status.endpoints.pool.clone().unwrap_or_default()),
            ("Log in", status.admin.psql.clone()),
        ])
    ))?;
    Ok(())
}
