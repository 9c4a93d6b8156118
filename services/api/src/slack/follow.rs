//! Shows every restore of a linked namespace as it goes on, through whichever door it was asked for.
//!
//! Events are read with a cursor in the ledger, in the transaction that writes what is to be told: nothing is missed or told twice
//! when replicas come and go. How much is copied is announced beside that, and may be missed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use chrono::Utc;
use pgtenant_ledger::{
    EVENTS_CHANNEL, LedgerError, LedgerTransaction, RESTORES_CHANNEL, SLACK_CHANNEL, SlackMessage, StoredRestore,
    begin_slack_cursor, cluster, events_after, move_slack_cursor, open_restores, put_slack_message, restore,
    show_restore_alone, slack_channels_of, slack_cursor, within_deadline,
};
use pgtenant_model::{Approval, Event, EventKind};
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;

use super::restore_view::{Audience, Shown, show};
use super::{Slack, news};
use crate::ApiState;
use crate::events::PAGE;
use crate::observe::chain;

/// Who reads events to show restores.
const READER: &str = "restores";
/// A look without a notification, in case one was lost.
const SLOW_LOOK: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Follows until the control plane stops.
pub(super) async fn follow(state: &ApiState, slack: &Slack) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(error) = listen(state, slack, &mut pause).await;
        warn!(error = %chain(&error), "what is told in Slack is late, trying again in {pause:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn listen(state: &ApiState, slack: &Slack, pause: &mut Duration) -> Result<Infallible, LedgerError> {
    // Listening comes first: what is written after it is announced, what was written before it is read below.
    let mut listener = state.ledger().listen(&[EVENTS_CHANNEL, RESTORES_CHANNEL, SLACK_CHANNEL]).await?;
    begin(state, slack).await?;
    let mut moved = BTreeSet::new();
    loop {
        while within_deadline(read_events(state, slack)).await? {}
        for id in std::mem::take(&mut moved) {
            within_deadline(show_now(state, slack, id)).await?;
        }
        let ripe = within_deadline(news::tell(state, slack)).await?;
        slack.wake.notify_one();
        *pause = FIRST_PAUSE;
        let wait = ripe.unwrap_or(SLOW_LOOK).min(SLOW_LOOK);
        if let Ok(heard) = tokio::time::timeout(wait, listener.recv()).await {
            let heard = heard?;
            let of_restores = heard.iter().filter(|one| one.channel == RESTORES_CHANNEL);
            moved.extend(of_restores.filter_map(|one| one.payload.parse::<Uuid>().ok()));
        }
    }
}

/// The first time of all, what was asked for before is shown too.
async fn begin(state: &ApiState, slack: &Slack) -> Result<(), LedgerError> {
    within_deadline(async {
        let mut tx = state.ledger().begin().await?;
        news::begin(&mut tx).await?;
        if begin_slack_cursor(&mut tx, READER).await? {
            for id in open_restores(&mut tx).await? {
                show_restore(&mut tx, slack, id).await?;
            }
        }
        Ok(tx.commit().await?)
    })
    .await
}

/// Shows the restores of the next events; false where there are no more, or another replica reads them.
async fn read_events(state: &ApiState, slack: &Slack) -> Result<bool, LedgerError> {
    let mut tx = state.ledger().begin().await?;
    let Some(position) = slack_cursor(&mut tx, READER).await? else { return Ok(false) };
    let page = events_after(&mut tx, position, None, PAGE).await?;
    let Some(last) = page.last().map(|event| event.id) else {
        tx.rollback().await?;
        return Ok(false);
    };
    for id in page.iter().filter_map(restore_of).collect::<BTreeSet<_>>() {
        show_restore(&mut tx, slack, id).await?;
    }
    move_slack_cursor(&mut tx, READER, last).await?;
    tx.commit().await?;
    Ok(true)
}

fn restore_of(event: &Event) -> Option<Uuid> {
    let of_restores = [
        EventKind::RestoreRequested,
        EventKind::RestoreApproved,
        EventKind::RestoreProgressed,
        EventKind::RestoreEnded,
    ];
    of_restores.contains(&event.kind).then(|| event.detail["restore"].as_str()?.parse().ok())?
}

async fn show_now(state: &ApiState, slack: &Slack, id: Uuid) -> Result<(), LedgerError> {
    let mut tx = state.ledger().begin().await?;
    show_restore(&mut tx, slack, id).await?;
    Ok(tx.commit().await?)
}

/// Wants a restore to be seen as it is now, wherever it is to be seen.
async fn show_restore(tx: &mut LedgerTransaction, slack: &Slack, id: Uuid) -> Result<(), LedgerError> {
    show_restore_alone(tx, id).await?;
    // A test by the schedule is no restore that people wait for.
    let Some(stored) = restore(tx, id).await?.filter(|stored| !stored.scheduled) else { return Ok(()) };
    let settings = &slack.settings;
    let mut channels: BTreeSet<String> = settings.platform_channel.iter().cloned().collect();
    channels.extend(settings.told_of(&stored.view.namespace).map(str::to_owned));
    // Where it was asked for, whether that channel wants to be told of others or not; as long as it is a channel for it.
    let asked = slack_channels_of(tx, id).await?.into_iter();
    channels.extend(asked.filter(|channel| settings.covers(channel, &stored.view.namespace)));
    let approval = approval(tx, &stored.view.cluster).await?;
    for channel in channels {
        show_in(tx, slack, &stored, approval, &channel).await?;
    }
    Ok(())
}

async fn approval(tx: &mut LedgerTransaction, name: &str) -> Result<Approval, LedgerError> {
    let found = cluster(tx, name).await?.map(|found| found.spec.0);
    Ok(found.map_or(Approval::Other, |spec| spec.restores.approval(spec.environment)))
}

async fn show_in(
    tx: &mut LedgerTransaction,
    slack: &Slack,
    stored: &StoredRestore,
    approval: Approval,
    channel: &str,
) -> Result<(), LedgerError> {
    let id = stored.view.id;
    let platform = slack.settings.platform_channel.as_deref().is_none_or(|platform| platform == channel);
    let audience = if platform { Audience::Platform } else { Audience::Tenant };
    let Shown { root, progress, report } = show(stored, approval, audience, Utc::now());
    let root_key = format!("restore:{id}:{channel}");
    let pace = &slack.settings.pace;
    let mut put = async |key: &str, parent: Option<&str>, content: &Value, pace| {
        let message = SlackMessage { key, channel, parent, restore: Some(id), content };
        put_slack_message(tx, &message, pace).await
    };
    put(&root_key, None, &root, pace.update).await?;
    for (part, content, pace) in [("progress", progress, pace.progress), ("report", report, pace.update)] {
        if let Some(content) = content {
            put(&format!("{root_key}:{part}"), Some(&root_key), &content, pace).await?;
        }
    }
    Ok(())
}
