//! What Slack takes: <https://docs.slack.dev/reference/block-kit/>. A kind of block or element that pgtenant does not use is refused.

use std::collections::BTreeSet;

use serde_json::Value;

/// Of all blocks of a message together. Slack does not document it; it was seen to refuse a little more than this.
const MESSAGE_LETTERS: usize = 13_000;

/// What is wrong with a message.
pub(super) fn message(message: &Value) -> Vec<String> {
    let mut check = Check::default();
    check.text_length(&message["text"], "text", 1, 40_000);
    check.mentions(message["text"].as_str().unwrap_or_default());
    check.blocks(&message["blocks"], 50, false);
    check.that(check.letters <= MESSAGE_LETTERS, &format!("msg_blocks_too_long: {} letters", check.letters));
    check.problems
}

/// What is wrong with a window.
pub(super) fn view(view: &Value) -> Vec<String> {
    let mut check = Check::default();
    check.that(view["type"] == "modal", "a view is a modal");
    for field in ["title", "submit", "close"] {
        check.text(&view[field], field, 24, &["plain_text"]);
    }
    check.text_length(&view["private_metadata"], "private_metadata", 0, 3000);
    check.text_length(&view["callback_id"], "callback_id", 1, 255);
    check.blocks(&view["blocks"], 100, true);
    check.problems
}

/// What is wrong with the options of a menu.
pub(super) fn options(options: &Value) -> Vec<String> {
    let mut check = Check::default();
    check.options(options, 0, 100);
    check.problems
}

#[derive(Default)]
struct Check {
    problems: Vec<String>,
    blocks: BTreeSet<String>,
    /// Of all texts so far.
    letters: usize,
}

impl Check {
    fn that(&mut self, holds: bool, what: &str) {
        if !holds {
            self.problems.push(what.to_owned());
        }
    }

    fn text_length(&mut self, value: &Value, what: &str, least: usize, most: usize) {
        let length = value.as_str().map(|text| text.encode_utf16().count());
        let fits = length.is_some_and(|length| (least..=most).contains(&length));
        self.that(fits, &format!("{what} has {length:?} letters, not {least} to {most}: {value}"));
    }

    fn text(&mut self, value: &Value, what: &str, most: usize, kinds: &[&str]) {
        self.that(
            value["type"].as_str().is_some_and(|kind| kinds.contains(&kind)),
            &format!("{what}: not {kinds:?}: {value}"),
        );
        self.text_length(&value["text"], what, 1, most);
        self.letters += value["text"].as_str().map_or(0, |text| text.encode_utf16().count());
        if value["type"] == "mrkdwn" {
            // Otherwise Slack makes links of names and addresses that others have written.
            self.that(value["verbatim"] == true, &format!("{what}: mrkdwn is not verbatim: {value}"));
            self.mentions(value["text"].as_str().unwrap_or_default());
        }
    }

    /// pgtenant mentions one person or channel by id and shows times; all else in angle brackets came from somebody.
    fn mentions(&mut self, text: &str) {
        for part in text.split('<').skip(1) {
            let inner = part.split('>').next().unwrap_or_default();
            let ours = ["@U", "@W", "#C", "!date^"].iter().any(|start| inner.starts_with(start)) && part.contains('>');
            self.that(ours, &format!("<{inner}> is in a text"));
        }
        for part in text.split('&').skip(1) {
            let entity = ["amp;", "lt;", "gt;"].iter().any(|entity| part.starts_with(entity));
            self.that(entity, &format!("an & is not escaped: &{part}"));
        }
    }

    fn blocks(&mut self, blocks: &Value, most: usize, modal: bool) {
        let Some(blocks) = blocks.as_array() else { return self.that(false, "there are no blocks") };
        self.that((1..=most).contains(&blocks.len()), &format!("{} blocks", blocks.len()));
        for block in blocks {
            self.block(block, modal);
        }
    }

