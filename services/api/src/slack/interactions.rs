//! What somebody pressed, chose or sent off.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use pgtenant_ledger::{Named, PgConnection, show_restore_in_slack, slack_first_sight, slack_seen};
use pgtenant_model::InvalidField;
use serde_json::json;

use super::Slack;
use super::act::press;
use super::blocks::OPTIONS;
use super::commands::{BUSY, databases};
use super::find::{existing, in_words, key_of};
use super::modal::{
    CALLBACK, DATABASE, FieldFault, Opened, Snapshots, Wish, block_of, clear, database_choice, faults, wish,
};
use super::payload::{BlockActions, BlockSuggestion, Payload, Sender, View, ViewSubmission};
use super::replies::OpenWindow;
use super::request::{ANSWER_LIMIT, Signed, begin, malformed, note, receive, settle, shown, silence};
use crate::ApiState;
use crate::caller::Rights;
use crate::document::Unsigned;
use crate::problem::{INVALID_SIGNATURE, NOT_FOUND, Result};
use crate::store;

/// An interaction in Slack
///
/// What Slack sends when somebody presses a button, chooses in a menu or sends a window off. The signature over the body, not a
/// token, says that it comes from there. Without Slack in the settings there is no such path.
#[utoipa::path(
    post, path = "/slack/interactions", operation_id = "slackInteraction", tag = "slack",
    params(
        ("X-Slack-Request-Timestamp" = String, Header, description = "Seconds since 1970, at most five minutes off."),
        ("X-Slack-Signature" = String, Header, description = "`v0=` and HMAC-SHA256 of `v0:{timestamp}:{body}`."),
    ),
    request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "As Slack sends it."),
    responses(
        (status = 200, description = "What becomes of the window, or the options of a menu.", body = serde_json::Value),
        (status = 400, response = crate::document::BadRequest), (status = 401, response = Unsigned),
        (status = 404, response = crate::document::NoSuchRoute),
    ),
)]
pub(crate) async fn interactions(State(state): State<ApiState>, request: Request) -> Result<Response> {
    let signed = receive(&state, request).await?;
    let Some(slack) = state.slack.clone() else { return Ok(silence()) };
    match serde_json::from_str(signed.field("payload")).map_err(|_| malformed("interaction"))? {
        Payload::ViewSubmission(sent) => submitted(&state, &slack, &signed, &sent).await,
        Payload::BlockSuggestion(asked) => suggested(&state, &slack, &signed, &asked).await,
        Payload::BlockActions(BlockActions { view: Some(view), sender, actions, .. }) => {
            let chosen = actions.into_iter().find(|action| action.action_id == DATABASE);
            let Some(chosen) = chosen.and_then(|action| action.selected_option) else { return Ok(silence()) };
            match in_time(chosen_in(&state, &slack, &signed, (view, &sender), &chosen.value)).await {
                Err(problem) if problem.kind == &INVALID_SIGNATURE => return Err(problem),
                // There is no place in a window to say it: whoever waits for its snapshots chooses again.
                Err(problem) => drop(in_words(&problem, &signed.request_id)),
                Ok(_) => {}
            }
            Ok(silence())
        }
        Payload::BlockActions(pressed) => press(&state, &slack, &signed, pressed).await,
        Payload::Other => Ok(silence()),
    }
}

/// What came of it, or none where it took too long.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    match tokio::time::timeout(ANSWER_LIMIT, work).await {
        Ok(done) => done.map(Some),
        Err(_) => Ok(None),
    }
}

/// What somebody may do in the window that they send.
async fn sender(
    state: &ApiState,
    slack: &Slack,
    signed: &Signed,
    (view, sender): (&View, &Sender),
) -> Result<Option<(Opened, Rights)>> {
    let person = sender.person();
    let Some(opened) = Opened::of(view, person.user, &slack.settings.signing_secret) else {
        tracing::warn!(user = person.user, "a window came from Slack that was not made here for them");
        return Ok(None);
    };
    let rights = signed.rights(state, slack, person, &opened.channel).await?;
    Ok(rights.map(|rights| (opened, rights)))
}

/// The window was sent off.
async fn submitted(state: &ApiState, slack: &Arc<Slack>, signed: &Signed, sent: &ViewSubmission) -> Result<Response> {
    if sent.view.callback_id != CALLBACK {
        return Ok(silence());
    }
    let on_database = |why: &str| vec![(DATABASE.to_owned(), why.to_owned())];
    let answer = match in_time(ask(state, slack, signed, sent)).await {
        Ok(Some(Ok(()))) => clear(),
        Ok(Some(Err(wrong))) => faults(wrong),
        // Sent again, it is the same wish: the window has an id.
        Ok(None) => faults(on_database("The control plane is slow to answer. Send it again: nothing happens twice.")),
        Err(problem) if problem.kind == &INVALID_SIGNATURE => return Err(problem),
        Err(problem) => faults(on_database(&in_words(&problem, &signed.request_id))),
    };
    Ok(shown(answer))
}

