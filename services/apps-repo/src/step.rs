//! Runs one step in a transaction of its own, so that one refusal does not hold up others.

use pgtenant_ledger::{self as ledger, Actor, AppsProblem, Ledger, LedgerError, Refused};
use pgtenant_model::Source;

use crate::difference::Step;
use crate::problem::problem;
use crate::scan::Definition;

/// What became of a step.
#[derive(Debug)]
pub(crate) enum Ran {
    Written,
    Withdrawn,
    /// It was like that already.
    Nothing,
    Refused(Vec<AppsProblem>),
}

/// Runs a step. An error means that the ledger is down; whatever is wrong with one claim is a problem of its file.
pub(crate) async fn run(ledger: &Ledger, step: Step<'_>) -> Result<Ran, LedgerError> {
    let refused = match write(ledger, step).await {
        Ok(ran) => return Ok(ran),
        Err(Refused::Ledger(error)) if error.is_outage() => return Err(error),
        Err(refused) => refused,
    };
    match step {
        Step::Create(definition) | Step::Update(definition) | Step::Move(definition) => {
            Ok(Ran::Refused(refusal(definition, &refused)))
        }
        Step::Withdraw(claim) | Step::Forget(claim) => Ok(match refused {
            // Somebody else was faster.
            Refused::NotFound(_) | Refused::Deleting(_) | Refused::Retained(_) | Refused::OtherDoor { .. } => {
                Ran::Nothing
            }
            refused => {
                let file = claim.source_ref.as_deref().unwrap_or_default();
                let message =
                    format!("database {} is not defined any more and could not be removed: {refused}", claim.key);
                Ran::Refused(vec![problem(file, 0, "", &message)])
            }
        }),
    }
}

async fn write(ledger: &Ledger, step: Step<'_>) -> Result<Ran, Refused> {
    let mut db = ledger.begin().await?;
    let written = match step {
        Step::Create(definition) => {
            let Definition { key, spec, file, .. } = definition;
            let made = ledger::create(&mut db, key, spec, (Source::Apps, Some(file)), &actor(file)).await?;
            made.operation.is_some()
        }
        Step::Update(definition) => {
            let Definition { key, spec, file, .. } = definition;
            let change = |_: &_| spec.clone();
            ledger::update(&mut db, key, change, Source::Apps, None, &actor(file)).await?;
            ledger::move_claim(&mut db, key, Source::Apps, file).await?
        }
        Step::Move(Definition { key, file, .. }) => ledger::move_claim(&mut db, key, Source::Apps, file).await?,
        Step::Withdraw(claim) => {
            let actor = actor(claim.source_ref.as_deref().unwrap_or_default());
            ledger::withdraw(&mut db, &claim.key, Source::Apps, None, &actor).await?.operation.is_some()
        }
        Step::Forget(claim) => ledger::forget_release(&mut db, &claim.key, Source::Apps).await?,
    };
    db.commit().await?;
    Ok(match step {
        _ if !written => Ran::Nothing,
        Step::Withdraw(_) => Ran::Withdrawn,
        Step::Create(_) | Step::Update(_) | Step::Move(_) | Step::Forget(_) => Ran::Written,
    })
}

fn actor(file: &str) -> Actor {
    Actor::new(format!("apps:{file}"))
}

/// A refusal at the lines that it speaks of.
fn refusal(definition: &Definition, refused: &Refused) -> Vec<AppsProblem> {
    let (field, message) = match refused {
        Refused::Invalid(fields) => {
            return fields.iter().map(|field| definition.problem(&field.field, &field.message)).collect();
        }
        // The owner is for the log: another tenant's claim is no business of this one.
        Refused::NameTaken { owner, .. } => {
            tracing::debug!(claim = %definition.key, %owner, "the name is taken");
            ("name", refused.to_string())
        }
        Refused::OtherDoor { .. } => ("name", refused.to_string()),
        Refused::Deleting(key) => ("", format!("database {key} is being removed; it is made again when that is done")),
        Refused::Ledger(error) => {
            let error = error as &dyn std::error::Error;
            tracing::error!(claim = %definition.key, error, "a claim could not be stored");
            ("", "could not be stored; the log of the control plane says why".to_owned())
        }
        Refused::NotFound(_)
        | Refused::Exists(_)
        | Refused::Retained(_)
        | Refused::Protected(_)
        | Refused::Changed { .. }
        | Refused::Quota { .. }
        | Refused::NoRestore(_)
        | Refused::RestoreOpen(_)
        | Refused::RestoreOver { .. }
        | Refused::NothingAside(_)
        | Refused::TooManyRestores { .. }
        | Refused::MoveOpen(_)
        | Refused::NoMove(_)
        | Refused::MoveNotWaiting { .. }
        | Refused::NotYours(_) => ("", refused.to_string()),
    };
    vec![definition.problem(field, &message)]
}
