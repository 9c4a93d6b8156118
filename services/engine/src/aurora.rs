//! What the engine does for an Aurora cluster at AWS: makes it, attaches it, and tells where it is not as described.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use pgtenant_model::{AwsSecretRef, Drift, Environment, InvalidField};
use pgtenant_postgres::{Bootstrap, GROUP, Server, ServerOptions, Verifier, bootstrap, generate_password};
use pgtenant_rds::{CaBundle, Facts, RdsFault, Step, Wanted, next_step};
use pgtenant_secrets::AwsLogin;
use pgtenant_topology::{Aurora, NoPrimary};

use crate::cluster::Cluster;
use crate::failure::Cause;

/// Logins of the control plane: the one that is made, and the other one for when its password is replaced.
const LOGINS: [&str; 2] = ["prov_a", "prov_b"];
const BACKUP_WINDOW: &str = "backup window";

/// An Aurora cluster under work.
#[derive(Debug)]
pub(crate) struct AuroraWork {
    pub(crate) aurora: Aurora,
    pub(crate) authorities: CaBundle,
    /// The login that pgtenant made was let in.
    proven: AtomicBool,
}

/// What RDS says of a cluster that a person should know.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) preflight: Vec<InvalidField>,
    pub(crate) drift: Vec<Drift>,
}

impl AuroraWork {
    pub(crate) fn new(aurora: &Aurora) -> Self {
        let authorities = CaBundle::from_environment(&aurora.spec().region);
        Self { aurora: aurora.clone(), authorities, proven: AtomicBool::new(false) }
    }

    /// What RDS says of the cluster, with what it refused to say; none: nothing is known of it. Nothing is changed.
    pub(crate) async fn findings(
        &self,
        environment: Environment,
        now: DateTime<Utc>,
    ) -> Option<(Facts, Vec<InvalidField>)> {
        let (facts, faults) = self.aurora.facts().await?;
        let mut findings = facts.findings(environment, self.aurora.spec().proxy.is_some(), now);
        findings.extend(faults.iter().chain(&self.aurora.fault()).map(refused));
        Some((facts, findings))
    }

    /// The login may have been changed on the cluster.
    pub(crate) fn doubt_login(&self) {
        self.proven.store(false, Ordering::Relaxed);
    }
}

fn refused(fault: &RdsFault) -> InvalidField {
    InvalidField::new("topology.aurora", format!("{fault}; {}", fault.advice()))
}

impl Cluster {
    /// Takes the next step to make the cluster, where it is described with `create` and is not whole yet; tells why not, where it
    /// can not. `remembered` is the identity of the cluster that was there.
    pub(crate) async fn make(&self, remembered: Option<&str>) -> Option<String> {
        let AuroraWork { aurora, .. } = self.aurora()?;
        let wanted = Wanted::new(aurora.spec(), self.spec.environment, Utc::now())?;
        let told = |fault: RdsFault| Some(format!("{fault}. What to do: {}", fault.advice()));
        // While it is whole, looks describe it anyway.
        let known = aurora.last().filter(|cluster| next_step(&wanted, Some(cluster)).is_none());
        if known.is_some() {
            return None;
        }
        let found = match aurora.describe().await {
            Ok(found) => found,
            Err(fault) => return told(fault),
        };
        let step = next_step(&wanted, found.as_deref())?;
        if step == Step::MakeCluster
            && let Some(before) = remembered.filter(|before| before.starts_with(&aurora.identity_prefix()))
        {
            return Some(format!(
                "RDS has no cluster {:?} any more, which was there before ({before}). It is not made anew: every tenant's data \
                 would be missing. Restore it from a snapshot under the same identifier",
                wanted.identifier
            ));
        }
        if step != Step::Wait {
            tracing::info!(cluster = self.name, step = ?step, "the Aurora cluster is being made");
        }
        aurora.rds().take_step(&step, &wanted, found.as_deref()).await.err().and_then(told)
    }

    /// What is to be known of the cluster at RDS; none while it is being made. The backup window alone is put right, since it has to follow the clocks.
    pub(crate) async fn ask_rds(&self) -> Option<Told> {
        let work @ AuroraWork { aurora, .. } = self.aurora()?;
        let now = Utc::now();
        let wanted = Wanted::new(aurora.spec(), self.spec.environment, now);
        let known = aurora.last()?;
        if wanted.as_ref().is_some_and(|wanted| next_step(wanted, Some(&known)).is_some()) {
            return None;
        }
        let (facts, mut preflight) = work.findings(self.spec.environment, now).await?;
        let mut drift = wanted.as_ref().map(|wanted| wanted.drift(&facts.cluster, facts.parameters.as_ref()));
        if let (Some(wanted), Some(drift)) = (&wanted, &mut drift)
            && facts.cluster.status == "available"
            && drift.iter().any(|one| one.setting == BACKUP_WINDOW)
        {
            match aurora.rds().move_backup_window(wanted).await {
                Ok(()) => {
                    tracing::info!(cluster = self.name, window = wanted.backup_window, "moved the backup window");
                    drift.retain(|one| one.setting != BACKUP_WINDOW);
                }
                Err(fault) => preflight.push(refused(&fault)),
            }
        }
        Some(Told { preflight, drift: drift.unwrap_or_default() })
    }

