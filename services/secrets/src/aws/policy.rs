//! The least that IAM has to allow.
//!
//! Sources: <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecretsmanager.html> for actions and
//! condition keys, <https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html> for keys.

use pgtenant_model::{AwsSecretRef, AwsSecretsManagerStore};
use serde_json::{Value, json};

use super::calls::action;
use super::secret::MANAGED_BY;

/// What a policy is made for.
#[derive(Debug, Clone, Copy)]
pub struct PolicyOptions<'a> {
    /// The account's number; `*` where it is not known.
    pub account: &'a str,
    /// The region of stores that name none; `*` where it is not known.
    pub region: &'a str,
}

/// Statements for the control plane to work with a store. Each call that it makes is named in one of them.
#[must_use]
pub fn control_plane_policy(store: &AwsSecretsManagerStore, options: PolicyOptions<'_>) -> Vec<Value> {
    let secrets = resource(store, options);
    let [(by, pgtenant)] = MANAGED_BY;
    let ours = json!({"StringEquals": {format!("aws:ResourceTag/{by}"): pgtenant}});
    let as_ours = json!({"StringEquals": {format!("aws:RequestTag/{by}"): pgtenant}});
    // Creating with tags takes the action for these as well.
    let create = [action::CREATE, action::TAG];
    let change = [
        action::GET,
        action::PUT,
        action::UPDATE,
        action::STAGE,
        action::UNREPLICATE,
        action::RESTORE,
        action::DELETE,
        action::TAG,
        action::UNTAG,
        action::DELETE_POLICY,
    ];
    let mut statements = vec![
        // It knows no resources and no tags.
        json!({"Sid": "List", "Effect": "Allow", "Action": [action::LIST], "Resource": "*"}),
        // Of any, so that one that is somebody else's can be told.
        json!({"Sid": "Describe", "Effect": "Allow", "Action": [action::DESCRIBE], "Resource": secrets}),
        json!({"Sid": "Create", "Effect": "Allow", "Action": create, "Resource": secrets, "Condition": as_ours}),
        json!({"Sid": "Change", "Effect": "Allow", "Action": change, "Resource": secrets, "Condition": ours}),
    ];
    if !store.replica_regions.is_empty() {
        // Of a secret that is being created, too, which has no tags yet.
        let regions = json!({"ForAllValues:StringEquals": {"secretsmanager:AddReplicaRegions": store.replica_regions}});
        statements.push(json!({
            "Sid": "Copy", "Effect": "Allow", "Action": [action::REPLICATE], "Resource": secrets, "Condition": regions,
        }));
    }
    if !store.readers.is_empty() {
        let mut condition = ours;
        condition["Bool"] = json!({"secretsmanager:BlockPublicPolicy": "true"});
        statements.push(json!({
            "Sid": "Readers", "Effect": "Allow", "Action": [action::PUT_POLICY], "Resource": secrets, "Condition": condition,
        }));
    }
    statements.extend(key(store, options, &["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"]));
    statements
}

/// Statements for the External Secrets Operator to read what a store holds: it describes a secret and gets its value
/// (<https://external-secrets.io/latest/provider/aws-secrets-manager/>).
#[must_use]
pub fn external_secrets_policy(store: &AwsSecretsManagerStore, options: PolicyOptions<'_>) -> Vec<Value> {
    let [(by, pgtenant)] = MANAGED_BY;
    let read = json!({
        "Sid": "Read",
        "Effect": "Allow",
        "Action": [action::DESCRIBE, action::GET],
        "Resource": resource(store, options),
        "Condition": {"StringEquals": {format!("aws:ResourceTag/{by}"): pgtenant}},
    });
    [read].into_iter().chain(key(store, options, &["kms:Decrypt"])).collect()
}

/// Statements for the control plane to read its own login and to replace its password, and to make the secret of it where `made` says
/// so, which takes reading the master login that RDS keeps (`rds!cluster-…`).
#[must_use]
pub fn login_policy(secret: &AwsSecretRef, made: bool, options: PolicyOptions<'_>) -> Vec<Value> {
    let region = secret.region.as_deref().unwrap_or(options.region);
    let arn =
        |name: &str| format!("arn:{}:secretsmanager:{region}:{}:secret:{name}", partition(region), options.account);
    // AWS puts a hyphen and six characters behind the name.
    let own =
        if secret.name.starts_with("arn:") { secret.name.clone() } else { arn(&format!("{}-??????", secret.name)) };
    let mut statements =
        vec![json!({"Sid": "ReplaceLogin", "Effect": "Allow", "Action": [action::PUT], "Resource": own})];
    let mut read = vec![own];
    if made {
        let name = arn(&format!("{}*", secret.name));
        statements.push(json!({"Sid": "MakeLogin", "Effect": "Allow", "Action": [action::CREATE], "Resource": name}));
        read.push(arn("rds!cluster-*"));
    }
    statements.push(json!({"Sid": "Login", "Effect": "Allow", "Action": [action::GET], "Resource": read}));
    statements
}

