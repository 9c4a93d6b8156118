//! Every statement whose text is put together at run time. Nothing else in this crate writes SQL from values: other
//! queries are constants with parameters.
//!
//! Each name passes through [`ident`], each value through [`literal`]; keywords come from enums.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use crate::change::{Change, DatabaseChange, InsideChange, Object, ObjectChange, RoleChange};
use crate::comment::{put_aside_comment, put_aside_role};
use crate::observed::{HALF_MADE_LIMIT, RelationKind};
use crate::verifier::{Verifier, WITHHELD};

/// Whether a statement is to be sent or to be shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verifiers {
    Sent,
    Withheld,
}

/// The statements of a change, without semicolons.
pub(crate) fn statements(change: &Change, verifiers: Verifiers) -> Vec<String> {
    match change {
        Change::Database(change) => vec![database_statement(change)],
        Change::Role(change) => role_statements(change, verifiers),
        Change::Object(change) => object_statements(change),
        Change::Inside(change) => inside_statements(change),
    }
}

fn database_statement(change: &DatabaseChange) -> String {
    match change {
        DatabaseChange::Create { database, template } => {
            let (database, template) = (ident(database), ident(template));
            format!(
                "CREATE DATABASE {database} TEMPLATE {template} ALLOW_CONNECTIONS false CONNECTION LIMIT {HALF_MADE_LIMIT}"
            )
        }
        DatabaseChange::Drop { database } => {
            format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(database))
        }
        DatabaseChange::AllowConnections { database } => {
            format!("ALTER DATABASE {} ALLOW_CONNECTIONS true CONNECTION LIMIT -1", ident(database))
        }
        DatabaseChange::Close { database } => {
            format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", ident(database))
        }
        DatabaseChange::EndSessions { database } => format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = {} AND pid <> pg_backend_pid() AND pg_has_role(usesysid, 'USAGE')",
            literal(database)
        ),
        DatabaseChange::Rename { from, to } => {
            format!("ALTER DATABASE {} RENAME TO {}", ident(from), ident(to))
        }
        DatabaseChange::Unlimit { database } => {
            format!("ALTER DATABASE {} CONNECTION LIMIT -1", ident(database))
        }
        DatabaseChange::Reset { database, setting } => {
            format!("ALTER DATABASE {} RESET {}", ident(database), setting_name(setting))
        }
    }
}

/// Waits for sessions that are in the database, 5 s at most, and ends no tenant's.
pub(crate) fn drop_unforced(database: &str) -> String {
    format!("DROP DATABASE IF EXISTS {}", ident(database))
}

fn role_statements(change: &RoleChange, verifiers: Verifiers) -> Vec<String> {
    let statement = match change {
        RoleChange::Create { role, connection_limit, verifier } => {
            let (login, password) = match verifier {
                Some(verifier) => ("LOGIN", format!(" PASSWORD {}", password(verifier, verifiers))),
                None => ("NOLOGIN", String::new()),
            };
            format!(
                "CREATE ROLE {} {login} NOSUPERUSER NOCREATEDB NOCREATEROLE INHERIT NOREPLICATION NOBYPASSRLS \
                 CONNECTION LIMIT {connection_limit}{password}",
                ident(role),
            )
        }
        RoleChange::Alter { role, attributes } => {
            let attributes: Vec<_> = attributes.iter().map(ToString::to_string).collect();
            format!("ALTER ROLE {} {}", ident(role), attributes.join(" "))
        }
        RoleChange::SetPassword { role, verifier } => {
            format!("ALTER ROLE {} PASSWORD {}", ident(role), password(verifier, verifiers))
        }
        RoleChange::TakeOn { login, role } => {
            format!("ALTER ROLE {} SET role = {}", ident(login), literal(role))
        }
        RoleChange::ResetTakeOn { login, database: None } => {
            format!("ALTER ROLE {} RESET role", ident(login))
        }
        RoleChange::ResetTakeOn { login, database: Some(database) } => {
            format!("ALTER ROLE {} IN DATABASE {} RESET role", ident(login), ident(database))
        }
        RoleChange::Drop { role } => format!("DROP ROLE IF EXISTS {}", ident(role)),
        RoleChange::PutAside { role, oid } => {
            return vec![
                format!("ALTER ROLE {} NOLOGIN PASSWORD NULL", ident(role)),
                format!("COMMENT ON ROLE {} IS {}", ident(role), literal(put_aside_comment(role))),
                format!("ALTER ROLE {} RENAME TO {}", ident(role), ident(put_aside_role(*oid))),
            ];
        }
        RoleChange::DropOwned { role } => format!("DROP OWNED BY {} CASCADE", ident(role)),
        RoleChange::AddMember { role, member } => {
            format!("GRANT {} TO {}", ident(role), ident(member))
        }
        RoleChange::RemoveMember { role, member, grantor: None } => {
            format!("REVOKE {} FROM {} CASCADE", ident(role), ident(member))
        }
        RoleChange::RemoveMember { role, member, grantor: Some(grantor) } => {
            format!("REVOKE {} FROM {} GRANTED BY {} CASCADE", ident(role), ident(member), ident(grantor))
        }
        RoleChange::Borrow { role, with_options } => format!(
            "GRANT {} TO CURRENT_USER{}",
            ident(role),
            if *with_options { " WITH INHERIT TRUE, SET TRUE" } else { "" }
        ),
        RoleChange::GiveBack { role } => format!("REVOKE {} FROM CURRENT_USER", ident(role)),
    };
    vec![statement]
}