/// Writes the wish down, once for each window.
async fn ask(
    state: &ApiState,
    slack: &Slack,
    signed: &Signed,
    sent: &ViewSubmission,
) -> Result<Result<(), Vec<FieldFault>>> {
    let wrong = |why: &str| Ok(Err(vec![(DATABASE.to_owned(), why.to_owned())]));
    let Some((opened, rights)) = sender(state, slack, signed, (&sent.view, &sent.sender)).await? else {
        note(state, signed).await?;
        return wrong("You may not ask for this here. Please ask the platform team.");
    };
    let wish = match wish(&sent.view.state) {
        Ok(wish) => wish,
        Err(fault) => {
            note(state, signed).await?;
            return Ok(Err(vec![fault]));
        }
    };
    let window = format!("view:{}", sent.view.id);
    let Some(mut tx) = begin(state, signed).await? else {
        // Slack has sent it again. What it was answered before is not known any more, but what came of it is.
        let taken = slack_seen(&mut *state.ledger().acquire().await?, &window).await?;
        return if taken { Ok(Ok(())) } else { wrong("It was not taken before. Please send it again.") };
    };
    let done = write(&mut tx, &rights, &wish, &window, &opened.channel).await;
    match settle(tx, done).await {
        Ok(()) => Ok(Ok(())),
        Err(problem) if problem.kind == &NOT_FOUND => {
            wrong(&format!("There is no database {} that can be seen from this channel.", wish.key))
        }
        Err(problem) if !problem.errors.is_empty() => {
            let fault = |one: &InvalidField| (block_of(&one.field, &sent.view.state, &wish.key), one.message.clone());
            Ok(Err(problem.errors.iter().map(fault).collect()))
        }
        Err(problem) => Err(problem),
    }
}

/// Where it is shown is only noted: rendering it would hold up everybody who writes an event.
async fn write(db: &mut PgConnection, rights: &Rights, wish: &Wish, window: &str, channel: &str) -> Result<()> {
    if !slack_first_sight(db, window).await? {
        return Ok(());
    }
    let may = rights.may_change(wish.key.namespace())?;
    let restore = store::request_restore(db, &may, wish.key.name(), &wish.spec).await?;
    Ok(show_restore_in_slack(db, restore.id, channel).await?)
}

/// Databases for the menu, as somebody types.
async fn suggested(state: &ApiState, slack: &Slack, signed: &Signed, asked: &BlockSuggestion) -> Result<Response> {
    let options = in_time(async {
        let view = asked.view.as_ref().filter(|_| asked.action_id == DATABASE && asked.value.len() <= 200);
        if !note(state, signed).await? {
            return Ok(Vec::new());
        }
        let Some(view) = view else { return Ok(Vec::new()) };
        let Some((_, rights)) = sender(state, slack, signed, (view, &asked.sender)).await? else {
            return Ok(Vec::new());
        };
        let mut db = state.ledger().acquire().await?;
        let most = i64::try_from(OPTIONS).unwrap_or(i64::MAX);
        let typed = asked.value.trim().to_lowercase();
        store::named(&mut db, &rights.scope(), Named::Like(&typed), most).await
    });
    let found = match options.await {
        Ok(found) => found.unwrap_or_default(),
        Err(problem) if problem.kind == &INVALID_SIGNATURE => return Err(problem),
        Err(problem) => {
            in_words(&problem, &signed.request_id);
            Vec::new()
        }
    };
    let options: Vec<_> = found.iter().filter_map(database_choice).collect();
    Ok(shown(json!({ "options": options })))
}

/// A database was chosen: its snapshots are to be shown, and at once none of the one before.
async fn chosen_in(
    state: &ApiState,
    slack: &Arc<Slack>,
    signed: &Signed,
    (view, from): (View, &Sender),
    chosen: &str,
) -> Result<()> {
    if !note(state, signed).await? {
        return Ok(());
    }
    let Some((opened, rights)) = sender(state, slack, signed, (&view, from)).await? else { return Ok(()) };
    let Some(key) = key_of(chosen) else { return Ok(()) };
    let mut db = state.ledger().acquire().await?;
    let Some(claim) = existing(&mut db, &rights, key.namespace(), key.name()).await? else { return Ok(()) };
    let databases = databases(&mut db, &rights).await?;
    drop(db);
    let open = Arc::new(OpenWindow { id: view.id, opened, databases, claim });
    let (door, state_too, open_too) = (Arc::clone(slack), state.clone(), Arc::clone(&open));
    let started = slack.after_answer(state, async move {
        if let Some(hash) = door.update(&open_too, None, &Snapshots::Awaited).await {
            door.fill_in(&state_too, &open_too, &hash).await;
        }
    });
    if !started {
        slack.update(&open, None, &Snapshots::Unknown(BUSY.trim_end_matches('.').to_owned())).await;
    }
    Ok(())
}
