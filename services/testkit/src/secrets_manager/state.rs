//! Secrets, their versions and stages, and what each operation does to them.
//!
//! Unless it says otherwise, what a function does is on the operation's own page:
//! `https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_OPERATION.html`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use super::Refused;

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";
/// Any time will do: 2026-11-20.
const TIME: f64 = 1_795_000_000.0;

/// A secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FakeSecret {
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// By their ids.
    pub versions: BTreeMap<String, FakeVersion>,
    /// None: it is not scheduled for deletion.
    pub recovery_window_days: Option<u64>,
    /// None: `aws/secretsmanager`.
    pub kms_key: Option<String>,
    /// Region, and the state of its copy.
    pub copies: BTreeMap<String, String>,
    /// The resource policy.
    pub policy: Option<Value>,
    /// What is said of it.
    pub description: String,
}

/// A version of a secret. `Debug` shows no value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FakeVersion {
    /// The value.
    pub text: String,
    /// Its stages.
    pub stages: BTreeSet<String>,
}

impl fmt::Debug for FakeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeVersion").field("stages", &self.stages).finish_non_exhaustive()
    }
}

impl FakeSecret {
    /// The id of the current version.
    pub fn current(&self) -> Option<&str> {
        self.staged(CURRENT)
    }

    /// The current value.
    pub fn text(&self) -> Option<&str> {
        Some(&self.versions[self.current()?].text)
    }

    /// Adds a version and makes it current, as `PutSecretValue` does.
    pub fn put(&mut self, version: &str, text: &str) {
        self.versions.entry(version.to_owned()).or_default().text = text.to_owned();
        self.make_current(version);
    }

    fn staged(&self, stage: &str) -> Option<&str> {
        self.versions.iter().find(|(_, version)| version.stages.contains(stage)).map(|(id, _)| id.as_str())
    }

    /// "If this operation moves AWSCURRENT from another version to this version, then Secrets Manager also automatically moves
    /// AWSPREVIOUS to the version that AWSCURRENT was removed from."
    fn make_current(&mut self, version: &str) {
        let before = self.current().map(ToOwned::to_owned);
        for one in self.versions.values_mut() {
            one.stages.remove(CURRENT);
            one.stages.remove(PREVIOUS);
        }
        let mut stage = |id: &str, stage: &str| {
            if let Some(found) = self.versions.get_mut(id) {
                found.stages.insert(stage.to_owned());
            }
        };
        if let Some(before) = before.filter(|before| before != version) {
            stage(&before, PREVIOUS);
        }
        stage(version, CURRENT);
    }

    /// Versions without a stage "are considered deprecated" and are not shown.
    fn stages(&self) -> Value {
        let staged = self.versions.iter().filter(|(_, version)| !version.stages.is_empty());
        staged.map(|(id, version)| (id.clone(), json!(version.stages))).collect::<serde_json::Map<_, _>>().into()
    }

    fn described(&self, name: &str, stages: &str) -> Value {
        let tags: Vec<Value> = self.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        let mut all = json!({"ARN": arn(name), "Name": name, "Description": self.description, "Tags": tags});
        all[stages] = self.stages();
        if let Some(days) = self.recovery_window_days {
            all["DeletedDate"] = json!(TIME + 86_400.0 * f64::from(u32::try_from(days).unwrap_or(30)));
        }
        if let Some(key) = &self.kms_key {
            all["KmsKeyId"] = json!(key);
        }
        if !self.copies.is_empty() {
            all["ReplicationStatus"] = self.replication();
        }
        all
    }

    fn replication(&self) -> Value {
        let copy = |(region, status): (&String, &String)| json!({"Region": region, "Status": status});
        self.copies.iter().map(copy).collect()
    }

    fn copy_to(&mut self, regions: &Value) {
        for region in regions.as_array().into_iter().flatten().filter_map(|one| one["Region"].as_str()) {
            self.copies.entry(region.to_owned()).or_insert_with(|| "InProgress".to_owned());
        }
    }

