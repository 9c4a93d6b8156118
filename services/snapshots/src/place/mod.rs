//! Where dumps are kept: the little that every kind of place can do.

mod cleanup;
mod folder;
mod s3;
mod webdav;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use pgtenant_model::{DumpPlace, InvalidField};

use crate::object::ObjectPath;
use crate::pipe::PipeReader;
use crate::{Access, SnapshotError};

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SnapshotError>> + Send + 'a>>;

/// Bytes of an object.
pub(crate) type Body = BoxStream<'static, Result<Bytes, SnapshotError>>;

/// A place. Single requests are tried again here; a stream that breaks off is the caller's to go on with.
pub(crate) trait Place: Send + Sync + fmt::Debug {
    /// The name of an object for people, with the place.
    fn location(&self, path: &ObjectPath) -> String;

    /// Writes an object. Nothing is seen under its name before all of it is there, and durable; a failure leaves nothing there.
    fn put<'a>(&'a self, path: &'a ObjectPath, body: PipeReader) -> BoxFuture<'a, ()>;

    /// Writes a small object, in the place of what is there.
    fn put_small<'a>(&'a self, path: &'a ObjectPath, body: Bytes) -> BoxFuture<'a, ()>;

    /// Opens an object at a byte; where `version` is known, only if it is still that one.
    fn get<'a>(&'a self, path: &'a ObjectPath, from: u64, version: Option<&'a str>) -> BoxFuture<'a, Opened>;

    /// What is directly in a folder; nothing, where there is no folder.
    fn list<'a>(&'a self, folder: &'a ObjectPath) -> BoxFuture<'a, Vec<Entry>>;

    /// Removes a file, if it is there.
    fn remove<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, ()>;

    /// Removes a folder with what is in it, if it is there.
    fn remove_all<'a>(&'a self, folder: &'a ObjectPath) -> BoxFuture<'a, ()>;
}

/// An object that is being read.
pub(crate) struct Opened {
    pub(crate) body: Body,
    /// Of the whole object.
    pub(crate) length: u64,
    /// What changes when the object does.
    pub(crate) version: Option<String>,
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// None: it is a folder.
    pub(crate) bytes: Option<u64>,
}

/// The place of a spec. Nothing is read or written.
pub(crate) fn of(spec: &DumpPlace, access: &Access) -> Result<Arc<dyn Place>, InvalidField> {
    Ok(match spec {
        DumpPlace::Folder(spec) => Arc::new(folder::Folder::new(spec)?),
        DumpPlace::S3(spec) => Arc::new(s3::S3::new(spec, access)?),
        DumpPlace::WebDav(spec) => Arc::new(webdav::WebDav::new(spec, access)?),
    })
}

/// Reads an object of at most `most` bytes.
pub(crate) async fn get_small(place: &dyn Place, path: &ObjectPath, most: usize) -> Result<Bytes, SnapshotError> {
    let too_long = || SnapshotError::corrupt(place.location(path), format!("it has more than {most} bytes"));
    let Opened { mut body, length, .. } = place.get(path, 0, None).await?;
    if length > most as u64 {
        return Err(too_long());
    }
    let mut read = BytesMut::new();
    while let Some(piece) = body.next().await {
        read.extend_from_slice(&piece?);
        if read.len() > most {
            return Err(too_long());
        }
    }
    if read.len() as u64 != length {
        let message = format!("it ended after {} of {length} bytes", read.len());
        return Err(SnapshotError::Unreachable { location: place.location(path), message });
    }
    Ok(read.freeze())
}
