//! Reads a tree against a closed schema and notes every fault with its line and key.

use std::collections::BTreeMap;

use pgtenant_ledger::AppsProblem;

use crate::problem::problem;
use crate::scalar::Kind;
use crate::tree::{Data, Node};

/// More faults than these in one file help nobody.
const MAX_PROBLEMS: usize = 50;

/// What rewrites files of older charts.
const MIGRATE: &str = "`pgtenant migrate values -f DIR`";

/// A key's value and the line of the key.
#[derive(Clone, Copy)]
pub(crate) struct Field<'n> {
    pub(crate) line: u32,
    pub(crate) node: &'n Node,
}

/// Collects the faults of one file.
pub(crate) struct Reader<'f> {
    file: &'f str,
    problems: Vec<AppsProblem>,
    left_out: usize,
}

impl<'f> Reader<'f> {
    pub(crate) fn new(file: &'f str) -> Self {
        Self { file, problems: Vec::new(), left_out: 0 }
    }

    pub(crate) fn fault(&mut self, line: u32, key: &str, message: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem(self.file, line, key, message));
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Every fault, by line.
    pub(crate) fn into_problems(mut self) -> Vec<AppsProblem> {
        self.problems.sort_by_key(|p| p.line);
        if self.left_out > 0 {
            self.problems.push(problem(self.file, 0, "", &format!("has {} more problems", self.left_out)));
        }
        self.problems
    }

    /// The keys of a mapping: each of `allowed` at most once and no other. None where it is no mapping.
    pub(crate) fn map<'n>(
        &mut self,
        at: Field<'n>,
        path: &str,
        allowed: &[&'static str],
    ) -> Option<BTreeMap<&'static str, Field<'n>>> {
        let Data::Map(pairs) = &at.node.data else {
            self.wrong_type(at, path, "a mapping (key: value)");
            return None;
        };
        let mut fields = BTreeMap::new();
        for (key, value) in pairs {
            let Data::Scalar { text, .. } = &key.data else {
                self.fault(key.line, path, "a key must be text");
                continue;
            };
            let Some(name) = allowed.iter().find(|name| *name == text) else {
                self.fault(key.line, &join(path, text), &unknown_key(text, allowed));
                continue;
            };
            let field = Field { line: key.line, node: value };
            match fields.get(name) {
                None => {
                    fields.insert(*name, field);
                }
                Some(Field { line, .. }) => {
                    let message = format!("is set twice; the first time in line {line}");
                    self.fault(key.line, &join(path, text), &message);
                }
            }
        }
        Some(fields)
    }

    /// Text. Words that YAML 1.1 reads as something else must be quoted.
    pub(crate) fn text<'n>(&mut self, at: Field<'n>, path: &str) -> Option<&'n str> {
        match &at.node.data {
            Data::Scalar { text, kind: Kind::Text } => Some(text),
            Data::Scalar { text, kind: kind @ (Kind::Boolean | Kind::Number) } => {
                let message = format!("{text} is {} and must be text; put it in quotes: \"{text}\"", kind.describe());
                self.fault(at.line, path, &message);
                None
            }
            _ => {
                self.wrong_type(at, path, "text");
                None
            }
        }
    }

    /// A whole number in plain decimal digits.
    pub(crate) fn integer(&mut self, at: Field<'_>, path: &str) -> Option<i32> {
        let Data::Scalar { text, kind: Kind::Number } = &at.node.data else {
            self.wrong_type(at, path, "a whole number");
            return None;
        };
        // `010` is eight to Helm.
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
        let number = plain.then(|| text.parse().ok()).flatten();
        if number.is_none() {
            self.fault(at.line, path, &format!("{text} must be a whole number in decimal digits, as 20"));
        }
        number
    }

    /// The elements of a list.
    pub(crate) fn list<'n>(&mut self, at: Field<'n>, path: &str) -> Option<Vec<Field<'n>>> {
        let Data::List(items) = &at.node.data else {
            self.wrong_type(at, path, "a list ([] where it is empty)");
            return None;
        };
        Some(items.iter().map(|node| Field { line: node.line, node }).collect())
    }

    /// A list of texts, each with its line. None where one of them is something else.
    pub(crate) fn texts(&mut self, at: Field<'_>, path: &str) -> Option<Vec<(String, u32)>> {
        let items = self.list(at, path)?;
        let texts: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| Some((self.text(*item, &format!("{path}[{index}]"))?.to_owned(), item.line)))
            .collect();
        texts.into_iter().collect()
    }

    /// Notes that a value is of another type.
    pub(crate) fn wrong_type(&mut self, at: Field<'_>, path: &str, wanted: &str) {
        let message = match &at.node.data {
            Data::Scalar { kind: Kind::Null, .. } => format!("has no value; it must be {wanted}"),
            Data::Scalar { text, kind } => format!("{text:?} is {} and must be {wanted}", kind.describe()),
            Data::List(_) => format!("is a list and must be {wanted}"),
            Data::Map(_) => format!("is a mapping and must be {wanted}"),
        };
        self.fault(at.line, path, &message);
    }
}

/// `path.key`; keys that could be misread are quoted.
pub(crate) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if plain { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn unknown_key(key: &str, allowed: &[&str]) -> String {
    let hint = match key {
        "deletionProtection" | "dbDeletionPolicy" | "roleDeletionPolicy" if allowed.contains(&"mode") => {
            format!(
                "is of an older chart; write `mode: protected` or `mode: standard` in its place, or let {MIGRATE} do it"
            )
        }
        "tenantDatabases" if allowed.contains(&"postgresqlDatabases") => {
            format!("is of an older chart; write `postgresqlDatabases` in its place, or let {MIGRATE} do it")
        }
        "<<" => "merging of mappings is not supported here; write the keys out".to_owned(),
        _ => match nearest(key, allowed) {
            Some(name) => format!("is not known; did you mean `{name}`?"),
            None => "is not known".to_owned(),
        },
    };
    format!("{hint} (allowed: {})", allowed.join(", "))
}

/// The word of `known` that is so near that it was probably meant.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let distance = |name: &&'k str| (distance(&lower, &name.to_lowercase()), *name);
    let (distance, name) = known.iter().map(distance).min()?;
    (distance <= 1 + name.len() / 5).then_some(name)
}

/// Edits (insert, delete, replace, swap neighbours) from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_one_that_a_hand_could_have_missed() {
        let known = ["name", "mode", "cluster", "schemas", "extensions", "connectionLimit", "postgresqlDatabases"];
        for (word, meant) in [
            ("nmae", Some("name")),
            ("Mode", Some("mode")),
            ("schema", Some("schemas")),
            ("connection_limit", Some("connectionLimit")),
            ("postgresDatabases", Some("postgresqlDatabases")),
            ("postgresqlDatabase", Some("postgresqlDatabases")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
        assert_eq!(nearest(&"n".repeat(1000), &known), None);
    }
}
