//! Laws that hold for any file of an older chart.

use std::fmt::Write as _;

use pgtenant_model::Mode;
use proptest::prelude::*;

use super::*;
use crate::render_problems;
use crate::values::parse;

/// A field as text, and whether it keeps something.
type Field = (&'static str, Option<(String, bool)>);

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    fields: Vec<Field>,
    flow: bool,
    noise: Vec<u8>,
}

impl Entry {
    fn mode(&self) -> Mode {
        let kept = self.fields.iter().any(|(_, value)| value.as_ref().is_some_and(|(_, kept)| *kept));
        if kept { Mode::Protected } else { Mode::Standard }
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    let boolean = prop_oneof![
        prop::sample::select(vec!["true", "True", "yes", "on"]).prop_map(|t| (t.to_owned(), true)),
        prop::sample::select(vec!["false", "FALSE", "no", "off"]).prop_map(|t| (t.to_owned(), false)),
    ];
    let policy = || {
        (any::<bool>(), prop::sample::select(vec!["", "'", "\""]))
            .prop_map(|(kept, quote)| (format!("{quote}{}{quote}", if kept { "Orphan" } else { "Delete" }), kept))
    };
    let name = "db[a-z0-9]{0,6}";
    (
        name,
        prop::option::of(boolean),
        prop::option::of(policy()),
        prop::option::of(policy()),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 16),
    )
        .prop_flat_map(|(name, protection, role, database, flow, noise)| {
            let fields: Vec<Field> = vec![
                ("name", None),
                ("deletionProtection", protection),
                ("roleDeletionPolicy", role),
                ("dbDeletionPolicy", database),
            ];
            let kept = fields.into_iter().filter(|(key, value)| *key == "name" || value.is_some()).collect();
            (Just(name), Just(kept).prop_shuffle(), Just(flow), Just(noise))
        })
        .prop_map(|(name, fields, flow, noise)| Entry { name, fields, flow, noise })
}

fn comment(noise: u8, count: &mut usize) -> String {
    *count += 1;
    match noise % 4 {
        0 => format!("  # é{count} 'x: [\"\t"),
        1 => format!(" #{count}"),
        _ => String::new(),
    }
}

/// A line of its own, or nothing.
fn between(noise: u8, count: &mut usize) -> String {
    *count += 1;
    match noise % 5 {
        0 => "\n".to_owned(),
        1 => format!("{}# own {count}\n", " ".repeat(usize::from(noise % 7))),
        _ => String::new(),
    }
}

fn write(entries: &[Entry], key: &str, indent: usize, count: &mut usize) -> String {
    let mut text = format!("{key}:\n");
    let pad = " ".repeat(indent);
    for Entry { name, fields, flow, noise } in entries {
        let fields = fields.iter().map(|(key, value)| {
            let value = value.as_ref().map_or(name, |(text, _)| text);
            format!("{key}: {value}")
        });
        let fields: Vec<String> = fields.collect();
        text.push_str(&between(noise[0], count));
        if *flow {
            let space = if noise[1] % 2 == 0 { " " } else { "" };
            let comma = if noise[1] % 3 == 0 { "," } else { "" };
            let _ = writeln!(text, "{pad}- {{{space}{}{comma}{space}}}{}", fields.join(", "), comment(noise[2], count));
            continue;
        }
        for (index, field) in fields.iter().enumerate() {
            let dash = if index == 0 { "- " } else { "  " };
            let _ = writeln!(text, "{pad}{dash}{field}{}", comment(noise[3 + index], count));
            text.push_str(&between(noise[8 + index], count));
        }
    }
    text
}

fn comments(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = text.lines().filter_map(|line| line.find('#').map(|at| &line[at..])).collect();
    found.sort_unstable();
    found
}

fn distinct(entries: Vec<Entry>) -> Vec<Entry> {
    let mut names = std::collections::BTreeSet::new();
    entries.into_iter().filter(|entry| names.insert(entry.name.clone())).collect()
}

proptest! {
    #[test]
    fn any_old_file_means_the_same_afterwards(
        entries in prop::collection::vec(entry(), 1..7), split in 0..8usize, indents in (0..4usize, 0..4usize),
        global in any::<bool>(), crlf in any::<bool>(), last in any::<bool>(), mark in any::<bool>(),
    ) {
        let entries = distinct(entries);
        let (first, second) = entries.split_at(split.min(entries.len()));
        let mut count = 0;
        let mut text = String::new();
        if !first.is_empty() {
            text.push_str(&write(first, lists::OLD_LIST, indents.0, &mut count));
        }
        if global {
            text.push_str("global:\n    a: [1,   2]   # g\n\n");
        }
        if !second.is_empty() {
            text.push_str(&write(second, LIST, indents.1, &mut count));
        }
        if last {
            text.truncate(text.trim_end().len());
        }
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        if mark {
            text.insert(0, '\u{feff}');
        }
        let result = rewrite_values("f", "ns", &text);
        prop_assert!(result.is_ok(), "{}{text}", render_problems(&result.unwrap_err()));
        let Some(Rewritten { text: after, .. }) = result.unwrap() else {
            prop_assert!(first.is_empty() && second.iter().all(|entry| entry.fields.len() == 1), "{text}");
            return Ok(());
        };
        let values = parse("f", "ns", &after);
        prop_assert_eq!(render_problems(&values.problems), "");
        let read: Vec<_> = values.definitions.iter().map(|d| (d.key.name().to_owned(), d.spec.mode)).collect();
        let meant: Vec<_> = entries.iter().map(|entry| (entry.name.clone(), entry.mode())).collect();
        prop_assert_eq!(read, meant, "{}\n{}", &text, &after);
        prop_assert_eq!(comments(&text), comments(&after), "{}\n{}", &text, &after);
        let lone = after.replace("\r\n", "").contains(['\r', '\n']);
        prop_assert!(if crlf { !lone } else { !after.contains('\r') }, "{after:?}");
        prop_assert_eq!(after.starts_with('\u{feff}'), mark);
        prop_assert!(after.lines().all(|line| !line.ends_with(' ') || text.lines().any(|old| old == line)), "{after}");
        prop_assert_eq!(rewrite_values("f", "ns", &after), Ok(None));
    }

    #[test]
    fn no_yaml_like_text_panics(parts in prop::collection::vec(prop_oneof![
        Just("tenantDatabases:"), Just("postgresqlDatabases:"), Just("name: a"), Just("deletionProtection: true"),
        Just("roleDeletionPolicy: Orphan"), Just("mode: protected"), Just("\n- "), Just("\n"), Just("\n  "), Just("\t"),
        Just("&a "), Just("*a"), Just("["), Just("]"), Just("{"), Just("}"), Just(", "), Just(": "), Just("? "),
        Just("|\n"), Just("'"), Just("\""), Just(" # "), Just("---\n"), Just("!!seq "), Just("!é "), Just("\r"),
        Just("\u{feff}"), Just("\u{85}"), Just("é"), Just("~"), Just("[]"), Just("helm: {chart: idp-postgresql, chartVersion: 0.5}"),
    ], 0..40)) {
        let text: String = parts.concat();
        let _ = rewrite_values("f", "ns", &text);
        let _ = rewrite_application("f", &text, &"1.0.0".parse().unwrap());
    }
}
