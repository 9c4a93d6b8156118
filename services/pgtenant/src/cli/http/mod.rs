//! REST as the command line speaks it.

mod client;
mod error;
mod page;
mod reply;
mod sse;

pub(crate) use client::{Client, ClientOptions};
pub(crate) use error::HttpError;
pub(crate) use reply::{Document, Reply};
pub(crate) use sse::{EventStream, Item, Message};
