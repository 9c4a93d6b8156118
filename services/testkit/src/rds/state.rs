//! What there is at RDS, and what each action makes of it.

use std::collections::BTreeMap;

use axum::http::StatusCode;

use super::proxy::Proxies;
use super::restore::Restores;
use super::{RdsCall, RdsFields};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) clusters: BTreeMap<String, RdsFields>,
    pub(super) instances: BTreeMap<String, RdsFields>,
    /// Parameter groups: parameter and value.
    pub(super) groups: BTreeMap<String, RdsFields>,
    pub(super) proxies: Proxies,
    pub(super) restores: Restores,
    /// Of all clusters: action and description.
    pub(super) maintenance: Vec<(String, String)>,
    /// Where the endpoints of new clusters lead.
    pub(super) endpoint: (String, u16),
    pub(super) calls: Vec<RdsCall>,
    pub(super) refusals: Vec<(String, Refusal)>,
    pub(super) made: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// How often; none: always.
    pub(super) times: Option<u32>,
}

pub(super) type Answer = Result<RdsFields, Refusal>;

impl State {
    pub(super) fn refused(&mut self, action: &str) -> Option<Refusal> {
        let (_, refusal) =
            self.refusals.iter_mut().find(|(name, refusal)| name == action && refusal.times != Some(0))?;
        if let Some(times) = &mut refusal.times {
            *times -= 1;
        }
        Some(refusal.clone())
    }

    pub(super) fn act(&mut self, action: &str, form: RdsFields) -> Answer {
        let of = |key: &str| form.get(key).cloned().unwrap_or_default();
        if self.restores.quick {
            self.settle();
        }
        if let Some(answer) = self.restore_action(action, &form) {
            return answer;
        }
        match action {
            "DescribeDBClusters" if of("DBClusterIdentifier").is_empty() => Ok(self.describe_clusters()),
            "DescribeDBClusters" => match self.clusters.get(&of("DBClusterIdentifier")) {
                Some(fields) => Ok(prefixed("DBClusters.DBCluster.1", fields.clone())),
                None => Err(not_found("DBClusterNotFoundFault", &of("DBClusterIdentifier"))),
            },
            "DescribeDBInstances" => Ok(self.describe_instances(&of("Filters.Filter.1.Values.Value.1"))),
            "DescribeDBClusterParameters" => self.describe_parameters(&form),
            "DescribeDBEngineVersions" => Ok(describe_version(&of("EngineVersion"))),
            "DescribePendingMaintenanceActions" => Ok(self.describe_maintenance(&of("ResourceIdentifier"))),
            "DescribeDBProxies" => self.proxies.describe(&of("DBProxyName")),
            "CreateDBClusterParameterGroup" => self.create_group(of("DBClusterParameterGroupName")),
            "ModifyDBClusterParameterGroup" => self.modify_group(&form),
            "CreateDBCluster" => self.create_cluster(&form),
            "ModifyDBCluster" if form.contains_key("MasterUserPassword") => {
                self.reset_password(&form).unwrap_or_else(|| Ok(RdsFields::new()))
            }
            "ModifyDBCluster" => match self.clusters.get_mut(&of("DBClusterIdentifier")) {
                Some(fields) => {
                    fields.extend(as_described(&form));
                    Ok(RdsFields::new())
                }
                None => Err(not_found("DBClusterNotFoundFault", &of("DBClusterIdentifier"))),
            },
            "CreateDBInstance" => self.create_instance(&of("DBClusterIdentifier"), &of("DBInstanceIdentifier")),
            "AddTagsToResource" => self.add_tag(&of("ResourceName"), &of("Tags.Tag.1.Key"), &of("Tags.Tag.1.Value")),
            "ModifyDBProxy" => self.proxies.modify(&of("DBProxyName"), form),
            other => Err(bad("InvalidAction", format!("{other} is not played here"))),
        }
    }

    /// An identifier that exists is refused and nothing is replaced: `DBClusterAlreadyExistsFault` in
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_CreateDBCluster.html>.
    fn create_cluster(&mut self, form: &RdsFields) -> Answer {
        let name = form.get("DBClusterIdentifier").cloned().unwrap_or_default();
        if self.clusters.contains_key(&name) {
            return Err(bad("DBClusterAlreadyExistsFault", "DB Cluster already exists".to_owned()));
        }
        let group = form.get("DBClusterParameterGroupName").cloned().unwrap_or_default();
        if !group.is_empty() && !self.groups.contains_key(&group) {
            return Err(not_found("DBClusterParameterGroupNotFound", &group));
        }
        self.make_cluster(&name);
        let fields = self.clusters.entry(name).or_default();
        fields.extend(as_described(form));
        Ok(RdsFields::new())
    }

