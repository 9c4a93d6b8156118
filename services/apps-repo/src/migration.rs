//! An apps folder with files of older charts: what each of them is to become, and writing that.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgtenant_ledger::AppsProblem;

use crate::file::{self, Stamp, Unread};
use crate::migrate::{Chart, ChartVersion, Remark, Rewritten, rewrite_application, rewrite_values, unified};
use crate::problem::problem;
use crate::replace::replace;
use crate::scan::{Limits, Scan, Scanner};
use crate::walk::{APPLICATION, NO_NAMESPACE, VALUES, join};

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// It gets a new text.
    Changes,
    /// It has the form of today.
    UpToDate,
    /// It can not be changed; its problems say why.
    Refused,
    /// It would change, but another file of its application was refused: either alone would mean something else.
    Waits,
}

/// One file.
#[derive(Debug)]
pub struct FilePlan {
    /// Relative to the apps folder; where a link leads there, its target.
    pub file: String,
    /// What becomes of it.
    pub state: FileState,
    /// What is changed.
    pub changes: Vec<Remark>,
    /// What a person should look at.
    pub notes: Vec<Remark>,
    /// Why it is refused.
    pub problems: Vec<AppsProblem>,
    content: Option<Content>,
}

#[derive(Debug)]
struct Content {
    path: PathBuf,
    stamp: Stamp,
    before: String,
    after: Option<String>,
}

impl FilePlan {
    fn new(file: String, content: Option<Content>) -> Self {
        let (changes, notes, problems) = (Vec::new(), Vec::new(), Vec::new());
        Self { file, state: FileState::UpToDate, changes, notes, problems, content }
    }

    /// The change as a unified diff, in which the file's name follows `prefix`; empty where nothing changes.
    #[must_use]
    pub fn diff(&self, prefix: &str) -> String {
        match &self.content {
            Some(Content { before, after: Some(after), .. }) if self.state == FileState::Changes => {
                unified(&format!("{prefix}{}", self.file), before, after)
            }
            _ => String::new(),
        }
    }

    /// The notes with the file's name, as problems are told.
    #[must_use]
    pub fn noted(&self) -> Vec<AppsProblem> {
        self.notes.iter().map(|note| problem(&self.file, note.line, "", &note.message)).collect()
    }

    fn refuse(&mut self, problems: Vec<AppsProblem>) {
        self.state = FileState::Refused;
        self.problems.extend(problems);
        self.problems.dedup();
    }

    fn change(&mut self, Rewritten { text, changes, notes }: Rewritten) {
        if let (FileState::UpToDate, Some(content)) = (self.state, &mut self.content) {
            self.state = FileState::Changes;
            content.after = Some(text);
            self.changes = changes;
            self.notes.extend(notes);
        }
    }

    fn wait(&mut self, other: &str) {
        self.state = FileState::Waits;
        self.notes.push(Remark::new(0, &format!("is left as it is until {other} is mended")));
    }
}

/// What becomes of a folder.
#[derive(Debug, Default)]
pub struct Migration {
    /// The files of applications of our chart, application by application.
    pub files: Vec<FilePlan>,
    /// Places that could not be looked at.
    pub problems: Vec<AppsProblem>,
    /// Files with databases in the form of an older chart that are of no application of our chart.
    pub left_alone: Vec<AppsProblem>,
    /// The folder could not be read, or not to its end.
    pub incomplete: bool,
}

/// Why a folder was not written to its end.
#[derive(Debug, thiserror::Error)]
#[error("{file} could not be written")]
pub struct WriteError {
    /// The file.
    pub file: String,
    /// The files that had been written before.
    pub done: Vec<String>,
    source: io::Error,
}

impl Migration {
    /// How many files are in a state.
    #[must_use]
    pub fn count(&self, state: FileState) -> usize {
        self.files.iter().filter(|file| file.state == state).count()
    }

    /// Writes all that changes, each file at once or not at all. The names of the files, in the order of writing.
    ///
    /// # Errors
    /// The first file that could not be written; none is after it.
    pub fn write(&self) -> Result<Vec<String>, WriteError> {
        let mut files: Vec<&FilePlan> = self.files.iter().filter(|file| file.state == FileState::Changes).collect();
        // Between the two: the new chart refuses old values, but the old one, which does not know `mode`, would take
        // new values for unprotected databases.
        files.sort_by_key(|file| !file.file.ends_with(APPLICATION));
        let mut done = Vec::new();
        for plan in files {
            let Some(Content { path, stamp, after: Some(after), .. }) = &plan.content else { continue };
            match replace(path, *stamp, after) {
                Ok(()) => done.push(plan.file.clone()),
                Err(source) => return Err(WriteError { file: plan.file.clone(), done, source }),
            }
        }
        Ok(done)
    }
}

/// Finds out what becomes of each file of the apps folder `root`. Blocks, and changes nothing.
#[must_use]
pub fn plan_migration(root: &Path, limits: &Limits, version: &ChartVersion) -> Migration {
    let scan = Scanner::new(limits.clone(), Duration::ZERO).scan(root);
    let Ok(root) = fs::canonicalize(root) else {
        return Migration { problems: scan.problems, incomplete: true, ..Migration::default() };
    };
    let mut planner = Planner { root, limits, version, files: Vec::new(), known: HashMap::new(), pairs: Vec::new() };
    for place in &scan.places {
        planner.application(place);
    }
    planner.hold_back();
    let left_alone = planner.left_alone(&scan);
    let own = |name: &str| scan.places.iter().map(|place| join(place, name)).collect::<Vec<_>>();
    let own: BTreeSet<String> = [own(APPLICATION), own(VALUES)].concat().into_iter().collect();
    let problems = scan.problems.into_iter().filter(|problem| !own.contains(&problem.file)).collect();
    Migration { files: planner.files, problems, left_alone, incomplete: scan.unreadable }
}

