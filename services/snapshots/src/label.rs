//! What each part says of itself, inside the encryption: where it belongs.
//!
//! It is a skippable frame (RFC 8878, 3.1.2) before the data, so that every zstd leaves it out.

use std::io::{self, Read};

use pgtenant_model::ClaimKey;
use serde::{Deserialize, Serialize};

use crate::DumpId;
use crate::manifest::FORMAT;

/// The first of the sixteen magic numbers of skippable frames, little endian as all of zstd.
const MAGIC: u32 = 0x184D_2A50;
/// Far above the longest names together.
const MOST: u32 = 4096;

/// Where a part belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Label {
    format: u32,
    cluster: String,
    namespace: String,
    name: String,
    dump: DumpId,
    part: String,
}

impl Label {
    pub(crate) fn new(cluster: &str, key: &ClaimKey, dump: DumpId, part: &str) -> Self {
        Self {
            format: FORMAT,
            cluster: cluster.to_owned(),
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
            dump,
            part: part.to_owned(),
        }
    }

    /// The frame.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        Ok([&MAGIC.to_le_bytes()[..], &length.to_le_bytes()[..], &json[..]].concat())
    }

    /// Reads the frame, and nothing that comes after it; says what is wrong with it.
    pub(crate) fn read(input: &mut impl Read) -> Result<Self, LabelError> {
        let mut head = [0; 8];
        input.read_exact(&mut head)?;
        let [a, b, c, d, rest @ ..] = head;
        let length = u32::from_le_bytes(rest);
        if u32::from_le_bytes([a, b, c, d]) != MAGIC || length > MOST {
            return Err(LabelError::Wrong("it has no label: pgtenant did not write it".to_owned()));
        }
        let mut json = vec![0; length as usize];
        input.read_exact(&mut json)?;
        serde_json::from_slice(&json).map_err(|error| LabelError::Wrong(format!("its label can not be read: {error}")))
    }

    /// Where it says that it belongs, for people.
    pub(crate) fn place(&self) -> String {
        let Self { format: _, cluster, namespace, name, dump, part } = self;
        format!("{cluster}/{namespace}/{name}/{dump}/{part}")
    }
}

/// Why there is no label.
#[derive(Debug)]
pub(crate) enum LabelError {
    Io(io::Error),
    Wrong(String),
}

impl From<io::Error> for LabelError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        let key = ClaimKey::new("shop", "orders").unwrap();
        Label::new("default", &key, "20261122T020000Z-1a2b3c4d".parse().unwrap(), "data")
    }

    #[test]
    fn what_follows_a_label_is_left_there() {
        let bytes = [label().encode().unwrap(), b"rest".to_vec()].concat();
        let mut input = &bytes[..];
        assert_eq!(Label::read(&mut input).unwrap(), label());
        assert_eq!(input, b"rest");
    }

    #[test]
    fn zstd_leaves_a_label_out() {
        let bytes = [label().encode().unwrap(), zstd::encode_all(&b"data"[..], 3).unwrap()].concat();
        assert_eq!(zstd::decode_all(&bytes[..]).unwrap(), b"data");
    }

    #[test]
    fn something_else_is_no_label() {
        let long = [&MAGIC.to_le_bytes()[..], &u32::MAX.to_le_bytes()[..]].concat();
        let other = zstd::encode_all(&b"data"[..], 3).unwrap();
        for bytes in [&long[..], &other[..], b"", b"12345678"] {
            assert!(Label::read(&mut &bytes[..]).is_err());
        }
    }
}
