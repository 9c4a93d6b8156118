//! What people are answered who ask how their databases are.

use std::fmt::Write as _;

use pgtenant_ledger::{Claim, PgConnection, RestoreFilter};
use pgtenant_model::{ClaimKey, Condition, DatabaseState, Restore, Snapshot};
use serde_json::Value;

use super::blocks::{Block, context, header, lines, message, section};
use super::news::Place;
use super::settings::SlackSettings;
use super::text::{Esc, bar, bytes, cut, moment};
use crate::caller::Rights;
use crate::problem::Result;
use crate::store::{self, Wanted};

/// Databases that are listed.
const LISTED: i64 = 200;

/// Letters of a list that is all of a message.
pub(super) const LETTERS: usize = 9000;

/// Only for who asked.
pub(super) fn to_one(mut message: Value) -> Value {
    message["response_type"] = "ephemeral".into();
    message
}

/// Text that is ours, as an answer.
pub(super) fn say(text: &str) -> Value {
    to_one(message(text, vec![section(text)]))
}

pub(super) fn help(command: &str) -> Value {
    let command = Esc(command);
    say(&format!(
        "What `{command}` can do here:\n\
         • `{command} list`: the databases that this channel is linked to\n\
         • `{command} status [DATABASE]`: how they are, or one of them\n\
         • `{command} snapshots DATABASE`: what it can be restored from\n\
         • `{command} restore [DATABASE]`: ask for a restore\n\
         A database is `NAME`, or `NAMESPACE/NAME` where several have the name."
    ))
}

/// Whom to ask, without a word of what there is.
pub(super) fn stranger(platform_channel: Option<&str>) -> Value {
    let place = platform_channel.map(|channel| format!(" in <#{channel}>")).unwrap_or_default();
    say(&format!(
        "Sorry, there is nothing here that I could show you: this channel is not linked to a namespace, or you have no rights in \
         it. Please ask the platform team{place}."
    ))
}

/// Who may look wants to do something.
pub(super) fn only_look(platform_channel: Option<&str>) -> Value {
    let place = platform_channel.map(|channel| format!(" in <#{channel}>")).unwrap_or_default();
    say(&format!(
        "You may look at the databases here, and not ask for a restore. The platform team{place} can name you in the settings."
    ))
}

pub(super) fn not_found(typed: &str, command: &str) -> Value {
    let typed = Esc(cut(typed, 100)).to_string().replace('`', "'");
    say(&format!(
        "There is no database `{typed}` that can be seen from this channel. `{} list` shows those that can.",
        Esc(command)
    ))
}

pub(super) fn several(found: &[ClaimKey]) -> Value {
    let names: Vec<_> = found.iter().map(|key| format!("`{key}`")).collect();
    say(&format!("Several namespaces have a database of this name. Which one: {}?", names.join(", ")))
}

/// Every database, by name.
pub(super) async fn list(db: &mut PgConnection, rights: &Rights) -> Result<Value> {
    let claims = store::claims(db, &rights.scope(), Wanted::default(), LISTED + 1).await?;
    let more = i64::try_from(claims.len()).is_ok_and(|found| found > LISTED);
    let rows: Vec<_> = claims.iter().take(usize::try_from(LISTED).unwrap_or_default()).map(row).collect();
    if rows.is_empty() {
        return Ok(say("There are no databases yet that can be seen from this channel."));
    }
    let mut blocks = lines(&rows, LETTERS);
    if more {
        blocks.push(context(format!("These are the first {LISTED}; `pgtenant db list` shows all.")));
    }
    Ok(to_one(message("Databases", blocks)))
}

pub(super) fn row(claim: &Claim) -> String {
    format!("{} `{}` {}", mark(claim.state), claim.key, claim.state.as_str())
}

pub(super) fn mark(state: DatabaseState) -> &'static str {
    match state {
        DatabaseState::Ready => ":large_green_circle:",
        DatabaseState::Degraded => ":large_yellow_circle:",
        DatabaseState::Failed => ":red_circle:",
        DatabaseState::Retained | DatabaseState::Deleting => ":black_circle:",
        DatabaseState::Pending | DatabaseState::Provisioning => ":white_circle:",
    }
}

