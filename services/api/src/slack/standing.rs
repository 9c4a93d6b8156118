//! What somebody may do from a channel.

use pgtenant_ledger::{TokenRole, token_named};

use super::Slack;
use super::request::Signed;
use super::settings::{SlackSettings, SlackUnlisted, SlackUser};
use crate::ApiState;
use crate::caller::Rights;
use crate::problem::Result;

/// Whom a request comes from, as Slack says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person<'a> {
    pub(super) user: &'a str,
    /// Workspaces that the request names: its own, and the person's.
    pub(super) teams: [&'a str; 2],
}

/// Who somebody is, wherever they ask from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    role: TokenRole,
    /// None: everywhere, as far as the channel reaches.
    namespaces: Option<Vec<String>>,
    actor: String,
    /// The platform team has named this person.
    listed: bool,
}

impl Signed {
    /// What a person may do from a channel; none: nothing at all.
    ///
    /// # Errors
    /// Their token can not be looked up.
    pub(super) async fn rights(
        &self,
        state: &ApiState,
        slack: &Slack,
        person: Person<'_>,
        channel: &str,
    ) -> Result<Option<Rights>> {
        let settings = &slack.settings;
        let standing = if is_of_team(settings, person) { standing(state, settings, person.user).await? } else { None };
        let rights = standing.and_then(|standing| within(settings, standing, channel, &self.request_id));
        if rights.is_none() {
            tracing::info!(user = person.user, channel, "somebody who may do nothing here asked in Slack");
        }
        Ok(rights)
    }
}

/// A channel can be shared with another company's workspace: its people are not ours.
fn is_of_team(settings: &SlackSettings, person: Person<'_>) -> bool {
    let Some(team) = &settings.team else { return true };
    let mut named = person.teams.into_iter().filter(|named| !named.is_empty()).peekable();
    named.peek().is_some() && named.all(|named| named == team)
}

async fn standing(state: &ApiState, settings: &SlackSettings, user: &str) -> Result<Option<Standing>> {
    let actor = format!("slack:{user}");
    let Some(SlackUser { id: _, role, namespaces, token }) = settings.users.iter().find(|one| one.id == user) else {
        return Ok(unlisted(settings.unlisted, actor));
    };
    if let Some(name) = token {
        // Asked for each time: what is revoked is over at once.
        let found = token_named(&mut *state.ledger().acquire().await?, name).await?;
        if found.is_none() {
            tracing::warn!(user, token = name, "there is not one valid token of this name: the person may do nothing");
        }
        return Ok(found.map(|token| Standing {
            role: token.role,
            namespaces: (token.role != TokenRole::Platform).then_some(token.namespaces),
            actor: format!("token:{name}"),
            listed: true,
        }));
    }
    let namespaces = (*role != Some(TokenRole::Platform)).then(|| namespaces.clone());
    Ok(role.map(|role| Standing { role, namespaces, actor, listed: true }))
}

fn unlisted(may: SlackUnlisted, actor: String) -> Option<Standing> {
    let role = match may {
        SlackUnlisted::Nothing => return None,
        SlackUnlisted::Viewer => TokenRole::Viewer,
        SlackUnlisted::Tenant => TokenRole::Tenant,
    };
    Some(Standing { role, namespaces: None, actor, listed: false })
}

/// From a channel that is linked to namespaces nobody reaches beyond them; in the platform's, only those do who are named.
fn within(settings: &SlackSettings, standing: Standing, channel: &str, request_id: &str) -> Option<Rights> {
    let Standing { role, namespaces: own, actor, listed } = standing;
    let namespaces = if settings.is_platform(channel) {
        listed.then_some(own)?
    } else {
        let linked = &settings.channels.iter().find(|one| one.id == channel)?.namespaces;
        let both = linked.iter().filter(|one| own.as_ref().is_none_or(|own| own.contains(one)));
        Some(both.cloned().collect::<Vec<_>>())
    };
    let any = namespaces.as_ref().is_none_or(|all| !all.is_empty());
    any.then(|| Rights::of_slack(role, namespaces, actor, request_id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slack::settings::tests::settings;

    fn rights(settings: &SlackSettings, user: &str, channel: &str) -> Option<Rights> {
        let listed = settings.users.iter().find(|one| one.id == user);
        let standing = match listed {
            None => unlisted(settings.unlisted, format!("slack:{user}"))?,
            Some(SlackUser { role, namespaces, .. }) => Standing {
                role: role.unwrap(),
                namespaces: (*role != Some(TokenRole::Platform)).then(|| namespaces.clone()),
                actor: format!("slack:{user}"),
                listed: true,
            },
        };
        within(settings, standing, channel, "r")
    }

    #[test]
    fn nobody_reaches_beyond_their_channel() {
        let reach = |settings: &SlackSettings, user: &str, channel: &str| {
            let rights = rights(settings, user, channel)?;
            let can = |namespace: &str| match (rights.may_read(namespace), rights.may_change(namespace)) {
                (_, Ok(_)) => 'w',
                (Ok(_), _) => 'r',
                _ => '-',
            };
            Some(["shop", "shop-dev", "other"].map(can).iter().collect::<String>())
        };
        let settings = settings();
        for (user, channel, expected) in [
            ("U0BOB", "C0SHOP", Some("rr-")),
            ("U0ALICE", "C0SHOP", Some("ww-")),
            ("U0ALICE", "C0PLATFORM", Some("www")),
            ("U0TENANT", "C0SHOP", Some("w--")),
            ("U0TENANT", "C0OTHER", None),
            ("U0TENANT", "C0PLATFORM", Some("w--")),
            ("U0VIEWER", "C0OTHER", Some("--r")),
            ("U0BOB", "C0PLATFORM", None),
            ("U0BOB", "C0NOWHERE", None),
            ("U0ALICE", "D0DIRECT", None),
            ("U0ALICE", "", None),
        ] {
            assert_eq!(reach(&settings, user, channel).as_deref(), expected, "{user} in {channel}");
        }
        let with = |unlisted| SlackSettings { unlisted, ..settings.clone() };
        assert_eq!(reach(&with(SlackUnlisted::Tenant), "U0BOB", "C0SHOP").as_deref(), Some("ww-"));
        assert_eq!(reach(&with(SlackUnlisted::Tenant), "U0BOB", "C0PLATFORM"), None);
        assert_eq!(reach(&with(SlackUnlisted::Nothing), "U0BOB", "C0SHOP"), None);
        assert!(rights(&settings, "U0ALICE", "C0SHOP").unwrap().is_platform());
        assert!(!rights(&settings, "U0BOB", "C0SHOP").unwrap().is_platform());
    }

    #[test]
    fn people_of_another_workspace_are_nobody() {
        let ours = SlackSettings { team: Some("T0OURS".to_owned()), ..settings() };
        let of = |settings, teams| is_of_team(settings, Person { user: "U0ALICE", teams });
        assert!(of(&ours, ["T0OURS", "T0OURS"]) && of(&ours, ["T0OURS", ""]));
        assert!(!of(&ours, ["T0OURS", "T0THEIRS"]) && !of(&ours, ["T0THEIRS", ""]) && !of(&ours, ["", ""]));
        assert!(of(&settings(), ["T0THEIRS", ""]));
    }
}
