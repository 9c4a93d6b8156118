//! What an apps folder says, and where it can not be understood.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use pgtenant_ledger::{AppsProblem, DoorClaim};
use pgtenant_model::{ClaimKey, ClaimSpec};

use crate::choice::{Choice, choose};
use crate::problem::{listed, problem};
use crate::values::line_of;
use crate::walk::{Cache, Walk};

/// How much of a folder is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Folders within folders, the namespace's included.
    pub depth: usize,
    /// Applications, those of other charts included.
    pub applications: usize,
    /// Entries of all folders.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 1 << 20, depth: 16, applications: 20_000, entries: 500_000 }
    }
}

/// A database as a file defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Who it is.
    pub key: ClaimKey,
    /// What is wished for.
    pub spec: ClaimSpec,
    /// The file, relative to the apps folder.
    pub file: String,
    /// The line of its entry.
    pub line: u32,
    /// The path of its entry, as `postgresqlDatabases[0]`.
    pub path: String,
    /// The lines of its fields.
    pub(crate) lines: BTreeMap<String, u32>,
}

impl Definition {
    /// The line of a field, as `schemas[1]`; the entry's where it is not written.
    #[must_use]
    pub fn line_of(&self, field: &str) -> u32 {
        line_of(&self.lines, field).unwrap_or(self.line)
    }

    /// A problem with a field; with the whole entry where it is empty.
    pub(crate) fn problem(&self, field: &str, message: &str) -> AppsProblem {
        if field.is_empty() {
            return problem(&self.file, self.line, &self.path, message);
        }
        problem(&self.file, self.line_of(field), &format!("{}.{field}", self.path), message)
    }
}

/// Which names a place that can not be used may define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// These, with their lines.
    Known(BTreeMap<String, u32>),
    /// Any of the namespace.
    Unknown,
}

/// A file or folder that can not be used: the claims that were made from it stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Relative to the apps folder.
    pub place: String,
    /// What it may define: claims that came here from another file stay as well.
    pub names: Names,
    /// Why, for people, to go after the place's name. None: it is being written, and the next look tells.
    pub reason: Option<String>,
}

impl Kept {
    pub(crate) fn namespace(&self) -> &str {
        self.place.split('/').next().unwrap_or_default()
    }

    fn may_define(&self, key: &ClaimKey) -> bool {
        self.namespace() == key.namespace()
            && match &self.names {
                Names::Known(names) => names.contains_key(key.name()),
                Names::Unknown => true,
            }
    }

    /// Whether `file` is this place or within it.
    pub(crate) fn holds_file(&self, file: &str) -> bool {
        file.strip_prefix(&*self.place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What a look at the folder has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Every database that is well defined, by file and line. Several files may define one; [`scan`] has chosen.
    pub definitions: Vec<Definition>,
    /// Every problem, by file and line.
    pub problems: Vec<AppsProblem>,
    /// What can not be used.
    pub kept: Vec<Kept>,
    /// Values of no application of ours: of another chart, or without an `application.yaml`. No fault by itself; but
    /// claims that were made from there, or are named there, stay.
    pub unused: Vec<Kept>,
    /// Applications of our chart, and those of which it can not be told.
    pub applications: usize,
    /// The folders of applications of our chart, and of those of which it can not be told.
    pub(crate) places: Vec<String>,
    /// The folder as a whole could not be read, or not to its end: nothing is known of what is not in it.
    pub unreadable: bool,
    /// Something changed while it was read: another look is needed soon.
    pub unsettled: bool,
}

impl Scan {
    /// Whether all of the folder could be used.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.unreadable && self.kept.is_empty()
    }

    /// Why the claim's own file may still define it, although it can not be used.
    pub(crate) fn keeps_file(&self, claim: &DoorClaim) -> Option<&Kept> {
        let own = |kept: &&Kept| claim.source_ref.as_deref().is_some_and(|file| kept.holds_file(file));
        let unused = self.unused.iter().filter(|kept| kept.may_define(&claim.key));
        self.kept.iter().chain(unused).find(own)
    }

    /// Why a claim without a definition must not be taken for removed.
    pub(crate) fn keeps(&self, claim: &DoorClaim) -> Option<&Kept> {
        let own = |kept: &&Kept| claim.source_ref.as_deref().is_some_and(|file| kept.holds_file(file));
        self.kept.iter().chain(&self.unused).find(own).or_else(|| self.may_define(&claim.key))
    }

    /// What can not be used and may define this database.
    #[must_use]
    pub fn may_define(&self, key: &ClaimKey) -> Option<&Kept> {
        self.kept.iter().chain(&self.unused).find(|kept| kept.may_define(key))
    }
}

/// Scans a folder again and again, and reads only files that have changed.
#[derive(Debug, Default)]
pub struct Scanner {
    limits: Limits,
    unfinished: Duration,
    cache: Cache,
}

impl Scanner {
    /// A scanner that has read nothing yet. A file that does not end with a newline and was written within
    /// `unfinished` is taken for one that is being written: it counts when that time is over.
    #[must_use]
    pub fn new(limits: Limits, unfinished: Duration) -> Self {
        Self { limits, unfinished, cache: Cache::default() }
    }

    /// Looks at all of the folder. Blocks; whatever goes wrong is a part of the result.
    pub fn scan(&mut self, root: &Path) -> Scan {
        Walk::new(&self.limits, self.unfinished, &mut self.cache).folder(root)
    }
}

/// Looks at all of the folder `root` once, for whoever does not know the claims: where several files define one
/// database, the first file counts, and the others have a problem. Nobody is expected to be writing. Blocks; whatever
/// goes wrong is a part of the result.
#[must_use]
pub fn scan(root: &Path, limits: &Limits) -> Scan {
    let mut scan = Scanner::new(limits.clone(), Duration::ZERO).scan(root);
    let Choice { definitions, problems } = choose(&scan, |_| None);
    let definitions = definitions.into_iter().cloned().collect();
    scan.problems = listed([&scan.problems[..], &problems].concat());
    scan.definitions = definitions;
    scan
}
