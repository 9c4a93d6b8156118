//! What Kubernetes says when it refuses, and what to do about it.

use std::time::Duration;

use crate::text::{chain, one_line};

/// Kubernetes refused, or did not answer.
#[derive(Debug)]
pub enum KubernetesFault {
    /// It said so, or could not be reached.
    Said(Box<kube::Error>),
    /// Nothing came back within this time.
    Silent(Duration),
    /// Others changed the object each time between reading and writing it.
    Contended,
    /// Something is not allowed, as the API server says when it is asked; the text says what.
    Lacking(String),
}

impl KubernetesFault {
    /// The HTTP status, where there was one.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Said(error) => match &**error {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Silent(_) | Self::Contended | Self::Lacking(_) => None,
        }
    }

    /// Whether no API server said anything.
    pub(crate) fn silent(&self) -> bool {
        match self {
            Self::Said(error) => !matches!(**error, kube::Error::Api(_)),
            Self::Silent(_) => true,
            Self::Contended | Self::Lacking(_) => false,
        }
    }

    /// For people, in one line.
    pub(crate) fn text(&self) -> String {
        let text = match self {
            Self::Said(error) => match &**error {
                kube::Error::Api(status) => status.message.clone(),
                error => chain(error),
            },
            Self::Silent(limit) => format!("the API server did not answer within {} s", limit.as_secs()),
            Self::Contended => "somebody else changes it all the time".to_owned(),
            Self::Lacking(text) => text.clone(),
        };
        one_line(&text)
    }

    /// What a person can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        if matches!(self, Self::Lacking(_)) {
            return "give pgtenant's ServiceAccount the chart's ClusterRole";
        }
        let text = self.text();
        match self.code() {
            Some(403) if text.contains("exceeded quota") => "raise the namespace's ResourceQuota for secrets",
            Some(403) if text.contains("being terminated") => "nothing: the namespace is being deleted",
            Some(401 | 403) if !text.contains("denied the request") => {
                "give pgtenant's ServiceAccount the chart's ClusterRole in this namespace"
            }
            Some(404) => "create it; for an ExternalSecret, install the External Secrets Operator",
            Some(400..=499) => "look at what the API server, or its admission webhooks, do not allow",
            _ => "nothing here; work goes on when the API server answers",
        }
    }
}
