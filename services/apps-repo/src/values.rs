//! `values.yaml` of the tenant chart: which databases an application has.

use std::collections::BTreeMap;

use pgtenant_ledger::AppsProblem;
use pgtenant_model::{ClaimKey, ClaimSpec, Mode};

use crate::reader::{Field, Reader, join, nearest};
use crate::scan::Definition;
use crate::tree::{self, Data, Node};

/// The key of the list of databases.
pub(crate) const LIST: &str = "postgresqlDatabases";
const KEYS: [&str; 4] = [LIST, "global", "idp_oidc_provider_url", "idp_aws_account"];
const ENTRY_KEYS: [&str; 7] = ["name", "mode", "cluster", "schemas", "extensions", "connectionLimit", "slackChannel"];
const MODES: [&str; 2] = ["standard", "protected"];

/// What a `values.yaml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Values {
    /// The entries that can be read; to be believed where there are no problems.
    pub(crate) definitions: Vec<Definition>,
    pub(crate) problems: Vec<AppsProblem>,
    /// The names of all entries and their lines, faulty ones included; none where some entry's name can not be read.
    pub(crate) names: Option<BTreeMap<String, u32>>,
    /// Whether the list is written at all: a file that was cut off before it says nothing about databases.
    pub(crate) listed: bool,
}

impl Values {
    /// Whether it says that there is no database.
    pub(crate) fn lists_none(&self) -> bool {
        self.listed && self.names.as_ref().is_some_and(BTreeMap::is_empty)
    }
}

/// Reads a `values.yaml`; `file` is its name for messages.
pub(crate) fn parse(file: &str, namespace: &str, text: &str) -> Values {
    match tree::parse(text) {
        Ok(Some(root)) => read(file, namespace, &root),
        Ok(None) => Values { names: Some(BTreeMap::new()), ..Values::default() },
        Err(fault) => {
            let mut reader = Reader::new(file);
            reader.fault(fault.line, "", &fault.message);
            Values { problems: reader.into_problems(), ..Values::default() }
        }
    }
}

/// Reads the values that a `values.yaml` holds.
pub(crate) fn read(file: &str, namespace: &str, root: &Node) -> Values {
    let mut reader = Reader::new(file);
    let (listed, entries) = entries(&mut reader, Field { line: root.line, node: root });
    let names = entries.as_deref().and_then(names);
    let mut definitions: Vec<Definition> = Vec::new();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for (index, entry) in entries.unwrap_or_default().into_iter().enumerate() {
        let path = format!("{LIST}[{index}]");
        let mut entry_reader = EntryReader { reader: &mut reader, file, namespace, path, seen: &mut seen };
        definitions.extend(entry_reader.read(entry));
    }
    Values { definitions, problems: reader.into_problems(), names, listed }
}

/// Whether the list is written, and its entries where they can be told.
fn entries<'n>(reader: &mut Reader<'_>, root: Field<'n>) -> (bool, Option<Vec<Field<'n>>>) {
    let Some(fields) = reader.map(root, "", &KEYS) else { return (false, None) };
    match fields.get(LIST) {
        Some(list) => (true, reader.list(*list, LIST)),
        // A misspelt list may hold anything.
        None if reader.has_faults() => (false, None),
        None => (false, Some(Vec::new())),
    }
}

fn names(entries: &[Field<'_>]) -> Option<BTreeMap<String, u32>> {
    let name = |entry: &Field<'_>| {
        let Data::Map(pairs) = &entry.node.data else { return None };
        let text = |data: &Data| match data {
            Data::Scalar { text, .. } => Some(text.clone()),
            _ => None,
        };
        let (key, value) = pairs.iter().find(|(key, _)| text(&key.data).as_deref() == Some("name"))?;
        Some((text(&value.data)?, key.line))
    };
    entries.iter().map(name).collect()
}

/// Reads one entry of the list.
struct EntryReader<'r, 'f> {
    reader: &'r mut Reader<'f>,
    file: &'r str,
    namespace: &'r str,
    path: String,
    seen: &'r mut BTreeMap<String, u32>,
}

