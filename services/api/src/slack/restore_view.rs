//! A restore as channels see it: a message that says where it is, with buttons; and in its thread how far it is, and how it ended.

use chrono::{DateTime, Utc};
use pgtenant_ledger::StoredRestore;
use pgtenant_model::{Approval, Restore, RestorePhase, RestorePoint, RestoreStrategy};
use serde_json::Value;

use super::blocks::{Button, actions, button, context, header, message, section};
use super::restore_report::report;
use super::text::{Esc, bar, cut, moment, who};

/// Ids of buttons.
pub(crate) const APPROVE: &str = "restore_approve";
/// See [`APPROVE`].
pub(crate) const REJECT: &str = "restore_reject";
/// See [`APPROVE`].
pub(crate) const CANCEL: &str = "restore_cancel";
/// See [`APPROVE`].
pub(crate) const UNDO: &str = "restore_undo";

/// For whom a restore is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The platform's channel.
    Platform,
    /// A channel that is linked to the namespace.
    Tenant,
}

/// The messages of a restore in one channel.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) root: Value,
    /// In the thread, from when it was approved.
    pub(crate) progress: Option<Value>,
    /// In the thread, when it is over.
    pub(crate) report: Option<Value>,
}

/// What is to be seen of a restore.
pub(crate) fn show(stored: &StoredRestore, approval: Approval, audience: Audience, now: DateTime<Utc>) -> Shown {
    let begun = !matches!(stored.view.phase, RestorePhase::Requested | RestorePhase::Rejected)
        && (stored.view.decided_by.is_some() || stored.view.phase != RestorePhase::Cancelled);
    Shown {
        root: root(stored, approval, audience, now),
        progress: begun.then(|| progress(&stored.view)),
        report: stored.view.phase.is_over().then(|| report(stored, approval, audience, now)),
    }
}

fn root(stored: &StoredRestore, approval: Approval, audience: Audience, now: DateTime<Utc>) -> Value {
    let restore = &stored.view;
    let mut blocks =
        vec![header(format!("Restore of {}/{}", restore.namespace, restore.name)), section(facts(restore))];
    if let Some(reason) = restore.spec.reason.as_deref().filter(|reason| !reason.trim().is_empty()) {
        blocks.push(section(format!("*Reason*\n> {}", cut(Esc(reason).to_string(), 1500))));
    }
    blocks.push(section(state(stored, approval)));
    blocks.extend(actions(buttons(stored, approval, audience, now)));
    blocks.push(context(format!("restore `{}` · also `pgtenant restore watch`", restore.id)));
    let fallback = format!("Restore of {}/{}: {}", restore.namespace, restore.name, word(restore.phase));
    message(fallback, blocks)
}

fn facts(restore: &Restore) -> String {
    let Restore { cluster, spec, snapshot, requested_by, created_at, .. } = restore;
    let mut lines = vec![
        format!("*Asked for by* {}, {}", who(requested_by), moment(*created_at)),
        format!("*From* {}", point(&spec.from)),
    ];
    if let Some(snapshot) = snapshot.as_ref().filter(|found| spec.from.snapshot.as_ref() != Some(found)) {
        lines.push(format!("*That is* `{}`", Esc(snapshot)));
    }
    lines.push(format!("*Strategy* {}", strategy(spec.strategy, spec.copy_name.as_deref())));
    lines.push(format!("*Cluster* {}", Esc(cluster)));
    lines.join("\n")
}

fn point(from: &RestorePoint) -> String {
    match (&from.snapshot, from.time) {
        (Some(snapshot), _) => format!("snapshot `{}`", Esc(snapshot)),
        (None, Some(time)) => format!("the database as it was {}", moment(time)),
        (None, None) => "the newest snapshot".to_owned(),
    }
}

fn strategy(strategy: RestoreStrategy, copy: Option<&str>) -> String {
    match strategy {
        RestoreStrategy::Swap => "swap: it is loaded beside the database, compared, and takes its place".to_owned(),
        RestoreStrategy::Replace => "*replace: the database is emptied and filled again in place*".to_owned(),
        RestoreStrategy::Copy => format!("copy: it becomes another database, {}", Esc(copy.unwrap_or("?"))),
        RestoreStrategy::Test => "test: it is loaded beside the database, compared, and dropped".to_owned(),
    }
}

pub(super) fn word(phase: RestorePhase) -> &'static str {
    match phase {
        RestorePhase::Requested => "waits to be approved",
        RestorePhase::Approved => "waits for its turn",
        RestorePhase::Preparing => "preparing",
        RestorePhase::Copying => "copying",
        RestorePhase::Verifying => "comparing",
        RestorePhase::Switching => "switching",
        RestorePhase::CleaningUp => "cleaning up",
        RestorePhase::Succeeded => "done",
        RestorePhase::Failed => "failed",
        RestorePhase::Cancelled => "cancelled",
        RestorePhase::Rejected => "rejected",
    }
}

