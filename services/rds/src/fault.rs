//! What RDS says when it refuses, and what to do about it.

use std::error::Error;

use aws_sdk_rds::error::{ProvideErrorMetadata, SdkError};

/// The longest text of RDS that is passed on.
const LONGEST: usize = 300;

/// A call that RDS refused, or did not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("RDS {call}: {message}{}", .code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default())]
pub struct RdsFault {
    /// The API's name of the call, as `DescribeDBClusters`.
    pub call: &'static str,
    /// As RDS spells it, as `DBClusterNotFoundFault`; none: no answer came.
    pub code: Option<String>,
    /// For people, in one line.
    pub message: String,
}

impl RdsFault {
    pub(crate) fn new<E, R>(call: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let code = error.code().map(ToOwned::to_owned);
        let message = match (error.message(), error) {
            (Some(said), _) => one_line(said),
            (None, SdkError::TimeoutError(_)) => "no answer in time".to_owned(),
            (None, error) => one_line(&chain(error)),
        };
        Self { call, code, message }
    }

    /// The permission that the call needs.
    #[must_use]
    pub fn action(&self) -> String {
        format!("rds:{}", self.call)
    }

    /// Whether RDS said nothing: it, or the way to it, is out of order.
    #[must_use]
    pub fn silent(&self) -> bool {
        self.code.is_none()
    }

    /// Whether RDS gave this code.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// What a person can do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        let Some(code) = self.code.as_deref() else {
            return "look at the way to RDS, at the region, and at where pgtenant's credentials for AWS come from; it is \
                    tried again"
                .to_owned();
        };
        match code {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                format!("allow {} for the role that pgtenant has", self.action())
            }
            "Throttling" | "ThrottlingException" | "RequestLimitExceeded" => {
                "nothing here: the account asks RDS too often, and it is tried again".to_owned()
            }
            "ExpiredToken" | "InvalidClientTokenId" | "SignatureDoesNotMatch" => {
                "look at where pgtenant's credentials for AWS come from".to_owned()
            }
            "DBClusterNotFoundFault" => {
                "look at clusterIdentifier and region, or let pgtenant make the cluster with create".to_owned()
            }
            other if other.contains("Quota") => "raise the account's quota at RDS".to_owned(),
            _ => "mend what RDS does not accept; it is tried again".to_owned(),
        }
    }
}

/// Everything that was said, each thing once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = inner.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_permission() {
        let fault = RdsFault {
            call: "CreateDBCluster",
            code: Some("AccessDenied".to_owned()),
            message: "User: x is not authorized".to_owned(),
        };
        assert_eq!(fault.to_string(), "RDS CreateDBCluster: User: x is not authorized (AccessDenied)");
        assert_eq!(fault.advice(), "allow rds:CreateDBCluster for the role that pgtenant has");
        assert!(!fault.silent());
    }

    #[test]
    fn texts_are_one_bounded_line() {
        assert_eq!(one_line("a\n  b\tc"), "a b c");
        assert_eq!(one_line(&"é".repeat(1000)).chars().count(), LONGEST);
    }
}
