//! One list from two, and its new name.

use std::ops::Range;

use super::edit::Edits;
use super::lists::{List, both};
use super::source::{BY_HAND, Source, is_idle};
use crate::tree::{Data, Fault, Node, Style};
use crate::values::LIST;

/// Notes the edits that lists need whose entries are new already.
///
/// # Errors
/// Two lists can not be made one by moving lines.
pub(crate) fn rewrite(source: &Source<'_>, edits: &mut Edits, lists: &[List]) -> Result<(), Fault> {
    let Some((first, second)) = both(lists) else {
        return lists.iter().try_for_each(|list| rename(source, edits, list));
    };
    let (stays, goes) = if first.items().is_empty() { (second, first) } else { (first, second) };
    rename(source, edits, stays)?;
    match (goes.items().is_empty(), stays.value.style, goes.value.style) {
        (true, ..) => drop_line(source, edits, goes),
        (false, Style::Block, Style::Block) => join_lines(source, edits, stays, goes),
        (false, Style::Flow, Style::Flow) => join_brackets(source, edits, stays, goes),
        _ => Err(apart(goes, "one list is in brackets and the other is not")),
    }
}

fn apart(goes: &List, why: &str) -> Fault {
    let message =
        format!("the two lists of databases can not be made one here, because {why}; write all of them as one list");
    Fault::new(goes.key.line, message)
}

fn rename(source: &Source<'_>, edits: &mut Edits, list: &List) -> Result<(), Fault> {
    if !list.is_old() {
        return Ok(());
    }
    let place = source.inner(&list.key);
    let place = place.ok_or_else(|| Fault::new(list.key.line, format!("is no plain key; {BY_HAND}")))?;
    edits.replace(place, LIST);
    Ok(())
}

/// `key: […]` on a line of its own goes.
fn drop_line(source: &Source<'_>, edits: &mut Edits, list: &List) -> Result<(), Fault> {
    let (key, value) = (source.range(&list.key), source.range(&list.value));
    let one_line = !source.text[key.start..value.end].contains('\n');
    if !one_line || !source.before(key.start).trim().is_empty() || !is_idle(source.after(value.end)) {
        return Err(apart(list, "one is not on a line of its own"));
    }
    edits.remove(key.start..value.end);
    Ok(())
}

/// The elements in brackets go to the end of the other's.
fn join_brackets(source: &Source<'_>, edits: &mut Edits, stays: &List, goes: &List) -> Result<(), Fault> {
    let text = &source.text[source.range(&goes.value)];
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).map(str::trim);
    let inner = inner.map(|inner| inner.strip_suffix(',').unwrap_or(inner).trim_end());
    let Some(inner) = inner.filter(|inner| !inner.contains('\n')) else {
        return Err(apart(goes, "the second one is in brackets over several lines"));
    };
    let Some(last) = stays.items().last() else { return Ok(()) };
    let end = source.range(last).end;
    edits.replace(end..end, format!(", {inner}"));
    drop_line(source, edits, goes)
}

/// The lines of one list go behind those of the other.
fn join_lines(source: &Source<'_>, edits: &mut Edits, stays: &List, goes: &List) -> Result<(), Fault> {
    let (before, after) = (body(source, stays)?, body(source, goes)?);
    let (wanted, found) = (indent(source, &before), indent(source, &after));
    let moved = shift(&source.text[after.clone()], found, wanted);
    let key = source.range(&goes.key).start;
    let between = &source.text[before.end..source.line_start(key)];
    if between.lines().all(is_idle) {
        edits.remove(key..key + source.after(key).find(':').map_or(0, |colon| colon + 1));
        if found != wanted {
            edits.replace(after, moved);
        }
        return Ok(());
    }
    let newline = if source.text[before.clone()].ends_with("\r\n") { "\r\n" } else { "\n" };
    let missing = if moved.ends_with('\n') { "" } else { newline };
    edits.replace(before.end..before.end, format!("{moved}{missing}"));
    edits.remove(key..key + source.after(key).find(':').map_or(0, |colon| colon + 1));
    edits.replace(after, "");
    Ok(())
}

/// The lines of a list, below the key's.
fn body(source: &Source<'_>, list: &List) -> Result<Range<usize>, Fault> {
    let key = source.range(&list.key);
    let rest = source.after(key.end).trim_start_matches(' ').strip_prefix(':');
    let alone = source.before(key.start).trim().is_empty() && rest.is_some_and(is_idle);
    let end = last_byte(source, &list.value);
    if !alone || !is_idle(source.after(end)) {
        return Err(apart(list, "a key is not on a line of its own"));
    }
    Ok(source.line_end(key.start)..source.line_end(end))
}

fn last_byte(source: &Source<'_>, node: &Node) -> usize {
    let last = match &node.data {
        Data::List(items) if node.style == Style::Block => items.last(),
        Data::Map(pairs) if node.style == Style::Block => pairs.last().map(|(_, value)| value),
        _ => None,
    };
    last.map_or_else(|| source.range(node).end, |last| last_byte(source, last))
}

/// Spaces before the hyphens of a list's lines.
fn indent(source: &Source<'_>, body: &Range<usize>) -> usize {
    let first = source.text[body.clone()].lines().find(|line| !is_idle(line));
    first.map_or(0, |line| line.len() - line.trim_start_matches(' ').len())
}

fn shift(lines: &str, found: usize, wanted: usize) -> String {
    let shifted = lines.split_inclusive('\n').map(|line| {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        if line.trim().is_empty() {
            line.to_owned()
        } else {
            // A comment may be less indented than the list.
            format!("{}{}", " ".repeat((spaces + wanted).saturating_sub(found)), &line[spaces..])
        }
    });
    shifted.collect()
}
