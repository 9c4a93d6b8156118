//! The handful of blocks that are used, each within Slack's limits whatever it is made of:
//! <https://docs.slack.dev/reference/block-kit/>. What is too long is cut with `…`; what are too many are left out.

use serde::Serialize;
use serde_json::{Value, json};

use super::text::{cut, number};

/// Of a message.
const MESSAGE_BLOCKS: usize = 50;
/// Letters of all blocks of a message. Slack does not say where it ends; it answers `msg_blocks_too_long` somewhat above 13,000.
const MESSAGE_LETTERS: usize = 10_000;
/// Of a section or a line of small print.
const SECTION: usize = 3000;
/// Of a window.
const VIEW_BLOCKS: usize = 100;
/// In a menu.
pub(crate) const OPTIONS: usize = 100;
/// A menu's option can not have a longer value, which can not be cut.
pub(crate) const OPTION_VALUE: usize = 150;
/// Text beside the blocks, for notifications.
const FALLBACK: usize = 3000;

/// What is shown one below the other.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    Header { text: Text },
    Section { text: Text },
    Context { elements: Vec<Text> },
    Actions { elements: Vec<Button> },
    Input(Box<Input>),
}

/// Text, with Slack's markup or without.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Text {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
    /// Names of channels and people, and addresses, stay what they are: text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    verbatim: bool,
}

fn plain(text: impl Into<String>, most: usize) -> Text {
    Text { kind: "plain_text", text: full(cut(text, most)), verbatim: false }
}

fn markup(text: impl Into<String>, most: usize) -> Text {
    Text { kind: "mrkdwn", text: full(cut(text, most)), verbatim: true }
}

/// Text must not be empty.
fn full(text: String) -> String {
    if text.trim().is_empty() { "–".to_owned() } else { text }
}

pub(crate) fn header(text: impl Into<String>) -> Block {
    Block::Header { text: plain(text, 150) }
}

/// With markup: what comes from others is escaped by [`super::text::Esc`] before.
pub(crate) fn section(text: impl Into<String>) -> Block {
    Block::Section { text: markup(text, SECTION) }
}

/// Small print, with markup.
pub(crate) fn context(text: impl Into<String>) -> Block {
    Block::Context { elements: vec![markup(text, SECTION)] }
}

/// Lines with markup, in as few sections as they fit, with so many letters together; the lines beyond are counted.
pub(crate) fn lines(all: &[String], letters: usize) -> Vec<Block> {
    // For the count of the rest.
    let room = letters.saturating_sub(40);
    let (mut sections, mut used): (Vec<String>, usize) = (Vec::new(), 0);
    for (index, line) in all.iter().enumerate() {
        let line = cut(&**line, (SECTION - 200).min(room - 1));
        let length = line.encode_utf16().count() + 1;
        if used + length > room {
            let rest = format!("… and {} more", number((all.len() - index) as u64));
            if let Some(last) = sections.last_mut() {
                last.push_str(&format!("\n{rest}"));
            }
            break;
        }
        used += length;
        match sections.last_mut() {
            Some(last) if last.encode_utf16().count() + length < SECTION - 100 => {
                last.push('\n');
                last.push_str(&line);
            }
            _ => sections.push(line),
        }
    }
    sections.into_iter().map(section).collect()
}

/// A button. What it means is in its id; its value says of what.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Button {
    #[serde(rename = "type")]
    kind: &'static str,
    action_id: &'static str,
    text: Text,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    style: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<Confirm>,
}

#[derive(Debug, Clone, Serialize)]
struct Confirm {
    title: Text,
    text: Text,
    confirm: Text,
    deny: Text,
}

/// The value is an id of ours, shorter than the limit of 2,000.
pub(crate) fn button(action_id: &'static str, text: &str, value: String) -> Button {
    Button { kind: "button", action_id, text: plain(text, 75), value: cut(value, 2000), style: None, confirm: None }
}

impl Button {
    pub(crate) fn primary(self) -> Self {
        Self { style: Some("primary"), ..self }
    }

    pub(crate) fn danger(self) -> Self {
        Self { style: Some("danger"), ..self }
    }

