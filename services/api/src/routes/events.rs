//! The stream of events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use pgtenant_model::Event;
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{debug, warn};
use utoipa::IntoParams;

use crate::ApiState;
use crate::caller::{Caller, Scope};
use crate::document::NotFound;
use crate::events::PAGE;
use crate::extract::{Label, Query};
use crate::limit::Place;
use crate::problem::{INVALID_HEADER, LEDGER_UNAVAILABLE, Problem, Result};
use crate::store;

/// How long the listener is waited for, which begins when the ledger answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which events to send; every field that is given narrows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Begin after the event with this id; 0: with the oldest that is kept. Without it: with the next one.
    #[param(value_type = i64, required = false, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    after: Option<EventId>,
    /// Only those of this tenant.
    #[param(value_type = String, required = false, min_length = 1, max_length = 63,
            pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    namespace: Option<Label>,
    /// Only those of claims or clusters of this name.
    #[param(value_type = String, required = false, min_length = 1, max_length = 63,
            pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    name: Option<Label>,
}

/// An id as it was in the stream: up to 2^53 - 1, which every JSON library holds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct EventId(i64);

impl TryFrom<u64> for EventId {
    type Error = String;

    fn try_from(value: u64) -> Result<Self, Self::Error> {
        let id = i64::try_from(value).ok().filter(|id| *id < 1 << 53);
        id.map(Self).ok_or_else(|| format!("{value} is no event's id"))
    }
}

/// The last event that a client has seen, as browsers send it when they connect again.
pub(crate) struct LastEventId(Option<i64>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        let mut values = parts.headers.get_all("last-event-id").iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let id = value.to_str().ok().and_then(|text| EventId::try_from(text.parse::<u64>().ok()?).ok());
        let fault = || Problem::new(&INVALID_HEADER, "Last-Event-ID: send one id as it was in the stream");
        id.filter(|_| values.next().is_none()).map(|id| Self(Some(id.0))).ok_or_else(fault)
    }
}

/// Follow events
///
/// Server-sent events: `id:` grows, `event:` is the type, `data:` is an Event as JSON; comments keep the connection
/// alive, and the comment `: caught-up` says that all from before has been sent. Events are kept for a week; a client
/// that connects again with `Last-Event-ID` (or `after`) misses none. A client that takes nothing for half a minute is
/// disconnected, and goes on in the same way.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "streamEvents", tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, minimum = 0, maximum = 9_007_199_254_740_991_i64,
           description = "The last event that was seen; goes before `after`.")),
    responses(
        (status = 200, description = "The stream.", body = String, content_type = "text/event-stream"),
        (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn stream(
    caller: Caller,
    State(state): State<ApiState>,
    LastEventId(last_event_id): LastEventId,
    Query(query): Query<EventsQuery>,
) -> Result<Response> {
    let EventsQuery { after, namespace, name } = query;
    let scope = caller.scope_of(namespace.as_ref().map(|n| &*n.0))?;
    let place = state.limits.stream(caller.token_id())?;
    // What is written after this is handed out, what was written before it is read from the ledger.
    let news = tokio::time::timeout(PATIENCE, state.events.subscribe()).await;
    let news = news.map_err(|_| Problem::plain(&LEDGER_UNAVAILABLE).retry_after(2))?;
    let after = last_event_id.or(after.map(|id| id.0));
    let last = match after {
        Some(id) => id,
        None => store::last_event(&mut *state.ledger().acquire().await?).await?,
    };
    let keep_alive = state.settings().sse_keep_alive;
    // A token that was revoked ends its streams as soon as it ends its requests.
    let believed = state.settings().token_ttl;
    let mut look = tokio::time::interval_at(Instant::now() + believed, believed);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (name, page) = (name.map(|n| n.0), Vec::new().into_iter());
    let follower =
        Follower { state, caller, scope, name, last, news, page, live: false, told: false, look, _place: place };
    let events = futures::stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(answer(events, keep_alive))
}

fn answer(
    events: impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static,
    keep_alive: Duration,
) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(keep_alive)).into_response();
    // nginx collects an answer before it passes it on, unless it is told not to.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A client and what it has seen.
struct Follower {
    state: ApiState,
    caller: Caller,
    scope: Scope,
    name: Option<String>,
    last: i64,
    news: broadcast::Receiver<Arc<Event>>,
    /// What was read from the ledger and is not sent yet.
    page: std::vec::IntoIter<Event>,
    /// Everything older is sent: what follows comes from `news`.
    live: bool,
    /// Whether the client knows that it has everything older.
    told: bool,
    look: Interval,
    _place: Place,
}

impl Follower {
    /// The next event for this client; none ends the stream.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            let event = match self.page.next() {
                Some(event) => Some(Arc::new(event)),
                None if self.live && !self.told => {
                    self.told = true;
                    return Some(sse::Event::default().comment("caught-up"));
                }
                None if self.live => self.receive().await?,
                None => self.turn_page().await?,
            };
            let Some(event) = event else { continue };
            self.last = event.id;
            let of_name = self.name.as_ref().is_none_or(|name| *name == event.name);
            if of_name && self.scope.contains(event.namespace.as_deref()) {
                return write(&event);
            }
        }
    }

    /// Reads what is stored after the last event. None: the stream ends.
    async fn turn_page(&mut self) -> Option<Option<Arc<Event>>> {
        if !self.still_allowed().await {
            return None;
        }
        // Taken before the read, so that nothing falls between the two; taken anew, so that a long replay leaves nothing
        // behind.
        self.news = self.news.resubscribe();
        let page = async {
            let mut db = self.state.ledger().acquire().await?;
            store::events(&mut db, &self.scope, self.last, PAGE).await
        };
        match page.await {
            Ok(page) => {
                self.live = i64::try_from(page.len()) != Ok(PAGE);
                self.page = page.into_iter();
                Some(None)
            }
            Err(error) => {
                warn!(error = %crate::observe::chain(&error), "a stream of events ends, its client will come back");
                None
            }
        }
    }

    /// An event that was just written. `Some(None)`: nothing new for now. None: the stream ends.
    async fn receive(&mut self) -> Option<Option<Arc<Event>>> {
        let received = tokio::select! {
            received = self.news.recv() => received,
            () = self.state.parts.shutdown.cancelled() => return None,
            _ = self.look.tick() => return self.still_allowed().await.then_some(None),
        };
        match received {
            Ok(event) => Some((event.id > self.last).then_some(event)),
            Err(RecvError::Lagged(missed)) => {
                // Nothing is kept for those who are slow: what they missed is read again.
                debug!(missed, "a stream of events reads more slowly than events are written");
                self.live = false;
                Some(None)
            }
            Err(RecvError::Closed) => None,
        }
    }

    /// A token may have ended since the stream began. While the ledger is down it is believed.
    async fn still_allowed(&self) -> bool {
        let found = self.state.tokens.find(self.state.ledger(), self.caller.secret()).await;
        !matches!(found, Ok(None)) && !self.state.parts.shutdown.is_cancelled()
    }
}

fn write(event: &Event) -> Option<sse::Event> {
    let kind = serde_json::to_value(event.kind).ok()?;
    sse::Event::default().id(event.id.to_string()).event(kind.as_str()?).json_data(event).ok()
}
