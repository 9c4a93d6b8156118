//! What the members' answers mean.

use chrono::{DateTime, Utc};
use pgtenant_model::{ClusterStatus, History, HostPort, Member, MemberRole, NOT_STREAMING, SyncState};

/// What was seen of a cluster at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Every member, in the order of the cluster's spec.
    pub members: Vec<Member>,
    /// The one writable member. None where there is none, and where there are two.
    pub primary: Option<HostPort>,
    /// PostgreSQL's version, as `15.18`; the primary's where there is one.
    pub version: Option<String>,
    /// Why there is no primary, and what to do; none where there is one.
    pub problem: Option<String>,
    /// What tells the cluster from another one that has its name now, where the topology knows such a thing.
    pub identity: Option<String>,
    /// More than one server takes writes, or the one that does has not the data that was there.
    pub split_brain: bool,
    /// Where the primary's data comes from, where servers say that.
    pub history: Option<History>,
    /// Where the data of the one comes from that takes writes and is no primary for that.
    pub refused: Option<History>,
    /// When the last member had answered.
    pub observed_at: DateTime<Utc>,
}

/// What one server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) in_recovery: bool,
    /// Transactions are read-only: in recovery, or by `default_transaction_read_only`.
    pub(crate) read_only: bool,
    pub(crate) timeline: Option<i32>,
    /// On a primary what it has written, on a standby what it has replayed, in bytes from the beginning of the log.
    pub(crate) position: Option<i64>,
    /// Seconds since what a standby has replayed last was written; 0 where it has replayed all that it has received.
    pub(crate) lag: Option<i64>,
    /// Whether a standby has a receiver at work.
    pub(crate) streaming: bool,
    /// The name by which it does, as far as it is shown.
    pub(crate) streams_as: String,
    /// Who streams from it.
    pub(crate) followers: Vec<Follower>,
    /// The role that asked, where it is not shown how commits wait for them.
    pub(crate) blind: Option<String>,
    /// Of the cluster's `initdb`; the same on a primary and its standbys.
    pub(crate) system: i64,
    /// When the server started, in microseconds: together with `system` it tells one server from another.
    pub(crate) started: i64,
    pub(crate) version: String,
}

/// Who streams from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Follower {
    pub(crate) name: String,
    pub(crate) sync: Option<SyncState>,
}

/// A member, and its answer or why there is none.
pub(crate) type Asked = (HostPort, Result<Answer, String>);

impl Answer {
    fn writable(&self) -> bool {
        !self.in_recovery && !self.read_only
    }

    fn history(&self) -> Option<History> {
        Some(History { system: self.system.to_string(), timeline: self.timeline?, accepted_at: None })
    }
}

impl Observation {
    /// Draws the conclusions. With two writable servers there is no primary: what is written to either may be lost.
    pub(crate) fn of(asked: &[Asked], observed_at: DateTime<Utc>) -> Self {
        let answers = || asked.iter().filter_map(|(host, a)| Some((host, a.as_ref().ok()?)));
        // One server may be listed under two names.
        let mut writable: Vec<(&HostPort, &Answer)> = Vec::new();
        for (host, answer) in answers().filter(|(_, answer)| answer.writable()) {
            let same = |other: &Answer| (other.system, other.started) == (answer.system, answer.started);
            if !writable.iter().any(|(_, other)| same(other)) {
                writable.push((host, answer));
            }
        }
        let (primary, problem) = match writable[..] {
            [one] => (Some(one), None),
            [] => (None, Some(nobody(asked))),
            _ => (None, Some(split_brain(&writable))),
        };
        let leader = primary.map(|(_, answer)| answer);
        let version = leader.or_else(|| answers().map(|(_, answer)| answer).next());
        Self {
            members: asked.iter().map(|(host, answer)| member(host, answer, leader)).collect(),
            primary: primary.map(|(host, _)| host.clone()),
            version: version.map(|answer| answer.version.clone()),
            problem,
            identity: None,
            split_brain: writable.len() > 1,
            history: leader.and_then(Answer::history),
            refused: None,
            observed_at,
        }
    }

    /// Nobody is written to who has not the data that was there.
    pub(crate) fn refuse(&mut self, why: &str) {
        let host = self.primary.take().map(|host| host.to_string()).unwrap_or_default();
        self.problem = Some(format!(
            "{host} accepts writes, and {why}. Nothing is written until a person has looked: stop it where it does not belong, or say \
             that it is right, as after a restore, with `pgtenant cluster accept`"
        ));
        self.split_brain = true;
        self.refused = self.history.take();
    }