pub(super) fn icon(phase: RestorePhase) -> &'static str {
    match phase {
        RestorePhase::Requested => ":raised_hand:",
        RestorePhase::Succeeded => ":white_check_mark:",
        RestorePhase::Failed => ":x:",
        RestorePhase::Cancelled | RestorePhase::Rejected => ":no_entry_sign:",
        _ => ":hourglass_flowing_sand:",
    }
}

fn state(stored: &StoredRestore, approval: Approval) -> String {
    let restore = &stored.view;
    let mut text = format!("{} *{}*", icon(restore.phase), sentence(word(restore.phase)));
    match restore.phase {
        RestorePhase::Requested if approval == Approval::Other => {
            text.push_str(": by somebody of the platform team who has not asked for it");
        }
        RestorePhase::Requested | RestorePhase::Cancelled => {}
        phase => {
            let verb = if phase == RestorePhase::Rejected { "by" } else { "· approved by" };
            if let Some(decided_by) = &restore.decided_by {
                text.push_str(&format!(" {verb} {}", who(decided_by)));
            }
        }
    }
    if stored.cancel && !restore.phase.is_over() {
        text.push_str("\nIt is being cancelled.");
    }
    // How much is copied stands in the thread: this message would be changed for nothing else.
    if let Some(said) = restore.message.as_deref().filter(|said| !said.is_empty()) {
        text.push_str(&format!("\n{}", cut(Esc(said).to_string(), 1200)));
    }
    if let Some(undone) = way_back(stored) {
        text.push_str(&format!("\n{undone}"));
    }
    text
}

fn sentence(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What became of the way back.
pub(super) fn way_back(stored: &StoredRestore) -> Option<String> {
    let restore = &stored.view;
    match (&stored.undo_asked_by, restore.undone_at, &restore.before) {
        (Some(by), _, _) => {
            Some(format!(":leftwards_arrow_with_hook: It goes back to what was there before, as {} asked.", who(by)))
        }
        (None, Some(at), _) => {
            Some(format!(":leftwards_arrow_with_hook: It went back to what was there before, {}.", moment(at)))
        }
        (None, None, Some(before)) => Some(format!(
            "What was there before is kept as `{}` until {}.",
            Esc(&before.database),
            moment(before.until)
        )),
        (None, None, None) => None,
    }
}

fn buttons(stored: &StoredRestore, approval: Approval, audience: Audience, now: DateTime<Utc>) -> Vec<Button> {
    let restore = &stored.view;
    let database = format!("{}/{}", restore.namespace, restore.name);
    let id = || restore.id.to_string();
    let mut buttons = Vec::new();
    if restore.phase == RestorePhase::Requested && may_let(approval, audience) {
        let what = format!("{} becomes what it was: {}.", database, plain_strategy(restore.spec.strategy));
        buttons.push(button(APPROVE, "Approve", id()).primary().confirm("Approve the restore?", &what, "Approve"));
        buttons.push(button(REJECT, "Reject", id()));
    }
    if restore.phase.can_be_cancelled() && !stored.cancel {
        let what = format!("{database} stays as it is.");
        buttons.push(button(CANCEL, "Cancel", id()).danger().confirm("Cancel the restore?", &what, "Cancel it"));
    }
    buttons.extend(undo_button(stored, approval, audience, now));
    buttons
}

/// Where somebody else has to approve, the tenants' channel has no button that would be refused.
fn may_let(approval: Approval, audience: Audience) -> bool {
    audience == Audience::Platform || approval != Approval::Other
}

fn plain_strategy(strategy: RestoreStrategy) -> &'static str {
    match strategy {
        RestoreStrategy::Swap => "a copy takes its place, and what is there now is kept for a time",
        RestoreStrategy::Replace => "it is emptied and filled again in place",
        RestoreStrategy::Copy => "a copy is made, and it stays itself",
        RestoreStrategy::Test => "a copy is made and compared, and dropped",
    }
}

pub(super) fn undo_button(
    stored: &StoredRestore,
    approval: Approval,
    audience: Audience,
    now: DateTime<Utc>,
) -> Option<Button> {
    let Restore { id, namespace, name, phase, before, undone_at, .. } = &stored.view;
    let kept = before.as_ref().is_some_and(|before| before.until > now);
    let open = *phase == RestorePhase::Succeeded && undone_at.is_none() && stored.undo_asked_by.is_none();
    let what = format!(
        "{namespace}/{name} becomes what it was before. What was written since is put aside in turn, not lost."
    );
    (kept && open && may_let(approval, audience))
        .then(|| button(UNDO, "Go back", id.to_string()).confirm("Go back?", &what, "Go back"))
}

/// The phases of work, in their order.
const STEPS: [RestorePhase; 5] = [
    RestorePhase::Preparing,
    RestorePhase::Copying,
    RestorePhase::Verifying,
    RestorePhase::Switching,
    RestorePhase::CleaningUp,
];

