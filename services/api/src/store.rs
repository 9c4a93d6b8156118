//! The ledger behind proofs: the only place where the door's handlers reach it.

mod clusters;
mod moves;

use pgtenant_ledger as ledger;
use pgtenant_ledger::{
    AppsProblem, AuditEntry, Claim, ClaimFilter, Decision, LedgerError, Named, NewToken, PgConnection, Refused,
    RestoreFilter, Token, Wish, Written,
};
use pgtenant_model::{
    ClaimKey, ClaimPatch, ClaimSpec, DatabaseState, Event, Operation, OperationKind, Restore, RestoreSpec, SnapshotId,
    Source, Tier,
};
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::caller::{Changeable, Platform, Readable, Scope};
use crate::extract::IfMatch;
use crate::problem::{FORBIDDEN, PRECONDITION_FAILED, Problem, RETAINED, Result};
pub(crate) use clusters::{
    accept_history, add_drill, ask_for_login, ask_for_switchover, begin_maintenance, cluster, clusters, drills,
    end_maintenance, last_switchover, rotate_cluster, rotating,
};
pub(crate) use moves::{cancel_move, confirm_move, last_move, request_move};

/// One claim.
pub(crate) async fn claim(db: &mut PgConnection, may: &Readable, name: &str) -> Result<Claim> {
    let key = may.key(name)?;
    let claim = ledger::claim(db, &key).await?;
    claim.ok_or_else(|| Problem::not_found(format!("database {key}")))
}

/// Which claims to list.
#[derive(Debug, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) cluster: Option<&'a str>,
    pub(crate) state: Option<DatabaseState>,
    pub(crate) after: Option<(&'a str, &'a str)>,
}

pub(crate) async fn claims(db: &mut PgConnection, may: &Scope, wanted: Wanted<'_>, limit: i64) -> Result<Vec<Claim>> {
    let Wanted { cluster, state, after } = wanted;
    let filter = ClaimFilter { namespaces: may.namespaces(), cluster, state, source: None, after };
    Ok(ledger::claims(db, &filter, limit).await?)
}

/// How many claims of each namespace are in each state.
pub(crate) async fn count_by_namespace(
    db: &mut PgConnection,
    may: &Scope,
) -> Result<Vec<(String, DatabaseState, u64)>> {
    Ok(ledger::count_by_namespace(db, may.namespaces()).await?)
}

/// Claims that have such a name.
pub(crate) async fn named(db: &mut PgConnection, may: &Scope, named: Named<'_>, limit: i64) -> Result<Vec<ClaimKey>> {
    Ok(ledger::claims_named(db, may.namespaces(), named, limit).await?)
}

pub(crate) async fn create(db: &mut PgConnection, may: &Changeable, name: &str, spec: &ClaimSpec) -> Result<Written> {
    let key = may.readable().new_key(name)?;
    check(spec)?;
    let written = ledger::create(db, &key, spec, (Source::Api, None), may.actor()).await;
    written.map_err(|refused| explain(refused, may))
}

pub(crate) async fn update(
    db: &mut PgConnection,
    may: &Changeable,
    name: &str,
    patch: ClaimPatch,
    condition: &IfMatch,
) -> Result<Written> {
    let key = may.readable().key(name)?;
    check(&patch.clone().apply(&ClaimSpec::default()))?;
    let expected = expected(db, may.readable(), name, condition).await?;
    let change = |spec: &ClaimSpec| patch.apply(spec);
    let written = ledger::update(db, &key, change, Source::Api, expected, may.actor()).await;
    written.map_err(|refused| explain(refused, may))
}

/// The operation that removes the claim: that of before, if it is being removed. For good, if the platform team says so.
pub(crate) async fn remove(
    db: &mut PgConnection,
    may: &Changeable,
    name: &str,
    condition: &IfMatch,
    force: Option<&Platform>,
) -> Result<Operation> {
    let key = may.readable().key(name)?;
    let expected = expected(db, may.readable(), name, condition).await?;
    let written = ledger::remove(db, &key, Source::Api, expected, may.actor()).await;
    if force.is_some() && written.is_ok() {
        ledger::purge(db, &key).await?;
    }
    begun(db, may, written, OperationKind::Delete).await
}

/// The operation that released the claim: that of before, if it is Retained.
pub(crate) async fn release(
    db: &mut PgConnection,
    may: &Changeable,
    name: &str,
    condition: &IfMatch,
) -> Result<Operation> {
    let key = may.readable().key(name)?;
    let expected = expected(db, may.readable(), name, condition).await?;
    let written = ledger::release(db, &key, expected, may.actor()).await;
    begun(db, may, written, OperationKind::Release).await
}

