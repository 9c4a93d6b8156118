//! Where tenants are led.

use pgtenant_model::{Endpoint, HostPort, PgBouncer, TlsSpec};
use pgtenant_postgres::Server;
use pgtenant_rds::PROXY_AUTHORITY;

use super::Cluster;
use crate::credentials::Reach;
use crate::failure::Cause;
use crate::login::Login;

impl Cluster {
    /// What tenants are given to connect to, as of now.
    pub(crate) async fn reach(&self, primary: &Server) -> Result<Reach, Cause> {
        let (topology, login) = self.parts().await?;
        let (sslmode, ca_crt) = (self.spec.tls.sslmode, self.ca_for_tenants(&login));
        let pool = self.spec.pgbouncer.as_ref().map(PgBouncer::address);
        if let Some(endpoint) = self.spec.endpoint.clone() {
            return Ok(Reach { endpoint, hosts: Vec::new(), sslmode, ca_crt, pool });
        }
        let read = topology.read_host();
        let primary = || HostPort { host: primary.options().host.clone(), port: primary.options().port };
        let HostPort { host, port } = topology.endpoint().unwrap_or_else(primary);
        let endpoint = Endpoint {
            host,
            port,
            read_port: read.as_ref().map(|read| read.port),
            read_host: read.map(|read| read.host),
        };
        Ok(Reach { endpoint, hosts: topology.hosts(), sslmode, ca_crt, pool })
    }

    /// The authority that tenants are given.
    pub(crate) async fn tenants_ca(&self) -> Result<Option<String>, Cause> {
        Ok(self.ca_for_tenants(&self.parts().await?.1))
    }

    /// The provisioner's login.
    pub(crate) async fn own_login(&self) -> Result<String, Cause> {
        Ok(self.parts().await?.1.username.clone())
    }

    /// Where pgtenant itself looks for the authorities of RDS, it adds the one of the proxy, which tenants may be led to.
    fn ca_for_tenants(&self, login: &Login) -> Option<String> {
        let TlsSpec { sslmode: _, ca_file, ca_secret_ref } = &self.spec.tls;
        let proxy = self.source.aurora().and_then(|aurora| aurora.spec().proxy.as_ref());
        let mut ca = login.ca.clone()?;
        if proxy.is_some() && ca_file.is_none() && ca_secret_ref.is_none() {
            ca.push_str(PROXY_AUTHORITY);
        }
        Some(ca)
    }
}
