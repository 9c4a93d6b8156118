//! What AWS says when it refuses, and what to do about it.

use std::error::Error as StdError;
use std::time::Duration;

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};

use crate::Fault;
use crate::text::{chain, one_line};

/// Amazon refused, or did not answer.
///
/// It keeps no part of a request or an answer but AWS's own words about the fault: those quote names and ARNs, no secrets.
#[derive(Debug, Clone)]
pub struct AwsFault {
    /// The call as IAM names it: `secretsmanager:CreateSecret`.
    action: &'static str,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// It said so: the error's code and text.
    Said { code: String, message: String },
    /// It never answered, or nobody knows who asks it.
    Silent(String),
    /// It answered again and again as if what was just done had not been.
    Unsettled,
}

impl AwsFault {
    /// The fault of a call.
    pub(super) fn of<E, R>(action: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let what = match error {
            SdkError::ServiceError(said) => What::Said {
                code: said.err().code().unwrap_or("an error without a code").to_owned(),
                message: one_line(said.err().message().unwrap_or_default()),
            },
            // Adaptive retries wait ever longer while AWS throttles.
            SdkError::TimeoutError(_) => {
                What::Silent("it did not answer in time, or throttled the calls for too long".to_owned())
            }
            SdkError::DispatchFailure(failure) => What::Silent(one_line(&chain(
                failure.as_connector_error().map_or(error as &dyn StdError, |inner| inner),
            ))),
            // Its text could have what was answered in it.
            SdkError::ResponseError(_) => What::Silent("its answer can not be understood".to_owned()),
            error => What::Silent(one_line(&chain(error))),
        };
        Self { action, what }
    }

    /// No answer within all the time that there was.
    pub(super) fn late(action: &'static str, limit: Duration) -> Self {
        Self { action, what: What::Silent(format!("it was not done within {} s", limit.as_secs())) }
    }

    pub(super) fn unsettled(action: &'static str) -> Self {
        Self { action, what: What::Unsettled }
    }

    /// AWS said this code.
    pub(super) fn is(&self, wanted: &str) -> bool {
        self.code() == Some(wanted)
    }

    /// The error's code, where AWS said something.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &self.what {
            What::Said { code, .. } => Some(code),
            What::Silent(_) | What::Unsettled => None,
        }
    }

    /// Whether AWS said nothing, or that it is out of order.
    pub(crate) fn silent(&self) -> bool {
        match &self.what {
            What::Said { code, .. } => matches!(code.as_str(), "InternalServiceError" | "ServiceUnavailable"),
            What::Silent(_) => true,
            What::Unsettled => false,
        }
    }

    /// For people, in one line.
    pub(crate) fn text(&self) -> String {
        let action = self.action;
        match &self.what {
            What::Said { code, message } if message.is_empty() => format!("{action}: {code}"),
            What::Said { code, message } => format!("{action}: {code}: {message}"),
            What::Silent(why) => format!("{action}: {why}"),
            What::Unsettled => format!("{action}: AWS does not show yet what was done before"),
        }
    }

    /// What a person can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        let (code, message) = match &self.what {
            What::Silent(why) if why.contains("redential") => return CREDENTIALS,
            What::Silent(why) if why.contains("Missing Region") => return "set the store's region, or AWS_REGION",
            What::Silent(_) | What::Unsettled => return "nothing here; work goes on when AWS answers",
            What::Said { code, message } => (code.as_str(), message),
        };
        match code {
            _ if message.contains("kms:") || message.contains("KMS") => KMS,
            "AccessDeniedException" | "AccessDenied" => {
                "allow this action; `pgtenant aws iam-policy` prints the policy that pgtenant needs"
            }
            "DecryptionFailure" | "EncryptionFailure" => KMS,
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "IncompleteSignature" => CREDENTIALS,
            "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
                "nothing here; others in the account use up the quota of calls, work goes on more slowly"
            }
            "LimitExceededException" => {
                "have the account's quota of Secrets Manager raised, or remove what is not used"
            }
            "MalformedPolicyDocumentException" | "PublicPolicyException" => {
                "look at the store's `readers`: each must be the ARN of a role, user or account that exists"
            }
            "InternalServiceError" | "ServiceUnavailable" => "nothing here; work goes on when AWS is well",
            _ => "look at the store's settings and at what AWS says",
        }
    }
}

impl From<AwsFault> for Fault {
    fn from(fault: AwsFault) -> Self {
        Self::Aws(fault)
    }
}

const KMS: &str = "let pgtenant use the store's `kmsKeyId` (kms:Decrypt, kms:Encrypt, kms:GenerateDataKey, in its policy and the \
                   key's), and see that it is enabled";

const CREDENTIALS: &str = "give pgtenant credentials by IRSA, EKS Pod Identity, a profile or AWS_ACCESS_KEY_ID and \
                           AWS_SECRET_ACCESS_KEY, and see that they have not expired";
