//! A YAML document as a tree whose nodes know their lines. Limits hold while it is built, so that a file of a megabyte
//! can not become more memory than that.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::scalar::{Kind, plain_kind};

/// Collections within collections. Values of charts that are passed through stay far below.
const MAX_DEPTH: usize = 64;
/// Nodes, those that aliases repeat counted each time.
const MAX_NODES: usize = 100_000;

/// A node and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    /// The line on which it begins.
    pub(crate) line: u32,
    /// In characters of the text without its byte order mark; quotes, brackets and tags included. A collection in block
    /// style has no end of its own: it ends where the last node within it does.
    pub(crate) span: Range<usize>,
    pub(crate) style: Style,
    pub(crate) data: Data,
    /// Nodes within it and itself, aliases spelled out.
    size: usize,
    /// Collections within it and itself, aliases spelled out.
    height: usize,
}

impl Node {
    /// Something else in the same place.
    pub(crate) fn with(&self, data: Data) -> Rc<Self> {
        let Self { line, span, style, data: _, size, height } = self;
        Rc::new(Self { line: *line, span: span.clone(), style: *style, data, size: *size, height: *height })
    }
}

/// How a node is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A word without quotes.
    Plain,
    /// In quotes of this kind.
    Quoted(char),
    /// Text after `|` or `>`, and collections by indentation.
    Block,
    /// Collections in brackets.
    Flow,
}

#[derive(Debug)]
pub(crate) enum Data {
    Scalar {
        text: String,
        kind: Kind,
    },
    List(Vec<Rc<Node>>),
    /// In the order of the file, repeated keys included.
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

/// Why there is no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(crate) struct Fault {
    pub(crate) line: u32,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// The only document of `text`; none where there is nothing but comments.
pub(crate) fn parse(text: &str) -> Result<Option<Rc<Node>>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = text.find('\0') {
        // The parser would take it for the end; file systems leave such files after a crash.
        let message = "holds a NUL byte: this is not text, or was not written to its end";
        return Err(Fault::new(line_of(text, at), message));
    }
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| invalid(text, &error))?;
        builder.take(event, span)?;
    }
    Ok(builder.root)
}

/// The parser's error in words that help whoever wrote the file.
fn invalid(text: &str, error: &ScanError) -> Fault {
    let at = error.marker().line().clamp(1, text.lines().count().max(1));
    let info = error.info();
    if info.contains("recursion limit") {
        return too_deep(line(at));
    }
    let indented = |line: &str| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
    // The error is given for where the value began; the tab may be lines below.
    let tab = text.lines().enumerate().skip(at - 1).find(|(_, line)| indented(line));
    match tab {
        Some((index, _)) if info.contains("tab") => {
            Fault::new(line(index + 1), "is not valid YAML: it is indented with a tab; use spaces")
        }
        _ if info.contains("simple key expect") => {
            Fault::new(line(at), "is not valid YAML: a key is not followed by a colon and a space, here or just before")
        }
        _ => Fault::new(line(at), format!("is not valid YAML: {info}")),
    }
}

fn too_deep(line: u32) -> Fault {
    Fault::new(line, format!("is nested deeper than {MAX_DEPTH} levels"))
}

/// The line, from 1, of the byte `at`.
pub(crate) fn line_of(text: &str, at: usize) -> u32 {
    line(text.as_bytes().iter().take(at).filter(|&&b| b == b'\n').count() + 1)
}

fn line(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

/// A collection that is still open.
struct Frame {
    line: u32,
    start: usize,
    anchor: usize,
    items: Vec<Rc<Node>>,
    is_map: bool,
}

#[derive(Default)]
struct Builder {
    open: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let line = line(span.start.line());
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents == 1 {
                    return Ok(());
                }
                Err(Fault::new(line, "a second document begins here; put everything into one, without `---` between"))
            }
            Event::SequenceStart(anchor, _) => self.open(span, anchor, false),
            Event::MappingStart(anchor, _) => self.open(span, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(frame) => self.close(frame, span),
                None => Ok(()),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let kind = kind_of(&text, style, tag.as_ref());
                let data = Data::Scalar { text: text.into_owned(), kind };
                let (span, style) = (span.start.index()..span.end.index(), style_of(style));
                self.add(Rc::new(Node { line, span, style, data, size: 1, height: 0 }), anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.add(Rc::clone(node), 0),
                None => Err(Fault::new(line, "an alias within the value that it stands for")),
            },
        }
    }

    fn open(&mut self, span: Span, anchor: usize, is_map: bool) -> Result<(), Fault> {
        let (line, start) = (line(span.start.line()), span.start.index());
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(line));
        }
        self.open.push(Frame { line, start, anchor, items: Vec::new(), is_map });
        Ok(())
    }

    fn close(&mut self, frame: Frame, end: Span) -> Result<(), Fault> {
        let Frame { line, start, anchor, items, is_map } = frame;
        // Only a bracket takes up room; white space after it belongs to the span as well.
        let (style, end) = if end.is_empty() {
            (Style::Block, items.last().map_or(start, |last| last.span.end))
        } else {
            (Style::Flow, end.start.index() + 1)
        };
        let size = items.iter().map(|n| n.size).fold(1, usize::saturating_add);
        let height = 1 + items.iter().map(|n| n.height).max().unwrap_or(0);
        let data = if is_map {
            let mut items = items.into_iter();
            Data::Map(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
        } else {
            Data::List(items)
        };
        self.add(Rc::new(Node { line, span: start..end, style, data, size, height }), anchor)
    }

    fn add(&mut self, node: Rc<Node>, anchor: usize) -> Result<(), Fault> {
        // A collection's own nodes were counted when they came; an alias brings all of its nodes again.
        let known = matches!(node.data, Data::Scalar { .. }) || Rc::strong_count(&node) == 1;
        self.nodes = self.nodes.saturating_add(if known { 1 } else { node.size });
        if self.nodes > MAX_NODES {
            return Err(Fault::new(node.line, format!("more than {MAX_NODES} values, counting what aliases repeat")));
        }
        if self.open.len() + node.height > MAX_DEPTH {
            return Err(too_deep(node.line));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        match self.open.last_mut() {
            Some(frame) => frame.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::Quoted('\''),
        ScalarStyle::DoubleQuoted => Style::Quoted('"'),
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    }
}

fn kind_of(text: &str, style: ScalarStyle, tag: Option<&Cow<'_, Tag>>) -> Kind {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Kind::Text,
        // The non-specific tag `!` means text.
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Kind::Text,
        Some(_) => Kind::Tagged,
        None if style == ScalarStyle::Plain => plain_kind(text),
        None => Kind::Text,
    }
}
