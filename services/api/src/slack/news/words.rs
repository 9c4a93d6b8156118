//! What is new in events, and how it is said. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use pgtenant_model::{Event, EventKind};
use sha2::{Digest, Sha256};

use crate::slack::text::{Esc, cut};

/// A failure of a backup that goes on is told again after this time.
const REMINDER: TimeDelta = TimeDelta::hours(20);

/// What was last told of a topic, and when.
type Told = (String, DateTime<Utc>);

/// What something is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// Whether it can be used.
    State,
    Rotation,
    /// Dumps of it.
    Dump,
    /// Tries to restore them.
    Trial,
    /// The channel that it names for its news.
    Place,
}

impl Topic {
    pub(super) const ALL: [Self; 5] = [Self::State, Self::Rotation, Self::Dump, Self::Trial, Self::Place];

    /// Each channel is told for itself: one that is linked later, or was not reached, knows of nothing.
    pub(super) fn key(self, of: &str, channel: &str) -> String {
        let word = match self {
            Self::State => "state",
            Self::Rotation => "rotation",
            Self::Dump => "dump",
            Self::Trial => "trial",
            Self::Place => "place",
        };
        format!("{word}:{of}@{channel}")
    }
}

/// What is new of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) topic: Topic,
    /// None: nothing that anybody is told.
    pub(super) line: Option<String>,
    /// What is noted as told; none: it is forgotten.
    pub(super) said: Option<String>,
}

/// Whether anybody is told of such an event.
pub(super) fn is_news(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::Ready
            | EventKind::Failed
            | EventKind::Retained
            | EventKind::CredentialRotated
            | EventKind::BackupFailed
            | EventKind::ClusterChanged
            | EventKind::Deleted
    )
}

/// What is new in these events of one claim or cluster, which are in their order, to somebody who was told this `before`; `finding` is
/// what is wrong with the channel that it names.
pub(super) fn news<'a>(
    events: &[&Event],
    finding: Option<&str>,
    before: impl Fn(Topic) -> Option<&'a Told>,
) -> Vec<News> {
    let mut news = Vec::new();
    news.extend(state(events, before(Topic::State).map(|(said, _)| said.as_str())));
    news.extend(rotated(events));
    for topic in [Topic::Dump, Topic::Trial] {
        let failed = events.iter().rev().find(|event| backup_topic(event) == Some(topic));
        if let Some(event) = failed
            && before(topic).is_none_or(|(_, at)| event.at - *at > REMINDER)
        {
            news.push(News { topic, line: Some(line(event, false)), said: Some("Failed".to_owned()) });
        }
    }
    news.extend(misplaced(events, finding, before(Topic::Place).map(|(said, _)| said.as_str())));
    news
}

/// Told once of each channel that can not be used.
fn misplaced(events: &[&Event], finding: Option<&str>, before: Option<&str>) -> Option<News> {
    if finding == before {
        return None;
    }
    let name = named(events.last()?);
    let line = finding.map(|finding| format!(":grey_question: *{name}* wants to be told of elsewhere, but {finding}"));
    Some(News { topic: Topic::Place, line, said: finding.map(str::to_owned) })
}

/// Only how it ended is told of what changed back and forth meanwhile.
fn state(events: &[&Event], before: Option<&str>) -> Option<News> {
    let event = events.iter().rev().find(|event| state_of(event).is_some())?;
    let state = state_of(event)?;
    let topic = Topic::State;
    if event.kind == EventKind::Deleted {
        return Some(News { topic, line: None, said: None });
    }
    // Each change of a cluster is news.
    if before == Some(&*state) && event.kind != EventKind::ClusterChanged {
        return None;
    }
    let failed =
        before.is_some_and(|said| said.starts_with("Failed")) || events.iter().any(|one| one.kind == EventKind::Failed);
    Some(News { topic, line: Some(line(event, failed)), said: Some(state) })
}

/// The state that an event tells of; failures of another kind are other states.
fn state_of(event: &Event) -> Option<String> {
    let text = |key: &str| event.detail[key].as_str().unwrap_or_default();
    match event.kind {
        EventKind::Ready => Some("Ready".to_owned()),
        // One superuser's task is not another's; other failures say something else at each try.
        EventKind::Failed if text("reason") == "NeedsSuperuser" => {
            let digest = Sha256::digest(text("error"));
            Some(format!("Failed {} NeedsSuperuser {}", text("step"), hex::encode(&digest[..8])))
        }
        EventKind::Failed => Some(format!("Failed {} {}", text("step"), text("reason"))),
        EventKind::Retained => Some("Retained".to_owned()),
        EventKind::Deleted => Some("Deleted".to_owned()),
        EventKind::ClusterChanged => Some("Changed".to_owned()),
        _ => None,
    }
}

