//! Every kind of problem with its line, and laws that hold for any text.

use std::collections::BTreeMap;

use pgtenant_model::{ClaimSpec, Mode};
use proptest::prelude::*;

use super::parse;
use crate::render_problems;

fn problems(text: &str) -> String {
    let values = parse("f", "idp-dev", text);
    render_problems(&values.problems)
}

/// A list of databases from entries that are written in flow style.
fn entries(entries: &[&str]) -> String {
    let mut text = "postgresqlDatabases:\n".to_owned();
    for entry in entries {
        text.push_str(&format!("  - {{{entry}}}\n"));
    }
    text
}

#[test]
fn the_tenants_values_are_understood() {
    let text = "# ours\npostgresqlDatabases:\n  - name: my-db\n    mode: protected\n    cluster: default\n    schemas: [reporting]\n\
                \x20   extensions:\n      - pgcrypto\n    connectionLimit: 20\n    slackChannel: '#reports'\n\n  - name: \"0123\"\nglobal: {a: {b: [1, ~]}}\n\
                idp_oidc_provider_url: https://x\nidp_aws_account: 123456789012\n";
    for text in [text.to_owned(), format!("\u{feff}{text}"), text.replace('\n', "\r\n"), format!("---\n{text}...\n")] {
        let values = parse("f", "idp-dev", &text);
        assert_eq!(render_problems(&values.problems), "");
        let offset = u32::from(text.starts_with('-'));
        let [first, second] = &values.definitions[..] else { panic!("{values:?}") };
        assert_eq!(first.key.to_string(), "idp-dev/my-db");
        let spec = ClaimSpec {
            mode: Mode::Protected,
            schemas: vec!["reporting".into()],
            extensions: vec!["pgcrypto".into()],
            connection_limit: Some(20),
            slack_channel: Some("#reports".to_owned()),
            ..ClaimSpec::default()
        };
        assert_eq!((&first.spec, first.line, &*first.path), (&spec, 3 + offset, "postgresqlDatabases[0]"));
        assert_eq!(
            ["mode", "schemas[0]", "extensions[0]", "extensions[9]", "nothing"].map(|f| first.line_of(f) - offset),
            [4, 6, 8, 7, 3]
        );
        assert_eq!((second.key.name(), &second.spec, second.line), ("0123", &ClaimSpec::default(), 12 + offset));
        assert!(values.listed && !values.lists_none());
    }
}

#[test]
fn no_databases_are_no_problem() {
    for (text, listed) in [
        ("", false),
        ("\n\n", false),
        ("# none\n", false),
        ("postgresqlDatabases: []", true),
        ("global: {}", false),
        ("{}", false),
    ] {
        let values = parse("f", "idp-dev", text);
        assert_eq!(
            (render_problems(&values.problems), values.definitions.len(), values.listed, values.lists_none()),
            (String::new(), 0, listed, listed)
        );
        assert_eq!(values.names.map(|n| n.len()), Some(0));
    }
    // Values of another chart.
    assert!(parse("f", "idp-dev", "replicas: 3\npostgresqlDatabases: []\n").lists_none());
}

