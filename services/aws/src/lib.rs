//! How Amazon is reached: who pgtenant is there, and where.
//!
//! Credentials come from the SDK's default chain (environment, profile, web identity as IRSA has it, container as Pod Identity
//! has it, instance metadata), endpoints from `AWS_ENDPOINT_URL` and its kin. Nothing of either is in pgtenant's own settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_smithy_http_client::tls;
use tokio::sync::OnceCell;

/// For one try of one call, from the first byte sent to the last received.
const ATTEMPT: Duration = Duration::from_secs(3);
/// For a call with all its tries: shorter than the engine's lease of 15 s.
const CALL: Duration = Duration::from_secs(8);
const ATTEMPTS: u32 = 4;
/// Between two tries of one call. Adaptive retries would wait 10 s after a single answer that throttles a quiet client: longer
/// than the call may take.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Amazon as this process reaches it. Clones share what was loaded; nothing is loaded before it is first needed, so that who
/// does not use Amazon never waits for its metadata service.
#[derive(Clone, Default)]
pub struct Aws {
    stand_in: Option<Arc<StandIn>>,
    loaded: Arc<OnceCell<SdkConfig>>,
}

/// Something on this machine that plays Amazon, for tests and `pgtenant dev`. Its keys open nothing.
#[derive(Clone)]
pub struct StandIn {
    /// Of every service: `http://127.0.0.1:5000`.
    pub url: String,
    /// The region where none is named.
    pub region: String,
    /// Any.
    pub access_key_id: String,
    /// Any.
    pub secret_access_key: String,
}

impl Aws {
    /// A stand-in in the place of Amazon.
    #[must_use]
    pub fn stand_in(stand_in: StandIn) -> Self {
        Self { stand_in: Some(Arc::new(stand_in)), loaded: Arc::default() }
    }

    /// Whether something plays Amazon: what the environment says of endpoints is none of its business.
    #[must_use]
    pub fn is_stand_in(&self) -> bool {
        self.stand_in.is_some()
    }

    /// The configuration for `region`; none: the region of the environment or the profile.
    pub async fn config(&self, region: Option<&str>) -> SdkConfig {
        let config = self.loaded.get_or_init(|| load(self.stand_in.as_deref())).await;
        match region {
            Some(region) => config.to_builder().region(Region::new(region.to_owned())).build(),
            None => config.clone(),
        }
    }
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stand_in = self.stand_in.as_ref().map(|one| &one.url);
        f.debug_struct("Aws").field("stand_in", &stand_in).field("loaded", &self.loaded.initialized()).finish()
    }
}

async fn load(stand_in: Option<&StandIn>) -> SdkConfig {
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let http = aws_smithy_http_client::Builder::new().tls_provider(provider).build_https();
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::adaptive().with_max_attempts(ATTEMPTS).with_max_backoff(LONGEST_WAIT))
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).operation_timeout(CALL).build());
    stand_in.into_iter().fold(loader, at).load().await
}

fn at(loader: ConfigLoader, StandIn { url, region, access_key_id, secret_access_key }: &StandIn) -> ConfigLoader {
    let keys = Credentials::new(access_key_id, secret_access_key, None, None, "a stand-in for Amazon");
    loader.endpoint_url(url).region(Region::new(region.clone())).credentials_provider(keys)
}
