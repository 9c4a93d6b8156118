//! An RDS Proxy knows the tenants' credentials, so that developers reach their databases through it.
//!
//! It reads the secrets themselves, so that a rotation needs nothing to be registered anew.

use std::collections::BTreeSet;

use aws_sdk_rds::types::{AuthScheme, IamAuthMode, UserAuthConfig, UserAuthConfigInfo};
use pgtenant_model::InvalidField;

use crate::client::Rds;
use crate::fault::RdsFault;

/// Secrets that a proxy takes at most: <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html>, "Quotas and
/// limitations".
pub const MOST_SECRETS: usize = 200;
/// Amazon Root CA 1, PEM, of which the certificates of proxies are, and which the bundles of RDS do not have:
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.howitworks.html>, "Using TLS/SSL with RDS Proxy". It is
/// published at <https://www.amazontrust.com/repository/AmazonRootCA1.pem>, and ends in 2038.
pub const PROXY_AUTHORITY: &str = include_str!("../amazon_root_ca_1.pem");
/// By this an entry is told from one that somebody else has made.
const DESCRIPTION: &str = "pgtenant";

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It knew them already.
    Same,
    /// It knows them now.
    Changed,
    /// There is no proxy of this name.
    NoProxy,
    /// It knows as many as it takes; this many are left out.
    Full(usize),
    /// It is being changed: try again later.
    Busy,
}

impl Registered {
    /// What a preflight says of it.
    #[must_use]
    pub fn finding(&self, proxy: &str) -> Option<InvalidField> {
        let message = match self {
            Self::Same | Self::Changed | Self::Busy => return None,
            Self::NoProxy => format!("there is no RDS Proxy {proxy:?}: make it, or take proxy out of the description"),
            Self::Full(left_out) => format!(
                "RDS Proxy {proxy:?} takes {MOST_SECRETS} secrets, three for each claim, and {left_out} of the tenants' are left \
                 out: these logins reach their databases by the cluster's endpoint only. What to do: put claims on another \
                 cluster, with a proxy of its own"
            ),
        };
        Some(InvalidField::new("topology.aurora.proxy", message))
    }
}

/// The entries that a proxy is to have; what is left out for want of room. Entries of others stay, and stay first; those that it
/// has stay before new ones, so that who is in stays in.
fn merge(known: &[UserAuthConfigInfo], secrets: &BTreeSet<String>) -> (Vec<UserAuthConfig>, usize) {
    let is_ours = |entry: &&UserAuthConfigInfo| entry.description() == Some(DESCRIPTION);
    let stays = |entry: &&UserAuthConfigInfo| entry.secret_arn().is_some_and(|arn| secrets.contains(arn));
    let foreign = known.iter().filter(|entry| !is_ours(entry));
    let mut entries: Vec<UserAuthConfig> =
        foreign.chain(known.iter().filter(is_ours).filter(stays)).map(again).collect();
    let there = arns(known.iter().map(UserAuthConfigInfo::secret_arn));
    let new: Vec<&String> = secrets.iter().filter(|arn| !there.contains(arn.as_str())).collect();
    let room = MOST_SECRETS.saturating_sub(entries.len());
    let left_out = new.len().saturating_sub(room);
    entries.extend(new.into_iter().take(room).map(|arn| entry(arn)));
    (entries, left_out)
}

fn arns<'a>(entries: impl Iterator<Item = Option<&'a str>>) -> BTreeSet<&'a str> {
    entries.flatten().collect()
}

fn entry(secret: &str) -> UserAuthConfig {
    UserAuthConfig::builder()
        .description(DESCRIPTION)
        .auth_scheme(AuthScheme::Secrets)
        .secret_arn(secret)
        .iam_auth(IamAuthMode::Disabled)
        .build()
}

/// As it is, without the user's name: RDS refuses that beside a secret (`InvalidParameterValue`).
fn again(known: &UserAuthConfigInfo) -> UserAuthConfig {
    let UserAuthConfigInfo { description, auth_scheme, secret_arn, iam_auth, client_password_auth_type, .. } =
        known.clone();
    UserAuthConfig::builder()
        .set_description(description)
        .set_auth_scheme(auth_scheme)
        .set_secret_arn(secret_arn)
        .set_iam_auth(iam_auth)
        .set_client_password_auth_type(client_password_auth_type)
        .build()
}

impl Rds {
    /// Lets `proxy` know the secrets of these ARNs, and no others that pgtenant has registered. RDS takes the whole list at once:
    /// of two callers at the same time one may be undone, so call it again at each look. `rds:DescribeDBProxies`,
    /// `rds:ModifyDBProxy`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn register_secrets(&self, proxy: &str, secrets: &BTreeSet<String>) -> Result<Registered, RdsFault> {
        let client = self.client().await;
        let asked = client.describe_db_proxies().db_proxy_name(proxy).send().await;
        let answer = match asked.map_err(|error| RdsFault::new("DescribeDBProxies", &error)) {
            Err(fault) if fault.is("DBProxyNotFoundFault") => return Ok(Registered::NoProxy),
            other => other?,
        };
        let Some(found) = answer.db_proxies().first() else { return Ok(Registered::NoProxy) };
        let (entries, left_out) = merge(found.auth(), secrets);
        let result = if left_out > 0 { Registered::Full(left_out) } else { Registered::Changed };
        // RDS fills in what an entry does not say, and has an order of its own: the secrets alone are compared.
        let known = arns(found.auth().iter().map(UserAuthConfigInfo::secret_arn));
        let same = known == arns(entries.iter().map(UserAuthConfig::secret_arn));
        // An empty list is none on the wire. What is left then names a secret that is gone, and lets nobody in.
        if same || entries.is_empty() {
            return Ok(if left_out > 0 { result } else { Registered::Same });
        }
        let asked = client.modify_db_proxy().db_proxy_name(proxy).set_auth(Some(entries)).send().await;
        match asked.map_err(|error| RdsFault::new("ModifyDBProxy", &error)) {
            Err(fault) if fault.is("InvalidDBProxyStateFault") => Ok(Registered::Busy),
            asked => asked.map(|_| result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(description: Option<&str>, arn: &str) -> UserAuthConfigInfo {
        let builder = UserAuthConfigInfo::builder().set_description(description.map(ToOwned::to_owned));
        builder.auth_scheme(AuthScheme::Secrets).secret_arn(arn).iam_auth(IamAuthMode::Disabled).build()
    }

    fn listed(entries: &[UserAuthConfig]) -> Vec<&str> {
        entries.iter().filter_map(|entry| entry.secret_arn()).collect()
    }

    #[test]
    fn entries_of_others_stay_and_old_ones_go() {
        let known = [info(Some(DESCRIPTION), "gone"), info(None, "foreign"), info(Some(DESCRIPTION), "b")];
        let wanted = ["a", "b", "foreign"].map(String::from).into();
        let (entries, left_out) = merge(&known, &wanted);
        assert_eq!((listed(&entries), left_out), (vec!["foreign", "b", "a"], 0));
    }

    #[test]
    fn a_full_proxy_keeps_whom_it_has() {
        let known: Vec<_> = (100..300).map(|n| info(Some(DESCRIPTION), &n.to_string())).collect();
        let wanted = (90..300).map(|n| n.to_string()).collect();
        let (entries, left_out) = merge(&known, &wanted);
        assert_eq!((entries.len(), left_out), (MOST_SECRETS, 10));
        assert!(!listed(&entries).contains(&"90"), "who is in stays in");
        let finding = Registered::Full(left_out).finding("shared").unwrap().to_string();
        assert!(finding.contains("10 of the tenants'"), "{finding}");
    }
}
