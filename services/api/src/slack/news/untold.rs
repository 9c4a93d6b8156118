//! What a channel has not been told yet.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::slack::blocks::{context, lines, message};

/// News that a channel is told at once at most; the oldest are only counted then.
const MOST_UNTOLD: usize = 200;
/// Letters of a message.
const LETTERS: usize = 9000;

/// What a channel has not been told yet: a message's content until it is rendered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Untold {
    news: Vec<Line>,
    /// How many there were before these.
    #[serde(default)]
    more: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    topic: String,
    line: String,
}

impl Untold {
    /// Only how it ended is told of what changed back and forth meanwhile.
    pub(super) fn put(&mut self, topic: String, line: String) {
        self.news.retain(|one| one.topic != topic);
        self.news.push(Line { topic, line });
        let surplus = self.news.len().saturating_sub(MOST_UNTOLD);
        self.news.drain(..surplus);
        self.more += surplus;
    }
}

/// The message, where a content is of news.
pub(in crate::slack) fn rendered(content: &Value) -> Option<Value> {
    let Untold { news, more } = Untold::deserialize(content).ok()?;
    let all: Vec<_> = news.into_iter().map(|one| one.line).collect();
    let fallback =
        if let [only] = &*all { only.clone() } else { format!("{} news of your databases", all.len() + more) };
    let mut blocks = lines(&all, LETTERS);
    if more > 0 {
        blocks.push(context(format!("Before these there were {more} more, which nobody could be told.")));
    }
    Some(message(fallback, blocks))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_waits_to_be_told_is_bounded_and_has_only_how_it_ended() {
        let mut untold = Untold::default();
        for n in 0..500 {
            untold.put(format!("state:shop/db-{}", n % 300), format!("line {n}"));
        }
        assert_eq!((untold.news.len(), untold.news[199].line.as_str()), (200, "line 499"));
        let shown = rendered(&serde_json::to_value(&untold).unwrap()).unwrap().to_string();
        assert!(shown.contains("line 499") && shown.contains(&format!("were {} more", untold.more)), "{shown}");
        assert_eq!(rendered(&json!({"text": "x", "blocks": []})), None);
    }
}
