//! The statements of a trial, and what is told of one that the server refuses.

use std::time::Duration;

use pgtenant_model::CheckResult;

use super::{ServerBasics, Trial};
use crate::error::PostgresError;
use crate::session::Session;
use crate::sql::{NOT_ALLOWED, ident, literal};
use crate::verifier::{Verifier, generate_password};
use crate::version::ServerVersion;

/// A role that is made in a transaction which is rolled back.
pub(super) struct Role {
    name: String,
    version: ServerVersion,
}

/// A statement that the server refused.
pub(super) struct Refusal {
    statement: String,
    error: PostgresError,
}

impl Role {
    pub(super) fn new(version: ServerVersion) -> Self {
        Self { name: ident(format!("pgtenant_preflight_{:012x}", rand::random::<u64>() >> 16)), version }
    }

    /// Quoted.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// As a tier's login is made.
    pub(super) fn create(&self) -> String {
        let password = literal(Verifier::of(&generate_password(&mut rand::rng())).expose());
        format!(
            "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE INHERIT NOREPLICATION NOBYPASSRLS \
             CONNECTION LIMIT -1 PASSWORD {password}",
            self.name
        )
    }

    /// Makes it, and lets the provisioner act for it.
    pub(super) fn make(&self) -> [String; 2] {
        let options = if self.version.has_membership_options() { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        [self.create(), format!("GRANT {} TO CURRENT_USER{options}", self.name)]
    }

    /// Makes it what a claim's admin tier is in its database.
    pub(super) fn own(&self, database: &str) -> [String; 2] {
        let name = &self.name;
        [
            format!("GRANT CONNECT, CREATE ON DATABASE {} TO {name}", ident(database)),
            format!("ALTER SCHEMA public OWNER TO {name}"),
        ]
    }
}

/// Sends all of them in one message; which of them was refused, if one was.
pub(super) async fn run(
    session: &mut Session,
    statements: &[String],
    deadline: Duration,
) -> Result<Option<Refusal>, PostgresError> {
    let Err(failure) = session.batch(&statements.join("; "), deadline).await else { return Ok(None) };
    let statement = statements.get(failure.done).map(String::as_str).unwrap_or_default();
    // Of `CREATE ROLE … PASSWORD 'verifier'` without the verifier.
    let statement = statement.split(" PASSWORD ").next().unwrap_or_default().to_owned();
    let error = failure.cause.into_error(&statement);
    if error.sqlstate().is_some() { Ok(Some(Refusal { statement, error })) } else { Err(error) }
}

impl Refusal {
    /// With the statement that mends it, where it is known.
    pub(super) fn told(&self, basics: &ServerBasics) -> Trial {
        let Some(mend) = self.mend(basics).filter(|_| self.error.sqlstate() == Some(NOT_ALLOWED)) else {
            return self.plain();
        };
        (CheckResult::Failed, format!("{}; {mend}", self.error))
    }

    /// With what is usually done about such an error.
    pub(super) fn plain(&self) -> Trial {
        told(&self.error)
    }

    fn mend(&self, basics: &ServerBasics) -> Option<String> {
        let user = ident(&basics.current_user);
        let about_password = self.error.to_string().contains("rds_password");
        let template = basics.version.template();
        Some(match self.statement.split(' ').next()? {
            "CREATE" if about_password => format!("the master login mends it with: GRANT rds_password TO {user};"),
            "CREATE" if self.statement.starts_with("CREATE DATABASE") => {
                if self.error.to_string().contains("to copy database") {
                    return Some(format!(
                        "run the script of `pgtenant cluster bootstrap` again, which makes {template:?}"
                    ));
                }
                format!("a superuser mends it with: ALTER ROLE {user} CREATEDB;")
            }
            "CREATE" if self.statement.starts_with("CREATE ROLE") => {
                format!("a superuser mends it with: ALTER ROLE {user} CREATEROLE;")
            }
            _ => "a superuser mends it with the script of `pgtenant cluster bootstrap`".to_owned(),
        })
    }
}

pub(super) fn told(error: &PostgresError) -> Trial {
    let advice = error.advice().filter(|_| error.sqlstate() != Some(NOT_ALLOWED));
    let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
    (CheckResult::Failed, format!("{error}{advice}"))
}