#[test]
fn keys_are_a_closed_list() {
    assert_eq!(
        problems("global: {}\npostgresDatabases: []\ntenantDatabases: []\ncolour: red\n"),
        "f:2: postgresDatabases: is not known; did you mean `postgresqlDatabases`? (allowed: postgresqlDatabases, global, idp_oidc_provider_url, idp_aws_account)\n\
         f:3: tenantDatabases: is of an older chart; write `postgresqlDatabases` in its place, or let `pgtenant migrate values -f DIR` do it (allowed: postgresqlDatabases, global, idp_oidc_provider_url, idp_aws_account)\n\
         f:4: colour: is not known (allowed: postgresqlDatabases, global, idp_oidc_provider_url, idp_aws_account)\n"
    );
    let allowed = "(allowed: name, mode, cluster, schemas, extensions, connectionLimit, slackChannel)";
    assert_eq!(
        problems(&entries(&[
            "name: a, Mode: standard",
            "name: b, deletionProtection: true",
            "name: c, <<: {}",
            "name: d, \"x y\": 1"
        ])),
        format!(
            "f:2: postgresqlDatabases[0].Mode: is not known; did you mean `mode`? {allowed}\n\
             f:3: postgresqlDatabases[1].deletionProtection: is of an older chart; write `mode: protected` or `mode: standard` in its place, or let `pgtenant migrate values -f DIR` do it {allowed}\n\
             f:4: postgresqlDatabases[2].\"<<\": merging of mappings is not supported here; write the keys out {allowed}\n\
             f:5: postgresqlDatabases[3].\"x y\": is not known {allowed}\n"
        )
    );
}

#[test]
fn every_problem_of_a_file_is_told() {
    let text = "postgresqlDatabases:\n  - mode: standard\n  - name: My_DB\n    mode: protectd\n    connectionLimit: 0\n\
                \x20 - name: ok\n    schemas:\n      - public\n      - on\n      - x\n    cluster: A_b\n  - name: ok\n  - name: on\n  - 7\n";
    assert_eq!(
        problems(text),
        "f:2: postgresqlDatabases[0].name: is missing; each database has a name\n\
         f:3: postgresqlDatabases[1].name: name \"My_DB\" is not a DNS label: use a-z, 0-9 and hyphens, with a letter or digit first and last\n\
         f:4: postgresqlDatabases[1].mode: \"protectd\" is not a mode; did you mean `protected`? (allowed: standard, protected)\n\
         f:5: postgresqlDatabases[1].connectionLimit: 0 is outside of 1 to 10000; leave it out for no limit\n\
         f:9: postgresqlDatabases[2].schemas[1]: on is a boolean and must be text; put it in quotes: \"on\"\n\
         f:11: postgresqlDatabases[2].cluster: cluster \"A_b\" is not a DNS label: use a-z, 0-9 and hyphens, with a letter or digit first and last\n\
         f:12: postgresqlDatabases[3].name: \"ok\" is defined twice; the first time in line 6\n\
         f:13: postgresqlDatabases[4].name: on is a boolean and must be text; put it in quotes: \"on\"\n\
         f:14: postgresqlDatabases[5]: \"7\" is a number and must be a mapping (key: value)\n"
    );
    let names = parse("f", "idp-dev", text).names;
    assert_eq!(names, None, "an entry without a name may be any");
}

#[test]
fn values_have_their_types() {
    let of = |entry: &str| problems(&entries(&[entry])).replace("f:2: postgresqlDatabases[0].", "");
    for (entry, problem) in [
        ("name: 12", "name: 12 is a number and must be text; put it in quotes: \"12\""),
        ("name: 1e3", "name: 1e3 is a number and must be text; put it in quotes: \"1e3\""),
        ("name: no", "name: no is a boolean and must be text; put it in quotes: \"no\""),
        ("name: ~", "name: has no value; it must be text"),
        ("name: ", "name: has no value; it must be text"),
        ("name: ''", "name: name is empty"),
        ("name: [a]", "name: is a list and must be text"),
        ("name: !x a", "name: \"a\" is a tagged value and must be text"),
        ("name: a, mode: {}", "mode: is a mapping and must be text"),
        ("name: a, mode: true", "mode: true is a boolean and must be text; put it in quotes: \"true\""),
        ("name: a, schemas: b", "schemas: \"b\" is text and must be a list ([] where it is empty)"),
        ("name: a, extensions: ", "extensions: has no value; it must be a list ([] where it is empty)"),
        (
            "name: a, extensions: [PG]",
            "extensions[0]: \"PG\" is not an extension name: use 1 to 63 of a-z, 0-9, _ and -",
        ),
        ("name: a, connectionLimit: '20'", "connectionLimit: \"20\" is text and must be a whole number"),
        ("name: a, connectionLimit: 2.5", "connectionLimit: 2.5 must be a whole number in decimal digits, as 20"),
        ("name: a, connectionLimit: 010", "connectionLimit: 010 must be a whole number in decimal digits, as 20"),
        (
            "name: a, connectionLimit: 99999999999",
            "connectionLimit: 99999999999 must be a whole number in decimal digits, as 20",
        ),
        ("name: a, name: b", "name: is set twice; the first time in line 2"),
    ] {
        assert_eq!(of(entry), format!("{problem}\n"), "{entry}");
    }
    let long = format!("name: {}", "x".repeat(60));
    assert!(of(&long).contains("has 68 bytes; at most 55 are allowed"), "{}", of(&long));
    assert_eq!(of("name: !!str 12, mode: \"standard\""), "");
    assert_eq!(
        problems("postgresqlDatabases:\n"),
        "f:1: postgresqlDatabases: has no value; it must be a list ([] where it is empty)\n"
    );
    assert_eq!(problems("- a"), "f:1: is a list and must be a mapping (key: value)\n");
    assert_eq!(problems("global: {}\nglobal: {}"), "f:2: global: is set twice; the first time in line 1\n");
}

