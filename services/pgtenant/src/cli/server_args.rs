//! Arguments of the commands that run the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pgtenant_lab::LabKind;

use super::migrate_values::ValuesArgs;
use crate::config::SettingsArgs;

/// `pgtenant dev`: everything on this machine.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant dev                         # then, in another terminal: . DIR/env
  pgtenant dev --dir ./try --listen 127.0.0.1:9090
  pgtenant dev --kubernetes            # then: . DIR/env; kubectl get pgdb -A
  pgtenant dev --aws                   # then: . DIR/env; aws secretsmanager list-secrets
  pgtenant dev --topology patroni      # then: . DIR/env; pgtenant cluster switchover default
  pgtenant dev --topology haproxy --pgbouncer
  pgtenant dev --backups               # then: . DIR/env; pgtenant restore request demo/orders")]
pub(crate) struct DevArgs {
    /// Where everything is kept: apps folder, credentials, clusters, env [default: the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Address and port that REST is served on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Also start a Kubernetes API server, with the resources and webhooks in place
    #[arg(long)]
    pub(crate) kubernetes: bool,
    /// Also start moto in the place of Amazon (needs Python 3), and keep credentials in its Secrets Manager, too
    #[arg(long)]
    pub(crate) aws: bool,
    /// The kind of the shared cluster, in place of a primary and a standby: streaming, repmgr, haproxy, patroni or pg-auto-failover. Its lab is
    /// in DIR/lab; without this, what is there goes on
    #[arg(long, value_name = "KIND")]
    pub(crate) topology: Option<LabKind>,
    /// Also start PgBouncer in front of the cluster of --topology; without this, one that is there goes on
    #[arg(long)]
    pub(crate) pgbouncer: bool,
    /// Dump each database daily, into DIR/backups, with a first one at once
    #[arg(long)]
    pub(crate) backups: bool,
}

/// `pgtenant serve`: the control plane, for clusters that exist.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant config check --config /etc/pgtenant/pgtenant.toml
  pgtenant serve --config /etc/pgtenant/pgtenant.toml
  PGTENANT_LOG__FORMAT=json pgtenant serve --listen 0.0.0.0:8080")]
pub(crate) struct ServeArgs {
    /// The settings.
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// `pgtenant migrate`: bring the ledger's schema up to date; with a subcommand, what tenants wrote for older charts.
#[derive(Debug, Clone, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  pgtenant migrate --config /etc/pgtenant/pgtenant.toml
  PGTENANT_LEDGER__URL=postgresql://pgtenant@db/pgtenant pgtenant migrate --ledger-password-file /run/secrets/ledger
  pgtenant migrate values -f apps/     # files of older charts; nothing is asked of the ledger"
)]
pub(crate) struct MigrateArgs {
    /// The settings.
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// What else to migrate.
    #[command(subcommand)]
    pub(crate) command: Option<MigrateCommand>,
}

/// What there is to migrate beside the ledger.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Rewrite an apps folder that was written for the charts 0.4.1 and 0.5.0
    Values(ValuesArgs),
}
