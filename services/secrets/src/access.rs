//! What stores and references to secrets reach the outside with.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use pgtenant_aws::Aws;
use pgtenant_model::SecretRef;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::aws::Paces;
use crate::kubernetes::ask;
use crate::{Action, Fault, StoreError};

/// Kubernetes, where the control plane knows one, and Amazon.
#[derive(Clone, Default)]
pub struct Access {
    kubernetes: Option<Client>,
    aws: Aws,
    paces: Paces,
}

impl Access {
    /// With Kubernetes.
    #[must_use]
    pub fn with_kubernetes(client: Client) -> Self {
        Self { kubernetes: Some(client), ..Self::default() }
    }

    /// With another way to Amazon.
    #[must_use]
    pub fn with_aws(self, aws: Aws) -> Self {
        Self { aws, ..self }
    }

    pub(crate) fn paces(&self) -> &Paces {
        &self.paces
    }

    pub(crate) fn kubernetes(&self) -> Result<Client, String> {
        self.kubernetes.clone().ok_or_else(|| "needs Kubernetes: set kubernetes.enabled".to_owned())
    }

    /// Amazon; nothing of it is loaded before it is used.
    #[must_use]
    pub fn aws(&self) -> &Aws {
        &self.aws
    }

    /// The values of a Secret that are text.
    ///
    /// # Errors
    /// There is no such Secret, or no Kubernetes.
    pub async fn read(&self, secret: &SecretRef) -> Result<BTreeMap<String, SecretString>, StoreError> {
        let at = |fault: Fault| fault.at("kubernetes", Action::Read, format!("{}/{}", secret.namespace, secret.name));
        let client = self.kubernetes().map_err(|why| at(Fault::Broken(why)))?;
        let api: Api<Secret> = Api::namespaced(client, &secret.namespace);
        let found = ask(api.get(&secret.name)).await.map_err(at)?;
        let values = found.data.unwrap_or_default().into_iter();
        let text = |(key, value): (String, k8s_openapi::ByteString)| {
            let bytes = Zeroizing::new(value.0);
            Some((key, SecretString::from(std::str::from_utf8(&bytes).ok()?)))
        };
        Ok(values.filter_map(text).collect())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("kubernetes", &self.kubernetes.is_some()).finish_non_exhaustive()
    }
}
