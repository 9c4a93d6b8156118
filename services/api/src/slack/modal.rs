//! The window in which a restore is asked for, and what comes back from it.

use chrono::{DateTime, Utc};
use pgtenant_model::{ClaimKey, RestorePoint, RestoreSpec, RestoreStrategy, Snapshot};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::blocks::{Block, Choice, Element, Input, OPTIONS, choice, context, input, modal, section, select};
use super::find::key_of;
use super::payload::{State, View};
use super::signature::{seal, unseal};
use super::text::{Esc, bytes, plain_moment};

/// Names the window.
pub(super) const CALLBACK: &str = "restore";
/// Ids of its fields.
pub(super) const DATABASE: &str = "database";
const SNAPSHOT: &str = "snapshot";
const TIME: &str = "time";
const STRATEGY: &str = "strategy";
const COPY: &str = "copy";
const REASON: &str = "reason";
/// The choice of the newest snapshot.
const LATEST: &str = "latest";

/// From where a window was opened, and by whom. Nobody but us can have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) channel: String,
    pub(super) user: String,
}

impl Opened {
    fn sealed(&self, secret: &SecretString) -> String {
        seal(secret, &format!("{} {}", self.channel, self.user))
    }

    /// From a window that `user` sends; none: it is not theirs, or was tampered with.
    pub(super) fn of(view: &View, user: &str, secret: &SecretString) -> Option<Self> {
        let (channel, opener) = unseal(secret, &view.private_metadata)?.split_once(' ')?;
        (opener == user).then(|| Self { channel: channel.to_owned(), user: opener.to_owned() })
    }
}

/// The databases that can be chosen.
#[derive(Debug, Clone)]
pub(super) enum Databases {
    /// All of them.
    These(Vec<ClaimKey>),
    /// More than a menu takes: they are looked for as one types.
    Many,
}

/// What is known of the snapshots of the database that is chosen.
#[derive(Debug, Clone)]
pub(super) enum Snapshots {
    /// They are being looked for.
    Awaited,
    /// These.
    Found(Vec<Snapshot>),
    /// Why they are not known.
    Unknown(String),
}

/// The window.
pub(super) fn window(
    secret: &SecretString,
    opened: &Opened,
    databases: &Databases,
    chosen: Option<&ClaimKey>,
    snapshots: &Snapshots,
) -> Value {
    let mut blocks = vec![Block::from(database_field(databases, chosen))];
    blocks.extend(snapshot_fields(chosen, snapshots));
    let strategy = Element::RadioButtons { action_id: STRATEGY, options: strategies(), initial_option: swap() };
    blocks.push(Block::from(input(STRATEGY, "What becomes of the database that is there", strategy)));
    let copy = Element::PlainTextInput { action_id: COPY, multiline: false, max_length: 53 };
    let copy = input(COPY, "Name of the new database", copy).optional();
    blocks
        .push(Block::from(copy.hint("Only where a copy is made: it becomes a database beside the one that is there.")));
    let reason = Element::PlainTextInput { action_id: REASON, multiline: true, max_length: 500 };
    blocks.push(Block::from(input(REASON, "Reason", reason).hint("For whoever approves it.")));
    modal(CALLBACK, "Restore a database", "Ask for it", &opened.sealed(secret), blocks)
}

pub(super) fn database_choice(key: &ClaimKey) -> Option<Choice> {
    choice(&key.to_string(), &key.to_string())
}

fn database_field(databases: &Databases, chosen: Option<&ClaimKey>) -> Input {
    let initial = chosen.and_then(database_choice);
    let by_typing =
        |initial| Element::ExternalSelect { action_id: DATABASE, min_query_length: 0, initial_option: initial };
    let element = match databases {
        Databases::These(all) => {
            let options = all.iter().filter_map(database_choice).collect();
            select(DATABASE, options, initial.clone()).unwrap_or_else(|| by_typing(initial))
        }
        Databases::Many => by_typing(initial),
    };
    input(DATABASE, "Database", element).dispatched()
}

/// The block's id names the database: a choice made for another one does not stay.
fn snapshot_block(key: &ClaimKey) -> String {
    format!("{SNAPSHOT}:{key}")
}

fn snapshot_fields(chosen: Option<&ClaimKey>, snapshots: &Snapshots) -> Vec<Block> {
    let Some(key) = chosen else { return vec![context("Choose a database; its snapshots are shown then.")] };
    let found: &[Snapshot] = if let Snapshots::Found(all) = snapshots { all } else { &[] };
    let usable: Vec<_> = found.iter().filter(|one| one.contains != Some(false)).collect();
    let newest = choice("The newest snapshot", LATEST);
    let choices = usable.iter().filter_map(|one| snapshot_choice(one));
    let options: Vec<Choice> = newest.clone().into_iter().chain(choices).collect();
    let shown = options.len().min(OPTIONS) - 1;
    let mut blocks: Vec<Block> = select(SNAPSHOT, options, newest)
        .map(|element| Block::from(input(snapshot_block(key), "Snapshot", element)))
        .into_iter()
        .collect();
    let time = input(TIME, "Or as it was at", Element::Datetimepicker { action_id: TIME }).optional();
    blocks.push(Block::from(
        time.hint("In place of a snapshot: the newest one before that, or the instant itself where that can be done."),
    ));
    blocks.extend(note(snapshots, usable.len(), shown));
    blocks
}