impl EntryReader<'_, '_> {
    /// The definition, if it has a name that can be used.
    fn read(&mut self, entry: Field<'_>) -> Option<Definition> {
        let fields = self.reader.map(entry, &self.path, &ENTRY_KEYS)?;
        let key = self.key(entry.line, fields.get("name"));
        let mut lines: BTreeMap<String, u32> =
            fields.iter().map(|(name, field)| ((*name).to_owned(), field.line)).collect();
        let mut spec = ClaimSpec::default();
        for (name, field) in &fields {
            self.field(&mut spec, &mut lines, name, *field);
        }
        for problem in spec.problems() {
            let line = line_of(&lines, &problem.field).unwrap_or(entry.line);
            self.reader.fault(line, &join_path(&self.path, &problem.field), &problem.message);
        }
        let file = self.file.to_owned();
        Some(Definition { key: key?, spec, file, line: entry.line, path: self.path.clone(), lines })
    }

    fn key(&mut self, line: u32, name: Option<&Field<'_>>) -> Option<ClaimKey> {
        let path = join(&self.path, "name");
        let Some(field) = name else {
            self.reader.fault(line, &path, "is missing; each database has a name");
            return None;
        };
        let name = self.reader.text(*field, &path)?;
        let key = match ClaimKey::new(self.namespace, name) {
            Ok(key) => key,
            Err(error) => {
                self.reader.fault(field.line, &path, &error.to_string());
                return None;
            }
        };
        match self.seen.get(name) {
            Some(first) => {
                let message = format!("{name:?} is defined twice; the first time in line {first}");
                self.reader.fault(field.line, &path, &message);
                None
            }
            None => {
                self.seen.insert(name.to_owned(), field.line);
                Some(key)
            }
        }
    }

    /// Puts a field into `spec`; none where it can not be read.
    fn field(
        &mut self,
        spec: &mut ClaimSpec,
        lines: &mut BTreeMap<String, u32>,
        name: &str,
        field: Field<'_>,
    ) -> Option<()> {
        let path = join(&self.path, name);
        match name {
            "mode" => spec.mode = self.mode(field, &path)?,
            "cluster" => spec.cluster = self.reader.text(field, &path)?.to_owned(),
            "schemas" => spec.schemas = self.texts(field, &path, name, lines)?,
            "extensions" => spec.extensions = self.texts(field, &path, name, lines)?,
            "connectionLimit" => spec.connection_limit = Some(self.reader.integer(field, &path)?),
            "slackChannel" => spec.slack_channel = Some(self.reader.text(field, &path)?.to_owned()),
            _ => {}
        }
        Some(())
    }

    fn mode(&mut self, field: Field<'_>, path: &str) -> Option<Mode> {
        match self.reader.text(field, path)? {
            "standard" => Some(Mode::Standard),
            "protected" => Some(Mode::Protected),
            other => {
                let hint = nearest(other, &MODES).map(|mode| format!("; did you mean `{mode}`?")).unwrap_or_default();
                let message = format!("{other:?} is not a mode{hint} (allowed: {})", MODES.join(", "));
                self.reader.fault(field.line, path, &message);
                None
            }
        }
    }

    fn texts(
        &mut self,
        field: Field<'_>,
        path: &str,
        name: &str,
        lines: &mut BTreeMap<String, u32>,
    ) -> Option<Vec<String>> {
        let texts = self.reader.texts(field, path)?;
        lines.extend(texts.iter().enumerate().map(|(index, (_, line))| (format!("{name}[{index}]"), *line)));
        Some(texts.into_iter().map(|(text, _)| text).collect())
    }
}

/// The line of a field, or else of the list that it is in.
pub(crate) fn line_of(lines: &BTreeMap<String, u32>, field: &str) -> Option<u32> {
    lines.get(field).or_else(|| lines.get(field.split('[').next()?)).copied()
}

/// `path.field`, where the field may have an index already.
pub(crate) fn join_path(path: &str, field: &str) -> String {
    format!("{path}.{field}")
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
