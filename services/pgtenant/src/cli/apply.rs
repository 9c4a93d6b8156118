//! `pgtenant apply`: what an apps folder defines, claim by claim through REST.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt as _;
use pgtenant_apps_repo::{CHART, Definition, Guard, Kept, Scan};
use pgtenant_model::{ClaimKey, ClaimSpec, Database, DatabaseState, Mode, PlanReport, Source};
use serde::Serialize;
use serde_json::{Value, json};

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::http::{Client, HttpError};
use super::name::database_path;
use super::output::{Paint, note};
use super::{plan, read, report};

/// Requests at once: fast, and far from every limit.
const AT_ONCE: usize = 8;

/// Arguments of `pgtenant apply`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Each database is asked for by itself: one that is refused does not hold up the others, and the exit status is then
1. The databases belong to REST afterwards; a folder that the control plane follows by itself needs no apply.

Examples:
  pgtenant apply -f apps/ --dry-run
  pgtenant apply -f apps/
  pgtenant apply -f apps/ --prune --yes"
)]
pub(super) struct ApplyArgs {
    /// The apps folder
    #[arg(short = 'f', long = "folder", value_name = "DIR")]
    folder: PathBuf,
    /// Remove databases that were made through REST, in the namespaces of DIR, and that DIR does not define: standard
    /// ones are dropped, protected ones are kept and not managed any more
    #[arg(long)]
    prune: bool,
    /// Remove this many databases at most; when there are more, nothing is done
    #[arg(long, value_name = "N", default_value_t = Guard::default().max_removals, requires = "prune")]
    prune_limit: usize,
    /// Do not ask before removing
    #[arg(short, long)]
    yes: bool,
    /// Only print what would be changed
    #[arg(long)]
    dry_run: bool,
}

/// What was done with a claim.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Applied {
    namespace: String,
    name: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) async fn run(context: &Context, args: &ApplyArgs) -> Result<Outcome> {
    let client = context.client()?;
    let scan = plan::read(&args.folder)?;
    let faulty = plan::print_problems(context, &scan);
    let surplus = if args.prune { surplus(&client, &scan, &args.folder).await? } else { Vec::new() };
    if args.dry_run {
        let outcome = dry_run(context, &client, &scan, &surplus, faulty).await?;
        return within_limit(&surplus, args.prune_limit).map(|()| outcome);
    }
    within_limit(&surplus, args.prune_limit)?;
    confirm_removal(context, args.yes, &surplus)?;
    let mut results = Vec::new();
    let mut wishes = futures::stream::iter(scan.definitions.iter().map(|d| wish(&client, d))).buffered(AT_ONCE);
    while let Some(applied) = wishes.next().await {
        print(context, &applied)?;
        results.push(applied);
    }
    let mut removals =
        futures::stream::iter(surplus.iter().map(|(key, mode)| remove(&client, key, *mode))).buffered(AT_ONCE);
    while let Some(applied) = removals.next().await {
        print(context, &applied)?;
        results.push(applied);
    }
    if context.out.is_for_machines() {
        context.out.document(&results)?;
    }
    let refused = results.iter().any(|applied| applied.error.is_some());
    Ok(if refused || faulty { Outcome::Failed } else { Outcome::Done })
}

fn print(context: &Context, applied: &Applied) -> Result<()> {
    let Applied { namespace, name, result, error } = applied;
    if let Some(error) = error {
        let label = context.out.paint("error:", Paint::Bad);
        note(&format!("{label} {namespace}/{name} refused: {}", error.replace('\n', "\n  ")));
    } else if !context.out.is_for_machines() {
        context.out.line(format!("{namespace}/{name} {result}"))?;
    }
    Ok(())
}

fn applied(key: &ClaimKey, result: Result<&'static str, HttpError>) -> Applied {
    let (result, error) = match result {
        Ok(result) => (result, None),
        Err(error) => ("refused", Some(error.to_string())),
    };
    Applied { namespace: key.namespace().to_owned(), name: key.name().to_owned(), result, error }
}

async fn wish(client: &Client, definition: &Definition) -> Applied {
    applied(&definition.key, put(client, &definition.key, &definition.spec).await)
}

/// Asks for a database, or changes the one that is there.
async fn put(client: &Client, key: &ClaimKey, spec: &ClaimSpec) -> Result<&'static str, HttpError> {
    let ClaimSpec { mode, cluster, schemas, extensions, connection_limit, slack_channel } = spec;
    let mut body = json!({"mode": mode, "cluster": cluster, "schemas": schemas, "extensions": extensions,
                          "connectionLimit": connection_limit, "slackChannel": slack_channel});
    let patch = body.clone();
    body["name"] = Value::from(key.name());
    match client.post(&["v1", "namespaces", key.namespace(), "databases"], &[], Some(&body)).await {
        Ok(reply) => Ok(match (reply.status, reply.operation) {
            (201, _) => "created",
            (_, Some(_)) => "taken back",
            (_, None) => "unchanged",
        }),
        Err(error) if error.slug() == "database-exists" => {
            let reply = client.patch(&database_path(key), None, &patch).await?;
            Ok(if reply.operation.is_some() { "changed" } else { "unchanged" })
        }
        Err(error) => Err(error),
    }
}

