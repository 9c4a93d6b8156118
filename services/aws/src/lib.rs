//! How Amazon is reached: who pgtenant is there, and where.
//!
//! Credentials come from the SDK's default chain (environment, profile, web identity as IRSA has it, container as Pod Identity
//! has it, instance metadata), endpoints from `AWS_ENDPOINT_URL` and its kin. Nothing of either is in pgtenant's own settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::tls;
use tokio::sync::OnceCell;

/// For one try of one call, from the first byte sent to the last received.
const ATTEMPT: Duration = Duration::from_secs(3);
/// For a call with all its tries: shorter than the engine's lease of 15 s.
const CALL: Duration = Duration::from_secs(8);
const ATTEMPTS: u32 = 4;

/// Amazon as this process reaches it. Clones share what was loaded; nothing is loaded before it is first needed, so that who
/// does not use Amazon never waits for its metadata service.
#[derive(Clone, Default)]
pub struct Aws {
    loaded: Arc<OnceCell<SdkConfig>>,
}

impl Aws {
    /// The configuration for `region`; none: the region of the environment or the profile.
    pub async fn config(&self, region: Option<&str>) -> SdkConfig {
        let config = self.loaded.get_or_init(load).await;
        match region {
            Some(region) => config.to_builder().region(Region::new(region.to_owned())).build(),
            None => config.clone(),
        }
    }
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws").field("loaded", &self.loaded.initialized()).finish()
    }
}

async fn load() -> SdkConfig {
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let http = aws_smithy_http_client::Builder::new().tls_provider(provider).build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::adaptive().with_max_attempts(ATTEMPTS))
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).operation_timeout(CALL).build())
        .load()
        .await
}
