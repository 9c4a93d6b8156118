//! What has to be true of a wish that is written down; and the same for doors that are asked before somebody wishes.

use pgtenant_model::{ClaimKey, ClaimSpec, ClusterSpec, InvalidField, Limits, Source};
use sqlx::PgConnection;

use crate::refused::Result;
use crate::{Claim, Cluster, LedgerError, Refused, Wish, claim, owner_of};

/// Reads what [`crate::create`] and [`crate::update`] would say of a wish now. Nothing is written, nothing is locked, and a
/// moment later it may be otherwise.
///
/// # Errors
/// Why it would be refused.
pub async fn check(db: &mut PgConnection, key: &ClaimKey, spec: &ClaimSpec, source: Source) -> Result<()> {
    match claim(db, key).await? {
        Some(claim) if claim.wish == Wish::Absent => Err(Refused::Deleting(claim.key)),
        Some(claim) if claim.wish == Wish::Present && claim.source != source => other_door(claim),
        Some(claim) => {
            let spec = &claim.follow(spec);
            check_cluster(db, key, spec).await?;
            check_immutable(&claim, spec)
        }
        None => match check_new(db, key, spec, false).await {
            // Made at the same moment.
            Err(Refused::Exists(_)) => Ok(()),
            other => other,
        },
    }
}

/// Whether there is room for a claim that is new. With `counted` claims of one namespace are counted one insert after another, so
/// that two at once do not both take the last place.
pub(crate) async fn check_new(db: &mut PgConnection, key: &ClaimKey, spec: &ClaimSpec, counted: bool) -> Result<()> {
    let cluster = check_cluster(db, key, spec).await?;
    if cluster.removing {
        let message = format!("{:?} is being removed, and takes no new databases", spec.cluster);
        return Err(Refused::Invalid(vec![InvalidField::new("cluster", message)]));
    }
    if counted {
        // A statement of its own: the count must not use a snapshot from before the wait.
        sqlx::query("select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 7))")
            .bind(key.namespace())
            .bind(&spec.cluster)
            .execute(&mut *db)
            .await?;
    }
    let (owner, count): (Option<String>, i64) = sqlx::query_as(
        "select (select namespace || '/' || name from claims where cluster = $1 and database = $2),
                (select count(*) from claims where cluster = $1 and namespace = $3)",
    )
    .bind(&spec.cluster)
    .bind(key.database())
    .bind(key.namespace())
    .fetch_one(db)
    .await?;
    match owner {
        Some(owner) if owner != key.to_string() => {
            return Err(Refused::NameTaken { database: key.database(), cluster: spec.cluster.clone(), owner });
        }
        Some(_) => return Err(Refused::Exists(key.clone())),
        None => {}
    }
    let limit = cluster.spec.limits.databases_per_namespace;
    if count >= i64::from(limit) {
        return Err(Refused::Quota { namespace: key.namespace().to_owned(), cluster: spec.cluster.clone(), limit });
    }
    Ok(())
}

pub(crate) fn other_door<T>(claim: Claim) -> Result<T> {
    Err(Refused::OtherDoor { key: claim.key, source_door: claim.source })
}