struct Planner<'a> {
    /// Without links on its way.
    root: PathBuf,
    limits: &'a Limits,
    version: &'a ChartVersion,
    files: Vec<FilePlan>,
    /// Several names may lead to one file.
    known: HashMap<PathBuf, usize>,
    /// The two files of each application.
    pairs: Vec<[usize; 2]>,
}

impl Planner<'_> {
    /// Both files of the application in the folder `place`.
    fn application(&mut self, place: &str) {
        let [chart, values] = [APPLICATION, VALUES].map(|name| self.open(&join(place, name)));
        self.pairs.push([chart, values]);
        let Some((namespace, _)) = place.split_once('/') else {
            let file = &mut self.files[chart];
            return file.refuse(vec![problem(&file.file, 0, "", NO_NAMESPACE)]);
        };
        let needed = self.values(values, namespace);
        self.chart(chart, needed);
    }

    /// Whether the file changes.
    fn values(&mut self, index: usize, namespace: &str) -> bool {
        let plan = &mut self.files[index];
        let Some(content) = &plan.content else { return false };
        match rewrite_values(&plan.file, namespace, &content.before) {
            Ok(Some(rewritten)) => plan.change(rewritten),
            Ok(None) => {}
            Err(problems) => plan.refuse(problems),
        }
        plan.state == FileState::Changes
    }

    /// `needed`: the values beside it are to be read by a new chart from now on.
    fn chart(&mut self, index: usize, needed: bool) {
        let plan = &mut self.files[index];
        let Some(content) = &plan.content else { return };
        match rewrite_application(&plan.file, &content.before, self.version) {
            Ok(Chart::Old(rewritten)) => plan.change(rewritten),
            Ok(Chart::Unnamed) if needed => {
                let message = format!(
                    "names no helm.chartVersion: see to it that the chart is {} or later: an older one does not know \
                     `mode`, and would take every database for unprotected",
                    self.version
                );
                plan.notes.push(Remark::new(0, &message));
            }
            Ok(Chart::Unclear(line, text)) if needed => {
                let message =
                    format!("{text:?} does not tell which chart is used; write a version, as {}", self.version);
                plan.refuse(vec![problem(&plan.file, line, "helm.chartVersion", &message)]);
            }
            Ok(Chart::New | Chart::Unnamed | Chart::Unclear(..)) => {}
            Err(problems) => plan.refuse(problems),
        }
    }

    /// The plan of a file, which may have been opened under another name.
    fn open(&mut self, name: &str) -> usize {
        let read = self.read(name);
        if let Ok((_, content)) = &read
            && let Some(index) = self.known.get(&content.path)
        {
            return *index;
        }
        let plan = match read {
            Ok((file, content)) => {
                self.known.insert(content.path.clone(), self.files.len());
                FilePlan::new(file, Some(content))
            }
            Err(unread) => {
                let mut plan = FilePlan::new(name.to_owned(), None);
                let (line, message) = match unread {
                    Unread::Missing => (0, format!("is missing beside {APPLICATION}")),
                    Unread::Unsettled => (0, "was changed while it was read; try again".to_owned()),
                    Unread::Fault { line, message } => (line, message),
                };
                plan.refuse(vec![problem(name, line, "", &message)]);
                plan
            }
        };
        self.files.push(plan);
        self.files.len() - 1
    }

    fn read(&self, name: &str) -> Result<(String, Content), Unread> {
        let path = file::resolve(&self.root, &self.root.join(name))?;
        // Folders on the way may be links as well.
        let path = fs::canonicalize(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unread::Missing,
            _ => Unread::fault(format!("can not be read: {error}")),
        })?;
        let inside = path.strip_prefix(&self.root).ok().and_then(Path::to_str).map(str::to_owned);
        let inside = inside.ok_or_else(|| Unread::fault("leads to a file that can not be named or is elsewhere"))?;
        let (before, stamp) = file::read(&path, self.limits.file_bytes)?;
        Ok((inside, Content { path, stamp, before, after: None }))
    }

    /// Where one file of an application is refused, the other must not change; it may be that of others as well.
    fn hold_back(&mut self) {
        let mut again = true;
        while again {
            again = false;
            for (broken, other) in self.pairs.iter().flat_map(|[a, b]| [(*a, *b), (*b, *a)]) {
                let held = matches!(self.files[broken].state, FileState::Refused | FileState::Waits);
                if held && self.files[other].state == FileState::Changes {
                    let name = self.files[broken].file.clone();
                    self.files[other].wait(&name);
                    again = true;
                }
            }
        }
    }

    fn left_alone(&self, scan: &Scan) -> Vec<AppsProblem> {
        let old = |name: &str| {
            let (_, content) = self.read(name).ok()?;
            if self.known.contains_key(&content.path) {
                return None;
            }
            rewrite_values(name, "any", &content.before).ok().flatten()
        };
        let message = "has databases in the form of an older chart, and stays as it is: its application.yaml is \
                       missing or names another chart";
        let stray = scan.unused.iter().filter(|kept| old(&kept.place).is_some());
        stray.map(|kept| problem(&kept.place, 0, "", message)).collect()
    }
}
