//! What the API server would allow, without doing it: every account may ask that of itself (`system:basic-user`).

use std::fmt;

use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::ask;
use crate::Fault;

/// What a store does with its objects.
pub(super) const VERBS: [&str; 4] = ["get", "create", "patch", "delete"];

/// Objects, as a role names them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Empty: the core.
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    /// The version of a kind that has to be installed.
    pub(super) installed: Option<&'static str>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

impl Rule {
    /// Those of [`VERBS`] that are not allowed in every namespace.
    ///
    /// # Errors
    /// The kind is not installed, or the API server does not answer.
    pub(super) async fn lacking(self, client: &Client) -> Result<Vec<&'static str>, Fault> {
        if let Some(version) = self.installed {
            ask(client.list_api_group_resources(&format!("{}/{version}", self.group))).await?;
        }
        let answers = try_join_all(VERBS.map(|verb| self.allows(client, verb))).await?;
        Ok(VERBS.into_iter().zip(answers).filter(|(_, allowed)| !allowed).map(|(verb, _)| verb).collect())
    }

    async fn allows(self, client: &Client, verb: &str) -> Result<bool, Fault> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(self.group.to_owned()),
                    resource: Some(self.resource.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
        let answer = ask(reviews.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
