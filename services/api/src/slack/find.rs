//! Which database somebody means.

use pgtenant_ledger::{Claim, Named, PgConnection};
use pgtenant_model::{ClaimKey, check_label};

use crate::caller::Rights;
use crate::observe::chain;
use crate::problem::{NOT_FOUND, Problem, Result};
use crate::store;

/// What was typed came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// This one.
    One(ClaimKey),
    /// Several namespaces have one of this name.
    Several(Vec<ClaimKey>),
    /// None that may be seen.
    None,
}

/// Finds `name` or `namespace/name` among what may be seen.
pub(super) async fn meant(db: &mut PgConnection, rights: &Rights, typed: &str) -> Result<Meant> {
    if let Some((namespace, name)) = typed.split_once('/') {
        return Ok(existing(db, rights, namespace, name).await?.map_or(Meant::None, |claim| Meant::One(claim.key)));
    }
    if check_label("name", typed).is_err() {
        return Ok(Meant::None);
    }
    let mut found = store::named(db, &rights.scope(), Named::Exactly(typed), 20).await?;
    Ok(match found.len() {
        0 => Meant::None,
        1 => found.pop().map_or(Meant::None, Meant::One),
        _ => Meant::Several(found),
    })
}

/// The claim, if there is one that may be seen.
pub(super) async fn existing(
    db: &mut PgConnection,
    rights: &Rights,
    namespace: &str,
    name: &str,
) -> Result<Option<Claim>> {
    let found = async {
        let may = rights.may_read(namespace)?;
        store::claim(db, &may, name).await
    };
    match found.await {
        Ok(claim) => Ok(Some(claim)),
        Err(problem) if problem.kind == &NOT_FOUND => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// As a menu has it: `namespace/name`.
pub(super) fn key_of(value: &str) -> Option<ClaimKey> {
    let (namespace, name) = value.split_once('/')?;
    ClaimKey::new(namespace, name).ok()
}

/// For people: what went wrong, without anything of the inside; that is for the log.
pub(super) fn in_words(problem: &Problem, request_id: &str) -> String {
    let Some(source) = &problem.source else { return problem.detail.clone() };
    tracing::warn!(problem = problem.kind.slug, error = %chain(source.as_ref()), "a request of Slack failed");
    format!(
        "{}. Please try again, and tell the platform team if it stays so: request {request_id}.",
        problem.kind.title
    )
}
