//! Files of the charts 0.4.1 and 0.5.0 in the form of today. Pure: text in, text out.
//!
//! A file is changed by spans, so that every byte that is not concerned stays: comments, order, quotes, line breaks. What
//! comes out is read again and compared with what the file meant before; where that differs, the file is refused.

mod chart;
mod diff;
mod edit;
mod fields;
mod lists;
mod merge;
mod old;
mod source;

use std::fmt;
use std::str::FromStr;

use pgtenant_ledger::AppsProblem;

pub(crate) use chart::{Chart, rewrite as rewrite_application};
pub(crate) use diff::unified;

use crate::problem::{clean, problem};
use crate::reader::Reader;
use crate::scan::Definition;
use crate::tree::{self, Fault, Node};
use crate::values::{self, LIST};
use edit::Edits;
use lists::{List, both, expected, find, same};
use old::{Turn, word};
use source::Source;

/// The net below: it catches mistakes of this module.
const NOT_SAME: &str = "was not changed, because what came out would not say the same; change this file by hand, and \
                        please report it";

/// Something to say about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The line, from 1, before the change.
    pub line: u32,
    /// For people, in one line.
    pub message: String,
}

impl Remark {
    pub(crate) fn new(line: u32, message: &str) -> Self {
        Self { line, message: clean(message) }
    }
}

/// A file in its new form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) text: String,
    pub(crate) changes: Vec<Remark>,
    /// What a person should look at.
    pub(crate) notes: Vec<Remark>,
}

/// The version of a chart that knows `mode`: from 1.0.0 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChartVersion(String);

/// A text is no [`ChartVersion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version from 1.0.0 on is needed, as 1.0.0 or 1.2.0-rc.1")]
pub struct InvalidChartVersion;

impl FromStr for ChartVersion {
    type Err = InvalidChartVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let suffix = &text[numbers.len()..];
        let number = |part: &str| {
            let digits = !part.is_empty() && part.len() < 10 && part.bytes().all(|b| b.is_ascii_digit());
            digits && (part == "0" || !part.starts_with('0'))
        };
        let words = |words: &str| {
            words.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+".contains(&b)) && !words.ends_with(['.', '-', '+'])
        };
        let parts: Vec<&str> = numbers.split('.').collect();
        let known = parts.len() == 3 && parts.iter().all(|part| number(part)) && parts[0] != "0";
        if known && words(suffix) { Ok(Self(text.to_owned())) } else { Err(InvalidChartVersion) }
    }
}

impl fmt::Display for ChartVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A `values.yaml` in the form of today; none where it has that already. `file` is its name for messages.
///
/// # Errors
/// What is wrong with the file, and why it can not be changed.
pub(crate) fn rewrite_values(file: &str, namespace: &str, text: &str) -> Result<Option<Rewritten>, Vec<AppsProblem>> {
    let Some(root) = tree::parse(text).map_err(|fault| problems(file, &fault))? else { return Ok(None) };
    let mut reader = Reader::new(file);
    let lists = find(&mut reader, &root);
    if reader.has_faults() {
        return Err(reader.into_problems());
    }
    let wanted = expected(&root, &lists);
    let meant = definitions(file, namespace, &wanted)?;
    if !is_old(&lists) {
        return Ok(None);
    }
    let result = edited(text, &root, &lists).map_err(|fault| problems(file, &fault))?;
    let parsed = tree::parse(&result).ok().flatten();
    let said = parsed.as_ref().map(|parsed| definitions(file, namespace, parsed));
    match (parsed, said) {
        (Some(parsed), Some(Ok(said))) if same(&parsed, &wanted) && says(&said, &meant) => {}
        _ => return Err(problems(file, &Fault::new(0, NOT_SAME))),
    }
    let (changes, notes) = remarks(&lists);
    Ok(Some(finish(text, result, changes, notes)))
}

fn is_old(lists: &[List]) -> bool {
    lists.iter().any(|list| list.is_old() || list.turns.iter().any(Option::is_some))
}

