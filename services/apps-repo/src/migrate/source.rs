//! The text that is rewritten: from places in its tree to bytes, and what must not be touched by spans.

use std::ops::Range;

use saphyr_parser::{Event, Parser};

use crate::tree::{Data, Fault, Node, Style, line_of};

/// A text without its byte order mark, and the bytes of its characters.
pub(crate) struct Source<'t> {
    pub(crate) text: &'t str,
    /// Where each character begins; empty where each is one byte.
    bytes: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let bytes = if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() };
        Self { text, bytes }
    }

    fn byte(&self, char: usize) -> usize {
        let at = if self.bytes.is_empty() { Some(char) } else { self.bytes.get(char).copied() };
        at.unwrap_or(self.text.len()).min(self.text.len())
    }

    /// The bytes of a node; see [`Node::span`]. White space and comments behind it, which the parser counts after quotes,
    /// are none of it.
    pub(crate) fn range(&self, node: &Node) -> Range<usize> {
        let (start, end) = (self.byte(node.span.start), self.byte(node.span.end));
        let raw = &self.text[start..end.max(start)];
        let length = match node.style {
            Style::Quoted(quote) => closing(raw, quote),
            Style::Flow if raw.ends_with(',') => Some(raw.len() + to_bracket(&self.text[start + raw.len()..])),
            _ => None,
        };
        start..start + length.unwrap_or_else(|| raw.trim_end().len())
    }

    /// What is between the quotes of a scalar, or all of one without quotes. None where it can not be replaced as it
    /// stands: over several lines, with a tag, nothing at all.
    pub(crate) fn inner(&self, node: &Node) -> Option<Range<usize>> {
        let Data::Scalar { text, .. } = &node.data else { return None };
        let range = self.range(node);
        let raw = self.text.get(range.clone())?;
        match node.style {
            Style::Plain => (raw == text && !raw.is_empty()).then_some(range),
            Style::Quoted(quote) => {
                let bare = raw.strip_prefix(quote)?.strip_suffix(quote)?;
                (!bare.contains(['\n', '\r'])).then(|| range.start + 1..range.end - 1)
            }
            Style::Block | Style::Flow => None,
        }
    }

    /// Where the line of a byte begins.
    pub(crate) fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Where the line of a byte ends, its line break included.
    pub(crate) fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// What precedes a byte in its line.
    pub(crate) fn before(&self, at: usize) -> &'t str {
        &self.text[self.line_start(at)..at]
    }

    /// What follows a byte in its line, without the line break.
    pub(crate) fn after(&self, at: usize) -> &'t str {
        self.text[at..self.line_end(at)].trim_end_matches(['\n', '\r'])
    }

    /// A fault at a byte.
    pub(crate) fn fault(&self, at: usize, message: &str) -> Fault {
        Fault::new(line_of(self.text, at), message)
    }
}

/// The length of a text in quotes, up to the one that closes it.
fn closing(raw: &str, quote: char) -> Option<usize> {
    let mut chars = raw.strip_prefix(quote)?.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote == '"' {
            chars.next();
        } else if c == quote {
            // Two of them stand for one.
            let twice = quote == '\'' && chars.next_if(|(_, c)| *c == quote).is_some();
            if !twice {
                return Some(at + 2);
            }
        }
    }
    None
}

/// The length up to the closing bracket, which the parser does not count where a comma precedes it.
fn to_bracket(mut rest: &str) -> usize {
    let all = rest.len();
    loop {
        rest = rest.trim_start();
        match rest.strip_prefix('#') {
            Some(comment) => rest = comment.split_once('\n').map_or("", |(_, rest)| rest),
            None => return all - rest.len() + usize::from(rest.starts_with(['}', ']'])),
        }
    }
}

/// Whether a rest of a line says nothing: white space, a comment after it.
pub(crate) fn is_idle(rest: &str) -> bool {
    rest.trim_start().is_empty() || rest.trim_start().starts_with('#')
}

/// What makes that a span does not tell all that would change.
///
/// # Errors
/// The first one, with its place.
pub(crate) fn check(source: &Source<'_>, root: &Node) -> Result<(), Fault> {
    repeated(source.text)?;
    line_breaks(source)?;
    tabs(source, root)
}

/// An edit at an anchor would change every place that repeats it.
fn repeated(text: &str) -> Result<(), Fault> {
    let mut parser = Parser::new_from_str(text);
    while let Some(Ok((event, span))) = parser.next_event() {
        let what = match event {
            Event::Alias(_) => "an alias",
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if anchor > 0 =>
            {
                "an anchor"
            }
            _ => continue,
        };
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
        return Err(Fault::new(line, format!("{what} stands here, so one value counts in several places; {BY_HAND}")));
    }
    Ok(())
}

/// What is the end of a line to one reader of YAML is none to the next.
fn line_breaks(source: &Source<'_>) -> Result<(), Fault> {
    let text = source.text;
    let lone = text.match_indices('\r').map(|(at, _)| at).find(|at| !text[*at..].starts_with("\r\n"));
    match lone.or_else(|| text.find(['\u{85}', '\u{2028}', '\u{2029}'])) {
        Some(at) => Err(source.fault(
            at,
            "a character stands here that some readers take for a line break and others do not; take it out first",
        )),
        None => Ok(()),
    }
}

/// Tabs do not count as indentation, so what lies below what can not be told from columns.
fn tabs(source: &Source<'_>, root: &Node) -> Result<(), Fault> {
    let mut scalars = Vec::new();
    collect(source, root, &mut scalars);
    scalars.sort_unstable_by_key(|range| range.start);
    let mut scalars = scalars.into_iter().peekable();
    let bytes = source.text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        while scalars.next_if(|range| range.end <= at).is_some() {}
        match (bytes[at], scalars.peek()) {
            (_, Some(range)) if range.start <= at => at = range.end,
            (b'#', _) if at == 0 || bytes[at - 1].is_ascii_whitespace() => at = source.line_end(at),
            (b'\t', _) => return Err(source.fault(at, &format!("a tab stands here; use spaces, or {BY_HAND}"))),
            _ => at += 1,
        }
    }
    Ok(())
}

fn collect(source: &Source<'_>, node: &Node, scalars: &mut Vec<Range<usize>>) {
    match &node.data {
        Data::Scalar { text, .. } if text.is_empty() && node.style == Style::Plain => {}
        Data::Scalar { .. } => scalars.push(source.range(node)),
        Data::List(items) => items.iter().for_each(|item| collect(source, item, scalars)),
        Data::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            collect(source, key, scalars);
            collect(source, value, scalars);
        }),
    }
}

/// For what is refused.
pub(crate) const BY_HAND: &str = "change this file by hand";
