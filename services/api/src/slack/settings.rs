//! How Slack is set: where it is, which channels and people there are, and what they may do.

use std::time::Duration;

use pgtenant_ledger::TokenRole;
use pgtenant_model::{InvalidField, check_label, is_slack_channel};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// Slack's own.
pub const SLACK_API_URL: &str = "https://slack.com/api/";

/// How Slack is set.
#[derive(Debug, Clone)]
pub struct SlackSettings {
    /// With which Slack signs what it sends.
    pub signing_secret: SecretString,
    /// Of the app's bot: `xoxb-…`.
    pub bot_token: SecretString,
    /// Where the Web API is; [`SLACK_API_URL`] but for tests.
    pub api_url: String,
    /// Where requests are approved, and where is told what needs the platform team. Without one they are approved where they were
    /// asked for, by those who may.
    pub platform_channel: Option<String>,
    /// Channels that are linked to namespaces.
    pub channels: Vec<SlackChannel>,
    /// People who may do more, or less, than others.
    pub users: Vec<SlackUser>,
    /// What all others may do in a channel that is linked to namespaces.
    pub unlisted: SlackUnlisted,
    /// Slack's id of the workspace whose people are meant; none: whoever can write in a channel.
    pub team: Option<String>,
    /// How fast messages go.
    pub pace: SlackPace,
}

/// A channel, and the namespaces that may be seen from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackChannel {
    /// Slack's id of it: `C0SHOP`.
    pub id: String,
    /// What claims may call it beside its id, as `orders`: people name channels, and Slack renames them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Whether it is told there what becomes of them; of a claim that names the channel it is told in any case.
    #[serde(default = "yes")]
    pub notify: bool,
}

fn yes() -> bool {
    true
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackUser {
    /// Slack's id of them: `U0ALICE`.
    pub id: String,
    /// What they may do, as tokens may.
    #[serde(default)]
    pub role: Option<TokenRole>,
    /// Where, for a tenant and a viewer.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// In place of a role: the name of the token that they have. They do what it may, and in its name.
    #[serde(default)]
    pub token: Option<String>,
}

/// What people may do in a linked channel whom the settings do not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlackUnlisted {
    /// Nothing.
    Nothing,
    /// Look.
    #[default]
    Viewer,
    /// What a tenant may.
    Tenant,
}

/// How fast messages go. The default is what Slack allows.
#[derive(Debug, Clone)]
pub struct SlackPace {
    /// Between two messages in a channel.
    pub rest: Duration,
    /// Between two changes of a message.
    pub update: Duration,
    /// Between two changes of a message that says how far a restore is.
    pub progress: Duration,
    /// Between two changes of any messages, of the whole workspace.
    pub updates: Duration,
    /// For how long news are gathered before they are told together.
    pub gather: Duration,
    /// After the first try that failed; twice as long after each further one.
    pub retry: Duration,
    /// The longest of these.
    pub longest_retry: Duration,
    /// The longest time for which everything waits while nothing comes through to Slack.
    pub longest_quiet: Duration,
    /// A message that could not be sent for so long is given up.
    pub give_up: Duration,
    /// For an answer of Slack.
    pub answer: Duration,
}

impl Default for SlackPace {
    /// About one message a second and channel, and 50 changes a minute:
    /// <https://docs.slack.dev/apis/web-api/rate-limits>.
    fn default() -> Self {
        Self {
            rest: Duration::from_millis(1100),
            update: Duration::from_secs(3),
            progress: Duration::from_secs(10),
            updates: Duration::from_millis(1200),
            gather: Duration::from_secs(4),
            retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(60),
            longest_quiet: Duration::from_secs(30),
            give_up: Duration::from_secs(86_400),
            answer: Duration::from_secs(10),
        }
    }
}

