//! Which entries of an archive are restored, when, and which are not.

use std::collections::HashSet;

use pgtenant_model::{Finding, LeftOut};

use super::TransferError;
use super::archive::{display, is_about_another, is_header};
use super::lexer::{Token, tokens};
use super::restore_log::{Failure, Log};
use super::toc::{Entry, Toc};

/// What the target has already.
#[derive(Debug, Default)]
pub(super) struct Present {
    pub(super) extensions: HashSet<String>,
    pub(super) schemas: HashSet<String>,
}

/// The entries of an archive, by when they are restored.
#[derive(Debug, Default)]
pub(super) struct Selection<'a> {
    pub(super) schemas: Vec<&'a Entry>,
    /// Those that the target does not have.
    pub(super) extensions: Vec<&'a Entry>,
    pub(super) pre_data: Vec<&'a Entry>,
    pub(super) post_data: Vec<&'a Entry>,
    /// These and the next name roles.
    pub(super) policies: Vec<&'a Entry>,
    pub(super) privileges: Vec<&'a Entry>,
    pub(super) default_privileges: Vec<&'a Entry>,
    pub(super) left_out: Vec<LeftOut>,
    /// Entries that are left out.
    pub(super) missing: HashSet<i32>,
}

impl<'a> Selection<'a> {
    pub(super) fn new(toc: &'a Toc, present: &Present, missing: HashSet<i32>) -> Self {
        let mut selection = Self { missing, ..Self::default() };
        for entry in toc.entries.iter().filter(|entry| !is_header(entry)) {
            selection.add(entry, present);
        }
        selection
    }

    fn add(&mut self, entry: &'a Entry, present: &Present) {
        if self.missing.contains(&entry.id) {
            return;
        }
        let about_missing = is_about_another(entry) && entry.depends_on.iter().any(|id| self.missing.contains(id));
        match entry.kind.as_str() {
            _ if about_missing => {}
            // The extension brings its own.
            "COMMENT" if entry.tag.starts_with("EXTENSION ") => {}
            "SCHEMA" if present.schemas.contains(&entry.tag) => {}
            "SCHEMA" => self.schemas.push(entry),
            "EXTENSION" if present.extensions.contains(&entry.tag) => {}
            "EXTENSION" => self.extensions.push(entry),
            "DATABASE PROPERTIES" => {
                let remedy = format!("run what is still wanted of: {}", entry.definition.trim());
                self.leave_out(entry, "only the database's owner sets them", remedy);
            }
            "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA" | "SUBSCRIPTION TABLE" => {}
            "POLICY" => self.policies.push(entry),
            "ACL" => self.privileges.push(entry),
            "DEFAULT ACL" => self.default_privileges.push(entry),
            kind => match never(kind) {
                Some((reason, remedy)) => self.leave_out(entry, reason, remedy),
                None if entry.post_data => self.post_data.push(entry),
                None => self.pre_data.push(entry),
            },
        }
    }

    /// Says that an entry is not in the copy.
    pub(super) fn leave_out(&mut self, entry: &Entry, reason: impl Into<String>, remedy: impl Into<String>) {
        self.missing.insert(entry.id);
        self.left_out.push(LeftOut { object: display(entry), reason: reason.into(), remedy: remedy.into() });
    }

    /// Tells what may be left out from what may not, of those of `entries` that the target refused.
    pub(super) fn judge(&mut self, entries: &[&'a Entry], log: &Log) -> Result<(), TransferError> {
        let mut findings = Vec::new();
        for Failure { message, command } in &log.failures {
            // Which it is, is said by its statement alone: several sessions say what went wrong at once.
            let begins =
                |entry: &&&Entry| !command.is_empty() && entry.definition.trim_start().starts_with(command.as_str());
            let entry = entries.iter().find(begins).copied();
            let orphan = entry.is_some_and(|entry| entry.depends_on.iter().any(|id| self.missing.contains(id)));
            match entry {
                // It goes with what it is about.
                Some(entry) if orphan && is_about_another(entry) => drop(self.missing.insert(entry.id)),
                Some(entry) if orphan && !matters(entry) => self.leave_out(entry, message, ORPHAN),
                Some(entry) if optional(&entry.kind) || in_foreign_language(entry) => {
                    self.leave_out(entry, message, "have a superuser create it in the copy, if it is still needed");
                }
                _ => {
                    let object = entry.map_or_else(|| "the archive".to_owned(), display);
                    findings.push(Finding { object, message: message.clone() });
                }
            }
        }
        if findings.is_empty() {
            return Ok(());
        }
        // What was left out is why: an extension whose types a table has.
        let causes = self.left_out.iter().filter(|left| left.object.starts_with("extension "));
        let causes = causes
            .map(|left| Finding { object: left.object.clone(), message: format!("{}; {}", left.reason, left.remedy) });
        Err(TransferError::Refused { failures: causes.chain(findings).collect() })
    }
}

const ORPHAN: &str = "it belongs to something that is left out too";

/// What is not restored in any case: why, and what to do.
fn never(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "EVENT TRIGGER" => ("only a superuser makes event triggers", "have a superuser create it again in the copy"),
        "PUBLICATION" => ("a copy publishes nothing by itself", "create it again if others are to follow the copy"),
        "SUBSCRIPTION" => ("a copy follows nobody by itself", "have a superuser create it again"),
        "SECURITY LABEL" => ("only a superuser sets security labels", "have a superuser set it again"),
        "USER MAPPING" => ("its password can not be read", "create it again with its options"),
        _ => return None,
    })
}

/// What a tenant could not have made alone, or what only describes.
fn optional(kind: &str) -> bool {
    matches!(
        kind,
        "COMMENT"
            | "FOREIGN DATA WRAPPER"
            | "SERVER"
            | "FOREIGN TABLE"
            | "PROCEDURAL LANGUAGE"
            | "TRANSFORM"
            | "ACCESS METHOD"
            | "CAST"
            | "OPERATOR CLASS"
            | "OPERATOR FAMILY"
            | "TEXT SEARCH PARSER"
            | "TEXT SEARCH TEMPLATE"
    )
}

/// What has rows, or is needed by what has, is never left out, whatever it depends on.
fn matters(entry: &Entry) -> bool {
    matches!(entry.kind.as_str(), "TABLE" | "TABLE ATTACH" | "SEQUENCE" | "TYPE" | "DOMAIN" | "SCHEMA")
}

/// Functions in C, and in languages that only a superuser may use.
fn in_foreign_language(entry: &Entry) -> bool {
    let is_function = matches!(entry.kind.as_str(), "FUNCTION" | "PROCEDURE" | "AGGREGATE");
    let untrusted = ["c", "internal", "plpython3u", "plperlu", "pltclu"];
    let mut words = tokens(&entry.definition).filter(|token| !matches!(token, Token::Space(_)));
    let language = words.find(|token| *token == Token::Word("LANGUAGE")).and_then(|_| words.next());
    is_function && language.is_some_and(|language| untrusted.contains(&language.as_str()))
}
