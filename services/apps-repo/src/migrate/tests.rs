//! What files become, and what is refused.

use super::*;
use crate::render_problems;

fn new(text: &str) -> String {
    match rewrite_values("f", "ns", text) {
        Ok(Some(rewritten)) => {
            assert_eq!(rewrite_values("f", "ns", &rewritten.text), Ok(None), "a second time: {}", rewritten.text);
            rewritten.text
        }
        Ok(None) => panic!("nothing changes: {text}"),
        Err(problems) => panic!("{}{text}", render_problems(&problems)),
    }
}

fn refused(text: &str) -> String {
    match rewrite_values("f", "ns", text) {
        Err(problems) => render_problems(&problems),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn becomes(before: &str, after: &str) {
    assert_eq!(new(before), after);
    // In other clothes.
    assert_eq!(new(&before.replace('\n', "\r\n")), after.replace('\n', "\r\n"));
    assert_eq!(new(&format!("\u{feff}{before}")), format!("\u{feff}{after}"));
    assert_eq!(new(before.trim_end_matches('\n')), after.trim_end_matches('\n'));
    assert_eq!(new(&format!("---\n# é €\n{before}")), format!("---\n# é €\n{after}"));
}

#[test]
fn the_oldest_chart() {
    becomes(
        "# ours\ntenantDatabases:  # all\n  - name: orders   # a\n    deletionProtection: true # keep\n    roleDeletionPolicy: Orphan\n\n\
         \x20   # why\n    dbDeletionPolicy: Orphan  # the audit\n\n  - name: 'cart'\n    deletionProtection: false\n    roleDeletionPolicy: Delete\n\
         \x20   dbDeletionPolicy: \"Delete\"\n\nglobal: {a:   [1, ~]}   # as it was\n",
        "# ours\npostgresqlDatabases:  # all\n  - name: orders   # a\n    mode: protected # keep\n\n\
         \x20   # why\n    # the audit\n\n  - name: 'cart'\n    mode: standard\n\nglobal: {a:   [1, ~]}   # as it was\n",
    );
}

#[test]
fn the_chart_after_it() {
    becomes(
        "postgresqlDatabases:\n- deletionProtection: yes\n  name: a\n  schemas: [x]\n-   name: b\n    \"deletionProtection\":   Off\n- name: c\n",
        "postgresqlDatabases:\n- mode: protected\n  name: a\n  schemas: [x]\n-   name: b\n    \"mode\":   standard\n- name: c\n",
    );
    becomes("tenantDatabases: []\n", "postgresqlDatabases: []\n");
    becomes("\"tenantDatabases\":\n  -\n    name: a\n", "\"postgresqlDatabases\":\n  -\n    name: a\n");
    // Half done by hand: the first place counts, and what was there twice goes once.
    becomes(
        "tenantDatabases:\n  - roleDeletionPolicy: 'Orphan'\n    name: a\n    mode: protected # so\n  - name: b\n    mode: standard\n    deletionProtection: false\n",
        "postgresqlDatabases:\n  - mode: 'protected'\n    name: a\n    # so\n  - name: b\n    mode: standard\n",
    );
}

#[test]
fn braces_and_brackets() {
    becomes(
        "tenantDatabases: [{name: a, deletionProtection: true , roleDeletionPolicy: Orphan, dbDeletionPolicy: Orphan}, {name: b}]\n",
        "postgresqlDatabases: [{name: a, mode: protected}, {name: b}]\n",
    );
    becomes(
        "tenantDatabases:\n  - {dbDeletionPolicy: Delete, deletionProtection: false, name: a, roleDeletionPolicy: Delete } # x\n",
        "postgresqlDatabases:\n  - {mode: standard, name: a } # x\n",
    );
    becomes(
        "tenantDatabases: [\n  {\n    name: a,                    # n\n    deletionProtection: true,   # dp\n    roleDeletionPolicy: Orphan, # rp\n    dbDeletionPolicy: Orphan    # db\n  },\n]\n",
        "postgresqlDatabases: [\n  {\n    name: a,                    # n\n    mode: protected   # dp\n    # rp\n    # db\n  },\n]\n",
    );
    becomes(
        "tenantDatabases:\n  - { name: a\n    , deletionProtection: true\n    , roleDeletionPolicy: Orphan\n    , cluster: x\n    }\n",
        "postgresqlDatabases:\n  - { name: a\n    , mode: protected\n    , cluster: x\n    }\n",
    );
    becomes(
        "{\"tenantDatabases\":[{\"name\":\"a\",\"deletionProtection\":true,\"dbDeletionPolicy\":\"Orphan\"}],\"global\":{\"x\":1}}\n",
        "{\"postgresqlDatabases\":[{\"name\":\"a\",\"mode\":\"protected\"}],\"global\":{\"x\":1}}\n",
    );
}

#[test]
fn two_lists_become_one() {
    let one = "tenantDatabases:\n  - name: a\n    deletionProtection: true\n\n# the new ones\npostgresqlDatabases: # here\n- name: b\n  # odd\n  mode: standard\n\n# end\n";
    becomes(
        one,
        "postgresqlDatabases:\n  - name: a\n    mode: protected\n\n# the new ones\n# here\n  - name: b\n    # odd\n    mode: standard\n\n# end\n",
    );
    becomes(
        "postgresqlDatabases:\n    - name: b\nglobal:\n  - x\ntenantDatabases:\n  - name: a\n    roleDeletionPolicy: Delete\nidp_aws_account: 1\n",
        "postgresqlDatabases:\n    - name: b\n    - name: a\n      mode: standard\nglobal:\n  - x\nidp_aws_account: 1\n",
    );
    becomes(
        "postgresqlDatabases: [{name: b}]\ntenantDatabases: [{name: a, deletionProtection: false}, ] # old\n",
        "postgresqlDatabases: [{name: b}, {name: a, mode: standard}]\n# old\n",
    );
    becomes(
        "tenantDatabases: [] # none\nglobal: {}\npostgresqlDatabases:\n- name: b\n",
        "# none\nglobal: {}\npostgresqlDatabases:\n- name: b\n",
    );
    becomes("postgresqlDatabases: []\ntenantDatabases:\n- name: b\n", "postgresqlDatabases:\n- name: b\n");
    assert_eq!(
        refused("tenantDatabases:\n- name: a\npostgresqlDatabases:\n- name: b\n- name: a\n"),
        "f:5: postgresqlDatabases[2].name: \"a\" is defined twice; the first time in line 2\n"
    );
    for (text, why) in [
        (
            "tenantDatabases:\n- name: a\n  roleDeletionPolicy: Delete\n  dbDeletionPolicy: Delete\npostgresqlDatabases: [{name: b}]\n",
            "f:5: the two lists of databases can not be made one here, because one list is in brackets and the other is not; write all of them as one list\n",
        ),
        (
            "{tenantDatabases: [], postgresqlDatabases: [{name: b}]}\n",
            "f:1: the two lists of databases can not be made one here, because one is not on a line of its own; write all of them as one list\n",
        ),
    ] {
        assert_eq!(refused(text), why);
    }
}

#[test]
fn what_is_new_stays() {
    for text in [
        "",
        "# nothing\n",
        "global: &a {x: *b}\n",
        "postgresqlDatabases: []\n",
        "postgresqlDatabases:\n\t\n- {name: &x a, mode: protected}\r\n- name: b\n",
        "postgresqlDatabases: [{name: a}]",
    ] {
        if tree::parse(text).is_ok() {
            assert_eq!(rewrite_values("f", "ns", text), Ok(None), "{text}");
        }
    }
}

#[test]
fn what_spans_do_not_tell_is_refused() {
    let old = "tenantDatabases:\n- name: a\n  deletionProtection: true\n";
    for (text, why) in [
        (
            format!("global: &x {{}}\n{old}"),
            "f:1: an anchor stands here, so one value counts in several places; change this file by hand\n",
        ),
        (
            "global: {x: &x {name: a, deletionProtection: true}}\ntenantDatabases:\n  - *x\n".into(),
            "f:1: an anchor stands here, so one value counts in several places; change this file by hand\n",
        ),
        (
            format!("{old}---\na: b\n"),
            "f:4: a second document begins here; put everything into one, without `---` between\n",
        ),
        (format!("{old}  cluster: b\t\n"), "f:4: a tab stands here; use spaces, or change this file by hand\n"),
        (format!("{old}global:\n  [\n  \t1]\n"), "f:6: a tab stands here; use spaces, or change this file by hand\n"),
        (
            format!("# a\u{2028}b\n{old}"),
            "f:1: a character stands here that some readers take for a line break and others do not; take it out first\n",
        ),
        (
            format!("{old}global: {{}}\r# x\n"),
            "f:4: a character stands here that some readers take for a line break and others do not; take it out first\n",
        ),
        (
            "tenantDatabases:\n- name: a\n  ? deletionProtection\n  : true\n".into(),
            "f:3: is not written as `key: value` on one line; change this file by hand\n",
        ),
        (
            "tenantDatabases:\n- name: a\n  deletionProtection:\n    true\n".into(),
            "f:3: is not written as `key: value` on one line; change this file by hand\n",
        ),
        (
            "tenantDatabases:\n- name: a\n  deletionProtection: true\n  roleDeletionPolicy: >-\n    Orphan\n".into(),
            "f:4: is not written as `key: value` on one line; change this file by hand\n",
        ),
        (
            "tenantDatabases:\n- name: a\n  !!str deletionProtection: true\n".into(),
            "f:3: is not written as `key: value` on one line; change this file by hand\n",
        ),
        ("!!str tenantDatabases: []\n".into(), "f:1: is no plain key; change this file by hand\n"),
        (
            format!("{old}  <<: {{}}\n"),
            "f:4: postgresqlDatabases[0].\"<<\": merging of mappings is not supported here; write the keys out (allowed: name, mode, cluster, schemas, extensions, connectionLimit, slackChannel)\n",
        ),
    ] {
        assert_eq!(refused(&text), why, "{text}");
    }
    // A tab in a comment or in quotes moves nothing.
    becomes(
        "tenantDatabases:\n- name: a\n  deletionProtection: true #\tx\nglobal: {a: \"b\tc # d\"}\n",
        "postgresqlDatabases:\n- name: a\n  mode: protected #\tx\nglobal: {a: \"b\tc # d\"}\n",
    );
}

#[test]
fn what_was_not_meant_clearly_is_refused() {
    let of = |fields: &str| {
        refused(&format!("tenantDatabases:\n- name: a\n  {fields}\n")).replace("tenantDatabases[0].", "")
    };
    for (fields, why) in [
        (
            "deletionProtection: \"false\"",
            "f:3: deletionProtection: \"false\" is text and must be true or false, without quotes\n",
        ),
        (
            "deletionProtection: 0",
            "f:3: deletionProtection: \"0\" is a number and must be true or false, without quotes\n",
        ),
        ("deletionProtection:", "f:3: deletionProtection: has no value; it must be true or false, without quotes\n"),
        (
            "deletionProtection: {{ .x }}",
            "f:3: deletionProtection: is a mapping and must be true or false, without quotes\n",
        ),
        (
            "roleDeletionPolicy: orphan",
            "f:3: roleDeletionPolicy: \"orphan\" is not a policy (allowed: Orphan, Delete)\n",
        ),
        ("dbDeletionPolicy: Retain", "f:3: dbDeletionPolicy: \"Retain\" is not a policy (allowed: Orphan, Delete)\n"),
        ("dbDeletionPolicy: Delete\n  dbDeletionPolicy: Delete", "f:4: dbDeletionPolicy: is set twice\n"),
        (
            "mode: standard\n  dbDeletionPolicy: Orphan",
            "f:3: mode: is \"standard\", and the fields of the older chart beside it mean `mode: protected`; remove the one or the others\n",
        ),
    ] {
        assert_eq!(of(fields), why, "{fields}");
    }
    assert_eq!(
        refused("tenantDatabases:\n"),
        "f:1: postgresqlDatabases: has no value; it must be a list ([] where it is empty)\n"
    );
    assert!(refused("tenantDatabases: []\nreplicas: 3\n").starts_with("f:2: replicas: is not known"));
    assert!(refused("idp-postgresql:\n  tenantDatabases: []\n").starts_with("f:1: idp-postgresql: is not known"));
    assert!(refused("tenantDatabases: []\ntenantDatabases: []\n").contains("is set twice; the first time in line 1"));
    assert!(refused("tenantDatabases:\n- name: \"a\\u001b[31m\\n\"\n").contains("\\u{1b}[31m"));
    let deep = format!("tenantDatabases: []\nglobal: {}1{}\n", "[".repeat(80), "]".repeat(80));
    assert_eq!(refused(&deep), "f:2: is nested deeper than 64 levels\n");
    new(&format!("tenantDatabases: []\nglobal: {}1{}\n", "[".repeat(60), "]".repeat(60)));
}

#[test]
fn the_safer_mode_is_chosen_and_said() {
    let notes = |fields: &str| {
        let text = format!("tenantDatabases:\n  - name: a\n    {fields}\n");
        let Rewritten { text, notes, .. } = rewrite_values("f", "ns", &text).unwrap().unwrap();
        let notes: Vec<String> = notes.iter().map(|n| format!("{}: {}", n.line, n.message)).collect();
        (text.contains("mode: protected"), notes.join("\n"))
    };
    for (fields, protected, said) in [
        ("deletionProtection: true", true, ""),
        ("deletionProtection: false", false, ""),
        ("roleDeletionPolicy: Delete", false, ""),
        ("roleDeletionPolicy: Orphan\n    dbDeletionPolicy: Orphan", true, ""),
        ("roleDeletionPolicy: Orphan", true, "roleDeletionPolicy Orphan, dbDeletionPolicy Delete (not written)"),
        (
            "deletionProtection: false\n    dbDeletionPolicy: Delete\n    roleDeletionPolicy: Orphan",
            true,
            "deletionProtection false, roleDeletionPolicy Orphan, dbDeletionPolicy Delete",
        ),
        (
            "deletionProtection: true\n    dbDeletionPolicy: Delete\n    roleDeletionPolicy: Delete",
            true,
            "deletionProtection true, roleDeletionPolicy Delete, dbDeletionPolicy Delete",
        ),
    ] {
        let (mode, note) = notes(fields);
        assert_eq!(mode, protected, "{fields}");
        if said.is_empty() {
            assert_eq!(note, "", "{fields}");
        } else {
            assert!(note.starts_with(&format!("3: \"a\": {said} do not agree; mode: protected was chosen")), "{note}");
        }
    }
}

#[test]
fn changes_are_told_with_their_lines() {
    let text = "postgresqlDatabases:\n- name: b\ntenantDatabases:\n- name: a\n  roleDeletionPolicy: Delete\n  deletionProtection: no\n";
    let changes = rewrite_values("f", "ns", text).unwrap().unwrap().changes;
    let told: Vec<String> = changes.iter().map(|c| format!("{}: {}", c.line, c.message)).collect();
    assert_eq!(
        told,
        [
            "3: tenantDatabases becomes postgresqlDatabases",
            "3: the list joins that of line 1",
            "5: \"a\": mode: standard in place of roleDeletionPolicy, deletionProtection"
        ]
    );
}

#[test]
fn the_charts_version_is_set() {
    let version: ChartVersion = "1.0.0".parse().unwrap();
    let old = |text: &str| match rewrite_application("f", text, &version) {
        Ok(Chart::Old(rewritten)) => rewritten.text,
        other => panic!("{text}: {other:?}"),
    };
    for found in ["0.4.1", "0.5.0", "'0.5.0'", "\"0.5.x\"", "~0.5.0", "^0.4", "v0.5.0-rc.1", "0.5"] {
        let text = format!(
            "\u{feff}# é\r\nhelm: # x\r\n  chart: 'idp-postgresql'\r\n  chartVersion:   {found}  # v\r\nname: a"
        );
        let quote = found.chars().next().filter(|c| "'\"".contains(*c)).map(String::from).unwrap_or_default();
        assert_eq!(old(&text), text.replace(found, &format!("{quote}1.0.0{quote}")));
    }
    assert_eq!(
        old("helm: {chartVersion: 0.5.0, chart: idp-postgresql}"),
        "helm: {chartVersion: 1.0.0, chart: idp-postgresql}"
    );
    let of = |text: &str| rewrite_application("f", text, &version);
    for text in ["1.0.0", "2.3.4", "1"] {
        let text = format!("helm: {{chart: idp-postgresql, chartVersion: \"{text}\"}}");
        assert_eq!(of(&text), Ok(Chart::New));
    }
    assert_eq!(of("helm: {chart: idp-postgresql}"), Ok(Chart::Unnamed));
    for text in [">=0.4.1", "latest", "0.4 - 0.6", "*"] {
        let text = (format!("helm:\n  chart: idp-postgresql\n  chartVersion: \"{text}\"\n"), text.to_owned());
        assert_eq!(of(&text.0), Ok(Chart::Unclear(3, text.1)));
    }
    for (text, why) in [
        ("helm: {chart: idp-postgresql, chartVersion: &v 0.5.0}", "f:1: an anchor stands here"),
        ("helm: {chart: idp-postgresql, chartVersion: !!str 0.5.0}", "f:1: helm.chartVersion is no plain word"),
        ("helm: {chart: idp-postgresql, chartVersion: 0.5.0, x: 1}", "f:1: helm.x: is not known"),
        ("helm:\n  chartVersion: 0.5.0", "f:1: helm.chart: is missing"),
    ] {
        let told = render_problems(&of(text).unwrap_err());
        assert!(told.starts_with(why), "{told}");
    }
}

#[test]
fn versions_of_the_chart() {
    for text in ["1.0.0", "1.2.3-rc.1", "10.0.0+b-1"] {
        assert_eq!(text.parse::<ChartVersion>().unwrap().to_string(), text);
    }
    for text in
        ["", "1", "1.0", "0.5.0", "01.0.0", "1.0.0-", "1.0.0 #", "1.0.0\n", "v1.0.0", "1.0.0: x", "1.0.0.0", "1..0"]
    {
        assert!(text.parse::<ChartVersion>().is_err(), "{text}");
    }
}
