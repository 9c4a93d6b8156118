//! What people do, as the signed requests that Slack makes of it, and checks of what Slack is answered.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{FakeSlack, SECRET, check};

/// A request as Slack sends it.
#[derive(Debug, Clone)]
pub struct SlackRequest {
    /// Of the app.
    pub path: &'static str,
    /// With the signature.
    pub headers: Vec<(&'static str, String)>,
    /// A form.
    pub body: String,
}

impl SlackRequest {
    fn new(path: &'static str, fields: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        Self { path, headers, body }.signed_at(now())
    }

    fn interaction(payload: &Value) -> Self {
        Self::new("/slack/interactions", &[("payload", &payload.to_string())])
    }

    /// The same, signed at another time, in seconds since 1970.
    #[must_use]
    pub fn signed_at(mut self, at: u64) -> Self {
        let signed = format!("v0:{at}:{}", self.body);
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap_or_else(|_| panic!("a key of any length"));
        let tag = hex::encode(mac.chain_update(signed).finalize().into_bytes());
        self.headers.retain(|(name, _)| !name.starts_with("x-slack"));
        self.headers.push(("x-slack-request-timestamp", at.to_string()));
        self.headers.push(("x-slack-signature", format!("v0={tag}")));
        self
    }

    /// The same, as Slack sends it once more.
    #[must_use]
    pub fn retried(mut self) -> Self {
        self.headers.push(("x-slack-retry-num", "1".to_owned()));
        self.headers.push(("x-slack-retry-reason", "http_timeout".to_owned()));
        self
    }

