//! What `pgtenant config check` looks at beyond the values themselves: files, their permissions, what is missing.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use config::{Value, ValueKind};
use pgtenant_model::{ClusterSpec, FileStore, StoreSpec};

use super::field::{CLUSTERS, FIELDS, Field, Kind};
use super::slack::SlackSection;
use super::{Loaded, Problem, Settings, place_of, secret, table};

/// A value as it may be shown, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Effective {
    /// Its key.
    pub(crate) key: String,
    /// Secrets are masked; none: not set.
    pub(crate) value: Option<String>,
    /// `default`, `FILE:LINE`, a variable or a flag.
    pub(crate) source: String,
}

const MASK: &str = "********";

impl Loaded {
    /// Every setting, then every value of every cluster by its key.
    pub(crate) fn effective(&self) -> Vec<Effective> {
        let mut list: Vec<Effective> = FIELDS.iter().map(|field| self.effective_field(field)).collect();
        let mut clusters = Vec::new();
        if let Some(found) = table(&self.merged).and_then(|root| root.get(CLUSTERS)) {
            flatten(CLUSTERS, found, &mut clusters);
        }
        clusters.sort_by(|a, b| a.key.cmp(&b.key));
        list.extend(clusters);
        list
    }

    fn effective_field(&self, field: &Field) -> Effective {
        let found = self.value(field.key);
        let shown = found.map(|value| match field.kind {
            Kind::Secret => MASK.to_owned(),
            Kind::Channels | Kind::Users => super::to_json(value).to_string(),
            _ => value.to_string(),
        });
        let source = found.and_then(Value::origin).unwrap_or_default();
        Effective { key: field.key.to_owned(), value: shown, source: source.to_owned() }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        key.split('.').try_fold(&self.merged, |value, step| table(value)?.get(step))
    }

    /// Where a setting came from; empty: it is not set.
    pub(crate) fn place(&self, key: &str) -> String {
        self.value(key).map(|value| place_of(value, "")).unwrap_or_default()
    }
}

fn flatten(key: &str, value: &Value, into: &mut Vec<Effective>) {
    if let ValueKind::Table(map) = &value.kind {
        for (name, inner) in map {
            flatten(&format!("{key}.{name}"), inner, into);
        }
        return;
    }
    let shown = match super::to_json(value) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    into.push(Effective { key: key.to_owned(), value: Some(shown), source: place_of(value, "") });
}

/// Adds what is wrong with files and what is missing.
pub(crate) fn check(loaded: &mut Loaded) {
    if let Some(settings) = loaded.settings.take() {
        let mut findings = Findings { loaded, problems: Vec::new(), warnings: Vec::new() };
        findings.server(&settings);
        for (name, spec) in &settings.clusters {
            findings.cluster(name, spec);
        }
        let Findings { problems, warnings, .. } = findings;
        loaded.problems.extend(problems);
        loaded.warnings.extend(warnings);
        loaded.settings = Some(settings);
    }
}

struct Findings<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Findings<'_> {
    fn server(&mut self, settings: &Settings) {
        if let Some(file) = &settings.ledger.password_file {
            self.secret_file("ledger.password_file", file);
        }
        if settings.ledger.password.is_some() {
            self.secret_in_file("ledger.password");
        }
        self.slack(&settings.slack);
        if let Some(dir) = &settings.apps.dir {
            match std::fs::metadata(dir) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => self.problem("apps.dir", format!("{} is not a directory", dir.display())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.warning("apps.dir", format!("{} is not there yet", dir.display()));
                }
                Err(error) => self.problem("apps.dir", unreadable(dir, &error)),
            }
        }
        if settings.clusters.is_empty() && !settings.kubernetes.enabled {
            self.warning(CLUSTERS, "there is no cluster, so no database can be made".to_owned());
        }
    }

    fn slack(&mut self, slack: &SlackSection) {
        let files = [("signing_secret", &slack.signing_secret_file), ("bot_token", &slack.bot_token_file)];
        for (key, file) in files {
            self.secret_in_file(&format!("slack.{key}"));
            if let Some(file) = file {
                self.secret_file(&format!("slack.{key}_file"), file);
            }
        }
    }

    fn cluster(&mut self, name: &str, spec: &ClusterSpec) {
        let key = |tail: &str| format!("{CLUSTERS}.{name}.{tail}");
        if let Some(file) = &spec.provisioner.password_file {
            self.secret_file(&key("provisioner.passwordFile"), file);
        }
        if let Some(file) = &spec.tls.ca_file {
            match std::fs::read_to_string(file) {
                Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => {}
                Ok(_) => self.problem(&key("tls.caFile"), format!("{} has no PEM certificate", file.display())),
                Err(error) => self.problem(&key("tls.caFile"), unreadable(file, &error)),
            }
        }
        for (index, store) in spec.stores.iter().enumerate() {
            if let StoreSpec::File(FileStore { directory, .. }) = store {
                self.store_directory(&key(&format!("stores[{index}].file.directory")), directory);
            }
        }
    }

    fn store_directory(&mut self, key: &str, directory: &Path) {
        match std::fs::metadata(directory) {
            Ok(found) if !found.is_dir() => self.problem(key, format!("{} is not a directory", directory.display())),
            Ok(found) if mode(&found) & 0o007 != 0 => {
                self.warning(key, format!("{} is open to everyone on this machine; chmod 0700 it", directory.display()))
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.warning(key, format!("{} is not there yet; it is made when it is needed", directory.display()));
            }
            Err(error) => self.problem(key, unreadable(directory, &error)),
        }
    }

    fn secret_file(&mut self, key: &str, path: &Path) {
        if let Err(error) = secret::read(path) {
            let message = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            self.problem(key, message);
        } else if std::fs::metadata(path).is_ok_and(|found| mode(&found) & 0o004 != 0) {
            self.warning(key, format!("everyone on this machine can read {}; chmod 0600 it", path.display()));
        }
    }

    /// A secret that stands in the settings file itself.
    fn secret_in_file(&mut self, key: &str) {
        let Some(file) = self.loaded.file.as_deref() else { return };
        let from_file = self.loaded.place(key).starts_with(&*file.to_string_lossy());
        if from_file && std::fs::metadata(file).is_ok_and(|found| mode(&found) & 0o004 != 0) {
            self.warning(key, format!("everyone on this machine can read {}; use {key}_file", file.display()));
        }
    }

    fn problem(&mut self, key: &str, message: String) {
        self.problems.push(Problem::new(&self.place(key), key, message));
    }

    fn warning(&mut self, key: &str, message: String) {
        self.warnings.push(Problem::new(&self.place(key), key, message));
    }

    fn place(&self, key: &str) -> String {
        let section = key.split('.').next().unwrap_or_default();
        if table(&self.loaded.merged).is_none_or(|root| !root.contains_key(section)) {
            return String::new();
        }
        place_of(&self.loaded.merged, key)
    }
}

fn mode(found: &Metadata) -> u32 {
    found.permissions().mode()
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("can not read {}: {error}", path.display())
}
