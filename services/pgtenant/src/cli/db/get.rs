//! `pgtenant db get`.

use chrono::{DateTime, Utc};
use clap::Args;
use pgtenant_model::{Condition, Database, DatabaseState, RoleStatus, Tier};

use crate::cli::context::Context;
use crate::cli::error::{Outcome, Result};
use crate::cli::name::{Target, database_path};
use crate::cli::operation::{fields, json_word};
use crate::cli::output::{Output, Paint, Table, age, time, until};

/// Arguments of `pgtenant db get`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant db get idp-dev/my-db
  pgtenant db get -n idp-dev my-db
  pgtenant db get idp-dev/my-db --output yaml")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(context: &Context, args: &GetArgs) -> Result<Outcome> {
    let key = args.target.key()?;
    let reply = context.client()?.get(&database_path(&key), &[]).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        context.out.line(describe(&reply.read()?, Utc::now(), &context.out))?;
    }
    Ok(Outcome::Done)
}

/// Everything of a database, for people.
pub(super) fn describe(database: &Database, now: DateTime<Utc>, out: &Output) -> String {
    let state = database.state.as_str();
    let next = match database.state {
        DatabaseState::Ready | DatabaseState::Retained => "Next look",
        _ => "Next try",
    };
    let endpoint = database.endpoint.as_ref();
    let generation = if database.generation == database.observed_generation {
        database.generation.to_string()
    } else {
        format!("{} (made true: {})", database.generation, database.observed_generation)
    };
    let limit = database.connection_limit.map_or_else(|| "no limit".to_owned(), |n| format!("{n} a role"));
    let mut text = fields(&[
        ("Name", format!("{}/{}", database.namespace, database.name)),
        ("State", out.paint(state, Paint::of_word(state))),
        ("Mode", database.mode.to_string()),
        ("Cluster", database.cluster.clone()),
        ("Source", database.source.to_string()),
        ("Database", database.database.clone()),
        ("Endpoint", endpoint.map(|e| format!("{}:{}", e.host, e.port)).unwrap_or_default()),
        ("Schemas", database.schemas.join(", ")),
        ("Extensions", database.extensions.join(", ")),
        ("Connections", limit),
        ("Slack", database.slack_channel.clone().unwrap_or_default()),
        ("Generation", generation),
        ("Created", format!("{} ({} ago)", time(database.created_at), age(database.created_at, now))),
        (next, database.next_look_at.map(|at| until(at, now)).unwrap_or_default()),
    ]);
    text.push_str(&format!("\n\nConditions:\n{}", conditions(&database.conditions, now, out)));
    text.push_str(&format!("\n\nRoles:\n{}", roles(database, now, out)));
    text
}

fn conditions(list: &[Condition], now: DateTime<Utc>, out: &Output) -> String {
    if list.is_empty() {
        return "  none yet".to_owned();
    }
    let mut table = Table::new(&["TYPE", "STATUS", "REASON", "AGE", "MESSAGE"]).optional(&["AGE"]);
    for Condition { kind, status, reason, message, last_transition_time } in list {
        let since = age(*last_transition_time, now);
        table.row([kind.clone(), json_word(status), reason.clone(), since, message.clone()]);
    }
    indented(&table, out)
}

fn roles(database: &Database, now: DateTime<Utc>, out: &Output) -> String {
    let mut table = Table::new(&["TIER", "LOGIN", "SET", "CREDENTIAL"]);
    for tier in Tier::ALL {
        let RoleStatus { role: _, login, set_at, stores } = match tier {
            Tier::Read => &database.roles.read,
            Tier::Write => &database.roles.write,
            Tier::Admin => &database.roles.admin,
        };
        let places: Vec<String> = stores.iter().map(|place| format!("{}: {}", place.store, place.location)).collect();
        let set = set_at.map_or_else(|| "not yet".to_owned(), |at| format!("{} ago", age(at, now)));
        table.row([tier.to_string(), login.clone(), set, places.join("\n")]);
    }
    indented(&table, out)
}

fn indented(table: &Table, out: &Output) -> String {
    let narrower = Output { width: out.width.map(|width| width.saturating_sub(2)), ..out.clone() };
    let lines = table.render(&narrower);
    lines.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
