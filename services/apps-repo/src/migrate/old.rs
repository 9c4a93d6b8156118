//! What the older charts meant by their fields.

use pgtenant_model::Mode;

use crate::reader::{Field, Reader, join};
use crate::scalar::Kind;
use crate::tree::{Data, Node};

const PROTECTION: &str = "deletionProtection";
const ROLE: &str = "roleDeletionPolicy";
const DATABASE: &str = "dbDeletionPolicy";
const MODE: &str = "mode";

/// An entry that is to be written in another way.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) mode: Mode,
    /// The pairs that say it, in the order of the file, `mode` among them if it is there: the first becomes `mode`, and
    /// the others go.
    pub(crate) pairs: Vec<usize>,
    /// How the fields contradict each other.
    pub(crate) discord: Option<String>,
}

/// The text of a scalar.
pub(crate) fn word(node: &Node) -> Option<&str> {
    match &node.data {
        Data::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

/// Whether an entry has a field of an older chart.
pub(crate) fn is_old(entry: &Node) -> bool {
    let Data::Map(pairs) = &entry.data else { return false };
    pairs.iter().any(|(key, _)| word(key).is_some_and(|key| [PROTECTION, ROLE, DATABASE].contains(&key)))
}

/// What an entry with fields of an older chart becomes; none where they can not be understood, which `reader` then
/// knows.
pub(crate) fn turn(reader: &mut Reader<'_>, path: &str, entry: &Node) -> Option<Turn> {
    let Data::Map(pairs) = &entry.data else { return None };
    let mut said = Said::default();
    let mut places = Vec::new();
    let mut sound = true;
    for (index, (key, value)) in pairs.iter().enumerate() {
        let Some(name) = word(key).filter(|name| [PROTECTION, ROLE, DATABASE, MODE].contains(name)) else { continue };
        places.push(index);
        let field = Field { line: key.line, node: value };
        sound &= said.take(reader, field, &join(path, name), name).is_some();
    }
    if !sound {
        return None;
    }
    let mode = said.mode();
    if let Some((written, line)) = said.written.filter(|(written, _)| *written != mode.to_string()) {
        let message = format!(
            "is {written:?}, and the fields of the older chart beside it mean `mode: {mode}`; remove the one or the others"
        );
        reader.fault(line, &join(path, MODE), &message);
        return None;
    }
    Some(Turn { mode, pairs: places, discord: said.discord() })
}

/// What the fields of an entry say: whether something is kept.
#[derive(Debug, Default)]
struct Said<'n> {
    protection: Option<bool>,
    role: Option<bool>,
    database: Option<bool>,
    /// `mode`, and its line.
    written: Option<(&'n str, u32)>,
}

impl<'n> Said<'n> {
    /// None where the field can not be understood.
    fn take(&mut self, reader: &mut Reader<'_>, field: Field<'n>, path: &str, name: &str) -> Option<()> {
        let again = match name {
            PROTECTION => self.protection.replace(boolean(reader, field, path)?).is_some(),
            ROLE => self.role.replace(policy(reader, field, path)?).is_some(),
            DATABASE => self.database.replace(policy(reader, field, path)?).is_some(),
            _ => self.written.replace((reader.text(field, path)?, field.line)).is_some(),
        };
        if again {
            reader.fault(field.line, path, "is set twice");
        }
        (!again).then_some(())
    }

    /// The safer of what was meant. What is not written is what the charts took it for: no protection, `Delete`.
    fn mode(&self) -> Mode {
        let kept = [self.protection, self.role, self.database].contains(&Some(true));
        if kept { Mode::Protected } else { Mode::Standard }
    }

    /// The fields, where they do not agree. A policy that is not written counts as `Delete` beside one that is;
    /// without any, the file is of the chart that had none.
    fn discord(&self) -> Option<String> {
        let policies = self.role.or(self.database).is_some();
        let policy = |name, value: Option<bool>| {
            let kept = value.unwrap_or(false);
            let note = if value.is_some() { "" } else { " (not written)" };
            policies.then(|| (kept, format!("{name} {}{note}", if kept { "Orphan" } else { "Delete" })))
        };
        let protection = self.protection.map(|on| (on, format!("{PROTECTION} {on}")));
        let all: Vec<_> =
            [protection, policy(ROLE, self.role), policy(DATABASE, self.database)].into_iter().flatten().collect();
        let split = all.iter().any(|(kept, _)| *kept) && all.iter().any(|(kept, _)| !*kept);
        let texts: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
        split.then(|| texts.join(", "))
    }
}

fn boolean(reader: &mut Reader<'_>, field: Field<'_>, path: &str) -> Option<bool> {
    match &field.node.data {
        Data::Scalar { text, kind: Kind::Boolean } => {
            Some(["y", "yes", "on", "true"].contains(&&*text.to_ascii_lowercase()))
        }
        // "false" in quotes is text, which Helm takes for true.
        _ => {
            reader.wrong_type(field, path, "true or false, without quotes");
            None
        }
    }
}

/// Whether it is `Orphan`.
fn policy(reader: &mut Reader<'_>, field: Field<'_>, path: &str) -> Option<bool> {
    match reader.text(field, path)? {
        "Orphan" => Some(true),
        "Delete" => Some(false),
        other => {
            reader.fault(field.line, path, &format!("{other:?} is not a policy (allowed: Orphan, Delete)"));
            None
        }
    }
}
