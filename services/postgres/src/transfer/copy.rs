//! Straight from one database into another, without a file.

use std::io;

use bytes::Bytes;
use futures::{FutureExt as _, Stream, TryFutureExt as _, TryStreamExt as _};
use pgtenant_model::LeftOut;

use super::TransferError;
use super::archive::Archive;
use super::export::Export;
use super::flow::Flow;
use super::import::Import;
use super::part::Part;

/// What a copy came to.
#[derive(Debug)]
pub struct Copied {
    /// The definitions of the source, to compare the copy with.
    pub archive: Archive,
    /// What of the source is not in the copy.
    pub left_out: Vec<LeftOut>,
}

/// A part whose connection broke is copied again so many times.
const TRIES: u32 = 3;

/// Copies all that is in `export` into `import`, as many parts at once as that has jobs.
///
/// # Errors
/// The first thing that can not be done. The target is half-made then, and of no more use.
pub async fn copy_all(export: &Export, import: &Import, flow: &Flow) -> Result<Copied, TransferError> {
    let archive = export.schema(import.tools()).await?;
    import.prepare(&archive).await?;
    let parts = futures::stream::iter(export.parts().iter().map(Ok::<_, TransferError>));
    let read = |part| move || Ok(export.read(part).map_err(io::Error::other).into_stream().try_flatten());
    parts.try_for_each_concurrent(import.jobs(), |part| copy_part(import, part, flow, read(part))).await?;
    let mut left_out = export.left_out().to_vec();
    left_out.extend(import.finish(&archive).await?);
    Ok(Copied { archive, left_out })
}

/// Writes a part's data, as `read` has them, into a target; from the beginning again where a connection broke.
///
/// # Errors
/// What `read` says, and what can not be written.
pub async fn copy_part<S, E>(
    import: &Import,
    part: &Part,
    flow: &Flow,
    read: impl Fn() -> Result<S, E> + Send,
) -> Result<(), E>
where
    S: Stream<Item = io::Result<Bytes>> + Send,
    E: From<TransferError>,
{
    let mut tries = 1;
    loop {
        match import.write(part, flow.through(part, read()?)).await {
            Err(error) if error.broke() && tries < TRIES => {
                tracing::warn!(part = part.name, %error, "a part is copied again");
                flow.forget(part);
                tries += 1;
            }
            Err(error) => return Err(error.into()),
            Ok(()) => {
                flow.done(part);
                return Ok(());
            }
        }
    }
}