/// What all names of a store begin with.
pub(super) fn prefix(template: &str) -> &str {
    template.split('{').next().unwrap_or_default()
}

fn resource(store: &AwsSecretsManagerStore, options: PolicyOptions<'_>) -> Value {
    let arn = |region: &str| {
        let (partition, account, prefix) = (partition(region), options.account, prefix(&store.name));
        format!("arn:{partition}:secretsmanager:{region}:{account}:secret:{prefix}*")
    };
    let own = store.region.as_deref().unwrap_or(options.region);
    // A copy is read and tagged where it lies.
    let arns: Vec<String> =
        [own].into_iter().chain(store.replica_regions.iter().map(String::as_str)).map(arn).collect();
    json!(arns)
}

/// Of the store's own key; AWS's lets everybody use it who may use the secret.
fn key(store: &AwsSecretsManagerStore, options: PolicyOptions<'_>, actions: &[&str]) -> Option<Value> {
    let key = store.kms_key_id.as_deref()?;
    let own = store.region.as_deref().unwrap_or(options.region);
    let regions: Vec<&str> = [own].into_iter().chain(store.replica_regions.iter().map(String::as_str)).collect();
    let arn = |region: &&str, id: &str| format!("arn:{}:kms:{region}:{}:key/{id}", partition(region), options.account);
    let service = |region: &&str| format!("secretsmanager.{region}.amazonaws.com{}", suffix(region));
    let services: Vec<String> = regions.iter().map(service).collect();
    let mut condition = json!({"StringLike": {"kms:ViaService": services}});
    let keys: Vec<String> = if key.starts_with("arn:") && !key.contains(":alias/") {
        vec![key.to_owned()]
    } else if let Some((_, alias)) = key.rsplit_once("alias/") {
        condition["ForAnyValue:StringEquals"] = json!({"kms:ResourceAliases": format!("alias/{alias}")});
        regions.iter().map(|region| arn(region, "*")).collect()
    } else {
        regions.iter().map(|region| arn(region, key)).collect()
    };
    Some(json!({"Sid": "Key", "Effect": "Allow", "Action": actions, "Resource": keys, "Condition": condition}))
}

fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

fn suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") { ".cn" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: PolicyOptions<'static> = PolicyOptions { account: "123456789012", region: "eu-west-1" };

    fn store(spec: Value) -> AwsSecretsManagerStore {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn resources_are_those_of_the_template() {
        let statements = control_plane_policy(&store(json!({"name": "db/{role}"})), OPTIONS);
        for statement in &statements {
            let resource = &statement["Resource"];
            match statement["Sid"].as_str().unwrap() {
                "List" => assert_eq!(resource, "*"),
                _ => assert_eq!(*resource, json!(["arn:aws:secretsmanager:eu-west-1:123456789012:secret:db/*"])),
            }
        }
        let china = control_plane_policy(&store(json!({"region": "cn-north-1"})), OPTIONS);
        assert!(china[1]["Resource"][0].as_str().unwrap().starts_with("arn:aws-cn:secretsmanager:cn-north-1:"));
    }

    #[test]
    fn only_ours_are_changed_and_only_as_ours_made() {
        let all = control_plane_policy(&store(json!({"readers": ["arn:aws:iam::1:root"]})), OPTIONS);
        let condition = |sid: &str| all.iter().find(|one| one["Sid"] == sid).unwrap()["Condition"].clone();
        let ours = "aws:ResourceTag/managed-by";
        assert_eq!(condition("Create")["StringEquals"]["aws:RequestTag/managed-by"], "pgtenant");
        assert_eq!(condition("Change")["StringEquals"][ours], "pgtenant");
        assert_eq!(condition("Readers")["StringEquals"][ours], "pgtenant");
        assert_eq!(condition("Readers")["Bool"]["secretsmanager:BlockPublicPolicy"], "true");
    }

    #[test]
    fn a_key_is_named_as_it_can_be() {
        let resource = |key: &str| {
            let all =
                external_secrets_policy(&store(json!({"kmsKeyId": key, "replicaRegions": ["eu-west-2"]})), OPTIONS);
            let key = all.iter().find(|one| one["Sid"] == "Key").unwrap().clone();
            (key["Resource"].clone(), key["Condition"]["ForAnyValue:StringEquals"]["kms:ResourceAliases"].clone())
        };
        let arn = "arn:aws:kms:eu-west-1:123456789012:key/12ab";
        let there = "arn:aws:kms:eu-west-2:123456789012:key/12ab";
        assert_eq!(resource(arn), (json!([arn]), Value::Null));
        assert_eq!(resource("12ab"), (json!([arn, there]), Value::Null));
        let (keys, alias) = resource("alias/pgtenant");
        assert_eq!(alias, "alias/pgtenant");
        assert_eq!(keys[0], "arn:aws:kms:eu-west-1:123456789012:key/*");
        let plain = external_secrets_policy(&store(json!({})), OPTIONS);
        assert!(plain.iter().all(|one| one["Sid"] != "Key"), "AWS's own key needs no permission");
    }
}
