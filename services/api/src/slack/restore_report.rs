//! How a restore ended: what was compared, what differs, and what could not be brought back.

use chrono::{DateTime, Utc};
use pgtenant_ledger::StoredRestore;
use pgtenant_model::{Approval, Finding, LeftOut, Verification};
use serde_json::Value;

use super::blocks::{Block, actions, lines, message, section};
use super::restore_view::{Audience, icon, undo_button, way_back, word};
use super::text::{Esc, bytes, count, cut, number};

/// Letters of the differences, which together with all else stay below what a message takes.
const DIFFERENCES: usize = 3500;
/// Letters of what could not be brought back.
const LEFT_OUT: usize = 3000;

/// The message that closes the thread.
pub(super) fn report(stored: &StoredRestore, approval: Approval, audience: Audience, now: DateTime<Utc>) -> Value {
    let restore = &stored.view;
    let head = format!(
        "{} *The restore of {}/{} is over: {}*",
        icon(restore.phase),
        restore.namespace,
        restore.name,
        word(restore.phase)
    );
    let took = restore.finished_at.map(|end| (end - restore.created_at).num_seconds()).filter(|seconds| *seconds > 0);
    let mut text =
        took.map_or_else(|| head.clone(), |seconds| format!("{head}, {} after it was asked for", span(seconds)));
    if let Some(said) = restore.message.as_deref().filter(|said| !said.is_empty()) {
        text.push_str(&format!("\n{}", cut(Esc(said).to_string(), 2000)));
    }
    let mut blocks = vec![section(text)];
    if let Some(report) = &restore.report {
        blocks.extend(verification(report));
    }
    if let Some(back) = way_back(stored) {
        blocks.push(section(back));
    }
    blocks.extend(actions(undo_button(stored, approval, audience, now).into_iter().collect()));
    message(format!("Restore of {}/{}: {}", restore.namespace, restore.name, word(restore.phase)), blocks)
}

fn span(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn verification(report: &Verification) -> Vec<Block> {
    let Verification { objects, tables, rows, bytes: size, sequences, large_objects, logins, differences, left_out } =
        report;
    let compared = format!(
        "*Compared with the snapshot*: {}, {} with {} ({}), {}, {}, {}",
        count(*objects, "object", "objects"),
        count(*tables, "table", "tables"),
        count(*rows, "row", "rows"),
        bytes(*size),
        count(*sequences, "sequence", "sequences"),
        count(*large_objects, "large object", "large objects"),
        count(logins.len() as u64, "login tried", "logins tried"),
    );
    let mut blocks = vec![section(compared)];
    if differences.is_empty() {
        blocks.push(section(":white_check_mark: No differences."));
    } else {
        let mut all = vec![format!("*Differences: {}*", number(differences.len() as u64))];
        all.extend(
            differences.iter().map(|Finding { object, message }| format!("• {}: {}", Esc(object), Esc(message))),
        );
        blocks.extend(lines(&all, DIFFERENCES));
    }
    if !left_out.is_empty() {
        let mut all = vec![format!("*Not brought back: {}*", number(left_out.len() as u64))];
        let line = |LeftOut { object, reason, remedy }: &LeftOut| {
            format!("• {}: {}. {}", Esc(object), Esc(reason), Esc(remedy))
        };
        all.extend(left_out.iter().map(line));
        blocks.extend(lines(&all, LEFT_OUT));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use pgtenant_model::RestorePhase;

    use super::*;
    use crate::slack::restore_view::tests::{now, stored};

    #[test]
    fn a_report_of_any_size_is_a_message() {
        let mut done = stored(RestorePhase::Failed);
        let finding = |n: usize| Finding { object: format!("table {n}"), message: "rows <differ>".repeat(50) };
        let left =
            |n| LeftOut { object: format!("extension {n}"), reason: "not here".into(), remedy: "ask".repeat(20) };
        done.view.message = Some("<because> ".repeat(500));
        done.view.report = Some(Verification {
            rows: 1_234_567,
            differences: (0..500).map(finding).collect(),
            left_out: (0..500).map(left).collect(),
            ..Verification::default()
        });
        let report = report(&done, Approval::Other, Audience::Platform, now());
        let blocks = report["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50);
        let texts: Vec<_> = blocks.iter().filter_map(|block| block["text"]["text"].as_str()).collect();
        assert!(texts.iter().map(|text| text.encode_utf16().count()).sum::<usize>() < 10_000);
        let all = texts.join("\n");
        assert!(all.contains("1,234,567 rows") && all.contains("extension 0: not here. ask"), "{all}");
        assert_eq!(all.matches(" more").count(), 2, "both lists are counted: {all}");
        let ends = |text: &&&str| text.contains("… and ");
        assert!(texts.iter().filter(ends).all(|text| text.ends_with(" more")), "{all}");
    }
}
