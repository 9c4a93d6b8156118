//! What a test can order to go wrong.

use std::collections::{BTreeMap, VecDeque};

/// What a call meets with.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// `ThrottlingException`, and nothing is done
    /// (<https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>, "throttles the request").
    Throttle,
    /// `AccessDeniedException` with the words that IAM has
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html>).
    Deny,
    /// Another error, and nothing is done. `InvalidRequestException` is what a secret that was restored a moment ago may still
    /// answer, since all operations are consistent after a while only
    /// (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html>).
    Refuse(&'static str, String),
    /// Nothing is done, and no answer comes.
    Ignore,
    /// It is done, and no answer comes: a timeout after the write took effect, which `ClientRequestToken` is for
    /// (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>).
    LoseAnswer,
    /// A read of everything as it was before the last change: "All Secrets Manager operations are eventually consistent"
    /// (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html>).
    Stale,
}

#[derive(Debug, Default)]
pub(super) struct Orders(BTreeMap<String, VecDeque<Trouble>>);

impl Orders {
    pub(super) fn add(&mut self, operation: &str, trouble: Trouble, times: usize) {
        self.0.entry(operation.to_owned()).or_default().extend(std::iter::repeat_n(trouble, times));
    }

    pub(super) fn next(&mut self, operation: &str) -> Option<Trouble> {
        self.0.get_mut(operation)?.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.values().all(VecDeque::is_empty)
    }
}

pub(super) fn denied(operation: &str, secret: Option<&str>) -> String {
    let resource = secret.unwrap_or("*");
    format!(
        "User: arn:aws:sts::123456789012:assumed-role/pgtenant/1 is not authorized to perform: secretsmanager:{operation} on \
         resource: {resource} because no identity-based policy allows the secretsmanager:{operation} action"
    )
}