/// Takes over a database. Without a spec: as the claim was, or the default.
pub(crate) async fn adopt(
    db: &mut PgConnection,
    may: &Changeable,
    name: &str,
    spec: Option<ClaimSpec>,
) -> Result<Operation> {
    let key = may.readable().key(name)?;
    let Adoption { spec, foreign } = adoption(db, may, name, spec).await?;
    let written = ledger::adopt(db, &key, &spec, Source::Api, foreign, may.actor()).await;
    begun(db, may, written, OperationKind::Adopt).await
}

/// What a caller may take over.
pub(crate) struct Adoption {
    pub(crate) spec: ClaimSpec,
    /// Also a database that is nobody's.
    pub(crate) foreign: bool,
}

/// The spec under which the caller may take over a database.
///
/// Taking back what is Retained is for the tenant. A database that was never the claim's own may hold anybody's data,
/// whatever its name begins with, so that the platform team decides: also where the claim is Retained, since anything can
/// be released.
pub(crate) async fn adoption(
    db: &mut PgConnection,
    may: &Changeable,
    name: &str,
    spec: Option<ClaimSpec>,
) -> Result<Adoption> {
    let key = may.readable().key(name)?;
    let claim = ledger::claim(db, &key).await?;
    let own = claim.as_ref().is_some_and(|claim| claim.wish == Wish::Retained);
    let foreign = may.scope().namespaces().is_none();
    if !own && !foreign {
        let detail = "only the platform team takes over a database that is not Retained";
        return Err(Problem::new(&FORBIDDEN, detail));
    }
    let spec = spec.unwrap_or_else(|| claim.map_or_else(ClaimSpec::default, |claim| claim.spec));
    check(&spec)?;
    Ok(Adoption { spec, foreign })
}

pub(crate) async fn rotate(db: &mut PgConnection, may: &Changeable, name: &str, tiers: &[Tier]) -> Result<Operation> {
    let key = may.readable().key(name)?;
    let written = ledger::rotate(db, &key, tiers, may.actor()).await;
    begun(db, may, written, OperationKind::Rotate).await
}

pub(crate) async fn operation(db: &mut PgConnection, may: &Scope, id: Uuid) -> Result<Option<Operation>> {
    let found = ledger::operation(db, id).await?;
    Ok(found.filter(|operation| may.contains(Some(&operation.namespace))))
}

pub(crate) async fn audit(
    db: &mut PgConnection,
    may: &Scope,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    Ok(ledger::audit_page(db, may.namespaces(), before, limit).await?)
}

/// The first folder of a file is its tenant.
pub(crate) async fn apps_problems(db: &mut PgConnection, may: &Scope) -> Result<Vec<AppsProblem>> {
    let all = ledger::apps_problems(db).await?;
    Ok(all.into_iter().filter(|problem| may.contains(problem.file.split('/').next())).collect())
}

pub(crate) async fn events(
    db: &mut PgConnection,
    may: &Scope,
    after: i64,
    limit: i64,
) -> Result<Vec<Event>, LedgerError> {
    ledger::events_after(db, after, may.namespaces(), limit).await
}

pub(crate) async fn last_event(db: &mut PgConnection) -> Result<i64, LedgerError> {
    ledger::event_high_water(db).await
}

pub(crate) async fn tokens(db: &mut PgConnection, _may: &Platform) -> Result<Vec<Token>> {
    Ok(ledger::tokens(db).await?)
}

pub(crate) async fn create_token(
    db: &mut PgConnection,
    may: &Platform,
    new: NewToken,
) -> Result<(Token, SecretString)> {
    let (token, secret) = ledger::create_token(db, new).await?;
    let detail = json!({
        "token": token.id, "role": token.role, "namespaces": token.namespaces, "expiresAt": token.expires_at,
    });
    ledger::write_audit(db, may.actor(), "token.create", (None, Some(&token.name)), &detail).await?;
    Ok((token, secret))
}

pub(crate) async fn revoke_token(db: &mut PgConnection, may: &Platform, id: Uuid) -> Result<()> {
    let found = ledger::tokens(db).await?.into_iter().find(|token| token.id == id);
    let token = found.ok_or_else(|| Problem::not_found(format!("token {id}")))?;
    if token.revoked_at.is_some() {
        return Ok(());
    }
    ledger::revoke_token(db, id).await?;
    let detail = json!({"token": id});
    Ok(ledger::write_audit(db, may.actor(), "token.revoke", (None, Some(&token.name)), &detail).await?)
}

