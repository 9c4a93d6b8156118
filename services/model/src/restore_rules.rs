//! How a cluster's databases are restored, as the platform team describes it.

use serde::{Deserialize, Serialize};

use crate::{Environment, InvalidField, Span};

/// How a cluster's databases are restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreRules {
    /// Who says yes; default: in production somebody of the platform team who has not asked, elsewhere also who has asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// How long the database is kept that a restore has put aside.
    #[serde(default = "keep_before")]
    #[schema(value_type = String)]
    pub keep_before: Span,
    /// Restores of this cluster under way at once.
    #[serde(default = "at_once")]
    #[schemars(range(min = 1, max = 16))]
    pub at_once: u8,
    /// Connections that a restore or a dump copies over at once.
    #[serde(default = "jobs")]
    #[schemars(range(min = 1, max = 32))]
    pub jobs: u8,
    /// Bytes a second that each restore and each dump may move; none: as many as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576))]
    pub bytes_per_second: Option<u64>,
    /// Bytes that all databases of the cluster may have together: a restore that would not fit is not begun. None: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// With topology `aurora`: the copy of the cluster that is made to restore from what RDS keeps.
    #[serde(default)]
    pub rds: RdsCopyRules,
}

/// The copy of an Aurora cluster that is made to restore one database of it, and deleted then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RdsCopyRules {
    /// Who may reach it: should let in the control plane alone. Empty: those of the cluster.
    #[serde(default)]
    #[schemars(length(max = 5))]
    pub security_group_ids: Vec<String>,
    /// The most it may take, in Aurora capacity units; the least is 0.5.
    #[serde(default = "copy_max_acu")]
    #[schemars(range(min = 1, max = 256))]
    pub max_acu: u16,
}

impl Default for RdsCopyRules {
    fn default() -> Self {
        Self { security_group_ids: Vec::new(), max_acu: copy_max_acu() }
    }
}

fn copy_max_acu() -> u16 {
    8
}

/// Who says yes to a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Approval {
    /// Somebody of the platform team who has not asked for it.
    Other,
    /// Somebody of the platform team, or whoever may change the database, the one who has asked among them.
    Anyone,
    /// Nobody: a wish is enough.
    Nobody,
}

impl Default for RestoreRules {
    fn default() -> Self {
        Self {
            approval: None,
            keep_before: keep_before(),
            at_once: at_once(),
            jobs: jobs(),
            bytes_per_second: None,
            storage_bytes: None,
            rds: RdsCopyRules::default(),
        }
    }
}

fn keep_before() -> Span {
    Span::from_secs(7 * 86_400)
}

fn at_once() -> u8 {
    2
}

fn jobs() -> u8 {
    2
}

impl RestoreRules {
    /// Who says yes on a cluster of this environment.
    #[must_use]
    pub fn approval(&self, environment: Environment) -> Approval {
        let usual = if environment == Environment::Production { Approval::Other } else { Approval::Anyone };
        self.approval.unwrap_or(usual)
    }

    pub(crate) fn problems(&self) -> Vec<InvalidField> {
        let ranges = [
            ("restores.atOnce", u64::from(self.at_once), 1..=16),
            ("restores.jobs", u64::from(self.jobs), 1..=32),
            ("restores.rds.maxAcu", self.rds.max_acu.into(), 1..=256),
            ("restores.bytesPerSecond", self.bytes_per_second.unwrap_or(1 << 20), (1 << 20)..=u64::MAX),
        ];
        let groups = &self.rds.security_group_ids;
        let wrong_groups = (groups.len() > 5 || groups.iter().any(|group| !group.starts_with("sg-")))
            .then(|| InvalidField::new("restores.rds.securityGroupIds", "name up to 5, each as sg-0a1b2c3d"));
        let wrong = ranges.into_iter().filter(|(_, value, range)| !range.contains(value));
        wrong
            .map(|(field, _, range)| {
                let (least, most) = range.into_inner();
                let allowed = if most == u64::MAX { format!("at least {least}") } else { format!("{least} to {most}") };
                InvalidField::new(field, format!("must be {allowed}"))
            })
            .chain(wrong_groups)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_needs_somebody_else() {
        let rules = RestoreRules::default();
        assert_eq!(rules.approval(Environment::Production), Approval::Other);
        for environment in [Environment::Staging, Environment::Test, Environment::Dev] {
            assert_eq!(rules.approval(environment), Approval::Anyone);
        }
        let nobody = RestoreRules { approval: Some(Approval::Nobody), ..rules };
        assert_eq!(nobody.approval(Environment::Production), Approval::Nobody);
    }

    #[test]
    fn a_restore_has_at_least_one_connection() {
        let rules = RestoreRules { jobs: 0, bytes_per_second: Some(1), ..RestoreRules::default() };
        let fields: Vec<_> = rules.problems().into_iter().map(|one| one.field).collect();
        assert_eq!(fields, ["restores.jobs", "restores.bytesPerSecond"]);
    }
}
