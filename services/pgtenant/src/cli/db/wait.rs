//! Waiting until a request has come to its end, with progress on stderr.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pgtenant_model::{ClaimKey, Condition, ConditionStatus, Database, DatabaseState, Operation, OperationState};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::cli::context::Context;
use crate::cli::error::{CliError, Outcome, Result};
use crate::cli::http::{Client, HttpError};
use crate::cli::name::database_path;
use crate::cli::output::{note, until};

/// Between looks while events tell of news.
const SLOW_LOOK: Duration = Duration::from_secs(3);
/// Between looks while they do not.
const FAST_LOOK: Duration = Duration::from_millis(700);
const STREAM_AGAIN: Duration = Duration::from_secs(3);
/// For each request of a wait: one that hangs is given up and sent again, however long the wait may be.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// For what is told of a wait that took too long.
const LAST_LOOK: Duration = Duration::from_secs(5);
/// As a shell says that a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Reasons that do not pass until a person does something; with any other the claim is tried again by itself.
const NEEDS_A_PERSON: [&str; 3] = ["NotOurs", "ServerRefused", "BadSettings"];

/// `--wait` and `--no-wait`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// Wait for the end [default: on a terminal]
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Do not wait for the end
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

impl WaitArgs {
    /// Whether to wait; `always`: without a terminal as well.
    pub(in crate::cli) fn waits(self, context: &Context, always: bool) -> bool {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let default = always || (terminal && !context.out.is_for_machines());
        self.wait || (!self.no_wait && default)
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum Goal {
    /// The operation's end; without one, that this generation is Ready.
    Settled {
        /// As the answer's header names it.
        operation: Option<Uuid>,
        /// Of the claim after the change.
        generation: i64,
    },
    /// The operation's end.
    Operation(Uuid),
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Done,
    Failed,
    Going,
}

/// How things stand.
#[derive(Debug, Default)]
struct Sight {
    operation: Option<Operation>,
    database: Option<Database>,
}

/// Waits; prints on stderr how it goes, and why it failed.
///
/// # Errors
/// The control plane does not let us look.
pub(in crate::cli) async fn wait(context: &Context, client: &Client, key: &ClaimKey, goal: Goal) -> Result<Outcome> {
    let client = &client.with_timeout_up_to(LOOK_TIMEOUT);
    let deadline = Instant::now() + context.wait_timeout();
    let progress = Progress::new(key);
    let news = Arc::new(News::default());
    let listener = tokio::spawn(listen(client.clone(), key.clone(), Arc::clone(&news)));
    let ended = tokio::select! {
        ended = watch(client, key, goal, &progress, &news) => ended,
        () = tokio::time::sleep_until(deadline) => Ok(None),
        signal = tokio::signal::ctrl_c() => {
            signal?;
            progress.clear();
            note(&format!("{key} goes on without you; `pgtenant db get {key}` shows how"));
            listener.abort();
            return Ok(Outcome::Status(INTERRUPTED));
        }
    };
    listener.abort();
    progress.clear();
    match ended? {
        Some((Found::Done, _)) => Ok(Outcome::Done),
        Some((_, sight)) => Err(failure(key, &sight, None)),
        None => {
            let sight = tokio::time::timeout(LAST_LOOK, look(client, key, goal)).await;
            let sight = sight.ok().and_then(Result::ok).unwrap_or_default();
            Err(failure(key, &sight, Some(context.wait_timeout())))
        }
    }
}

async fn watch(
    client: &Client,
    key: &ClaimKey,
    goal: Goal,
    progress: &Progress,
    news: &News,
) -> Result<Option<(Found, Sight)>, CliError> {
    loop {
        let heard = news.heard.notified();
        match look(client, key, goal).await {
            Ok(sight) => match judge(&sight, goal) {
                Found::Going => progress.show(&describe(&sight)),
                ended => return Ok(Some((ended, sight))),
            },
            Err(error) if error.is_transient() || matches!(error, HttpError::Connect { .. }) => {
                progress.show(&format!("the control plane does not answer: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        let pause = if news.streaming.load(Ordering::Relaxed) { SLOW_LOOK } else { FAST_LOOK };
        // Whichever comes first; a lost event costs one pause.
        let _ = tokio::time::timeout(pause, heard).await;
    }
}

async fn look(client: &Client, key: &ClaimKey, goal: Goal) -> Result<Sight, HttpError> {
    let id = match goal {
        Goal::Settled { operation, .. } => operation,
        Goal::Operation(id) => Some(id),
    };
    let operation = match id {
        Some(id) => Some(client.get(&["v1", "operations", &id.to_string()], &[]).await?.read()?),
        None => None,
    };
    let database = match client.get(&database_path(key), &[]).await {
        Ok(reply) => Some(reply.read()?),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    Ok(Sight { operation, database })
}

fn judge(sight: &Sight, goal: Goal) -> Found {
    let Sight { operation, database } = sight;
    if let Some(operation) = operation {
        return match operation.state {
            OperationState::Succeeded => Found::Done,
            OperationState::Failed => Found::Failed,
            // A step is named once a try has failed.
            OperationState::Pending | OperationState::Running if operation.step.is_none() => Found::Going,
            OperationState::Pending | OperationState::Running => stuck(database.as_ref()),
        };
    }
    let Goal::Settled { generation, .. } = goal else { return Found::Going };
    match database {
        None => Found::Failed,
        Some(database) if is_usable(database) && database.observed_generation >= generation => Found::Done,
        Some(database) if matches!(database.state, DatabaseState::Failed | DatabaseState::Degraded) => {
            stuck(Some(database))
        }
        Some(_) => Found::Going,
    }
}

fn ready(database: &Database) -> Option<&Condition> {
    database.conditions.iter().find(|condition| condition.kind == "Ready")
}

/// Degraded as well, where all that is left is for a superuser.
fn is_usable(database: &Database) -> bool {
    matches!(database.state, DatabaseState::Ready | DatabaseState::Degraded)
        && ready(database).is_some_and(|condition| condition.status == ConditionStatus::True)
}

/// Failed for good, unless another try may help.
fn stuck(database: Option<&Database>) -> Found {
    if database.and_then(ready).is_some_and(|condition| NEEDS_A_PERSON.contains(&condition.reason.as_str())) {
        Found::Failed
    } else {
        Found::Going
    }
}

/// Why it is not done yet.
fn message(sight: &Sight) -> Option<String> {
    let operation = sight.operation.as_ref().and_then(|operation| operation.message.clone());
    let condition = || {
        let ready = ready(sight.database.as_ref()?)?;
        // One that holds is older than the request.
        (ready.status != ConditionStatus::True).then(|| ready.message.clone())
    };
    operation.or_else(condition).filter(|text| !text.is_empty())
}

fn describe(sight: &Sight) -> String {
    let state = match &sight.database {
        None => "gone",
        Some(database) if database.state == DatabaseState::Ready => "under way",
        Some(database) => database.state.as_str(),
    };
    match message(sight) {
        Some(message) => format!("{state}: {}", message.replace('\n', " ")),
        None => state.to_owned(),
    }
}

/// Which step, what the server said, what to do, when the next try is.
fn failure(key: &ClaimKey, sight: &Sight, waited: Option<Duration>) -> CliError {
    let message = message(sight);
    let mut text = match waited {
        Some(waited) => format!("{key} is not done after {}", humantime::format_duration(waited)),
        None if sight.database.is_none() && sight.operation.is_none() => format!("{key} is gone"),
        None => format!("{key} failed"),
    };
    let step = sight.operation.as_ref().and_then(|operation| operation.step.as_deref());
    // The message names the step as well, unless the control plane is of another version.
    if let Some(step) = step.filter(|step| !message.as_ref().is_some_and(|message| message.contains(step))) {
        text = format!("{text} at step {step}");
    }
    if let Some(message) = message {
        text = format!("{text}\n{message}");
    }
    let next = sight.database.as_ref().and_then(|database| database.next_look_at);
    let next = next.map(|at| format!("the next try is {}; ", until(at, Utc::now()))).unwrap_or_default();
    CliError::failed(text).hint(format!("{next}`pgtenant db get {key}` shows all of it"))
}

/// Whether there is something to look at.
#[derive(Debug, Default)]
struct News {
    heard: Notify,
    streaming: AtomicBool,
}

/// Listens to events for as long as somebody waits. What it can not hear is found by looking.
async fn listen(client: Client, key: ClaimKey, news: Arc<News>) {
    let query = [("namespace", key.namespace()), ("name", key.name())];
    loop {
        if let Ok(mut stream) = client.events(&query, None).await {
            news.streaming.store(true, Ordering::Relaxed);
            // Something may have happened before the stream was open.
            news.heard.notify_one();
            while let Ok(Some(_)) = stream.next().await {
                news.heard.notify_one();
            }
        }
        news.streaming.store(false, Ordering::Relaxed);
        tokio::time::sleep(STREAM_AGAIN).await;
    }
}

/// A spinner on a terminal; elsewhere a line for each change.
struct Progress {
    bar: ProgressBar,
    last: std::sync::Mutex<String>,
    key: String,
}

impl Progress {
    fn new(key: &ClaimKey) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(format!("{key}: asked"));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, last: std::sync::Mutex::default(), key: key.to_string() }
    }

    fn show(&self, text: &str) {
        let line = format!("{}: {text}", self.key);
        self.bar.set_message(line.clone());
        let Ok(mut last) = self.last.lock() else { return };
        if self.bar.is_hidden() && *last != line {
            note(&line);
        }
        *last = line;
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sight(operation: Option<(&str, Option<&str>)>, database: Option<(&str, i64, &str)>) -> Sight {
        let operation = operation.map(|(state, step)| {
            let document = json!({"id": Uuid::nil(), "kind": "create", "state": state, "namespace": "a", "name": "b",
                "step": step, "message": step.map(|_| "the server said no"), "requestedBy": "token:x",
                "createdAt": "2026-01-01T00:00:00Z", "finishedAt": null});
            serde_json::from_value(document).unwrap()
        });
        let database = database.map(|(state, observed, reason)| {
            let role = json!({"role": "r", "login": "r", "setAt": null, "stores": []});
            let status = if reason == "Provisioned" { "True" } else { "False" };
            let ready: Value = json!({"type": "Ready", "status": status, "reason": reason, "message": "because",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let document = json!({"namespace": "a", "name": "b", "mode": "standard", "cluster": "default",
                "schemas": [], "extensions": [], "connectionLimit": null, "generation": 2,
                "observedGeneration": observed, "state": state, "source": "api", "conditions": [ready],
                "database": "a-b", "endpoint": null, "roles": {"read": role, "write": role, "admin": role},
                "createdAt": "2026-01-01T00:00:00Z", "nextLookAt": null});
            serde_json::from_value(document).unwrap()
        });
        Sight { operation, database }
    }

    #[test]
    fn an_operation_decides_where_there_is_one() {
        let goal = Goal::Operation(Uuid::nil());
        let old = Some(("Failed", 1, "NotOurs"));
        for (operation, database, expected) in [
            (("Succeeded", None), None, Found::Done),
            (("Failed", None), old, Found::Failed),
            // What is said of the claim is older than the operation.
            (("Pending", None), old, Found::Going),
            (("Running", Some("database")), old, Found::Failed),
            (("Running", Some("connect")), Some(("Provisioning", 0, "ClusterUnavailable")), Found::Going),
            (("Running", Some("drop")), None, Found::Going),
        ] {
            assert_eq!(judge(&sight(Some(operation), database), goal), expected, "{operation:?} {database:?}");
        }
    }

    #[test]
    fn without_an_operation_the_generation_decides() {
        let goal = Goal::Settled { operation: None, generation: 2 };
        for (database, expected) in [
            (None, Found::Failed),
            (Some(("Ready", 1, "Provisioned")), Found::Going),
            (Some(("Ready", 2, "Provisioned")), Found::Done),
            (Some(("Failed", 1, "NotOurs")), Found::Failed),
            (Some(("Failed", 1, "ServerBusy")), Found::Going),
            // It can be used, and a superuser has something to put right.
            (Some(("Degraded", 1, "Provisioned")), Found::Going),
            (Some(("Degraded", 2, "Provisioned")), Found::Done),
            (Some(("Degraded", 2, "ServerRefused")), Found::Failed),
            (Some(("Degraded", 2, "ServerBusy")), Found::Going),
        ] {
            assert_eq!(judge(&sight(None, database), goal), expected, "{database:?}");
        }
    }

    #[test]
    fn a_failure_says_step_answer_and_next_try() {
        let key = ClaimKey::new("a", "b").unwrap();
        let text =
            failure(&key, &sight(Some(("Running", Some("grant"))), Some(("Failed", 0, "NotOurs"))), None).render();
        assert!(text.starts_with("error: a/b failed at step grant\n  the server said no\nhint: "), "{text}");
        let text = failure(&key, &Sight::default(), Some(Duration::from_secs(60))).render();
        assert!(text.starts_with("error: a/b is not done after 1m\n"), "{text}");
    }
}
