//! Buttons: yes, no, cancel, go back. Who may is asked when one is pressed, not when it was shown.

use std::sync::Arc;

use axum::response::Response;
use pgtenant_ledger::{Decision, PgConnection};
use uuid::Uuid;

use super::Slack;
use super::answers::{say, stranger};
use super::find::in_words;
use super::interactions::in_time;
use super::payload::{Action, BlockActions};
use super::request::{Signed, begin, note, settle, silence};
use super::restore_view::{APPROVE, CANCEL, REJECT, UNDO};
use super::text::Esc;
use crate::ApiState;
use crate::caller::Rights;
use crate::problem::{INVALID_SIGNATURE, Result};
use crate::store;

/// Does what a button says. Whoever may not, or comes too late, is told so alone.
pub(super) async fn press(
    state: &ApiState,
    slack: &Arc<Slack>,
    signed: &Signed,
    pressed: BlockActions,
) -> Result<Response> {
    let Some(action) = pressed.actions.first() else { return Ok(silence()) };
    let channel = pressed.channel.as_ref().map_or("", |channel| &*channel.id);
    let acted = in_time(async {
        let Some(rights) = signed.rights(state, slack, pressed.sender.person(), channel).await? else {
            note(state, signed).await?;
            return Ok(false);
        };
        act(state, signed, &rights, action).await.map(|()| true)
    });
    let said = match acted.await {
        Ok(Some(true)) => None,
        Ok(Some(false)) => Some(stranger(slack.settings.platform_channel.as_deref())),
        Ok(None) => Some(say("The control plane is slow to answer. Look at the message in a moment, or press again.")),
        Err(problem) if problem.kind == &INVALID_SIGNATURE => return Err(problem),
        Err(problem) => Some(say(&format!(":no_entry_sign: {}", Esc(in_words(&problem, &signed.request_id))))),
    };
    if let Some(said) = said {
        slack.tell(state, pressed.response_url, said).await;
    }
    Ok(silence())
}

async fn act(state: &ApiState, signed: &Signed, rights: &Rights, action: &Action) -> Result<()> {
    let Some(mut tx) = begin(state, signed).await? else { return Ok(()) };
    let done = decide(&mut tx, rights, action).await;
    settle(tx, done).await
}

async fn decide(db: &mut PgConnection, rights: &Rights, action: &Action) -> Result<()> {
    // An id that is none names nothing that could be found.
    let id: Uuid = action.value.parse().unwrap_or_default();
    let found = store::restore(db, &rights.scope(), id).await?;
    let may = rights.may_change(&found.namespace)?;
    match &*action.action_id {
        APPROVE => store::decide_restore(db, &may, id, Decision::Approve, rights.is_platform()).await.map(drop),
        REJECT => store::decide_restore(db, &may, id, Decision::Reject, rights.is_platform()).await.map(drop),
        CANCEL => store::cancel_restore(db, &may, id).await.map(drop),
        UNDO => store::undo_restore(db, &may, id, rights.is_platform()).await.map(drop),
        _ => Ok(()),
    }
}
