//! A part on its way out, on a thread of its own: decrypted, proven to be the one that was asked for, decompressed, summed up.

use std::io::{self, BufReader, Read};

use age::{DecryptError, Decryptor};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::keys::Identities;
use crate::label::{Label, LabelError};
use crate::pipe::{Gone, PIECE, PipeReader, PipeWriter};
use crate::{PartEntry, SnapshotError};

/// The largest window that is taken, as a power of two: 8 MiB, four times what is written. It bounds the memory.
const WINDOW: u32 = 23;

/// What is asked for.
pub(crate) struct Wanted {
    pub(crate) location: String,
    pub(crate) label: Label,
    pub(crate) entry: PartEntry,
    pub(crate) recipients: Vec<String>,
}

/// Takes `input` to its end, and says the end of `output`: whole only when all is as the manifest says.
pub(crate) fn unpack(wanted: &Wanted, identities: &Identities, input: PipeReader, output: PipeWriter) {
    let result = match unpack_all(wanted, identities, input, &output) {
        Ok(()) => Ok(()),
        Err(Failed::Known(error)) => Err(error.into()),
        Err(Failed::Io(error)) if SnapshotError::of(&error).is_some() => Err(error),
        Err(Failed::Io(error)) => Err(wanted.corrupt(error.to_string()).into()),
        Err(Failed::Gone) => return,
    };
    // Who does not listen any more needs no end.
    let _ = output.end_blocking(result);
}

enum Failed {
    Known(SnapshotError),
    Io(io::Error),
    Gone,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Gone> for Failed {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

fn unpack_all(wanted: &Wanted, identities: &Identities, input: PipeReader, output: &PipeWriter) -> Result<(), Failed> {
    let mut source = Source { input, sum: Sha256::new() };
    {
        let mut decrypted = decrypt(wanted, identities, BufReader::with_capacity(PIECE, &mut source))?;
        wanted.check_label(&mut decrypted)?;
        let mut plain = zstd::Decoder::new(decrypted)?;
        plain.window_log_max(WINDOW)?;
        copy(wanted, &mut plain, output)?;
    }
    io::copy(&mut source, &mut io::sink())?;
    if hex::encode(source.sum.finalize()) != wanted.entry.sha256 {
        return Err(Failed::Known(wanted.corrupt("its SHA-256 is not the one in the manifest")));
    }
    Ok(())
}

fn decrypt<R: io::BufRead>(wanted: &Wanted, identities: &Identities, input: R) -> Result<impl Read, Failed> {
    let all = identities.all().iter().map(|identity| identity as &dyn age::Identity);
    let decrypted = Decryptor::new_buffered(input).and_then(|file| file.decrypt(all));
    decrypted.map_err(|error| match error {
        DecryptError::Io(error) => Failed::Io(error),
        DecryptError::NoMatchingKeys if identities.of(&wanted.recipients).is_some() => {
            Failed::Known(wanted.corrupt("it is not encrypted for the recipients of its manifest"))
        }
        DecryptError::NoMatchingKeys => Failed::Known(SnapshotError::WrongIdentity {
            location: wanted.location.clone(),
            wanted: wanted.recipients.clone(),
            held: identities.held(),
        }),
        other => Failed::Known(wanted.corrupt(other.to_string())),
    })
}

fn copy(wanted: &Wanted, plain: &mut impl Read, output: &PipeWriter) -> Result<(), Failed> {
    let mut left = wanted.entry.plain_bytes;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        // Errors come after what was read before them.
        let read = plain.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let length = piece.len() as u64;
        left = left.checked_sub(length).ok_or_else(|| Failed::Known(wanted.corrupt("it is longer than it was")))?;
        if length > 0 {
            output.send_blocking(Bytes::from(piece))?;
        }
        if read? == 0 {
            break;
        }
    }
    match left {
        0 => Ok(()),
        _ => Err(Failed::Known(wanted.corrupt(format!("it ends {left} bytes too early")))),
    }
}

impl Wanted {
    fn corrupt(&self, what: impl Into<String>) -> SnapshotError {
        SnapshotError::corrupt(&self.location, what)
    }

    fn check_label(&self, input: &mut impl Read) -> Result<(), Failed> {
        match Label::read(input) {
            Ok(label) if label == self.label => Ok(()),
            Ok(other) => Err(Failed::Known(self.corrupt(format!("it was written as {}", other.place())))),
            Err(LabelError::Wrong(what)) => Err(Failed::Known(self.corrupt(what))),
            Err(LabelError::Io(error)) => Err(Failed::Io(error)),
        }
    }
}

/// Sums up what is read.
struct Source {
    input: PipeReader,
    sum: Sha256,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.sum.update(&buffer[..length]);
        Ok(length)
    }
}