    /// Asks again.
    pub(crate) fn confirm(self, title: &str, text: &str, yes: &str) -> Self {
        let confirm = Confirm {
            title: plain(title, 100),
            text: plain(text, 300),
            confirm: plain(yes, 30),
            deny: plain("Not now", 30),
        };
        Self { confirm: Some(confirm), ..self }
    }
}

/// Buttons side by side; none where there is none.
pub(crate) fn actions(elements: Vec<Button>) -> Option<Block> {
    (!elements.is_empty()).then(|| Block::Actions { elements: elements.into_iter().take(25).collect() })
}

/// A field of a window.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Input {
    block_id: String,
    label: Text,
    element: Element,
    optional: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dispatch_action: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Text>,
}

/// What a field is filled in with.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Element {
    StaticSelect {
        action_id: &'static str,
        options: Vec<Choice>,
        #[serde(skip_serializing_if = "Option::is_none")]
        initial_option: Option<Choice>,
    },
    ExternalSelect {
        action_id: &'static str,
        min_query_length: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        initial_option: Option<Choice>,
    },
    RadioButtons {
        action_id: &'static str,
        options: Vec<Choice>,
        initial_option: Choice,
    },
    Datetimepicker {
        action_id: &'static str,
    },
    PlainTextInput {
        action_id: &'static str,
        multiline: bool,
        max_length: u16,
    },
}

/// An option of a menu.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Choice {
    text: ChoiceText,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<ChoiceText>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ChoiceText {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
}

fn choice_text(text: &str) -> ChoiceText {
    ChoiceText { kind: "plain_text", text: full(cut(text, 75)) }
}

/// None where the value is too long to come back whole.
pub(crate) fn choice(text: &str, value: &str) -> Option<Choice> {
    let fits = (1..=OPTION_VALUE).contains(&value.len());
    fits.then(|| Choice { text: choice_text(text), value: value.to_owned(), description: None })
}

impl Choice {
    pub(crate) fn described(self, text: &str) -> Self {
        Self { description: Some(choice_text(text)), ..self }
    }
}

pub(crate) fn input(block_id: impl Into<String>, label: &str, element: Element) -> Input {
    let block_id = cut(block_id, 255);
    Input { block_id, label: plain(label, 2000), element, optional: false, dispatch_action: false, hint: None }
}

impl Input {
    pub(crate) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Tells at once what was chosen.
    pub(crate) fn dispatched(self) -> Self {
        Self { dispatch_action: true, ..self }
    }

    pub(crate) fn hint(self, text: &str) -> Self {
        Self { hint: Some(plain(text, 2000)), ..self }
    }
}

impl From<Input> for Block {
    fn from(input: Input) -> Self {
        Self::Input(Box::new(input))
    }
}

/// A menu of at most 100; none where there is nothing to choose from.
pub(crate) fn select(action_id: &'static str, options: Vec<Choice>, initial: Option<Choice>) -> Option<Element> {
    let options: Vec<_> = options.into_iter().take(OPTIONS).collect();
    let initial_option = initial.filter(|one| options.contains(one));
    (!options.is_empty()).then_some(Element::StaticSelect { action_id, options, initial_option })
}

/// What a message is made of, beside where it goes.
pub(crate) fn message(fallback: impl Into<String>, blocks: Vec<Block>) -> Value {
    let mut left = MESSAGE_LETTERS;
    let blocks: Vec<_> = blocks.into_iter().filter_map(|block| block.within(&mut left)).take(MESSAGE_BLOCKS).collect();
    json!({"text": full(cut(fallback, FALLBACK)), "blocks": blocks})
}

impl Block {
    /// As much of it as there is room for. Whoever makes a message keeps to its length, so that what is beyond can be counted; this
    /// is for what nobody has thought of.
    fn within(mut self, left: &mut usize) -> Option<Self> {
        let texts = match &mut self {
            Self::Header { text } | Self::Section { text } => std::slice::from_mut(text),
            Self::Context { elements } => &mut elements[..],
            Self::Actions { .. } | Self::Input(_) => return Some(self),
        };
        for text in texts {
            if *left < 2 {
                return None;
            }
            text.text = full(cut(std::mem::take(&mut text.text), *left));
            *left = left.saturating_sub(text.text.encode_utf16().count());
        }
        Some(self)
    }
}

