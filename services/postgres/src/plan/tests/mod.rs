//! Rules and laws of the planner, without a server: the facts that they begin with.

mod laws;
mod rules;

use proptest::prelude::*;

use super::*;
use crate::change::{InsideChange, Object, ObjectChange};
use crate::comment::{database_comment, role_comment};
use crate::observed::{
    AclItem, DefaultAcl, Elsewhere, HALF_MADE_LIMIT, Owner, RelationKind, RoleFacts, SchemaFacts, ServerFacts,
};
use crate::version::ServerVersion;

const PROVISIONER: &str = "pgtenant";

fn key() -> ClaimKey {
    ClaimKey::new("a", "b").unwrap()
}

fn desired() -> Desired {
    Desired::new(key(), &ClaimSpec::default())
}

fn empty() -> Observed {
    Observed {
        server: ServerFacts {
            version: ServerVersion::new(150_018),
            clock: chrono::DateTime::UNIX_EPOCH,
            in_recovery: false,
            current_user: PROVISIONER.into(),
            session_user: "prov_a".into(),
            superuser: false,
            maintenance_database: "postgres".into(),
            has_template: true,
        },
        database: None,
        roles: BTreeMap::new(),
        extensions_available: BTreeSet::new(),
        inside: None,
    }
}

fn role(comment: Option<String>) -> RoleFacts {
    RoleFacts {
        oid: 16_400,
        can_login: true,
        superuser: false,
        create_db: false,
        create_role: false,
        inherit: true,
        replication: false,
        bypass_rls: false,
        connection_limit: -1,
        valid_until: None,
        comment,
        manageable: true,
        usable: false,
        memberships: Vec::new(),
        role_settings: Vec::new(),
        elsewhere: Vec::new(),
    }
}

fn item(grantee: &str, grantor: &str, privilege: &str) -> AclItem {
    AclItem { grantee: Some(grantee.into()), grantor: grantor.into(), privilege: privilege.into(), grantable: false }
}

/// As it is when nothing is left to do.
fn settled() -> Observed {
    let mut observed = empty();
    for tier in Tier::ALL {
        observed.roles.insert(key().role(tier), role(Some(role_comment(&key(), tier))));
    }
    let mut database = DatabaseFacts::fresh(PROVISIONER);
    database.acl.retain(|item| item.grantee.is_some());
    for privilege in ["CONNECT", "CREATE", "TEMPORARY"] {
        database.acl.push(item("a-b-admin", PROVISIONER, privilege));
    }
    database.acl.extend(["a-b-read", "a-b-write"].map(|name| item(name, PROVISIONER, "CONNECT")));
    database.comment = Some(database_comment(&key()));
    database.allow_connections = true;
    database.connection_limit = -1;
    observed.database = Some(database);

    let owner = Owner { name: "a-b-admin".into(), usable: false, manageable: true };
    let acl = ["a-b-admin", "a-b-read", "a-b-write"].map(|name| item(name, "a-b-admin", "USAGE"));
    let mut acl: Vec<_> = acl.into();
    acl.push(item("a-b-admin", "a-b-admin", "CREATE"));
    let public = SchemaFacts { owner, acl };
    let default_acl = |kind, read: &[&str], write: &[&str]| DefaultAcl {
        owner: "a-b-admin".into(),
        schema: "public".into(),
        kind,
        acl: read
            .iter()
            .map(|privilege| item("a-b-read", "a-b-admin", privilege))
            .chain(write.iter().map(|privilege| item("a-b-write", "a-b-admin", privilege)))
            .collect(),
    };
    observed.inside = Some(Inside {
        schemas: BTreeMap::from([("public".into(), public)]),
        default_acls: vec![
            default_acl(RelationKind::Table, &["SELECT"], &["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"]),
            default_acl(RelationKind::Sequence, &["SELECT"], &["SELECT", "USAGE"]),
        ],
        extensions: BTreeSet::from(["plpgsql".into()]),
        ..Inside::default()
    });
    observed
}

fn texts(plan: &Plan) -> Vec<String> {
    plan.changes().map(Change::text).collect()
}

fn database(observed: &mut Observed) -> &mut DatabaseFacts {
    observed.database.as_mut().unwrap()
}
