//! What is true of a cluster and of one database in it, as plain data.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::version::ServerVersion;

/// The cluster, and of one claim what can be seen without entering its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The server and the provisioner's session on it.
    pub server: ServerFacts,
    /// The claim's database; none: there is no such database.
    pub database: Option<DatabaseFacts>,
    /// Those of the claim's three roles and three second logins that exist, by name.
    pub roles: BTreeMap<String, RoleFacts>,
    /// Which of the claim's extensions the server could install.
    pub extensions_available: BTreeSet<String>,
    /// What is in the database; none: nobody has looked.
    #[serde(default)]
    pub inside: Option<Inside>,
}

/// The server and the provisioner's session on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// `server_version_num`.
    pub version: ServerVersion,
    /// The server's clock when it was asked.
    pub clock: DateTime<Utc>,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The role that owns what is made: the provisioner's group.
    pub current_user: String,
    /// The login.
    pub session_user: String,
    /// Whether `current_user` is a superuser.
    pub superuser: bool,
    /// The database of the session.
    pub maintenance_database: String,
    /// Whether [`ServerVersion::template`] is there.
    pub has_template: bool,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its owner.
    pub owner: Owner,
    /// Its comment.
    pub comment: Option<String>,
    /// `datallowconn`.
    pub allow_connections: bool,
    /// `datconnlimit`; -1: none.
    pub connection_limit: i32,
    /// Every privilege, those that PostgreSQL gives by default included.
    pub acl: Vec<AclItem>,
    /// `ALTER DATABASE … SET`.
    pub settings: Vec<DatabaseSetting>,
}

/// Who owns something, and what the provisioner can do in its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The role.
    pub name: String,
    /// Whether the provisioner has its privileges now.
    pub usable: bool,
    /// Whether the provisioner may grant itself its privileges.
    pub manageable: bool,
}

/// A privilege that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AclItem {
    /// Who has it; none: PUBLIC.
    pub grantee: Option<String>,
    /// Who gave it.
    pub grantor: String,
    /// As PostgreSQL spells it: `CONNECT`.
    pub privilege: String,
    /// WITH GRANT OPTION.
    pub grantable: bool,
}

/// A setting that holds for all sessions of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSetting {
    /// `work_mem`.
    pub name: String,
    /// As it was set.
    pub value: String,
    /// Whether the provisioner may reset it.
    pub resettable: bool,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleFacts {
    /// Its number, which stays when its name changes.
    pub oid: u32,
    /// LOGIN.
    pub can_login: bool,
    /// SUPERUSER.
    pub superuser: bool,
    /// CREATEDB.
    pub create_db: bool,
    /// CREATEROLE.
    pub create_role: bool,
    /// INHERIT.
    pub inherit: bool,
    /// REPLICATION.
    pub replication: bool,
    /// BYPASSRLS.
    pub bypass_rls: bool,
    /// CONNECTION LIMIT; -1: none.
    pub connection_limit: i32,
    /// VALID UNTIL; none: for ever.
    pub valid_until: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
    /// Whether the provisioner may alter, grant and drop it.
    pub manageable: bool,
    /// Whether the provisioner has its privileges now, as a member or as a superuser.
    pub usable: bool,
    /// Who is in it, and what it is in.
    pub memberships: Vec<Membership>,
    /// `ALTER ROLE … SET role`, for all databases or one.
    pub role_settings: Vec<RoleSetting>,
    /// What it owns or was granted outside of the claim's database.
    pub elsewhere: Vec<Elsewhere>,
}

/// A role in a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Membership {
    /// The role whose privileges are given.
    pub role: String,
    /// Who gets them.
    pub member: String,
    /// Who gave them.
    pub grantor: String,
    /// WITH ADMIN OPTION.
    pub admin: bool,
    /// Whether they are there without SET ROLE; none: the version leaves it to the member's INHERIT.
    pub inherit: Option<bool>,
    /// Whether `member` may SET ROLE; none: the version always lets it.
    pub set: Option<bool>,
    /// Whether the provisioner may revoke this grant.
    pub revocable: bool,
}

/// `ALTER ROLE … SET role`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSetting {
    /// The database to which it is limited.
    pub database: Option<String>,
    /// The role that its sessions take on.
    pub value: String,
}

/// Something outside of the claim's database that would stop a role from being dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The database in which it is; none: an object of the whole cluster.
    pub database: Option<String>,
    /// Whether the role owns it, rather than that somebody gave it privileges on it, or named it in a policy.
    pub owned: bool,
}