fn backup_topic(event: &Event) -> Option<Topic> {
    let of_backups = event.kind == EventKind::BackupFailed;
    of_backups.then(|| {
        if matches!(event.detail["kind"].as_str(), Some("verify" | "test")) { Topic::Trial } else { Topic::Dump }
    })
}

/// One line for all logins that got new passwords.
fn rotated(events: &[&Event]) -> Option<News> {
    let all: Vec<_> = events.iter().filter(|event| event.kind == EventKind::CredentialRotated).collect();
    let first = all.first()?;
    let mut tiers: Vec<_> = all.iter().filter_map(|event| event.detail["tier"].as_str()).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let reason = first.detail["reason"].as_str().map(|reason| format!(", since {}", Esc(reason))).unwrap_or_default();
    let line =
        format!(":key: *{}*: new passwords for {}{reason}; every store has them", named(first), Esc(tiers.join(", ")));
    Some(News { topic: Topic::Rotation, line: Some(line), said: None })
}

fn line(event: &Event, failed_before: bool) -> String {
    let (name, said) = (named(event), cut(Esc(&event.message).to_string(), 900));
    match event.kind {
        EventKind::Ready if failed_before => format!(":white_check_mark: *{name}* is Ready, after it had failed"),
        EventKind::Ready => format!(":white_check_mark: *{name}* is Ready"),
        EventKind::Failed => failure(event),
        EventKind::Retained => format!(":package: {said}. Define it again, or adopt it, to take it back"),
        EventKind::BackupFailed => format!(":warning: {said}"),
        _ => format!(":information_source: *{name}*: {said}"),
    }
}

/// What went wrong and what to do about it, each within a length of its own.
fn failure(event: &Event) -> String {
    let text = |key: &str| event.detail[key].as_str().filter(|text| !text.is_empty());
    let (error, advice) = (text("error").unwrap_or(&event.message), text("advice"));
    let said = cut(Esc(error).to_string(), 700);
    let advice = match advice {
        Some(advice) => cut(Esc(advice).to_string(), 500),
        None if error.contains("What to do: ") => return format!(":x: {said}"),
        None => "wait, it is tried again by itself; ask the platform team if it stays so".to_owned(),
    };
    let at = text("step").filter(|_| text("error").is_some());
    let at = at.map(|step| format!("*{}* at step {}: ", named(event), Esc(step))).unwrap_or_default();
    format!(":x: {at}{said}\n> *What to do*: {advice}")
}