fn object_statements(change: &ObjectChange) -> Vec<String> {
    let statement = match change {
        ObjectChange::Comment { object, text } => {
            format!("COMMENT ON {} IS {}", on(object), literal(text))
        }
        ObjectChange::Owner { object: Object::Relations(kind, relations), owner } => {
            // Unlike GRANT, ALTER takes one at a time.
            let one = |relation| {
                let one = Object::Relations(*kind, vec![relation]);
                format!("ALTER {} OWNER TO {}", on(&one), ident(owner))
            };
            return relations.iter().cloned().map(one).collect();
        }
        ObjectChange::Owner { object, owner } => {
            format!("ALTER {} OWNER TO {}", on(object), ident(owner))
        }
        ObjectChange::Grant { privileges, object, to } => {
            format!("GRANT {} ON {} TO {}", list(privileges), on(object), idents(to))
        }
        ObjectChange::Revoke { privileges, object, from } => format!(
            "REVOKE {} ON {} FROM {} CASCADE",
            list(privileges),
            on(object),
            from.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident)
        ),
    };
    vec![statement]
}

fn inside_statements(change: &InsideChange) -> Vec<String> {
    let statement = match change {
        InsideChange::CreateSchema { schema, owner } => {
            format!("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}", ident(schema), ident(owner))
        }
        InsideChange::DefaultPrivileges { owner, schema, kind, privileges, to } => format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT {} ON {}S TO {}",
            ident(owner),
            ident(schema),
            list(privileges),
            keyword(*kind),
            ident(to)
        ),
        InsideChange::CreateExtension { extension, as_role } => {
            return vec![
                format!("SET ROLE {}", ident(as_role)),
                "SET LOCAL search_path = public".to_owned(),
                format!("CREATE EXTENSION IF NOT EXISTS {}", ident(extension)),
                "SET LOCAL search_path = pg_catalog, pg_temp".to_owned(),
                "RESET ROLE".to_owned(),
            ];
        }
        InsideChange::ReassignOwned { from, to } => {
            format!("REASSIGN OWNED BY {} TO {}", ident(from), ident(to))
        }
    };
    vec![statement]
}

/// A batch that begins with this does nothing, and fails with [`FENCED`], when the server's clock is past `until`. RAISE would
/// have an SQLSTATE of its own, and would make a new session load PL/pgSQL first, for 2 ms.
pub(crate) fn fence(until: DateTime<Utc>) -> String {
    let until = literal(until.to_rfc3339_opts(SecondsFormat::Micros, true));
    format!("SELECT 1 / (clock_timestamp() <= timestamptz {until})::int AS fence")
}

/// division_by_zero: nothing else in a batch divides.
pub(crate) const FENCED: &str = "22012";

/// `insufficient_privilege`.
pub(crate) const NOT_ALLOWED: &str = "42501";

/// `dependent_objects_still_exist`.
pub(crate) const DEPENDED_ON: &str = "2BP01";

/// Limits each statement of the batch.
pub(crate) fn local_statement_timeout(limit: Duration) -> String {
    // 0 would mean never.
    format!("SET LOCAL statement_timeout = {}", limit.as_millis().max(1))
}

