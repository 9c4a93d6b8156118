//! What Slack sends when somebody presses or fills in something, as far as it is read:
//! <https://docs.slack.dev/reference/interaction-payloads/>.

use std::collections::HashMap;

use serde::Deserialize;

use super::standing::Person;

/// An interaction.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Payload {
    BlockActions(BlockActions),
    ViewSubmission(ViewSubmission),
    BlockSuggestion(BlockSuggestion),
    /// Nothing that we ask for.
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(super) struct BlockActions {
    #[serde(flatten)]
    pub(super) sender: Sender,
    pub(super) channel: Option<Id>,
    pub(super) view: Option<View>,
    #[serde(default)]
    pub(super) actions: Vec<Action>,
    #[serde(default)]
    pub(super) response_url: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ViewSubmission {
    #[serde(flatten)]
    pub(super) sender: Sender,
    pub(super) view: View,
}

#[derive(Debug, Deserialize)]
pub(super) struct BlockSuggestion {
    #[serde(flatten)]
    pub(super) sender: Sender,
    pub(super) view: Option<View>,
    #[serde(default)]
    pub(super) action_id: String,
    /// What was typed.
    #[serde(default)]
    pub(super) value: String,
}

/// Who sends it, and of which workspace.
#[derive(Debug, Deserialize)]
pub(super) struct Sender {
    user: User,
    team: Option<Id>,
}

#[derive(Debug, Deserialize)]
struct User {
    id: String,
    #[serde(default)]
    team_id: String,
}

impl Sender {
    pub(super) fn person(&self) -> Person<'_> {
        let team = self.team.as_ref().map_or("", |team| &*team.id);
        Person { user: &self.user.id, teams: [team, &self.user.team_id] }
    }
}

/// Of a channel or a workspace.
#[derive(Debug, Deserialize)]
pub(super) struct Id {
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Action {
    pub(super) action_id: String,
    #[serde(default)]
    pub(super) value: String,
    pub(super) selected_option: Option<Selected>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Selected {
    pub(super) value: String,
}

/// A window.
#[derive(Debug, Deserialize)]
pub(super) struct View {
    pub(super) id: String,
    #[serde(default)]
    pub(super) callback_id: String,
    #[serde(default)]
    pub(super) private_metadata: String,
    #[serde(default)]
    pub(super) state: State,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct State {
    #[serde(default)]
    values: HashMap<String, HashMap<String, Filled>>,
}

/// A field that was filled in, or not.
#[derive(Debug, Deserialize)]
pub(super) struct Filled {
    selected_option: Option<Selected>,
    selected_date_time: Option<i64>,
    value: Option<String>,
}

impl State {
    /// The block in which an element is, and what it holds.
    fn filled(&self, action: &str) -> Option<(&str, &Filled)> {
        self.values.iter().find_map(|(block, elements)| Some((&**block, elements.get(action)?)))
    }

    /// Whether the window has this field.
    pub(super) fn has(&self, block: &str) -> bool {
        self.values.contains_key(block)
    }

    /// The block of a menu, and what is chosen in it.
    pub(super) fn chosen(&self, action: &str) -> Option<(&str, &str)> {
        let (block, filled) = self.filled(action)?;
        Some((block, &*filled.selected_option.as_ref()?.value))
    }

    /// Text that is not empty.
    pub(super) fn typed(&self, action: &str) -> Option<&str> {
        let text = self.filled(action)?.1.value.as_deref()?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// Seconds since 1970.
    pub(super) fn instant(&self, action: &str) -> Option<i64> {
        self.filled(action)?.1.selected_date_time
    }
}