/// What can be seen only from within the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Those of `public` and the claim's schemas that exist, by name.
    pub schemas: BTreeMap<String, SchemaFacts>,
    /// Default privileges of the admin tier's logins in those schemas.
    pub default_acls: Vec<DefaultAcl>,
    /// Installed extensions.
    pub extensions: BTreeSet<String>,
    /// Relations of the admin tier on which read or write lack something, at most [`Inside::MOST`].
    pub lacking: Vec<Lacking>,
    /// How many objects each second login owns, where that is any.
    pub owned_by_second: BTreeMap<String, u64>,
    /// Relations in the claim's schemas that belong to roles which are not the claim's, at most [`Inside::MOST`].
    /// Looked for under `adopt` only.
    #[serde(default)]
    pub foreign: Vec<Foreign>,
}

/// A schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaFacts {
    /// Its owner.
    pub owner: Owner,
    /// Every privilege.
    pub acl: Vec<AclItem>,
}

/// Default privileges of one role in one schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultAcl {
    /// Whose new objects get them.
    pub owner: String,
    /// The schema.
    pub schema: String,
    /// What kind of objects.
    pub kind: RelationKind,
    /// Who gets what.
    pub acl: Vec<AclItem>,
}

/// Tables (views, materialised views, partitioned and foreign tables as well) or sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelationKind {
    /// Whatever `GRANT … ON TABLE` accepts.
    Table,
    /// Sequences.
    Sequence,
}

/// A relation on which a tier lacks what it should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: RelationKind,
    /// Whether the read tier lacks something.
    pub read: bool,
    /// Whether the write tier lacks something.
    pub write: bool,
}

/// A relation that does not belong to the claim's roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: RelationKind,
    /// Its owner.
    pub owner: Owner,
    /// Whether it is a sequence of a table's column, so that its owner follows the table's.
    pub linked: bool,
}

/// The connection limit of a database that was made and not opened yet. Nobody sets such a number by hand, so that a
/// database which somebody closed, with data in it, is not taken for one.
pub const HALF_MADE_LIMIT: i32 = 1_073_741_789;

impl DatabaseFacts {
    /// What `CREATE DATABASE … ALLOW_CONNECTIONS false` makes.
    #[must_use]
    pub fn fresh(owner: &str) -> Self {
        let item = |grantee: Option<&str>, privilege: &str| AclItem {
            grantee: grantee.map(str::to_owned),
            grantor: owner.to_owned(),
            privilege: privilege.to_owned(),
            grantable: false,
        };
        let public = ["CONNECT", "TEMPORARY"].map(|privilege| item(None, privilege));
        let own = ["CONNECT", "CREATE", "TEMPORARY"].map(|privilege| item(Some(owner), privilege));
        Self {
            owner: Owner { name: owner.to_owned(), usable: true, manageable: false },
            comment: None,
            allow_connections: false,
            connection_limit: HALF_MADE_LIMIT,
            acl: public.into_iter().chain(own).collect(),
            settings: Vec::new(),
        }
    }

    /// Whether a `DROP DATABASE` was interrupted: nothing but another one is possible.
    #[must_use]
    pub const fn is_invalid(&self) -> bool {
        self.connection_limit == -2
    }
}

impl Inside {
    /// How many relations one look lists; the next look goes on with the rest.
    pub const MOST: usize = 10_000;

    /// What a database holds that was just made from [`ServerVersion::template`].
    #[must_use]
    pub fn fresh(version: ServerVersion) -> Self {
        const OWNER: &str = "pg_database_owner";
        let item = |grantee: Option<&str>, privilege: &str| AclItem {
            grantee: grantee.map(str::to_owned),
            grantor: OWNER.to_owned(),
            privilege: privilege.to_owned(),
            grantable: false,
        };
        let mut acl = vec![item(Some(OWNER), "CREATE"), item(Some(OWNER), "USAGE")];
        if !version.needs_own_template() {
            acl.push(item(None, "USAGE"));
        }
        let owner = Owner { name: OWNER.to_owned(), usable: true, manageable: false };
        let public = SchemaFacts { owner, acl };
        Self {
            schemas: BTreeMap::from([("public".to_owned(), public)]),
            extensions: BTreeSet::from(["plpgsql".to_owned()]),
            ..Self::default()
        }
    }

    /// Whether the lists were cut, so that there is more to do after what they name is done.
    #[must_use]
    pub fn more(&self) -> bool {
        self.lacking.len() >= Self::MOST || self.foreign.len() >= Self::MOST
    }
}
