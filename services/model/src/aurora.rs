//! An Aurora cluster, as the platform team describes it.

use serde::{Deserialize, Serialize};

/// An Amazon Aurora PostgreSQL cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuroraTopology {
    /// The region, as `eu-west-1`.
    pub region: String,
    /// The cluster's identifier.
    pub cluster_identifier: String,
    /// An RDS Proxy that is to know the tenants' credentials; needs the store `awsSecretsManager`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Makes the cluster where there is none, and shows what is not as described here; nothing is ever deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<AuroraCreate>,
}

/// How an Aurora Serverless v2 cluster is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuroraCreate {
    /// Capacity units at least, in steps of 0.5; 0 lets it pause when nobody is connected.
    #[schemars(range(min = 0.0, max = 256.0))]
    pub min_acu: Acu,
    /// Capacity units at most; RDS allows no less than 1.
    #[schemars(range(min = 1.0, max = 256.0))]
    pub max_acu: Acu,
    /// The engine's version; default: the newest that RDS offers by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// A writer and readers: how many in all.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 16))]
    pub instances: u8,
    /// The DB subnet group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_group: Option<String>,
    /// Security groups.
    #[serde(default)]
    pub security_group_ids: Vec<String>,
    /// The key that encrypts the storage; default: `aws/rds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

/// Aurora capacity units, in halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schema(value_type = f64)]
pub struct Acu(u16);

impl TryFrom<f64> for Acu {
    type Error = String;

    fn try_from(units: f64) -> Result<Self, String> {
        let halves = units * 2.0;
        let whole = (0..=512_u16).find(|number| (f64::from(*number) - halves).abs() < f64::EPSILON);
        whole.map(Self).ok_or_else(|| format!("{units} is not from 0 to 256 in steps of 0.5"))
    }
}

impl From<Acu> for f64 {
    fn from(acu: Acu) -> Self {
        Self::from(acu.0) / 2.0
    }
}

impl schemars::JsonSchema for Acu {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Acu".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "multipleOf": 0.5})
    }
}

fn two() -> u8 {
    2
}

impl AuroraTopology {
    pub(crate) fn problems(&self, say: &mut impl FnMut(&str, String)) {
        let Self { region, cluster_identifier, proxy, create } = self;
        let region_like = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || region.len() > 32 || !region.bytes().all(region_like) {
            say("aurora.region", format!("{region:?} is not a region, as eu-west-1"));
        }
        if !is_rds_identifier(cluster_identifier) {
            say("aurora.clusterIdentifier", format!("{cluster_identifier:?} is not {RDS_IDENTIFIER}"));
        }
        if let Some(proxy) = proxy.as_ref().filter(|proxy| !is_rds_identifier(proxy)) {
            say("aurora.proxy", format!("{proxy:?} is not {RDS_IDENTIFIER}"));
        }
        let Some(create) = create else { return };
        if cluster_identifier.len() > MAX_CREATED_IDENTIFIER {
            let message = format!("has more than {MAX_CREATED_IDENTIFIER} letters: its instances add -1 to -16");
            say("aurora.clusterIdentifier", message);
        }
        create.problems(say);
    }
}

impl AuroraCreate {
    fn problems(&self, say: &mut impl FnMut(&str, String)) {
        let Self { min_acu, max_acu, engine_version, instances, subnet_group, security_group_ids, kms_key_id } = self;
        if max_acu < min_acu || f64::from(*max_acu) < 1.0 {
            say("aurora.create.maxAcu", "must be at least 1 and not below minAcu".to_owned());
        }
        if !(1..=16).contains(instances) {
            say("aurora.create.instances", "must be from 1 to 16".to_owned());
        }
        let version_like = |text: &String| {
            text.len() <= 16 && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        };
        if let Some(version) = engine_version.as_ref().filter(|version| !version_like(version)) {
            say("aurora.create.engineVersion", format!("{version:?} is not a version, as 16.6"));
        }
        let major = engine_version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major < 15) {
            let message = "must be 15 or later: for 14 a superuser is needed, which RDS does not give";
            say("aurora.create.engineVersion", message.to_owned());
        }
        let name_like = |text: &String| {
            (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b" ._-".contains(&b))
        };
        if let Some(group) = subnet_group.as_ref().filter(|group| !name_like(group)) {
            say("aurora.create.subnetGroup", format!("{group:?} is not the name of a subnet group"));
        }
        let group_like = |id: &str| {
            id.strip_prefix("sg-")
                .is_some_and(|rest| (8..=17).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        for (index, id) in security_group_ids.iter().enumerate().filter(|(_, id)| !group_like(id)) {
            let message = format!("{id:?} is not a security group, as sg-0a1b2c3d4e5f60718");
            say(&format!("aurora.create.securityGroupIds[{index}]"), message);
        }
        if kms_key_id.as_ref().is_some_and(|key| key.is_empty() || key.len() > 2048) {
            say("aurora.create.kmsKeyId", "is not the id, the ARN or an alias of a key".to_owned());
        }
    }
}

/// Constraints of `DBClusterIdentifier` in CreateDBCluster, and of names of RDS Proxies.
const RDS_IDENTIFIER: &str =
    "1 to 63 letters, digits and single hyphens, beginning with a letter and not ending in a hyphen";
/// RDS allows instances 63 letters.
const MAX_CREATED_IDENTIFIER: usize = 60;

fn is_rds_identifier(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && !text.ends_with('-')
        && !text.contains("--")
}

#[cfg(test)]
mod tests {
    use crate::Topology;

    #[test]
    fn aurora_is_checked_as_rds_checks_it() {
        let field = |aurora: serde_json::Value| {
            let topology: Topology = serde_json::from_value(serde_json::json!({"aurora": aurora})).unwrap();
            topology.problems().into_iter().map(|problem| problem.field).collect::<Vec<_>>().join(" ")
        };
        let of = |identifier: &str, create: serde_json::Value| {
            field(serde_json::json!({"region": "eu-west-1", "clusterIdentifier": identifier, "create": create}))
        };
        let null = serde_json::Value::Null;
        assert_eq!(of("shared-2", null.clone()), "");
        for wrong in ["", "2shared", "shared-", "sha--red", "sha_red", "sh.ared", &"x".repeat(64)] {
            assert_eq!(of(wrong, null.clone()), "topology.aurora.clusterIdentifier", "{wrong}");
        }
        assert_eq!(of("shared", serde_json::json!({"minAcu": 0, "maxAcu": 16, "engineVersion": "16.6"})), "");
        let wrong = serde_json::json!({
            "minAcu": 4, "maxAcu": 2, "instances": 17, "engineVersion": "16.", "subnetGroup": "a/b",
            "securityGroupIds": ["sg-0a1b2c3d", "sg-x"], "kmsKeyId": "",
        });
        assert_eq!(
            of("shared", wrong),
            "topology.aurora.create.maxAcu topology.aurora.create.instances topology.aurora.create.engineVersion \
             topology.aurora.create.subnetGroup topology.aurora.create.securityGroupIds[1] \
             topology.aurora.create.kmsKeyId"
        );
        let long = serde_json::json!({"minAcu": 0.5, "maxAcu": 1});
        assert_eq!(of(&"x".repeat(61), long), "topology.aurora.clusterIdentifier");
        let hostile = serde_json::json!({"region": "evil.example/", "clusterIdentifier": "a", "proxy": "p q"});
        assert_eq!(field(hostile), "topology.aurora.region topology.aurora.proxy");
    }
}
