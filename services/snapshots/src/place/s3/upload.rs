//! An object of unknown length, in pieces.

use std::sync::Arc;

use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _, PutPayload, Result};
use tokio::task::JoinSet;

use super::super::cleanup::Cleanup;
use crate::pipe::PipeReader;

/// Of the first pieces. S3 takes none smaller than 5 MiB, save the last.
const FIRST: usize = 8 << 20;
const LARGEST: usize = 64 << 20;
/// After so many pieces they become twice as large: S3 takes 10,000, which makes 490 GiB.
const UNTIL_LARGER: usize = 1000;
/// Pieces that are on their way at once, beside the one that is being collected.
const AT_ONCE: usize = 2;

/// Writes `body` to `path`. It is there when this returns `Ok`, and else not.
pub(super) async fn upload(store: Arc<AmazonS3>, path: Path, mut body: PipeReader) -> Result<()> {
    let (first, more) = collect(&mut body, FIRST).await?;
    if !more {
        return store.put(&path, first).await.map(drop);
    }
    let id = store.create_multipart(&path).await?;
    let cleanup = {
        let (store, path, id) = (Arc::clone(&store), path.clone(), id.clone());
        Cleanup::new(async move {
            if let Err(error) = store.abort_multipart(&path, &id).await {
                tracing::warn!(error = %error, %path, "an upload could not be aborted: a lifecycle rule removes its pieces");
            }
        })
    };
    let uploaded = async {
        let parts = pieces(&store, &path, &id, first, body).await?;
        store.complete_multipart(&path, &id, parts).await.map(drop)
    };
    cleanup.after(uploaded.await).await
}

async fn pieces(
    store: &Arc<AmazonS3>,
    path: &Path,
    id: &str,
    first: PutPayload,
    mut body: PipeReader,
) -> Result<Vec<PartId>> {
    let mut under_way: JoinSet<Result<(usize, PartId)>> = JoinSet::new();
    let mut done = Vec::new();
    let (mut piece, mut more, mut number) = (first, true, 0);
    // The last one may be empty, where the body ended with the piece before.
    while piece.content_length() > 0 {
        while under_way.len() >= AT_ONCE {
            done.extend(next(&mut under_way).await?);
        }
        let (store, path, id) = (Arc::clone(store), path.clone(), id.to_owned());
        under_way.spawn(async move { Ok((number, store.put_part(&path, &id, number, piece).await?)) });
        number += 1;
        (piece, more) = if more { collect(&mut body, size(number)).await? } else { (PutPayload::new(), false) };
    }
    while let Some(part) = next(&mut under_way).await? {
        done.push(part);
    }
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, part)| part).collect())
}

async fn next(under_way: &mut JoinSet<Result<(usize, PartId)>>) -> Result<Option<(usize, PartId)>> {
    under_way.join_next().await.transpose()?.transpose()
}

fn size(number: usize) -> usize {
    FIRST.checked_shl(u32::try_from(number / UNTIL_LARGER).unwrap_or(u32::MAX)).unwrap_or(LARGEST).min(LARGEST)
}

/// The next so many bytes, at least, and whether there may be more.
async fn collect(body: &mut PipeReader, bytes: usize) -> Result<(PutPayload, bool)> {
    let mut collected: Vec<Bytes> = Vec::new();
    let mut length = 0;
    while length < bytes {
        match body.next().await {
            Some(Ok(piece)) => {
                length += piece.len();
                collected.push(piece);
            }
            Some(Err(error)) => return Err(Error::Generic { store: "S3", source: error.into() }),
            None => return Ok((collected.into_iter().collect(), false)),
        }
    }
    Ok((collected.into_iter().collect(), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_so_that_large_objects_fit() {
        let total: usize = (0..10_000).map(size).sum();
        assert_eq!((size(0), size(1_000), size(9_999)), (FIRST, 2 * FIRST, LARGEST));
        assert_eq!(total >> 30, 492);
    }
}
