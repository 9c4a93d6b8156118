//! Settings of the server in layers: defaults, file, environment, flags. Each value knows where it came from.

mod args;
mod check;
mod env;
mod field;
mod file;
mod layer;
mod secret;
mod settings;
mod slack;
mod value;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Config, Map, Value, ValueKind};
use pgtenant_model::ClusterSpec;

pub(crate) use args::SettingsArgs;
pub(crate) use check::{Effective, check};
pub(crate) use secret::read as read_secret;
pub(crate) use settings::{KubernetesSettings, LogFormat, Settings};
pub(crate) use slack::slack_of;
pub(crate) use value::each_host;

use field::{CLUSTERS, FIELDS};
use layer::Layer;
use secret::UnreadableSecret;

/// Read if it is there and no other file was named.
pub(crate) const DEFAULT_FILE: &str = "/etc/pgtenant/pgtenant.toml";

/// A setting that can not be used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Problem {
    /// `FILE:LINE`, a variable or a flag; empty where nothing was said at all.
    pub(crate) place: String,
    /// The setting's key; empty where the whole file is meant.
    pub(crate) key: String,
    /// What is wrong and what is allowed.
    pub(crate) message: String,
}

impl Problem {
    fn new(place: &str, key: &str, message: String) -> Self {
        Self { place: place.to_owned(), key: key.to_owned(), message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: Vec<&str> = [&*self.place, &*self.key].into_iter().filter(|part| !part.is_empty()).collect();
        if head.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", head.join(": "), self.message) }
    }
}

/// Settings that can not be used: every problem at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct InvalidSettings(pub(crate) Vec<Problem>);

/// What the layers say together.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// None where `problems` is not empty.
    pub(crate) settings: Option<Settings>,
    /// Every value with its place, secrets included: never print it, see [`check::Effective`].
    merged: Value,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// What can not be used.
    pub(crate) problems: Vec<Problem>,
    /// What looks like a mistake.
    pub(crate) warnings: Vec<Problem>,
}

impl Loaded {
    /// The settings, if there is no problem.
    ///
    /// # Errors
    /// Every problem.
    pub(crate) fn settings(self) -> Result<Settings, InvalidSettings> {
        self.settings.filter(|_| self.problems.is_empty()).ok_or(InvalidSettings(self.problems))
    }
}

