//! The list of databases, which the older charts called otherwise: what a file has, and what it is to have.

use std::rc::Rc;

use super::old::{self, Turn, word};
use crate::reader::Reader;
use crate::scalar::Kind;
use crate::tree::{Data, Node};
use crate::values::LIST;

/// The list's key in chart 0.4.1.
pub(crate) const OLD_LIST: &str = "tenantDatabases";

/// A list of databases, whatever its key.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) key: Rc<Node>,
    pub(crate) value: Rc<Node>,
    /// For each entry what becomes of it; none: it stays.
    pub(crate) turns: Vec<Option<Turn>>,
}

impl List {
    pub(crate) fn is_old(&self) -> bool {
        word(&self.key) == Some(OLD_LIST)
    }

    pub(crate) fn items(&self) -> &[Rc<Node>] {
        match &self.value.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    fn is_list(&self) -> bool {
        matches!(self.value.data, Data::List(_))
    }
}

/// The lists of a file, in its order. What can not be understood is told to `reader`.
pub(crate) fn find(reader: &mut Reader<'_>, root: &Node) -> Vec<List> {
    let Data::Map(pairs) = &root.data else { return Vec::new() };
    let ours = pairs.iter().filter_map(|(key, value)| Some((word(key)?, key, value)));
    let ours = ours.filter(|(name, ..)| [LIST, OLD_LIST].contains(name));
    ours.map(|(name, key, value)| {
        let mut list = List { key: Rc::clone(key), value: Rc::clone(value), turns: Vec::new() };
        let turn = |(index, entry): (usize, &Rc<Node>)| {
            old::is_old(entry).then(|| old::turn(reader, &format!("{name}[{index}]"), entry)).flatten()
        };
        list.turns = list.items().iter().enumerate().map(turn).collect();
        list
    })
    .collect()
}

/// Both lists of a file that has one of each key.
pub(crate) fn both(lists: &[List]) -> Option<(&List, &List)> {
    match lists {
        [first, second] if first.is_old() != second.is_old() && first.is_list() && second.is_list() => {
            Some((first, second))
        }
        _ => None,
    }
}

/// The tree that the rewritten text must have.
pub(crate) fn expected(root: &Node, lists: &[List]) -> Rc<Node> {
    let Data::Map(pairs) = &root.data else { return root.with(Data::Map(Vec::new())) };
    let both = both(lists);
    let mut result = Vec::new();
    for (key, value) in pairs {
        let Some(list) = lists.iter().find(|list| Rc::ptr_eq(&list.key, key)) else {
            result.push((Rc::clone(key), Rc::clone(value)));
            continue;
        };
        let items = match both {
            // They become one where the first is; where that is empty, it goes.
            Some((first, second)) if Rc::ptr_eq(&first.key, key) && !first.items().is_empty() => {
                [turned(first), turned(second)].concat()
            }
            Some((first, second)) if Rc::ptr_eq(&second.key, key) && first.items().is_empty() => turned(second),
            Some(_) => continue,
            None => turned(list),
        };
        let value = if list.is_list() { value.with(Data::List(items)) } else { Rc::clone(value) };
        result.push((key.with(text(LIST)), value));
    }
    root.with(Data::Map(result))
}

fn text(text: &str) -> Data {
    Data::Scalar { text: text.to_owned(), kind: Kind::Text }
}

fn turned(list: &List) -> Vec<Rc<Node>> {
    let entries = list.items().iter().zip(&list.turns);
    entries.map(|(entry, turn)| turn.as_ref().map_or_else(|| Rc::clone(entry), |turn| entry_of(entry, turn))).collect()
}

fn entry_of(entry: &Node, turn: &Turn) -> Rc<Node> {
    let Data::Map(pairs) = &entry.data else { return entry.with(Data::Map(Vec::new())) };
    let pair = |(index, (key, value)): (usize, &(Rc<Node>, Rc<Node>))| {
        if turn.pairs.first() == Some(&index) {
            Some((key.with(text("mode")), value.with(text(&turn.mode.to_string()))))
        } else {
            (!turn.pairs.contains(&index)).then(|| (Rc::clone(key), Rc::clone(value)))
        }
    };
    entry.with(Data::Map(pairs.iter().enumerate().filter_map(pair).collect()))
}

/// Whether two trees say the same, in the same order.
pub(crate) fn same(a: &Node, b: &Node) -> bool {
    match (&a.data, &b.data) {
        (Data::Scalar { text: a, kind: a_kind }, Data::Scalar { text: b, kind: b_kind }) => a == b && a_kind == b_kind,
        (Data::List(a), Data::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Data::Map(a), Data::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&a.0, &b.0) && same(&a.1, &b.1))
        }
        _ => false,
    }
}
