//! One shared cluster as this replica knows it: its primary, its connections, its stores.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgtenant_model::{ClusterSpec, Endpoint, HostPort};
use pgtenant_postgres::{Server, ServerOptions, Timeouts};
use pgtenant_secrets::Stores;
use pgtenant_topology::{Observation, ProbeOptions, Topology};
use secrecy::SecretString;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::credentials::Reach;
use crate::failure::Cause;

/// A shared cluster under work.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) spec: ClusterSpec,
    pub(crate) stores: Stores,
    pub(crate) wake: Arc<Notify>,
    /// Made when the cluster is first needed: the password file may come later than the control plane.
    parts: Mutex<Option<Parts>>,
}

#[derive(Debug, Clone)]
struct Parts {
    topology: Topology,
    password: SecretString,
    server: Option<(HostPort, Server)>,
}

impl Cluster {
    pub(crate) fn new(name: String, spec: ClusterSpec) -> Result<Self, pgtenant_model::InvalidField> {
        let stores = Stores::from_specs(&spec.stores)?;
        Ok(Self { name, spec, stores, wake: Arc::default(), parts: Mutex::default() })
    }

    /// Connections to the primary, found anew if it has moved.
    pub(crate) async fn server(&self) -> Result<Server, Cause> {
        let primary = self.topology()?.primary().await?;
        let mut parts = self.lock();
        let Some(parts) = parts.as_mut() else { return Err(Cause::Settings("the cluster was closed".to_owned())) };
        if let Some((host, server)) = &parts.server
            && *host == primary
        {
            return Ok(server.clone());
        }
        let server = Server::new(ServerOptions {
            host: primary.host.clone(),
            port: primary.port,
            sslmode: self.spec.tls.sslmode,
            ca_file: self.spec.tls.ca_file.clone(),
            username: self.spec.provisioner.username.clone(),
            password: parts.password.clone(),
            maintenance_database: self.spec.provisioner.database.clone(),
            application_name: "pgtenant".to_owned(),
            timeouts: Timeouts::default(),
        })?;
        parts.server = Some((primary, server.clone()));
        Ok(server)
    }

    /// The members as they are now; [`Cluster::server`] waits for the same answer.
    pub(crate) async fn observe(&self) -> Result<Arc<Observation>, Cause> {
        Ok(self.topology()?.observe().await)
    }

    /// `server` is not the primary any more, or does not answer: the next call finds it anew.
    pub(crate) fn moved(&self, server: &Server) {
        let mut parts = self.lock();
        let Some(Parts { topology, server: current, .. }) = parts.as_mut() else { return };
        let known = current.take_if(|(_, known)| {
            (&known.options().host, known.options().port) == (&server.options().host, server.options().port)
        });
        if let Some((host, _)) = known {
            topology.invalidate(&host);
        }
    }

    /// Open connections to the cluster.
    pub(crate) fn connections(&self) -> usize {
        let parts = self.lock();
        parts.as_ref().and_then(|p| p.server.as_ref()).map_or(0, |(_, server)| server.connections())
    }

    /// What tenants are given to connect to, as of now.
    pub(crate) fn reach(&self, primary: &Server) -> Result<Reach, Cause> {
        let ca_crt = self.spec.tls.ca_file.as_deref().map(read_text).transpose()?;
        let sslmode = self.spec.tls.sslmode;
        if let Some(endpoint) = self.spec.endpoint.clone() {
            return Ok(Reach { endpoint, hosts: Vec::new(), sslmode, ca_crt });
        }
        let endpoint = Endpoint {
            host: primary.options().host.clone(),
            port: primary.options().port,
            read_host: None,
            read_port: None,
        };
        Ok(Reach { endpoint, hosts: self.topology()?.hosts().to_vec(), sslmode, ca_crt })
    }

    fn topology(&self) -> Result<Topology, Cause> {
        let mut parts = self.lock();
        if let Some(parts) = parts.as_ref() {
            return Ok(parts.topology.clone());
        }
        let password = read_password(&self.spec.provisioner.password_file)?;
        let options = ProbeOptions {
            username: self.spec.provisioner.username.clone(),
            password: password.clone(),
            database: self.spec.provisioner.database.clone(),
            sslmode: self.spec.tls.sslmode,
            ca_file: self.spec.tls.ca_file.clone(),
            connect_timeout: ProbeOptions::CONNECT_TIMEOUT,
        };
        let topology = Topology::new(&self.spec.topology, options);
        *parts = Some(Parts { topology: topology.clone(), password, server: None });
        Ok(topology)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Parts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_text(path: &Path) -> Result<String, Cause> {
    std::fs::read_to_string(path).map_err(|error| Cause::Settings(format!("can not read {}: {error}", path.display())))
}

/// The first line of the file.
fn read_password(path: &Path) -> Result<SecretString, Cause> {
    let text = Zeroizing::new(read_text(path)?);
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(SecretString::from(line)),
        _ => Err(Cause::Settings(format!("{} holds no password", path.display()))),
    }
}