    /// As it is from the first answer on: it has its endpoints, is `creating`, and has no instance.
    pub(super) fn make_cluster(&mut self, name: &str) {
        self.made += 1;
        let (host, port) = self.endpoint.clone();
        let made = self.made;
        let fields = [
            ("DBClusterIdentifier", name.to_owned()),
            ("DBClusterArn", format!("arn:aws:rds:eu-west-1:123456789012:cluster:{name}")),
            ("DbClusterResourceId", format!("cluster-MADE{made:08}")),
            ("Status", "creating".to_owned()),
            ("ClusterCreateTime", "2026-11-20T02:14:00Z".to_owned()),
            ("Engine", "aurora-postgresql".to_owned()),
            ("EngineVersion", "16.6".to_owned()),
            ("Endpoint", host.clone()),
            ("ReaderEndpoint", host),
            ("Port", port.to_string()),
            ("BackupRetentionPeriod", "1".to_owned()),
            ("DBClusterParameterGroup", "default.aurora-postgresql16".to_owned()),
            ("ServerlessV2ScalingConfiguration.MinCapacity", "0.5".to_owned()),
            ("ServerlessV2ScalingConfiguration.MaxCapacity", "16.0".to_owned()),
        ];
        self.clusters.insert(name.to_owned(), fields.map(|(path, value)| (path.to_owned(), value)).into());
    }

    /// Until the cluster is available there can be no instance: `InvalidDBClusterStateFault` in
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_CreateDBInstance.html>.
    fn create_instance(&mut self, cluster: &str, name: &str) -> Answer {
        if self.instances.contains_key(name) {
            return Err(bad("DBInstanceAlreadyExists", "DB instance already exists".to_owned()));
        }
        let Some(fields) = self.clusters.get(cluster) else { return Err(not_found("DBClusterNotFoundFault", cluster)) };
        if fields.get("Status").is_some_and(|status| status == "creating") {
            return Err(bad("InvalidDBClusterStateFault", format!("DB cluster {cluster} is not available")));
        }
        self.make_instance(cluster, name);
        Ok(RdsFields::new())
    }

    /// The first instance of a cluster is its writer.
    pub(super) fn make_instance(&mut self, cluster: &str, name: &str) {
        let fields = self.clusters.entry(cluster.to_owned()).or_default();
        let number = 1 + fields.keys().filter(|path| path.ends_with(".IsClusterWriter")).count();
        let member = format!("DBClusterMembers.DBClusterMember.{number}");
        set(fields, &format!("{member}.DBInstanceIdentifier"), name);
        set(fields, &format!("{member}.IsClusterWriter"), &(number == 1).to_string());
        let (host, port) = self.endpoint.clone();
        let fields = [
            ("DBInstanceIdentifier", name.to_owned()),
            ("DBClusterIdentifier", cluster.to_owned()),
            ("DBInstanceStatus", "creating".to_owned()),
            ("DBInstanceClass", "db.serverless".to_owned()),
            ("CACertificateIdentifier", "rds-ca-rsa2048-g1".to_owned()),
            ("Endpoint.Address", host),
            ("Endpoint.Port", port.to_string()),
        ];
        self.instances.insert(name.to_owned(), fields.map(|(path, value)| (path.to_owned(), value)).into());
    }

    fn describe_clusters(&self) -> RdsFields {
        let all = (1..).zip(self.clusters.values());
        all.flat_map(|(n, fields)| prefixed(&format!("DBClusters.DBCluster.{n}"), fields.clone())).collect()
    }

    fn describe_instances(&self, cluster: &str) -> RdsFields {
        let of = |fields: &&RdsFields| fields.get("DBClusterIdentifier").is_some_and(|name| name == cluster);
        let found = (1..).zip(self.instances.values().filter(of));
        found.flat_map(|(n, fields)| prefixed(&format!("DBInstances.DBInstance.{n}"), fields.clone())).collect()
    }

    fn describe_parameters(&self, form: &RdsFields) -> Answer {
        let name = form.get("DBClusterParameterGroupName").cloned().unwrap_or_default();
        let none = RdsFields::new();
        let group = match self.groups.get(&name) {
            Some(group) => group,
            None if name.starts_with("default.") => &none,
            None => return Err(not_found("DBParameterGroupNotFound", &name)),
        };
        let asked: Vec<&String> = form.iter().filter(|(path, _)| path.contains(".Values.")).map(|(_, v)| v).collect();
        let mut fields = RdsFields::new();
        for (number, (parameter, value)) in (1..).zip(group.iter().filter(|(key, _)| asked.contains(key))) {
            set(&mut fields, &format!("Parameters.Parameter.{number}.ParameterName"), parameter);
            set(&mut fields, &format!("Parameters.Parameter.{number}.ParameterValue"), value);
        }
        Ok(fields)
    }

