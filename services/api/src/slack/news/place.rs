//! Where the news of a claim go. Pure.

use std::collections::BTreeSet;

use pgtenant_model::Event;

use super::words::Topic;
use crate::slack::settings::SlackSettings;
use crate::slack::text::Esc;

/// The channels that are told of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::slack) struct Place<'a> {
    /// By Slack's ids.
    pub(in crate::slack) channels: BTreeSet<&'a str>,
    /// The channel that the claim names and may not write in.
    pub(in crate::slack) refused: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// The channel that a claim of `namespace` names, if it is one of those that are linked to it, and else all of these: nobody
    /// writes in another team's channel by naming it.
    pub(in crate::slack) fn of(settings: &'a SlackSettings, namespace: &'a str, wanted: Option<&'a str>) -> Self {
        match wanted.map(|wanted| (wanted, settings.linked_as(namespace, wanted))) {
            Some((_, Some(channel))) => Self { channels: BTreeSet::from([channel]), refused: None },
            other => Self { channels: settings.told_of(namespace).collect(), refused: other.map(|(wanted, _)| wanted) },
        }
    }

    /// What to say of the channel that was refused.
    pub(in crate::slack) fn finding(&self, namespace: &str) -> Option<String> {
        let wanted = Esc(self.refused?.replace('`', "'")).to_string();
        Some(format!("`{wanted}` is not a channel that the platform team has linked to `{}`", Esc(namespace)))
    }
}

/// Something to be told of.
pub(super) struct Subject<'a> {
    /// What it is called.
    pub(super) of: String,
    /// None: a cluster.
    pub(super) namespace: Option<&'a str>,
    pub(super) place: Place<'a>,
    /// What happened.
    pub(super) events: Vec<&'a Event>,
}

impl Subject<'_> {
    /// Whether a channel is told: clusters, and backups that fail, are the platform team's.
    pub(super) fn concerns(&self, settings: &SlackSettings, channel: &str, topic: Topic) -> bool {
        let theirs = self.namespace.is_none() || matches!(topic, Topic::Dump | Topic::Trial);
        theirs && settings.is_platform(channel) || self.place.channels.contains(channel)
    }

    /// Whether a channel is told now, or may have been before.
    pub(super) fn may_concern(&self, settings: &SlackSettings, channel: &str) -> bool {
        settings.is_platform(channel) || self.namespace.is_some_and(|namespace| settings.covers(channel, namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slack::settings::tests::settings;

    #[test]
    fn a_claim_names_one_of_the_channels_of_its_namespace() {
        let mut settings = settings();
        settings.channels[1].name = Some("#Orders".to_owned());
        settings.channels[2].name = Some("other".to_owned());
        let of = |wanted| {
            let place = Place::of(&settings, "shop", wanted);
            (place.channels.into_iter().collect::<Vec<_>>().join(" "), place.refused)
        };
        assert_eq!(of(None), ("C0SHOP".to_owned(), None));
        for own in ["#orders", "orders", "ORDERS", "C0QUIET", "#C0QUIET"] {
            assert_eq!(of(Some(own)), ("C0QUIET".to_owned(), None), "{own}");
        }
        for foreign in ["#other", "C0OTHER", "C0PLATFORM", "#nowhere", "c0quiet", ""] {
            assert_eq!(of(Some(foreign)), ("C0SHOP".to_owned(), Some(foreign)), "{foreign}");
        }
        let nowhere = Place::of(&settings, "nowhere", Some("#or`<!here>"));
        assert!(nowhere.channels.is_empty());
        let said = nowhere.finding("nowhere").unwrap();
        assert_eq!(said, "`#or'&lt;!here&gt;` is not a channel that the platform team has linked to `nowhere`");
    }
}