#[test]
fn what_is_no_yaml_names_its_line() {
    for (text, problem) in [
        ("a: 1\nb: [\n", "f:2: is not valid YAML: while parsing a node, did not find expected node content\n"),
        (
            "postgresqlDatabases:\n  - name: a\n\tmode: standard\n",
            "f:3: is not valid YAML: it is indented with a tab; use spaces\n",
        ),
        ("a: *x\n", "f:1: is not valid YAML: while parsing node, found unknown anchor\n"),
        ("a: &x [*x]\n", "f:1: an alias within the value that it stands for\n"),
        ("a: 1\n---\nb: 2\n", "f:2: a second document begins here; put everything into one, without `---` between\n"),
        ("a: 1\n\0\0\0", "f:2: holds a NUL byte: this is not text, or was not written to its end\n"),
    ] {
        assert_eq!(problems(text), problem, "{text:?}");
        assert_eq!(parse("f", "idp-dev", text).names, None);
    }
}

#[test]
fn aliases_work_and_bombs_do_not() {
    let text =
        "global:\n  x: &x {name: a, schemas: &s [b]}\npostgresqlDatabases:\n  - *x\n  - {name: c, schemas: *s}\n";
    let values = parse("f", "idp-dev", text);
    assert_eq!(render_problems(&values.problems), "");
    assert_eq!(values.definitions[1].spec.schemas, ["b"]);

    let mut laughs = "global:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (next, last) in ('b'..='i').zip('a'..='h') {
        laughs.push_str(&format!(
            "  {next}: &{next} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n"
        ));
    }
    assert!(
        problems(&laughs).contains("more than 100000 values, counting what aliases repeat"),
        "{}",
        problems(&laughs)
    );

    let deep_alias: String = (1..70).map(|i| format!("  a{i}: &a{i} [*a{}]\n", i - 1)).collect();
    let deep_alias = format!("global:\n  a0: &a0 []\n{deep_alias}");
    for deep in ["[".repeat(1 << 20), "- ".repeat(1 << 19), "{a: ".repeat(1 << 18), deep_alias] {
        assert!(problems(&deep).contains("nested deeper than 64 levels"), "{}", problems(&deep));
    }
    assert!(problems(&format!("global: [{}]", "1,".repeat(200_000))).contains("more than 100000 values"));
}

#[test]
fn a_thousand_problems_are_not_all_listed() {
    let text = "postgresqlDatabases:\n".to_owned() + &"  - {}\n".repeat(1000);
    let problems = problems(&text);
    assert_eq!(problems.lines().count(), 51);
    assert!(problems.ends_with("f: has 950 more problems\n"), "{problems}");
    let long = format!("{}: 1\n", "x".repeat(1 << 16));
    assert!(self::problems(&long).len() < 1000);
}

