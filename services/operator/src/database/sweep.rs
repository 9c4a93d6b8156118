//! Claims whose object vanished: somebody took its finalizer away, so that nobody was told of its end. What that meant is not
//! known, so everything is kept, and not managed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use pgtenant_ledger::{self as ledger, Actor, DoorClaim, LedgerError, NewEvent, Refused, Wish, within_deadline};
use pgtenant_model::{ClaimKey, EventKind, Source};
use serde_json::json;
use tokio::time::Instant;

use crate::context::Context;
use crate::crd::PostgresqlDatabase;
use crate::error::Result;
use crate::object::live;
use crate::watch::Known;

/// How often claims are compared with objects.
const LOOK: Duration = Duration::from_secs(30);
/// While one is missing.
const SECOND_LOOK: Duration = Duration::from_secs(5);
/// An object has to be away for so long: it may be made again at once, as `kubectl replace --force` does.
const ABSENT: Duration = Duration::from_secs(60);
/// More at once are taken for a mistake, such as the API server of another cluster.
const MOST: usize = 10;

/// Compares for as long as this replica leads.
pub(crate) async fn sweep(context: Arc<Context>, known: Known<PostgresqlDatabase>) {
    // Before the first list all of them would seem to be away.
    known.listed.cancelled().await;
    let mut absences = Absences::default();
    loop {
        if let Err(error) = look(&context, &known, &mut absences).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "claims were not compared with objects");
        }
        tokio::time::sleep(if absences.since.is_empty() { LOOK } else { SECOND_LOOK }).await;
    }
}

async fn look(context: &Context, known: &Known<PostgresqlDatabase>, absences: &mut Absences) -> Result<()> {
    let read = async { ledger::door_claims(&mut *context.ledger.acquire().await?, Source::Kubernetes).await };
    let mut claims = within_deadline(read).await?;
    claims.retain(|claim| claim.wish == Wish::Present && known.find(claim.key.namespace(), claim.key.name()).is_none());
    let due = absences.look(claims.iter().map(|claim| claim.key.clone()).collect(), Instant::now());
    if due.len() > MOST {
        if !absences.told {
            let count = due.len();
            tracing::warn!(count, "objects of so many claims have vanished at once that it is taken for a mistake");
        }
        absences.told = true;
        return Ok(());
    }
    absences.told = false;
    for claim in claims.iter().filter(|claim| due.contains(&claim.key)) {
        // What is known here may be old.
        let api: Api<PostgresqlDatabase> = Api::namespaced(context.client.clone(), claim.key.namespace());
        if live(&api, claim.key.name()).await?.is_none() && keep(claim, context).await? {
            tracing::warn!(claim = %claim.key, "its object has vanished: it is kept, and not managed any more");
        }
    }
    Ok(())
}

/// Since when objects are away.
#[derive(Debug, Default)]
struct Absences {
    since: BTreeMap<ClaimKey, Instant>,
    /// That there are too many.
    told: bool,
}

impl Absences {
    /// Those that have been away for long enough.
    fn look(&mut self, absent: BTreeSet<ClaimKey>, now: Instant) -> BTreeSet<ClaimKey> {
        self.since.retain(|key, _| absent.contains(key));
        for key in absent {
            self.since.entry(key).or_insert(now);
        }
        let old = self.since.iter().filter(|(_, since)| now.duration_since(**since) >= ABSENT);
        old.map(|(key, _)| key.clone()).collect()
    }
}

/// False where somebody else was faster.
async fn keep(claim: &DoorClaim, context: &Context) -> Result<bool> {
    let DoorClaim { key, source_ref, .. } = claim;
    let written = async {
        let mut tx = context.ledger.begin().await?;
        let actor = Actor::new(format!("kubernetes:{key}"));
        let written = match ledger::release(&mut tx, key, None, &actor).await {
            Ok(written) => written,
            Err(Refused::Ledger(error)) => return Err(error),
            Err(_) => return Ok(false),
        };
        // Made again, or of another door, since it was read.
        if written.claim.source != Source::Kubernetes || written.claim.source_ref != *source_ref {
            return Ok(false);
        }
        let message = format!(
            "{key}: its object vanished without its finalizer {} being waited for; database, roles and credentials are \
             kept. Make the object again to take them back",
            super::FINALIZER
        );
        let (namespace, name) = (Some(key.namespace()), key.name());
        let detail = json!({"generation": written.claim.generation});
        ledger::append_event(&mut tx, NewEvent { kind: EventKind::Retained, namespace, name, message, detail }).await?;
        tx.commit().await.map_err(LedgerError::from)?;
        Ok(true)
    };
    Ok(within_deadline(written).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_in_time_is_not_due() {
        let key = |name: &str| ClaimKey::new("ns", name).unwrap();
        let set = |names: &[&str]| names.iter().map(|name| key(name)).collect::<BTreeSet<_>>();
        let (mut absences, start) = (Absences::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(absences.look(set(&["a", "b"]), at(0)).is_empty());
        assert!(absences.look(set(&["b"]), at(30)).is_empty());
        assert_eq!(absences.look(set(&["a", "b"]), at(61)), set(&["b"]));
        assert_eq!(absences.look(set(&["a"]), at(121)), set(&["a"]));
        assert!(absences.look(set(&[]), at(122)).is_empty() && absences.since.is_empty());
    }
}
