//! The kinds of high availability that may be under a cluster.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host_port::{HOST_PORT, HostPort};
use crate::{AuroraTopology, InvalidField, SecretRef};

/// The kind of high availability under a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Topology {
    /// A primary and streaming standbys; the writable host is found by asking each.
    Streaming(StreamingTopology),
    /// repmgr, with pgpool-II in front or not; the writable host is found by asking each.
    Repmgr(RepmgrTopology),
    /// HAProxy in front of servers; the writable host is found by asking each.
    Haproxy(HaproxyTopology),
    /// Patroni, which says who the members are.
    Patroni(PatroniTopology),
    /// pg_auto_failover, whose monitor says who the members are.
    PgAutoFailover(PgAutoFailoverTopology),
    /// An Amazon Aurora cluster, as RDS describes it.
    Aurora(AuroraTopology),
}

/// Hosts of which one is writable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamingTopology {
    /// `host:port` of every member, primary and standbys in any order.
    #[schema(value_type = Vec<String>)]
    #[schemars(with = "Vec<String>", length(min = 1, max = 32), inner(length(max = 261), regex(pattern = HOST_PORT)))]
    pub hosts: Vec<HostPort>,
}

/// A cluster that repmgr keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepmgrTopology {
    /// `host:port` of every member, primary and standbys in any order.
    #[schema(value_type = Vec<String>)]
    #[schemars(with = "Vec<String>", length(min = 1, max = 32), inner(length(max = 261), regex(pattern = HOST_PORT)))]
    pub hosts: Vec<HostPort>,
    /// `host:port` of pgpool-II, which tenants are given; none: they are given the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[schemars(with = "Option<String>", length(max = 261), regex(pattern = HOST_PORT))]
    pub pgpool: Option<HostPort>,
}

/// Servers behind HAProxy, which tenants are given; the control plane asks the servers themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HaproxyTopology {
    /// `host:port` of HAProxy, or of the address that keepalived moves, that leads to the primary.
    #[schema(value_type = String)]
    #[schemars(with = "String", length(max = 261), regex(pattern = HOST_PORT))]
    pub write: HostPort,
    /// `host:port` that leads to standbys, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[schemars(with = "Option<String>", length(max = 261), regex(pattern = HOST_PORT))]
    pub read: Option<HostPort>,
    /// `host:port` of every server behind it, primary and standbys in any order.
    #[schema(value_type = Vec<String>)]
    #[schemars(with = "Vec<String>", length(min = 1, max = 32), inner(length(max = 261), regex(pattern = HOST_PORT)))]
    pub hosts: Vec<HostPort>,
    /// Port of the health service beside each server, which HAProxy asks `/primary` over HTTP; none: nobody asks it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub health_port: Option<u16>,
}

/// A cluster that Patroni keeps: its REST API is asked, and told to switch over when somebody wants that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatroniTopology {
    /// The REST API of members, as `https://db1.example:8008`: each of them knows all. A certificate is checked as that of the servers.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(max = 280), regex(pattern = "^https?://[A-Za-z0-9.\\[\\]:_-]+/?$"))
    )]
    pub urls: Vec<String>,
    /// The login of the REST API for what changes something, where it has one (`restapi.authentication`): a switchover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub username: Option<String>,
    /// A file on the control plane's machine whose first line is the password of that login; neither this nor `secretRef`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub password_file: Option<PathBuf>,
    /// A Secret with the keys `username`, unless that is named here, and `password` of that login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// A formation of pg_auto_failover: its monitor is asked, and told to switch over when somebody wants that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PgAutoFailoverTopology {
    /// The monitor, as `postgresql://autoctl_node@monitor.example:5432/pg_auto_failover`, without a password. TLS is as for the servers.
    #[schemars(length(min = 1, max = 512))]
    pub monitor: String,
    /// A file on the control plane's machine whose first line is the password of that login; neither this nor `secretRef`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub password_file: Option<PathBuf>,
    /// A Secret whose key `password` is the password of that login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// The formation.
    #[serde(default = "default_formation")]
    #[schemars(length(min = 1, max = 63))]
    pub formation: String,
}

fn default_formation() -> String {
    "default".to_owned()
}

/// The monitor of pg_auto_failover, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Where it is.
    pub address: HostPort,
    /// The login.
    pub username: String,
    /// Its database.
    pub database: String,
}

