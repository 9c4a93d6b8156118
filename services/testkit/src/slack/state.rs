//! What is in this Slack, and what each method of the Web API does to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use super::{Orders, SlackCall, TOKEN, check};

/// A trigger is good for so long (<https://docs.slack.dev/interactivity/handling-user-interaction>, "trigger_id").
const TRIGGER: Duration = Duration::from_secs(3);

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct SlackText {
    /// Slack's name for it.
    pub ts: String,
    /// Of the message in whose thread it stands.
    pub thread_ts: Option<String>,
    /// As it is now: `text`, `blocks`, `metadata`.
    pub content: Value,
    /// How often it was changed.
    pub edits: usize,
}

/// A window.
#[derive(Debug, Clone, PartialEq)]
pub struct SlackView {
    /// Slack's name for it.
    pub id: String,
    /// Changes with it.
    pub hash: String,
    /// As it was sent.
    pub view: Value,
    /// How often it was changed.
    pub edits: usize,
    /// What was chosen or typed since, by block and element: it stays as long as there are such a block and element.
    pub(super) filled: BTreeMap<(String, String), Value>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) channels: BTreeMap<String, Vec<SlackText>>,
    pub(super) views: BTreeMap<String, SlackView>,
    /// Since when each is good, and whether it was used.
    pub(super) triggers: BTreeMap<String, (Instant, bool)>,
    /// How often each may still be used.
    pub(super) response_urls: BTreeMap<String, usize>,
    pub(super) responses: Vec<Value>,
    pub(super) orders: Orders,
    pub(super) down: bool,
    pub(super) faults: Vec<String>,
    pub(super) calls: Vec<SlackCall>,
    /// Messages of an answer at most.
    pub(super) page: usize,
    counter: u64,
}

type Answer = Result<Value, &'static str>;

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    // Without a charset Slack warns: `missing_charset`.
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json; charset=utf-8")
}

impl World {
    pub(super) fn new(channels: &[&str]) -> Self {
        let channels = channels.iter().map(|id| ((*id).to_owned(), Vec::new())).collect();
        Self { channels, page: 1000, ..Self::default() }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn call(&mut self, method: &str, headers: &HeaderMap, body: &Bytes) -> Value {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if bearer != Some(&*format!("Bearer {TOKEN}")) {
            self.faults.push(format!("{method}: the token is wrong"));
            return json!({"ok": false, "error": "invalid_auth"});
        }
        let reads = method.starts_with("conversations.");
        let body = match (reads, is_json(headers)) {
            (false, true) => serde_json::from_slice(body).unwrap_or_default(),
            (true, false) => {
                let pairs = form_urlencoded::parse(body).into_owned();
                Value::Object(pairs.map(|(key, value)| (key, Value::String(value))).collect::<Map<_, _>>())
            }
            _ => {
                self.faults.push(format!("{method}: the media type is not taken by this method"));
                return json!({"ok": false, "error": "invalid_post_type"});
            }
        };
        self.calls.push(SlackCall { method: method.to_owned(), body: body.clone(), at: Instant::now() });
        let answer = match method {
            "chat.postMessage" => self.post(&body),
            "chat.update" => self.update(&body),
            "views.open" => self.open(&body),
            "views.update" => self.update_view(&body),
            "conversations.history" => self.history(&body, false),
            "conversations.replies" => self.history(&body, true),
            _ => Err("unknown_method"),
        };
        match answer {
            Ok(mut answer) => {
                answer["ok"] = json!(true);
                answer
            }
            Err(error) => {
                // These happen to an app that does all right.
                if !["message_not_found", "hash_conflict"].contains(&error) {
                    self.faults.push(format!("{method}: {error}"));
                }
                json!({"ok": false, "error": error})
            }
        }
    }

    fn checked(&mut self, problems: Vec<String>) -> Result<(), &'static str> {
        if problems.is_empty() {
            return Ok(());
        }
        self.faults.extend(problems);
        Err("invalid_blocks")
    }

