//! The fields of an entry: the first of those that say what is kept becomes `mode`, the others go.

use std::rc::Rc;

use pgtenant_model::Mode;

use super::edit::Edits;
use super::old::Turn;
use super::source::{BY_HAND, Source, is_idle};
use crate::tree::{Data, Fault, Node, Style};

type Pair = (Rc<Node>, Rc<Node>);

/// Notes the edits that an entry needs.
///
/// # Errors
/// It is written in a way that spans do not tell.
pub(crate) fn rewrite(source: &Source<'_>, edits: &mut Edits, entry: &Node, turn: &Turn) -> Result<(), Fault> {
    let Data::Map(pairs) = &entry.data else { return Ok(()) };
    let (first, others) = match &turn.pairs[..] {
        [] => return Ok(()),
        [first, others @ ..] => (*first, others),
    };
    replace(source, edits, &pairs[first], turn.mode, entry.style)?;
    for index in others {
        check(source, &pairs[*index])?;
        if entry.style == Style::Flow {
            remove_from_flow(source, edits, pairs, *index, &turn.pairs)?;
        } else {
            remove_lines(source, edits, &pairs[*index])?;
        }
    }
    Ok(())
}

fn unusual(pair: &Pair) -> Fault {
    Fault::new(pair.0.line, format!("is not written as `key: value` on one line; {BY_HAND}"))
}

/// That a pair is `key: value` on one line, with nothing between.
fn check(source: &Source<'_>, pair: &Pair) -> Result<(), Fault> {
    let (key, value) = (source.range(&pair.0), source.range(&pair.1));
    let plain = source.inner(&pair.0).is_some() && source.inner(&pair.1).is_some();
    let between = source.text.get(key.end..value.start).unwrap_or_default();
    if plain && between.trim_matches(' ') == ":" { Ok(()) } else { Err(unusual(pair)) }
}

/// The quotes stay those that were there.
fn replace(source: &Source<'_>, edits: &mut Edits, pair: &Pair, mode: Mode, style: Style) -> Result<(), Fault> {
    check(source, pair)?;
    let (Some(key), Some(value)) = (source.inner(&pair.0), source.inner(&pair.1)) else { return Err(unusual(pair)) };
    let text = match (pair.0.style, pair.1.style) {
        // As in JSON, where a word has quotes and `true` has none.
        (Style::Quoted(quote), Style::Plain) if style == Style::Flow => format!("{quote}{mode}{quote}"),
        _ => mode.to_string(),
    };
    if &source.text[key.clone()] != "mode" {
        edits.replace(key, "mode");
    }
    if source.text[value.clone()] != text {
        edits.replace(value, text);
    }
    Ok(())
}

/// Takes a pair of a mapping in block style out.
fn remove_lines(source: &Source<'_>, edits: &mut Edits, pair: &Pair) -> Result<(), Fault> {
    let (start, end) = (source.range(&pair.0).start, source.range(&pair.1).end);
    if !source.before(start).trim_start_matches(' ').is_empty() || !is_idle(source.after(end)) {
        return Err(unusual(pair));
    }
    edits.remove(start..end);
    Ok(())
}

/// Takes a pair out of a mapping in braces, with one comma: that before it on the same line, or that behind it if its
/// line begins with it.
fn remove_from_flow(
    source: &Source<'_>,
    edits: &mut Edits,
    pairs: &[Pair],
    index: usize,
    going: &[usize],
) -> Result<(), Fault> {
    let (start, end) = (source.range(&pairs[index].0).start, source.range(&pairs[index].1).end);
    let before = source.before(start).trim_end_matches(' ');
    if let Some(rest) = before.strip_suffix(',') {
        edits.remove(start - source.before(start).len() + rest.trim_end_matches(' ').len()..end);
        return Ok(());
    }
    if !before.is_empty() {
        return Err(unusual(&pairs[index]));
    }
    let after = source.after(end);
    let comma = after.trim_start_matches(' ').starts_with(',');
    let length = if comma { after.len() - after.trim_start_matches(' ').len() + 1 } else { 0 };
    edits.remove(start..end + length);
    if !comma {
        // It was the last one: the comma behind the last that stays has nothing to part any more.
        let stays = (0..index).rev().find(|index| going.first() == Some(index) || !going.contains(index));
        if let Some(stays) = stays {
            let end = source.range(&pairs[stays].1).end;
            if source.after(end).starts_with(',') {
                edits.remove(end..end + 1);
            }
        }
    }
    Ok(())
}