impl PgAutoFailoverTopology {
    /// The monitor, taken apart. What the URI says of TLS is left out.
    ///
    /// # Errors
    /// What is wrong with the URI.
    pub fn monitor(&self) -> Result<Monitor, String> {
        let wrong = || {
            let as_it_is = "as postgresql://autoctl_node@monitor.example:5432/pg_auto_failover";
            format!("the monitor is named by its login, host, port and database, {as_it_is}")
        };
        let text = self.monitor.as_str();
        let rest = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")).ok_or_else(wrong)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (username, rest) = rest.split_once('@').ok_or_else(wrong)?;
        if username.contains(':') {
            return Err(
                "a password does not belong into the URI, which people read: put it into passwordFile".to_owned()
            );
        }
        let (address, database) = rest.split_once('/').ok_or_else(wrong)?;
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let of_tls = |pair: &str| ["sslmode=", "sslrootcert="].iter().any(|key| pair.starts_with(key));
        if !plain(username) || !plain(database) || !query.split('&').filter(|pair| !pair.is_empty()).all(of_tls) {
            return Err(wrong());
        }
        let address = address.parse().map_err(|_| wrong())?;
        Ok(Monitor { address, username: username.to_owned(), database: database.to_owned() })
    }
}

impl Topology {
    /// Where the login for the tool beside the servers is, if that is a Secret.
    #[must_use]
    pub fn tool_secret(&self) -> Option<&SecretRef> {
        match self {
            Self::Patroni(spec) => spec.secret_ref.as_ref(),
            Self::PgAutoFailover(spec) => spec.secret_ref.as_ref(),
            Self::Streaming(_) | Self::Repmgr(_) | Self::Haproxy(_) | Self::Aurora(_) => None,
        }
    }

    /// What a person does where nobody can be asked to switch over; none: somebody can.
    #[must_use]
    pub fn switched_by_hand(&self) -> Option<&'static str> {
        Some(match self {
            Self::Streaming(_) => {
                "nobody decides in a streaming cluster: stop the primary, then `pg_ctl promote` on the standby; in a lab `pgtenant lab promote NODE`"
            }
            Self::Repmgr(_) => {
                "repmgr switches over from a shell of the standby, not over SQL: run `repmgr standby switchover` there"
            }
            Self::Haproxy(_) => {
                "HAProxy follows the servers and does not lead them: with repmgr behind it run `repmgr standby switchover` on the standby"
            }
            Self::Aurora(_) => "run `aws rds failover-db-cluster --db-cluster-identifier NAME`",
            Self::Patroni(_) | Self::PgAutoFailover(_) => return None,
        })
    }

    pub(crate) fn problems(&self) -> Vec<InvalidField> {
        let mut problems = Vec::new();
        let mut say =
            |field: &str, message: String| problems.push(InvalidField::new(format!("topology.{field}"), message));
        match self {
            Self::Streaming(StreamingTopology { hosts }) => count("streaming.hosts", hosts.len(), &mut say),
            Self::Repmgr(RepmgrTopology { hosts, pgpool: _ }) => count("repmgr.hosts", hosts.len(), &mut say),
            Self::Haproxy(HaproxyTopology { write, read: _, hosts, health_port }) => {
                count("haproxy.hosts", hosts.len(), &mut say);
                if hosts.contains(write) {
                    say("haproxy.write", "name HAProxy's own address, not that of a server".to_owned());
                }
                if *health_port == Some(0) {
                    say("haproxy.healthPort", "must be from 1 to 65535".to_owned());
                }
            }
            Self::Patroni(PatroniTopology { urls, username, password_file, secret_ref }) => {
                if urls.is_empty() || urls.len() > 32 {
                    say("patroni.urls", "list 1 to 32 URLs of Patroni's REST API".to_owned());
                }
                let clear = |url: &&String| url.starts_with("http://") && !is_loopback(url);
                if let Some(url) = urls.iter().find(clear).filter(|_| username.is_some() || secret_ref.is_some()) {
                    say("patroni.urls", format!("{url:?}: a password would go over it in clear text; use https"));
                }
                for url in urls.iter().filter(|url| !is_origin(url)) {
                    say("patroni.urls", format!("{url:?} is not as https://db1.example:8008"));
                }
                if secret_ref.is_none() && username.is_some() != password_file.is_some() {
                    say("patroni.username", "name username and passwordFile, or secretRef, or none of them".to_owned());
                }
                one_of("patroni.secretRef", password_file.as_ref(), secret_ref.as_ref(), &mut say);
                absolute("patroni.passwordFile", password_file.as_ref(), &mut say);
            }
            Self::PgAutoFailover(spec) => {
                if let Err(why) = spec.monitor() {
                    say("pgAutoFailover.monitor", why);
                }
                one_of("pgAutoFailover.secretRef", spec.password_file.as_ref(), spec.secret_ref.as_ref(), &mut say);
                absolute("pgAutoFailover.passwordFile", spec.password_file.as_ref(), &mut say);
            }
            Self::Aurora(aurora) => aurora.problems(&mut say),
        }
        problems
    }
}

fn count(field: &str, hosts: usize, say: &mut impl FnMut(&str, String)) {
    if !(1..=32).contains(&hosts) {
        say(field, "list 1 to 32 hosts".to_owned());
    }
}

