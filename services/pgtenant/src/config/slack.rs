//! The settings of Slack, and what the door makes of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Config, Value};
use pgtenant_api::{SlackChannel, SlackPace, SlackSettings, SlackUnlisted, SlackUser};
use secrecy::SecretString;
use serde::Deserialize;

use super::{InvalidSettings, Problem, UnreadableSecret, defaults, env, place_of, read_secret, table};

/// `[slack]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlackSection {
    /// With which Slack signs; see [`SlackSection::settings`].
    signing_secret: Option<SecretString>,
    /// Its first line is the signing secret.
    pub(super) signing_secret_file: Option<PathBuf>,
    /// Of the app's bot.
    bot_token: Option<SecretString>,
    /// Its first line is the bot's token.
    pub(super) bot_token_file: Option<PathBuf>,
    /// Where the Web API is.
    api_url: String,
    /// Where requests are approved.
    platform_channel: Option<String>,
    /// Channels and their namespaces.
    #[serde(default)]
    channels: Vec<SlackChannel>,
    /// People and what they may do.
    #[serde(default)]
    users: Vec<SlackUser>,
    /// What all others may do.
    #[serde(default)]
    unlisted: SlackUnlisted,
    /// Whose people they are.
    team: Option<String>,
}

/// Connections to the ledger that replicas with Slack need at least: one more of them listens.
const LEAST_CONNECTIONS: u32 = 6;

impl SlackSection {
    /// What the door is given; none: there is no Slack.
    ///
    /// # Errors
    /// Which file can not be read.
    pub(crate) fn settings(&self) -> Result<Option<SlackSettings>, UnreadableSecret> {
        let signing_secret = secret(self.signing_secret.as_ref(), self.signing_secret_file.as_deref())?;
        let bot_token = secret(self.bot_token.as_ref(), self.bot_token_file.as_deref())?;
        Ok(signing_secret.zip(bot_token).map(|(signing_secret, bot_token)| self.with(signing_secret, bot_token)))
    }

    fn with(&self, signing_secret: SecretString, bot_token: SecretString) -> SlackSettings {
        SlackSettings {
            signing_secret,
            bot_token,
            api_url: self.api_url.clone(),
            platform_channel: self.platform_channel.clone(),
            channels: self.channels.clone(),
            users: self.users.clone(),
            unlisted: self.unlisted,
            team: self.team.clone(),
            pace: SlackPace::default(),
        }
    }

    /// Whether there are too few connections for one more that listens.
    pub(super) fn connection_problem(&self, merged: &Value, connections: u32) -> Option<Problem> {
        let set = self.signing_secret.is_some() || self.signing_secret_file.is_some();
        let key = "ledger.max_connections";
        let message = || format!("must be {LEAST_CONNECTIONS} or more with Slack, for which one of them listens");
        (set && connections < LEAST_CONNECTIONS).then(|| Problem::new(&place_of(merged, key), key, message()))
    }

    /// What can not be used, without a look at files.
    pub(super) fn problems(&self, merged: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |key: &str, message: String| {
            let key = format!("slack.{key}");
            problems.push(Problem::new(&place_of(merged, &key), &key, message));
        };
        let signing = (&self.signing_secret, &self.signing_secret_file, "signing_secret");
        let token = (&self.bot_token, &self.bot_token_file, "bot_token");
        let given = [signing, token].map(|(secret, file, key)| {
            if secret.is_some() && file.is_some() {
                say(key, format!("is set beside slack.{key}_file; keep one"));
            }
            secret.is_some() || file.is_some()
        });
        match given {
            [true, false] => say("bot_token", "must be set beside slack.signing_secret".to_owned()),
            [false, true] => say("signing_secret", "must be set beside slack.bot_token".to_owned()),
            _ => {}
        }
        // The secrets themselves are looked at when they are read.
        for problem in self.with("x".into(), "x".into()).problems() {
            say(&problem.field, problem.message);
        }
        problems
    }
}

fn secret(given: Option<&SecretString>, file: Option<&Path>) -> Result<Option<SecretString>, UnreadableSecret> {
    file.map_or_else(|| Ok(given.cloned()), |file| read_secret(file).map(Some))
}

