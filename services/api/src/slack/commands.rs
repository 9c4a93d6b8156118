//! `/pgtenant …`, as somebody typed it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use pgtenant_ledger::{Claim, Named, PgConnection};
use pgtenant_model::ClaimKey;
use serde_json::{Value, json};
use tracing::warn;

use super::Slack;
use super::answers;
use super::blocks::OPTIONS;
use super::find::{Meant, existing, in_words, meant};
use super::modal::{Databases, Opened, Snapshots, window};
use super::overview::overview;
use super::replies::{OpenWindow, TASK_LIMIT};
use super::request::{ANSWER_LIMIT, Signed, note, receive, shown, silence};
use super::standing::Person;
use super::text::Esc;
use crate::ApiState;
use crate::caller::Rights;
use crate::document::Unsigned;
use crate::problem::{INVALID_SIGNATURE, Result};
use crate::store;

/// For the list of snapshots, before somebody is told to wait for it.
const SNAPSHOTS_LIMIT: Duration = Duration::from_millis(1800);
/// A trigger of Slack's is good for 3 s.
const OPEN_LIMIT: Duration = Duration::from_millis(2500);

/// A command of Slack
///
/// What Slack sends when somebody types `/pgtenant`. The signature over the body, not a token, says that it comes from there. Without
/// Slack in the settings there is no such path.
#[utoipa::path(
    post, path = "/slack/commands", operation_id = "slackCommand", tag = "slack",
    params(
        ("X-Slack-Request-Timestamp" = String, Header, description = "Seconds since 1970, at most five minutes off."),
        ("X-Slack-Signature" = String, Header, description = "`v0=` and HMAC-SHA256 of `v0:{timestamp}:{body}`."),
    ),
    request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "As Slack sends it."),
    responses(
        (status = 200, description = "What only the person is shown.", body = serde_json::Value), (status = 401, response = Unsigned),
        (status = 404, response = crate::document::NoSuchRoute),
    ),
)]
pub(crate) async fn commands(State(state): State<ApiState>, request: Request) -> Result<Response> {
    let signed = receive(&state, request).await?;
    let Some(slack) = state.slack.clone() else { return Ok(silence()) };
    if signed.field("ssl_check") == "1" {
        return Ok(silence());
    }
    let asked = Asked::of(&signed);
    match tokio::time::timeout(ANSWER_LIMIT, answer(&state, &slack, &signed, &asked)).await {
        Ok(Ok(Some(answer))) => Ok(shown(answer)),
        Ok(Ok(None)) => Ok(silence()),
        Ok(Err(problem)) if problem.kind == &INVALID_SIGNATURE => Err(problem),
        Ok(Err(problem)) => Ok(shown(answers::say(&Esc(in_words(&problem, &signed.request_id)).to_string()))),
        Err(_) => Ok(shown(answers::say("The control plane is slow to answer. Please try again in a moment."))),
    }
}

/// What was typed, by whom and where.
#[derive(Debug, Clone)]
struct Asked {
    command: String,
    verb: String,
    /// The first word after the verb.
    database: String,
    user: String,
    channel: String,
    trigger: String,
    response_url: String,
}

impl Asked {
    fn of(signed: &Signed) -> Self {
        let mut words = signed.field("text").split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let field = |name: &str| signed.field(name).to_owned();
        Self {
            verb: word().to_lowercase(),
            // As people copy it.
            database: word().trim_matches(['`', '*', '"', '\'']).to_owned(),
            command: field("command"),
            user: field("user_id"),
            channel: field("channel_id"),
            trigger: field("trigger_id"),
            response_url: field("response_url"),
        }
    }
}

/// None: nothing is to be shown.
async fn answer(state: &ApiState, slack: &Arc<Slack>, signed: &Signed, asked: &Asked) -> Result<Option<Value>> {
    if !note(state, signed).await? {
        return Ok(None);
    }
    let person = Person { user: &asked.user, teams: [signed.field("team_id"), ""] };
    let Some(rights) = signed.rights(state, slack, person, &asked.channel).await? else {
        return Ok(Some(answers::stranger(slack.settings.platform_channel.as_deref())));
    };
    let mut db = state.ledger().acquire().await?;
    match &*asked.verb {
        "list" => answers::list(&mut db, &rights).await.map(Some),
        "status" if asked.database.is_empty() => overview(&mut db, &rights).await.map(Some),
        "status" => match one(&mut db, &rights, asked).await? {
            Ok(claim) => answers::status(&mut db, &rights, &claim, &slack.settings).await.map(Some),
            Err(answer) => Ok(Some(answer)),
        },
        "snapshots" if asked.database.is_empty() => Ok(Some(answers::help(&asked.command))),
        "snapshots" => match one(&mut db, &rights, asked).await? {
            Ok(claim) => {
                drop(db);
                Ok(Some(list_snapshots(state, slack, asked, claim).await))
            }
            Err(answer) => Ok(Some(answer)),
        },
        "restore" => open_window(state, slack, &mut db, &rights, asked).await,
        _ => Ok(Some(answers::help(&asked.command))),
    }
}

