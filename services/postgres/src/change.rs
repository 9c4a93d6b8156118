//! The changes that a plan is made of.

use std::fmt;

use crate::comment::put_aside_role;
use crate::observed::RelationKind;
use crate::sql;
use crate::verifier::Verifier;

/// One change of a cluster. Names are as PostgreSQL stores them, not quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of a database as a whole.
    Database(DatabaseChange),
    /// Of a role.
    Role(RoleChange),
    /// Of who owns something, who may do what with it, and what is said of it.
    Object(ObjectChange),
    /// Of what is in the claim's database.
    Inside(InsideChange),
}

/// A change of a database as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named after the clause that they fill")]
pub enum DatabaseChange {
    /// `CREATE DATABASE`, with connections refused: until its privileges are right, PUBLIC could enter. Its connection
    /// limit, [`HALF_MADE_LIMIT`](crate::HALF_MADE_LIMIT), marks it as one that was not opened yet.
    Create { database: String, template: &'static str },
    /// `DROP DATABASE … WITH (FORCE)`: ends its sessions.
    Drop { database: String },
    /// `ALTER DATABASE … ALLOW_CONNECTIONS true CONNECTION LIMIT -1`: opens it and takes the mark away.
    AllowConnections { database: String },
    /// `ALTER DATABASE … ALLOW_CONNECTIONS false`: who is in stays in.
    Close { database: String },
    /// Ends the sessions of those whose roles the provisioner has just taken on.
    EndSessions { database: String },
    /// `ALTER DATABASE … RENAME TO`: it must have no session.
    Rename { from: String, to: String },
    /// `ALTER DATABASE … CONNECTION LIMIT -1`.
    Unlimit { database: String },
    /// `ALTER DATABASE … RESET`.
    Reset { database: String, setting: String },
}

/// A change of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named after the clause that they fill")]
pub enum RoleChange {
    /// `CREATE ROLE … LOGIN`, every attribute said; without a verifier `NOLOGIN`.
    Create { role: String, connection_limit: i32, verifier: Option<Verifier> },
    /// `ALTER ROLE`, only what differs: naming SUPERUSER or REPLICATION at all is refused to a non-superuser.
    Alter { role: String, attributes: Vec<Attribute> },
    /// `ALTER ROLE … PASSWORD`.
    SetPassword { role: String, verifier: Verifier },
    /// `ALTER ROLE … SET role`: what the login makes then belongs to `role`.
    TakeOn { login: String, role: String },
    /// `ALTER ROLE … [IN DATABASE …] RESET role`.
    ResetTakeOn { login: String, database: Option<String> },
    /// `DROP ROLE`.
    Drop { role: String },
    /// NOLOGIN, no password, and another name with a comment: for a role that can not be dropped, since somebody gave it
    /// privileges in a database that is not the claim's.
    PutAside { role: String, oid: u32 },
    /// `DROP OWNED BY`, in the maintenance database: what stops `DROP ROLE`.
    DropOwned { role: String },
    /// `GRANT role TO member`.
    AddMember { role: String, member: String },
    /// `REVOKE role FROM member`; from 16 on each grantor's grant is one of its own.
    RemoveMember { role: String, member: String, grantor: Option<String> },
    /// `GRANT role TO CURRENT_USER`: the provisioner needs a role's privileges for what follows. `with_options` spells
    /// out INHERIT and SET, where the version has them.
    Borrow { role: String, with_options: bool },
    /// `REVOKE role FROM CURRENT_USER`, at the end of the same transaction. Memberships are not kept: with 10,000 of
    /// them a first check of a privilege takes 0.2 to 0.4 s (measured on 15), and nothing between changes needs them.
    GiveBack { role: String },
}

/// A change of who owns something, who may do what with it, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named after the clause that they fill")]
pub enum ObjectChange {
    /// `COMMENT ON`.
    Comment { object: Object, text: String },
    /// `ALTER … OWNER TO`.
    Owner { object: Object, owner: String },
    /// `GRANT`.
    Grant { privileges: Vec<Privilege>, object: Object, to: Vec<String> },
    /// `REVOKE … CASCADE`; no name: from PUBLIC.
    Revoke { privileges: Vec<Privilege>, object: Object, from: Option<String> },
}

/// A change of what is in the claim's database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named after the clause that they fill")]
pub enum InsideChange {
    /// `CREATE SCHEMA IF NOT EXISTS … AUTHORIZATION`.
    CreateSchema { schema: String, owner: String },
    /// `ALTER DEFAULT PRIVILEGES FOR ROLE … IN SCHEMA … GRANT`.
    DefaultPrivileges { owner: String, schema: String, kind: RelationKind, privileges: Vec<Privilege>, to: String },
    /// `CREATE EXTENSION IF NOT EXISTS`, in `public` unless the extension has a schema of its own, and as the tenant's
    /// own role: its script may run functions that the tenant put into `public`, and must not do so with the
    /// provisioner's privileges.
    CreateExtension { extension: String, as_role: String },
    /// `REASSIGN OWNED BY`: all that a second login made.
    ReassignOwned { from: String, to: String },
}

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A database.
    Database(String),
    /// A role.
    Role(String),
    /// A schema of the claim's database.
    Schema(String),
    /// Tables or sequences of the claim's database.
    Relations(RelationKind, Vec<Relation>),
}

