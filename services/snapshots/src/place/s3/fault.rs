//! What S3 said, in our words.

use std::error::Error as _;

use object_store::Error;

use crate::SnapshotError;

/// The error of a request for `location` in the bucket `root`.
pub(super) fn of(error: &Error, root: &str, location: &str) -> SnapshotError {
    let text = chain(error);
    let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
    let message = said(&text);
    let location = location.to_owned();
    if code == "NoSuchBucket" {
        return SnapshotError::Unexpected { location: root.to_owned(), message: "there is no such bucket".to_owned() };
    }
    match error {
        Error::NotFound { .. } => SnapshotError::NotThere { location },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => SnapshotError::Denied { location, message },
        Error::Precondition { .. } | Error::NotModified { .. } => SnapshotError::Changed { location },
        // What the store says of itself and of the way to it is of one kind: only the text tells them apart.
        Error::Generic { .. } => match status(&text) {
            None if text.contains("redirect without LOCATION") => SnapshotError::Unexpected { location, message },
            Some(400) if text.contains("QuotaExceeded") => SnapshotError::Full { location, message },
            Some(507) => SnapshotError::Full { location, message },
            Some(429 | 500..) | None => SnapshotError::Unreachable { location, message },
            Some(_) => SnapshotError::Unexpected { location, message },
        },
        _ => SnapshotError::Unexpected { location, message },
    }
}

/// The error with all that caused it, each only once.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

/// Code and message of the store's own answer or, where there is none, what was seen.
fn said(text: &str) -> String {
    match (between(text, "<Code>", "</Code>"), between(text, "<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text.to_owned(),
    }
}

/// Of an answer that object_store shows as `status code: 503 Service Unavailable`.
fn status(text: &str) -> Option<u16> {
    between(text, "status code: ", " ").and_then(|digits| digits.trim_end_matches(':').parse().ok())
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}
