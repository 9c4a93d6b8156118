//! Whose a database and its roles are, before anything is done to them.

use pgtenant_model::{ClaimKey, Tier};

use super::{Desired, Names};
use crate::comment::{parse_database_comment, parse_role_comment, role_comment};
use crate::observed::{DatabaseFacts, HALF_MADE_LIMIT, Observed};
use crate::version::ServerVersion;

/// Why a claim can not have its database or roles. `Display` says what is there, whose it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Something of that name exists and carries no claim's comment.
    #[error(
        "{what} exists and is not this claim's (owner: {owner}; comment: {comment}): adopt it, or choose another name"
    )]
    Occupied {
        /// `database "a-b"`, `role "a-b-read"`.
        what: String,
        /// Its owner; `none` for a role.
        owner: String,
        /// Its comment.
        comment: String,
    },
    /// Something of that name belongs to another claim. It can not be adopted.
    #[error("{what} belongs to another claim: choose another name")]
    OtherClaim {
        /// `database "a-b-c"`.
        what: String,
        /// The claim that its comment names: for the log and the platform team, not for other tenants.
        claim: ClaimKey,
    },
    /// The provisioner may not do it.
    #[error("{what}; a superuser has to run: {sql}")]
    NeedsSuperuser {
        /// What is wished and why it can not be done.
        what: String,
        /// The statements.
        sql: String,
    },
    /// The server lacks something.
    #[error("{what}: {remedy}")]
    Unprepared {
        /// What it lacks.
        what: String,
        /// How it gets it.
        remedy: String,
    },
}

/// What a claim finds under its database's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Absent,
    /// What a `CREATE DATABASE` left that was not followed by the rest: closed, so without data.
    HalfMade,
    /// What an interrupted `DROP DATABASE` left of this claim's database, or of a half-made one.
    Invalid,
    /// This claim's database.
    Ours,
    /// Somebody's database, to be taken over.
    ToAdopt,
}

/// Refuses a server on which nothing can be made.
pub(super) fn check_server(observed: &Observed) -> Result<(), Refusal> {
    let version = observed.server.version;
    if !version.supported() {
        return Err(Refusal::Unprepared {
            what: format!("PostgreSQL {version} is not supported"),
            remedy: format!("use {} to {}", ServerVersion::OLDEST, ServerVersion::NEWEST),
        });
    }
    if !observed.server.has_template {
        return Err(Refusal::Unprepared {
            what: format!("the database {:?} from which others are made is not there", version.template()),
            remedy: "run the bootstrap script".to_owned(),
        });
    }
    Ok(())
}

/// Decides whose the database is, and refuses roles that are not this claim's.
pub(super) fn of(desired: &Desired, observed: &Observed, names: &Names) -> Result<Standing, Refusal> {
    let standing = match &observed.database {
        None => Standing::Absent,
        Some(facts) => of_database(desired, observed, names, facts)?,
    };
    let may_take = desired.adopt || standing == Standing::Ours;
    for tier in Tier::ALL {
        let role = desired.key.role(tier);
        let Some(facts) = observed.roles.get(&role) else { continue };
        let comment = facts.comment.as_deref();
        if comment == Some(role_comment(&desired.key, tier).as_str()) {
            continue;
        }
        let what = format!("role {role:?}");
        if let Some((claim, _)) = comment.and_then(parse_role_comment)
            && claim != desired.key
        {
            return Err(Refusal::OtherClaim { what, claim });
        }
        if !may_take {
            return Err(occupied(&role, comment));
        }
    }
    Ok(standing)
}

fn of_database(
    desired: &Desired,
    observed: &Observed,
    names: &Names,
    facts: &DatabaseFacts,
) -> Result<Standing, Refusal> {
    let comment = facts.comment.as_deref();
    if is_ours(&desired.key, &desired.comment, observed, facts) {
        return Ok(if facts.is_invalid() { Standing::Invalid } else { Standing::Ours });
    }
    if is_half_made(observed, facts) {
        return Ok(if facts.is_invalid() { Standing::Invalid } else { Standing::HalfMade });
    }
    let what = format!("database {:?}", names.database);
    if let Some(claim) = comment.and_then(parse_database_comment) {
        return Err(Refusal::OtherClaim { what, claim });
    }
    if facts.is_invalid() || !desired.adopt {
        return Err(Refusal::Occupied { what, owner: format!("{:?}", facts.owner.name), comment: said(comment) });
    }
    Ok(Standing::ToAdopt)
}

/// Ours is what has our comment; or lost it, and belongs to the provisioner or our admin role, which still has its own.
pub(super) fn is_ours(key: &ClaimKey, ours: &str, observed: &Observed, facts: &DatabaseFacts) -> bool {
    if let Some(comment) = &facts.comment {
        return comment == ours;
    }
    let admin = key.role(Tier::Admin);
    let admin_comment = observed.roles.get(&admin).and_then(|role| role.comment.as_deref());
    [&observed.server.current_user, &admin].contains(&&facts.owner.name)
        && admin_comment == Some(role_comment(key, Tier::Admin).as_str())
}

/// A database is commented, and loses the mark with which it was made, in the transaction that opens it: one that has the
/// mark was never open. The drop of such a database writes over the mark when it is interrupted.
pub(super) fn is_half_made(observed: &Observed, facts: &DatabaseFacts) -> bool {
    let marked = facts.connection_limit == HALF_MADE_LIMIT || facts.is_invalid();
    marked && facts.comment.is_none() && !facts.allow_connections && facts.owner.name == observed.server.current_user
}

pub(super) fn occupied(role: &str, comment: Option<&str>) -> Refusal {
    Refusal::Occupied { what: format!("role {role:?}"), owner: "none".into(), comment: said(comment) }
}

fn said(comment: Option<&str>) -> String {
    comment.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}
