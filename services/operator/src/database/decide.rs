//! What is to be done about an object. Pure.

use kube::{Resource as _, ResourceExt as _};
use pgtenant_ledger::{Claim, Refused, Wish};
use pgtenant_model::{ClaimKey, ClaimSpec, InvalidField, Source};

use crate::crd::PostgresqlDatabase;

/// What an object wishes for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wished {
    pub(super) key: ClaimKey,
    pub(super) spec: ClaimSpec,
}

/// Why a wish is not written down, as its condition says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl From<&Refused> for Refusal {
    fn from(refused: &Refused) -> Self {
        Self { reason: refused.reason(), message: refused.to_string() }
    }
}

/// What is to be written into the ledger.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Nothing, and the object is told why.
    Refuse(Refusal),
    /// A claim that is new, or that is taken back.
    Create(Wished),
    /// Another spec, or the same one of a later generation.
    Update(Wished),
}

/// Reads the object and what the ledger has of its name.
pub(super) fn decide(object: &PostgresqlDatabase, found: Option<&Claim>) -> Step {
    let wished = match validate(object) {
        Ok(wished) => wished,
        Err(problems) => {
            let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Step::Refuse(Refusal { reason: "Invalid", message });
        }
    };
    let Some(claim) = found else { return Step::Create(wished) };
    match claim.wish {
        Wish::Absent => Step::Keep,
        Wish::Retained if claim.released && is_of(claim, object) => Step::Keep,
        Wish::Retained => Step::Create(wished),
        Wish::Present if claim.source != Source::Kubernetes => {
            let refused = Refused::OtherDoor { key: wished.key, source_door: claim.source };
            Step::Refuse(Refusal::from(&refused))
        }
        Wish::Present if is_of(claim, object) && claim.source_generation == object.meta().generation => Step::Keep,
        Wish::Present => Step::Update(wished),
    }
}

/// Whether the claim is there for this very object.
pub(super) fn is_held(claim: &Claim, object: &PostgresqlDatabase) -> bool {
    claim.wish == Wish::Present && is_of(claim, object)
}

/// Whether this very object was written down, not another one of its name.
pub(super) fn is_of(claim: &Claim, object: &PostgresqlDatabase) -> bool {
    claim.source == Source::Kubernetes && claim.source_ref == object.uid()
}

fn validate(object: &PostgresqlDatabase) -> Result<Wished, Vec<InvalidField>> {
    let key = ClaimKey::new(object.namespace().unwrap_or_default(), object.name_any())
        .map_err(|error| vec![InvalidField::new("metadata.name", error.to_string())])?;
    let spec = ClaimSpec::from(&object.spec);
    let problems = spec.problems();
    if problems.is_empty() { Ok(Wished { key, spec }) } else { Err(problems) }
}

/// What is left to be done before an object may go.
#[derive(Debug)]
pub(super) enum Ending {
    /// Its definition is gone: the claim is removed, or kept without it.
    Withdraw(Box<Claim>),
    /// The engine is at it.
    Wait(Box<Claim>),
    /// Nothing.
    Done,
}

/// What a claim of an object that is being deleted needs. One of another door is none of its business.
pub(super) fn ending(found: Option<Claim>) -> Ending {
    match found {
        Some(claim) if claim.source != Source::Kubernetes => Ending::Done,
        Some(claim) => match claim.wish {
            Wish::Present => Ending::Withdraw(Box::new(claim)),
            Wish::Absent => Ending::Wait(Box::new(claim)),
            Wish::Retained => Ending::Done,
        },
        None => Ending::Done,
    }
}