/// Reads every layer. `variables` is the environment, as [`std::env::vars_os`].
pub(crate) fn load(args: &SettingsArgs, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Loaded {
    let mut problems = Vec::new();
    let (file, file_layer) = read_file(args.config.as_deref(), &mut problems);
    let (env_layer, warnings) = env::layer(variables);
    let mut builder = Config::builder();
    for layer in [defaults(), file_layer, env_layer, args.layer()] {
        problems.extend(layer.problems.iter().cloned());
        builder = builder.add_source(layer);
    }
    let merged = match builder.build() {
        Ok(config) => config.cache,
        Err(error) => {
            problems.push(Problem::new("", "", error.to_string()));
            Value::new(None, Map::<String, Value>::new())
        }
    };
    let clusters = clusters(&merged, &mut problems);
    // With a problem the settings would only repeat it, less clearly.
    let settings = if problems.is_empty() { settings(&merged, clusters, &mut problems) } else { None };
    Loaded { settings, merged, file, problems, warnings }
}

fn defaults() -> Layer {
    let mut layer = Layer::default();
    for field in FIELDS {
        if let Some(text) = field.default {
            let path: Vec<String> = field.key.split('.').map(str::to_owned).collect();
            layer.put_text(&path, text.to_owned(), "default");
        }
    }
    layer
}

fn read_file(named: Option<&Path>, problems: &mut Vec<Problem>) -> (Option<PathBuf>, Layer) {
    let path = named.unwrap_or_else(|| Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => (Some(path.to_owned()), file::layer(path, &text)),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => (None, Layer::default()),
        Err(error) => {
            problems.push(Problem::new(&path.display().to_string(), "", format!("can not be read: {error}")));
            (Some(path.to_owned()), Layer::default())
        }
    }
}

fn table(value: &Value) -> Option<&Map<String, Value>> {
    match &value.kind {
        ValueKind::Table(map) => Some(map),
        _ => None,
    }
}

fn settings(merged: &Value, clusters: Vec<(String, ClusterSpec)>, problems: &mut Vec<Problem>) -> Option<Settings> {
    let mut map = table(merged).cloned().unwrap_or_default();
    map.remove(CLUSTERS);
    // A section in which nothing is set has no default to bring it about.
    match Value::new(None, map).try_deserialize::<Settings>() {
        Ok(mut settings) => {
            settings.clusters = clusters.into_iter().collect();
            required(merged, &settings, problems);
            problems.extend(settings.slack.problems(merged));
            problems.extend(settings.slack.connection_problem(merged, settings.ledger.max_connections));
            Some(settings)
        }
        Err(error) => {
            problems.push(Problem::new("", "", error.to_string()));
            None
        }
    }
}

fn required(merged: &Value, settings: &Settings, problems: &mut Vec<Problem>) {
    if settings.ledger.url.is_none() {
        let message = "must be set: the PostgreSQL URL of the control plane's own database, without a password; in the \
                       file, as PGTENANT_LEDGER__URL or as --ledger-url";
        problems.push(Problem::new("", "ledger.url", message.to_owned()));
    }
    if settings.ledger.password.is_some() && settings.ledger.password_file.is_some() {
        let place = place_of(merged, "ledger.password");
        problems.push(Problem::new(
            &place,
            "ledger.password",
            "is set beside ledger.password_file; keep one".to_owned(),
        ));
    }
}

fn clusters(merged: &Value, problems: &mut Vec<Problem>) -> Vec<(String, ClusterSpec)> {
    let Some(map) = table(merged).and_then(|root| root.get(CLUSTERS)).and_then(table) else { return Vec::new() };
    let mut names: Vec<&String> = map.keys().collect();
    names.sort();
    let mut specs = Vec::new();
    for name in names {
        let value = &map[name];
        let key = format!("{CLUSTERS}.{name}");
        if let Err(error) = pgtenant_model::check_label("cluster", name) {
            problems.push(Problem::new(&place_of(value, ""), &key, error.to_string()));
        }
        match serde_path_to_error::deserialize::<_, ClusterSpec>(to_json(value)) {
            Ok(spec) => {
                for problem in spec.problems() {
                    let place = place_of(value, &problem.field);
                    problems.push(Problem::new(&place, &format!("{key}.{}", problem.field), problem.message));
                }
                specs.push((name.clone(), spec));
            }
            Err(error) => {
                let path = error.path().to_string();
                let full = if path == "." { key } else { format!("{key}.{path}") };
                problems.push(Problem::new(&place_of(value, &path), &full, error.inner().to_string()));
            }
        }
    }
    specs
}

fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(value) => Json::Bool(*value),
        ValueKind::I64(number) => Json::from(*number),
        ValueKind::I128(number) => Json::String(number.to_string()),
        ValueKind::U64(number) => Json::from(*number),
        ValueKind::U128(number) => Json::String(number.to_string()),
        ValueKind::Float(number) => Json::from(*number),
        ValueKind::String(text) => Json::String(text.clone()),
        ValueKind::Table(map) => Json::Object(map.iter().map(|(k, v)| (k.clone(), to_json(v))).collect()),
        ValueKind::Array(list) => Json::Array(list.iter().map(to_json).collect()),
    }
}

/// Where the value at `path`, as `stores[0].file`, came from: the nearest place that is known.
fn place_of(root: &Value, path: &str) -> String {
    let mut place = nearest(root);
    let mut here = root;
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        let next = match &here.kind {
            ValueKind::Table(map) => map.get(step),
            ValueKind::Array(list) => step.trim_end_matches(']').parse().ok().and_then(|i: usize| list.get(i)),
            _ => None,
        };
        let Some(next) = next else { break };
        here = next;
        place = here.origin().map_or(place, str::to_owned);
    }
    place
}

/// The place of a value, or of anything within it: merged tables forget their own.
fn nearest(value: &Value) -> String {
    if let Some(origin) = value.origin() {
        return origin.to_owned();
    }
    let inner = table(value).into_iter().flat_map(Map::values).filter_map(Value::origin).min();
    inner.unwrap_or_default().to_owned()
}
