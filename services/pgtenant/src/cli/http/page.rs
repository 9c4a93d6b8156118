//! Lists, all pages of them.

use serde::Deserialize;

use super::{Client, Document, HttpError};

/// What the control plane gives on a page at most.
const LIMIT: &str = "500";
/// Half a million entries: more than a person reads, and an end where a cursor goes in circles.
const MAX_PAGES: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    items: Vec<Document>,
    #[serde(default)]
    next_cursor: Option<String>,
}

impl Client {
    /// Every entry of a list that comes in pages; `most` ends it earlier.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        most: Option<usize>,
    ) -> Result<Vec<Document>, HttpError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        let enough = |items: &Vec<Document>| most.is_some_and(|most| items.len() >= most);
        for _ in 0..MAX_PAGES {
            let limit = most.filter(|most| *most < 500).map_or_else(|| LIMIT.to_owned(), |most| most.to_string());
            let mut query = query.to_vec();
            query.push(("limit", &limit));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let page: Page = self.get(path, &query).await?.read()?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) if !enough(&items) && cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => break,
            }
        }
        items.truncate(most.unwrap_or(usize::MAX));
        Ok(items)
    }

    /// Every entry of a list that is always whole.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(crate) async fn whole_list(&self, path: &[&str]) -> Result<Vec<Document>, HttpError> {
        let page: Page = self.get(path, &[]).await?.read()?;
        Ok(page.items)
    }
}