fn check(spec: &ClaimSpec) -> Result<()> {
    let problems = spec.problems();
    if problems.is_empty() { Ok(()) } else { Err(Problem::invalid(problems)) }
}

/// The generation at which the claim must be. Of several tags, the one that it has now.
async fn expected(db: &mut PgConnection, may: &Readable, name: &str, condition: &IfMatch) -> Result<Option<i64>> {
    match condition.0.as_deref() {
        None => Ok(None),
        Some([generation]) => Ok(Some(*generation)),
        Some(several) => {
            let found = claim(db, may, name).await?.generation;
            let changed = || Problem::new(&PRECONDITION_FAILED, format!("it is at generation {found}; read it again"));
            several.contains(&found).then_some(Some(found)).ok_or_else(changed)
        }
    }
}

pub(crate) async fn request_restore(
    db: &mut PgConnection,
    may: &Changeable,
    name: &str,
    spec: &RestoreSpec,
) -> Result<Restore> {
    let key = may.readable().key(name)?;
    let written = ledger::request_restore(db, &key, spec, may.actor()).await;
    Ok(written.map_err(|refused| explain(refused, may))?.view)
}

pub(crate) async fn restores(
    db: &mut PgConnection,
    may: &Scope,
    wanted: RestoreFilter<'_>,
    limit: i64,
) -> Result<Vec<Restore>> {
    let filter = RestoreFilter { namespaces: may.namespaces(), ..wanted };
    Ok(ledger::restores(db, filter, limit).await?.into_iter().map(|one| one.view).collect())
}

/// One of a namespace that the caller may read: others are not told of.
pub(crate) async fn restore(db: &mut PgConnection, may: &Scope, id: Uuid) -> Result<Restore> {
    let found = ledger::restore(db, id).await?.map(|one| one.view);
    let found = found.filter(|one| may.contains(Some(&one.namespace)));
    found.ok_or_else(|| Problem::not_found(format!("restore {id}")))
}

/// Says yes or no. `platform`: for the platform team.
pub(crate) async fn decide_restore(
    db: &mut PgConnection,
    may: &Changeable,
    id: Uuid,
    decision: Decision,
    platform: bool,
) -> Result<Restore> {
    Ok(ledger::decide_restore(db, id, decision, platform, may.actor()).await?.view)
}

pub(crate) async fn cancel_restore(db: &mut PgConnection, may: &Changeable, id: Uuid) -> Result<Restore> {
    Ok(ledger::cancel_restore(db, id, may.actor()).await?.view)
}

/// Wants the database back that was there before. `platform`: for the platform team.
pub(crate) async fn undo_restore(db: &mut PgConnection, may: &Changeable, id: Uuid, platform: bool) -> Result<Restore> {
    Ok(ledger::undo_restore(db, id, platform, may.actor()).await?.view)
}

/// A dump, or a try of a snapshot.
pub(crate) async fn request_backup(
    db: &mut PgConnection,
    may: &Changeable,
    name: &str,
    snapshot: Option<&SnapshotId>,
) -> Result<Operation> {
    let key = may.readable().key(name)?;
    let begun = ledger::request_backup(db, &key, snapshot, may.actor()).await;
    begun.map_err(|refused| explain(refused, may))
}

/// The operation of a wish; where nothing had to be done, the last of its kind.
async fn begun(
    db: &mut PgConnection,
    may: &Changeable,
    written: Result<Written, Refused>,
    kind: OperationKind,
) -> Result<Operation> {
    let Written { claim, operation } = written.map_err(|refused| explain(refused, may))?;
    if let Some(operation) = operation {
        return Ok(operation);
    }
    let before = ledger::operations_of(db, &claim.key).await?;
    let last = before.into_iter().find(|operation| operation.kind == kind);
    // Finished operations are forgotten after some time.
    last.ok_or_else(|| Problem::new(&RETAINED, format!("database {} is as it was asked to be", claim.key)))
}

/// Who owns a taken name is told to those who may see the owner.
fn explain(refused: Refused, may: &Changeable) -> Problem {
    let owner = match &refused {
        Refused::NameTaken { owner, database, .. } => {
            tracing::info!(database, owner, "a name that belongs to another claim was asked for");
            Some(owner.clone()).filter(|owner| may.scope().contains(owner.split('/').next()))
        }
        _ => None,
    };
    let mut problem = Problem::from(refused);
    if let Some(owner) = owner {
        problem.detail = format!("{}; its owner is {owner}", problem.detail);
    }
    problem
}