    /// The same with another value of a header.
    #[must_use]
    pub fn with(mut self, header: &str, value: &str) -> Self {
        for (_, old) in self.headers.iter_mut().filter(|(name, _)| *name == header) {
            *old = value.to_owned();
        }
        self
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl FakeSlack {
    /// A trigger that is good for 3 s, once.
    pub fn trigger(&self) -> String {
        let mut world = self.world();
        let id = format!("{}.trigger", world.number());
        world.triggers.insert(id.clone(), (Instant::now(), false));
        id
    }

    fn response_url(&self) -> String {
        let mut world = self.world();
        let id = world.number().to_string();
        // Five times, and the count begins before the first.
        world.response_urls.insert(id.clone(), 6);
        format!("{}/respond/{id}", self.url)
    }

    /// Somebody types `/pgtenant {text}`.
    pub fn command(&self, user: &str, channel: &str, text: &str) -> SlackRequest {
        let fields = [
            ("command", "/pgtenant"),
            ("text", text),
            ("user_id", user),
            ("channel_id", channel),
            ("team_id", "T0TEAM"),
            ("trigger_id", &self.trigger()),
            ("response_url", &self.response_url()),
        ];
        SlackRequest::new("/slack/commands", &fields)
    }

    /// Somebody presses a button of a message, which must be there.
    pub fn press(&self, user: &str, channel: &str, ts: &str, action: &str) -> SlackRequest {
        let message = self.messages(channel).into_iter().find(|message| message.ts == ts);
        let message = message.unwrap_or_else(|| panic!("there is no message {ts} in {channel}"));
        let blocks = message.content["blocks"].as_array().cloned().unwrap_or_default();
        let elements = blocks.iter().flat_map(|block| block["elements"].as_array().into_iter().flatten());
        let mut buttons = elements.filter(|one| one["action_id"] == action);
        let value = buttons.next().unwrap_or_else(|| panic!("there is no button {action} in {}", message.read()));
        self.press_forged(user, channel, action, value["value"].as_str().unwrap_or_default())
    }

    /// A button with any value.
    pub fn press_forged(&self, user: &str, channel: &str, action: &str, value: &str) -> SlackRequest {
        SlackRequest::interaction(&json!({
            "type": "block_actions", "team": {"id": "T0TEAM"}, "user": {"id": user, "team_id": "T0TEAM"}, "channel": {"id": channel, "name": "x"},
            "container": {"type": "message", "channel_id": channel}, "trigger_id": self.trigger(),
            "response_url": self.response_url(),
            "actions": [{"type": "button", "action_id": action, "block_id": "b", "value": value, "action_ts": "1.2"}],
        }))
    }

    /// Somebody chooses in a menu of a window that says so at once.
    pub fn choose(&self, user: &str, view: &str, action: &str, value: &str) -> SlackRequest {
        SlackRequest::interaction(&json!({
            "type": "block_actions", "team": {"id": "T0TEAM"}, "user": {"id": user, "team_id": "T0TEAM"},
            "trigger_id": self.trigger(), "view": self.view_now(view, &[(action, json!(value))]), "container": {"type": "view", "view_id": view},
            "actions": [{"action_id": action, "block_id": action, "selected_option": {"value": value}}],
        }))
    }

    /// Somebody types into a menu that is filled from outside.
    pub fn suggest(&self, user: &str, view: &str, action: &str, typed: &str) -> SlackRequest {
        SlackRequest::interaction(&json!({
            "type": "block_suggestion", "team": {"id": "T0TEAM"}, "user": {"id": user, "team_id": "T0TEAM"},
            "view": self.view_now(view, &[]), "action_id": action,
            "block_id": action, "value": typed, "container": {"type": "view", "view_id": view},
        }))
    }

    /// Somebody sends a window off with these fields filled in, and the others as they came.
    pub fn submit(&self, user: &str, view: &str, filled: &[(&str, Value)]) -> SlackRequest {
        self.submit_forged(user, view, filled, |_| {})
    }

    /// As [`FakeSlack::submit`], with a payload that was changed.
    pub fn submit_forged(
        &self,
        user: &str,
        view: &str,
        filled: &[(&str, Value)],
        forge: impl FnOnce(&mut Value),
    ) -> SlackRequest {
        let mut payload = json!({
            "type": "view_submission", "team": {"id": "T0TEAM"}, "user": {"id": user, "team_id": "T0TEAM"},
            "trigger_id": self.trigger(),
            "view": self.view_now(view, filled), "response_urls": [],
        });
        forge(&mut payload);
        SlackRequest::interaction(&payload)
    }

    /// A window as it comes back, with what is filled in now and was before.
    fn view_now(&self, id: &str, filled: &[(&str, Value)]) -> Value {
        let mut world = self.world();
        let found = world.views.get_mut(id).unwrap_or_else(|| panic!("there is no window {id}"));
        for field in super::state::fields(&found.view) {
            if let Some((_, value)) = filled.iter().find(|(name, _)| *name == field.1) {
                found.filled.insert(field, value.clone());
            }
        }
        let mut view = found.view.clone();
        let mut values = json!({});
        for block in view["blocks"].as_array().into_iter().flatten().filter(|block| block["type"] == "input") {
            let (name, element) = (block["block_id"].as_str().unwrap_or_default(), &block["element"]);
            let action = element["action_id"].as_str().unwrap_or_default();
            let given = found.filled.get(&(name.to_owned(), action.to_owned())).cloned();
            let kind = element["type"].as_str().unwrap_or_default();
            let state = match kind {
                "plain_text_input" => json!({"type": kind, "value": given}),
                "datetimepicker" => json!({"type": kind, "selected_date_time": given}),
                _ => {
                    let chosen = given.map(|value| json!({"value": value}));
                    let initial = element.get("initial_option").filter(|one| !one.is_null()).cloned();
                    json!({"type": kind, "selected_option": chosen.or(initial)})
                }
            };
            values[name] = json!({ action: state });
        }
        view["id"] = json!(id);
        view["hash"] = json!(found.hash);
        view["state"] = json!({ "values": values });
        view
    }

    /// Checks an answer to a request as Slack would: a message, errors of fields that are there, or options.
    pub fn look_at_answer(&self, request: &SlackRequest, status: u16, body: &str) {
        let mut problems = Vec::new();
        if status == 200 && !body.is_empty() {
            let answer: Value = serde_json::from_str(body).unwrap_or_default();
            let payload = form_urlencoded::parse(request.body.as_bytes()).find(|(name, _)| name == "payload");
            let payload: Value = payload.and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or_default();
            match payload["type"].as_str() {
                Some("view_submission") => problems.extend(submission(&answer, &payload)),
                Some("block_suggestion") => problems.extend(check::options(&answer["options"])),
                Some(other) => problems.push(format!("{other} is answered with a body")),
                None => problems.extend(check::message(&answer)),
            }
        }
        self.world().faults.extend(problems.into_iter().map(|problem| format!("answer: {problem}")));
    }
}

fn submission(answer: &Value, payload: &Value) -> Vec<String> {
    let values = &payload["view"]["state"]["values"];
    match answer["response_action"].as_str() {
        Some("clear") => Vec::new(),
        Some("errors") => {
            let errors = answer["errors"].as_object().cloned().unwrap_or_default();
            let unknown = errors.keys().filter(|block| values.get(block).is_none());
            let mut problems: Vec<_> = unknown.map(|block| format!("there is no block {block}")).collect();
            if errors.is_empty() {
                problems.push("errors without errors".to_owned());
            }
            problems
        }
        other => vec![format!("response_action {other:?}")],
    }
}