/// A relation's schema and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// A role's attribute, as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the keyword")]
pub enum Attribute {
    Login,
    NoLogin,
    NoSuperuser,
    NoCreateDb,
    NoCreateRole,
    Inherit,
    NoReplication,
    NoBypassRls,
    /// -1: none.
    ConnectionLimit(i32),
    /// `VALID UNTIL 'infinity'`.
    NoExpiry,
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Login => "LOGIN",
            Self::NoLogin => "NOLOGIN",
            Self::NoSuperuser => "NOSUPERUSER",
            Self::NoCreateDb => "NOCREATEDB",
            Self::NoCreateRole => "NOCREATEROLE",
            Self::Inherit => "INHERIT",
            Self::NoReplication => "NOREPLICATION",
            Self::NoBypassRls => "NOBYPASSRLS",
            Self::ConnectionLimit(limit) => return write!(f, "CONNECTION LIMIT {limit}"),
            Self::NoExpiry => "VALID UNTIL 'infinity'",
        })
    }
}

/// A privilege.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after the keyword")]
pub enum Privilege {
    All,
    Connect,
    Create,
    Temporary,
    Usage,
    Select,
    Insert,
    Update,
    Delete,
    Truncate,
}

impl Privilege {
    /// As PostgreSQL spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "ALL",
            Self::Connect => "CONNECT",
            Self::Create => "CREATE",
            Self::Temporary => "TEMPORARY",
            Self::Usage => "USAGE",
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Change {
    /// The statements, without semicolons. They may hold a verifier: send them, do not show them.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        sql::statements(self, sql::Verifiers::Sent)
    }

    /// The statements in one line, with `<withheld>` in place of a verifier.
    #[must_use]
    pub fn sql_withheld(&self) -> String {
        sql::statements(self, sql::Verifiers::Withheld).join("; ")
    }

    /// For people, lower case imperative: `grant CONNECT on database "a-b" to "a-b-read"`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Database(change) => change.text(),
            Self::Role(change) => change.text(),
            Self::Object(change) => change.text(),
            Self::Inside(change) => change.text(),
        }
    }
}

impl DatabaseChange {
    fn text(&self) -> String {
        match self {
            Self::Create { database, template } => {
                format!("create database {database:?} from {template}, with connections refused")
            }
            Self::Drop { database } => format!("drop database {database:?} and end its sessions"),
            Self::AllowConnections { database } => {
                format!("allow connections to database {database:?}")
            }
            Self::Close { database } => format!("refuse connections to database {database:?}"),
            Self::EndSessions { database } => format!("end the sessions in database {database:?}"),
            Self::Rename { from, to } => format!("rename database {from:?} to {to:?}"),
            Self::Unlimit { database } => {
                format!("remove the connection limit of database {database:?}")
            }
            Self::Reset { database, setting } => format!("reset {setting} of database {database:?}"),
        }
    }
}

impl RoleChange {
    fn text(&self) -> String {
        match self {
            Self::Create { role, .. } => format!("create role {role:?}"),
            Self::Alter { role, attributes } => format!("alter role {role:?}: {}", join(attributes)),
            Self::SetPassword { role, .. } => format!("set the password of role {role:?}"),
            Self::TakeOn { login, role } => format!("let sessions of {login:?} act as {role:?}"),
            Self::ResetTakeOn { login, database: None } => {
                format!("let sessions of {login:?} act as themselves")
            }
            Self::ResetTakeOn { login, database: Some(database) } => {
                format!("let sessions of {login:?} in database {database:?} act as themselves")
            }
            Self::Drop { role } => format!("drop role {role:?}"),
            Self::PutAside { role, oid } => {
                let name = put_aside_role(*oid);
                format!("take login, password and name from role {role:?}: it is {name:?} until it can be dropped")
            }
            Self::DropOwned { role } => {
                format!("drop what role {role:?} has outside of its database")
            }
            Self::AddMember { role, member } => format!("add {member:?} to role {role:?}"),
            Self::RemoveMember { role, member, .. } => {
                format!("remove {member:?} from role {role:?}")
            }
            Self::Borrow { role, .. } => format!("let the provisioner act for role {role:?}"),
            Self::GiveBack { role } => format!("no longer let the provisioner act for role {role:?}"),
        }
    }
}

impl ObjectChange {
    fn text(&self) -> String {
        match self {
            Self::Comment { object, text } => format!("comment on {object}: {text:?}"),
            Self::Owner { object, owner } => format!("make {owner:?} the owner of {object}"),
            Self::Grant { privileges, object, to } => {
                format!("grant {} on {object} to {}", join(privileges), quoted(to))
            }
            Self::Revoke { privileges, object, from: None } => {
                format!("revoke {} on {object} from PUBLIC", join(privileges))
            }
            Self::Revoke { privileges, object, from: Some(from) } => {
                format!("revoke {} on {object} from {from:?}", join(privileges))
            }
        }
    }
}

impl InsideChange {
    fn text(&self) -> String {
        match self {
            Self::CreateSchema { schema, owner } => {
                format!("create schema {schema:?} owned by {owner:?}")
            }
            Self::DefaultPrivileges { owner, schema, kind, privileges, to } => {
                format!("grant {} on future {kind}s of {owner:?} in schema {schema:?} to {to:?}", join(privileges))
            }
            Self::CreateExtension { extension, .. } => format!("create extension {extension:?}"),
            Self::ReassignOwned { from, to } => format!("give {to:?} all that {from:?} owns"),
        }
    }
}

/// Names as people read them; long lists are counted.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(name) => write!(f, "database {name:?}"),
            Self::Role(name) => write!(f, "role {name:?}"),
            Self::Schema(name) => write!(f, "schema {name:?}"),
            Self::Relations(kind, relations) => match relations.as_slice() {
                [one] => write!(f, "{kind} {:?}.{:?}", one.schema, one.name),
                [first, rest @ ..] => {
                    write!(f, "{kind} {:?}.{:?} and {} more", first.schema, first.name, rest.len())
                }
                [] => write!(f, "no {kind}"),
            },
        }
    }
}

impl fmt::Display for RelationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Sequence => "sequence",
        })
    }
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}
