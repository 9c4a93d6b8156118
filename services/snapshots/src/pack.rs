//! A part on its way in, on a thread of its own: compressed, encrypted, summed up.

use std::io::{self, Write};

use age::Encryptor;
use age::x25519::Recipient;
use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use crate::label::Label;
use crate::pipe::{PIECE, PipeReader, PipeWriter};

/// zstd's own default: what is stronger costs far more time than it saves room.
const LEVEL: i32 = 3;

/// What went in and what came out.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) plain_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) sha256: String,
}

/// Takes `input` to its end, and says the end of `output`.
pub(crate) fn pack(
    label: &Label,
    recipients: &[Recipient],
    mut input: PipeReader,
    output: PipeWriter,
) -> io::Result<Packed> {
    let packed = pack_all(label, recipients, &mut input, &output);
    let told = packed.as_ref().map(drop).map_err(|error| io::Error::new(error.kind(), error.to_string()));
    // Where nobody listens any more, the place has said why.
    let heard = output.end_blocking(told);
    let packed = packed?;
    heard.map_err(io::Error::from).map(|()| packed)
}

fn pack_all(
    label: &Label,
    recipients: &[Recipient],
    input: &mut PipeReader,
    output: &PipeWriter,
) -> io::Result<Packed> {
    let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
    let mut encrypted = encryptor.wrap_output(Sink::new(output))?;
    encrypted.write_all(&label.encode()?)?;
    let mut compressed = zstd::Encoder::new(encrypted, LEVEL)?;
    let mut plain_bytes = 0;
    while let Some(piece) = input.next_blocking() {
        let piece = piece?;
        plain_bytes += piece.len() as u64;
        compressed.write_all(&piece)?;
    }
    let (stored_bytes, sha256) = compressed.finish()?.finish()?.finish()?;
    Ok(Packed { plain_bytes, stored_bytes, sha256 })
}

/// Collects what is written into pieces, and sums it up.
struct Sink<'a> {
    output: &'a PipeWriter,
    piece: BytesMut,
    sum: Sha256,
    bytes: u64,
}

impl<'a> Sink<'a> {
    fn new(output: &'a PipeWriter) -> Self {
        Self { output, piece: BytesMut::with_capacity(PIECE), sum: Sha256::new(), bytes: 0 }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece: Bytes = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE)).freeze();
        self.sum.update(&piece);
        self.bytes += piece.len() as u64;
        Ok(self.output.send_blocking(piece)?)
    }

    fn finish(mut self) -> io::Result<(u64, String)> {
        if !self.piece.is_empty() {
            self.send()?;
        }
        Ok((self.bytes, hex::encode(self.sum.finalize())))
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(length)
    }

    /// age flushes when it is finished; what is left then goes with `finish`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