fn progress(restore: &Restore) -> Value {
    let at = STEPS.iter().position(|step| *step == restore.phase);
    let done = restore.phase == RestorePhase::Succeeded;
    let mut rows = Vec::new();
    for (index, step) in STEPS.into_iter().enumerate() {
        let mark = match at {
            _ if done => ":white_check_mark:",
            Some(at) if index < at => ":white_check_mark:",
            Some(at) if index == at => ":arrow_forward:",
            _ => ":white_small_square:",
        };
        let copied = if step == RestorePhase::Copying { bar(&restore.progress) } else { String::new() };
        let more = if copied.is_empty() { copied } else { format!(" · {copied}") };
        rows.push(format!("{mark} {}{more}", sentence(word(step))));
    }
    if !restore.phase.is_over()
        && let Some(said) = restore.message.as_deref().filter(|said| !said.is_empty())
    {
        rows.push(format!("_{}_", cut(Esc(said).to_string().replace('_', "-"), 1000)));
    }
    message(format!("{}: {}", restore.name, word(restore.phase)), vec![section(rows.join("\n"))])
}

#[cfg(test)]
pub(super) mod tests {
    use pgtenant_model::{PutAside, RestoreProgress};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    pub(in crate::slack) fn stored(phase: RestorePhase) -> StoredRestore {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        StoredRestore {
            view: Restore {
                id: Uuid::nil(),
                namespace: "shop".into(),
                name: "orders".into(),
                cluster: "default".into(),
                spec: serde_json::from_value(json!({"from": {"latest": true}, "reason": "<!channel> *now*"})).unwrap(),
                snapshot: None,
                phase,
                message: None,
                progress: RestoreProgress::default(),
                report: None,
                before: None,
                undone_at: None,
                requested_by: "slack:U0BOB".into(),
                decided_by: None,
                created_at: at,
                finished_at: None,
            },
            claim: Uuid::nil(),
            object: None,
            scheduled: false,
            outcome: None,
            steps: json!({}),
            cancel: false,
            undo_asked_by: None,
            attempts: 0,
        }
    }

    pub(in crate::slack) fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_100, 0).unwrap()
    }

    fn has(stored: &StoredRestore, approval: Approval, audience: Audience) -> Vec<String> {
        let root = show(stored, approval, audience, now()).root;
        let blocks = root["blocks"].as_array().unwrap().clone();
        let buttons = blocks.iter().flat_map(|block| block["elements"].as_array().cloned().unwrap_or_default());
        buttons.filter_map(|one| one["text"]["text"].as_str().map(str::to_owned)).collect()
    }

    #[test]
    fn buttons_are_there_for_those_who_may_press_them() {
        let asked = stored(RestorePhase::Requested);
        assert_eq!(has(&asked, Approval::Other, Audience::Platform), ["Approve", "Reject", "Cancel"]);
        assert_eq!(has(&asked, Approval::Other, Audience::Tenant), ["Cancel"]);
        assert_eq!(has(&asked, Approval::Anyone, Audience::Tenant), ["Approve", "Reject", "Cancel"]);
        assert_eq!(has(&stored(RestorePhase::Copying), Approval::Other, Audience::Platform), ["Cancel"]);
        let cancelled = StoredRestore { cancel: true, ..stored(RestorePhase::Copying) };
        let none: [&str; 0] = [];
        assert_eq!(has(&cancelled, Approval::Other, Audience::Platform), none);
        assert_eq!(has(&stored(RestorePhase::Switching), Approval::Other, Audience::Tenant), none);
    }

    #[test]
    fn one_goes_back_while_there_is_something_to_go_back_to() {
        let mut done = stored(RestorePhase::Succeeded);
        let none: [&str; 0] = [];
        assert_eq!(has(&done, Approval::Anyone, Audience::Tenant), none);
        done.view.before = Some(PutAside { database: "x".into(), until: now() + chrono::TimeDelta::hours(1) });
        assert_eq!(has(&done, Approval::Anyone, Audience::Tenant), ["Go back"]);
        assert_eq!(has(&done, Approval::Other, Audience::Platform), ["Go back"]);
        assert_eq!(has(&done, Approval::Other, Audience::Tenant), none, "it takes somebody who may approve");
        done.undo_asked_by = Some("slack:U0BOB".into());
        assert_eq!(has(&done, Approval::Anyone, Audience::Tenant), none);
        done.undo_asked_by = None;
        done.view.undone_at = Some(now());
        assert_eq!(has(&done, Approval::Anyone, Audience::Tenant), none);
        done.view.undone_at = None;
        done.view.before = Some(PutAside { database: "x".into(), until: now() });
        assert_eq!(has(&done, Approval::Anyone, Audience::Tenant), none);
    }

    #[test]
    fn a_tenants_reason_mentions_nobody() {
        let shown = show(&stored(RestorePhase::Requested), Approval::Other, Audience::Platform, now());
        let text = shown.root.to_string();
        assert!(!text.contains("<!channel>") && text.contains("&lt;!channel&gt;"), "{text}");
        assert!(text.contains("<@U0BOB>"));
        assert!(shown.progress.is_none() && shown.report.is_none());
    }
}
