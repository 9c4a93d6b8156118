//! What a tool that keeps a cluster available says of it, held against what each server says.
//!
//! The tool's word alone is not enough: a leader that has just lost its place is called one until the tool has looked again, and a server
//! that somebody has started by hand is none of its members.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures::future::join;
use pgtenant_model::{HostPort, Member, MemberRole, SyncState};
use tokio::time::Instant;

use crate::Observation;
use crate::probe::ProbeOptions;
use crate::streaming::ask_each;

/// Nobody has so many: whoever answers in a tool's place does not have the control plane connect to all the world.
const MOST_MEMBERS: usize = 64;

/// What a tool says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// The tool, as `Patroni`.
    pub(crate) who: &'static str,
    /// It is the one that promotes: where it names another leader, a server that accepts writes may be one that it has given up.
    pub(crate) decides: bool,
    pub(crate) members: Vec<ToldMember>,
    /// Why nobody may become the leader, where the tool knows.
    pub(crate) note: Option<String>,
}

/// A member as a tool calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToldMember {
    /// None: it has not said yet where it is.
    pub(crate) address: Option<HostPort>,
    /// As `leader, running`.
    pub(crate) words: String,
    pub(crate) leads: bool,
    /// How commits wait for it, where the tool knows.
    pub(crate) sync: Option<SyncState>,
}

/// One that is neither named nor answers for this time is no member any more.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The members that a tool has named, and when they were last named or did answer. One that is down may not be named any more, and is a
/// member all the same: what tenants are given does not change with each failover.
#[derive(Debug, Default)]
pub(crate) struct Members(Mutex<BTreeMap<HostPort, Instant>>);

impl Members {
    pub(crate) fn hosts(&self) -> Vec<HostPort> {
        self.known().keys().cloned().collect()
    }

    /// What was known before, or by another replica: all of them give tenants the same.
    pub(crate) fn remember(&self, members: &[HostPort]) {
        self.note(members, Instant::now());
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<HostPort, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are there; of too many the ones that were there last are kept.
    fn note<'a>(&self, there: impl IntoIterator<Item = &'a HostPort>, now: Instant) {
        let mut known = self.known();
        known.extend(there.into_iter().map(|host| (host.clone(), now)));
        known.retain(|_, at| now.saturating_duration_since(*at) < FORGOTTEN);
        while known.len() > MOST_MEMBERS {
            let oldest = known.iter().min_by_key(|(_, at)| **at).map(|(host, _)| host.clone());
            oldest.and_then(|host| known.remove(&host));
        }
    }

    /// Asks the tool and every member that is known at the same time, then members that are new, and compares. Where the tool does not
    /// answer, the members are those of before.
    pub(crate) async fn observe(
        &self,
        told: impl Future<Output = Result<Told, String>>,
        options: &ProbeOptions,
    ) -> Observation {
        let known = self.hosts();
        let (told, mut asked) = join(told, ask_each(&known, options)).await;
        if let Ok(told) = &told {
            self.note(told.members.iter().filter_map(|member| member.address.as_ref()), Instant::now());
        }
        let hosts = self.hosts();
        if let (Err(why), true) = (&told, hosts.is_empty()) {
            return Observation::without_primary(why.clone());
        }
        let new: Vec<HostPort> = hosts.iter().filter(|host| !known.contains(host)).cloned().collect();
        asked.extend(ask_each(&new, options).await);
        asked.retain(|(host, _)| hosts.contains(host));
        asked.sort_by(|(a, _), (b, _)| a.cmp(b));
        let seen = Observation::of(&asked, Utc::now());
        let answer = |host: &&HostPort| {
            let answers = |member: &Member| member.host == host.to_string() && member.role != MemberRole::Unreachable;
            seen.members.iter().any(answers)
        };
        self.note(hosts.iter().filter(answer), Instant::now());
        match told {
            Ok(told) => compare(seen, &told),
            Err(why) => {
                tracing::warn!("{why}; the members are those that it named before");
                seen
            }
        }
    }
}

/// Puts the tool's words beside each member's own. Where it decides and names another leader there is no primary: what is written may be
/// lost.
pub(crate) fn compare(mut seen: Observation, told: &Told) -> Observation {
    let who = told.who;
    for member in &mut seen.members {
        let one = told.members.iter().find(|one| one.is(&member.host));
        // One that follows may have other names for the servers than the settings.
        let unnamed = if told.decides { "not a member now" } else { "it is not named like that there" };
        member.tool = Some(format!("{who}: {}", one.map_or(unnamed, |one| one.words.as_str())));
        member.sync = member.sync.or(one.and_then(|one| one.sync));
        let is_primary = seen.primary.as_ref().is_some_and(|primary| primary.to_string() == member.host);
        match one.map(|one| one.leads) {
            Some(true) if !is_primary => member.add_message(&format!("{who} takes it for the primary")),
            Some(false) if is_primary && !told.decides => {
                member.add_message(&format!("{who} does not take it for the primary"));
            }
            _ => {}
        }
    }
    if told.decides { judge(seen, told) } else { seen }
}

