//! Bytes between async code and a thread, with a bound, in both directions.
//!
//! An end has to be said: a writer that goes away without it has broken off, and nobody takes what it wrote for the whole.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use futures::{Stream, stream};
use tokio::sync::mpsc;

/// What goes through in one piece, in bytes: large enough that waking the other end costs nothing.
pub(crate) const PIECE: usize = 256 << 10;
/// Pieces on the way: 1 MiB.
const ON_THE_WAY: usize = 4;

enum Item {
    Piece(Bytes),
    End,
    Failed(io::Error),
}

/// The end to write to.
#[derive(Clone)]
pub(crate) struct PipeWriter(mpsc::Sender<Item>);

/// The end to read from.
pub(crate) struct PipeReader {
    items: mpsc::Receiver<Item>,
    over: bool,
    rest: Bytes,
}

/// The other end is not there any more: what it has to say is said elsewhere.
#[derive(Debug)]
pub(crate) struct Gone;

impl From<Gone> for io::Error {
    fn from(_: Gone) -> Self {
        Self::new(io::ErrorKind::BrokenPipe, "the other end has gone away")
    }
}

pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, items) = mpsc::channel(ON_THE_WAY);
    (PipeWriter(sender), PipeReader { items, over: false, rest: Bytes::new() })
}

impl PipeWriter {
    pub(crate) async fn send(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.0.send(Item::Piece(piece)).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Ends the stream as whole, or with the error that it broke off with.
    pub(crate) async fn end(self, result: Result<(), io::Error>) -> Result<(), Gone> {
        self.0.send(last(result)).await.map_err(|_| Gone)
    }

    /// As `send`, on a thread of its own.
    pub(crate) fn send_blocking(&self, piece: Bytes) -> Result<(), Gone> {
        self.0.blocking_send(Item::Piece(piece)).map_err(|_| Gone)
    }

    /// As `end`, on a thread of its own.
    pub(crate) fn end_blocking(self, result: Result<(), io::Error>) -> Result<(), Gone> {
        self.0.blocking_send(last(result)).map_err(|_| Gone)
    }
}

fn last(result: Result<(), io::Error>) -> Item {
    match result {
        Ok(()) => Item::End,
        Err(error) => Item::Failed(error),
    }
}

impl PipeReader {
    /// The next piece; none: the end was said.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.over {
            return None;
        }
        let item = self.items.recv().await;
        self.take(item)
    }

    /// As `next`, on a thread of its own.
    pub(crate) fn next_blocking(&mut self) -> Option<io::Result<Bytes>> {
        if self.over {
            return None;
        }
        let item = self.items.blocking_recv();
        self.take(item)
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(self, |mut reader| async move { reader.next().await.map(|item| (item, reader)) })
    }

    fn take(&mut self, item: Option<Item>) -> Option<io::Result<Bytes>> {
        self.over = !matches!(item, Some(Item::Piece(_)));
        match item {
            Some(Item::Piece(piece)) => Some(Ok(piece)),
            Some(Item::End) => None,
            Some(Item::Failed(error)) => Some(Err(error)),
            None => Some(Err(Gone.into())),
        }
    }
}

/// On a thread of its own.
impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.next_blocking() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_that_was_not_said_is_none() {
        let (writer, mut reader) = pipe();
        writer.send(Bytes::from_static(b"half")).await.unwrap();
        drop(writer);
        assert_eq!(reader.next().await.unwrap().unwrap(), "half");
        assert_eq!(reader.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(reader.next().await.is_none());

        let (writer, mut reader) = pipe();
        writer.end(Ok(())).await.unwrap();
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_writer_waits_for_the_reader() {
        let (writer, mut reader) = pipe();
        let all = Bytes::from(vec![7; PIECE * (ON_THE_WAY + 2)]);
        let sent = tokio::spawn(async move { writer.send(all).await });
        tokio::task::yield_now().await;
        assert!(!sent.is_finished(), "more is on the way than there is room for");
        let mut length = 0;
        while let Some(Ok(piece)) = reader.next().await {
            assert!(piece.len() <= PIECE);
            length += piece.len();
        }
        assert_eq!(length, PIECE * (ON_THE_WAY + 2));
        sent.await.unwrap().unwrap();
    }
}
