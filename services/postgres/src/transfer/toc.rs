//! The table of contents of `pg_dump`'s custom format, as `src/bin/pg_dump/pg_backup_archiver.c` writes it: what `pg_restore -l`
//! lists, and each entry's own statements, without the doubt of reading either from text in which a tenant may write
//! anything.

use super::TransferError;

/// From PostgreSQL 12 to 18. Within a major version of the format fields are only added.
const VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 14)..=(1, 16);

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Toc {
    /// As the server said it: `15.18 (Debian 15.18-1)`.
    pub(super) server: String,
    /// The version of `pg_dump`.
    pub(super) dumped_by: String,
    pub(super) entries: Vec<Entry>,
}

/// An object, or something about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: i32,
    /// `TABLE`, `FK CONSTRAINT`, `ACL`.
    pub(super) kind: String,
    /// Its name as the list shows it: `orders`, `orders orders_pkey`, `f(integer)`, `TABLE orders`.
    pub(super) tag: String,
    pub(super) schema: Option<String>,
    pub(super) owner: String,
    /// Whether it belongs after the data.
    pub(super) post_data: bool,
    /// Its statements.
    pub(super) definition: String,
    pub(super) depends_on: Vec<i32>,
}

impl Toc {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, TransferError> {
        let mut reader = Reader { bytes, at: 0, int_size: 4, offset_size: 8, version: (0, 0) };
        reader.toc().map_err(|reason| TransferError::Archive { reason })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    int_size: usize,
    offset_size: usize,
    version: (u8, u8),
}

type Read<T> = Result<T, String>;

const NONE: i32 = 1;
const POST_DATA: i32 = 4;

impl Reader<'_> {
    fn toc(&mut self) -> Read<Toc> {
        if self.take(5)? != b"PGDMP" {
            return Err("it is not in pg_dump's custom format".into());
        }
        let (major, minor, _revision) = (self.byte()?, self.byte()?, self.byte()?);
        self.version = (major, minor);
        if !VERSIONS.contains(&self.version) {
            return Err(format!(
                "its format is {major}.{minor}, and this version knows 1.14 to 1.16 (PostgreSQL 12 to 18)"
            ));
        }
        (self.int_size, self.offset_size) = (self.byte()?.into(), self.byte()?.into());
        if self.byte()? != 1 {
            return Err("it is not in pg_dump's custom format".into());
        }
        if self.version >= (1, 15) {
            self.byte().map(i32::from)?
        } else {
            self.int()?
        }; // compression
        for _part_of_the_date in 0..7 {
            self.int()?;
        }
        self.text()?; // database
        let (server, dumped_by) = (self.text()?.unwrap_or_default(), self.text()?.unwrap_or_default());
        let (mut entries, mut post_data) = (Vec::new(), false);
        for _ in 0..self.int()? {
            entries.push(self.entry(&mut post_data)?);
        }
        Ok(Toc { server, dumped_by, entries })
    }

    fn entry(&mut self, post_data: &mut bool) -> Read<Entry> {
        let id = self.int()?;
        self.int()?; // has data
        self.text()?; // oid of its catalogue
        self.text()?; // its oid
        let tag = self.text()?.unwrap_or_default();
        let kind = self.text()?.unwrap_or_default();
        // What has no section of its own follows what it is about.
        match self.int()? {
            NONE => {}
            section => *post_data = section == POST_DATA,
        }
        let definition = self.text()?.unwrap_or_default();
        self.text()?; // DROP
        self.text()?; // COPY
        let schema = self.text()?.filter(|schema| !schema.is_empty());
        self.text()?; // tablespace
        self.text()?; // access method
        if self.version >= (1, 16) {
            self.int()?; // relkind
        }
        let owner = self.text()?.unwrap_or_default();
        self.text()?; // WITH OIDS
        let mut depends_on = Vec::new();
        while let Some(dependency) = self.text()? {
            depends_on.push(dependency.parse().map_err(|_| format!("{dependency:?} is no number"))?);
        }
        self.take(1 + self.offset_size)?; // where its data are
        Ok(Entry { id, kind, tag, schema, owner, post_data: *post_data, definition, depends_on })
    }

    fn take(&mut self, count: usize) -> Read<&[u8]> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(count);
        taken.ok_or_else(|| "it ends too early".to_owned())
    }

    fn byte(&mut self) -> Read<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A byte of sign, then the least significant byte first.
    fn int(&mut self) -> Read<i32> {
        let negative = self.byte()? != 0;
        let bytes = self.take(self.int_size)?;
        let value =
            bytes.iter().rev().try_fold(0_i64, |value, byte| value.checked_mul(256)?.checked_add((*byte).into()));
        let value = value.and_then(|value| i32::try_from(if negative { -value } else { value }).ok());
        value.ok_or_else(|| "a number in it is too large".to_owned())
    }

    fn text(&mut self) -> Read<Option<String>> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(self.take(length)?).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_it_panic() {
        let mut bytes = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
        for length in 0..bytes.len() {
            assert!(Toc::read(&bytes[..length]).is_err());
        }
        for _ in 0..12 {
            bytes.extend([0, 0xff, 0xff, 0xff, 0x7f]);
        }
        assert!(Toc::read(&bytes).is_err());
        let newer = Toc::read(b"PGDMP\x01\x63\x00").unwrap_err();
        assert!(newer.to_string().contains("1.99"), "{newer}");
    }
}