    fn block(&mut self, block: &Value, modal: bool) {
        if let Some(id) = block["block_id"].as_str() {
            self.text_length(&block["block_id"], "block_id", 1, 255);
            let fresh = self.blocks.insert(id.to_owned());
            self.that(fresh, &format!("block_id {id} is there twice"));
        }
        match block["type"].as_str() {
            Some("header") => self.text(&block["text"], "header", 150, &["plain_text"]),
            Some("section") => self.text(&block["text"], "section", 3000, &["plain_text", "mrkdwn"]),
            Some("context") => {
                let elements = block["elements"].as_array().cloned().unwrap_or_default();
                self.that((1..=10).contains(&elements.len()), "a context has 1 to 10 elements");
                elements.iter().for_each(|text| self.text(text, "context", 3000, &["plain_text", "mrkdwn"]));
            }
            Some("actions") => {
                let elements = block["elements"].as_array().cloned().unwrap_or_default();
                self.that((1..=25).contains(&elements.len()), "actions have 1 to 25 elements");
                let ids: BTreeSet<_> = elements.iter().map(|one| one["action_id"].to_string()).collect();
                self.that(ids.len() == elements.len(), "an action_id is there twice in a block");
                elements.iter().for_each(|button| self.button(button));
            }
            Some("input") if modal => {
                self.text(&block["label"], "label", 2000, &["plain_text"]);
                if !block["hint"].is_null() {
                    self.text(&block["hint"], "hint", 2000, &["plain_text"]);
                }
                self.element(&block["element"]);
            }
            other => self.that(false, &format!("a block of type {other:?}")),
        }
    }

    fn button(&mut self, button: &Value) {
        self.that(button["type"] == "button", "actions hold buttons");
        self.text_length(&button["action_id"], "action_id", 1, 255);
        self.text(&button["text"], "button", 75, &["plain_text"]);
        self.text_length(&button["value"], "value", 1, 2000);
        let style = &button["style"];
        self.that(style.is_null() || style == "primary" || style == "danger", "style of a button");
        let confirm = &button["confirm"];
        if !confirm.is_null() {
            self.text(&confirm["title"], "confirm.title", 100, &["plain_text"]);
            self.text(&confirm["text"], "confirm.text", 300, &["plain_text", "mrkdwn"]);
            self.text(&confirm["confirm"], "confirm.confirm", 30, &["plain_text"]);
            self.text(&confirm["deny"], "confirm.deny", 30, &["plain_text"]);
        }
    }

    fn element(&mut self, element: &Value) {
        self.text_length(&element["action_id"], "action_id", 1, 255);
        let initial = &element["initial_option"];
        match element["type"].as_str() {
            Some("static_select") => self.options(&element["options"], 1, 100),
            Some("radio_buttons") => self.options(&element["options"], 1, 10),
            Some("external_select") => {
                if !initial.is_null() {
                    self.option(initial);
                }
                return;
            }
            Some("datetimepicker") => {}
            Some("plain_text_input") => {
                self.that(element["max_length"].as_u64().is_none_or(|most| (1..=3000).contains(&most)), "max_length");
            }
            other => self.that(false, &format!("an element of type {other:?}")),
        }
        if !initial.is_null() {
            let among = element["options"].as_array().is_some_and(|all| all.contains(initial));
            self.that(among, "initial_option is none of the options");
        }
    }

    fn options(&mut self, options: &Value, least: usize, most: usize) {
        let Some(options) = options.as_array() else { return self.that(false, "options are a list") };
        self.that(
            (least..=most).contains(&options.len()),
            &format!("{} options, not {least} to {most}", options.len()),
        );
        let values: BTreeSet<_> = options.iter().map(|one| one["value"].to_string()).collect();
        self.that(values.len() == options.len(), "a value is there twice");
        options.iter().for_each(|option| self.option(option));
    }

    fn option(&mut self, option: &Value) {
        self.text(&option["text"], "option", 75, &["plain_text"]);
        self.text_length(&option["value"], "option.value", 1, 150);
        if !option["description"].is_null() {
            self.text(&option["description"], "option.description", 75, &["plain_text"]);
        }
    }
}
