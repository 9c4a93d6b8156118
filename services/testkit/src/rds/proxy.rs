//! Proxies, and which secrets each of them knows.

use std::collections::BTreeMap;

use super::RdsFields;
use super::state::{Answer, Refusal, bad, not_found, prefixed, set};

/// "Each proxy can have up to 200 associated Secrets Manager secrets":
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html>.
const MOST_SECRETS: usize = 200;

/// By name, what RDS says of each.
#[derive(Debug, Default)]
pub(super) struct Proxies(BTreeMap<String, RdsFields>);

impl Proxies {
    pub(super) fn add(&mut self, name: &str, secrets: &[&str]) {
        let mut fields = RdsFields::from([("DBProxyName".to_owned(), name.to_owned())]);
        set(&mut fields, "Status", "available");
        for (number, arn) in (1..).zip(secrets) {
            set(&mut fields, &format!("Auth.member.{number}.AuthScheme"), "SECRETS");
            set(&mut fields, &format!("Auth.member.{number}.SecretArn"), arn);
        }
        fields.extend(with_defaults(&fields));
        self.0.insert(name.to_owned(), fields);
    }

    pub(super) fn set(&mut self, name: &str, path: &str, value: &str) {
        set(self.0.entry(name.to_owned()).or_default(), path, value);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The ARNs that a proxy has, in no order.
    pub(super) fn secrets(&self, name: &str) -> Vec<String> {
        self.0.get(name).map(secrets).unwrap_or_default()
    }

    pub(super) fn describe(&self, name: &str) -> Answer {
        let fields = self.0.get(name).ok_or_else(|| missing(name))?;
        Ok(prefixed("DBProxies.member.1", fields.clone()))
    }

    /// The list is replaced as a whole, where there is one.
    pub(super) fn modify(&mut self, name: &str, form: RdsFields) -> Answer {
        let fields = self.0.get_mut(name).ok_or_else(|| missing(name))?;
        if fields.get("Status").is_some_and(|status| status != "available") {
            return Err(bad("InvalidDBProxyStateFault", format!("DB proxy {name} is not available")));
        }
        let auth: RdsFields = form.into_iter().filter(|(path, _)| path.starts_with("Auth.")).collect();
        // As an answer to Terraform shows: https://github.com/hashicorp/terraform-provider-aws/issues/40776
        if auth.keys().any(|path| path.ends_with(".UserName")) {
            let message = "UserName must not be set in UserAuthConfig when SECRETS AuthScheme is used.";
            return Err(bad("InvalidParameterValue", message.to_owned()));
        }
        if secrets(&auth).len() > MOST_SECRETS {
            return Err(bad("InvalidParameterValue", format!("more than {MOST_SECRETS} secrets")));
        }
        if !auth.is_empty() {
            fields.retain(|path, _| !path.starts_with("Auth."));
            fields.extend(with_defaults(&auth));
            fields.extend(auth);
        }
        Ok(RdsFields::new())
    }
}

fn secrets(fields: &RdsFields) -> Vec<String> {
    let arns = fields.iter().filter(|(path, _)| path.ends_with(".SecretArn"));
    arns.map(|(_, arn)| arn.clone()).collect()
}

/// What RDS fills in of what an entry does not say: the first one is known
/// (<https://github.com/hashicorp/terraform-provider-aws/pull/49639>), the other one has a field.
fn with_defaults(auth: &RdsFields) -> RdsFields {
    let entries = auth.iter().filter_map(|(path, arn)| Some((path.strip_suffix(".SecretArn")?, arn)));
    let filled = entries.flat_map(|(entry, arn)| {
        let user = arn.rsplit('/').next().unwrap_or_default();
        let kind = "POSTGRES_SCRAM_SHA_256";
        [(format!("{entry}.ClientPasswordAuthType"), kind.to_owned()), (format!("{entry}.UserName"), user.to_owned())]
    });
    filled.collect()
}

fn missing(name: &str) -> Refusal {
    not_found("DBProxyNotFoundFault", name)
}