fn note(snapshots: &Snapshots, usable: usize, shown: usize) -> Option<Block> {
    match snapshots {
        Snapshots::Awaited => Some(context(":hourglass_flowing_sand: Its snapshots are being looked for …")),
        Snapshots::Unknown(why) => Some(section(format!(
            ":warning: Its snapshots can not be listed now: {}. The newest one can be asked for.",
            Esc(why)
        ))),
        Snapshots::Found(_) if usable == 0 => Some(section(
            ":warning: There is no snapshot of it. A restore that is asked for now fails unless there is one by then.",
        )),
        Snapshots::Found(_) if usable > shown => Some(context(format!(
            "{shown} of {usable} snapshots are shown. Choose a time for another one, or name it with `pgtenant restore request`."
        ))),
        Snapshots::Found(_) => None,
    }
}

/// None for a name that no menu takes.
fn snapshot_choice(snapshot: &Snapshot) -> Option<Choice> {
    let Snapshot { id, at, size, contains: _, verified_at, location: _ } = snapshot;
    let mut text = format!("{} · {}", plain_moment(*at), id.kind().as_str());
    if let Some(size) = size {
        text.push_str(&format!(" · {}", bytes(*size)));
    }
    if verified_at.is_some() {
        text.push_str(" · tried");
    }
    choice(&text, &id.to_string())
}

fn swap() -> Choice {
    strategy("Swap", "swap", "A copy is loaded beside it and takes its place; it is kept for a time")
}

fn strategies() -> Vec<Choice> {
    let replace = strategy("Replace", "replace", "It is emptied and filled again in place, after a dump");
    let copy = strategy("Copy", "copy", "It stays; the copy is another database");
    vec![swap(), replace, copy]
}

fn strategy(text: &str, value: &str, description: &str) -> Choice {
    // The values are ours, and short.
    choice(text, value).map_or_else(|| unreachable!("{value} fits"), |one| one.described(description))
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) key: ClaimKey,
    pub(super) spec: RestoreSpec,
}

/// What is wrong with a field: its block, and why.
pub(super) type FieldFault = (String, String);

/// Reads the window. What it holds is not believed: the database is looked up again with what its sender may do.
pub(super) fn wish(state: &State) -> Result<Wish, FieldFault> {
    let fault = |block: &str, why: &str| (block.to_owned(), why.to_owned());
    let (_, database) = state.chosen(DATABASE).ok_or_else(|| fault(DATABASE, "Choose a database."))?;
    let key = key_of(database).ok_or_else(|| fault(DATABASE, "Choose a database of the menu."))?;
    let strategy = match state.chosen(STRATEGY).map(|(_, value)| value) {
        Some("replace") => RestoreStrategy::Replace,
        Some("copy") => RestoreStrategy::Copy,
        _ => RestoreStrategy::Swap,
    };
    let copy_name = state.typed(COPY).map(str::to_owned);
    if copy_name.is_some() && strategy != RestoreStrategy::Copy {
        return Err(fault(COPY, "Choose Copy above, or leave this empty."));
    }
    let from = from(state, &key)?;
    let reason = state.typed(REASON).ok_or_else(|| fault(REASON, "Say why."))?;
    Ok(Wish { key, spec: RestoreSpec { from, strategy, copy_name, reason: Some(reason.to_owned()) } })
}

fn from(state: &State, key: &ClaimKey) -> Result<RestorePoint, FieldFault> {
    let chosen = match state.chosen(SNAPSHOT) {
        Some((block, value)) if value != LATEST && block != snapshot_block(key) => {
            let why = "The snapshots of this database are still being looked for. Wait for them, and choose one.";
            return Err((DATABASE.to_owned(), why.to_owned()));
        }
        chosen => chosen.map(|(_, value)| value),
    };
    let mut from = RestorePoint { snapshot: None, time: None, latest: false };
    let instant = |seconds| DateTime::from_timestamp(seconds, 0).filter(|at: &DateTime<Utc>| at.timestamp() > 0);
    match (state.instant(TIME).map(instant), chosen) {
        (Some(Some(_)), Some(value)) if value != LATEST => {
            let why = "Choose a snapshot or a time, not both: leave the newest snapshot chosen where a time is meant.";
            return Err((TIME.to_owned(), why.to_owned()));
        }
        (Some(Some(time)), _) => from.time = Some(time),
        (Some(None), _) => return Err((TIME.to_owned(), "This is no time.".to_owned())),
        (None, None | Some(LATEST)) => from.latest = true,
        (None, Some(value)) => {
            let snapshot =
                value.parse().map_err(|_| (snapshot_block(key), "Choose a snapshot of the menu.".to_owned()))?;
            from.snapshot = Some(snapshot);
        }
    }
    Ok(from)
}

/// The block that shows what is wrong with a field of [`RestoreSpec`]; one that the window has.
pub(super) fn block_of(field: &str, state: &State, key: &ClaimKey) -> String {
    let block = match field {
        "copyName" => COPY.to_owned(),
        "reason" => REASON.to_owned(),
        "from" => snapshot_block(key),
        "strategy" => STRATEGY.to_owned(),
        _ => DATABASE.to_owned(),
    };
    if state.has(&block) { block } else { DATABASE.to_owned() }
}

/// Keeps the window open, and says what is wrong with it.
pub(super) fn faults(faults: impl IntoIterator<Item = FieldFault>) -> Value {
    let errors: serde_json::Map<String, Value> =
        faults.into_iter().map(|(block, why)| (block, Value::String(super::text::cut(why, 500)))).collect();
    json!({"response_action": "errors", "errors": errors})
}

/// Closes the window.
pub(super) fn clear() -> Value {
    json!({"response_action": "clear"})
}