    /// The login in an AWS secret. Where there is none and the cluster is of Aurora, it is made with the master login that RDS
    /// keeps, which is forgotten then.
    ///
    /// The secret is there before PostgreSQL knows the password: a replica that is killed in between leaves a login that is not let
    /// in, and whoever finds that goes on with the password in the secret. Of two replicas AWS lets one make the secret; the other
    /// takes the password that is in it, so both set the same one.
    pub(crate) async fn aws_login(&self, secret: &AwsSecretRef, ca: Option<&str>) -> Result<AwsLogin, Cause> {
        let found = self.access.read_aws(secret).await?;
        let missing = || Cause::Settings(format!("there is no {secret}"));
        let Some(work) = self.aurora() else { return found.ok_or_else(missing) };
        let login = match found {
            Some(login) if !login.is_made_by_pgtenant() || work.proven.load(Ordering::Relaxed) => return Ok(login),
            Some(login) => match self.is_let_in(work, &login, ca).await? {
                true => {
                    work.proven.store(true, Ordering::Relaxed);
                    return Ok(login);
                }
                false => login,
            },
            None => {
                // Whether the rest can be done is known before anything is made.
                self.master(work).await?;
                let password = || generate_password(&mut rand::rng());
                let made = AwsLogin::made(LOGINS[0], password(), (LOGINS[1], password()));
                match self.access.make_aws(secret, &made).await? {
                    true => made,
                    false => self.access.read_aws(secret).await?.ok_or_else(missing)?,
                }
            }
        };
        self.attach(work, &login, ca).await?;
        work.proven.store(true, Ordering::Relaxed);
        Ok(login)
    }

    /// Sets the passwords of the logins to those of the secret, with the master login.
    pub(crate) async fn attach_again(&self, login: &AwsLogin) -> Result<(), Cause> {
        let Some(work) = self.aurora() else { return Ok(()) };
        let ca = self.authorities().await?;
        self.attach(work, login, ca.as_deref()).await
    }

    /// Makes the group and the logins.
    async fn attach(&self, work: &AuroraWork, login: &AwsLogin, ca: Option<&str>) -> Result<(), Cause> {
        let master = self.master(work).await?;
        let server = self.endpoint_as(work, &master, ca)?;
        let ours = work.aurora.last().is_some_and(|cluster| cluster.is_made_by_pgtenant());
        let verifier = |name: &str| {
            let idle = login.idle().filter(|idle| idle.username == name);
            let known = idle.and_then(|idle| idle.next.or(idle.password)).cloned();
            let password = if name == login.username { Some(login.password.clone()) } else { known };
            let password = password.unwrap_or_else(|| generate_password(&mut rand::rng()));
            (name.to_owned(), Verifier::of(&password))
        };
        let logins = LOGINS.map(verifier).to_vec();
        bootstrap(
            &server,
            &Bootstrap {
                group: GROUP.to_owned(),
                logins,
                close_to_public: ours,
                pgbouncer: None,
                logical_replication: false,
            },
        )
        .await?;
        tracing::info!(cluster = self.name, login = login.username, "attached the cluster with RDS's master login");
        Ok(())
    }

    async fn is_let_in(&self, work: &AuroraWork, login: &AwsLogin, ca: Option<&str>) -> Result<bool, Cause> {
        self.described(work).await?;
        match self.endpoint_as(work, login, ca)?.maintenance().await {
            Ok(_) => Ok(true),
            // No such login, another password, or not a login yet.
            Err(error) if matches!(error.sqlstate(), Some("28P01" | "28000")) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The master login that RDS keeps.
    async fn master(&self, work: &AuroraWork) -> Result<AwsLogin, Cause> {
        let cluster = self.described(work).await?;
        let Some(kept) = &cluster.master_secret else {
            return Err(Cause::Settings(format!(
                "RDS does not keep the master login of {:?} in a secret: switch that on with ModifyDBCluster \
                 ManageMasterUserPassword=true, or make the provisioner and its secret yourself",
                cluster.identifier
            )));
        };
        if cluster.major().is_some_and(|major| major < 15) {
            let problem = "Aurora PostgreSQL 14 can not be attached: its template needs a superuser; use 15 or later";
            return Err(Cause::Settings(problem.to_owned()));
        }
        let region = Some(work.aurora.spec().region.clone());
        let found = self.access.read_aws(&AwsSecretRef { name: kept.arn.clone(), region }).await?;
        let missing =
            || NoPrimary::because(format!("the master login of RDS is not there yet; its secret is {}", kept.status));
        Ok(found.ok_or_else(missing)?)
    }

    /// The cluster with an endpoint and an instance to connect to.
    async fn described(&self, work: &AuroraWork) -> Result<std::sync::Arc<pgtenant_rds::Cluster>, Cause> {
        let asked = work.aurora.describe().await;
        let told = |fault: RdsFault| NoPrimary::because(format!("{fault}. What to do: {}", fault.advice()));
        let found = asked.map_err(told)?;
        let found = found.ok_or_else(|| NoPrimary::because("RDS has no such cluster"))?;
        if work.aurora.endpoint().is_none() || found.members.is_empty() {
            let since = found.created_at.map(|at| format!(", since {}", at.format("%Y-%m-%d %H:%M UTC")));
            let since = since.unwrap_or_default();
            return Err(
                NoPrimary::because(format!("the cluster is {}{since}, and has no instance yet", found.status)).into()
            );
        }
        Ok(found)
    }

    fn endpoint_as(&self, work: &AuroraWork, login: &AwsLogin, ca: Option<&str>) -> Result<Server, Cause> {
        let endpoint = work.aurora.endpoint().ok_or_else(|| NoPrimary::because("the cluster has no endpoint yet"))?;
        Ok(Server::new(ServerOptions {
            host: endpoint.host,
            port: endpoint.port,
            sslmode: self.spec.tls.sslmode,
            ca: ca.map(ToOwned::to_owned),
            username: login.username.clone(),
            password: login.password.clone(),
            maintenance_database: self.spec.provisioner.database.clone(),
            application_name: "pgtenant".to_owned(),
            timeouts: self.timeouts(),
        })?)
    }
}
