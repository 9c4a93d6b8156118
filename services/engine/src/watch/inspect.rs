//! What would bite later on a cluster, and what a killed process left there.

use std::collections::BTreeSet;

use pgtenant_ledger::{ClaimFilter, LedgerError, claims, promised_connections};
use pgtenant_model::{ClaimKey, InvalidField};
use pgtenant_postgres::{
    Session, claims_on_cluster, drop_half_made, drop_roles_put_aside, extension_problems, half_made, max_connections,
    preflight,
};

use super::{Memory, Watch};
use crate::failure::{Cause, Failure};

/// How many databases without a claim are told of one by one.
const MOST_UNCLAIMED: usize = 20;

impl Watch<'_> {
    /// Preflight, and the half-made databases that a process left which was killed after its claim was gone. Such a
    /// database never had a connection, so there is nothing in it to lose; it has to be there at two inspections. Roles of
    /// removed claims that could not be dropped then are dropped when they can be.
    pub(super) async fn inspect(&self, memory: &mut Memory) -> Result<(), Failure> {
        let server = self.cluster.server().await.map_err(Failure::at("inspect"))?;
        let mut session = server.maintenance().await.map_err(Failure::at("inspect"))?;
        memory.preflight = preflight(&mut session).await.map_err(Failure::at("inspect"))?;
        let extensions = extension_problems(&mut session, &self.cluster.spec.allowed_extensions).await;
        let extensions = extensions.map_err(Failure::at("inspect"))?.into_values();
        memory.preflight.extend(extensions.map(|problem| InvalidField::new("allowedExtensions", problem)));
        let most = max_connections(&mut session).await.map_err(Failure::at("inspect"))?;
        memory.max_connections = Some(most);
        memory.preflight.extend(self.overcommitted(most).await.map_err(Failure::at("inspect"))?);
        memory.preflight.extend(self.unclaimed(&mut session).await.map_err(Failure::at("inspect"))?);
        for role in drop_roles_put_aside(&mut session).await.map_err(Failure::at("inspect"))? {
            tracing::info!(cluster = self.cluster.name, role, "dropped a role of a removed claim, which was put aside");
        }
        self.drop_half_made(session, memory).await.map_err(Failure::at("inspect"))
    }

    /// Claims that may open more connections than the server has for them.
    async fn overcommitted(&self, most: u32) -> Result<Option<InvalidField>, LedgerError> {
        let reserved = self.cluster.spec.limits.reserved_connections;
        let promised = promised_connections(&mut *self.ledger.acquire().await?, &self.cluster.name).await?;
        let room = i64::from(most.saturating_sub(reserved));
        Ok((promised > room).then(|| {
            let message = format!(
                "the roles of its claims may open {promised} connections together, and the primary has {room}: {most} for logins that \
                 are no superusers, less {reserved} (limits.reservedConnections). Raise max_connections, lower connectionLimit of \
                 claims, or set limits.connections, which refuses more"
            );
            InvalidField::new("limits.connections", message)
        }))
    }

    /// Databases with the comment of a claim that the ledger does not have. They are only told of: a failover to a standby
    /// that was behind has undone their removal, or the ledger is not the one that they were made with.
    async fn unclaimed(&self, session: &mut Session) -> Result<Vec<InvalidField>, Cause> {
        // Asked before the cluster, and claim by claim after it: what is made or removed meanwhile is not told of.
        let known = self.claims().await?;
        let mut left = claims_on_cluster(session).await?;
        left.retain(|key| !known.contains(key));
        let mut left = left.into_iter();
        let mut problems = Vec::new();
        while problems.len() < MOST_UNCLAIMED
            && let Some(key) = left.next()
        {
            if !self.claimed(&key.database()).await? {
                problems.push(InvalidField::new(
                    "databases",
                    format!(
                        "database {:?} says that it is of claim {key}, which is not in the ledger: its removal may have \
                         been undone by a failover. Create the claim, which takes over what is there, and remove it \
                         again if it is not needed",
                        key.database()
                    ),
                ));
            }
        }
        if left.len() > 0 {
            problems.push(InvalidField::new("databases", format!("and up to {} more like these", left.len())));
        }
        Ok(problems)
    }

    /// Every claim on the cluster.
    async fn claims(&self) -> Result<BTreeSet<ClaimKey>, LedgerError> {
        const PAGE: i64 = 500;
        let mut keys = BTreeSet::new();
        let mut last: Option<ClaimKey> = None;
        let mut db = self.ledger.acquire().await?;
        loop {
            let after = last.as_ref().map(|key| (key.namespace(), key.name()));
            let filter = ClaimFilter { cluster: Some(&self.cluster.name), after, ..ClaimFilter::default() };
            let page = claims(&mut db, &filter, PAGE).await?;
            let Some(end) = page.last() else { return Ok(keys) };
            last = Some(end.key.clone());
            keys.extend(page.into_iter().map(|claim| claim.key));
        }
    }

    /// Drops databases that were half made, and that nobody claims, at this inspection and the last one.
    async fn drop_half_made(&self, mut session: Session, memory: &mut Memory) -> Result<(), Cause> {
        let mut orphans = Vec::new();
        for database in half_made(&mut session).await? {
            let claimed = async { Ok::<_, Cause>(self.claimed(&database).await?) };
            if !memory.orphans.contains(&database) {
                if !claimed.await? {
                    orphans.push(database);
                }
            } else if drop_half_made(&mut session, &database, claimed).await? {
                tracing::warn!(
                    cluster = self.cluster.name,
                    database,
                    "dropped a half-made database that nobody claims"
                );
            }
        }
        memory.orphans = orphans;
        Ok(())
    }

    async fn claimed(&self, database: &str) -> Result<bool, LedgerError> {
        let mut db = self.ledger.acquire().await?;
        pgtenant_ledger::owner_of(&mut db, &self.cluster.name, database)
            .await
            .map(|owner: Option<ClaimKey>| owner.is_some())
    }
}
