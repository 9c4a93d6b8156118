//! Contents of large objects, in pieces: oid, position and bytes, as a binary COPY has them.

use bytes::{Buf as _, Bytes, BytesMut};

use super::sql::PIECE;

/// A piece of a large object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) oid: u32,
    pub(super) at: i64,
    pub(super) bytes: Bytes,
}

/// Reads pieces from a binary COPY, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: BytesMut,
    begun: bool,
    ended: bool,
}

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the extension.
const HEADER: usize = SIGNATURE.len() + 8;

impl Reader {
    /// Takes what comes next; gives what is complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Piece>, &'static str> {
        self.buffer.extend_from_slice(bytes);
        if !self.begun {
            if self.buffer.len() < HEADER {
                return Ok(Vec::new());
            }
            if !self.buffer.starts_with(SIGNATURE) {
                return Err("they do not begin as a binary COPY does");
            }
            self.buffer.advance(HEADER);
            self.begun = true;
        }
        let mut pieces = Vec::new();
        while let Some(piece) = self.next()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Whether all has come.
    pub(super) fn is_complete(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    fn next(&mut self) -> Result<Option<Piece>, &'static str> {
        const WRONG: &str = "they are not pieces of large objects";
        let mut row = &self.buffer[..];
        if row.len() < 2 || self.ended {
            return Ok(None);
        }
        match row.get_i16() {
            -1 => {
                self.buffer.advance(2);
                self.ended = true;
                return Ok(None);
            }
            3 => {}
            _ => return Err(WRONG),
        }
        // Lengths and values of oid and position, and the length of the bytes.
        if row.len() < 4 + 4 + 4 + 8 + 4 {
            return Ok(None);
        }
        if row.get_i32() != 4 {
            return Err(WRONG);
        }
        let oid = row.get_u32();
        if row.get_i32() != 8 {
            return Err(WRONG);
        }
        let at = row.get_i64();
        let length = usize::try_from(row.get_i32()).ok().filter(|length| *length <= PIECE).ok_or(WRONG)?;
        if row.len() < length {
            return Ok(None);
        }
        self.buffer.advance(2 + 4 + 4 + 4 + 8 + 4);
        Ok(Some(Piece { oid, at, bytes: self.buffer.split_to(length).freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied() -> Vec<u8> {
        let mut bytes = [SIGNATURE, &[0; 8]].concat();
        for (oid, text) in [(7_u32, "seven"), (8, "")] {
            bytes.extend(3_i16.to_be_bytes());
            bytes.extend([0, 0, 0, 4]);
            bytes.extend(oid.to_be_bytes());
            bytes.extend([0, 0, 0, 8]);
            bytes.extend(9_i64.to_be_bytes());
            bytes.extend((text.len() as i32).to_be_bytes());
            bytes.extend(text.bytes());
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    #[test]
    fn pieces_are_read_however_they_are_cut() {
        let copied = copied();
        for size in 1..=copied.len() {
            let mut reader = Reader::default();
            let mut pieces = Vec::new();
            for cut in copied.chunks(size) {
                assert!(!reader.is_complete());
                pieces.extend(reader.push(cut).unwrap());
            }
            assert!(reader.is_complete());
            let expected = [(7, "seven"), (8, "")];
            let expected = expected.map(|(oid, text)| Piece { oid, at: 9, bytes: Bytes::from_static(text.as_bytes()) });
            assert_eq!(pieces, expected);
        }
    }

    #[test]
    fn what_is_cut_short_or_something_else_is_not_taken() {
        let copied = copied();
        let mut reader = Reader::default();
        reader.push(&copied[..copied.len() - 1]).unwrap();
        assert!(!reader.is_complete());
        assert!(Reader::default().push(&[7; 100]).is_err());
        let mut wrong = copied;
        wrong[HEADER + 1] = 9;
        assert!(Reader::default().push(&wrong).is_err());
    }
}
