//! Where the API server finds the webhooks, and telling it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::crd::{DATABASES, definitions};
use crate::error::Result;
use crate::object::ask;

/// Who tells the API server of the certificate, in `metadata.managedFields`.
const MANAGER: &str = "pgtenant-webhook";
/// Who installs definitions where no chart does.
const INSTALLER: &str = "pgtenant-install";
/// The ValidatingWebhookConfiguration, and the webhook in it, as the chart has them.
const CONFIGURATION: &str = "pgtenant";
const WEBHOOK: &str = "postgresqldatabases.pgtenant.io";
/// Nobody is asked when labels or finalizers change: the control plane's own are most of these. The chart says the same.
const ANOTHER_SPEC: &str = "oldObject == null || object.spec != oldObject.spec";

/// Where the API server finds the webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Behind a Service's port 443.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Elsewhere: `https://HOST:PORT`, without a path.
    Url(String),
}

impl Target {
    /// What the certificate has to name.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Service { namespace, name } => {
                vec![format!("{name}.{namespace}.svc"), format!("{name}.{namespace}.svc.cluster.local")]
            }
            Self::Url(url) => {
                let authority = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
                let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
                vec![host.trim_matches(['[', ']']).to_owned()]
            }
        }
    }

    fn client_config(&self, path: &str, trusted: &str) -> Value {
        let mut config = match self {
            Self::Service { namespace, name } => {
                json!({"service": {"namespace": namespace, "name": name, "path": path, "port": 443}})
            }
            Self::Url(url) => json!({"url": format!("{}{path}", url.trim_end_matches('/'))}),
        };
        if !trusted.is_empty() {
            config["caBundle"] = json!(STANDARD.encode(trusted));
        }
        config
    }

    fn conversion(&self, trusted: &str) -> Value {
        json!({
            "strategy": "Webhook",
            "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": self.client_config("/convert", trusted),
            },
        })
    }
}

/// Tells the API server where the webhooks are, and what certificate to trust. What is not installed is not told.
///
/// # Errors
/// The API server refused, or did not answer.
pub(super) async fn tell(client: &Client, target: &Target, trusted: &str) -> Result<()> {
    let apply = PatchParams::apply(MANAGER).force();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": DATABASES}, "spec": {"conversion": target.conversion(trusted)},
    });
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    ask(api.patch(DATABASES, &apply, &Patch::Apply(&definition))).await?;
    // Not applied: that would make one where there is none.
    let by_us = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let mut configuration = json!({
        "webhooks": [{"name": WEBHOOK, "clientConfig": target.client_config("/validate", trusted)}],
    });
    configuration["webhooks"][0]["clientConfig"]["$patch"] = json!("replace");
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    match ask(api.patch(CONFIGURATION, &by_us, &Patch::Strategic(&configuration))).await {
        Err(error) if error.code() == Some(404) => Ok(()),
        other => other.map(drop),
    }
}

/// Installs the definitions and the admission webhook, where no chart does: for an API server on this machine.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn install(client: &Client, target: &Target) -> Result<()> {
    let apply = PatchParams::apply(INSTALLER).force();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in definitions() {
        ask(api.patch(&definition.name_any(), &apply, &Patch::Apply(&definition))).await?;
    }
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION},
        "webhooks": [{
            "name": WEBHOOK, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent", "timeoutSeconds": 3, "clientConfig": target.client_config("/validate", ""),
            "matchConditions": [{"name": "another-spec", "expression": ANOTHER_SPEC}],
            "rules": [{
                "apiGroups": ["pgtenant.io"], "apiVersions": ["v1"], "resources": ["postgresqldatabases"],
                "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
            }],
        }],
    });
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    ask(api.patch(CONFIGURATION, &apply, &Patch::Apply(&configuration))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_what_is_called() {
        let names = |url: &str| Target::Url(url.to_owned()).names();
        assert_eq!(names("https://127.0.0.1:9443"), ["127.0.0.1"]);
        assert_eq!(names("https://[::1]:9443/"), ["::1"]);
        assert_eq!(names("https://pgtenant.example"), ["pgtenant.example"]);
        let service = Target::Service { namespace: "ops".into(), name: "pgtenant-webhook".into() };
        assert_eq!(service.names()[0], "pgtenant-webhook.ops.svc");
    }
}
