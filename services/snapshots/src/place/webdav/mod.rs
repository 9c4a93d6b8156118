//! Dumps on a WebDAV server (RFC 4918), as Nextcloud is one.
//!
//! An object is sent as it comes, in chunks, under a temporary name; when the server has all of it, it is moved to its own. A
//! stream can not be sent twice: when the server goes away in the middle the part has failed, and whoever has the database can
//! make it again.

mod listing;
mod pulse;
mod server;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use pgtenant_model::{InvalidField, WebDavPlace};
use rand::Rng as _;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, LAST_MODIFIED, RANGE};
use reqwest::{Body as RequestBody, Method, Response, StatusCode, Url};

use self::listing::{Found, MOST_BYTES};
use self::pulse::Pulse;
use self::server::{Server, failed};
use super::cleanup::Cleanup;
use super::{Body, BoxFuture, Entry, Opened, Place};
use crate::object::ObjectPath;
use crate::pipe::PipeReader;
use crate::{Access, SnapshotError};

/// Folders that are remembered to be there; a bound for memory.
const REMEMBERED: usize = 1000;

/// A collection of a server.
#[derive(Debug)]
pub(crate) struct WebDav {
    server: Arc<Server>,
    /// Folders of dumps that this process has made.
    made: Mutex<HashSet<String>>,
}

impl WebDav {
    pub(crate) fn new(spec: &WebDavPlace, access: &Access) -> Result<Self, InvalidField> {
        Ok(Self { server: Arc::new(Server::new(spec, access.patience)?), made: Mutex::default() })
    }

    /// Makes the folder of an object, and those above it.
    async fn make_folders(&self, path: &ObjectPath) -> Result<(), SnapshotError> {
        let (folders, _) = path.split();
        let whole = folders.join("/");
        if self.made().contains(&whole) {
            return Ok(());
        }
        for depth in 1..=folders.len() {
            let url = self.server.url(&folders[..depth]);
            self.server.patience.retry(|| self.make_folder(&url)).await?;
        }
        let mut made = self.made();
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(whole);
        Ok(())
    }