    fn matches(&self, name: &str, filters: &Value) -> bool {
        let filters = filters.as_array().into_iter().flatten();
        filters.into_iter().all(|filter| {
            let values: Vec<&str> =
                filter["Values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let any = |text: &str| values.iter().any(|value| text.starts_with(value));
            match filter["Key"].as_str() {
                Some("name") => any(name),
                Some("tag-key") => self.tags.keys().any(|key| any(key)),
                Some("tag-value") => self.tags.values().any(|value| any(value)),
                _ => false,
            }
        })
    }
}

/// All secrets, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Secrets(BTreeMap<String, FakeSecret>);

impl Secrets {
    pub(super) fn get(&self, name: &str) -> Option<&FakeSecret> {
        self.0.get(name)
    }

    pub(super) fn entry(&mut self, name: &str) -> &mut FakeSecret {
        self.0.entry(name.to_owned()).or_default()
    }

    pub(super) fn perform(&mut self, operation: &str, input: &Value) -> Result<Value, Refused> {
        let text = |key: &str| input[key].as_str().unwrap_or_default();
        let name = text("SecretId");
        match operation {
            "CreateSecret" => return self.create(text("Name"), input),
            "ListSecrets" => return Ok(self.list(input)),
            "DescribeSecret" => return Ok(self.find(name)?.described(name, "VersionIdsToStages")),
            "DeleteSecret" => return self.delete(name, input),
            "RestoreSecret" => {
                self.find(name)?.recovery_window_days = None;
                return Ok(json!({"ARN": arn(name), "Name": name}));
            }
            _ => {}
        }
        let secret = self.find(name)?;
        if secret.recovery_window_days.is_some() {
            let message = "You can't perform this operation on the secret because it was marked for deletion.";
            return Err(("InvalidRequestException", message.to_owned()));
        }
        let mut answer = json!({"ARN": arn(name), "Name": name});
        match operation {
            "GetSecretValue" => {
                let stage = input["VersionStage"].as_str().unwrap_or(CURRENT);
                let missing = || {
                    let message =
                        format!("Secrets Manager can't find the specified secret value for staging label: {stage}");
                    ("ResourceNotFoundException", message)
                };
                let version = secret.staged(stage).ok_or_else(missing)?;
                answer["VersionId"] = json!(version);
                answer["SecretString"] = json!(secret.versions[version].text);
            }
            "PutSecretValue" => {
                put(secret, text("ClientRequestToken"), text("SecretString"))?;
                let version = &secret.versions[text("ClientRequestToken")];
                answer["VersionId"] = input["ClientRequestToken"].clone();
                answer["VersionStages"] = json!(version.stages);
            }
            "UpdateSecret" => secret.kms_key = input["KmsKeyId"].as_str().map(ToOwned::to_owned),
            "UpdateSecretVersionStage" => move_stage(secret, input)?,
            "ReplicateSecretToRegions" => {
                secret.copy_to(&input["AddReplicaRegions"]);
                answer["ReplicationStatus"] = secret.replication();
            }
            "RemoveRegionsFromReplication" => {
                for region in strings(&input["RemoveReplicaRegions"]) {
                    secret.copies.remove(region);
                }
            }
            "TagResource" => secret.tags.extend(tags(&input["Tags"])),
            "UntagResource" => {
                for key in strings(&input["TagKeys"]) {
                    secret.tags.remove(key);
                }
            }
            "PutResourcePolicy" => {
                let refused =
                    |_| ("MalformedPolicyDocumentException", "This resource policy contains invalid Json".to_owned());
                secret.policy = Some(serde_json::from_str(text("ResourcePolicy")).map_err(refused)?);
            }
            "DeleteResourcePolicy" => secret.policy = None,
            other => return Err(("InvalidAction", format!("{other} is not played"))),
        }
        Ok(answer)
    }

    fn find(&mut self, name: &str) -> Result<&mut FakeSecret, Refused> {
        let missing = || ("ResourceNotFoundException", "Secrets Manager can't find the specified secret.".to_owned());
        self.0.get_mut(name).ok_or_else(missing)
    }