async fn remove(client: &Client, key: &ClaimKey, mode: Mode) -> Applied {
    let result = match mode {
        Mode::Standard => client.delete(&database_path(key), &[]).await.map(|_| "deleted"),
        Mode::Protected => {
            let path = [&database_path(key)[..], &["release"]].concat();
            client.post(&path, &[], None::<&()>).await.map(|_| "released")
        }
    };
    applied(key, result)
}

/// Whether what the folder does not define can be taken for removed.
fn speaks_for_all(scan: &Scan, folder: &Path) -> Result<()> {
    if scan.applications == 0 {
        let folder = folder.display();
        return Err(CliError::failed(format!("nothing was done: {folder} has no application of the chart {CHART}")).hint(
            "check that this is the apps folder and that the checkout is whole; to remove the last databases, keep their \
             application and write `postgresqlDatabases: []`",
        ));
    }
    if scan.is_complete() {
        return Ok(());
    }
    for Kept { place, reason, .. } in &scan.kept {
        note(&format!("{place} {}", reason.as_deref().unwrap_or("is being written")));
    }
    Err(CliError::failed("nothing was done: --prune needs a folder without broken files")
        .hint("mend the files above, or leave --prune out"))
}

/// Half a checkout looks as if much had been removed.
fn within_limit(surplus: &[(ClaimKey, Mode)], limit: usize) -> Result<()> {
    let count = surplus.len();
    if count <= limit {
        return Ok(());
    }
    Err(CliError::failed(format!("nothing was done: {count} databases would be removed, and --prune-limit is {limit}"))
        .hint(format!("look at them with --dry-run; if all of them shall go, add --prune-limit {count}")))
}

/// Databases that were made through REST, in the folder's namespaces, and that the folder does not define, not even in
/// a file that is not in use.
async fn surplus(client: &Client, scan: &Scan, folder: &Path) -> Result<Vec<(ClaimKey, Mode)>> {
    speaks_for_all(scan, folder)?;
    let defined: BTreeSet<&ClaimKey> = scan.definitions.iter().map(|definition| &definition.key).collect();
    let mut surplus = Vec::new();
    for namespace in namespaces(folder)? {
        let items = client.list(&["v1", "namespaces", &namespace, "databases"], &[], None).await?;
        for Database { namespace, name, mode, source, state, .. } in read::<Database>(items)? {
            let gone = matches!(state, DatabaseState::Retained | DatabaseState::Deleting);
            let Ok(key) = ClaimKey::new(namespace, name) else { continue };
            if source != Source::Api || gone || defined.contains(&key) {
                continue;
            }
            match scan.may_define(&key) {
                Some(Kept { place, reason, .. }) => {
                    note(&format!("{key} stays: {place} {}", reason.as_deref().unwrap_or("is being written")));
                }
                None => surplus.push((key, mode)),
            }
        }
    }
    Ok(surplus)
}

/// The folders at the top.
fn namespaces(folder: &Path) -> Result<Vec<String>> {
    let fault = |error: std::io::Error| CliError::failed(format!("can not read {}: {error}", folder.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        if let Some(name) = entry.file_name().to_str()
            && entry.path().is_dir()
            && pgtenant_model::check_label("namespace", name).is_ok()
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn confirm_removal(context: &Context, yes: bool, surplus: &[(ClaimKey, Mode)]) -> Result<()> {
    if surplus.is_empty() {
        return Ok(());
    }
    if !yes {
        note(&removal_lines(surplus));
    }
    confirm(context, yes, &format!("Remove {}?", surplus.len()))
}

fn removal_lines(surplus: &[(ClaimKey, Mode)]) -> String {
    let line = |(key, mode): &(ClaimKey, Mode)| match mode {
        Mode::Standard => format!("drop {key} (with all its data)"),
        Mode::Protected => format!("retain {key} (kept, and not managed any more)"),
    };
    surplus.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn dry_run(
    context: &Context,
    client: &Client,
    scan: &Scan,
    surplus: &[(ClaimKey, Mode)],
    faulty: bool,
) -> Result<Outcome> {
    let mut request = pgtenant_apps_repo::to_plan_request(scan);
    request.source = Source::Api;
    request.complete = false;
    let reply = plan::ask(client, &request).await?;
    let found: PlanReport = reply.read()?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
        if !surplus.is_empty() {
            note(&removal_lines(surplus));
        }
    } else {
        context.out.line(report::render(&found, false, &context.out))?;
        if !surplus.is_empty() {
            context.out.line(format!("\n{}", removal_lines(surplus)))?;
        }
    }
    Ok(if faulty || found.has_problems() { Outcome::Failed } else { Outcome::Done })
}
