//! Lists, a page at a time.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::problem::{INVALID_CURSOR, Problem, Result};

const MOST: i64 = 500;

/// A page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page<T> {
    /// What is on this page.
    pub(crate) items: Vec<T>,
    /// Pass it as `cursor` for the next page; null: this is the last one.
    #[schema(required = true)]
    pub(crate) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list that is always whole.
    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }

    /// `rows` are one more than the page holds, if there are that many; `place` is what a cursor remembers of the last.
    pub(crate) fn of<R, P: Serialize>(
        mut rows: Vec<R>,
        limit: Limit,
        place: impl FnOnce(&R) -> P,
        show: impl FnMut(R) -> T,
    ) -> Self {
        let most = usize::try_from(limit.0).unwrap_or(usize::MAX);
        let more = rows.len() > most;
        rows.truncate(most);
        let next_cursor = rows.last().filter(|_| more).map(|row| encode(&place(row)));
        Self { items: rows.into_iter().map(show).collect(), next_cursor }
    }
}

fn encode(place: &impl Serialize) -> String {
    // Places are tuples of strings and numbers, which are always JSON.
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// What `nextCursor` of the page before remembers.
pub(crate) fn decode<P: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<P>> {
    let Some(cursor) = cursor else { return Ok(None) };
    let place = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|json| serde_json::from_slice(&json).ok());
    place.map(Some).ok_or_else(|| Problem::plain(&INVALID_CURSOR))
}

/// Entries a page.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Limit(i64);

impl Limit {
    /// One more than the page holds, to know whether there is another.
    pub(crate) fn rows(self) -> i64 {
        self.0 + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<i64> for Limit {
    type Error = String;

    fn try_from(value: i64) -> Result<Self, Self::Error> {
        if (1..=MOST).contains(&value) { Ok(Self(value)) } else { Err(format!("{value} is outside of 1 to {MOST}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_there_only_when_there_is_more() {
        let page = |rows: &[i64]| Page::of(rows.to_vec(), Limit(2), |n| *n, |n| n);
        assert_eq!(page(&[1, 2]).next_cursor, None);
        let first = page(&[1, 2, 3]);
        assert_eq!(first.items, [1, 2]);
        assert_eq!(decode::<i64>(first.next_cursor.as_deref()).unwrap(), Some(2));
        for bad in ["", "!", "bm90IGpzb24", "eyJhIjoxfQ"] {
            assert_eq!(decode::<i64>(Some(bad)).unwrap_err().kind.slug, "invalid-cursor");
        }
    }
}
