//! A drill in words.

use pgtenant_model::{Drill, DrillMeans};

use crate::cli::operation::fields;

/// Milliseconds as `5.2 s`.
pub(super) fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

/// For people.
pub(super) fn text(cluster: &str, drill: &Drill) -> String {
    let means = match drill.means {
        DrillMeans::Kill => "killed",
        DrillMeans::Switchover => "made a standby by a switchover",
        DrillMeans::Command => "stopped by a command",
    };
    let target = |millis| format!("target {}", seconds(millis));
    let lost = match (drill.lost, drill.synchronous) {
        (None, _) => "not known: nobody could be asked".to_owned(),
        (Some(lost), true) => format!("{lost} acknowledged writes; replication is synchronous"),
        (Some(lost), false) => format!("{lost} acknowledged writes; replication is asynchronous, so that some may be"),
    };
    let client = |one: &pgtenant_model::DrillClient| {
        format!(
            "{} without an answer, through {}; {} were answered, {} failed",
            seconds(one.longest_gap_ms),
            one.endpoint,
            one.answered,
            one.failed
        )
    };
    let summary = fields(&[
        (
            "Primary",
            format!("{}, {means} at {}", drill.former_primary, drill.stopped_at.format("%Y-%m-%d %H:%M:%S UTC")),
        ),
        ("Now", drill.primary.clone().unwrap_or_else(|| "none was found in time".to_owned())),
        ("Writes", format!("{} ({})", client(&drill.writes), target(drill.rto_ms))),
        ("Reads", client(&drill.reads)),
        ("Lost", lost),
        (
            "Databases",
            drill
                .claims_again_ms
                .map_or_else(|| "not changed again".to_owned(), |at| format!("changed again after {}", seconds(at))),
        ),
        (
            "Members",
            drill.recovered_ms.map_or_else(
                || format!("not all back ({})", target(drill.recover_ms)),
                |at| format!("all back after {} ({})", seconds(at), target(drill.recover_ms)),
            ),
        ),
    ]);
    let verdict = if drill.passed { "passed" } else { "failed" };
    let problems: String = drill.problems.iter().map(|problem| format!("\n  {problem}")).collect();
    format!("Drill of {cluster}: {verdict}{problems}\n{summary}")
}