/// What the strict reader understands.
fn definitions(file: &str, namespace: &str, root: &Node) -> Result<Vec<Definition>, Vec<AppsProblem>> {
    let values = values::read(file, namespace, root);
    if values.problems.is_empty() { Ok(values.definitions) } else { Err(values.problems) }
}

fn says(a: &[Definition], b: &[Definition]) -> bool {
    let both = |definition: &Definition| (definition.key.clone(), definition.spec.clone());
    a.iter().map(both).eq(b.iter().map(both))
}

/// The entries first; then, in what has come out, the lists.
fn edited(text: &str, root: &Node, lists: &[List]) -> Result<String, Fault> {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(bare);
    source::check(&source, root)?;
    let mut edits = Edits::default();
    for list in lists {
        for (entry, turn) in list.items().iter().zip(&list.turns) {
            if let Some(turn) = turn {
                fields::rewrite(&source, &mut edits, entry, turn)?;
            }
        }
    }
    let bare = edits.apply(bare).ok_or_else(|| Fault::new(0, NOT_SAME))?;
    let Some(root) = tree::parse(&bare)? else { return Err(Fault::new(0, NOT_SAME)) };
    let now = find(&mut Reader::new(""), &root);
    let mut edits = Edits::default();
    // Lines may have gone: the place is told as it was before.
    let as_before = |fault: Fault| Fault::new(lists.last().map_or(0, |list| list.key.line), fault.message);
    merge::rewrite(&Source::new(&bare), &mut edits, &now).map_err(as_before)?;
    if edits.is_empty() {
        return Ok(bare);
    }
    edits.apply(&bare).ok_or_else(|| Fault::new(0, NOT_SAME))
}

/// Puts the byte order mark back.
fn finish(before: &str, after: String, changes: Vec<Remark>, notes: Vec<Remark>) -> Rewritten {
    let text = if before.starts_with('\u{feff}') { format!("\u{feff}{after}") } else { after };
    Rewritten { text, changes, notes }
}

fn problems(file: &str, fault: &Fault) -> Vec<AppsProblem> {
    vec![problem(file, fault.line, "", &fault.message)]
}

/// What is changed, and what should be looked at.
fn remarks(lists: &[List]) -> (Vec<Remark>, Vec<Remark>) {
    let (mut changes, mut notes) = (Vec::new(), Vec::new());
    for list in lists {
        if list.is_old() {
            changes.push(Remark::new(list.key.line, &format!("{} becomes {LIST}", lists::OLD_LIST)));
        }
        for (entry, turn) in list.items().iter().zip(&list.turns) {
            if let Some(turn) = turn {
                let (line, name, fields) = described(entry, turn);
                changes.push(Remark::new(line, &format!("{name}: mode: {} in place of {fields}", turn.mode)));
                notes.extend(turn.discord.as_ref().map(|discord| discordant(line, &name, discord)));
            }
        }
    }
    if let Some((first, second)) = both(lists) {
        let message = format!("the list joins that of line {}", first.key.line);
        changes.push(Remark::new(second.key.line, &message));
    }
    changes.sort_by_key(|change| change.line);
    (changes, notes)
}

/// An entry's line, its name in quotes, and its fields of an older chart.
fn described(entry: &Node, turn: &Turn) -> (u32, String, String) {
    let tree::Data::Map(pairs) = &entry.data else { return (entry.line, String::new(), String::new()) };
    let name = pairs.iter().find(|(key, _)| word(key) == Some("name")).and_then(|(_, value)| word(value));
    let keys = turn.pairs.iter().filter_map(|index| word(&pairs[*index].0)).filter(|key| *key != "mode");
    let line = turn.pairs.first().map_or(entry.line, |index| pairs[*index].0.line);
    (line, format!("{:?}", name.unwrap_or_default()), keys.collect::<Vec<_>>().join(", "))
}

fn discordant(line: u32, name: &str, discord: &str) -> Remark {
    let message = format!(
        "{name}: {discord} do not agree; mode: protected was chosen, the safer one: it keeps database, roles and \
         credentials when the entry is removed. Write mode: standard if they shall go"
    );
    Remark::new(line, &message)
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