    /// Nothing was seen but `problem`.
    pub(crate) fn without_primary(problem: String) -> Self {
        Self {
            members: Vec::new(),
            primary: None,
            version: None,
            problem: Some(problem),
            identity: None,
            split_brain: false,
            history: None,
            refused: None,
            observed_at: Utc::now(),
        }
    }

    /// As a cluster's status, without a preflight.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus {
            primary: self.primary.as_ref().map(ToString::to_string),
            version: self.version.clone(),
            members: self.members.clone(),
            problem: self.problem.clone(),
            preflight: Vec::new(),
            max_connections: None,
            drift: Vec::new(),
            identity: self.identity.clone(),
            split_brain: self.split_brain,
            history: self.history.clone(),
            refused: self.refused.clone(),
            provisioner: None,
            observed_at: Some(self.observed_at),
        }
    }
}

/// Who says it where a server has answered.
const SERVER: &str = "the server";

fn member(host: &HostPort, answer: &Result<Answer, String>, primary: Option<&Answer>) -> Member {
    let said = |role, answer: &Answer| Member {
        timeline: answer.timeline,
        said_by: Some(SERVER.to_owned()),
        ..Member::new(host, role)
    };
    match answer {
        Err(why) => Member { message: Some(why.clone()), ..Member::new(host, MemberRole::Unreachable) },
        Ok(answer) if answer.in_recovery => standby(said(MemberRole::Standby, answer), answer, primary),
        Ok(answer) => {
            let mut member = said(MemberRole::Primary, answer);
            if answer.read_only {
                member.add_message(READ_ONLY);
            }
            if let Some(role) = answer.blind.as_ref().filter(|_| !answer.followers.is_empty()) {
                member.add_message(&format!(
                    "how commits wait for standbys is not shown to the provisioner: GRANT pg_read_all_stats TO {role}"
                ));
            }
            member
        }
    }
}

const READ_ONLY: &str = "no standby, but default_transaction_read_only is on";

fn standby(mut member: Member, answer: &Answer, primary: Option<&Answer>) -> Member {
    if primary.is_some_and(|primary| primary.system != answer.system) {
        member.add_message("a standby of another cluster: its system identifier is not the primary's");
        return member;
    }
    let behind = |primary: &Answer| Some((primary.position? - answer.position?).max(0));
    member.lag_bytes = primary.and_then(behind);
    member.lag_seconds = answer.lag.filter(|_| answer.streaming).map(|seconds| seconds.max(0));
    member.sync = primary.filter(|_| answer.streaming).and_then(|primary| sync(&answer.streams_as, &primary.followers));
    if !answer.streaming {
        member.add_message(NOT_STREAMING);
    }
    member
}

/// Of several that stream by one name it is known where all are alike.
fn sync(name: &str, followers: &[Follower]) -> Option<SyncState> {
    let mut alike = followers.iter().filter(|one| one.name == name).map(|one| one.sync);
    let first = alike.next()??;
    alike.all(|other| other == Some(first)).then_some(first)
}

fn nobody(asked: &[Asked]) -> String {
    if asked.is_empty() {
        return "the cluster has no hosts; name them in its spec".to_owned();
    }
    let says = |(host, answer): &Asked| match answer {
        Err(why) => format!("{host} did not answer: {why}"),
        Ok(answer) if answer.in_recovery => format!("{host} is a standby"),
        Ok(_) => format!("{host} is {READ_ONLY}"),
    };
    let said: Vec<String> = asked.iter().map(says).collect();
    format!("no host is writable: {}; start the primary or promote a standby", said.join("; "))
}

