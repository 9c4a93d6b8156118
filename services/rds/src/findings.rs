//! What would bite later on an Aurora cluster.

use chrono::{DateTime, TimeDelta, Utc};
use pgtenant_model::{Environment, InvalidField};

use crate::cluster::{Cluster, Instance, Maintenance, Parameters};
use crate::wanted::backup_retention;

/// A certificate that ends within this time is told of: RDS renews those of Serverless v2 instances by itself well before.
const CERTIFICATE_DAYS: i64 = 30;
/// The release from which `rds.force_ssl` is on unless it was switched off.
const FORCES_SSL: u32 = 17;

/// What was asked of RDS about a cluster. A part that RDS did not answer is empty, and not told of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The cluster.
    pub cluster: Cluster,
    /// Its instances.
    pub instances: Vec<Instance>,
    /// Its parameter group.
    pub parameters: Option<Parameters>,
    /// What RDS is to do to it.
    pub maintenance: Vec<Maintenance>,
}

impl Facts {
    /// What is wrong or worth knowing. An empty list: nothing.
    #[must_use]
    pub fn findings(&self, environment: Environment, proxied: bool, now: DateTime<Utc>) -> Vec<InvalidField> {
        let mut findings = Vec::new();
        self.of_endpoints(proxied, &mut findings);
        self.of_parameters(&mut findings);
        self.of_backups(environment, &mut findings);
        self.of_maintenance(&mut findings);
        self.of_certificates(now, &mut findings);
        findings
    }

    /// When minor versions are installed, which breaks sessions for some seconds.
    #[must_use]
    pub fn upgrades(&self) -> String {
        let window = self.cluster.maintenance_window.as_deref().unwrap_or("its maintenance window");
        match self.cluster.upgrades_itself {
            true => format!("RDS installs minor versions by itself, within {window} (UTC)"),
            false => "RDS installs no minor version by itself: ModifyDBCluster EngineVersion does".to_owned(),
        }
    }

    fn of_endpoints(&self, proxied: bool, findings: &mut Vec<InvalidField>) {
        let cluster = &self.cluster;
        if !cluster.members.is_empty() && !cluster.has_readers() {
            let text = "there are no readers: the reader endpoint leads to the writer, and a failover has to wait for a new \
                        instance; add a reader with CreateDBInstance";
            say(findings, "topology.aurora", text);
        }
        if cluster.can_pause() && proxied {
            let text = "the minimum is 0 ACU, but the RDS Proxy holds connections: the cluster never pauses; set the minimum \
                        to 0.5, or name no proxy";
            say(findings, "topology.aurora.proxy", text);
        } else if cluster.can_pause() {
            let text = "the minimum is 0 ACU: the cluster pauses when nobody is connected, and the next login waits for about \
                        15 s, or 30 s and more after a day; clients need a connect timeout above that";
            say(findings, "topology.aurora", text);
        }
        if cluster.capacity.is_none() && self.instances.iter().any(|one| one.class == crate::make::CLASS) {
            say(findings, "topology.aurora", "an instance is db.serverless, but the cluster has no bounds of capacity");
        }
    }

    fn of_parameters(&self, findings: &mut Vec<InvalidField>) {
        let Some(parameters) = &self.parameters else { return };
        let default = self.cluster.major().is_some_and(|major| major >= FORCES_SSL);
        if !parameters.force_ssl.unwrap_or(default) {
            let text = "rds.force_ssl is 0: tenants can log in without encryption; set it to 1 in the cluster's parameter group";
            say(findings, "tls", text);
        }
    }

    fn of_backups(&self, environment: Environment, findings: &mut Vec<InvalidField>) {
        if !self.cluster.deletion_protection {
            let text = "deletion protection is off: one call deletes every tenant's data; switch it on with ModifyDBCluster \
                        DeletionProtection=true";
            say(findings, "topology.aurora", text);
        }
        let wanted = backup_retention(environment);
        if let Some(days) = self.cluster.backup_retention.filter(|days| *days < wanted) {
            let text = format!(
                "RDS keeps snapshots for {days} days, the environment wants {wanted}: ModifyDBCluster \
                 BackupRetentionPeriod={wanted}"
            );
            say(findings, "environment", &text);
        }
    }

    fn of_maintenance(&self, findings: &mut Vec<InvalidField>) {
        let window = self.cluster.maintenance_window.as_deref().unwrap_or("its maintenance window");
        for due in &self.maintenance {
            let when = due.applies_at.map(|at| format!(", on {}", at.format("%Y-%m-%d at %H:%M UTC")));
            let text = format!(
                "RDS has maintenance to do ({}{}{}){}: sessions break for some seconds within {window} (UTC)",
                due.action,
                if due.description.is_empty() { "" } else { ": " },
                due.description,
                when.unwrap_or_default(),
            );
            say(findings, "topology.aurora", &text);
        }
        if !self.cluster.pending.is_empty() {
            let text = format!("RDS makes these changes within {window} (UTC): {}", self.cluster.pending.join(", "));
            say(findings, "topology.aurora", &text);
        }
    }

    fn of_certificates(&self, now: DateTime<Utc>, findings: &mut Vec<InvalidField>) {
        let soon = now + TimeDelta::days(CERTIFICATE_DAYS);
        for instance in &self.instances {
            let Some(until) = instance.certificate_until.filter(|until| *until < soon) else { continue };
            let ca = instance.ca.as_deref().unwrap_or("its authority");
            let text = format!(
                "the certificate of instance {} by {ca} ends on {}: renew it with ModifyDBInstance \
                 CACertificateIdentifier, before verify-full fails",
                instance.identifier,
                until.format("%Y-%m-%d")
            );
            say(findings, "tls", &text);
        }
    }
}

fn say(findings: &mut Vec<InvalidField>, field: &str, message: &str) {
    findings.push(InvalidField::new(field, message));
}
