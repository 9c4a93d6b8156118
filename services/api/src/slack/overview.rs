//! How all databases of a channel are: counted where they are, since a channel may be linked to thousands.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pgtenant_ledger::{PgConnection, RestoreFilter};
use pgtenant_model::DatabaseState;
use serde_json::Value;

use super::answers::{LETTERS, mark, restore_row, row, say, to_one, trouble};
use super::blocks::{lines, message, section};
use super::text::{Esc, number};
use crate::caller::Rights;
use crate::problem::Result;
use crate::store::{self, Wanted};

/// The states that are named first, and with examples.
const NEED_A_LOOK: [DatabaseState; 2] = [DatabaseState::Failed, DatabaseState::Degraded];
/// Examples of each; with so many letters of what is wrong all of them fit.
const EXAMPLES: i64 = 5;
const LETTERS_OF_TROUBLE: usize = 300;

/// How many are in each state of [`DatabaseState::ALL`].
type Counts = [u64; DatabaseState::ALL.len()];

/// How many are in which state, in each namespace too, some of those that need a look, and restores under way.
pub(super) async fn overview(db: &mut PgConnection, rights: &Rights) -> Result<Value> {
    let scope = rights.scope();
    let namespaces = counted(store::count_by_namespace(db, &scope).await?);
    if namespaces.is_empty() {
        return Ok(say("There are no databases yet that can be seen from this channel."));
    }
    let total = sum(namespaces.values());
    let mut blocks = vec![section(in_states(&total))];
    if namespaces.len() > 1 {
        blocks.extend(lines(&by_namespace(&namespaces), LETTERS / 4));
    }
    let mut rows = Vec::new();
    for state in NEED_A_LOOK.into_iter().filter(|state| of(&total, *state) > 0) {
        let wanted = Wanted { state: Some(state), ..Wanted::default() };
        let found = store::claims(db, &scope, wanted, EXAMPLES).await?;
        let example = |claim| format!("{}\n> {}", row(claim), trouble(&claim.conditions, LETTERS_OF_TROUBLE));
        rows.extend(found.iter().map(example));
        let rest = of(&total, state).saturating_sub(found.len() as u64);
        if rest > 0 {
            rows.push(format!("{} … and {} more {}", mark(state), number(rest), state.as_str()));
        }
    }
    blocks.extend(lines(&rows, LETTERS / 2));
    let recent = store::restores(db, &scope, RestoreFilter::default(), 30).await?;
    let open: Vec<_> = recent.iter().filter(|one| one.finished_at.is_none()).map(restore_row).collect();
    if !open.is_empty() {
        blocks.push(section("*Restores under way*"));
        blocks.extend(lines(&open, LETTERS / 4));
    }
    Ok(to_one(message("Status", blocks)))
}

fn counted(rows: Vec<(String, DatabaseState, u64)>) -> BTreeMap<String, Counts> {
    let mut all: BTreeMap<String, Counts> = BTreeMap::new();
    for (namespace, state, count) in rows {
        let counts = all.entry(namespace).or_default();
        for (each, of) in counts.iter_mut().zip(DatabaseState::ALL) {
            *each += if of == state { count } else { 0 };
        }
    }
    all
}

fn of(counts: &Counts, state: DatabaseState) -> u64 {
    counts.iter().zip(DatabaseState::ALL).filter(|(_, of)| *of == state).map(|(count, _)| count).sum()
}

fn sum<'a>(all: impl Iterator<Item = &'a Counts>) -> Counts {
    all.fold(Counts::default(), |sum, one| std::array::from_fn(|at| sum[at] + one[at]))
}

fn in_states(counts: &Counts) -> String {
    let some = counts.iter().zip(DatabaseState::ALL).filter(|(count, _)| **count > 0);
    let words = some.map(|(count, state)| format!("{} {} {}", mark(state), number(*count), state.as_str()));
    words.collect::<Vec<_>>().join("   ")
}

/// A line for each, and first those with most that need a look: what does not fit in a message is well.
fn by_namespace(namespaces: &BTreeMap<String, Counts>) -> Vec<String> {
    let mut all: Vec<_> = namespaces.iter().collect();
    all.sort_by_key(|(_, counts)| Reverse(NEED_A_LOOK.map(|state| of(counts, state))));
    all.into_iter().map(|(namespace, counts)| format!("*{}*: {}", Esc(namespace), in_states(counts))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_in_which_something_is_wrong_come_first() {
        let row = |namespace: &str, state, count| (namespace.to_owned(), state, count);
        let all = counted(vec![
            row("a", DatabaseState::Ready, 1200),
            row("b", DatabaseState::Degraded, 9),
            row("c", DatabaseState::Failed, 2),
            row("c", DatabaseState::Ready, 1),
        ]);
        let expected = [
            "*c*: :large_green_circle: 1 Ready   :red_circle: 2 Failed",
            "*b*: :large_yellow_circle: 9 Degraded",
            "*a*: :large_green_circle: 1,200 Ready",
        ];
        assert_eq!(by_namespace(&all), expected);
        let total = sum(all.values());
        assert_eq!((of(&total, DatabaseState::Ready), of(&total, DatabaseState::Failed)), (1201, 2));
    }
}