    fn describe_maintenance(&self, arn: &str) -> RdsFields {
        let mut fields = RdsFields::new();
        let of = "PendingMaintenanceActions.ResourcePendingMaintenanceActions.1";
        for (number, (action, description)) in (1..).zip(&self.maintenance) {
            let one = format!("{of}.PendingMaintenanceActionDetails.PendingMaintenanceAction.{number}");
            set(&mut fields, &format!("{of}.ResourceIdentifier"), arn);
            set(&mut fields, &format!("{one}.Action"), action);
            set(&mut fields, &format!("{one}.Description"), description);
        }
        fields
    }

    fn create_group(&mut self, name: String) -> Answer {
        if self.groups.contains_key(&name) {
            return Err(bad("DBParameterGroupAlreadyExists", format!("Parameter group {name} already exists")));
        }
        self.groups.insert(name, RdsFields::new());
        Ok(RdsFields::new())
    }

    fn modify_group(&mut self, form: &RdsFields) -> Answer {
        let name = form.get("DBClusterParameterGroupName").cloned().unwrap_or_default();
        let Some(group) = self.groups.get_mut(&name) else { return Err(not_found("DBParameterGroupNotFound", &name)) };
        for (path, parameter) in form.iter().filter(|(path, _)| path.ends_with(".ParameterName")) {
            let value = form.get(&path.replace("ParameterName", "ParameterValue")).cloned().unwrap_or_default();
            group.insert(parameter.clone(), value);
        }
        Ok(RdsFields::new())
    }

    fn add_tag(&mut self, arn: &str, key: &str, value: &str) -> Answer {
        let found = self.clusters.values_mut().find(|fields| fields.get("DBClusterArn").is_some_and(|one| one == arn));
        let Some(fields) = found else { return Err(not_found("DBClusterNotFoundFault", arn)) };
        let number = 1 + fields.keys().filter(|path| path.starts_with("TagList.") && path.ends_with(".Key")).count();
        set(fields, &format!("TagList.Tag.{number}.Key"), key);
        set(fields, &format!("TagList.Tag.{number}.Value"), value);
        Ok(RdsFields::new())
    }
}

/// What a form says of a cluster, under the names that descriptions have for it.
pub(super) fn as_described(form: &RdsFields) -> RdsFields {
    let mut fields = RdsFields::new();
    for (path, value) in form {
        let (head, tail) = path.split_once('.').map_or((path.as_str(), ""), |(head, tail)| (head, tail));
        let number = tail.rsplit('.').next().unwrap_or_default();
        let path = match head {
            "EnableIAMDatabaseAuthentication" => "IAMDatabaseAuthenticationEnabled".to_owned(),
            "DBClusterParameterGroupName" => "DBClusterParameterGroup".to_owned(),
            "DBSubnetGroupName" => "DBSubnetGroup".to_owned(),
            "EnableCloudwatchLogsExports" => format!("EnabledCloudwatchLogsExports.{tail}"),
            "Tags" => format!("TagList.{tail}"),
            "VpcSecurityGroupIds" => {
                format!("VpcSecurityGroups.VpcSecurityGroupMembership.{number}.VpcSecurityGroupId")
            }
            // The secret's status is `creating` at first:
            // https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_MasterUserSecret.html
            "ManageMasterUserPassword" => {
                set(&mut fields, "MasterUserSecret.SecretStatus", "active");
                set(
                    &mut fields,
                    "MasterUserSecret.SecretArn",
                    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!cluster",
                );
                continue;
            }
            "ApplyImmediately" => continue,
            _ => path.clone(),
        };
        fields.insert(path, value.clone());
    }
    fields
}

fn describe_version(asked: &str) -> RdsFields {
    let version = if asked.is_empty() { "16.6" } else { asked };
    let major = version.split('.').next().unwrap_or_default();
    let of = "DBEngineVersions.DBEngineVersion.1";
    [
        (format!("{of}.EngineVersion"), version.to_owned()),
        (format!("{of}.DBParameterGroupFamily"), format!("aurora-postgresql{major}")),
    ]
    .into()
}

pub(super) fn set(fields: &mut RdsFields, path: &str, value: &str) {
    if value.is_empty() {
        fields.remove(path);
    } else {
        fields.insert(path.to_owned(), value.to_owned());
    }
}

pub(super) fn prefixed(prefix: &str, fields: RdsFields) -> RdsFields {
    fields.into_iter().map(|(path, value)| (format!("{prefix}.{path}"), value)).collect()
}

pub(super) fn not_found(code: &'static str, name: &str) -> Refusal {
    Refusal { status: StatusCode::NOT_FOUND, code, message: format!("{name} not found."), times: None }
}

pub(super) fn bad(code: &'static str, message: String) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, code, message, times: None }
}
