//! What a lab tells of itself.

use std::fs;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

use crate::error::Result;
use crate::ha::kind::LabKind;
use crate::ha::server::POSTGRES;
use crate::ha::site::SUPERUSER;
use crate::ha::status::{LabAdmin, LabEndpoints, LabNode, LabPooler, LabService, LabStatus, Told};
use crate::ha::{Lab, auto_failover, haproxy, keepalived, patroni, pgpool, processes, repmgr, streaming};
use crate::pgbouncer::{LOGIN, PGBOUNCER};

impl Lab {
    /// What is there and what runs. Servers are asked for a few seconds at most.
    pub async fn status(&self) -> LabStatus {
        let site = &self.site;
        let told = match site.state.kind {
            LabKind::Streaming => streaming::told(site).await,
            LabKind::Patroni => patroni::told(site).await,
            LabKind::PgAutoFailover => auto_failover::told(site).await,
            LabKind::Repmgr | LabKind::Haproxy => repmgr::told(site).await,
        };
        let node = |Told { name, role, words }: Told| {
            let processes: Vec<_> = processes::programs(&site.home(&name)).into_iter().collect();
            let (port, running) = (site.port(&name), processes.contains(&POSTGRES));
            LabNode { name, port, processes, running, role, said: words }
        };
        LabStatus {
            kind: site.state.kind,
            dir: site.dir.clone(),
            version: site.binaries.version().to_owned(),
            nodes: told.into_iter().map(node).collect(),
            services: self.services(),
            endpoints: self.endpoints(),
            admin: self.admin(),
        }
    }

    /// The kind.
    pub fn kind(&self) -> LabKind {
        self.site.state.kind
    }