fn split_brain(writable: &[(&HostPort, &Answer)]) -> String {
    let describe = |(host, answer): &(&HostPort, &Answer)| match answer.timeline {
        Some(timeline) => format!("{host} (timeline {timeline})"),
        None => host.to_string(),
    };
    let hosts: Vec<String> = writable.iter().map(describe).collect();
    let strangers = writable.iter().any(|(_, answer)| answer.system != writable[0].1.system);
    let strangers = if strangers { "; they are not even of one cluster" } else { "" };
    format!(
        "split brain: {} all accept writes{strangers}; nothing is written until all but one are stopped",
        hosts.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(started: i64) -> Answer {
        Answer {
            in_recovery: false,
            read_only: false,
            timeline: Some(1),
            position: Some(1000),
            lag: None,
            streaming: false,
            streams_as: "walreceiver".to_owned(),
            followers: Vec::new(),
            blind: None,
            system: 7,
            started,
            version: "15.18".to_owned(),
        }
    }

    fn standby() -> Answer {
        Answer { in_recovery: true, read_only: true, position: Some(900), lag: Some(3), streaming: true, ..primary(50) }
    }

    fn see(answers: Vec<Result<Answer, String>>) -> Observation {
        let hosts = ["db1:5432", "db2:5432", "db3:5432"].map(|h| h.parse().unwrap());
        let asked: Vec<Asked> = hosts.into_iter().zip(answers).collect();
        Observation::of(&asked, Utc::now())
    }

    #[test]
    fn one_writable_host_is_the_primary() {
        let seen = see(vec![Ok(standby()), Ok(primary(1)), Err("connection refused".to_owned())]);
        assert_eq!(seen.primary.unwrap().to_string(), "db2:5432");
        assert_eq!((seen.problem, seen.version.as_deref()), (None, Some("15.18")));
        let roles: Vec<MemberRole> = seen.members.iter().map(|m| m.role).collect();
        assert_eq!(roles, [MemberRole::Standby, MemberRole::Primary, MemberRole::Unreachable]);
        let standby = &seen.members[0];
        assert_eq!((standby.lag_bytes, standby.lag_seconds, standby.sync), (Some(100), Some(3), None));
        assert_eq!((standby.said_by.as_deref(), seen.members[2].said_by.as_deref()), (Some(SERVER), None));
        assert_eq!(seen.members[2].message.as_deref(), Some("connection refused"));
    }

    #[test]
    fn two_writable_hosts_are_none() {
        let promoted = Answer { timeline: Some(2), ..primary(2) };
        let seen = see(vec![Ok(primary(1)), Ok(promoted)]);
        assert_eq!(seen.primary, None);
        assert_eq!(
            seen.problem.unwrap(),
            "split brain: db1:5432 (timeline 1) and db2:5432 (timeline 2) all accept writes; nothing is written until all but one are stopped"
        );
        let stranger = Answer { system: 8, ..primary(2) };
        let problem = see(vec![Ok(primary(1)), Ok(stranger)]).problem.unwrap();
        assert!(problem.contains("not even of one cluster"), "{problem}");
    }

    #[test]
    fn one_server_under_two_names_is_one() {
        let seen = see(vec![Ok(primary(1)), Ok(primary(1))]);
        assert_eq!(seen.primary.unwrap().to_string(), "db1:5432");
    }

    #[test]
    fn without_a_writable_host_everybody_is_quoted() {
        let fenced = Answer { read_only: true, ..primary(1) };
        let seen = see(vec![Err("no answer within 3s".to_owned()), Ok(standby()), Ok(fenced)]);
        assert_eq!(seen.primary, None);
        assert_eq!(
            seen.problem.unwrap(),
            "no host is writable: db1:5432 did not answer: no answer within 3s; db2:5432 is a standby; db3:5432 is no standby, but default_transaction_read_only is on; start the primary or promote a standby"
        );
        assert_eq!(seen.members[2].message.as_deref(), Some(READ_ONLY));
    }

    #[test]
    fn a_standby_of_another_cluster_is_shown() {
        let stranger = Answer { system: 8, streaming: false, ..standby() };
        let seen = see(vec![Ok(primary(1)), Ok(stranger), Ok(Answer { streaming: false, ..standby() })]);
        assert!(seen.members[1].message.as_ref().unwrap().contains("another cluster"));
        let lost = &seen.members[2];
        assert_eq!(
            (lost.message.as_deref(), lost.lag_bytes, lost.lag_seconds),
            (Some("not streaming"), Some(100), None)
        );
    }

    #[test]
    fn how_commits_wait_is_shown_where_it_is_seen() {
        let follower = |name: &str, sync| Follower { name: name.to_owned(), sync };
        let named = |name: &str| Ok(Answer { streams_as: name.to_owned(), ..standby() });
        let followers =
            vec![follower("a", Some(SyncState::Quorum)), follower("b", Some(SyncState::Async)), follower("b", None)];
        let seen = see(vec![Ok(Answer { followers, ..primary(1) }), named("a"), named("b")]);
        let states: Vec<_> = seen.members.iter().map(|member| member.sync).collect();
        assert_eq!(states, [None, Some(SyncState::Quorum), None], "of two by one name nobody knows which is which");
        assert_eq!(seen.members[0].message, None);

        let blind = Answer { followers: vec![follower("a", None)], blind: Some("prov".to_owned()), ..primary(1) };
        let message = see(vec![Ok(blind), named("a")]).members[0].message.clone().unwrap();
        assert!(message.ends_with("GRANT pg_read_all_stats TO prov"), "{message}");
    }
}
