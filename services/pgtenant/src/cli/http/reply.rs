//! Answers.

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::HttpError;

/// Any JSON document with its keys in the order in which they came, to be printed unchanged.
pub(crate) type Document = serde_yaml_ng::Value;

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// What was asked.
    pub(crate) url: String,
    /// HTTP status.
    pub(crate) status: u16,
    /// `Pgtenant-Operation`.
    pub(crate) operation: Option<Uuid>,
    /// `ETag`.
    pub(crate) etag: Option<String>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The body as it came.
    ///
    /// # Errors
    /// It is not JSON.
    pub(crate) fn document(&self) -> Result<Document, HttpError> {
        self.read()
    }

    /// The body as a `T`.
    ///
    /// # Errors
    /// It is not JSON, or not a `T`.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| HttpError::Unexpected { url: self.url.clone(), cause: error.to_string() })
    }
}
