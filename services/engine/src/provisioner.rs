//! The control plane's own login: which of two it is, and how their passwords are replaced without a moment in which none works.
//!
//! The secret alone says what is in use and what is about to be set, so that whoever finds it goes on. The idle login gets a new
//! password, which it sets itself, and is proven before it takes the place of the other one; that one gets a new password when every
//! replica has read the secret again. Whoever is killed in between leaves a login in use that works.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgtenant_model::{AwsSecretRef, ProvisionerStatus, Span};
use pgtenant_postgres::{OwnLogin, Server, Verifier, acts_as, generate_password};
use pgtenant_secrets::{AwsLogin, IdleLogin};

use crate::cluster::Cluster;
use crate::failure::Cause;

/// Every replica reads its login again each minute.
const LEAST_OVERLAP: Duration = Duration::from_secs(120);

/// What is due with the control plane's own logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The idle one gets a new password and takes the place of the one in use.
    Turn,
    /// The idle one gets a new password: it was in use before.
    Replace,
}

/// What decides about it.
#[derive(Debug, Clone, Copy)]
struct Rules {
    asked: Option<DateTime<Utc>>,
    every: Option<Span>,
    overlap: Duration,
    now: DateTime<Utc>,
}

fn due(login: &AwsLogin, rules: Rules) -> Option<Due> {
    let Rules { asked, every, overlap, now } = rules;
    let since = |at: DateTime<Utc>, time: Duration| now >= at + time;
    // A turn in the future is a mistake that would keep all others from coming.
    if login.turned_at.is_some_and(|at| at <= now && !since(at, overlap)) {
        return None;
    }
    let asked = asked.is_some_and(|asked| login.turned_at.is_none_or(|at| asked > at));
    let old = every.is_some_and(|every| login.turned_at.is_none_or(|at| since(at, every.duration())));
    match (asked || old, login.idle_is_stale()) {
        (true, _) => Some(Due::Turn),
        (false, true) => Some(Due::Replace),
        (false, false) => None,
    }
}

/// A login of the control plane as it is in the secret now.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) status: ProvisionerStatus,
    /// It has taken the place of the other one just now.
    pub(crate) turned: bool,
}

