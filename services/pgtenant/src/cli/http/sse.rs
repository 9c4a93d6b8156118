//! Server-sent events.

use std::collections::VecDeque;

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};

use super::{Client, HttpError};

/// An event with its data has about 1 kB.
const MAX_MESSAGE: usize = 1024 * 1024;

/// One message of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// To go on from.
    pub(crate) id: Option<String>,
    /// Usually JSON.
    pub(crate) data: String,
}

/// What a stream is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A message.
    Message(Message),
    /// Everything that was there has been sent; what follows is new.
    CaughtUp,
}

/// The comment that says so.
const CAUGHT_UP: &[u8] = b": caught-up";

/// An open stream.
#[derive(Debug)]
pub(crate) struct EventStream {
    response: reqwest::Response,
    parser: Parser,
}

impl Client {
    /// Opens the stream of events.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(crate) async fn events(&self, query: &[(&str, &str)], last: Option<&str>) -> Result<EventStream, HttpError> {
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/event-stream"))]);
        if let Some(last) = last.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("last-event-id", last);
        }
        let response = self.open(&["v1", "events"], query, headers).await?;
        Ok(EventStream { response, parser: Parser::default() })
    }
}

impl EventStream {
    /// The next message; none: the server has ended the stream. Cancelling loses nothing.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>, HttpError> {
        loop {
            match self.item().await? {
                Some(Item::Message(message)) => return Ok(Some(message)),
                Some(Item::CaughtUp) => {}
                None => return Ok(None),
            }
        }
    }

    /// The same, and where the news begin.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn item(&mut self) -> Result<Option<Item>, HttpError> {
        let url = self.response.url().clone();
        loop {
            if let Some(item) = self.parser.ready.pop_front() {
                return Ok(Some(item));
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|error| HttpError::from_reqwest(&error, &url, std::time::Duration::ZERO))? {
                Some(bytes) => self.parser.feed(&bytes),
                None => return Ok(None),
            }
            if self.parser.pending() > MAX_MESSAGE {
                return Err(HttpError::TooLarge { url: url.to_string(), limit: MAX_MESSAGE });
            }
        }
    }
}

/// Cuts bytes into messages, as the HTML standard's "event stream interpretation" says.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    message: Message,
    after_return: bool,
    ready: VecDeque<Item>,
}

impl Parser {
    fn pending(&self) -> usize {
        self.line.len() + self.message.data.len()
    }

    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let follows_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if follows_return => {}
                b'\n' | b'\r' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let mut message = std::mem::take(&mut self.message);
            if message.data.pop().is_some() {
                self.ready.push_back(Item::Message(message));
            }
            return;
        }
        if line == CAUGHT_UP {
            self.ready.push_back(Item::CaughtUp);
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.message.data.push_str(value);
                self.message.data.push('\n');
            }
            "id" => self.message.id = Some(value.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, step: usize) -> Vec<Item> {
        let mut parser = Parser::default();
        for bytes in text.as_bytes().chunks(step) {
            parser.feed(bytes);
        }
        parser.ready.into()
    }

    #[test]
    fn messages_are_cut_wherever_the_bytes_are() {
        let text = ": hello\r\n\r\nid: 7\nevent: Ready\ndata: {\"a\":\ndata: 1}\n\n: caught-up\n\nretry: 5\n\nid: 8\rdata:x\r\rdata: half";
        for step in [1, 2, 3, 5, 1000] {
            let messages = parse(text, step);
            assert_eq!(
                messages,
                [
                    Item::Message(Message { id: Some("7".into()), data: "{\"a\":\n1}".into() }),
                    Item::CaughtUp,
                    Item::Message(Message { id: Some("8".into()), data: "x".into() }),
                ],
                "step {step}"
            );
        }
    }
}