/// The claim that is meant, or what to answer where none is.
async fn one(db: &mut PgConnection, rights: &Rights, asked: &Asked) -> Result<Result<Claim, Value>> {
    let missing = || answers::not_found(&asked.database, &asked.command);
    Ok(match meant(db, rights, &asked.database).await? {
        Meant::One(key) => existing(db, rights, key.namespace(), key.name()).await?.ok_or_else(missing),
        Meant::Several(all) => Err(answers::several(&all)),
        Meant::None => Err(missing()),
    })
}

/// At once where that is quick; otherwise when it is there.
async fn list_snapshots(state: &ApiState, slack: &Arc<Slack>, asked: &Asked, claim: Claim) -> Value {
    let key = claim.key.clone();
    let mut found = state.parts.planner.snapshots(claim.spec.cluster, claim.key);
    let command = asked.command.clone();
    let render = move |key: &ClaimKey, found: Result<Vec<_>, crate::SnapshotsError>| match found {
        Ok(found) => answers::snapshots(key, &found, &command),
        Err(error) => answers::say(&format!("The snapshots of `{key}` can not be listed now: {}.", Esc(error))),
    };
    if let Ok(found) = tokio::time::timeout(SNAPSHOTS_LIMIT, &mut found).await {
        return render(&key, found);
    }
    let (door, url) = (Arc::clone(slack), asked.response_url.clone());
    let started = slack.after_answer(state, async move {
        let answer = match tokio::time::timeout(TASK_LIMIT / 2, found).await {
            Ok(found) => render(&key, found),
            Err(_) => answers::say(&format!("The snapshots of `{key}` took too long to list. Please try again.")),
        };
        door.respond(&url, &answer).await;
    });
    answers::say(if started { "Looking for its snapshots …" } else { BUSY })
}

pub(super) const BUSY: &str = "Too much is being asked at the moment. Please try again in a few seconds.";

/// Opens the window of a restore right after the answer, and fills in the snapshots when they are known.
async fn open_window(
    state: &ApiState,
    slack: &Arc<Slack>,
    db: &mut PgConnection,
    rights: &Rights,
    asked: &Asked,
) -> Result<Option<Value>> {
    if !rights.may_change_anything() {
        return Ok(Some(answers::only_look(slack.settings.platform_channel.as_deref())));
    }
    let chosen = match &*asked.database {
        "" => None,
        _ => match one(db, rights, asked).await? {
            Ok(claim) => Some(claim),
            Err(answer) => return Ok(Some(answer)),
        },
    };
    let databases = databases(db, rights).await?;
    if matches!(&databases, Databases::These(none) if none.is_empty()) {
        return Ok(Some(answers::say("There are no databases yet that can be restored from this channel.")));
    }
    let opened = Opened { channel: asked.channel.clone(), user: asked.user.clone() };
    let (door, asked, state_too) = (Arc::clone(slack), asked.clone(), state.clone());
    let started = slack.after_answer(state, async move {
        let secret = &door.settings.signing_secret;
        let key = chosen.as_ref().map(|claim| &claim.key);
        let view = window(secret, &opened, &databases, key, &Snapshots::Awaited);
        let body = json!({"trigger_id": asked.trigger, "view": view});
        match door.client.write("views.open", &body, OPEN_LIMIT).await {
            Ok(answer) => {
                let Some(claim) = chosen else { return };
                let open = OpenWindow { id: text(&answer, "/view/id"), opened, databases, claim };
                door.fill_in(&state_too, &open, &text(&answer, "/view/hash")).await;
            }
            Err(error) => {
                warn!(%error, "a window could not be opened in Slack");
                let answer = format!("The window could not be opened: {error}. Please try again.");
                door.respond(&asked.response_url, &answers::say(&Esc(answer).to_string())).await;
            }
        }
    });
    Ok(if started { None } else { Some(answers::say(BUSY)) })
}

fn text(answer: &Value, path: &str) -> String {
    answer.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The databases that may be seen, for the menu.
pub(super) async fn databases(db: &mut PgConnection, rights: &Rights) -> Result<Databases> {
    let most = i64::try_from(OPTIONS).unwrap_or(i64::MAX);
    let found = store::named(db, &rights.scope(), Named::Like(""), most + 1).await?;
    Ok(if found.len() > OPTIONS { Databases::Many } else { Databases::These(found) })
}
