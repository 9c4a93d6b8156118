//! Which definition counts where several files define one database. Pure.

use std::collections::BTreeMap;

use pgtenant_ledger::AppsProblem;
use pgtenant_model::ClaimKey;

use crate::scan::{Definition, Names, Scan};

/// One definition for each key.
#[derive(Debug, Default)]
pub(crate) struct Choice<'a> {
    /// By file and line.
    pub(crate) definitions: Vec<&'a Definition>,
    /// At those that do not count.
    pub(crate) problems: Vec<AppsProblem>,
}

/// A namespace and a name.
pub(crate) type Name<'a> = (&'a str, &'a str);

/// Whether it is not the claim's own file, the file, the line: the least one counts.
type Place<'a> = (bool, &'a str, u32);

/// Chooses the file that the claim was made from: a file that comes later changes nothing of what is there. For a new
/// name, and where that file does not define it any more, the first file by name. Broken files count as well, since
/// they may be mended.
pub(crate) fn choose<'a>(scan: &'a Scan, owner: impl Fn(Name<'_>) -> Option<&'a str>) -> Choice<'a> {
    let place = |name, file: &'a str, line| (owner(name) != Some(file), file, line);
    let mut first: BTreeMap<Name<'_>, Place<'_>> = BTreeMap::new();
    let mut offer = |name, place| {
        let least = first.entry(name).or_insert(place);
        *least = place.min(*least);
    };
    for kept in &scan.kept {
        let Names::Known(names) = &kept.names else { continue };
        for (name, line) in names {
            let name = (kept.namespace(), &**name);
            offer(name, place(name, &kept.place, *line));
        }
    }
    for definition in &scan.definitions {
        let name = name_of(&definition.key);
        offer(name, place(name, &definition.file, definition.line));
    }
    let mut choice = Choice::default();
    for definition in &scan.definitions {
        let name = name_of(&definition.key);
        match first.get(&name) {
            Some(other) if *other != place(name, &definition.file, definition.line) => {
                choice.problems.push(defined_already(definition, *other));
            }
            _ => choice.definitions.push(definition),
        }
    }
    choice
}

pub(crate) fn name_of(key: &ClaimKey) -> Name<'_> {
    (key.namespace(), key.name())
}

fn defined_already(definition: &Definition, (_, file, line): Place<'_>) -> AppsProblem {
    let name = definition.key.name();
    definition.problem("name", &format!("{name:?} is defined in {file}:{line} already, and that one counts"))
}
