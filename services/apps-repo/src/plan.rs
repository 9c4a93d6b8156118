//! The folder as a question: what would change?

use pgtenant_model::{PlanRequest, PlannedClaim, Source};

use crate::{Definition, Scan};

/// The request for a plan of all that a folder defines. It speaks for the whole door only where all of the folder could
/// be used: a broken file is not a removal.
#[must_use]
pub fn to_plan_request(scan: &Scan) -> PlanRequest {
    PlanRequest {
        claims: scan.definitions.iter().map(planned).collect(),
        source: Source::Apps,
        complete: scan.is_complete(),
        adopt: false,
    }
}

fn planned(definition: &Definition) -> PlannedClaim {
    let spec = definition.spec.clone();
    PlannedClaim {
        namespace: definition.key.namespace().to_owned(),
        name: definition.key.name().to_owned(),
        mode: spec.mode,
        cluster: Some(spec.cluster),
        schemas: spec.schemas,
        extensions: spec.extensions,
        connection_limit: spec.connection_limit,
        slack_channel: spec.slack_channel,
    }
}
