//! Texts of others, as they are passed on.

use std::error::Error;

/// An error and its causes; what a cause only repeats is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Without line breaks, and cut.
pub(crate) fn one_line(text: &str) -> String {
    /// As an admission webhook or AWS may say at most.
    const LONGEST: usize = 400;
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}
