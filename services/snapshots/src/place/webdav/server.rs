//! The server: where it is, who pgtenant is there, and what its answers mean.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use futures::future::{Either, select};
use pgtenant_model::{InvalidField, WebDavPlace};
use reqwest::{Body, Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use zeroize::Zeroizing;

use super::pulse::Pulse;
use crate::{Patience, SnapshotError, private};

const CONNECT: Duration = Duration::from_secs(10);

/// A collection's address, and the login.
#[derive(Debug)]
pub(super) struct Server {
    base: Url,
    username: String,
    password_file: PathBuf,
    pub(super) patience: Patience,
    /// Made when they are first needed: the process has chosen its TLS by then.
    client: OnceLock<Client>,
    /// For bodies whose sending takes as long as it takes: reqwest would count that as silence.
    sender: OnceLock<Client>,
}

impl Server {
    pub(super) fn new(spec: &WebDavPlace, patience: Patience) -> Result<Self, InvalidField> {
        let WebDavPlace { url, username, password_file } = spec;
        let wrong = |message: &str| InvalidField::new("to.webDav.url", message);
        let base = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if base.cannot_be_a_base() || !matches!(base.scheme(), "https" | "http") {
            return Err(wrong("use a URL that begins with https://"));
        }
        if base.password().is_some()
            || !base.username().is_empty()
            || base.query().is_some()
            || base.fragment().is_some()
        {
            return Err(wrong("name no login, query or fragment in it"));
        }
        let here = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if base.scheme() == "http" && !here {
            return Err(wrong("use https://: the password would be sent in clear; http:// is for this machine alone"));
        }
        let (username, password_file) = (username.clone(), password_file.clone());
        Ok(Self { base, username, password_file, patience, client: OnceLock::new(), sender: OnceLock::new() })
    }

    /// The address of what has these names, from the collection on.
    pub(super) fn url(&self, names: &[String]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(names);
        }
        url
    }

    /// Sends a request once. An answer of any status is `Ok`.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, SnapshotError> {
        let client = made(&self.client, Some(self.patience.silence), url)?;
        let password = self.password().await?;
        let request = client.request(method, url.clone()).basic_auth(&self.username, Some(password.as_str()));
        with(request).send().await.map_err(|error| unreachable(&error, url))
    }

    /// Sends a long body. It fails when the server neither takes more of it nor answers, however long the whole may take.
    pub(super) async fn send_long(
        &self,
        method: Method,
        url: &Url,
        body: Body,
        pulse: &Pulse,
    ) -> Result<Response, SnapshotError> {
        let client = made(&self.sender, None, url)?;
        let password = self.password().await?;
        let request = client.request(method, url.clone()).basic_auth(&self.username, Some(password.as_str()));
        let (sent, silence) = (pin!(request.body(body).send()), pin!(pulse.silence(self.patience.silence)));
        match select(sent, silence).await {
            Either::Left((answer, _)) => answer.map_err(|error| unreachable(&error, url)),
            Either::Right(_) => {
                let message = format!("the server takes nothing for {} s", self.patience.silence.as_secs());
                Err(SnapshotError::Unreachable { location: url.to_string(), message })
            }
        }
    }

    /// Removes what is there, if it is there.
    pub(super) async fn delete(&self, url: &Url) -> Result<(), SnapshotError> {
        let delete = || async {
            let answer = self.send(Method::DELETE, url, |request| request).await?;
            match answer.status() {
                // RFC 4918, 9.6.1: some of what is in a collection could not be removed.
                StatusCode::MULTI_STATUS => Err(SnapshotError::Unexpected {
                    location: url.to_string(),
                    message: "not all that is in it could be removed".to_owned(),
                }),
                status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
                _ => Err(failed(&answer, url)),
            }
        };
        self.patience.retry(delete).await
    }

    /// Read for each request: a file that is mounted may change.
    async fn password(&self) -> Result<Zeroizing<String>, SnapshotError> {
        let file = self.password_file.clone();
        let unusable = |why: String| SnapshotError::KeyFile { file: self.password_file.display().to_string(), why };
        let text = tokio::task::spawn_blocking(move || private::read(&file)).await;
        let text = text.unwrap_or_else(|error| Err(unusable(error.to_string())))?;
        let first = text.lines().next().unwrap_or_default();
        match first.is_empty() {
            true => Err(unusable("its first line is empty".to_owned())),
            false => Ok(Zeroizing::new(first.to_owned())),
        }
    }
}

/// A client that follows no redirection: the password is for this server.
fn made<'a>(client: &'a OnceLock<Client>, silence: Option<Duration>, url: &Url) -> Result<&'a Client, SnapshotError> {
    if let Some(client) = client.get() {
        return Ok(client);
    }
    let builder = Client::builder().redirect(redirect::Policy::none()).connect_timeout(CONNECT);
    let builder = silence.into_iter().fold(builder, ClientBuilder::read_timeout);
    let made = builder.build();
    let made =
        made.map_err(|error| SnapshotError::Unexpected { location: url.to_string(), message: error.to_string() })?;
    Ok(client.get_or_init(|| made))
}

/// A method that HTTP itself does not name.
pub(super) fn method(name: &[u8]) -> Result<Method, SnapshotError> {
    Method::from_bytes(name)
        .map_err(|error| SnapshotError::Unexpected { location: "WebDAV".to_owned(), message: error.to_string() })
}

/// There was no answer, or it broke off.
pub(super) fn unreachable(error: &reqwest::Error, url: &Url) -> SnapshotError {
    let mut message = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        // The address is said beside it.
        message = error.to_string();
        next = error.source();
    }
    SnapshotError::Unreachable { location: url.to_string(), message }
}

/// What an answer means that is no success.
pub(super) fn failed(answer: &Response, url: &Url) -> SnapshotError {
    let (status, location) = (answer.status(), url.to_string());
    let message = format!("the server answered {status}");
    match status.as_u16() {
        401 => {
            SnapshotError::Denied { location, message: format!("{message}: it does not know this user and password") }
        }
        403 => SnapshotError::Denied { location, message },
        404 => SnapshotError::NotThere { location },
        412 => SnapshotError::Changed { location },
        413 | 507 => SnapshotError::Full { location, message },
        300..=399 => {
            let to = answer.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let message = format!("{message}, and points to {to}: no redirection is followed, name the right address");
            SnapshotError::Unexpected { location, message }
        }
        423 | 425 | 429 | 500 | 502..=504 => SnapshotError::Unreachable { location, message },
        _ => SnapshotError::Unexpected { location, message },
    }
}