fn label() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8})?"
}

fn spec() -> impl Strategy<Value = ClaimSpec> {
    let mode = prop_oneof![Just(Mode::Standard), Just(Mode::Protected)];
    let schemas = proptest::collection::btree_set("s[a-z0-9_]{0,9}", 0..4);
    let extensions = proptest::collection::btree_set("e[a-z0-9_-]{0,9}", 0..4);
    let channel = proptest::option::of("#?[a-z][a-z0-9_-]{0,9}");
    (mode, label(), schemas, extensions, proptest::option::of(1..=10_000i32), channel).prop_map(
        |(mode, cluster, schemas, extensions, connection_limit, slack_channel)| ClaimSpec {
            mode,
            cluster,
            schemas: schemas.into_iter().collect(),
            extensions: extensions.into_iter().collect(),
            connection_limit,
            slack_channel,
        },
    )
}

fn write(databases: &BTreeMap<String, ClaimSpec>) -> String {
    if databases.is_empty() {
        return "postgresqlDatabases: []\n".to_owned();
    }
    let mut text = "postgresqlDatabases:\n".to_owned();
    for (name, ClaimSpec { mode, cluster, schemas, extensions, connection_limit, slack_channel }) in databases {
        text.push_str(&format!("- name: \"{name}\"\n  mode: {mode}\n  cluster: '{cluster}'\n  schemas: {schemas:?}\n"));
        if !extensions.is_empty() {
            text.push_str(&format!("  extensions:\n  - {}\n", extensions.join("\n  - ")));
        }
        if let Some(limit) = connection_limit {
            text.push_str(&format!("  connectionLimit: {limit}\n"));
        }
        if let Some(channel) = slack_channel {
            text.push_str(&format!("  slackChannel: {channel:?}\n"));
        }
    }
    text
}

proptest! {
    #[test]
    fn what_is_written_is_read(databases in proptest::collection::btree_map(label(), spec(), 0..5)) {
        let text = write(&databases);
        let values = parse("f", "idp-dev", &text);
        prop_assert_eq!(render_problems(&values.problems), "");
        let read: BTreeMap<_, _> =
            values.definitions.into_iter().map(|d| (d.key.name().to_owned(), d.spec)).collect();
        prop_assert_eq!(read, databases);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        parse("f", "idp-dev", &text);
    }

    #[test]
    fn no_yaml_like_text_panics(parts in proptest::collection::vec(prop_oneof![
        Just("postgresqlDatabases:"), Just("name:"), Just("- "), Just("\n"), Just("  "), Just("\t"), Just("&a "), Just("*a"),
        Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just(": "), Just("? "), Just("|"), Just(">-"), Just("'"),
        Just("\""), Just("\\"), Just("#"), Just("---\n"), Just("...\n"), Just("%YAML 1.2\n"), Just("!!str "), Just("!<a> "),
        Just("%TAG ! a\n"), Just("\r"), Just("\u{feff}"), Just("\u{85}"), Just("é"), Just("x"), Just("1"), Just("~"), Just("<<: "),
    ], 0..60)) {
        let text: String = parts.concat();
        parse("f", "idp-dev", &text);
        crate::application::parse("f", &text);
    }

    #[test]
    fn no_half_of_a_file_defines_what_the_whole_does_not(
        databases in proptest::collection::btree_map(label(), spec(), 1..4), cut in 0.0..1.0f64,
    ) {
        // Names are quoted here, so that half a name is no name.
        let text = write(&databases);
        let half = &text[..(text.len() as f64 * cut) as usize];
        let values = parse("f", "idp-dev", half);
        if values.problems.is_empty() {
            for definition in values.definitions {
                prop_assert!(databases.contains_key(definition.key.name()));
            }
        }
    }
}
