//! Who pgtenant is to S3: as to the rest of Amazon, by the SDK's default chain.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

/// Credentials that end are renewed so long before.
const BEFORE_END: Duration = Duration::from_secs(300);

/// Credentials of the chain, kept for as long as they are good.
pub(super) struct AwsLogin {
    provider: Option<SharedCredentialsProvider>,
    held: Mutex<Option<Held>>,
}

struct Held {
    credential: Arc<AwsCredential>,
    until: Option<SystemTime>,
}

impl AwsLogin {
    pub(super) fn new(config: &SdkConfig) -> Self {
        Self { provider: config.credentials_provider(), held: Mutex::default() }
    }

    /// One asks and the others wait: a metadata service is not asked by a hundred requests at once.
    async fn get(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        let fresh = |held: &Held| held.until.is_none_or(|until| SystemTime::now() + BEFORE_END < until);
        if let Some(held) = held.as_ref().filter(|held| fresh(held)) {
            return Ok(Arc::clone(&held.credential));
        }
        let refused = |source| object_store::Error::Unauthenticated { path: "no credentials".to_owned(), source };
        let provider = self.provider.as_ref().ok_or_else(|| refused("there is no provider of credentials".into()))?;
        let found = provider.provide_credentials().await.map_err(|error| refused(Box::new(error)))?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        *held = Some(Held { credential: Arc::clone(&credential), until: found.expiry() });
        Ok(credential)
    }
}

impl fmt::Debug for AwsLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsLogin").finish_non_exhaustive()
    }
}

/// As `async_trait` writes it, which object_store wants.
impl CredentialProvider for AwsLogin {
    type Credential = AwsCredential;

    fn get_credential<'this, 'future>(
        &'this self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'future>>
    where
        'this: 'future,
        Self: 'future,
    {
        Box::pin(self.get())
    }
}