fn one_of(field: &str, file: Option<&PathBuf>, secret: Option<&SecretRef>, say: &mut impl FnMut(&str, String)) {
    if file.is_some() && secret.is_some() {
        say(field, "name passwordFile or secretRef, not both".to_owned());
    }
}

fn absolute(field: &str, file: Option<&PathBuf>, say: &mut impl FnMut(&str, String)) {
    if file.is_some_and(|file| !file.is_absolute()) {
        say(field, "use an absolute path".to_owned());
    }
}

/// Of this machine.
fn is_loopback(url: &str) -> bool {
    let host = url.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse::<HostPort>().ok());
    host.is_some_and(|at| {
        at.host == "localhost" || at.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// A scheme, a host and perhaps a port: no login, no path, no query.
fn is_origin(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| rest.strip_suffix('/').unwrap_or(rest).parse::<HostPort>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_named_without_its_password() {
        let read = |monitor: &str| {
            let topology = serde_json::json!({"pgAutoFailover": {"monitor": monitor}});
            let Ok(Topology::PgAutoFailover(spec)) = serde_json::from_value(topology) else { panic!("{monitor}") };
            assert_eq!(spec.formation, "default");
            spec.monitor()
        };
        let monitor = read("postgres://autoctl_node@m.example:6000/pg_auto_failover?sslmode=require").unwrap();
        assert_eq!(
            (monitor.address.to_string().as_str(), monitor.username.as_str()),
            ("m.example:6000", "autoctl_node")
        );
        assert_eq!(read("postgresql://autoctl_node@[::1]/pg_auto_failover").unwrap().address.port, 5432);
        assert!(read("postgresql://autoctl_node:secret@m/pg_auto_failover").unwrap_err().contains("passwordFile"));
        for wrong in [
            "m:5432",
            "postgresql://m/db",
            "postgresql://u@m",
            "postgresql://u@m/db?options=-c",
            "postgresql://u@m/d'b",
            "",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patroni_is_named_by_origins_alone() {
        for url in ["https://db1.example:8008", "http://10.0.0.1:8008/", "https://[::1]:8008", "https://db1"] {
            assert!(is_origin(url), "{url}");
        }
        for url in
            ["db1:8008", "ftp://db1", "https://", "https://u:p@db1", "https://db1/x", "https://db1?x", "https://db 1"]
        {
            assert!(!is_origin(url), "{url}");
        }
        let problems = |urls: &[&str]| {
            let topology = serde_json::json!({"patroni": {"urls": urls}});
            serde_json::from_value::<Topology>(topology).unwrap().problems().len()
        };
        assert_eq!((problems(&[]), problems(&["https://db1:8008"]), problems(&["file:///etc/passwd", "x"])), (1, 0, 2));
    }

    #[test]
    fn what_can_not_be_right_is_told_by_field() {
        let problems = |topology: serde_json::Value| {
            let topology: Topology = serde_json::from_value(topology).unwrap();
            topology.problems().into_iter().map(|problem| problem.field).collect::<Vec<_>>()
        };
        let json = |text: &str| serde_json::from_str(text).unwrap();
        let good =
            r#"{"haproxy": {"write": "vip:5000", "read": "vip:5001", "hosts": ["db1:5432"], "healthPort": 8008}}"#;
        assert!(problems(json(good)).is_empty());
        assert!(problems(json(r#"{"repmgr": {"hosts": ["db1", "db2"], "pgpool": "pgpool:5432"}}"#)).is_empty());
        assert_eq!(problems(json(r#"{"repmgr": {"hosts": []}}"#)), ["topology.repmgr.hosts"]);
        let itself = r#"{"haproxy": {"write": "db1:5432", "hosts": ["db1:5432"]}}"#;
        assert_eq!(problems(json(itself)), ["topology.haproxy.write"]);
        let half = r#"{"patroni": {"urls": ["https://db1"], "passwordFile": "password"}}"#;
        assert_eq!(problems(json(half)), ["topology.patroni.username", "topology.patroni.passwordFile"]);
        let secret = r#""secretRef": {"name": "tool", "namespace": "vault"}"#;
        let patroni = |url: &str, more: &str| json(&format!(r#"{{"patroni": {{"urls": ["{url}"], {secret}{more}}}}}"#));
        assert!(problems(patroni("https://db1", "")).is_empty());
        assert!(problems(patroni("https://db1", r#", "username": "admin""#)).is_empty());
        assert_eq!(problems(patroni("http://db1", "")), ["topology.patroni.urls"]);
        let both = r#", "username": "admin", "passwordFile": "/password""#;
        assert_eq!(problems(patroni("https://db1", both)), ["topology.patroni.secretRef"]);
        let monitor = r#""monitor": "postgresql://autoctl_node@m/pg_auto_failover""#;
        let both = format!(r#"{{"pgAutoFailover": {{{monitor}, {secret}, "passwordFile": "/password"}}}}"#);
        assert_eq!(problems(json(&both)), ["topology.pgAutoFailover.secretRef"]);
    }
}
