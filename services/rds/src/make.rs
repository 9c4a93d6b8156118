//! A cluster is made: parameter group, cluster, instances. Whoever comes second finds that it is there already, and goes on.

use aws_sdk_rds::types::{ApplyMethod, Parameter, ServerlessV2ScalingConfiguration, Tag};

use crate::client::Rds;
use crate::cluster::Cluster;
use crate::fault::RdsFault;
use crate::wanted::{COMPLETE, MANAGED_BY, Wanted};

const ENGINE: &str = "aurora-postgresql";
pub(crate) const CLASS: &str = "db.serverless";
const MASTER: &str = "postgres";

/// What is done next to a cluster that is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The parameter group and the cluster: there is none.
    MakeCluster,
    /// Instances of these identifiers.
    MakeInstances(Vec<String>),
    /// All is there: the cluster is marked, so that an instance that is missing later is not made again.
    Finish,
    /// RDS is at work.
    Wait,
}

/// What is done next; none: nothing, or the cluster is not one that pgtenant makes.
#[must_use]
pub fn next_step(wanted: &Wanted, found: Option<&Cluster>) -> Option<Step> {
    let Some(found) = found else { return Some(Step::MakeCluster) };
    if !found.is_made_by_pgtenant() || found.tags.contains_key(COMPLETE) {
        return None;
    }
    if found.status != "available" {
        return Some(Step::Wait);
    }
    let there = |name: &String| found.members.iter().any(|member| member.instance == *name);
    let missing: Vec<String> = wanted.instances().into_iter().filter(|name| !there(name)).collect();
    Some(if missing.is_empty() { Step::Finish } else { Step::MakeInstances(missing) })
}

impl Rds {
    /// Does it. `rds:DescribeDBEngineVersions`, `rds:CreateDBClusterParameterGroup`, `rds:ModifyDBClusterParameterGroup`,
    /// `rds:CreateDBCluster`, `rds:CreateDBInstance`, `rds:AddTagsToResource`.
    ///
    /// # Errors
    /// RDS refused or did not answer; what was done stays, and the next look goes on from there.
    pub async fn take_step(&self, step: &Step, wanted: &Wanted, found: Option<&Cluster>) -> Result<(), RdsFault> {
        match step {
            Step::MakeCluster => self.make_cluster(wanted).await,
            Step::MakeInstances(names) => {
                for name in names {
                    self.make_instance(wanted, name).await?;
                }
                Ok(())
            }
            Step::Finish => match found.and_then(|cluster| cluster.arn.as_deref()) {
                Some(arn) => self.mark_complete(arn).await,
                None => Ok(()),
            },
            Step::Wait => Ok(()),
        }
    }

