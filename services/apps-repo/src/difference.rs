//! What lies between a scan and the ledger, and which of it can be believed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pgtenant_ledger::{AppsProblem, DoorClaim, Wish};
use pgtenant_model::{ClaimKey, Mode};

use crate::choice::{Choice, Name, choose, name_of};
use crate::problem::{listed, problem};
use crate::scan::{Definition, Kept, Scan};

/// What keeps a mistake in the folder from taking databases with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// As many databases may lose their definition at once.
    pub max_removals: usize,
    /// More may go at once, and the last application too. A folder that can not be read removes nothing even so.
    pub allow_mass_removal: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self { max_removals: 10, allow_mass_removal: false }
    }
}

/// A change that a half-written file, or half a checkout, would look like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// The definition is gone.
    Gone(ClaimKey),
    /// A protected database became a standard one.
    Unprotected(ClaimKey),
    /// The definition of a database that was released is gone: it may be defined again.
    Forgotten(ClaimKey),
}

impl Doubt {
    /// Whether something changes for a database if it is believed.
    pub(crate) fn matters(&self) -> bool {
        !matches!(self, Self::Forgotten(_))
    }
}

/// Which doubts further looks have confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Belief {
    /// Those that change something for a database.
    pub(crate) removals: bool,
    /// The others.
    pub(crate) others: bool,
}

/// One thing to do in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Make it, or take a retained one back.
    Create(&'a Definition),
    /// Its spec has changed, and perhaps its file.
    Update(&'a Definition),
    /// Its file has changed.
    Move(&'a Definition),
    /// Its definition is gone.
    Withdraw(&'a DoorClaim),
    /// It was released, and its definition is gone since.
    Forget(&'a DoorClaim),
}

/// What is to be done, and what is not done for now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference<'a> {
    pub(crate) steps: Vec<Step<'a>>,
    /// Changes that need further looks; where they are believed, they are among `steps` as well.
    pub(crate) doubts: BTreeSet<Doubt>,
    pub(crate) problems: Vec<AppsProblem>,
    belief: Belief,
}

/// Compares.
pub(crate) fn compare<'a>(claims: &'a [DoorClaim], scan: &'a Scan, guard: Guard, belief: Belief) -> Difference<'a> {
    let known: BTreeMap<Name<'_>, &DoorClaim> = claims.iter().map(|c| (name_of(&c.key), c)).collect();
    let Choice { definitions, problems } = choose(scan, |name| known.get(&name)?.source_ref.as_deref());
    let mut difference = Difference { problems: listed(problems), belief, ..Difference::default() };
    for definition in &definitions {
        difference.defined(definition, known.get(&name_of(&definition.key)).copied(), scan);
    }
    let defined: BTreeSet<&ClaimKey> = definitions.iter().map(|d| &d.key).collect();
    let undefined = claims.iter().filter(|claim| !defined.contains(&claim.key));
    difference.undefined(undefined, scan, guard);
    difference
}

impl<'a> Difference<'a> {
    fn defined(&mut self, definition: &'a Definition, claim: Option<&DoorClaim>, scan: &Scan) {
        let Some(claim) = claim else { return self.steps.push(Step::Create(definition)) };
        let moved = claim.source_ref.as_deref() != Some(&*definition.file);
        if moved
            && claim.wish == Wish::Present
            && let Some(Kept { place, reason, .. }) = scan.keeps_file(claim)
        {
            // The file that it was made from may still define it.
            let Some(reason) = reason else { return };
            let message =
                format!("database {} was made from {place} and stays as it is, because that {reason}", claim.key);
            return self.problems.push(definition.problem("name", &message));
        }
        match claim.wish {
            Wish::Retained if claim.released => {
                let message = format!(
                    "database {} was released and is left alone; to take it back, remove this entry, and add it again \
                     a moment later",
                    claim.key
                );
                self.problems.push(definition.problem("", &message));
            }
            Wish::Retained | Wish::Absent => self.steps.push(Step::Create(definition)),
            Wish::Present if claim.spec != claim.follow(&definition.spec) => {
                let unprotected = (claim.spec.mode, definition.spec.mode) == (Mode::Protected, Mode::Standard);
                if !unprotected || self.doubt(Doubt::Unprotected(claim.key.clone())) {
                    self.steps.push(Step::Update(definition));
                }
            }
            Wish::Present if moved => self.steps.push(Step::Move(definition)),
            Wish::Present => {}
        }
    }

    /// Whether it is believed.
    fn doubt(&mut self, doubt: Doubt) -> bool {
        let believed = if doubt.matters() { self.belief.removals } else { self.belief.others };
        self.doubts.insert(doubt);
        believed
    }

    fn undefined(&mut self, claims: impl Iterator<Item = &'a DoorClaim>, scan: &Scan, guard: Guard) {
        if scan.unreadable {
            return;
        }
        let mut gone = Vec::new();
        for claim in claims {
            let matters = claim.wish == Wish::Present || (claim.wish == Wish::Retained && claim.released);
            match scan.keeps(claim) {
                _ if !matters => {}
                None => gone.push(claim),
                Some(kept) => self.problems.extend(held(claim, kept, scan)),
            }
        }
        let present: Vec<&ClaimKey> = gone.iter().filter(|c| c.wish == Wish::Present).map(|c| &c.key).collect();
        if let Some(message) = too_many(&present, scan, guard) {
            self.problems.push(problem("", 0, "", &message));
            return;
        }
        for claim in gone {
            let doubt = if claim.wish == Wish::Retained { Doubt::Forgotten } else { Doubt::Gone };
            if self.doubt(doubt(claim.key.clone())) {
                self.steps.push(match claim.wish {
                    Wish::Retained => Step::Forget(claim),
                    Wish::Present | Wish::Absent => Step::Withdraw(claim),
                });
            }
        }
    }
}

/// Says that a claim without a definition stays, unless its own place has a problem that says so already.
fn held(claim: &DoorClaim, kept: &Kept, scan: &Scan) -> Option<AppsProblem> {
    let (place, reason) = (&*kept.place, kept.reason.as_deref()?);
    let file = claim.source_ref.as_deref().unwrap_or_default();
    let told = |p: &AppsProblem| p.file == file || (p.file == place && file.starts_with(place));
    if claim.wish != Wish::Present || scan.problems.iter().any(told) {
        return None;
    }
    let message = format!("database {} is not defined any more and stays, because {place} {reason}", claim.key);
    Some(problem(file, 0, "", &message))
}

/// Why not one of these is removed.
fn too_many(gone: &[&ClaimKey], scan: &Scan, guard: Guard) -> Option<String> {
    let what = if gone.is_empty() || guard.allow_mass_removal {
        return None;
    } else if scan.applications == 0 {
        "the apps folder has no application of ours left".to_owned()
    } else if gone.len() > guard.max_removals {
        format!("more than {} at once are taken for a mistake", guard.max_removals)
    } else {
        return None;
    };
    let mut names: Vec<String> = gone.iter().take(3).map(ToString::to_string).collect();
    if gone.len() > names.len() {
        names.push("…".to_owned());
    }
    let (count, verb) = match gone.len() {
        1 => ("1 database has".to_owned(), "its"),
        count => (format!("{count} databases have"), "their"),
    };
    Some(format!(
        "{count} lost {verb} definition ({}), and nothing is removed: {what}. Put the definitions back, or switch on \
         allow_mass_removal if they shall go",
        names.join(", ")
    ))
}
