//! Amazon RDS on the wire, as far as a real one differs from moto: what is made takes time, what exists is not replaced, and
//! calls can be refused. The servers behind the endpoints are real ones, which the test names.
//!
//! The protocol is [AWS Query](https://smithy.io/2.0/aws/protocols/aws-query-protocol.html): a form in, XML out. What RDS says of
//! a thing is kept as a list of paths and values, as `DBClusterMembers.DBClusterMember.1.IsClusterWriter`, which are mostly those
//! of the form that made it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::xml::xml;

/// Paths and values.
pub type RdsFields = BTreeMap<String, String>;

/// What was asked of RDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdsCall {
    /// As `DescribeDBClusters`.
    pub action: String,
    /// The form, without `Action` and `Version`.
    pub parameters: RdsFields,
}

/// RDS of one region. It ends with the test's runtime.
#[derive(Debug, Clone)]
pub struct FakeRds {
    url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    clusters: BTreeMap<String, RdsFields>,
    instances: BTreeMap<String, RdsFields>,
    /// Parameter groups: parameter and value.
    groups: BTreeMap<String, RdsFields>,
    proxies: BTreeMap<String, RdsFields>,
    /// Of all clusters: action and description.
    maintenance: Vec<(String, String)>,
    /// Where the endpoints of new clusters lead.
    endpoint: (String, u16),
    calls: Vec<RdsCall>,
    refusals: Vec<(String, Refusal)>,
    made: u32,
}

#[derive(Debug, Clone)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// How often; none: always.
    times: Option<u32>,
}

type Answer = Result<RdsFields, Refusal>;