pub(crate) fn check_generation(claim: &Claim, expected: Option<i64>) -> Result<()> {
    match expected {
        Some(generation) if generation != claim.generation => {
            Err(Refused::Changed { key: claim.key.clone(), found: claim.generation })
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_immutable(claim: &Claim, spec: &ClaimSpec) -> Result<()> {
    if claim.spec.cluster == spec.cluster {
        return Ok(());
    }
    Err(Refused::Invalid(vec![InvalidField::new(
        "cluster",
        format!("can not be changed from {:?} to {:?}", claim.spec.cluster, spec.cluster),
    )]))
}

/// Checks what the claim's cluster allows.
pub(crate) async fn check_cluster(db: &mut PgConnection, key: &ClaimKey, spec: &ClaimSpec) -> Result<Cluster> {
    let mut problems = spec.problems();
    let Some(cluster) = crate::cluster(db, &spec.cluster).await? else {
        problems.push(ClusterSpec::unknown(&spec.cluster, key.namespace()));
        return Err(Refused::Invalid(problems));
    };
    problems.extend(cluster.spec.refuses(key.namespace(), spec));
    problems.extend(too_many_connections(db, key, spec, &cluster).await?);
    if problems.is_empty() { Ok(cluster) } else { Err(Refused::Invalid(problems)) }
}

/// A claim's roles, each of which has its connection limit.
const ROLES: i64 = 3;

/// Connections are added up for one claim after another, in a transaction.
async fn too_many_connections(
    db: &mut PgConnection,
    key: &ClaimKey,
    spec: &ClaimSpec,
    cluster: &Cluster,
) -> Result<Option<InvalidField>> {
    let Limits { connections, connections_per_namespace, reserved_connections, .. } = cluster.spec.limits;
    let Some(asked) = spec.connection_limit.map(i64::from) else { return Ok(None) };
    if connections.is_none() && connections_per_namespace.is_none() {
        return Ok(None);
    }
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 8))").bind(&spec.cluster).execute(&mut *db).await?;
    let before: Option<Option<i32>> =
        sqlx::query_scalar("select connection_limit from claims where (namespace, name) = ($1, $2)")
            .bind(key.namespace())
            .bind(key.name())
            .fetch_optional(&mut *db)
            .await?;
    // Whoever asks for no more than it has makes nothing worse, however much the others have.
    if before.flatten().is_some_and(|before| asked <= i64::from(before)) {
        return Ok(None);
    }
    let (all, own): (i64, i64) = sqlx::query_as(
        "select coalesce(sum(connection_limit), 0) * $4, coalesce(sum(connection_limit) filter (where namespace = $2), 0) * $4
         from claims where cluster = $1 and (namespace, name) <> ($2, $3)",
    )
    .bind(&spec.cluster)
    .bind(key.namespace())
    .bind(key.name())
    .bind(ROLES)
    .fetch_one(db)
    .await?;
    let servers = cluster.status.max_connections.map(|most| most.saturating_sub(reserved_connections));
    let namespace = format!("namespace {:?} on cluster {:?}", key.namespace(), spec.cluster);
    let bounds = [
        (connections_per_namespace, own, namespace, "limits.connectionsPerNamespace"),
        (connections, all, format!("cluster {:?}", spec.cluster), "limits.connections"),
        (
            servers.filter(|_| connections.is_some()),
            all,
            format!("cluster {:?}", spec.cluster),
            "max_connections less those reserved",
        ),
    ];
    let needed = asked * ROLES;
    let exceeded = bounds.into_iter().find_map(|(limit, taken, whose, of)| {
        let limit = i64::from(limit?);
        (taken + needed > limit).then(|| {
            format!(
                "{ROLES} roles with {asked} connections each are {needed}, and {whose} has {limit} ({of}) - {taken} of other claims = {} left",
                (limit - taken).max(0)
            )
        })
    });
    Ok(exceeded.map(|message| InvalidField::new("connectionLimit", message)))
}

/// Connections that the roles of a cluster's claims may open, as far as their claims have a limit.
///
/// # Errors
/// The ledger did not answer.
pub async fn promised_connections(db: &mut PgConnection, cluster: &str) -> Result<i64, LedgerError> {
    let query = "select coalesce(sum(connection_limit), 0) * $2 from claims where cluster = $1";
    Ok(sqlx::query_scalar(query).bind(cluster).bind(ROLES).fetch_one(db).await?)
}

/// Who holds the name that could not be inserted: this claim, made at the same moment, or another.
pub(crate) async fn taken(db: &mut PgConnection, key: &ClaimKey, spec: &ClaimSpec) -> Result<Refused> {
    let owner = owner_of(db, &spec.cluster, &key.database()).await?;
    Ok(match owner {
        Some(owner) if owner != *key => {
            Refused::NameTaken { database: key.database(), cluster: spec.cluster.clone(), owner: owner.to_string() }
        }
        _ => Refused::Exists(key.clone()),
    })
}

/// Claims that `namespace` has on `cluster`, whatever became of them.
///
/// # Errors
/// The ledger did not answer.
pub async fn count_of(db: &mut PgConnection, namespace: &str, cluster: &str) -> crate::Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from claims where namespace = $1 and cluster = $2")
        .bind(namespace)
        .bind(cluster)
        .fetch_one(db)
        .await?)
}
