//! Plans in words.

use std::fmt::Write as _;

use pgtenant_model::{ChangeReport, ClaimPlan, PlanAction, PlanReport};

use super::output::{Output, Paint};

/// The action as REST writes it.
pub(super) fn word(action: PlanAction) -> &'static str {
    match action {
        PlanAction::Create => "create",
        PlanAction::Change => "change",
        PlanAction::Adopt => "adopt",
        PlanAction::Retain => "retain",
        PlanAction::Drop => "drop",
        PlanAction::None => "none",
        PlanAction::Refuse => "refuse",
    }
}

/// What would be done to each claim, change by change, or as SQL.
pub(super) fn render(report: &PlanReport, sql: bool, out: &Output) -> String {
    let mut text = String::new();
    for claim in &report.claims {
        // Writing to a string does not fail.
        let _ = if sql { render_sql(&mut text, claim) } else { render_claim(&mut text, claim, out) };
    }
    let prefix = if sql { "-- " } else { "" };
    let _ = write!(text, "{prefix}{}", summary(report));
    text
}

fn render_claim(text: &mut String, claim: &ClaimPlan, out: &Output) -> std::fmt::Result {
    let ClaimPlan { namespace, name, cluster, database, action, changes, problems } = claim;
    if *action == PlanAction::None && problems.is_empty() {
        return Ok(());
    }
    let action = word(*action);
    let label = out.paint(action, Paint::of_word(action));
    writeln!(text, "{label} {namespace}/{name} (database {database:?} on cluster {cluster:?})")?;
    for change in changes {
        writeln!(text, "  - {}", change.text)?;
    }
    for problem in problems {
        let place = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
        writeln!(text, "  {} {place}{}", out.paint("!", Paint::Bad), problem.message)?;
    }
    writeln!(text)
}

fn render_sql(text: &mut String, claim: &ClaimPlan) -> std::fmt::Result {
    let ClaimPlan { namespace, name, cluster, database: _, action, changes, problems } = claim;
    if changes.is_empty() && problems.is_empty() {
        return Ok(());
    }
    writeln!(text, "-- {} {namespace}/{name} on cluster {cluster:?}", word(*action))?;
    for problem in problems {
        writeln!(text, "-- ! {problem}")?;
    }
    let mut place: Option<&Option<String>> = None;
    for ChangeReport { text: words, sql, database } in changes {
        if place != Some(database) {
            match database {
                Some(database) => writeln!(text, "-- in database {database:?}")?,
                None => writeln!(text, "-- in the maintenance database")?,
            }
            place = Some(database);
        }
        writeln!(text, "-- {}\n{}", words.replace('\n', " "), terminated(sql))?;
    }
    writeln!(text)
}

fn terminated(sql: &str) -> String {
    let sql = sql.trim_end();
    if sql.is_empty() || sql.ends_with(';') { sql.to_owned() } else { format!("{sql};") }
}

/// One line that counts.
pub(super) fn summary(report: &PlanReport) -> String {
    let kinds = [
        (PlanAction::Create, "to create"),
        (PlanAction::Change, "to change"),
        (PlanAction::Adopt, "to adopt"),
        (PlanAction::Retain, "to retain"),
        (PlanAction::Drop, "to drop"),
        (PlanAction::None, "unchanged"),
        (PlanAction::Refuse, "refused"),
    ];
    let parts: Vec<String> = kinds
        .iter()
        .map(|(action, words)| (report.claims.iter().filter(|claim| claim.action == *action).count(), words))
        .filter(|(count, _)| *count > 0)
        .map(|(count, words)| format!("{count} {words}"))
        .collect();
    if parts.is_empty() { "Plan: nothing.".to_owned() } else { format!("Plan: {}.", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;
    use pgtenant_model::InvalidField;

    fn report() -> PlanReport {
        let change = |text: &str, sql: &str, database: Option<&str>| ChangeReport {
            text: text.into(),
            sql: sql.into(),
            database: database.map(str::to_owned),
        };
        let claim = |name: &str, action, changes, problems| ClaimPlan {
            namespace: "idp-dev".into(),
            name: name.into(),
            cluster: "default".into(),
            database: format!("idp-dev-{name}"),
            action,
            changes,
            problems,
        };
        PlanReport {
            claims: vec![
                claim(
                    "a",
                    PlanAction::Create,
                    vec![
                        change("create database \"idp-dev-a\"", "CREATE DATABASE \"idp-dev-a\"", None),
                        change("own schema public", "ALTER SCHEMA public OWNER TO x;", Some("idp-dev-a")),
                    ],
                    vec![],
                ),
                claim("b", PlanAction::None, vec![], vec![]),
                claim("c", PlanAction::Refuse, vec![], vec![InvalidField::new("cluster", "there is none")]),
            ],
        }
    }

    const PLAIN: Output = Output { format: Format::Table, color: false, width: None };

    #[test]
    fn a_plan_reads_as_a_list() {
        assert_eq!(
            render(&report(), false, &PLAIN),
            "create idp-dev/a (database \"idp-dev-a\" on cluster \"default\")\n  - create database \"idp-dev-a\"\n  \
             - own schema public\n\nrefuse idp-dev/c (database \"idp-dev-c\" on cluster \"default\")\n  ! cluster: there \
             is none\n\nPlan: 1 to create, 1 unchanged, 1 refused."
        );
        assert_eq!(summary(&PlanReport::default()), "Plan: nothing.");
    }

    #[test]
    fn a_plan_as_sql_has_nothing_but_sql_and_comments() {
        let text = render(&report(), true, &PLAIN);
        for line in text.lines().filter(|line| !line.is_empty()) {
            assert!(line.starts_with("-- ") || line.ends_with(';'), "{line}");
        }
        assert!(text.contains("-- in database \"idp-dev-a\"\n-- own schema public\nALTER SCHEMA"), "{text}");
    }
}
