//! An object, read to its end: a stream that breaks off is taken up again where it was, if the object is still the same.

use std::io;
use std::sync::Arc;

use futures::StreamExt as _;

use crate::object::ObjectPath;
use crate::pipe::{Gone, PipeWriter};
use crate::place::{Opened, Place};
use crate::{Patience, SnapshotError};

/// How often one object is opened at most, however much each time gives.
const MOST_OPENINGS: u32 = 200;

/// An object that is to have `length` bytes.
pub(crate) struct Download {
    pub(crate) place: Arc<dyn Place>,
    pub(crate) path: ObjectPath,
    pub(crate) length: u64,
    pub(crate) patience: Patience,
}

/// How far a download is.
#[derive(Default)]
struct Progress {
    at: u64,
    version: Option<String>,
}

/// Why a download does not go on.
enum Stop {
    Failed(SnapshotError),
    /// Nobody reads it any more.
    Gone,
}

impl Download {
    /// Reads it into `output`, and says its end.
    pub(crate) async fn run(self, output: PipeWriter) {
        let result = match self.all(&output).await {
            Ok(()) => Ok(()),
            Err(Stop::Failed(error)) => Err(io::Error::from(error)),
            Err(Stop::Gone) => return,
        };
        // Who does not read any more needs no end.
        let _ = output.end(result).await;
    }

    async fn all(&self, output: &PipeWriter) -> Result<(), Stop> {
        let mut progress = Progress::default();
        let mut fruitless = 0;
        for _ in 0..MOST_OPENINGS {
            let before = progress.at;
            let error = match self.go_on(&mut progress, output).await {
                Ok(()) => return Ok(()),
                Err(Stop::Failed(error @ SnapshotError::Unreachable { .. })) => error,
                Err(stop) => return Err(stop),
            };
            fruitless = if progress.at > before { 1 } else { fruitless + 1 };
            if fruitless >= self.patience.tries {
                return Err(Stop::Failed(error));
            }
            tracing::warn!(error = %error, at = progress.at, length = self.length, "a download broke off and goes on");
            self.patience.wait(fruitless).await;
        }
        Err(Stop::Failed(self.unreachable(format!("it broke off {MOST_OPENINGS} times"))))
    }

    /// Opens it where it is, and reads as far as that goes.
    async fn go_on(&self, progress: &mut Progress, output: &PipeWriter) -> Result<(), Stop> {
        let opened = self.place.get(&self.path, progress.at, progress.version.as_deref());
        let Opened { mut body, length, version } = opened.await.map_err(Stop::Failed)?;
        if length != self.length {
            let what = format!("it has {length} bytes, and {} by its manifest", self.length);
            return Err(Stop::Failed(SnapshotError::corrupt(self.place.location(&self.path), what)));
        }
        progress.version = progress.version.take().or(version);
        while progress.at < self.length {
            let piece = match body.next().await {
                Some(piece) => piece.map_err(Stop::Failed)?,
                None => {
                    let message = format!("it ended after {} of {length} bytes", progress.at);
                    return Err(Stop::Failed(self.unreachable(message)));
                }
            };
            progress.at += piece.len() as u64;
            output.send(piece).await.map_err(|Gone| Stop::Gone)?;
        }
        Ok(())
    }

    fn unreachable(&self, message: String) -> SnapshotError {
        SnapshotError::Unreachable { location: self.place.location(&self.path), message }
    }
}