impl SlackSettings {
    /// What can not be used, by the setting's name below `slack`.
    #[must_use]
    pub fn problems(&self) -> Vec<InvalidField> {
        let mut problems = Vec::new();
        let mut say = |field: String, message: String| problems.push(InvalidField::new(&*field, message));
        for (field, secret) in [("signing_secret", &self.signing_secret), ("bot_token", &self.bot_token)] {
            if secret.expose_secret().trim().is_empty() {
                say(field.to_owned(), "is empty".to_owned());
            }
        }
        if !is_safe_url(&self.api_url) {
            say("api_url".to_owned(), format!("use a URL as {SLACK_API_URL}; http only on this machine"));
        }
        if self.team.as_ref().is_some_and(|id| !is_id(id, "TE")) {
            say("team".to_owned(), "use Slack's id of a workspace, as T012AB3CD".to_owned());
        }
        if self.platform_channel.as_ref().is_some_and(|id| !is_id(id, "CG")) {
            say("platform_channel".to_owned(), NO_CHANNEL.to_owned());
        }
        for (index, SlackChannel { id, name, namespaces, notify: _ }) in self.channels.iter().enumerate() {
            if !is_id(id, "CG") {
                say(format!("channels[{index}].id"), NO_CHANNEL.to_owned());
            }
            if self.channels[..index].iter().any(|other| other.id == *id) {
                say(format!("channels[{index}].id"), format!("{id} is there twice"));
            }
            if let Some(name) = name {
                let same = |other: &SlackChannel| other.name.as_ref().is_some_and(|other| is_same(other, name));
                if !is_slack_channel(name) {
                    say(format!("channels[{index}].name"), "use the channel's name, as orders".to_owned());
                } else if self.channels[..index].iter().any(same) {
                    say(format!("channels[{index}].name"), format!("{name} is there twice"));
                }
            }
            namespace_problems(namespaces, &format!("channels[{index}]"), &mut say);
        }
        for (index, user) in self.users.iter().enumerate() {
            user.problems(index, &self.users[..index], &mut say);
        }
        problems
    }

    /// Channels that are told what becomes of a namespace.
    pub(crate) fn told_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a str> {
        let linked = move |one: &&SlackChannel| one.notify && one.namespaces.iter().any(|each| each == namespace);
        self.channels.iter().filter(linked).map(|one| &*one.id)
    }

    /// The channel among those that are linked to a namespace that is called so: by its id, or by the name that it has here.
    pub(crate) fn linked_as(&self, namespace: &str, called: &str) -> Option<&str> {
        let linked = |one: &&SlackChannel| one.namespaces.iter().any(|each| each == namespace);
        let by_id = |one: &&SlackChannel| one.id == called.trim_start_matches('#');
        let by_name = |one: &&SlackChannel| one.name.as_ref().is_some_and(|name| is_same(name, called));
        let mut all = self.channels.iter().filter(linked);
        let found = all.clone().find(by_id).or_else(|| all.find(by_name));
        found.map(|one| &*one.id)
    }

    /// Whether it is the platform's channel.
    pub(crate) fn is_platform(&self, channel: &str) -> bool {
        self.platform_channel.as_deref() == Some(channel)
    }

    /// Whether what is in a namespace may be seen in a channel.
    pub(crate) fn covers(&self, channel: &str, namespace: &str) -> bool {
        let linked = |one: &SlackChannel| one.id == channel && one.namespaces.iter().any(|each| each == namespace);
        self.is_platform(channel) || self.channels.iter().any(linked)
    }
}

impl SlackUser {
    fn problems(&self, index: usize, before: &[Self], say: &mut impl FnMut(String, String)) {
        let Self { id, role, namespaces, token } = self;
        let mut say = |field: &str, message: &str| say(format!("users[{index}].{field}"), message.to_owned());
        if !is_id(id, "UW") {
            say("id", "use Slack's id of a person, as U012AB3CD: it is in their profile, under `Copy member ID`");
        }
        if before.iter().any(|other| other.id == *id) {
            say("id", &format!("{id} is there twice"));
        }
        match (role, token) {
            (Some(_), Some(_)) => say("role", "give a role or a token, not both"),
            (None, None) => say("role", "give a role, or the name of the person's token"),
            (None, Some(token)) => {
                if !namespaces.is_empty() {
                    say("namespaces", "leave them out: the token has its own");
                }
                // Two people with one token would be one: neither could approve what the other has asked for.
                if before.iter().any(|other| other.token.as_ref() == Some(token)) {
                    say("token", &format!("{token:?} is somebody else's"));
                }
            }
            (Some(TokenRole::Platform), None) => {
                if !namespaces.is_empty() {
                    say("namespaces", "role platform has no namespaces");
                }
            }
            (Some(_), None) => namespace_problems(namespaces, "", &mut |field: String, why: String| {
                say(field.trim_start_matches('.'), &why);
            }),
        }
    }
}

/// The token goes with every request: in clear only where nobody is in between.
fn is_safe_url(text: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(text) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !host.is_empty() && (url.scheme() == "https" || url.scheme() == "http" && here)
}

/// Whether two names mean one channel.
fn is_same(one: &str, other: &str) -> bool {
    let plain = |name: &str| name.trim_start_matches('#').to_lowercase();
    plain(one) == plain(other)
}

const NO_CHANNEL: &str =
    "use Slack's id of a channel, as C012AB3CD: it is at the end of the channel's details; a name is none";

fn namespace_problems(namespaces: &[String], path: &str, say: &mut impl FnMut(String, String)) {
    if namespaces.is_empty() {
        say(format!("{path}.namespaces"), "name at least one".to_owned());
    }
    for namespace in namespaces {
        if let Err(error) = check_label("namespace", namespace) {
            say(format!("{path}.namespaces"), error.to_string());
        }
    }
}

