//! `pgtenant rotate`: new passwords for a whole cluster, and `pgtenant cluster rotate-provisioner`: for the control plane itself.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pgtenant_model::ProvisionerStatus;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::http::Client;
use super::output::note;

/// Between looks at how far it is.
const LOOK: Duration = Duration::from_secs(1);
/// As a shell says that a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Arguments of `pgtenant rotate`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Every claim gets new passwords for its three tiers, in every store. No application is refused meanwhile, and
open sessions go on. For one claim: pgtenant db rotate NAMESPACE/NAME.

Examples:
  pgtenant rotate --all --cluster default
  pgtenant rotate --all --cluster default --per-minute 10 --no-wait
  pgtenant rotate --all --cluster default --at-once"
)]
pub(super) struct RotateArgs {
    /// All claims of the cluster
    #[arg(long, required = true)]
    all: bool,
    /// The cluster
    #[arg(long, value_name = "NAME", default_value = "default")]
    cluster: String,
    /// Claims a minute
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    per_minute: u32,
    /// As fast as it can be done
    #[arg(long, conflicts_with = "per_minute")]
    at_once: bool,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    asked_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
struct OwnLogin {
    provisioner: Option<ProvisionerStatus>,
}

#[derive(Debug, Deserialize)]
struct Rotating {
    left: u64,
    failing: u64,
}

/// Asks for another password of the control plane's own login, and waits until it is in use.
pub(super) async fn provisioner(context: &Context, cluster: &str, no_wait: bool) -> Result<Outcome> {
    let client = context.client()?;
    let reply = client.post(&["v1", "clusters", cluster, "provisioner", "rotate"], &[], None::<&()>).await?;
    let Asked { asked_at } = reply.read()?;
    if no_wait {
        if context.out.is_for_machines() {
            context.out.document(&reply.document()?)?;
        } else {
            context.out.line(format!("cluster {cluster}: the control plane gets another password"))?;
        }
        return Ok(Outcome::Done);
    }
    let deadline = Instant::now() + context.wait_timeout();
    loop {
        let reply = client.get(&["v1", "clusters", cluster], &[]).await?;
        let OwnLogin { provisioner } = reply.read()?;
        if let Some(ProvisionerStatus { login, turned_at: Some(at) }) = provisioner
            && at >= asked_at
        {
            if context.out.is_for_machines() {
                context.out.document(&reply.document()?)?;
            } else {
                context.out.line(format!("cluster {cluster}: the control plane logs in as {login} now"))?;
            }
            return Ok(Outcome::Done);
        }
        if Instant::now() > deadline {
            return Err(CliError::failed(format!("cluster {cluster}: it was not replaced in time")).hint(format!(
                "pgtenant cluster preflight {cluster} says why; within some minutes of another turn it waits"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn run(context: &Context, args: &RotateArgs) -> Result<Outcome> {
    let client = context.client()?;
    let body = if args.at_once { json!({}) } else { json!({"perMinute": args.per_minute}) };
    let reply = client.post(&["v1", "clusters", &args.cluster, "rotate"], &[], Some(&body)).await?;
    let Rotating { left, .. } = reply.read()?;
    if args.no_wait || left == 0 {
        if context.out.is_for_machines() {
            context.out.document(&reply.document()?)?;
        } else {
            context.out.line(format!("cluster {}: {left} claims get new passwords", args.cluster))?;
        }
        return Ok(Outcome::Done);
    }
    // The pace alone takes that long; on top of it as long as one claim may take.
    let paced = if args.at_once { 0 } else { 60 * left / u64::from(args.per_minute) };
    let deadline = Instant::now() + Duration::from_secs(paced) + context.wait_timeout();
    let bar = bar(left);
    tokio::select! {
        ended = follow(&client, &args.cluster, &bar, deadline) => ended?,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            bar.finish_and_clear();
            note(&format!("cluster {} goes on without you; the same command shows how far it is", args.cluster));
            return Ok(Outcome::Status(INTERRUPTED));
        }
    }
    bar.finish_and_clear();
    if context.out.is_for_machines() {
        let reply = client.get(&["v1", "clusters", &args.cluster, "rotation"], &[]).await?;
        context.out.document(&reply.document()?)?;
    } else {
        context.out.line(format!("cluster {}: {left} claims have new passwords", args.cluster))?;
    }
    Ok(Outcome::Done)
}

fn bar(left: u64) -> ProgressBar {
    let bar = ProgressBar::new(left);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} claims {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}

async fn follow(client: &Client, cluster: &str, bar: &ProgressBar, deadline: Instant) -> Result<()> {
    let all = bar.length().unwrap_or_default();
    loop {
        let failing = match client.get(&["v1", "clusters", cluster, "rotation"], &[]).await {
            Ok(reply) => {
                let Rotating { left, failing } = reply.read()?;
                bar.set_position(all.saturating_sub(left));
                if left == 0 {
                    return Ok(());
                }
                failing
            }
            Err(error) if error.is_transient() => 0,
            Err(error) => return Err(error.into()),
        };
        let text = if failing == 0 { String::new() } else { format!("{failing} are tried again") };
        bar.set_message(text.clone());
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            let left = all - bar.position();
            return Err(CliError::failed(format!(
                "cluster {cluster}: {left} claims still have their old passwords. {text}"
            ))
            .hint("they are tried again by themselves; `pgtenant db list --state Degraded` names those that fail"));
        }
        tokio::time::sleep(LOOK).await;
    }
}
