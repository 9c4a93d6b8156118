//! Changes of a text by spans. What no span names stays as it is, to the byte.

use std::ops::Range;

/// Changes to be made at once.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    gone: Vec<Range<usize>>,
    put: Vec<(Range<usize>, String)>,
}

impl Edits {
    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.put.is_empty()
    }

    /// Takes a span out. Of a line on which nothing is left nothing stays; if it is a comment, that stays, where the
    /// line began.
    pub(crate) fn remove(&mut self, range: Range<usize>) {
        self.gone.push(range);
    }

    /// Puts text in the place of a span.
    pub(crate) fn replace(&mut self, range: Range<usize>, text: impl Into<String>) {
        self.put.push((range, text.into()));
    }

    /// The text with the changes; none where two of them are about the same bytes.
    pub(crate) fn apply(self, text: &str) -> Option<String> {
        let gone = tidy(text, &union(self.gone));
        let mut all: Vec<(Range<usize>, String)> = gone.into_iter().map(|range| (range, String::new())).collect();
        all.extend(self.put);
        all.sort_by_key(|(range, _)| (range.start, range.end));
        let mut result = String::with_capacity(text.len() + 64);
        let mut done = 0;
        for (range, put) in all {
            result.push_str(text.get(done..range.start)?);
            result.push_str(&put);
            done = range.end;
        }
        result.push_str(text.get(done..)?);
        // Where the last line went, the one before has become the last.
        if !text.ends_with('\n') && result.ends_with('\n') {
            result.pop();
            if result.ends_with('\r') {
                result.pop();
            }
        }
        Some(result)
    }
}

/// In order, and none of them touching another.
fn union(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The spans, and what they leave of their lines without a meaning.
fn tidy(text: &str, gone: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut further = gone.to_vec();
    let mut left = gone;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        while left.first().is_some_and(|range| range.end <= start) {
            left = &left[1..];
        }
        let here = left.iter().take_while(|range| range.start < end);
        further.extend(remainder(text, start..end, here));
        start = end;
    }
    union(further)
}

/// What else goes of a line of which `gone` goes.
fn remainder<'r>(text: &str, line: Range<usize>, gone: impl Iterator<Item = &'r Range<usize>>) -> Option<Range<usize>> {
    let mut kept = Vec::new();
    let mut at = line.start;
    for range in gone {
        kept.push(at..range.start.max(at));
        at = range.end.min(line.end);
    }
    if kept.is_empty() {
        return None;
    }
    kept.push(at..line.end);
    let first = kept.into_iter().find_map(|range| {
        let blank = text[range.clone()].len() - text[range.clone()].trim_start().len();
        (blank < range.len()).then_some(range.start + blank)
    });
    let indent = text[line.clone()].len() - text[line.clone()].trim_start().len();
    match first {
        None => Some(line),
        Some(first) if text[first..].starts_with('#') => Some(line.start + indent..first),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(text: &str, words: &[&str]) -> String {
        let mut edits = Edits::default();
        for word in words {
            let at = text.find(word).unwrap();
            edits.remove(at..at + word.len());
        }
        edits.apply(text).unwrap()
    }

    #[test]
    fn what_is_left_of_a_line_goes_with_it_and_comments_stay() {
        assert_eq!(without("a\n  b \nc\n", &["b"]), "a\nc\n");
        assert_eq!(without("a\r\n  b  # why\r\nc\r\n", &["b"]), "a\r\n  # why\r\nc\r\n");
        assert_eq!(without("a\n  b, c\nd", &["b, ", "c"]), "a\nd");
        assert_eq!(without("a\n  b\n  c", &["b", "c"]), "a");
        assert_eq!(without("a\r\n  b", &["b"]), "a");
        assert_eq!(without("a b # c\n", &["b"]), "a  # c\n");
        assert_eq!(without("a,\n\n  b\n\nc", &["b"]), "a,\n\n\nc");
    }

    #[test]
    fn two_changes_of_one_place_are_none() {
        let mut edits = Edits::default();
        edits.replace(0..2, "x");
        edits.replace(1..3, "y");
        assert_eq!(edits.apply("abc"), None);
    }
}