/// Slack by variables alone, for where no other setting is read.
///
/// # Errors
/// What can not be used.
pub(crate) fn slack_of(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<SlackSection, InvalidSettings> {
    let (layer, _) = env::layer(variables);
    let of_slack = |problem: &&Problem| problem.key.starts_with("slack");
    let mut problems: Vec<_> = layer.problems.iter().filter(of_slack).cloned().collect();
    let fault = |error: config::ConfigError| InvalidSettings(vec![Problem::new("", "slack", error.to_string())]);
    let merged = Config::builder().add_source(defaults()).add_source(layer).build().map_err(fault)?.cache;
    let section = table(&merged).and_then(|root| root.get("slack")).cloned();
    let section: SlackSection = section.unwrap_or_default().try_deserialize().map_err(fault)?;
    problems.extend(section.problems(&merged));
    if problems.is_empty() { Ok(section) } else { Err(InvalidSettings(problems)) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<SlackSection, InvalidSettings> {
        slack_of(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn slack_is_set_by_its_variables() {
        let found = of(&[
            ("PGTENANT_SLACK_SIGNING_SECRET", "s"),
            ("PGTENANT_SLACK_BOT_TOKEN", "t"),
            ("PGTENANT_SLACK_API_URL", "http://127.0.0.1:9/api/"),
            ("PGTENANT_SLACK_PLATFORM_CHANNEL", "C0PLATFORM"),
            ("PGTENANT_SLACK_CHANNELS", r#"[{"id": "C0SHOP", "namespaces": ["shop"]}]"#),
            ("PGTENANT_SLACK__USERS", r#"[{"id": "U0ALICE", "role": "platform"}, {"id": "U0BOB", "token": "bob"}]"#),
            ("PGTENANT_SLACK_UNLISTED", "tenant"),
            ("PGTENANT_SLACK_TEAM", "T0TEAM"),
            ("PGTENANT_TOKEN", "x"),
        ]);
        let settings = found.unwrap().settings().unwrap().unwrap();
        assert_eq!(settings.signing_secret.expose_secret(), "s");
        assert_eq!(
            (&*settings.api_url, settings.channels.len(), settings.users.len()),
            ("http://127.0.0.1:9/api/", 1, 2)
        );
        assert_eq!((settings.unlisted, settings.team.as_deref()), (SlackUnlisted::Tenant, Some("T0TEAM")));
        assert!(settings.channels[0].notify);
        assert!(of(&[]).unwrap().settings().unwrap().is_none());
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        let fault = |variables: &[(&str, &str)]| of(variables).unwrap_err().to_string();
        assert!(fault(&[("PGTENANT_SLACK_BOT_TOKEN", "t")]).contains("slack.signing_secret: must be set"));
        let both = [("PGTENANT_SLACK_SIGNING_SECRET", "hunter2"), ("PGTENANT_SLACK_SIGNING_SECRET_FILE", "/x")];
        let said = fault(&both);
        assert!(said.contains("keep one") && !said.contains("hunter2"), "{said}");
        for (variable, value, expected) in [
            ("PGTENANT_SLACK_CHANNELS", "C0SHOP", "must be a list"),
            ("PGTENANT_SLACK_CHANNELS", r#"[{"id": "C0SHOP"}]"#, "missing field `namespaces`"),
            ("PGTENANT_SLACK_CHANNELS", r#"[{"id": "C0SHOP", "namespaces": ["a"], "x": 1}]"#, "unknown field `x`"),
            ("PGTENANT_SLACK_CHANNELS", r##"[{"id": "#shop", "namespaces": ["a"]}]"##, "Slack's id of a channel"),
            ("PGTENANT_SLACK_USERS", r#"[{"id": "U0A", "role": "king"}]"#, "unknown variant `king`"),
            ("PGTENANT_SLACK_API_URL", "slack.com", "must be a URL"),
            ("PGTENANT_SLACK_API_URL", "http://slack.com/api/", "http only on this machine"),
            ("PGTENANT_SLACK_UNLISTED", "platform", "must be nothing or viewer or tenant"),
            ("PGTENANT_SLACK_TEAM", "acme", "Slack's id of a workspace"),
            ("PGTENANT_SLACK_USERS", r#"[{"id": "U0A"}]"#, "the name of the person's token"),
            ("PGTENANT_SLACK__TOKEN", "x", "is not a setting; [slack] has"),
        ] {
            let said = fault(&[(variable, value)]);
            assert!(said.contains(expected), "{variable}={value}: {said}");
        }
    }
}