    /// The lab's folder, without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.site.dir
    }

    /// `node-1` and so on, each with the port of its PostgreSQL on `localhost`.
    pub fn nodes(&self) -> Vec<(String, u16)> {
        self.site.nodes().into_iter().map(|name| (name.clone(), self.site.port(&name))).collect()
    }

    /// The first node that takes writes.
    pub async fn primary(&self) -> Option<String> {
        self.site.primary().await
    }

    /// The standby that has received most of the primary's log, which loses least when it is promoted. None: none answers.
    pub async fn most_advanced(&self) -> Option<String> {
        self.site.most_advanced().await
    }

    /// Login of the superuser to database `postgres` on a port of the lab, `verify-full`.
    pub fn login(&self, port: u16) -> PgConnectOptions {
        self.site.login(port)
    }

    /// The superuser's password.
    pub fn password(&self) -> &SecretString {
        &self.site.password
    }

    /// The root certificate that clients need.
    pub fn ca_file(&self) -> PathBuf {
        self.site.authority.certificate_file()
    }

    /// Where clients go.
    pub fn endpoints(&self) -> LabEndpoints {
        let at = |port: u16| format!("localhost:{port}");
        let pool = self.site.state.pgbouncer.then(|| at(self.site.port(PGBOUNCER)));
        match self.site.state.kind {
            LabKind::Streaming | LabKind::Patroni | LabKind::PgAutoFailover => {
                let all: Vec<String> = self.nodes().iter().map(|(_, port)| at(*port)).collect();
                LabEndpoints { write: all.clone(), read: all, pool }
            }
            LabKind::Repmgr => {
                let front = vec![at(self.site.port(pgpool::PGPOOL))];
                LabEndpoints { write: front.clone(), read: front, pool }
            }
            LabKind::Haproxy => {
                let of = |port: &str| vec![at(self.site.port(port))];
                match keepalived::address(&self.site) {
                    Some(address) => {
                        let at = |port: u16| vec![format!("{address}:{port}")];
                        LabEndpoints { write: at(keepalived::WRITE), read: at(keepalived::READ), pool }
                    }
                    None => LabEndpoints { write: of(haproxy::HAPROXY), read: of(haproxy::READ), pool },
                }
            }
        }
    }

    /// PgBouncer in front of it, where there is one.
    pub fn pooler(&self) -> Result<Option<LabPooler>> {
        if !self.site.state.pgbouncer {
            return Ok(None);
        }
        Ok(Some(LabPooler { port: self.site.port(PGBOUNCER), login: LOGIN, password: self.site.secret(PGBOUNCER)? }))
    }

    /// Patroni's REST API of each node; empty for other kinds.
    pub fn patroni_urls(&self) -> Vec<String> {
        if self.site.state.kind == LabKind::Patroni { patroni::urls(&self.site) } else { Vec::new() }
    }

    /// Each node's health service, in the order of [`Lab::nodes`]; empty for kinds other than [`LabKind::Haproxy`].
    pub fn health_urls(&self) -> Vec<String> {
        let haproxy = self.site.state.kind == LabKind::Haproxy;
        let nodes = if haproxy { self.site.nodes() } else { Vec::new() };
        nodes.iter().map(|name| haproxy::health_url(&self.site, name)).collect()
    }

    /// The monitor of pg_auto_failover, without its password, which is [`Lab::service_password`]; none for other kinds.
    pub fn monitor_uri(&self) -> Option<String> {
        (self.site.state.kind == LabKind::PgAutoFailover).then(|| auto_failover::monitor_uri(&self.site))
    }

    /// The password of the logins by which servers and tools reach each other.
    pub fn service_password(&self) -> &SecretString {
        &self.site.replication
    }

    /// What is left running of it: names of nodes and services.
    pub fn running(&self) -> Vec<String> {
        let entries = fs::read_dir(self.site.homes()).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| !processes::of(&self.site.home(name)).is_empty());
        names.sort();
        names
    }

    /// As [`crate::Cluster::relocated`].
    pub fn relocated(&self) -> Option<&Path> {
        self.site.relocated()
    }

    fn services(&self) -> Vec<LabService> {
        let site = &self.site;
        let service = |name: &str, program: &str, address: String| LabService {
            name: name.to_owned(),
            address,
            running: site.runs(name, program),
            holds: None,
        };
        let front = || {
            let of = |home: &&str| LabService {
                holds: keepalived::held_by(site, home),
                ..service(home, haproxy::HAPROXY, haproxy::stats_url(site, home))
            };
            haproxy::homes(site).iter().map(of).collect::<Vec<_>>()
        };
        let mut services = match site.state.kind {
            LabKind::Streaming => Vec::new(),
            LabKind::Repmgr => {
                let address = format!("localhost:{}", site.port(pgpool::PGPOOL));
                vec![service(pgpool::PGPOOL, pgpool::PGPOOL, address)]
            }
            LabKind::Haproxy => front(),
            LabKind::Patroni => vec![service("etcd", "etcd", patroni::etcd_url(site))],
            LabKind::PgAutoFailover => {
                let monitor = auto_failover::MONITOR;
                vec![service(monitor, "pg_autoctl", format!("localhost:{}", site.port(monitor)))]
            }
        };
        if site.state.pgbouncer {
            if site.state.kind != LabKind::Haproxy {
                services.extend(front());
            }
            services.push(service(PGBOUNCER, PGBOUNCER, format!("localhost:{}", site.port(PGBOUNCER))));
        }
        services
    }

    fn admin(&self) -> LabAdmin {
        let (ca_file, password_file) = (self.ca_file(), self.site.dir.join("superuser.password"));
        let hosts = self.endpoints().write.join(",");
        let uri = format!(
            "postgresql://{SUPERUSER}@{hosts}/postgres?sslmode=verify-full&sslrootcert={}&target_session_attrs=read-write",
            ca_file.display()
        );
        let psql = format!("PGPASSWORD=$(cat '{}') psql '{uri}'", password_file.display());
        LabAdmin { user: SUPERUSER.to_owned(), password_file, ca_file, uri, psql }
    }
}