    fn arguments(&mut self, body: &Value, known: &[&str]) {
        let unknown =
            body.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| !known.contains(&&***key));
        let faults: Vec<_> = unknown.map(|key| format!("the argument {key} is not known")).collect();
        self.faults.extend(faults);
    }

    fn post(&mut self, body: &Value) -> Answer {
        self.arguments(body, &["channel", "text", "blocks", "metadata", "thread_ts", "unfurl_links", "unfurl_media"]);
        self.checked(check::message(body))?;
        if body["metadata"]["event_type"].as_str().is_none() || !body["metadata"]["event_payload"].is_object() {
            return Err("invalid_metadata_format");
        }
        let channel = text(body, "channel");
        let ts = self.ts();
        let messages = self.channels.get_mut(&channel).ok_or("channel_not_found")?;
        let thread_ts = body["thread_ts"].as_str().map(str::to_owned);
        if let Some(parent) = &thread_ts
            && !messages.iter().any(|message| message.ts == *parent && message.thread_ts.is_none())
        {
            return Err("thread_not_found");
        }
        messages.push(SlackText { ts: ts.clone(), thread_ts, content: content(body), edits: 0 });
        Ok(json!({"channel": channel, "ts": ts}))
    }

    pub(super) fn chatter(&mut self, channel: &str) {
        let ts = self.ts();
        let content = json!({"text": "and otherwise?", "blocks": [], "metadata": null});
        let message = SlackText { ts, thread_ts: None, content, edits: 0 };
        self.channels.entry(channel.to_owned()).or_default().push(message);
    }

    fn ts(&mut self) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        format!("{now}.{:06}", self.number())
    }

    fn update(&mut self, body: &Value) -> Answer {
        self.arguments(body, &["channel", "ts", "text", "blocks", "metadata"]);
        self.checked(check::message(body))?;
        let (channel, ts) = (text(body, "channel"), text(body, "ts"));
        let messages = self.channels.get_mut(&channel).ok_or("channel_not_found")?;
        let message = messages.iter_mut().find(|message| message.ts == ts).ok_or("message_not_found")?;
        message.content = content(body);
        message.edits += 1;
        Ok(json!({"channel": channel, "ts": ts}))
    }

    fn open(&mut self, body: &Value) -> Answer {
        self.arguments(body, &["trigger_id", "view"]);
        let (since, used) = self.triggers.get_mut(&text(body, "trigger_id")).ok_or("invalid_trigger_id")?;
        if *used {
            return Err("exchanged_trigger_id");
        }
        if since.elapsed() > TRIGGER {
            return Err("expired_trigger_id");
        }
        *used = true;
        self.checked(check::view(&body["view"]))?;
        let number = self.number();
        let view = SlackView {
            id: format!("V{number:08}"),
            hash: format!("{number}.hash"),
            view: body["view"].clone(),
            edits: 0,
            filled: BTreeMap::new(),
        };
        self.views.insert(view.id.clone(), view.clone());
        Ok(json!({"view": {"id": view.id, "hash": view.hash}}))
    }

    fn update_view(&mut self, body: &Value) -> Answer {
        self.arguments(body, &["view_id", "hash", "view"]);
        self.checked(check::view(&body["view"]))?;
        let number = self.number();
        let view = self.views.get_mut(&text(body, "view_id")).ok_or("not_found")?;
        if body["hash"].as_str().is_some_and(|hash| hash != view.hash) {
            return Err("hash_conflict");
        }
        view.view = body["view"].clone();
        let there = fields(&view.view);
        view.filled.retain(|field, _| there.contains(field));
        view.hash = format!("{number}.hash");
        view.edits += 1;
        Ok(json!({"view": {"id": view.id, "hash": view.hash}}))
    }

    fn history(&mut self, body: &Value, replies: bool) -> Answer {
        let messages = self.channels.get(&text(body, "channel")).ok_or("channel_not_found")?;
        let oldest: f64 = text(body, "oldest").parse().unwrap_or(0.0);
        let thread = text(body, "ts");
        let fits = |message: &&SlackText| {
            let within = match (&message.thread_ts, replies) {
                (None, false) => true,
                (parent, true) => message.ts == thread || parent.as_deref() == Some(&*thread),
                _ => false,
            };
            within && message.ts.parse::<f64>().is_ok_and(|ts| ts >= oldest)
        };
        let mut found: Vec<_> = messages.iter().filter(fits).collect();
        // A channel begins with the newest, a thread with the oldest.
        if !replies {
            found.reverse();
        }
        let limit: usize = text(body, "limit").parse().unwrap_or(100).min(self.page);
        let from: usize = text(body, "cursor").parse().unwrap_or(0);
        let shown = found.iter().skip(from).take(limit).map(|message| {
            let mut shown = message.content.clone();
            shown["ts"] = json!(message.ts);
            if text(body, "include_all_metadata") != "true" {
                shown["metadata"] = Value::Null;
            }
            shown
        });
        let next = if from + limit < found.len() { (from + limit).to_string() } else { String::new() };
        Ok(json!({"messages": shown.collect::<Vec<_>>(), "response_metadata": {"next_cursor": next}}))
    }
}

/// Blocks and elements of a window.
pub(super) fn fields(view: &Value) -> Vec<(String, String)> {
    let inputs = view["blocks"].as_array().into_iter().flatten().filter(|block| block["type"] == "input");
    inputs.map(|block| (text(block, "block_id"), text(&block["element"], "action_id"))).collect()
}

fn text(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap_or_default().to_owned()
}

fn content(body: &Value) -> Value {
    json!({"text": body["text"], "blocks": body["blocks"], "metadata": body["metadata"]})
}

impl SlackText {
    /// All that is to be read in it.
    pub fn read(&self) -> String {
        self.content["blocks"].to_string()
    }

    /// The buttons that can be pressed: their ids.
    pub fn buttons(&self) -> Vec<String> {
        let blocks = self.content["blocks"].as_array().into_iter().flatten();
        let elements = blocks.flat_map(|block| block["elements"].as_array().into_iter().flatten());
        elements.filter_map(|one| one["action_id"].as_str().map(str::to_owned)).collect()
    }
}
