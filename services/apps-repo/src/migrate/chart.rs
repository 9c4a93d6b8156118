//! `application.yaml`: the version of the chart.

use std::rc::Rc;

use pgtenant_ledger::AppsProblem;

use super::edit::Edits;
use super::lists::same;
use super::old::word;
use super::source::{self, Source};
use super::{ChartVersion, NOT_SAME, Remark, Rewritten, finish, problems};
use crate::application::{self, Application};
use crate::scalar::Kind;
use crate::tree::{self, Data, Fault, Node};

/// What a file says of the chart's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chart {
    /// Of an older chart: this is the file with the new version.
    Old(Rewritten),
    /// One that knows `mode`.
    New,
    /// It names none.
    Unnamed,
    /// Something that is no version, as a range, in this line: which chart is used can not be told.
    Unclear(u32, String),
}

/// Sets the version of an `application.yaml` of the tenant chart.
///
/// # Errors
/// What is wrong with the file, and why it can not be changed.
pub(crate) fn rewrite(file: &str, text: &str, version: &ChartVersion) -> Result<Chart, Vec<AppsProblem>> {
    let fault = |fault: Fault| problems(file, &fault);
    let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(root) = tree::parse(text).map_err(fault)? else { return sound(file, text).map(|()| Chart::Unnamed) };
    let Some(place) = find(&root) else { return sound(file, text).map(|()| Chart::Unnamed) };
    let old = word(&place).unwrap_or_default();
    match major(old) {
        Some(0) => {}
        Some(_) => return sound(file, text).map(|()| Chart::New),
        None => return sound(file, text).map(|()| Chart::Unclear(place.line, old.to_owned())),
    }
    let source = Source::new(bare);
    source::check(&source, &root).map_err(fault)?;
    let Some(inner) = source.inner(&place) else {
        return Err(fault(Fault::new(place.line, format!("helm.chartVersion is no plain word; {}", source::BY_HAND))));
    };
    let mut edits = Edits::default();
    edits.replace(inner, &*version.0);
    let result = edits.apply(bare).ok_or_else(|| fault(Fault::new(place.line, NOT_SAME)))?;
    sound(file, &result)?;
    let parsed = tree::parse(&result).ok().flatten();
    if !parsed.is_some_and(|parsed| same(&parsed, &expected(&root, &place, version))) {
        return Err(fault(Fault::new(place.line, NOT_SAME)));
    }
    let change = Remark::new(place.line, &format!("helm.chartVersion {old} becomes {version}"));
    Ok(Chart::Old(finish(text, result, vec![change], Vec::new())))
}

/// The value of `helm.chartVersion`.
fn find(root: &Node) -> Option<Rc<Node>> {
    let get = |node: &Node, name: &str| {
        let Data::Map(pairs) = &node.data else { return None };
        pairs.iter().find(|(key, _)| word(key) == Some(name)).map(|(_, value)| Rc::clone(value))
    };
    get(&*get(root, "helm")?, "chartVersion").filter(|value| word(value).is_some_and(|text| !text.is_empty()))
}

/// The first number of a version, which may be written as one that allows later ones: `~0.5.0`.
fn major(version: &str) -> Option<u64> {
    let bare = version.trim_start_matches(['v', '=', '~', '^']);
    let numbers = bare.split(['-', '+']).next().unwrap_or_default();
    let mut parts = numbers.split('.');
    let major = parts.next()?.parse().ok()?;
    let plain = |part: &str| part == "x" || part == "*" || part.bytes().all(|b| b.is_ascii_digit());
    parts.all(plain).then_some(major)
}

fn expected(root: &Node, place: &Rc<Node>, version: &ChartVersion) -> Rc<Node> {
    let Data::Map(pairs) = &root.data else { return root.with(Data::Map(Vec::new())) };
    let value = |value: &Rc<Node>| {
        if Rc::ptr_eq(value, place) {
            value.with(Data::Scalar { text: version.0.clone(), kind: Kind::Text })
        } else if matches!(value.data, Data::Map(_)) {
            expected(value, place, version)
        } else {
            Rc::clone(value)
        }
    };
    root.with(Data::Map(pairs.iter().map(|(key, node)| (Rc::clone(key), value(node))).collect()))
}

/// That the strict reader finds nothing wrong.
fn sound(file: &str, text: &str) -> Result<(), Vec<AppsProblem>> {
    match application::parse(file, text) {
        Application::Foreign => Ok(()),
        Application::Ours { problems, .. } if problems.is_empty() => Ok(()),
        Application::Ours { problems, .. } | Application::Unknown(problems) => Err(problems),
    }
}
