//! The definitions of a database, as `pg_dump` writes them: held in memory, stored encrypted, and read by `pg_restore`.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;

use super::TransferError;
use super::toc::{Entry, Toc};
use crate::follow::is_of_move;
use crate::sql::ident;

/// More definitions than this are not held in memory: tens of thousands of tables take a tenth of it.
pub(super) const LIMIT: usize = 512 << 20;

/// What `pg_dump` is asked for, besides the snapshot: definitions before and after the data, and what fills materialised views.
/// Large objects are data from 17 on, and were definitions before.
pub(super) const DUMP_ARGUMENTS: [&str; 6] = [
    "--format=custom",
    "--section=pre-data",
    "--section=post-data",
    "--no-blobs",
    "--compress=0",
    "--lock-wait-timeout=60000",
];

/// The definitions of a database, without its rows.
#[derive(Clone)]
pub struct Archive {
    bytes: Bytes,
    pub(super) toc: Toc,
}

/// Something that has a definition, or something about one: a comment, privileges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `TABLE`, `FK CONSTRAINT`, `ACL`.
    pub kind: String,
    /// Its schema, if it is in one.
    pub schema: Option<String>,
    /// Its name, as `pg_restore -l` shows it.
    pub name: String,
    /// Who owns it.
    pub owner: String,
    /// Its statements.
    pub definition: String,
    /// For a comment, a label and privileges: what they are about, as it is displayed.
    pub about: Option<String>,
}

impl Archive {
    /// Reads what [`bytes`](Self::bytes) gave.
    ///
    /// # Errors
    /// It is no archive, or of a version of `pg_dump` that is not known yet.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, TransferError> {
        let toc = Toc::read(&bytes)?;
        Ok(Self { bytes, toc })
    }

    /// As `pg_dump` wrote it, in its custom format.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Major version of the server that it is from.
    #[must_use]
    pub fn server_major(&self) -> u32 {
        major(&self.toc.server)
    }

    /// Major version of the `pg_dump` that wrote it: an older `pg_restore` may not be able to read it.
    #[must_use]
    pub fn dumped_by(&self) -> u32 {
        major(&self.toc.dumped_by)
    }

    /// All that is defined, one by one.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        let by_id: HashMap<i32, &Entry> = self.toc.entries.iter().map(|entry| (entry.id, entry)).collect();
        let object = |entry: &Entry| {
            let first = entry.depends_on.first().and_then(|id| by_id.get(id));
            let about = first.filter(|_| is_about_another(entry)).map(|entry| display(entry));
            let Entry { kind, tag, schema, owner, definition, .. } = entry.clone();
            Object { kind, schema, name: tag, owner, definition, about }
        };
        self.toc.entries.iter().filter(|entry| !is_header(entry)).map(object).collect()
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, toc } = self;
        f.debug_struct("Archive").field("bytes", &bytes.len()).field("server", &toc.server).finish_non_exhaustive()
    }
}

impl Object {
    /// Whether it is there for a move alone: the database's publication, or a table of that.
    #[must_use]
    pub fn is_of_move(&self) -> bool {
        self.kind.starts_with("PUBLICATION") && is_of_move(&self.name)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(&self.kind, self.schema.as_deref(), &self.name))
    }
}

/// `table "public"."orders"`.
pub(super) fn display(entry: &Entry) -> String {
    name_of(&entry.kind, entry.schema.as_deref(), &entry.tag)
}

fn name_of(kind: &str, schema: Option<&str>, name: &str) -> String {
    let kind = if kind == "ACL" { "privileges on".to_owned() } else { kind.to_lowercase() };
    match schema {
        Some(schema) => format!("{kind} {}.{}", ident(schema), ident(name)),
        None => format!("{kind} {}", ident(name)),
    }
}

/// What says how the archive is to be read, and what is about the database itself, which is another one in the copy.
pub(super) fn is_header(entry: &Entry) -> bool {
    matches!(entry.kind.as_str(), "ENCODING" | "STDSTRINGS" | "SEARCHPATH" | "DATABASE")
        || (is_about_another(entry) && entry.schema.is_none() && entry.tag.starts_with("DATABASE "))
}

/// What goes with another object.
pub(super) fn is_about_another(entry: &Entry) -> bool {
    matches!(entry.kind.as_str(), "ACL" | "COMMENT" | "SECURITY LABEL")
}

/// `15` of `15.18 (Debian 15.18-0+deb12u1)`, `19` of `19beta1`.
fn major(version: &str) -> u32 {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().unwrap_or(0)
}
