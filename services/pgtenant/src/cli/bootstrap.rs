//! `pgtenant cluster bootstrap`: the SQL with which a superuser attaches a cluster. It asks no control plane.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use pgtenant_model::MAX_IDENTIFIER_BYTES;
use pgtenant_postgres::{Bootstrap, GROUP, ServerVersion, Verifier, bootstrap_sql, generate_password};
use secrecy::{ExposeSecret as _, SecretString};

use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::output::note;
use crate::config::read_secret;

/// Arguments of `pgtenant cluster bootstrap`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Give the output to psql as a superuser, on the primary, in the database `postgres`; from PostgreSQL 15 on CREATEDB and CREATEROLE
are enough. It may be run again: a password file that is there is read, and its password stays. The output has SCRAM
verifiers in it and no password.

Two logins let the password be replaced later without a moment in which none works.

Examples:
  pgtenant cluster bootstrap --postgres-version 16 --login prov_a --password-file prov_a.password > bootstrap.sql
  pgtenant cluster bootstrap --postgres-version 16 --close-to-public \\
      --login prov_a --password-file prov_a.password --login prov_b --password-file prov_b.password |
      psql --no-psqlrc --host db1.example --username postgres --dbname postgres
  pgtenant cluster bootstrap --postgres-version 16 --login prov_a --password-file prov_a.password \\
      --pgbouncer-login pgbouncer --pgbouncer-password-file pgbouncer.password > bootstrap.sql"
)]
pub(super) struct BootstrapArgs {
    /// The servers' major version, 14 to 18
    #[arg(long, value_name = "VERSION")]
    postgres_version: Major,
    /// A login of the control plane, which is no superuser; more than once for several
    #[arg(long = "login", value_name = "ROLE", required = true)]
    logins: Vec<LoginName>,
    /// File with the password of the login before it; made with a new password, mode 0600, if it is not there
    #[arg(long = "password-file", value_name = "FILE", required = true)]
    password_files: Vec<PathBuf>,
    /// Take CONNECT to the databases postgres and template1 from PUBLIC: for a cluster that serves nothing else
    #[arg(long)]
    close_to_public: bool,
    /// PgBouncer's own login: with the database pgtenant_pgbouncer and the function in it that it asks for verifiers. Needs a superuser
    #[arg(long, value_name = "ROLE", requires = "pgbouncer_password_file")]
    pgbouncer_login: Option<LoginName>,
    /// File with the password of that login, likewise
    #[arg(long, value_name = "FILE", requires = "pgbouncer_login")]
    pgbouncer_password_file: Option<PathBuf>,
    /// Let databases be moved by logical replication: the control plane may make logins that replicate, and subscribe. From PostgreSQL 16
    /// on; needs a superuser
    #[arg(long)]
    logical_replication: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Major(u32);

impl FromStr for Major {
    type Err = String;

    /// `16`, and `16.4` as `SHOW server_version` writes it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let supported = ServerVersion::OLDEST..=ServerVersion::NEWEST;
        let major = text.split('.').next().and_then(|part| part.parse().ok()).filter(|n| supported.contains(n));
        major.map(Self).ok_or_else(|| {
            format!("is no supported version: {} to {} are", ServerVersion::OLDEST, ServerVersion::NEWEST)
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LoginName(String);

impl FromStr for LoginName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > MAX_IDENTIFIER_BYTES {
            return Err(format!("has {} bytes; 1 to {MAX_IDENTIFIER_BYTES} are allowed", text.len()));
        }
        if text == GROUP || text.starts_with("pg_") {
            return Err(format!(
                "can not be a login: {GROUP:?} is the group that logins act as, pg_ is PostgreSQL's own"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

pub(super) fn run(context: &Context, args: &BootstrapArgs) -> Result<Outcome> {
    let BootstrapArgs { postgres_version: Major(major), logins, password_files, close_to_public, .. } = args;
    if logins.len() != password_files.len() {
        return Err(CliError::usage(format!(
            "{} logins and {} password files: each login needs one of its own",
            logins.len(),
            password_files.len()
        ))
        .hint("write --login prov_a --password-file FILE_A --login prov_b --password-file FILE_B"));
    }
    let version = ServerVersion::new(major * 10_000);
    if args.logical_replication && !version.replicates_without_superuser() {
        return Err(CliError::usage(format!(
            "--logical-replication: on PostgreSQL {major} only superusers make logins that replicate; from 16 on others do"
        ))
        .hint("leave it out: databases are moved by dump then"));
    }
    let pairs = logins.iter().zip(password_files);
    let mut bootstrap = Bootstrap {
        group: GROUP.to_owned(),
        logins: Vec::new(),
        close_to_public: *close_to_public,
        pgbouncer: None,
        logical_replication: args.logical_replication,
    };
    for (LoginName(login), file) in pairs {
        if bootstrap.logins.iter().any(|(known, _)| known == login) {
            return Err(CliError::usage(format!("login {login:?} is named twice")));
        }
        bootstrap.logins.push((login.clone(), Verifier::of(&password(file)?)));
    }
    if let Some((LoginName(login), file)) = args.pgbouncer_login.as_ref().zip(args.pgbouncer_password_file.as_ref()) {
        if bootstrap.logins.iter().any(|(known, _)| known == login) {
            let message = format!("login {login:?} is the control plane's: PgBouncer needs one of its own");
            return Err(CliError::usage(message));
        }
        bootstrap.pgbouncer = Some((login.clone(), Verifier::of(&password(file)?)));
    }
    let header = format!(
        "-- Attaches a PostgreSQL {major} cluster to pgtenant. For psql, as an administrator, on the primary, in the\n\
         -- database postgres; it may be run again.\n\
         \\set ON_ERROR_STOP on\n"
    );
    let script = bootstrap_sql(version, &bootstrap);
    context.out.line(format!("{header}{}", script.trim_end()))?;
    Ok(Outcome::Done)
}

/// The password in a file, or a new one that is in the file by then.
fn password(file: &Path) -> Result<SecretString> {
    let fault = |error: std::io::Error| CliError::failed(format!("can not write {}: {error}", file.display()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    match made {
        Ok(mut made) => {
            let password = generate_password(&mut rand::rng());
            let written = made
                .write_all(password.expose_secret().as_bytes())
                .and_then(|()| made.write_all(b"\n"))
                .and_then(|()| made.sync_all());
            if let Err(error) = written {
                // A part of a password must not be taken for one by the next try.
                let _ = std::fs::remove_file(file);
                return Err(fault(error));
            }
            note(&format!("a new password is in {}", file.display()));
            Ok(password)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => read_secret(file).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            CliError::failed(format!("{error}{cause}")).hint("remove the file, and a new password is made")
        }),
        Err(error) => Err(fault(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn versions_are_read_as_servers_say_them() {
        assert_eq!("16".parse(), Ok(Major(16)));
        assert_eq!("14.23".parse(), Ok(Major(14)));
        for wrong in ["13", "19", "", "x", "160004"] {
            assert!(wrong.parse::<Major>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn logins_are_not_the_group() {
        assert!("prov_a".parse::<LoginName>().is_ok());
        for wrong in ["", GROUP, "pg_monitor", &"x".repeat(64)] {
            assert!(wrong.parse::<LoginName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let made = password(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(password(&file).unwrap().expose_secret(), made.expose_secret());
        std::fs::write(&file, "").unwrap();
        assert!(password(&file).unwrap_err().render().contains("is empty"));
        assert!(password(&folder.path().join("none/password")).is_err());
    }
}