fn named(event: &Event) -> String {
    match &event.namespace {
        Some(namespace) => format!("{}/{}", Esc(namespace), Esc(&event.name)),
        None => format!("cluster {}", Esc(&event.name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(kind: EventKind, detail: Value) -> Event {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let message = "shop/orders: at step roles: no <room>. What to do: make room".to_owned();
        Event { id: 1, at, kind, namespace: Some("shop".into()), name: "orders".into(), message, detail }
    }

    fn failed(reason: &str) -> Event {
        event(EventKind::Failed, json!({"step": "roles", "reason": reason}))
    }

    fn ready() -> Event {
        event(EventKind::Ready, json!({}))
    }

    fn run(events: &[Event], told: &mut Option<Told>) -> Vec<String> {
        let before = told.clone();
        let all =
            news(&events.iter().collect::<Vec<_>>(), None, |topic| before.as_ref().filter(|_| topic == Topic::State));
        for one in all.iter().filter(|one| one.topic == Topic::State) {
            *told = one.said.clone().map(|said| (said, events[0].at));
        }
        all.into_iter().filter_map(|one| one.line).collect()
    }

    #[test]
    fn a_failure_is_told_once_and_so_is_its_end() {
        let mut told = None;
        let said = run(&[failed("Full")], &mut told);
        assert!(said[0].starts_with(":x: shop/orders: at step roles: no &lt;room&gt;. What to do"), "{said:?}");
        assert!(run(&[failed("Full"), failed("Full")], &mut told).is_empty());
        assert_eq!(run(&[failed("Refused")], &mut told).len(), 1, "another reason is news");
        assert_eq!(run(&[ready()], &mut told), [":white_check_mark: *shop/orders* is Ready, after it had failed"]);
        assert!(run(&[ready(), ready()], &mut told).is_empty());
        assert!(run(&[failed("Full"), ready()], &mut told).is_empty(), "it was Ready before and is again");
        assert!(run(&[event(EventKind::Deleted, json!({}))], &mut told).is_empty());
        assert_eq!(run(&[failed("Full"), ready()], &mut told).len(), 1, "it is new, and told once");
        assert_eq!(run(&[event(EventKind::Retained, json!({}))], &mut told).len(), 1);
        assert_eq!(run(&[ready()], &mut told), [":white_check_mark: *shop/orders* is Ready"]);
    }

    #[test]
    fn new_passwords_of_several_roles_are_one_line() {
        let rotated = |tier| event(EventKind::CredentialRotated, json!({"tier": tier, "reason": "somebody asked"}));
        let mut told = Some(("Ready".to_owned(), Utc::now()));
        let said = run(&[rotated("write"), rotated("read"), rotated("read"), ready()], &mut told);
        let expected = ":key: *shop/orders*: new passwords for read, write, since somebody asked; every store has them";
        assert_eq!(said, [expected]);
    }

    #[test]
    fn a_backup_that_fails_is_told_once_a_day_and_a_dump_is_no_trial() {
        let [dump, trial] = ["backup", "verify"].map(|kind| event(EventKind::BackupFailed, json!({"kind": kind})));
        let hours = |n| Some(("Failed".to_owned(), dump.at - TimeDelta::hours(n)));
        let told = |before: Option<Told>| {
            let before = |topic| before.as_ref().filter(|_| topic == Topic::Dump);
            news(&[&dump, &dump, &trial], None, before).into_iter().map(|one| one.topic).collect::<Vec<_>>()
        };
        assert_eq!(told(None), [Topic::Dump, Topic::Trial]);
        assert_eq!(told(hours(1)), [Topic::Trial]);
        assert_eq!(told(hours(24)), [Topic::Dump, Topic::Trial]);
    }

    #[test]
    fn each_task_for_a_superuser_is_news_and_so_is_its_end() {
        let needs =
            |what: &str| event(EventKind::Failed, json!({"step": "plan", "reason": "NeedsSuperuser", "error": what}));
        let mut told = None;
        assert_eq!(run(&[needs("extension postgis is missing")], &mut told).len(), 1);
        assert_eq!(run(&[needs("extension postgis is missing")], &mut told).len(), 0);
        assert_eq!(run(&[needs("the owner is another")], &mut told).len(), 1);
        assert_eq!(run(&[ready()], &mut told), [":white_check_mark: *shop/orders* is Ready, after it had failed"]);
    }

    #[test]
    fn what_to_do_is_said_however_long_the_error_is() {
        let said = |detail| failure(&event(EventKind::Failed, detail));
        let long = said(json!({"step": "roles", "error": "no room ".repeat(500), "advice": "make <room>"}));
        assert!(long.starts_with(":x: *shop/orders* at step roles: no room"), "{long}");
        assert!(long.ends_with("*What to do*: make &lt;room&gt;"), "{long}");
        assert!(said(json!({"step": "roles", "error": "no room"})).contains("it is tried again by itself"));
        assert!(!said(json!({"step": "roles"})).contains("by itself"), "an event of a version before says it itself");
    }

    #[test]
    fn a_channel_that_can_not_be_used_is_told_once() {
        let ready = ready();
        let told = |said: &str| Some((said.to_owned(), ready.at));
        let said = |finding, before: Option<Told>| {
            let before = |topic| before.as_ref().filter(|_| topic == Topic::Place);
            let all = news(&[&ready], finding, before);
            all.into_iter().filter(|one| one.topic == Topic::Place).map(|one| (one.line, one.said)).collect::<Vec<_>>()
        };
        let line = ":grey_question: *shop/orders* wants to be told of elsewhere, but `#x` is none".to_owned();
        let first = [(Some(line), Some("`#x` is none".to_owned()))];
        assert_eq!(said(Some("`#x` is none"), None), first);
        assert_eq!(said(Some("`#x` is none"), told("`#y` is none")), first);
        assert_eq!(said(Some("`#x` is none"), told("`#x` is none")), []);
        assert_eq!(said(None, told("`#x` is none")), [(None, None)], "it is news again when it is so again");
        assert_eq!(said(None, None), []);
    }
}
