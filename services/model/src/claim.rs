//! What a team asks for.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// What removing the claim does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The database, its roles and its stored credentials are dropped.
    #[default]
    Standard,
    /// All of them are kept.
    Protected,
}

impl Mode {
    /// `standard` or `protected`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Protected => "protected",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The door that made a claim. Another door may read the claim; it changes it only after a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// REST, and the command line that speaks it.
    #[default]
    Api,
    /// The apps folder.
    Apps,
    /// A `PostgresqlDatabase` resource.
    Kubernetes,
}

impl Source {
    /// `api`, `apps` or `kubernetes`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Apps => "apps",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a claim wishes for, apart from its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimSpec {
    /// What removing the claim does.
    #[serde(default)]
    pub mode: Mode,
    /// The shared cluster that holds the database. Can not be changed later.
    #[serde(default = "default_cluster")]
    pub cluster: String,
    /// Schemas beside `public` that get the same grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub schemas: Vec<String>,
    /// Extensions; the cluster's allow-list decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub extensions: Vec<String>,
    /// Connections that each role may have at once; no value: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub connection_limit: Option<i32>,
    /// The Slack channel that hears what becomes of it, as `#orders` or by its id; it must be linked to the namespace. No value:
    /// every channel that is linked to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 81, pattern = "^#?[^\\s#,;]{1,80}$")]
    pub slack_channel: Option<String>,
}

fn default_cluster() -> String {
    "default".to_owned()
}

impl Default for ClaimSpec {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            cluster: default_cluster(),
            schemas: Vec::new(),
            extensions: Vec::new(),
            connection_limit: None,
            slack_channel: None,
        }
    }
}

/// A field whose value can not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, utoipa::ToSchema)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// The field's path, as `schemas[1]`.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl InvalidField {
    /// A fault in `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

const MAX_LIST: usize = 32;
const CONNECTION_LIMITS: std::ops::RangeInclusive<i32> = 1..=10_000;

impl ClaimSpec {
    /// Checks every rule that needs no cluster. An empty list means that the spec can be stored.
    #[must_use]
    pub fn problems(&self) -> Vec<InvalidField> {
        let mut problems = Vec::new();
        if let Err(error) = crate::check_label("cluster", &self.cluster) {
            problems.push(InvalidField::new("cluster", error.to_string()));
        }
        check_list(&mut problems, "schemas", &self.schemas, schema_problem);
        check_list(&mut problems, "extensions", &self.extensions, extension_problem);
        if let Some(limit) = self.connection_limit.filter(|n| !CONNECTION_LIMITS.contains(n)) {
            problems.push(InvalidField::new(
                "connectionLimit",
                format!("{limit} is outside of 1 to 10000; leave it out for no limit"),
            ));
        }
        if let Some(channel) = self.slack_channel.as_ref().filter(|channel| !is_slack_channel(channel)) {
            problems.push(InvalidField::new(
                "slackChannel",
                format!("{channel:?} is not one channel: use its name, as #orders, or Slack's id of it"),
            ));
        }
        problems
    }
}

/// Whether a text can be the name of a Slack channel, with or without `#`, or its id. Whether there is such a channel, only the
/// settings know.
#[must_use]
pub fn is_slack_channel(text: &str) -> bool {
    let name = text.strip_prefix('#').unwrap_or(text);
    let odd = |letter: char| letter.is_whitespace() || letter.is_control() || ['#', ',', ';'].contains(&letter);
    (1..=80).contains(&name.chars().count()) && !name.contains(odd)
}

fn check_list(problems: &mut Vec<InvalidField>, field: &str, values: &[String], problem: fn(&str) -> Option<String>) {
    if values.len() > MAX_LIST {
        problems.push(InvalidField::new(field, format!("{} entries; at most {MAX_LIST} are allowed", values.len())));
    }
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        let place = format!("{field}[{index}]");
        if let Some(message) = problem(value) {
            problems.push(InvalidField::new(place, message));
        } else if !seen.insert(value) {
            problems.push(InvalidField::new(place, format!("{value:?} is listed twice")));
        }
    }
}

fn schema_problem(value: &str) -> Option<String> {
    let first = value.bytes().next();
    let plain = first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !plain || value.len() > crate::MAX_IDENTIFIER_BYTES {
        return Some(format!("{value:?} is not a schema name: use 1 to 63 of a-z, 0-9 and _, no digit first"));
    }
    if value == "public" {
        return Some("\"public\" is always there; list further schemas only".to_owned());
    }
    if value.starts_with("pg_") || value == "information_schema" {
        return Some(format!("{value:?} is reserved by PostgreSQL"));
    }
    None
}

