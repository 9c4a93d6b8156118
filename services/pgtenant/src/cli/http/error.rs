//! Answers that are no success, and answers that never came.

use std::error::Error as _;
use std::time::Duration;

use pgtenant_model::InvalidField;
use serde::Deserialize;

/// An RFC 9457 problem, as far as the command line reads it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Problem {
    /// A URI that ends with a stable slug.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The same for every problem of the type.
    pub(crate) title: String,
    /// HTTP status.
    pub(crate) status: u16,
    /// What is wrong this time.
    pub(crate) detail: String,
    /// Finds the request in the log.
    pub(crate) request_id: Option<String>,
    /// Fields that can not be used, or parts that do not work.
    pub(crate) errors: Vec<InvalidField>,
}

impl Problem {
    /// The end of the type, as `not-found`.
    pub(crate) fn slug(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or_default()
    }

    fn text(&self) -> String {
        if !self.errors.is_empty() {
            let fields = self.errors.iter().map(|e| format!("\n{}: {}", e.field, e.message));
            return std::iter::once(self.title.clone()).chain(fields).collect();
        }
        match (self.detail.as_str(), self.title.as_str()) {
            ("", "") => format!("the control plane answered {}", self.status),
            ("", title) => title.to_owned(),
            (detail, _) => detail.to_owned(),
        }
    }
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The control plane says why not.
    #[error("{}", .0.text())]
    Problem(Box<Problem>),
    /// Something that is not the control plane answered, or it broke.
    #[error("{url} answered {status}{}", if .text.is_empty() { String::new() } else { format!(": {}", .text) })]
    Status {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the body.
        text: String,
    },
    /// Nobody listens, or the name is unknown, or TLS failed.
    #[error("can not connect to {url}: {cause}")]
    Connect {
        /// What was asked.
        url: String,
        /// The innermost reason.
        cause: String,
    },
    /// No answer in time.
    #[error("{url} did not answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// What was asked.
        url: String,
        /// `--timeout`.
        after: Duration,
    },
    /// The connection broke.
    #[error("the connection to {url} broke: {cause}")]
    Broken {
        /// What was asked.
        url: String,
        /// The innermost reason.
        cause: String,
    },
    /// More than anybody would send.
    #[error("the answer of {url} has more than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// Bytes.
        limit: usize,
    },
    /// Not what is expected.
    #[error("the answer of {url} can not be understood: {cause}")]
    Unexpected {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl HttpError {
    /// Sorts what the HTTP library says.
    pub(crate) fn from_reqwest(error: &reqwest::Error, url: &reqwest::Url, after: Duration) -> Self {
        let url = url.to_string();
        if error.is_timeout() {
            return Self::Timeout { url, after };
        }
        let mut cause = error.source();
        while let Some(inner) = cause.and_then(std::error::Error::source) {
            cause = Some(inner);
        }
        let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
        if error.is_connect() { Self::Connect { url, cause } } else { Self::Broken { url, cause } }
    }

    /// The problem's type, as `not-found`; empty where there is none.
    pub(crate) fn slug(&self) -> &str {
        match self {
            Self::Problem(problem) => problem.slug(),
            _ => "",
        }
    }

    /// Whether there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.status == 404)
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Problem(problem) => matches!(problem.status, 408 | 429 | 502..=504),
            Self::Status { status, .. } => matches!(status, 408 | 429 | 502..=504),
            Self::Timeout { .. } | Self::Broken { .. } => true,
            Self::Connect { .. } | Self::TooLarge { .. } | Self::Unexpected { .. } => false,
        }
    }

    /// What to do about it.
    pub(crate) fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Connect { .. } => {
                "check PGTENANT_URL (or --url); on this machine `pgtenant dev` starts a control plane, \
                                    and `. DIR/env` sets PGTENANT_URL and PGTENANT_TOKEN"
            }
            Self::Timeout { .. } => "a longer --timeout may help; `curl $PGTENANT_URL/readyz` says whether it is well",
            Self::Status { status: 300..=399, .. } => {
                "redirects are not followed; set PGTENANT_URL to the final address"
            }
            Self::Status { .. } | Self::Unexpected { .. } => "check that PGTENANT_URL points to pgtenant itself",
            Self::Broken { .. } | Self::TooLarge { .. } => return Vec::new(),
            Self::Problem(problem) => return problem_hints(problem),
        };
        vec![hint.to_owned()]
    }
}

fn problem_hints(problem: &Problem) -> Vec<String> {
    let hint = match (problem.slug(), problem.status) {
        (_, 401) => {
            "set PGTENANT_TOKEN (or PGTENANT_TOKEN_FILE); `pgtenant dev` writes one into DIR/env, and the platform \
             team makes others with `pgtenant token create`"
        }
        (_, 403) => "use a token whose role and namespaces allow it; see `pgtenant token list`",
        ("database-exists", _) => "`pgtenant db get` shows it; `pgtenant db update` changes it",
        ("protected", _) => "`pgtenant db update NS/NAME --mode standard` first, or `pgtenant db release` to keep it",
        ("other-door", _) => "change it where it is defined, or `pgtenant db release` it first",
        ("retained", _) => "`pgtenant db adopt` takes it back under its passwords",
        ("precondition-failed", _) => {
            "somebody changed it at the same moment; look with `pgtenant db get`, then repeat"
        }
        (_, 500..) => {
            let Some(id) = &problem.request_id else { return Vec::new() };
            return vec![format!("the log of the control plane has the cause, under request {id}")];
        }
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_shown_one_by_one() {
        let problem: Problem = serde_json::from_str(
            r#"{"type":"https://pgtenant.io/problems/invalid-fields","title":"A field can not be used","status":422,
                "detail":"schemas[0]: no; cluster: no","errors":[{"field":"schemas[0]","message":"no"},
                {"field":"cluster","message":"there is none"}]}"#,
        )
        .unwrap();
        let error = HttpError::Problem(Box::new(problem));
        assert_eq!(error.slug(), "invalid-fields");
        assert_eq!(error.to_string(), "A field can not be used\nschemas[0]: no\ncluster: there is none");
    }
}
