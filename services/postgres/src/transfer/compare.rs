//! Whether a copy is whole: what was counted, and what is defined, object by object.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use pgtenant_model::{Finding, Inventory, InventorySequence, InventoryTable, LeftOut, Verification};

use super::acl::{self, RoleMap};
use super::archive::{Archive, Object};
use super::canonical::{canonical, lines};
use crate::sql::ident;

/// A database's content and its definitions, of the same instant.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The content.
    pub inventory: &'a Inventory,
    /// The definitions.
    pub archive: &'a Archive,
}

/// Compares a copy with its source. What is `left_out` is no difference, but is passed on; `roles` says which role is which in the
/// copy.
#[must_use]
pub fn compare(source: Side<'_>, copy: Side<'_>, left_out: &[LeftOut], roles: &RoleMap) -> Verification {
    let mut verification = Verification { left_out: left_out.to_vec(), ..Verification::default() };
    let skipped: HashSet<&str> = left_out.iter().map(|left| left.object.as_str()).collect();
    compare_tables(source.inventory, copy.inventory, &skipped, &mut verification);
    compare_sequences(source.inventory, copy.inventory, &skipped, &mut verification);
    compare_large_objects(source.inventory, copy.inventory, &mut verification);
    compare_definitions(source.archive, copy.archive, &skipped, roles, &mut verification);
    verification.differences.sort();
    verification.differences.dedup();
    verification
}

type Name<'a> = (&'a str, &'a str);

fn quoted((schema, name): Name<'_>) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

fn compare_tables(source: &Inventory, copy: &Inventory, skipped: &HashSet<&str>, verification: &mut Verification) {
    let key = |table: &'_ InventoryTable| (table.schema.clone(), table.name.clone());
    let theirs: BTreeMap<_, _> = copy.tables.iter().map(|table| (key(table), table)).collect();
    for table in &source.tables {
        let name = quoted((&table.schema, &table.name));
        let object = format!("table {name}");
        let message = match theirs.get(&key(table)) {
            _ if skipped.contains(format!("content of {name}").as_str()) || skipped.contains(object.as_str()) => {
                continue;
            }
            None => Some("it is missing".to_owned()),
            Some(other) => difference(table, other),
        };
        match message {
            Some(message) => verification.differences.push(Finding { object, message }),
            None => {
                verification.tables += 1;
                verification.rows += table.rows;
                verification.bytes += table.bytes;
            }
        }
    }
}

fn difference(table: &InventoryTable, other: &InventoryTable) -> Option<String> {
    if table.rows != other.rows {
        return Some(format!("it has {} rows, and {} in the copy", table.rows, other.rows));
    }
    if table.sample != other.sample {
        return Some("its content was summed up in another way, so that it can not be compared".into());
    }
    let which = if table.sample == 1 { "rows" } else { "rows of the sample" };
    (table.checksum != other.checksum).then(|| format!("some of its {which} differ"))
}

fn compare_sequences(source: &Inventory, copy: &Inventory, skipped: &HashSet<&str>, verification: &mut Verification) {
    for sequence in &source.sequences {
        let name = (sequence.schema.as_str(), sequence.name.as_str());
        let other = copy.sequences.iter().find(|other| (other.schema.as_str(), other.name.as_str()) == name);
        let message = match other {
            _ if skipped.contains(format!("content of sequence {}", quoted(name)).as_str()) => continue,
            None => "it is missing".to_owned(),
            Some(other) if is_behind(other, sequence) => {
                format!("it is behind: at {}, and at {} in the copy", position(sequence), position(other))
            }
            Some(_) => {
                verification.sequences += 1;
                continue;
            }
        };
        verification.differences.push(Finding { object: format!("sequence {}", quoted(name)), message });
    }
}

fn is_behind(copy: &InventorySequence, source: &InventorySequence) -> bool {
    let at = |sequence: &InventorySequence| {
        let last = i128::from(sequence.last);
        (if source.increment < 0 { -last } else { last }, sequence.called)
    };
    at(copy) < at(source)
}

fn position(sequence: &InventorySequence) -> String {
    if sequence.called { sequence.last.to_string() } else { format!("{}, which it has not given yet", sequence.last) }
}

fn compare_large_objects(source: &Inventory, copy: &Inventory, verification: &mut Verification) {
    let (ours, theirs) = (&source.large_objects, &copy.large_objects);
    let message = if ours.count != theirs.count {
        format!("there are {}, and {} in the copy", ours.count, theirs.count)
    } else if ours.bytes != theirs.bytes {
        format!("they have {} bytes, and {} in the copy", ours.bytes, theirs.bytes)
    } else if ours.checksum != theirs.checksum {
        "some of their contents differ".to_owned()
    } else {
        verification.large_objects = ours.count;
        return;
    };
    verification.differences.push(Finding { object: "large objects".into(), message });
}

/// What definitions are found by.
type Key<'a> = (&'a str, Option<&'a str>, &'a str);

fn key(object: &Object) -> Key<'_> {
    (&object.kind, object.schema.as_deref(), &object.name)
}