    fn create(&mut self, name: &str, input: &Value) -> Result<Value, Refused> {
        let (version, text) = (string(&input["ClientRequestToken"]), string(&input["SecretString"]));
        let answer = json!({"ARN": arn(name), "Name": name, "VersionId": version});
        if let Some(found) = self.0.get(name) {
            if found.recovery_window_days.is_some() {
                let message =
                    "You can't create this secret because a secret with this name is already scheduled for deletion.";
                return Err(("InvalidRequestException", message.to_owned()));
            }
            // "If a version with this value already exists and the version SecretString and SecretBinary values are the same as
            // the request, then the request is ignored."
            if found.versions.get(&version).is_some_and(|one| one.text == text) {
                return Ok(answer);
            }
            let message = format!("The operation failed because the secret {name} already exists.");
            return Err(("ResourceExistsException", message));
        }
        let mut secret = FakeSecret {
            tags: tags(&input["Tags"]).collect(),
            kms_key: input["KmsKeyId"].as_str().map(ToOwned::to_owned),
            description: string(&input["Description"]),
            ..FakeSecret::default()
        };
        secret.put(&version, &text);
        secret.copy_to(&input["AddReplicaRegions"]);
        self.0.insert(name.to_owned(), secret);
        Ok(answer)
    }

    fn delete(&mut self, name: &str, input: &Value) -> Result<Value, Refused> {
        let force = input["ForceDeleteWithoutRecovery"].as_bool() == Some(true);
        let answer = json!({"ARN": arn(name), "Name": name, "DeletionDate": TIME});
        let secret = self.find(name)?;
        if !secret.copies.is_empty() {
            let message = format!("You can't delete secret {name} that still has replica regions");
            return Err(("InvalidParameterException", message));
        }
        if force {
            self.0.remove(name);
            return Ok(answer);
        }
        if secret.recovery_window_days.is_some() {
            let message = "You tried to perform the operation on a secret that's currently marked deleted.";
            return Err(("InvalidRequestException", message.to_owned()));
        }
        secret.recovery_window_days = Some(input["RecoveryWindowInDays"].as_u64().unwrap_or(30));
        Ok(answer)
    }

    fn list(&self, input: &Value) -> Value {
        let planned = input["IncludePlannedDeletion"].as_bool() == Some(true);
        let listed = self.0.iter().filter(|(name, secret)| {
            (planned || secret.recovery_window_days.is_none()) && secret.matches(name, &input["Filters"])
        });
        let from = input["NextToken"].as_str().and_then(|token| token.parse().ok()).unwrap_or(0_usize);
        let most = input["MaxResults"].as_u64().map_or(100, |most| usize::try_from(most.min(100)).unwrap_or(100));
        let all: Vec<Value> = listed.map(|(name, one)| one.described(name, "SecretVersionsToStages")).collect();
        let next = (from + most < all.len()).then(|| (from + most).to_string());
        let page: Vec<&Value> = all.iter().skip(from).take(most).collect();
        json!({"SecretList": page, "NextToken": next})
    }
}

/// "If a version with that ID already exists and it has the same value, the request is ignored. If the value is different, then
/// the operation fails because you can't modify an existing version."
fn put(secret: &mut FakeSecret, version: &str, text: &str) -> Result<(), Refused> {
    match secret.versions.get(version) {
        Some(found) if found.text == text => Ok(()),
        Some(_) => Err(("ResourceExistsException", format!("A version {version} exists already with another value."))),
        None => {
            secret.put(version, text);
            Ok(())
        }
    }
}

/// "If the staging label is already attached to a different version of the secret, then you must also specify
/// RemoveFromVersionId."
fn move_stage(secret: &mut FakeSecret, input: &Value) -> Result<(), Refused> {
    let (stage, to) = (string(&input["VersionStage"]), string(&input["MoveToVersionId"]));
    let refused = |why: String| Err(("InvalidParameterException", why));
    if stage != CURRENT || !secret.versions.contains_key(&to) {
        return refused(format!("Not a valid stage or version: {stage}, {to}"));
    }
    if secret.staged(&stage) != input["RemoveFromVersionId"].as_str() {
        return refused(format!("Staging label {stage} is attached to another version than RemoveFromVersionId says"));
    }
    secret.make_current(&to);
    Ok(())
}

fn arn(name: &str) -> String {
    format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}-a1b2c3")
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn tags(value: &Value) -> impl Iterator<Item = (String, String)> {
    value.as_array().into_iter().flatten().map(|tag| (string(&tag["Key"]), string(&tag["Value"])))
}