impl Cluster {
    /// Does what is due with the control plane's own logins; none: they are not in AWS, or another replica is at it. `now` is of the
    /// clock that `asked` is of.
    pub(crate) async fn keep_own_login(
        &self,
        asked: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<Option<Kept>, Cause> {
        let provisioner = &self.spec.provisioner;
        let Some(secret) = provisioner.kept_secret() else { return Ok(None) };
        let Some(login) = self.access.read_aws(secret).await? else { return Ok(None) };
        let overlap = self.spec.rotate_overlap.duration().max(LEAST_OVERLAP);
        let kept = |login: &AwsLogin, turned| {
            let status = ProvisionerStatus { login: login.username.clone(), turned_at: login.turned_at };
            Ok(Some(Kept { status, turned }))
        };
        let Some(due) = due(&login, Rules { asked, every: provisioner.rotate_every, overlap, now }) else {
            return kept(&login, false);
        };
        let idle = login.idle().ok_or_else(|| {
            Cause::Settings(format!(
                "{secret} names no second login: add idleUsername and idlePassword, of a login that acts as the same role"
            ))
        })?;
        let server = self.server().await?;
        let Some((replaced, mut turn)) = self.replace_idle(&server, secret, (&login, idle), now).await? else {
            return Ok(None);
        };
        let done = match due {
            Due::Turn => replaced.turned(now).unwrap_or(replaced),
            Due::Replace => replaced,
        };
        if let Some(turn) = &mut turn
            && !turn.still_has_it().await
        {
            return Ok(None);
        }
        self.access.write_aws(secret, &done).await?;
        kept(&done, due == Due::Turn)
    }

    /// Gives the idle login its next password, which is in the secret before the server knows it. None: another replica is at it.
    async fn replace_idle(
        &self,
        server: &Server,
        secret: &AwsSecretRef,
        (login, idle): (&AwsLogin, IdleLogin<'_>),
        now: DateTime<Utc>,
    ) -> Result<Option<(AwsLogin, Option<Box<OwnLogin>>)>, Cause> {
        let next = idle.next.cloned().unwrap_or_else(|| generate_password(&mut rand::rng()));
        let noted = login.with_next(next.clone());
        let entered = self.log_in_as_idle(server, idle).await?;
        // Another replica may have done it since the secret was read: then the password is another one, or the login in use.
        if !self.access.read_aws(secret).await?.is_some_and(|again| again.same(login)) {
            return Ok(None);
        }
        let turn = match entered {
            Idle::In(mut turn) => {
                if idle.next.is_none() {
                    self.access.write_aws(secret, &noted).await?;
                }
                turn.set_password(&Verifier::of(&next)).await?;
                Some(turn)
            }
            Idle::Busy => return Ok(None),
            Idle::Refused if login.is_made_by_pgtenant() && self.aurora().is_some() => {
                self.access.write_aws(secret, &noted).await?;
                self.attach_again(&noted).await?;
                None
            }
            Idle::Refused => {
                return Err(Cause::Settings(format!(
                    "the server does not let {:?} in with the password in {secret}: as a superuser, give it another one \
                     and write that to the secret's idlePassword",
                    idle.username
                )));
            }
        };
        let mut proof = server.log_in(&self.spec.provisioner.database, idle.username, &next).await?;
        let (role, ours) = (acts_as(&mut proof).await?, acts_as(&mut server.maintenance().await?).await?);
        if role != ours {
            return Err(Cause::Settings(format!(
                "{:?} acts as {role:?}, and the login in use as {ours:?}: GRANT {ours:?} TO {:?} and ALTER ROLE {:?} SET role = '{ours}'",
                idle.username, idle.username, idle.username
            )));
        }
        Ok(Some((noted.idle_replaced(now), turn)))
    }

    /// With the password that it has, or with the next one, if a try that was cut off has set that already.
    async fn log_in_as_idle(&self, server: &Server, idle: IdleLogin<'_>) -> Result<Idle, Cause> {
        for password in [idle.password, idle.next].into_iter().flatten() {
            match OwnLogin::take_turn(server, idle.username, password).await {
                Ok(Some(turn)) => return Ok(Idle::In(Box::new(turn))),
                Ok(None) => return Ok(Idle::Busy),
                Err(error) if matches!(error.sqlstate(), Some("28P01" | "28000")) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Idle::Refused)
    }
}

enum Idle {
    In(Box<OwnLogin>),
    /// Another replica has the turn.
    Busy,
    /// No password that is known lets it in.
    Refused,
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn login() -> AwsLogin {
        AwsLogin::made("prov_a", SecretString::from("a"), ("prov_b", SecretString::from("b")))
    }

    #[test]
    fn a_turn_is_due_when_somebody_asks_or_it_is_old_and_never_within_the_overlap() {
        let start = Utc::now();
        let after = |minutes| start + chrono::TimeDelta::minutes(minutes);
        let rules = |minutes, asked: Option<i64>, every: Option<u64>| Rules {
            asked: asked.map(after),
            every: every.map(|hours| Span::from_secs(hours * 3600)),
            overlap: Duration::from_secs(300),
            now: after(minutes),
        };
        assert_eq!(due(&login(), rules(0, None, None)), None);
        assert_eq!(due(&login(), rules(0, Some(0), None)), Some(Due::Turn));
        assert_eq!(due(&login(), rules(0, None, Some(1))), Some(Due::Turn), "nobody knows how old it is");
        let turned = login().turned(start).unwrap();
        assert_eq!(due(&turned, rules(4, Some(3), Some(0))), None);
        assert_eq!(due(&turned, rules(5, Some(0), None)), Some(Due::Replace), "that turn was the answer");
        assert_eq!(due(&turned, rules(5, Some(3), None)), Some(Due::Turn));
        let replaced = turned.with_next(SecretString::from("c")).idle_replaced(after(5));
        assert_eq!(due(&replaced, rules(59, Some(0), Some(1))), None);
        assert_eq!(due(&replaced, rules(60, None, Some(1))), Some(Due::Turn));
    }
}