fn compare_definitions(
    source: &Archive,
    copy: &Archive,
    skipped: &HashSet<&str>,
    roles: &RoleMap,
    verification: &mut Verification,
) {
    let (ours, theirs) = (source.objects(), copy.objects());
    let by_key: BTreeMap<_, _> = theirs.iter().map(|object| (key(object), object)).collect();
    let same_versions = source.server_major() == copy.server_major() && source.dumped_by() == copy.dumped_by();
    if !same_versions {
        verification.left_out.push(versions_differ(source, copy));
    }
    let is_skipped = |object: &Object| {
        let about = object.about.as_deref().unwrap_or_default();
        skipped.contains(object.to_string().as_str()) || skipped.contains(about) || is_beside_the_point(object)
    };
    for object in ours.iter().filter(|object| !is_skipped(object)) {
        let message = match by_key.get(&key(object)) {
            // Privileges are compared where both say something of them: `GRANT`s that were refused are left out.
            None if object.kind == "ACL" || object.kind == "DEFAULT ACL" => {
                missing_grants(object, None, skipped, roles)
            }
            None => Some("it is missing".to_owned()),
            Some(_) if !same_versions => None,
            Some(other) if object.kind.ends_with("ACL") => missing_grants(object, Some(other), skipped, roles),
            Some(other) if object.kind == "POLICY" => {
                let ours =
                    Object { definition: acl::statements(&object.definition, roles).join(";"), ..object.clone() };
                let theirs = Object {
                    definition: acl::statements(&other.definition, &RoleMap::default()).join(";"),
                    ..(*other).clone()
                };
                (!is_same(&ours, &theirs)).then(|| differs(&ours, &theirs))
            }
            Some(other) => (!is_same(object, other)).then(|| differs(object, other)),
        };
        match message {
            Some(message) => verification.differences.push(Finding { object: object.to_string(), message }),
            None => verification.objects += 1,
        }
    }
    let ours: BTreeSet<_> = ours.iter().map(key).collect();
    let added = theirs
        .iter()
        .filter(|object| !ours.contains(&key(object)) && !object.kind.ends_with("ACL") && !is_beside_the_point(object));
    verification
        .differences
        .extend(added.map(|object| Finding { object: object.to_string(), message: "it is in the copy alone".into() }));
}

/// The schema `public` and extensions may be there before; what goes with another object is looked at there.
fn is_beside_the_point(object: &Object) -> bool {
    let is_public = object.name == "public" || object.name == "SCHEMA public";
    let of_another =
        ["PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA", "SUBSCRIPTION TABLE", "DATABASE PROPERTIES", "EXTENSION"];
    of_another.contains(&object.kind.as_str())
        || object.is_of_move()
        || (object.kind == "SCHEMA" && is_public)
        || (object.kind == "COMMENT" && (is_public || object.name.starts_with("EXTENSION ")))
}

fn is_same(object: &Object, other: &Object) -> bool {
    let (ours, theirs) = (&object.definition, &other.definition);
    ours == theirs
        || canonical(ours) == canonical(theirs)
        || (object.kind == "TABLE" && ours.contains("\nINHERITS (") && lines(ours) == lines(theirs))
}

fn differs(object: &Object, other: &Object) -> String {
    let (ours, theirs) = (object.definition.lines(), other.definition.lines());
    let pair = ours.zip(theirs).find(|(ours, theirs)| canonical(ours) != canonical(theirs));
    let cut = |line: &str| line.trim().chars().take(200).collect::<String>();
    match pair {
        Some((ours, theirs)) => format!("its definition differs: {:?}, and {:?} in the copy", cut(ours), cut(theirs)),
        None => "its definition is longer or shorter in the copy".into(),
    }
}

/// Statements of the source that the copy's privileges lack. Those that concern an owner are not the same where the owner is not.
fn missing_grants(object: &Object, other: Option<&Object>, skipped: &HashSet<&str>, roles: &RoleMap) -> Option<String> {
    let owner = roles.map(&object.owner);
    let statements = |definition: &str, roles: &RoleMap| acl::statements(definition, roles);
    let theirs: BTreeSet<String> =
        other.into_iter().flat_map(|other| statements(&other.definition, &RoleMap::default())).collect();
    let lacking = statements(&object.definition, roles).into_iter().filter(|statement| {
        let to = acl::grantee(statement);
        let refused = to.as_ref().is_some_and(|role| skipped.contains(format!("{object} for {role:?}").as_str()));
        !refused && to.as_deref() != Some(owner) && !theirs.contains(statement)
    });
    let lacking: Vec<_> = lacking.filter(|_| other.is_none_or(|other| other.owner == owner)).collect();
    (!lacking.is_empty()).then(|| format!("the copy lacks: {}", lacking.join("; ")))
}

fn versions_differ(source: &Archive, copy: &Archive) -> LeftOut {
    let (ours, theirs) = (source.server_major(), copy.server_major());
    LeftOut {
        object: "the comparison of definitions".into(),
        reason: format!(
            "PostgreSQL {ours} (pg_dump {}) and {theirs} (pg_dump {}) print them differently, so that only their presence was \
             compared",
            source.dumped_by(),
            copy.dumped_by()
        ),
        remedy: "nothing, as a rule; content was compared in full".into(),
    }
}
