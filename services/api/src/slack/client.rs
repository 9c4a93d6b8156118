//! Slack's Web API, as far as it is used: <https://docs.slack.dev/apis/web-api/>.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client as Http, StatusCode, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::observe::chain;

/// Far above what is ever answered to us.
const MOST_BYTES: usize = 4 << 20;
/// Where Slack does not say how long to wait.
const USUAL_WAIT: Duration = Duration::from_secs(30);

/// Why a call was not answered with yes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing was done; it may be asked again after this time.
    #[error("Slack wants us to wait for {} s", .0.as_secs())]
    Limited(Duration),
    /// Nothing was done, for this reason of Slack's.
    #[error("Slack refuses it: {0}")]
    Refused(String),
    /// It never got there.
    #[error("Slack can not be reached: {0}")]
    Unsent(String),
    /// Whether it was done is not known.
    #[error("Slack did not answer as it does: {0}")]
    Unheard(String),
}

/// A client of the Web API.
#[derive(Debug)]
pub(crate) struct Client {
    base: String,
    token: SecretString,
    /// Made when it is first needed: a control plane must not end for want of it.
    http: OnceLock<Http>,
}

impl Client {
    pub(crate) fn new(base: &str, token: SecretString) -> Self {
        Self { base: format!("{}/", base.trim_end_matches('/')), token, http: OnceLock::new() }
    }

    /// Calls a method that writes.
    pub(crate) async fn write(&self, method: &str, body: &Value, limit: Duration) -> Result<Value, CallError> {
        self.call(method, "application/json; charset=utf-8", body.to_string(), limit).await
    }

    /// Calls a method that reads: these take forms only.
    pub(crate) async fn read(&self, method: &str, form: &[(&str, &str)], limit: Duration) -> Result<Value, CallError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.call(method, "application/x-www-form-urlencoded", body, limit).await
    }

    async fn call(&self, method: &str, media: &str, body: String, limit: Duration) -> Result<Value, CallError> {
        let request = self
            .http()?
            .post(format!("{}{method}", self.base))
            .header(header::CONTENT_TYPE, media)
            .bearer_auth(self.token.expose_secret())
            .body(body);
        let answer = within(limit, request).await?;
        let json: Value = serde_json::from_slice(&answer).map_err(|error| CallError::Unheard(error.to_string()))?;
        if json["ok"] == true {
            return Ok(json);
        }
        match json["error"].as_str() {
            Some("ratelimited" | "rate_limited") => Err(CallError::Limited(USUAL_WAIT)),
            Some("internal_error" | "fatal_error" | "service_unavailable" | "request_timeout") => {
                Err(CallError::Unheard(json["error"].to_string()))
            }
            Some(error) => Err(CallError::Refused(explain(error, &json))),
            None => Err(CallError::Unheard("an answer without `ok`".to_owned())),
        }
    }

    /// Answers a person at the address that came with their request.
    pub(crate) async fn respond(&self, url: &str, body: &Value, limit: Duration) -> Result<(), CallError> {
        if !self.is_slacks(url) {
            return Err(CallError::Refused("the address of the answer is not Slack's".to_owned()));
        }
        let request = self.http()?.post(url).header(header::CONTENT_TYPE, "application/json; charset=utf-8");
        within(limit, request.body(body.to_string())).await.map(drop)
    }

    /// Nothing is sent anywhere else, whatever a request says.
    fn is_slacks(&self, url: &str) -> bool {
        let (Ok(url), Ok(base)) = (Url::parse(url), Url::parse(&self.base)) else { return false };
        let hooks = url.scheme() == "https" && url.host_str() == Some("hooks.slack.com") && url.port().is_none();
        hooks || url.origin() == base.origin()
    }

    fn http(&self) -> Result<&Http, CallError> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let builder =
            Http::builder().redirect(reqwest::redirect::Policy::none()).connect_timeout(Duration::from_secs(5));
        let http = builder.build().map_err(|error| CallError::Unsent(chain(&error)))?;
        Ok(self.http.get_or_init(|| http))
    }
}

/// The body of an answer that says neither that it was too much nor that something is broken.
async fn within(limit: Duration, request: reqwest::RequestBuilder) -> Result<Vec<u8>, CallError> {
    let exchange = async {
        let mut answer = request.send().await.map_err(|error| {
            let sent = !error.is_connect();
            // The address of an answer to a person is as good as a password.
            let why = chain(&error.without_url());
            if sent { CallError::Unheard(why) } else { CallError::Unsent(why) }
        })?;
        let status = answer.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(CallError::Limited(
                wait.map_or(USUAL_WAIT, |seconds: u64| Duration::from_secs(seconds.clamp(1, 3600))),
            ));
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| CallError::Unheard(chain(&error.without_url())))? {
            body.extend_from_slice(&part);
            if body.len() > MOST_BYTES {
                return Err(CallError::Unheard("an answer without end".to_owned()));
            }
        }
        match status {
            status if status.is_success() => Ok(body),
            status if status.is_client_error() => Err(CallError::Refused(format!("HTTP {status}"))),
            status => Err(CallError::Unheard(format!("HTTP {status}"))),
        }
    };
    let late = || Err(CallError::Unheard(format!("no answer within {limit:?}")));
    tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| late())
}

/// Slack's word for it, and what is missing, where it says so.
fn explain(error: &str, json: &Value) -> String {
    let mut text = error.to_owned();
    if let Some(needed) = json["needed"].as_str() {
        text.push_str(&format!(" (the app needs the scope {needed})"));
    }
    let messages = json.pointer("/response_metadata/messages").and_then(Value::as_array).into_iter().flatten();
    for message in messages.filter_map(Value::as_str).take(5) {
        text.push_str(&format!(" {message}"));
    }
    text
}

impl CallError {
    /// Slack's word for why it refuses something.
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Refused(text) => text.split(' ').next(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_to_anybody_else() {
        let client = Client::new("https://slack.com/api", "x".into());
        for good in ["https://hooks.slack.com/commands/T1/2/x", "https://slack.com/x"] {
            assert!(client.is_slacks(good), "{good}");
        }
        for bad in [
            "",
            "http://hooks.slack.com/x",
            "https://hooks.slack.com.evil.example/x",
            "https://evil.example/hooks.slack.com",
            "https://hooks.slack.com:8443/x",
            "https://user@evil.example",
            "file:///etc/passwd",
            "http://169.254.169.254/",
        ] {
            assert!(!client.is_slacks(bad), "{bad}");
        }
    }
}