impl FakeRds {
    /// Without any cluster; the endpoints of those that are made will lead to `host` and `port`.
    pub async fn start(host: &str, port: u16) -> Self {
        let state = Arc::new(Mutex::new(State { endpoint: (host.to_owned(), port), ..State::default() }));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.unwrap_or_else(|error| panic!("no port for RDS: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no address of RDS: {error}"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url: format!("http://{address}"), state }
    }

    /// For `AWS_ENDPOINT_URL_RDS`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was asked so far.
    pub fn calls(&self) -> Vec<RdsCall> {
        self.lock().calls.clone()
    }

    /// The names of the calls so far.
    pub fn actions(&self) -> Vec<String> {
        self.lock().calls.iter().map(|call| call.action.clone()).collect()
    }

    /// A Serverless v2 cluster that somebody else has made, with a writer and `readers`, available.
    pub fn add_cluster(&self, name: &str, readers: u32) {
        let mut state = self.lock();
        state.make_cluster(name);
        for number in 1..=readers + 1 {
            state.make_instance(name, &format!("{name}-{number}"));
        }
        state.settle();
    }

    /// What was begun comes to its end: clusters and instances become `available`.
    pub fn settle(&self) {
        self.lock().settle();
    }

    /// Sets what RDS says of a cluster; an empty value takes the path away.
    pub fn set(&self, cluster: &str, path: &str, value: &str) {
        set(self.lock().clusters.entry(cluster.to_owned()).or_default(), path, value);
    }

    /// As [`FakeRds::set`], of an instance.
    pub fn set_instance(&self, instance: &str, path: &str, value: &str) {
        set(self.lock().instances.entry(instance.to_owned()).or_default(), path, value);
    }

    /// What RDS says of a cluster under `path`.
    pub fn get(&self, cluster: &str, path: &str) -> Option<String> {
        self.lock().clusters.get(cluster)?.get(path).cloned()
    }

    /// Forgets a cluster, as if somebody had deleted it.
    pub fn delete_cluster(&self, cluster: &str) {
        self.lock().clusters.remove(cluster);
    }

    /// Sets a parameter of a group.
    pub fn set_parameter(&self, group: &str, name: &str, value: &str) {
        self.lock().groups.entry(group.to_owned()).or_default().insert(name.to_owned(), value.to_owned());
    }

    /// A proxy with these secrets.
    pub fn add_proxy(&self, name: &str, secrets: &[&str]) {
        let mut fields = RdsFields::from([("DBProxyName".to_owned(), name.to_owned())]);
        for (number, arn) in (1..).zip(secrets) {
            fields.insert(format!("Auth.member.{number}.AuthScheme"), "SECRETS".to_owned());
            fields.insert(format!("Auth.member.{number}.SecretArn"), (*arn).to_owned());
        }
        self.lock().proxies.insert(name.to_owned(), fields);
    }

    /// The secrets that a proxy has.
    pub fn proxy_secrets(&self, name: &str) -> Vec<String> {
        let state = self.lock();
        let fields = state.proxies.get(name).into_iter().flatten();
        fields.filter(|(path, _)| path.ends_with(".SecretArn")).map(|(_, arn)| arn.clone()).collect()
    }

    /// Maintenance that is due on every cluster.
    pub fn plan_maintenance(&self, action: &str, description: &str) {
        self.lock().maintenance.push((action.to_owned(), description.to_owned()));
    }

    /// The writer of `cluster` is lost. [`FakeRds::fail_over`] ends it. During it the status is `failing-over`:
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/accessing-monitoring.html>.
    pub fn begin_failover(&self, cluster: &str) {
        self.set(cluster, "Status", "failing-over");
    }

    /// `instance` is the writer now, and the cluster endpoint leads to `host` and `port`: with the real one the name stays and
    /// leads elsewhere, which no name on this machine can.
    pub fn fail_over(&self, cluster: &str, instance: &str, host: &str, port: u16) {
        let mut state = self.lock();
        let fields = state.clusters.entry(cluster.to_owned()).or_default();
        let names: Vec<(String, bool)> = fields
            .iter()
            .filter(|(path, _)| path.ends_with(".DBInstanceIdentifier"))
            .map(|(path, name)| (path.replace("DBInstanceIdentifier", "IsClusterWriter"), name == instance))
            .collect();
        fields.extend(names.into_iter().map(|(path, writer)| (path, writer.to_string())));
        set(fields, "Endpoint", host);
        set(fields, "Port", &port.to_string());
        set(fields, "Status", "available");
    }

    /// Refuses a call from now on, as IAM does:
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/CommonErrors.html>.
    pub fn deny(&self, action: &str) {
        let message =
            format!("User: arn:aws:sts::123456789012:assumed-role/pgtenant is not authorized to perform: rds:{action}");
        self.refuse(action, StatusCode::FORBIDDEN, "AccessDenied", message, None);
    }

    /// Refuses a call so many times, as RDS does when it is asked too often (same list of errors).
    pub fn throttle(&self, action: &str, times: u32) {
        self.refuse(action, StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded".to_owned(), Some(times));
    }

    /// Refuses nothing any more.
    pub fn allow_everything(&self) {
        self.lock().refusals.clear();
    }

    fn refuse(&self, action: &str, status: StatusCode, code: &'static str, message: String, times: Option<u32>) {
        self.lock().refusals.push((action.to_owned(), Refusal { status, code, message, times }));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(Shared(state): Shared<Arc<Mutex<State>>>, body: String) -> Response {
    let mut form: RdsFields = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let action = form.remove("Action").unwrap_or_default();
    form.remove("Version");
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.calls.push(RdsCall { action: action.clone(), parameters: form.clone() });
    let (status, body) = match state.refused(&action).map_or_else(|| state.act(&action, form), Err) {
        Ok(fields) => {
            let result = prefixed(&format!("{action}Response.{action}Result"), fields);
            (StatusCode::OK, xml(&result, &format!("{action}Response.{action}Result")))
        }
        Err(Refusal { status, code, message, times: _ }) => {
            let fields = [("Type", "Sender"), ("Code", code), ("Message", &message)];
            let fields = fields.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
            (status, xml(&prefixed("ErrorResponse.Error", fields), "ErrorResponse"))
        }
    };
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

impl State {
    fn refused(&mut self, action: &str) -> Option<Refusal> {
        let (_, refusal) =
            self.refusals.iter_mut().find(|(name, refusal)| name == action && refusal.times != Some(0))?;
        if let Some(times) = &mut refusal.times {
            *times -= 1;
        }
        Some(refusal.clone())
    }

    fn act(&mut self, action: &str, form: RdsFields) -> Answer {
        let of = |key: &str| form.get(key).cloned().unwrap_or_default();
        match action {
            "DescribeDBClusters" => match self.clusters.get(&of("DBClusterIdentifier")) {
                Some(fields) => Ok(prefixed("DBClusters.DBCluster.1", fields.clone())),
                None => Err(not_found("DBClusterNotFoundFault", &of("DBClusterIdentifier"))),
            },
            "DescribeDBInstances" => Ok(self.describe_instances(&of("Filters.Filter.1.Values.Value.1"))),
            "DescribeDBClusterParameters" => self.describe_parameters(&form),
            "DescribeDBEngineVersions" => Ok(describe_version(&of("EngineVersion"))),
            "DescribePendingMaintenanceActions" => Ok(self.describe_maintenance(&of("ResourceIdentifier"))),
            "DescribeDBProxies" => match self.proxies.get(&of("DBProxyName")) {
                Some(fields) => Ok(prefixed("DBProxies.member.1", fields.clone())),
                None => Err(not_found("DBProxyNotFoundFault", &of("DBProxyName"))),
            },
            "CreateDBClusterParameterGroup" => self.create_group(of("DBClusterParameterGroupName")),
            "ModifyDBClusterParameterGroup" => self.modify_group(&form),
            "CreateDBCluster" => self.create_cluster(&form),
            "ModifyDBCluster" => match self.clusters.get_mut(&of("DBClusterIdentifier")) {
                Some(fields) => {
                    fields.extend(as_described(&form));
                    Ok(RdsFields::new())
                }
                None => Err(not_found("DBClusterNotFoundFault", &of("DBClusterIdentifier"))),
            },
            "CreateDBInstance" => self.create_instance(&of("DBClusterIdentifier"), &of("DBInstanceIdentifier")),
            "AddTagsToResource" => self.add_tag(&of("ResourceName"), &of("Tags.Tag.1.Key"), &of("Tags.Tag.1.Value")),
            "ModifyDBProxy" => match self.proxies.get_mut(&of("DBProxyName")) {
                Some(fields) => {
                    fields.retain(|path, _| !path.starts_with("Auth."));
                    fields.extend(form.into_iter().filter(|(path, _)| path.starts_with("Auth.")));
                    Ok(RdsFields::new())
                }
                None => Err(not_found("DBProxyNotFoundFault", &of("DBProxyName"))),
            },
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
    fn make_cluster(&mut self, name: &str) {
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
    fn make_instance(&mut self, cluster: &str, name: &str) {
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

    fn settle(&mut self) {
        let statuses = self.clusters.values_mut().filter_map(|fields| fields.get_mut("Status"));
        let instances = self.instances.values_mut().filter_map(|fields| fields.get_mut("DBInstanceStatus"));
        statuses
            .chain(instances)
            .filter(|status| *status == "creating")
            .for_each(|status| *status = "available".into());
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
fn as_described(form: &RdsFields) -> RdsFields {
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

fn set(fields: &mut RdsFields, path: &str, value: &str) {
    if value.is_empty() {
        fields.remove(path);
    } else {
        fields.insert(path.to_owned(), value.to_owned());
    }
}

fn prefixed(prefix: &str, fields: RdsFields) -> RdsFields {
    fields.into_iter().map(|(path, value)| (format!("{prefix}.{path}"), value)).collect()
}

fn not_found(code: &'static str, name: &str) -> Refusal {
    Refusal { status: StatusCode::NOT_FOUND, code, message: format!("{name} not found."), times: None }
}

fn bad(code: &'static str, message: String) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, code, message, times: None }
}