    async fn make_folder(&self, url: &Url) -> Result<(), SnapshotError> {
        let answer = self.server.send(server::method(b"MKCOL")?, url, |request| request).await?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::OK => Ok(()),
            // RFC 4918, 9.3.1: on what is there already.
            StatusCode::METHOD_NOT_ALLOWED => Ok(()),
            StatusCode::CONFLICT => {
                let message =
                    "there is no collection to make it in: make the one that backups.dumps.to.webDav.url names";
                Err(SnapshotError::Unexpected { location: url.to_string(), message: message.to_owned() })
            }
            _ => Err(failed(&answer, url)),
        }
    }

    fn made(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes under another name, and moves that.
    async fn write(&self, path: &ObjectPath, content: Content) -> Result<(), SnapshotError> {
        self.make_folders(path).await?;
        let (folders, name) = path.split();
        let target = self.server.url(path.names());
        let beside = format!(".{name}.{:016x}.tmp", rand::rng().next_u64());
        let beside = self.server.url(&[folders, &[beside]].concat());
        let cleanup = {
            let (server, beside) = (Arc::clone(&self.server), beside.clone());
            Cleanup::new(async move {
                // What can not be removed is found later, with the dump that was never finished.
                let _ = server.delete(&beside).await;
            })
        };
        let written = async {
            let sent = self.send(&beside, content).await?;
            self.check_length(&beside, sent).await?;
            self.server.patience.retry(|| self.rename(&beside, &target)).await
        };
        cleanup.after(written.await).await
    }

    /// Says how many bytes were sent.
    async fn send(&self, url: &Url, content: Content) -> Result<u64, SnapshotError> {
        match content {
            Content::Small(bytes) => {
                let put = || async {
                    let body = bytes.clone();
                    let answer = self.server.send(Method::PUT, url, |request| request.body(body)).await?;
                    if answer.status().is_success() { Ok(()) } else { Err(failed(&answer, url)) }
                };
                self.server.patience.retry(put).await?;
                Ok(bytes.len() as u64)
            }
            Content::Stream(body) => {
                let pulse = Pulse::new();
                let body = RequestBody::wrap_stream(pulse.watch(body.into_stream()));
                let answer = self.server.send_long(Method::PUT, url, body, &pulse).await?;
                if answer.status().is_success() { Ok(pulse.bytes()) } else { Err(failed(&answer, url)) }
            }
        }
    }

    /// Some servers take a body in chunks and keep nothing of it.
    async fn check_length(&self, url: &Url, sent: u64) -> Result<(), SnapshotError> {
        let found = self.server.patience.retry(|| self.find(url, "0")).await?;
        let kept = found.iter().find_map(|one| one.bytes);
        match kept {
            Some(kept) if kept == sent => Ok(()),
            _ => {
                let kept = kept.map_or_else(|| "an unknown number".to_owned(), |kept| kept.to_string());
                let message = format!(
                    "the server has taken {sent} bytes and keeps {kept}: look whether it, or a proxy before it, takes bodies in chunks"
                );
                Err(SnapshotError::Unexpected { location: url.to_string(), message })
            }
        }
    }

    /// RFC 4918, 9.9: `Overwrite: T`, as a try whose answer was lost has moved it already.
    async fn rename(&self, from: &Url, to: &Url) -> Result<(), SnapshotError> {
        let destination = to.as_str().to_owned();
        let headers =
            |request: reqwest::RequestBuilder| request.header("Destination", destination).header("Overwrite", "T");
        let answer = self.server.send(server::method(b"MOVE")?, from, headers).await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => self.find(to, "0").await.map(drop),
            _ => Err(failed(&answer, from)),
        }
    }

    /// RFC 4918, 9.1: what is at `url` and, with depth 1, directly below.
    async fn find(&self, url: &Url, depth: &'static str) -> Result<Vec<Found>, SnapshotError> {
        let asks = |request: reqwest::RequestBuilder| {
            request.header("Depth", depth).header("Content-Type", "application/xml").body(listing::QUERY)
        };
        let answer = self.server.send(server::method(b"PROPFIND")?, url, asks).await?;
        if answer.status() != StatusCode::MULTI_STATUS {
            return Err(failed(&answer, url));
        }
        let unexpected = |message: String| SnapshotError::Unexpected { location: url.to_string(), message };
        let mut text = Vec::new();
        let mut body = answer.bytes_stream();
        while let Some(piece) = body.next().await {
            text.extend_from_slice(&piece.map_err(|error| server::unreachable(&error, url))?);
            if text.len() > MOST_BYTES {
                return Err(unexpected(format!("the list has more than {MOST_BYTES} bytes")));
            }
        }
        listing::read(&text, url).map_err(unexpected)
    }

    async fn entries(&self, folder: &ObjectPath) -> Result<Vec<Entry>, SnapshotError> {
        let url = self.server.url(folder.names());
        let found = match self.server.patience.retry(|| self.find(&url, "1")).await {
            Err(SnapshotError::NotThere { .. }) => return Ok(Vec::new()),
            found => found?,
        };
        let below = found.into_iter().filter_map(|one| Some(Entry { name: one.name?, bytes: one.bytes }));
        Ok(below.collect())
    }

    async fn open(&self, path: &ObjectPath, from: u64, version: Option<&str>) -> Result<Opened, SnapshotError> {
        let url = self.server.url(path.names());
        let headers = |mut request: reqwest::RequestBuilder| {
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            match version.filter(|version| is_strong(version)) {
                Some(etag) => request.header(IF_MATCH, etag),
                None => request,
            }
        };
        let answer = self.server.send(Method::GET, &url, headers).await?;
        let opened = self.opened(answer, &url, from)?;
        match (version, &opened.version) {
            (Some(version), Some(found)) if version != found => {
                Err(SnapshotError::Changed { location: self.location(path) })
            }
            _ => Ok(opened),
        }
    }

    fn opened(&self, answer: Response, url: &Url, from: u64) -> Result<Opened, SnapshotError> {
        let unexpected =
            |message: &str| SnapshotError::Unexpected { location: url.to_string(), message: message.to_owned() };
        let headers = answer.headers();
        let (length, skip) = match answer.status() {
            // The whole, from a server that knows no ranges: what is known already is left out.
            StatusCode::OK => (number(headers, CONTENT_LENGTH.as_str(), ""), from),
            StatusCode::PARTIAL_CONTENT => {
                let begins =
                    text(headers, CONTENT_RANGE.as_str()).is_some_and(|it| it.starts_with(&format!("bytes {from}-")));
                if !begins {
                    return Err(unexpected("the server answered with another range than was asked for"));
                }
                (number(headers, CONTENT_RANGE.as_str(), "/"), 0)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(SnapshotError::Changed { location: url.to_string() }),
            _ => return Err(failed(&answer, url)),
        };
        let length = length.ok_or_else(|| unexpected("the server does not say how long it is"))?;
        let version = text(headers, ETAG.as_str()).or_else(|| text(headers, LAST_MODIFIED.as_str()));
        let of = url.clone();
        let body = answer.bytes_stream().map_err(move |error| server::unreachable(&error, &of));
        Ok(Opened { body: without_first(body.boxed(), skip), length, version })
    }
}