/// Has the server end the session when nothing arrives for `idle`: a statement that can not be in a transaction is
/// fenced by it.
pub(crate) fn idle_session_timeout(idle: Duration) -> String {
    // 0 would mean never.
    format!("SET idle_session_timeout = {}", idle.as_millis().max(1))
}

/// A login for one job: it can log in, and is a member of `roles`.
pub(crate) fn create_job(
    login: &str,
    verifier: &Verifier,
    until: DateTime<Utc>,
    roles: &[String],
    replicates: bool,
) -> Vec<String> {
    let replication = if replicates { "REPLICATION" } else { "NOREPLICATION" };
    let until = literal(until.to_rfc3339_opts(SecondsFormat::Secs, true));
    let (name, password) = (ident(login), literal(verifier.expose()));
    vec![
        format!(
            "CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE INHERIT {replication} NOBYPASSRLS \
             VALID UNTIL {until} PASSWORD {password}"
        ),
        format!("GRANT {} TO {name}", idents(roles)),
    ]
}

/// Ends the sessions of a login of whom the provisioner is a member.
pub(crate) fn end_sessions_of(login: &str) -> String {
    let login = literal(login);
    format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = {login}")
}

/// Drops all that these roles own in the database, unless something of others depends on it.
pub(crate) fn drop_owned(roles: &[String]) -> String {
    format!("DROP OWNED BY {} RESTRICT", idents(roles))
}

/// A name, quoted.
pub(crate) fn ident(name: impl AsRef<str>) -> String {
    escape_identifier(name.as_ref())
}

/// A setting's name, quoted: `a.b` is one setting in two identifiers.
pub(crate) fn setting_name(name: &str) -> String {
    name.split('.').map(ident).collect::<Vec<_>>().join(".")
}

/// A value, quoted.
pub(crate) fn literal(value: impl AsRef<str>) -> String {
    escape_literal(value.as_ref())
}

fn idents(names: &[String]) -> String {
    names.iter().map(ident).collect::<Vec<_>>().join(", ")
}

fn list<T: fmt::Display>(keywords: &[T]) -> String {
    keywords.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn on(object: &Object) -> String {
    match object {
        Object::Database(name) => format!("DATABASE {}", ident(name)),
        Object::Role(name) => format!("ROLE {}", ident(name)),
        Object::Schema(name) => format!("SCHEMA {}", ident(name)),
        Object::Relations(kind, relations) => {
            let names: Vec<_> = relations.iter().map(|r| format!("{}.{}", ident(&r.schema), ident(&r.name))).collect();
            format!("{} {}", keyword(*kind), names.join(", "))
        }
    }
}

fn keyword(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "TABLE",
        RelationKind::Sequence => "SEQUENCE",
    }
}

fn password(verifier: &Verifier, verifiers: Verifiers) -> String {
    match verifiers {
        Verifiers::Sent => literal(verifier.expose()),
        Verifiers::Withheld => literal(WITHHELD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        let change = Change::Object(ObjectChange::Grant {
            privileges: vec![crate::change::Privilege::Select],
            object: Object::Relations(
                RelationKind::Table,
                vec![crate::change::Relation { schema: "a\"; DROP DATABASE x; --".into(), name: "b\\'\n".into() }],
            ),
            to: vec!["c\" TO PUBLIC".into()],
        });
        assert_eq!(
            change.sql_withheld(),
            "GRANT SELECT ON TABLE \"a\"\"; DROP DATABASE x; --\".\"b\\'\n\" TO \"c\"\" TO PUBLIC\""
        );
    }

    #[test]
    fn a_printed_statement_has_no_verifier() {
        let verifier = Verifier::of(&"hunter2".into());
        let change = Change::Role(RoleChange::SetPassword { role: "r".into(), verifier: verifier.clone() });
        assert_eq!(change.sql_withheld(), "ALTER ROLE \"r\" PASSWORD '<withheld>'");
        assert!(change.statements()[0].contains(verifier.expose()));
        assert!(!format!("{change:?}").contains("SCRAM"));
    }

    #[test]
    fn a_setting_with_a_dot_is_quoted_in_parts() {
        let change = Change::Database(DatabaseChange::Reset { database: "d".into(), setting: "my.x\"y".into() });
        assert_eq!(change.sql_withheld(), "ALTER DATABASE \"d\" RESET \"my\".\"x\"\"y\"");
    }
}