/// A window with a field or more.
pub(crate) fn modal(callback_id: &str, title: &str, submit: &str, private: &str, blocks: Vec<Block>) -> Value {
    let blocks: Vec<_> = blocks.into_iter().take(VIEW_BLOCKS).collect();
    json!({
        "type": "modal", "callback_id": cut(callback_id, 255), "title": plain(title, 24), "submit": plain(submit, 24),
        "close": plain("Close", 24), "private_metadata": cut(private, 3000), "blocks": blocks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_exceeds_what_slack_takes() {
        let long = "x<".repeat(5000);
        let text =
            |block: &Block| serde_json::to_value(block).unwrap()["text"]["text"].as_str().unwrap().chars().count();
        assert_eq!((text(&header(&*long)), text(&section(&*long))), (148, 2998));
        let button = serde_json::to_value(button("a", &long, long.clone()).confirm(&long, &long, &long)).unwrap();
        assert!(button["text"]["text"].as_str().unwrap().len() <= 77);
        assert!(button["confirm"]["confirm"]["text"].as_str().unwrap().len() <= 32);
        assert_eq!(message(&*long, vec![header("a"); 99])["blocks"].as_array().unwrap().len(), 50);
        assert_eq!(modal("a", &long, "b", &long, vec![header("a"); 199])["blocks"].as_array().unwrap().len(), 100);
        assert_eq!(choice(&long, "v").unwrap().text.text.chars().count(), 74);
        assert_eq!(choice("a", &long), None);
        assert_eq!(choice("a", ""), None);
        assert_eq!(serde_json::to_value(section(" ")).unwrap()["text"]["text"], "–");
        let many = vec![choice("a", "b").unwrap(); 500];
        let Some(Element::StaticSelect { options, .. }) = select("a", many, None) else { panic!("a menu") };
        assert_eq!(options.len(), 100);
        assert!(select("a", Vec::new(), None).is_none() && actions(Vec::new()).is_none());
    }

    #[test]
    fn lines_are_counted_where_they_are_too_many() {
        let all: Vec<String> = (0..1000).map(|n| format!("line {n} {}", "x".repeat(50))).collect();
        for letters in [500, 2900, 3000, 9000] {
            let blocks = lines(&all, letters);
            let texts: Vec<_> = blocks.iter().map(text_of).collect();
            assert!(texts.iter().map(|text| text.encode_utf16().count()).sum::<usize>() <= letters, "{letters}");
            assert!(texts.iter().all(|text| text.encode_utf16().count() <= 3000), "{letters}");
            let shown = texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("line")).count();
            assert!(
                texts.last().unwrap().ends_with(&format!("… and {} more", number(1000 - shown as u64))),
                "{texts:?}"
            );
        }
        assert_eq!(lines(&all[..2], 3000).len(), 1);
        assert_eq!(text_of(&lines(&["x".repeat(9000)], 500)[0]).chars().count(), 459);
    }

    fn text_of(block: &Block) -> String {
        let Block::Section { text } = block else { panic!("a section") };
        text.text.clone()
    }

    #[test]
    fn a_message_has_no_more_letters_than_slack_takes_and_keeps_its_buttons() {
        let mut blocks = vec![section("x<".repeat(2000)); 20];
        blocks.extend(actions(vec![button("a", "b", "c".into())]));
        let message = message("m", blocks);
        let blocks = message["blocks"].as_array().unwrap();
        let letters = |block: &Value| block["text"]["text"].as_str().map_or(0, |text| text.encode_utf16().count());
        assert!((9900..=10_000).contains(&blocks.iter().map(letters).sum::<usize>()));
        assert_eq!(blocks.last().unwrap()["type"], "actions");
    }

    #[test]
    fn markup_makes_no_links_of_names() {
        let text = |block| serde_json::to_value(block).unwrap();
        assert_eq!(text(section("#shop"))["text"]["verbatim"], true);
        assert_eq!(text(context("@alice"))["elements"][0]["verbatim"], true);
        assert!(text(header("#shop"))["text"]["verbatim"].is_null(), "plain text has no such field");
    }
}