pub(super) fn restore_row(restore: &Restore) -> String {
    let bar = bar(&restore.progress);
    let more = if bar.is_empty() { bar } else { format!(" · {bar}") };
    format!(
        "• {}/{}: {:?}{more}, asked for {}",
        restore.namespace,
        restore.name,
        restore.phase,
        moment(restore.created_at)
    )
}

/// Why it is not Ready, with at most `most` letters.
pub(super) fn trouble(conditions: &[Condition], most: usize) -> String {
    let ready = conditions.iter().find(|condition| condition.kind == "Ready");
    ready.map_or_else(|| "not known yet".to_owned(), |condition| cut(Esc(&condition.message).to_string(), most))
}

/// One database.
pub(super) async fn status(
    db: &mut PgConnection,
    rights: &Rights,
    claim: &Claim,
    settings: &SlackSettings,
) -> Result<Value> {
    let Claim { key, spec, state, .. } = claim;
    let mut facts = format!(
        "{} *{}*\n*Database* `{}` on cluster {}\n*Mode* {}",
        mark(*state),
        state.as_str(),
        key.database(),
        Esc(&spec.cluster),
        serde_json::to_value(spec.mode).ok().and_then(|mode| mode.as_str().map(str::to_owned)).unwrap_or_default(),
    );
    if let Some(endpoint) = &claim.endpoint {
        let _ = write!(facts, "\n*Endpoint* `{}:{}`", Esc(&endpoint.host), endpoint.port);
    }
    let _ = write!(facts, "\n*News* {}", told_in(settings, claim));
    let mut blocks: Vec<Block> =
        vec![header(key.to_string()), section(facts), section(format!("> {}", trouble(&claim.conditions, 600)))];
    let wanted = RestoreFilter { name: Some(key.name()), ..RestoreFilter::default() };
    let recent = store::restores(db, &rights.may_read(key.namespace())?.scope(), wanted, 3).await?;
    if !recent.is_empty() {
        blocks.push(section("*Restores*"));
        blocks.extend(lines(&recent.iter().map(restore_row).collect::<Vec<_>>(), LETTERS / 4));
    }
    Ok(to_one(message(format!("{key}: {}", state.as_str()), blocks)))
}

/// Where it is told what becomes of a database.
fn told_in(settings: &SlackSettings, claim: &Claim) -> String {
    let namespace = claim.key.namespace();
    let place = Place::of(settings, namespace, claim.spec.slack_channel.as_deref());
    let channels: Vec<_> = place.channels.iter().map(|channel| format!("<#{channel}>")).collect();
    let channels = if channels.is_empty() { "nowhere".to_owned() } else { format!("in {}", channels.join(", ")) };
    place.finding(namespace).map_or_else(|| channels.clone(), |finding| format!("{channels}: {finding}"))
}

/// What a database can be restored from.
pub(super) fn snapshots(key: &ClaimKey, found: &[Snapshot], command: &str) -> Value {
    let usable: Vec<_> = found.iter().filter(|one| one.contains != Some(false)).collect();
    if usable.is_empty() {
        return say(&format!("There is no snapshot of `{key}`."));
    }
    let rows: Vec<_> = usable.iter().map(|one| snapshot_row(one)).collect();
    let mut blocks = vec![section(format!("*Snapshots of {key}*, the newest first"))];
    blocks.extend(lines(&rows, LETTERS));
    blocks.push(context(format!("`{} restore {key}` asks for a restore.", Esc(command))));
    to_one(message(format!("Snapshots of {key}"), blocks))
}

fn snapshot_row(snapshot: &Snapshot) -> String {
    let mut text = format!("• {} · `{}`", moment(snapshot.at), Esc(&snapshot.id));
    if let Some(size) = snapshot.size {
        let _ = write!(text, " · {}", bytes(size));
    }
    if let Some(tried) = snapshot.verified_at {
        let _ = write!(text, " · restored for a try {}", moment(tried));
    }
    text
}
