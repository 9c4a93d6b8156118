//! Snapshots of clusters, and clusters that are made of them.
//!
//! What is made is `creating`, and what is deleted is `deleting`, until [`super::FakeRds::settle`]; a password that is replaced is in
//! effect after it (`resetting-master-credentials`). The statuses are those of
//! <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/accessing-monitoring.html>.

use std::collections::BTreeMap;

use super::RdsFields;
use super::state::{Answer, State, as_described, bad, not_found, prefixed, set};

/// Replaces the password of a master login: cluster, login, password.
pub(super) type SetPassword = Box<dyn Fn(&str, &str, &str) + Send + Sync>;

/// What there is for restores.
#[derive(Default)]
pub(super) struct Restores {
    pub(super) snapshots: BTreeMap<String, RdsFields>,
    /// Where the endpoints of clusters lead that are made of snapshots.
    pub(super) endpoint: Option<(String, u16)>,
    pub(super) set_password: Option<SetPassword>,
    /// Whether all settles by itself, as time passes.
    pub(super) quick: bool,
}

impl std::fmt::Debug for Restores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restores").field("snapshots", &self.snapshots).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn restore_action(&mut self, action: &str, form: &RdsFields) -> Option<Answer> {
        let of = |key: &str| form.get(key).cloned().unwrap_or_default();
        let (cluster, instance) = (of("DBClusterIdentifier"), of("DBInstanceIdentifier"));
        let snapshot = of("DBClusterSnapshotIdentifier");
        Some(match action {
            "DescribeDBClusterSnapshots" => Ok(self.describe_snapshots(&cluster)),
            "CreateDBClusterSnapshot" => self.take_snapshot(&cluster, &snapshot, form),
            "DeleteDBClusterSnapshot" => match self.restores.snapshots.remove(&snapshot) {
                Some(_) => Ok(RdsFields::new()),
                None => Err(not_found("DBClusterSnapshotNotFoundFault", &snapshot)),
            },
            "RestoreDBClusterFromSnapshot" => self.of_snapshot(&cluster, &of("SnapshotIdentifier"), form),
            "RestoreDBClusterToPointInTime" => self.at_time(&cluster, &of("SourceDBClusterIdentifier"), form),
            "DeleteDBInstance" => self.delete_instance(&instance),
            "DeleteDBCluster" => self.delete_cluster(&cluster),
            _ => return None,
        })
    }

    /// A snapshot of `cluster`, available.
    pub(super) fn add_snapshot(&mut self, cluster: &str, name: &str, at: &str, automatic: bool) {
        let source = self.clusters.get(cluster).cloned().unwrap_or_default();
        let from_source = |path: &str| source.get(path).cloned().unwrap_or_default();
        let kind = if automatic { "automated" } else { "manual" };
        let mut fields = RdsFields::new();
        for (path, value) in [
            ("DBClusterSnapshotIdentifier", name.to_owned()),
            ("DBClusterIdentifier", cluster.to_owned()),
            ("SnapshotCreateTime", at.to_owned()),
            ("Status", "available".to_owned()),
            ("SnapshotType", kind.to_owned()),
            ("EngineVersion", from_source("EngineVersion")),
            ("MasterUsername", from_source("MasterUsername")),
            ("AllocatedStorage", "1".to_owned()),
        ] {
            set(&mut fields, path, &value);
        }
        self.restores.snapshots.insert(name.to_owned(), fields);
    }

    fn describe_snapshots(&self, cluster: &str) -> RdsFields {
        let of = |fields: &&RdsFields| fields.get("DBClusterIdentifier").is_some_and(|name| name == cluster);
        let found = (1..).zip(self.restores.snapshots.values().filter(of));
        let one = |(n, fields): (i32, &RdsFields)| {
            prefixed(&format!("DBClusterSnapshots.DBClusterSnapshot.{n}"), fields.clone())
        };
        found.flat_map(one).collect()
    }

    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_CreateDBClusterSnapshot.html>.
    fn take_snapshot(&mut self, cluster: &str, name: &str, form: &RdsFields) -> Answer {
        if self.restores.snapshots.contains_key(name) {
            return Err(bad("DBClusterSnapshotAlreadyExistsFault", format!("{name} already exists")));
        }
        if !self.clusters.contains_key(cluster) {
            return Err(not_found("DBClusterNotFoundFault", cluster));
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now =
            chrono::DateTime::from_timestamp(i64::try_from(now.as_secs()).unwrap_or_default(), 0).unwrap_or_default();
        self.add_snapshot(cluster, name, &now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true), false);
        let fields = self.restores.snapshots.entry(name.to_owned()).or_default();
        fields.extend(as_described(form));
        Ok(RdsFields::new())
    }

    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RestoreDBClusterFromSnapshot.html>.
    fn of_snapshot(&mut self, name: &str, snapshot: &str, form: &RdsFields) -> Answer {
        let Some(found) = self.restores.snapshots.get(snapshot) else {
            return Err(not_found("DBClusterSnapshotNotFoundFault", snapshot));
        };
        let master = found.get("MasterUsername").cloned().unwrap_or_default();
        self.restored(name, &master, form)
    }

    /// A time outside of what the cluster can be restored to is `InvalidRestoreFault`:
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RestoreDBClusterToPointInTime.html>.
    fn at_time(&mut self, name: &str, source: &str, form: &RdsFields) -> Answer {
        let Some(found) = self.clusters.get(source) else { return Err(not_found("DBClusterNotFoundFault", source)) };
        let of = |path: &str| found.get(path).cloned().unwrap_or_default();
        let (time, from, until) = (form.get("RestoreToTime"), of("EarliestRestorableTime"), of("LatestRestorableTime"));
        // In one form of UTC, texts are ordered as times are.
        if time.is_none_or(|time| {
            time.trim_end_matches('Z') < from.trim_end_matches('Z')
                || time.trim_end_matches('Z') > until.trim_end_matches('Z')
        }) {
            return Err(bad("InvalidRestoreFault", format!("{time:?} is not within {from} and {until}")));
        }
        let master = of("MasterUsername");
        self.restored(name, &master, form)
    }

    fn restored(&mut self, name: &str, master: &str, form: &RdsFields) -> Answer {
        if self.clusters.contains_key(name) {
            return Err(bad("DBClusterAlreadyExistsFault", "DB Cluster already exists".to_owned()));
        }
        self.make_cluster(name);
        let fields = self.clusters.entry(name.to_owned()).or_default();
        fields.extend(as_described(form));
        set(fields, "MasterUsername", master);
        if let Some((host, port)) = &self.restores.endpoint {
            set(fields, "Endpoint", host);
            set(fields, "Port", &port.to_string());
        }
        Ok(RdsFields::new())
    }

    /// An instance that is being made or deleted takes no further call: `InvalidDBInstanceState` in
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DeleteDBInstance.html>.
    fn delete_instance(&mut self, name: &str) -> Answer {
        let Some(fields) = self.instances.get_mut(name) else { return Err(not_found("DBInstanceNotFound", name)) };
        match fields.get("DBInstanceStatus").map(String::as_str) {
            Some(status @ ("creating" | "deleting")) => {
                let message = format!("Instance {name} is currently {status}");
                return Err(bad("InvalidDBInstanceState", message));
            }
            _ => set(fields, "DBInstanceStatus", "deleting"),
        }
        Ok(RdsFields::new())
    }

    /// `InvalidDBClusterStateFault` while an instance is not `deleting`, and while deletion protection is on:
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DeleteDBCluster.html>.
    fn delete_cluster(&mut self, name: &str) -> Answer {
        let of = |fields: &&RdsFields| fields.get("DBClusterIdentifier").is_some_and(|cluster| cluster == name);
        let deleting = |fields: &RdsFields| fields.get("DBInstanceStatus").is_some_and(|status| status == "deleting");
        let busy = self.instances.values().filter(of).any(|fields| !deleting(fields));
        let Some(fields) = self.clusters.get_mut(name) else { return Err(not_found("DBClusterNotFoundFault", name)) };
        let protected = fields.get("DeletionProtection").is_some_and(|on| on == "true");
        let status = fields.get("Status").cloned().unwrap_or_default();
        if busy || protected || status != "available" {
            let message = "Cluster cannot be deleted, it still contains DB instances in non-deleting state.";
            return Err(bad("InvalidDBClusterStateFault", message.to_owned()));
        }
        set(fields, "Status", "deleting");
        Ok(RdsFields::new())
    }

    /// What was begun comes to its end: what is made is there, what is deleted is gone.
    pub(super) fn settle(&mut self) {
        let is = |fields: &RdsFields, path: &str, status: &str| fields.get(path).is_some_and(|one| one == status);
        self.clusters.retain(|_, fields| !is(fields, "Status", "deleting"));
        self.instances.retain(|_, fields| !is(fields, "DBInstanceStatus", "deleting"));
        for (path, fields) in self
            .clusters
            .values_mut()
            .map(|fields| ("Status", fields))
            .chain(self.instances.values_mut().map(|fields| ("DBInstanceStatus", fields)))
        {
            if is(fields, path, "creating") || is(fields, path, "resetting-master-credentials") {
                set(fields, path, "available");
            }
        }
    }

    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_ModifyDBCluster.html>: none: nothing is done about a password.
    pub(super) fn reset_password(&mut self, form: &RdsFields) -> Option<Answer> {
        let password = form.get("MasterUserPassword")?;
        let name = form.get("DBClusterIdentifier").cloned().unwrap_or_default();
        let Some(fields) = self.clusters.get_mut(&name) else {
            return Some(Err(not_found("DBClusterNotFoundFault", &name)));
        };
        if fields.get("Status").is_some_and(|status| status != "available") {
            return Some(Err(bad("InvalidDBClusterStateFault", format!("{name} is not available"))));
        }
        set(fields, "Status", "resetting-master-credentials");
        let master = fields.get("MasterUsername").cloned().unwrap_or_default();
        if let Some(set_password) = &self.restores.set_password {
            set_password(&name, &master, password);
        }
        Some(Ok(RdsFields::new()))
    }
}
