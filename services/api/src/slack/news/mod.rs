//! What becomes of claims, for the channels that are linked to their namespaces: gathered for some seconds, or for as long as Slack
//! is away, and nothing twice.

mod place;
mod untold;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use pgtenant_ledger::{
    LedgerError, LedgerTransaction, PgConnection, SlackMessage, begin_slack_cursor, events_after, move_slack_cursor,
    put_slack_message, slack_channels_wanted, slack_cursor, slack_told, tell_slack, untold_slack_news,
};
use pgtenant_model::Event;
use serde::Deserialize;

use self::place::Subject;
use self::untold::Untold;
use self::words::{News, Topic, is_news, news};
use super::Slack;
use super::settings::SlackSettings;
use crate::ApiState;
use crate::events::PAGE;

pub(super) use self::place::Place;
pub(super) use self::untold::rendered;

/// Who reads events to tell news.
const READER: &str = "news";
/// Another replica reads, and may end before it is done.
const ANOTHER_READS: Duration = Duration::from_secs(1);

pub(super) async fn begin(db: &mut PgConnection) -> Result<(), LedgerError> {
    begin_slack_cursor(db, READER).await.map(drop)
}

/// Tells what has happened, when enough time has passed since the first of it; says after which time to come again.
pub(super) async fn tell(state: &ApiState, slack: &Slack) -> Result<Option<Duration>, LedgerError> {
    loop {
        let mut tx = state.ledger().begin().await?;
        let Some(position) = slack_cursor(&mut tx, READER).await? else {
            tx.rollback().await?;
            return Ok(Some(ANOTHER_READS));
        };
        let page = events_after(&mut tx, position, None, PAGE).await?;
        let (Some(first), Some(last)) = (page.iter().find(|event| is_news(event)), page.last()) else {
            // What is no news is not looked at again.
            if let Some(last) = page.last() {
                move_slack_cursor(&mut tx, READER, last.id).await?;
                tx.commit().await?;
                continue;
            }
            tx.rollback().await?;
            return Ok(None);
        };
        let ripe = first.at + TimeDelta::from_std(slack.settings.pace.gather).unwrap_or_default();
        if let Ok(wait) = (ripe - Utc::now()).to_std() {
            // At once, and not when the connection is used next: until then nobody could read, and neither could this one.
            tx.rollback().await?;
            return Ok(Some(wait + Duration::from_millis(20)));
        }
        tell_page(&mut tx, slack, &page, last.id).await?;
        move_slack_cursor(&mut tx, READER, last.id).await?;
        tx.commit().await?;
    }
}

async fn tell_page(tx: &mut LedgerTransaction, slack: &Slack, page: &[Event], last: i64) -> Result<(), LedgerError> {
    let mut happened: BTreeMap<(Option<&str>, &str), Vec<&Event>> = BTreeMap::new();
    for event in page.iter().filter(|event| is_news(event)) {
        happened.entry((event.namespace.as_deref(), &event.name)).or_default().push(event);
    }
    let settings = &slack.settings;
    let claims: Vec<_> = happened.keys().filter_map(|(namespace, name)| Some(((*namespace)?, *name))).collect();
    let wanted = slack_channels_wanted(tx, &claims).await?;
    let subject = |((namespace, name), events): (_, _)| {
        let namespace: Option<&str> = namespace;
        let Some(of) = namespace else {
            let place = Place { channels: BTreeSet::new(), refused: None };
            return Subject { of: format!("cluster {name}"), namespace, place, events };
        };
        let key = format!("{of}/{name}");
        let place = Place::of(settings, of, wanted.get(&key).map(String::as_str));
        Subject { of: key, namespace, place, events }
    };
    let subjects: Vec<_> = happened.into_iter().map(subject).collect();
    let channels = settings.channels.iter().map(|channel| &*channel.id).chain(settings.platform_channel.as_deref());
    for channel in channels.collect::<BTreeSet<_>>() {
        tell_channel(tx, settings, channel, &subjects, last).await?;
    }
    Ok(())
}

/// Adds what is new for a channel to what it has not been told yet.
async fn tell_channel(
    tx: &mut LedgerTransaction,
    settings: &SlackSettings,
    channel: &str,
    subjects: &[Subject<'_>],
    last: i64,
) -> Result<(), LedgerError> {
    let subjects: Vec<_> = subjects.iter().filter(|subject| subject.may_concern(settings, channel)).collect();
    let keys: Vec<_> =
        subjects.iter().flat_map(|subject| Topic::ALL.map(|topic| topic.key(&subject.of, channel))).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let told = slack_told(tx, &keys).await?;
    let (mut fresh, mut now_told) = (Vec::new(), Vec::new());
    for subject in subjects {
        let key = |topic: Topic| topic.key(&subject.of, channel);
        let concerns = |topic| subject.concerns(settings, channel, topic);
        let finding = subject.namespace.and_then(|namespace| subject.place.finding(namespace));
        let all = news(&subject.events, finding.as_deref(), |topic| told.get(&key(topic)));
        for News { topic, line, said } in all.into_iter().filter(|one| concerns(one.topic)) {
            fresh.extend(line.map(|line| (key(topic), line)));
            now_told.push((key(topic), said));
        }
        // It is told elsewhere now: what this channel was told last is no measure of what is new when it is told again.
        let elsewhere = Topic::ALL.into_iter().filter(|topic| !concerns(*topic)).map(key);
        now_told.extend(elsewhere.filter(|key| told.contains_key(key)).map(|key| (key, None)));
    }
    tell_slack(tx, &now_told).await?;
    if fresh.is_empty() {
        return Ok(());
    }
    let (key, mut untold) = match untold_slack_news(tx, channel, settings.pace.give_up).await? {
        Some((key, content)) => (key, Untold::deserialize(content).unwrap_or_default()),
        None => (format!("news:{last}:{channel}"), Untold::default()),
    };
    fresh.into_iter().for_each(|(topic, line)| untold.put(topic, line));
    let content = serde_json::to_value(&untold).unwrap_or_default();
    let message = SlackMessage { key: &key, channel, parent: None, restore: None, content: &content };
    put_slack_message(tx, &message, Duration::ZERO).await
}