fn extension_problem(value: &str) -> Option<String> {
    let plain = !value.is_empty()
        && value.len() <= crate::MAX_IDENTIFIER_BYTES
        && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    (!plain).then(|| format!("{value:?} is not an extension name: use 1 to 63 of a-z, 0-9, _ and -"))
}

/// A JSON merge patch (RFC 7396) of a [`ClaimSpec`]: a field that is absent stays, `null` goes back to its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimPatch {
    /// See [`ClaimSpec::mode`].
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Mode>)]
    pub mode: Option<Option<Mode>>,
    /// See [`ClaimSpec::cluster`]; only its present value is accepted.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub cluster: Option<Option<String>>,
    /// See [`ClaimSpec::schemas`]; replaces the whole list.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    pub schemas: Option<Option<Vec<String>>>,
    /// See [`ClaimSpec::extensions`]; replaces the whole list.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    pub extensions: Option<Option<Vec<String>>>,
    /// See [`ClaimSpec::connection_limit`].
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>)]
    pub connection_limit: Option<Option<i32>>,
    /// See [`ClaimSpec::slack_channel`].
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub slack_channel: Option<Option<String>>,
}

/// Tells `null` (`Some(None)`) from an absent field (`None`).
fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl ClaimPatch {
    /// The spec with this patch applied.
    #[must_use]
    pub fn apply(self, spec: &ClaimSpec) -> ClaimSpec {
        let Self { mode, cluster, schemas, extensions, connection_limit, slack_channel } = self;
        let default = ClaimSpec::default();
        ClaimSpec {
            mode: mode.map_or(spec.mode, |v| v.unwrap_or(default.mode)),
            cluster: cluster.map_or_else(|| spec.cluster.clone(), |v| v.unwrap_or(default.cluster)),
            schemas: schemas.map_or_else(|| spec.schemas.clone(), Option::unwrap_or_default),
            extensions: extensions.map_or_else(|| spec.extensions.clone(), Option::unwrap_or_default),
            connection_limit: connection_limit.unwrap_or(spec.connection_limit),
            slack_channel: slack_channel.unwrap_or_else(|| spec.slack_channel.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(spec: &ClaimSpec) -> Vec<String> {
        spec.problems().into_iter().map(|p| p.field).collect()
    }

    #[test]
    fn problems_name_their_place() {
        let spec = ClaimSpec {
            cluster: "No".into(),
            schemas: ["ok", "public", "pg_x", "9a", "ok", "a\"b"].map(String::from).into(),
            extensions: vec!["pgcrypto".into(), "uuid-ossp".into(), "a;b".into()],
            connection_limit: Some(0),
            slack_channel: Some("#a #b".into()),
            ..ClaimSpec::default()
        };
        assert_eq!(
            fields(&spec),
            [
                "cluster",
                "schemas[1]",
                "schemas[2]",
                "schemas[3]",
                "schemas[4]",
                "schemas[5]",
                "extensions[2]",
                "connectionLimit",
                "slackChannel"
            ]
        );
        assert!(ClaimSpec::default().problems().is_empty());
    }

    #[test]
    fn a_channel_is_one_name_or_an_id() {
        for good in ["#orders", "orders", "C0SHOP", "#bestellungen-für-münchen", &"x".repeat(80)] {
            assert!(is_slack_channel(good), "{good}");
        }
        for bad in ["", "#", "##a", "#a #b", "#a,#b", "a;b", "a\nb", "a\u{0}", &"x".repeat(81)] {
            assert!(!is_slack_channel(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_merge_patch_tells_null_from_absent() {
        let spec = ClaimSpec {
            mode: Mode::Protected,
            schemas: vec!["reporting".into()],
            connection_limit: Some(5),
            slack_channel: Some("#orders".into()),
            ..ClaimSpec::default()
        };
        let patch: ClaimPatch = serde_json::from_str(r#"{"connectionLimit":null,"extensions":["pgcrypto"]}"#).unwrap();
        let patched = patch.apply(&spec);
        assert_eq!(patched.connection_limit, None);
        assert_eq!(patched.extensions, ["pgcrypto"]);
        assert_eq!(patched.mode, Mode::Protected);
        assert_eq!(patched.schemas, ["reporting"]);
        assert_eq!(patched.slack_channel.as_deref(), Some("#orders"));
        let patch: ClaimPatch = serde_json::from_str(r#"{"slackChannel":null}"#).unwrap();
        assert_eq!(patch.apply(&spec).slack_channel, None);
        assert_eq!(ClaimPatch::default().apply(&spec), spec);
        assert!(serde_json::from_str::<ClaimPatch>(r#"{"colour":1}"#).is_err());
    }
}
