//! A server's configuration files.

use std::fmt::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// What a configuration is made of.
pub(crate) struct Settings<'a> {
    pub(crate) name: &'a str,
    pub(crate) dir: &'a Path,
    pub(crate) port: u16,
    pub(crate) fsync: bool,
    /// Connection string and slot.
    pub(crate) primary: Option<(String, String)>,
    pub(crate) extra: &'a [(String, String)],
}

/// Included at the end of the data folder's own `postgresql.conf`, from beside it: so each copy of the data folder takes the
/// configuration of where it lies.
pub(crate) const INCLUDE: &str = "\ninclude '../server.conf'\n";

/// `server.conf`. Log files are 24, one for each hour of the day, overwritten the day after.
pub(crate) fn server(settings: &Settings<'_>) -> Result<String> {
    let file = |name: &str| quote(&settings.dir.join(name).to_string_lossy());
    let mut text = format!(
        "# Written at each start; changes are lost.
listen_addresses = 'localhost'
port = {port}
unix_socket_directories = ''
cluster_name = {name}
max_connections = 200
# What a killed server leaves is under its data folder then, not in /dev/shm for good (which is 64 MB in a container).
dynamic_shared_memory_type = mmap

ssl = on
ssl_cert_file = {certificate}
ssl_key_file = {key}
ssl_ca_file = {authority}
password_encryption = 'scram-sha-256'
hba_file = {hba}

wal_level = replica
wal_log_hints = on
hot_standby = on
max_wal_senders = 10
max_replication_slots = 10
# A standby that is away for long is copied anew, rather than that the log fills the disk.
max_slot_wal_keep_size = '1GB'

logging_collector = on
log_directory = {log}
log_filename = 'postgresql-%H.log'
log_rotation_age = '1h'
log_rotation_size = 0
log_truncate_on_rotation = on
log_line_prefix = '%m [%p] %q%u@%d '
",
        port = settings.port,
        name = quote(settings.name),
        certificate = file("server.crt"),
        key = file("server.key"),
        authority = file("ca.crt"),
        hba = file("pg_hba.conf"),
        log = file("log"),
    );
    if !settings.fsync {
        // Not synchronous_commit = off: a killed server would lose what it had confirmed, and without fsync that gains nothing.
        text.push_str("\nfsync = off\nfull_page_writes = off\n");
    }
    if let Some((conninfo, slot)) = &settings.primary {
        let _ = write!(text, "\nprimary_conninfo = {}\nprimary_slot_name = {}\n", quote(conninfo), quote(slot));
    }
    text.push('\n');
    for (name, value) in settings.extra {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
            return Err(Error::BadSetting { name: name.clone() });
        }
        let _ = writeln!(text, "{name} = {}", quote(value));
    }
    Ok(text)
}

/// TLS and SCRAM, or nothing. `all` does not include replication, which these users may ask for.
pub(crate) fn hba(replication: &[&str]) -> String {
    let mut text = String::new();
    for address in ["127.0.0.1/32", "::1/128"] {
        let _ = writeln!(text, "hostssl all all {address} scram-sha-256");
        for user in replication {
            let user = user.replace('"', "\"\"");
            let _ = writeln!(text, "hostssl replication \"{user}\" {address} scram-sha-256");
        }
    }
    text
}

/// A libpq connection string; values may hold anything.
pub(crate) fn conninfo(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let words: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}='{}'", escaped(value))).collect();
    words.join(" ")
}

/// A password file for libpq, for any database on any local port.
pub(crate) fn pgpass(user: &str, password: &str) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace(':', "\\:");
    format!("localhost:*:*:{}:{}\n", escaped(user), escaped(password))
}

/// As a value in a configuration file; pgpool-II reads the same.
pub(crate) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extra: &[(String, String)]) -> Settings<'_> {
        Settings { name: "node-1", dir: Path::new("/d"), port: 1, fsync: true, primary: None, extra }
    }

    #[test]
    fn values_can_not_leave_their_quotes() {
        let extra = [("search_path".to_owned(), "a'\nport = 1\\".to_owned())];
        let text = server(&settings(&extra)).expect("a configuration");
        assert!(text.ends_with("search_path = 'a''\\nport = 1\\\\'\n"), "{text}");
        assert_eq!(conninfo(&[("user", "o'b\\"), ("port", "1")]), "user='o\\'b\\\\' port='1'");
        assert_eq!(pgpass("a:b", "c"), "localhost:*:*:a\\:b:c\n");
    }

    #[test]
    fn a_setting_name_is_a_name() {
        let extra = [("port = 1\nfsync".to_owned(), "off".to_owned())];
        assert!(matches!(server(&settings(&extra)), Err(Error::BadSetting { .. })));
    }

    #[test]
    fn nobody_comes_in_without_tls() {
        let text = hba(&["postgres"]);
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().all(|line| line.starts_with("hostssl ") && line.ends_with(" scram-sha-256")), "{text}");
    }
}