    /// Brings the backup window in line, which moves when the clocks do. `rds:ModifyDBCluster`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn move_backup_window(&self, wanted: &Wanted) -> Result<(), RdsFault> {
        let request = self.client().await.modify_db_cluster().db_cluster_identifier(&wanted.identifier);
        let asked = request.preferred_backup_window(&wanted.backup_window).apply_immediately(true).send().await;
        asked.map(drop).map_err(|error| RdsFault::new("ModifyDBCluster", &error))
    }

    async fn make_cluster(&self, wanted: &Wanted) -> Result<(), RdsFault> {
        let family = self.family(wanted.create.engine_version.as_deref()).await?;
        self.make_parameter_group(wanted, &family).await?;
        let create = &wanted.create;
        let capacity = wanted.capacity();
        let scaling = ServerlessV2ScalingConfiguration::builder().min_capacity(capacity.min).max_capacity(capacity.max);
        let groups = Some(create.security_group_ids.clone()).filter(|groups| !groups.is_empty());
        let request = self
            .client()
            .await
            .create_db_cluster()
            .db_cluster_identifier(&wanted.identifier)
            .engine(ENGINE)
            .set_engine_version(create.engine_version.clone())
            .master_username(MASTER)
            .manage_master_user_password(true)
            .storage_encrypted(true)
            .set_kms_key_id(create.kms_key_id.clone())
            .enable_iam_database_authentication(true)
            .deletion_protection(true)
            .copy_tags_to_snapshot(true)
            .set_enable_cloudwatch_logs_exports(Some(Wanted::log_exports()))
            .db_cluster_parameter_group_name(wanted.parameter_group())
            .set_db_subnet_group_name(create.subnet_group.clone())
            .set_vpc_security_group_ids(groups)
            .backup_retention_period(wanted.backup_retention)
            .preferred_backup_window(&wanted.backup_window)
            .preferred_maintenance_window(Wanted::maintenance_window())
            .serverless_v2_scaling_configuration(scaling.build())
            .set_tags(Some(tags(wanted)));
        done_or_there(request.send().await.map_err(|error| RdsFault::new("CreateDBCluster", &error)))
    }

    /// The family of parameters of a version, as `aurora-postgresql16`; of the default one where none is named.
    async fn family(&self, version: Option<&str>) -> Result<String, RdsFault> {
        let request = self.client().await.describe_db_engine_versions().engine(ENGINE);
        let request = match version {
            Some(version) => request.engine_version(version),
            None => request.default_only(true),
        };
        let asked = request.send().await.map_err(|error| RdsFault::new("DescribeDBEngineVersions", &error))?;
        let families = asked.db_engine_versions().iter().filter_map(|one| one.db_parameter_group_family());
        families.map(ToOwned::to_owned).next().ok_or_else(|| RdsFault {
            call: "DescribeDBEngineVersions",
            code: Some("InvalidParameterValue".to_owned()),
            message: format!("{ENGINE} has no version {:?}", version.unwrap_or("that is the default")),
        })
    }

    async fn make_parameter_group(&self, wanted: &Wanted, family: &str) -> Result<(), RdsFault> {
        let client = self.client().await;
        let name = wanted.parameter_group();
        let request = client
            .create_db_cluster_parameter_group()
            .db_cluster_parameter_group_name(&name)
            .db_parameter_group_family(family)
            .description(format!("Cluster {} of pgtenant", wanted.identifier))
            .set_tags(Some(tags(wanted)));
        let made = request.send().await.map_err(|error| RdsFault::new("CreateDBClusterParameterGroup", &error));
        done_or_there(made)?;
        let force = Parameter::builder()
            .parameter_name("rds.force_ssl")
            .parameter_value("1")
            .apply_method(ApplyMethod::PendingReboot);
        let request = client.modify_db_cluster_parameter_group().db_cluster_parameter_group_name(&name);
        let set = request.parameters(force.build()).send().await;
        set.map(drop).map_err(|error| RdsFault::new("ModifyDBClusterParameterGroup", &error))
    }

    async fn make_instance(&self, wanted: &Wanted, name: &str) -> Result<(), RdsFault> {
        let request = self
            .client()
            .await
            .create_db_instance()
            .db_instance_identifier(name)
            .db_cluster_identifier(&wanted.identifier)
            .db_instance_class(CLASS)
            .engine(ENGINE)
            .publicly_accessible(false)
            .copy_tags_to_snapshot(true)
            .set_tags(Some(tags(wanted)));
        done_or_there(request.send().await.map_err(|error| RdsFault::new("CreateDBInstance", &error)))
    }

    async fn mark_complete(&self, arn: &str) -> Result<(), RdsFault> {
        let tag = Tag::builder().key(COMPLETE).value("true").build();
        let asked = self.client().await.add_tags_to_resource().resource_name(arn).tags(tag).send().await;
        asked.map(drop).map_err(|error| RdsFault::new("AddTagsToResource", &error))
    }
}

/// Another replica may have been first.
fn done_or_there<T>(result: Result<T, RdsFault>) -> Result<(), RdsFault> {
    const THERE: [&str; 3] =
        ["DBClusterAlreadyExistsFault", "DBInstanceAlreadyExists", "DBParameterGroupAlreadyExists"];
    match result {
        Err(fault) if !THERE.iter().any(|code| fault.is(code)) => Err(fault),
        _ => Ok(()),
    }
}

fn tags(wanted: &Wanted) -> Vec<Tag> {
    let pairs = [MANAGED_BY, ("environment", wanted.environment_name())];
    pairs.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}