/// What is written.
enum Content {
    Small(Bytes),
    Stream(PipeReader),
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The number that is the header or, in it, follows `after`.
fn number(headers: &HeaderMap, name: &str, after: &str) -> Option<u64> {
    let text = text(headers, name)?;
    let digits = if after.is_empty() { text.as_str() } else { text.rsplit_once(after)?.1 };
    digits.parse().ok()
}

/// RFC 9110, 13.1.1: only those can be compared by the server.
fn is_strong(version: &str) -> bool {
    version.starts_with('"')
}

fn without_first(body: Body, mut skip: u64) -> Body {
    body.try_filter_map(move |mut piece| {
        let cut = skip.min(piece.len() as u64);
        skip -= cut;
        let rest = piece.split_off(usize::try_from(cut).unwrap_or(usize::MAX));
        async move { Ok((!rest.is_empty()).then_some(rest)) }
    })
    .boxed()
}

impl Place for WebDav {
    fn location(&self, path: &ObjectPath) -> String {
        self.server.url(path.names()).to_string()
    }

    fn put<'a>(&'a self, path: &'a ObjectPath, body: PipeReader) -> BoxFuture<'a, ()> {
        Box::pin(self.write(path, Content::Stream(body)))
    }

    fn put_small<'a>(&'a self, path: &'a ObjectPath, body: Bytes) -> BoxFuture<'a, ()> {
        Box::pin(self.write(path, Content::Small(body)))
    }

    fn get<'a>(&'a self, path: &'a ObjectPath, from: u64, version: Option<&'a str>) -> BoxFuture<'a, Opened> {
        Box::pin(self.open(path, from, version))
    }

    fn list<'a>(&'a self, folder: &'a ObjectPath) -> BoxFuture<'a, Vec<Entry>> {
        Box::pin(self.entries(folder))
    }

    fn remove<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, ()> {
        let url = self.server.url(path.names());
        Box::pin(async move { self.server.delete(&url).await })
    }

    fn remove_all<'a>(&'a self, folder: &'a ObjectPath) -> BoxFuture<'a, ()> {
        self.made().remove(&folder.names().join("/"));
        let url = self.server.url(folder.names());
        // RFC 4918, 9.6.1: with all that is in it.
        Box::pin(async move { self.server.delete(&url).await })
    }
}
