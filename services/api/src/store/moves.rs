//! Databases on other clusters, which the platform team decides.

use pgtenant_ledger as ledger;
use pgtenant_ledger::PgConnection;
use pgtenant_model::{ClaimKey, Move, MoveMethod};
use uuid::Uuid;

use crate::caller::Platform;
use crate::problem::Result;

/// Asks for a move; of a wish that is open already it returns that.
pub(crate) async fn request_move(
    db: &mut PgConnection,
    may: &Platform,
    key: &ClaimKey,
    to: &str,
    by: Option<MoveMethod>,
) -> Result<Move> {
    Ok(ledger::request_move(db, key, to, by, may.actor()).await?)
}

/// The newest move of a database.
pub(crate) async fn last_move(db: &mut PgConnection, _may: &Platform, key: &ClaimKey) -> Result<Option<Move>> {
    Ok(ledger::last_move(db, key).await?)
}

pub(crate) async fn confirm_move(db: &mut PgConnection, may: &Platform, key: &ClaimKey, id: Uuid) -> Result<Move> {
    Ok(ledger::confirm_move(db, key, id, may.actor()).await?)
}

pub(crate) async fn cancel_move(db: &mut PgConnection, may: &Platform, key: &ClaimKey, id: Uuid) -> Result<Move> {
    Ok(ledger::cancel_move(db, key, id, may.actor()).await?)
}
