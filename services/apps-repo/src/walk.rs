//! The way through an apps folder: which files belong to us, in which namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgtenant_ledger::AppsProblem;
use pgtenant_model::check_label;

use crate::application::{self, Application};
use crate::file::{self, Stamp, Unread};
use crate::problem::{listed, problem};
use crate::scan::{Kept, Limits, Names, Scan};
use crate::values::{self, Values};

pub(crate) const APPLICATION: &str = "application.yaml";
pub(crate) const VALUES: &str = "values.yaml";
/// Of an application outside of any namespace.
pub(crate) const NO_NAMESPACE: &str = "must be in a folder {namespace}/{application}, the namespace's and its own";
// Why the claims of a file stay, to go after its name.
const NO_APPLICATION: &str = "has no application.yaml beside it; put that back, or write `postgresqlDatabases: []` or remove both files if they shall go";
const FOREIGN: &str = "belongs to an application of another chart; mend helm.chart in application.yaml, or write \
                       `postgresqlDatabases: []` or remove both files if they shall go";
const NO_LIST: &str = "has no `postgresqlDatabases`; write `postgresqlDatabases: []` if they shall go";
/// A file system may give two writes one time stamp: what changed this lately is read again.
const SETTLED: Duration = Duration::from_secs(2);

/// What files said when they were last read.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    files: HashMap<String, Cached>,
    round: u64,
}

#[derive(Debug)]
struct Cached {
    stamp: Stamp,
    content: Content,
    round: u64,
}

#[derive(Debug, Clone)]
enum Content {
    Application(Application),
    Values(Values),
}