/// Whether a text is one of Slack's ids that begins with one of these letters.
pub(crate) fn is_id(text: &str, kinds: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    text.len() <= 32 && text.len() > 1 && text.starts_with(|first| kinds.contains(first)) && text.bytes().all(rest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    pub(in crate::slack) fn settings() -> SlackSettings {
        let channel = |id: &str, namespaces: &[&str], notify| SlackChannel {
            id: id.to_owned(),
            name: None,
            namespaces: names(namespaces),
            notify,
        };
        let user = |id: &str, role, namespaces: &[&str]| SlackUser {
            id: id.to_owned(),
            role: Some(role),
            namespaces: names(namespaces),
            token: None,
        };
        SlackSettings {
            signing_secret: "8f742231b10e8888abcd99yyyzzz85a5".into(),
            bot_token: "xoxb-1".into(),
            api_url: SLACK_API_URL.to_owned(),
            platform_channel: Some("C0PLATFORM".to_owned()),
            channels: vec![
                channel("C0SHOP", &["shop", "shop-dev"], true),
                channel("C0QUIET", &["shop"], false),
                channel("C0OTHER", &["other"], true),
            ],
            users: vec![
                user("U0ALICE", TokenRole::Platform, &[]),
                user("U0TENANT", TokenRole::Tenant, &["shop"]),
                user("U0VIEWER", TokenRole::Viewer, &["shop", "other"]),
            ],
            unlisted: SlackUnlisted::default(),
            team: None,
            pace: SlackPace::default(),
        }
    }

    #[test]
    fn only_channels_that_want_it_are_told() {
        assert_eq!(settings().told_of("shop").collect::<Vec<_>>(), ["C0SHOP"]);
        assert_eq!(settings().told_of("nowhere").count(), 0);
        assert!(settings().covers("C0QUIET", "shop") && settings().covers("C0PLATFORM", "nowhere"));
        assert!(!settings().covers("C0QUIET", "shop-dev") && !settings().covers("C0GONE", "shop"));
    }

    #[test]
    fn settings_that_can_not_be_meant_are_refused() {
        assert_eq!(settings().problems(), []);
        let mut wrong = settings();
        wrong.platform_channel = Some("#platform".to_owned());
        wrong.api_url = "slack.com".to_owned();
        wrong.bot_token = " ".into();
        wrong.channels[1].id = "C0SHOP".to_owned();
        wrong.channels[0].name = Some("#shop".to_owned());
        wrong.channels[1].name = Some("Shop".to_owned());
        wrong.channels[2].name = Some("a b".to_owned());
        wrong.channels[2].namespaces = names(&["A b"]);
        wrong.users[0].namespaces = names(&["shop"]);
        wrong.users[1].namespaces = Vec::new();
        wrong.users[2].id = "@alice".to_owned();
        let fields: Vec<_> = wrong.problems().into_iter().map(|one| one.field).collect();
        let expected = [
            "bot_token",
            "api_url",
            "platform_channel",
            "channels[1].id",
            "channels[1].name",
            "channels[2].name",
            "channels[2].namespaces",
            "users[0].namespaces",
            "users[1].namespaces",
            "users[2].id",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_person_has_a_role_or_a_token_of_their_own() {
        let said = |change: &dyn Fn(&mut SlackSettings)| {
            let mut settings = settings();
            change(&mut settings);
            settings.problems().into_iter().map(|one| one.field).collect::<Vec<_>>()
        };
        let token = |user: &mut SlackUser, name: &str| {
            *user = SlackUser { role: None, namespaces: Vec::new(), token: Some(name.into()), ..user.clone() };
        };
        assert_eq!(said(&|all| token(&mut all.users[0], "alice")), [""; 0]);
        assert_eq!(said(&|all| all.users[0].token = Some("alice".into())), ["users[0].role"]);
        assert_eq!(said(&|all| all.users[0].role = None), ["users[0].role"]);
        let twice = |all: &mut SlackSettings| (0..2).for_each(|at| token(&mut all.users[at], "alice"));
        assert_eq!(said(&twice), ["users[1].token"]);
    }

    #[test]
    fn a_token_goes_in_clear_nowhere_but_here() {
        for good in ["https://slack.com/api/", "http://127.0.0.1:9/", "http://localhost/api/", "http://[::1]:9/"] {
            assert!(is_safe_url(good), "{good}");
        }
        for bad in ["http://slack.com/api/", "http://127.0.0.1.example/", "slack.com", "ftp://localhost/", "https://"] {
            assert!(!is_safe_url(bad), "{bad}");
        }
    }
}