fn judge(mut seen: Observation, told: &Told) -> Observation {
    let who = told.who;
    let leader = told.members.iter().find(|one| one.leads).and_then(|one| one.address.as_ref());
    match (&seen.primary, leader) {
        (Some(primary), Some(leader)) if primary != leader => {
            seen.problem = Some(format!(
                "{primary} accepts writes, and {who} says that {leader} leads; nothing is written until they agree"
            ));
            seen.primary = None;
        }
        (None, leader) => {
            let leads = leader.map_or_else(|| "nobody leads".to_owned(), |leader| format!("{leader} leads"));
            let note = told.note.as_ref().map(|note| format!(", and {note}")).unwrap_or_default();
            let problem = seen.problem.take().unwrap_or_default();
            seen.problem = Some(format!("{problem}; {who} says that {leads}{note}"));
        }
        (Some(_), _) => {}
    }
    seen
}

impl ToldMember {
    fn is(&self, host: &str) -> bool {
        self.address.as_ref().is_some_and(|address| address.to_string() == host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(leader: Option<&str>, note: Option<&str>) -> Told {
        let member = |host: &str| ToldMember {
            address: host.parse().ok(),
            words: "as it is called".to_owned(),
            leads: leader == Some(host),
            sync: None,
        };
        Told { who: "Patroni", decides: true, members: vec![member("db1:5432")], note: note.map(str::to_owned) }
    }

    fn seen(primary: Option<&str>) -> Observation {
        let member = |host: &str| Member {
            message: (primary != Some(host)).then(|| "not streaming".to_owned()),
            ..Member::new(host, if primary == Some(host) { MemberRole::Primary } else { MemberRole::Standby })
        };
        Observation {
            members: ["db1:5432", "db2:5432"].map(member).to_vec(),
            primary: primary.map(|host| host.parse().unwrap()),
            ..Observation::without_primary("no host is writable".to_owned())
        }
    }

    #[test]
    fn members_are_forgotten_when_they_were_gone_for_long_and_make_room_for_others() {
        let (members, now) = (Members::default(), Instant::now());
        let host = |number: usize| -> HostPort { format!("db{number:03}:5432").parse().unwrap() };
        members.note(&[host(1), host(2)], now);
        members.note(&[host(1)], now + FORGOTTEN / 2);
        assert_eq!(members.hosts(), [host(1), host(2)], "one is down");
        members.note(&[host(1)], now + FORGOTTEN);
        assert_eq!(members.hosts(), [host(1)], "one is gone");
        let many: Vec<_> = (100..100 + MOST_MEMBERS).map(host).collect();
        members.note(&many, now + FORGOTTEN + Duration::from_secs(1));
        assert_eq!(members.hosts(), many, "the ones that were there last");
    }

    #[test]
    fn what_a_tool_says_is_held_against_the_servers() {
        let agreed = compare(seen(Some("db1:5432")), &told(Some("db1:5432"), None));
        assert_eq!(agreed.primary.unwrap().to_string(), "db1:5432");
        let words: Vec<_> = agreed.members.into_iter().map(|member| member.tool.unwrap()).collect();
        assert_eq!(words, ["Patroni: as it is called", "Patroni: not a member now"]);
        assert!(agreed.observed_at <= Utc::now());

        let other = compare(seen(Some("db2:5432")), &told(Some("db1:5432"), None));
        assert_eq!(other.primary, None);
        assert!(other.problem.unwrap().contains("db2:5432 accepts writes, and Patroni says that db1:5432 leads"));
        // In the moment between, the servers are believed.
        let between = compare(seen(Some("db2:5432")), &told(None, None));
        assert_eq!(between.primary.unwrap().to_string(), "db2:5432");
        let paused = compare(seen(None), &told(None, Some("that it is paused")));
        assert!(paused.problem.unwrap().ends_with("Patroni says that nobody leads, and that it is paused"));
    }

    #[test]
    fn a_tool_that_does_not_decide_is_quoted_and_not_obeyed() {
        let mut believed = Told { decides: false, ..told(Some("db1:5432"), None) };
        believed.members.extend(
            told(None, None).members.into_iter().map(|one| ToldMember { address: "db2:5432".parse().ok(), ..one }),
        );
        let seen = compare(seen(Some("db2:5432")), &believed);
        assert_eq!(seen.primary.unwrap().to_string(), "db2:5432");
        let messages: Vec<_> = seen.members.into_iter().map(|member| member.message.unwrap()).collect();
        let expected = ["not streaming, Patroni takes it for the primary", "Patroni does not take it for the primary"];
        assert_eq!(messages, expected);
    }
}