/// One look at a folder.
pub(crate) struct Walk<'a> {
    limits: &'a Limits,
    unfinished: Duration,
    cache: &'a mut Cache,
    root: PathBuf,
    scan: Scan,
    entries: usize,
    applications: usize,
    bad_namespaces: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(limits: &'a Limits, unfinished: Duration, cache: &'a mut Cache) -> Self {
        cache.round += 1;
        Self {
            limits,
            unfinished,
            cache,
            root: PathBuf::new(),
            scan: Scan::default(),
            entries: 0,
            applications: 0,
            bad_namespaces: BTreeSet::new(),
        }
    }

    pub(crate) fn folder(mut self, root: &Path) -> Scan {
        match real_folder(root) {
            Ok(real) => {
                self.root.clone_from(&real);
                self.visit(&mut vec![real.clone()], "");
                // Another folder under that name by now: what vanished during the walk was not removed.
                if real_folder(root).ok() != Some(real) {
                    self.scan.unreadable = true;
                    self.scan.unsettled = true;
                }
            }
            Err(error) => {
                self.incomplete(&format!("the apps folder can not be read: {error}"));
            }
        }
        let round = self.cache.round;
        self.cache.files.retain(|_, cached| cached.round == round);
        finish(self.scan)
    }

    /// Nothing is removed after such a look.
    fn incomplete(&mut self, why: &str) {
        if !self.scan.unreadable {
            let message = format!("{why}; no database is removed until that is mended");
            self.scan.problems.push(problem("", 0, "", &message));
        }
        self.scan.unreadable = true;
    }

    fn fault(&mut self, place: &str, message: &str) {
        self.scan.problems.push(problem(place, 0, "", message));
    }

    fn keep(&mut self, place: &str, names: Names, reason: &str) {
        self.scan.kept.push(Kept { place: place.to_owned(), names, reason: Some(reason.to_owned()) });
    }

    /// `way`: the real folders from the root to this one. `name`: this one, relative to the root.
    fn visit(&mut self, way: &mut Vec<PathBuf>, name: &str) {
        let Some(path) = way.last().cloned() else { return };
        let names = match self.list(&path, name) {
            Ok(names) => names,
            Err(error) if name.is_empty() => {
                return self.incomplete(&format!("the apps folder can not be read: {error}"));
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    self.scan.unsettled = true;
                } else {
                    self.fault(name, &format!("can not be read: {error}"));
                }
                return self.keep(name, Names::Unknown, "can not be read");
            }
        };
        let has = |file: &str| names.iter().any(|entry| entry == file);
        if has(APPLICATION) {
            self.application(&path, name);
        } else if has(VALUES) {
            self.unused(&path, name, NO_APPLICATION);
        }
        for entry in names {
            if self.scan.unreadable {
                return;
            }
            if entry == APPLICATION || entry == VALUES {
                continue;
            }
            self.enter(way, &path.join(&entry), &join(name, &entry));
        }
    }

    /// Names that are not hidden, in order.
    fn list(&mut self, path: &Path, place: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name();
            self.entries += 1;
            if self.entries > self.limits.entries {
                self.incomplete(&format!("the apps folder has more than {} entries", self.limits.entries));
                break;
            }
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match name.into_string() {
                Ok(name) => names.push(name),
                Err(name) if path.join(&name).is_dir() => {
                    let place = join(place, &name.to_string_lossy());
                    self.fault(&place, "is a folder whose name is not UTF-8; it is not read");
                    self.keep(&place, Names::Unknown, "is not read");
                }
                Err(_) => {}
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn enter(&mut self, way: &mut Vec<PathBuf>, path: &Path, place: &str) {
        let real = match folder_at(&self.root, path) {
            Ok(Some(real)) => real,
            Ok(None) => return,
            // A link to nowhere is no fault; but if claims came from there, they stay.
            Err(None) => return self.keep(place, Names::Known(BTreeMap::new()), "leads nowhere"),
            Err(Some(message)) => {
                self.fault(place, &message);
                return self.keep(place, Names::Unknown, &message);
            }
        };
        if way.contains(&real) {
            return self.fault(place, "is a symbolic link to a folder that it lies in; it is not followed");
        }
        if way.len() > self.limits.depth {
            let message = format!("is nested deeper than {} folders; it is not read", self.limits.depth);
            self.fault(place, &message);
            return self.keep(place, Names::Unknown, "is not read");
        }
        way.push(real);
        self.visit(way, place);
        way.pop();
    }

    /// The application in the folder `path`, which is `name` relative to the root.
    fn application(&mut self, path: &Path, name: &str) {
        self.applications += 1;
        if self.applications > self.limits.applications {
            let why = format!("the apps folder has more than {} applications", self.limits.applications);
            return self.incomplete(&why);
        }
        let file = join(name, APPLICATION);
        let values = join(name, VALUES);
        let read =
            self.read(&path.join(APPLICATION), &file, |text| Content::Application(application::parse(&file, text)));
        if matches!(read, Ok(Content::Application(Application::Foreign))) {
            return self.unused(path, name, FOREIGN);
        }
        self.scan.places.push(name.to_owned());
        let (problems, channel) = match read {
            Ok(Content::Application(Application::Ours { problems, slack_channel })) => (problems, slack_channel),
            Ok(Content::Application(Application::Unknown(problems))) => {
                self.scan.applications += 1;
                self.scan.problems.extend(problems);
                return self.keep(&values, Names::Unknown, &format!("waits for {APPLICATION} to be mended"));
            }
            Ok(_) => return,
            Err(unread) => {
                self.scan.applications += 1;
                return self.unread(&file, unread, values, &format!("waits for {APPLICATION} to be readable"));
            }
        };
        self.scan.applications += 1;
        if let Some(namespace) = self.namespace(name, &file) {
            self.values(&path.join(VALUES), &values, &namespace, problems, channel.as_deref());
        }
    }

    /// The namespace of an application of ours; none where it can not have one, which is a problem then.
    fn namespace(&mut self, name: &str, file: &str) -> Option<String> {
        let Some((namespace, _)) = name.split_once('/') else {
            self.fault(file, NO_NAMESPACE);
            return None;
        };
        match check_label("namespace", namespace) {
            Ok(()) => Some(namespace.to_owned()),
            Err(error) => {
                if self.bad_namespaces.insert(namespace.to_owned()) {
                    self.fault(namespace, &format!("{error}; the first folder is the namespace"));
                }
                None
            }
        }
    }

    fn values(&mut self, path: &Path, file: &str, namespace: &str, problems: Vec<AppsProblem>, channel: Option<&str>) {
        let usable = problems.is_empty();
        self.scan.problems.extend(problems);
        let values = match self.read(path, file, |text| Content::Values(values::parse(file, namespace, text))) {
            Ok(Content::Values(values)) => values,
            Ok(Content::Application(_)) => return,
            Err(Unread::Missing) => {
                let message =
                    format!("is missing beside {APPLICATION}; write `postgresqlDatabases: []` for no databases");
                self.fault(file, &message);
                return self.keep(file, Names::Known(BTreeMap::new()), "is missing");
            }
            Err(unread) => return self.unread(file, unread, file.to_owned(), "can not be read"),
        };
        let Values { definitions, problems, names, listed } = values;
        let names = names.map_or(Names::Unknown, Names::Known);
        if !problems.is_empty() || !usable {
            let reason = if usable { "has problems" } else { "waits for application.yaml to be mended" };
            self.scan.problems.extend(problems);
            self.keep(file, names, reason);
        } else if listed {
            self.scan.definitions.extend(definitions.into_iter().map(|mut definition| {
                let own = definition.spec.slack_channel.take();
                definition.spec.slack_channel = own.or_else(|| channel.map(str::to_owned));
                definition
            }));
        } else {
            self.keep(file, names, NO_LIST);
        }
    }

    /// The values in the folder `name`, which has no application of ours. They are none of our business, unless claims
    /// were made from them: half a checkout, or a slip in `application.yaml`, looks like that.
    fn unused(&mut self, path: &Path, name: &str, reason: &str) {
        let file = join(name, VALUES);
        let namespace = name.split('/').next().unwrap_or_default();
        let read = self.read(&path.join(VALUES), &file, |text| Content::Values(values::parse(&file, namespace, text)));
        let names = match read {
            Ok(Content::Values(values)) if values.lists_none() => return,
            Ok(Content::Values(values)) => values.names.unwrap_or_default(),
            Ok(Content::Application(_)) => return,
            Err(unread) => {
                self.scan.unsettled |= unread == Unread::Unsettled;
                BTreeMap::new()
            }
        };
        self.scan.unused.push(Kept { place: file, names: Names::Known(names), reason: Some(reason.to_owned()) });
    }

    /// The claims of `values` stay because `file` was not read.
    fn unread(&mut self, file: &str, unread: Unread, values: String, reason: &str) {
        let reason = match unread {
            Unread::Fault { line, message } => {
                self.scan.problems.push(problem(file, line, "", &message));
                Some(reason.to_owned())
            }
            // It was there a moment ago, or is being written: the next look tells.
            Unread::Missing | Unread::Unsettled => {
                self.scan.unsettled = true;
                None
            }
        };
        self.scan.kept.push(Kept { place: values, names: Names::Unknown, reason });
    }

    /// What a file says; from the cache where it has not changed.
    fn read(&mut self, path: &Path, name: &str, parse: impl FnOnce(&str) -> Content) -> Result<Content, Unread> {
        let path = file::resolve(&self.root, path)?;
        let round = self.cache.round;
        if let Some(cached) = self.cache.files.get_mut(name)
            && cached.stamp == file::stamp(&path)?
        {
            cached.round = round;
            return Ok(cached.content.clone());
        }
        let (text, stamp) = file::read(&path, self.limits.file_bytes)?;
        if !text.ends_with('\n') && is_within(self.unfinished, stamp.written) {
            return Err(Unread::Unsettled);
        }
        let content = parse(&text);
        if is_settled(stamp) {
            self.cache.files.insert(name.to_owned(), Cached { stamp, content: content.clone(), round });
        } else {
            self.cache.files.remove(name);
        }
        Ok(content)
    }
}

/// Whether that is not long ago. The clock of a file server may be ahead a little.
fn is_within(time: Duration, written: SystemTime) -> bool {
    let age = written.elapsed().unwrap_or_else(|ahead| ahead.duration());
    age < time
}

fn is_settled(stamp: Stamp) -> bool {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return false };
    let (seconds, _) = stamp.changed;
    u64::try_from(seconds).is_ok_and(|seconds| seconds + SETTLED.as_secs() < now.as_secs())
}

fn real_folder(root: &Path) -> io::Result<PathBuf> {
    let real = fs::canonicalize(root)?;
    if fs::metadata(&real)?.is_dir() { Ok(real) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

/// The real folder at `path`; none where it is something else. `Err(None)`: a link to nowhere.
fn folder_at(root: &Path, path: &Path) -> Result<Option<PathBuf>, Option<String>> {
    let unreadable = |error: io::Error| Some(format!("can not be read: {error}"));
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if !metadata.is_symlink() {
        return Ok(metadata.is_dir().then(|| path.to_path_buf()));
    }
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(None),
        Err(error) => return Err(unreadable(error)),
    };
    if !target.is_dir() {
        return Ok(None);
    }
    if !target.starts_with(root) {
        return Err(Some("is a symbolic link that leads out of the apps folder; it is not followed".to_owned()));
    }
    Ok(Some(target))
}

/// A name within a folder; the root's is empty.
pub(crate) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Puts everything in order.
fn finish(mut scan: Scan) -> Scan {
    scan.definitions.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    scan.problems = listed(scan.problems);
    scan
}
