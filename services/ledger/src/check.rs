//! Whether a wish would be written down: for doors that are asked before somebody wishes.

use pgtenant_model::{ClaimKey, ClaimSpec, ClusterSpec, Source};
use sqlx::PgConnection;

use crate::wish::{check_cluster, check_immutable, check_new_cluster, other_door};
use crate::{Refused, Wish, claim};

/// Reads what [`crate::create`] and [`crate::update`] would say of a wish now. Nothing is written, nothing is locked, and a
/// moment later it may be otherwise.
///
/// # Errors
/// Why it would be refused.
pub async fn check(db: &mut PgConnection, key: &ClaimKey, spec: &ClaimSpec, source: Source) -> Result<(), Refused> {
    match claim(db, key).await? {
        Some(claim) if claim.wish == Wish::Absent => Err(Refused::Deleting(claim.key)),
        Some(claim) if claim.wish == Wish::Present && claim.source != source => other_door(claim),
        Some(claim) => {
            check_cluster(db, key, spec).await?;
            check_immutable(&claim, spec)
        }
        None => check_new(db, key, spec).await,
    }
}

async fn check_new(db: &mut PgConnection, key: &ClaimKey, spec: &ClaimSpec) -> Result<(), Refused> {
    let ClusterSpec { limits, .. } = check_new_cluster(db, key, spec).await?;
    let (owner, count): (Option<String>, i64) = sqlx::query_as(
        "select (select namespace || '/' || name from claims where cluster = $1 and database = $2),
                (select count(*) from claims where cluster = $1 and namespace = $3)",
    )
    .bind(&spec.cluster)
    .bind(key.database())
    .bind(key.namespace())
    .fetch_one(db)
    .await?;
    if let Some(owner) = owner {
        return Err(Refused::NameTaken { database: key.database(), cluster: spec.cluster.clone(), owner });
    }
    let limit = limits.databases_per_namespace;
    if count >= i64::from(limit) {
        return Err(Refused::Quota { namespace: key.namespace().to_owned(), cluster: spec.cluster.clone(), limit });
    }
    Ok(())
}

impl Refused {
    /// One word for a condition's reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NotFound",
            Self::Exists(_) => "Exists",
            Self::NameTaken { .. } => "NameTaken",
            Self::OtherDoor { .. } => "OtherDoor",
            Self::Deleting(_) => "Deleting",
            Self::Retained(_) => "Released",
            Self::Protected(_) => "Protected",
            Self::Changed { .. } => "Changed",
            Self::Invalid(_) => "Invalid",
            Self::Quota { .. } => "QuotaExceeded",
            Self::Ledger(_) => "LedgerUnavailable",
        }
    }
}
