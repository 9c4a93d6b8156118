//! PgBouncer in front of a cluster, tried as tenants use it.
//!
//! No login of the control plane's is good there: PgBouncer is to know tenants' alone. What it answers to logins that it must not know shows
//! that it asks, and whom; and a claim's own credential shows that one works.

use std::time::Duration;

use pgtenant_ledger::{ClaimFilter, Ledger, claims};
use pgtenant_model::{Credential, CredentialTarget, DatabaseState, PgBouncer, SslMode, Tier};
use pgtenant_postgres::{Known, Lent, Pooler, PoolerOptions, PostgresError, Trial};

use super::{CheckResult, Lines, failed, passed, warned};
use crate::cluster::Cluster;
use crate::failure::Cause;

/// For each connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Claims that are asked for, until one has a credential that can be read.
const CLAIMS: i64 = 5;
/// No claim's login: those end in a tier.
const STRANGER: &str = "pgtenant-preflight-nobody";

impl Cluster {
    pub(super) async fn try_pooler(&self, ledger: &Ledger, lines: &Lines) {
        let Some(address) = self.spec.pgbouncer.as_ref().map(PgBouncer::address) else { return };
        let made = async {
            let (sslmode, ca) = (self.spec.tls.sslmode, self.tenants_ca().await?);
            Ok::<_, Cause>(Pooler::new(PoolerOptions { address: address.clone(), sslmode, ca, patience: PATIENCE })?)
        };
        let asked = async {
            let pooler = made.await.map_err(failed)?;
            let known = pooler.knows(STRANGER, self.database()).await.map_err(|error| unanswered(&error))?;
            Ok((reached(&address.to_string(), self.spec.tls.sslmode), (pooler, known)))
        };
        let Some((pooler, known)) = lines.tried("pgbouncer", asked).await else { return };
        lines.tried("pgbouncer lookup", async { Ok((self.looked_up(&pooler, known).await, ())) }).await;
        if pooler.takes_clear_text(STRANGER, self.database()).await {
            lines.push("pgbouncer", warned("it talks to clients without TLS: set client_tls_sslmode = require"));
        }
        lines.tried("pgbouncer login", async { Ok((self.logged_in(ledger, &pooler).await, ())) }).await;
    }

    fn database(&self) -> &str {
        &self.spec.provisioner.database
    }

    /// It knows no stranger. Neither may it know whom it has on the servers, but tenants.
    async fn looked_up(&self, pooler: &Pooler, stranger: Known) -> Trial {
        if stranger == Known::Refused {
            return (
                CheckResult::Failed,
                "it asks a stranger for a password, so it looks nobody up: set auth_user, auth_query and auth_dbname as in \
                 docs/pgbouncer.md, and auth_type = scram-sha-256"
                    .to_owned(),
            );
        }
        let own = match self.own_login().await {
            Ok(own) => own,
            Err(cause) => return failed(cause),
        };
        match pooler.knows(&own, self.database()).await {
            Ok(Known::Nobody) => passed("it looks logins up, and knows the control plane's as little as a stranger's"),
            Ok(Known::Refused) => warned(format!(
                "it knows the login {own:?}, which is no tenant's: auth_query is to ask pgbouncer.user_lookup, as in \
                 docs/pgbouncer.md, and userlist.txt to have PgBouncer's own login alone"
            )),
            Err(error) => unanswered(&error),
        }
    }

    /// With the credential of a claim's read tier, as its application does.
    async fn logged_in(&self, ledger: &Ledger, pooler: &Pooler) -> Trial {
        let found = match self.some_credential(ledger).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                return passed("not tried: no claim is ready whose credential can be read here. Try again then");
            }
            Err(cause) => return failed(cause),
        };
        let Credential { username, password, database, .. } = &found;
        match pooler.lends(username, password, database).await {
            Ok(lent) => judged(username, lent),
            Err(error) => refused(&error),
        }
    }

    async fn some_credential(&self, ledger: &Ledger) -> Result<Option<Credential>, Cause> {
        let ready = Some(DatabaseState::Ready);
        let filter = ClaimFilter { cluster: Some(&self.name), state: ready, ..ClaimFilter::default() };
        let found = claims(&mut *ledger.acquire().await?, &filter, CLAIMS).await?;
        for claim in found {
            let target = CredentialTarget { key: claim.key, tier: Tier::Read };
            if let Some(credential) = self.stores.get(&target, None).await.credentials().next() {
                return Ok(Some(credential.clone()));
            }
        }
        Ok(None)
    }
}

fn reached(address: &str, sslmode: SslMode) -> Trial {
    match sslmode {
        SslMode::VerifyFull => passed(format!("{address} answers, with a certificate of that name")),
        SslMode::VerifyCa => passed(format!("{address} answers; its certificate's name is not checked")),
        SslMode::Require => passed(format!("{address} answers; its certificate is not checked")),
    }
}

fn judged(login: &str, Lent { primary, tls, shared }: Lent) -> Trial {
    let mut wrong = Vec::new();
    if !primary {
        wrong.push("it leads to a standby, where writes fail: give it one address that leads to the primary ([databases] in pgbouncer.ini)");
    }
    if !shared {
        wrong.push(
            "two clients did not share a connection: set pool_mode = transaction, unless others were at work just now",
        );
    }
    if !tls {
        wrong.push("it comes to the servers without TLS: set server_tls_sslmode = verify-full, and server_tls_ca_file");
    }
    match (primary, wrong.is_empty()) {
        (_, true) => passed(format!("{login:?} logged in, at the primary, and two clients of it shared a connection")),
        (true, false) => warned(wrong.join("; ")),
        (false, false) => (CheckResult::Failed, wrong.join("; ")),
    }
}

/// A stranger's login did not get as far as to be unknown.
fn unanswered(error: &PostgresError) -> Trial {
    let advice = match error {
        PostgresError::Server { sqlstate, .. } if sqlstate != "08P01" => {
            "no PgBouncer answers like that: name PgBouncer's own address in pgbouncer"
        }
        PostgresError::Server { message, .. } if message.contains("no such database") => {
            "[databases] in pgbouncer.ini is to have a line `* = host=…`"
        }
        PostgresError::Server { .. } => {
            "PgBouncer can not ask the servers: see its log; its own login and password (auth_user, userlist.txt), auth_dbname and the function \
             are those of `pgtenant cluster bootstrap --pgbouncer-login`, and `* = host=…` leads to the primary"
        }
        PostgresError::Connection { reason, .. } if reason.contains("certificate") => {
            "tenants check it as they check the servers': it takes a certificate of the cluster's CA for this host name (client_tls_cert_file)"
        }
        PostgresError::Connection { .. } => {
            "see whether PgBouncer runs, listens there (listen_addr, listen_port) with TLS (client_tls_sslmode), and a firewall lets it through"
        }
        PostgresError::Deadline { .. } => {
            "either nothing gets there, or PgBouncer waits for a server: see its log, and whether `* = host=…` leads to the primary"
        }
        _ => "see the cluster's settings",
    };
    (CheckResult::Failed, format!("{error}; {advice}"))
}

/// A tenant's login was not let in, or got no answer.
fn refused(error: &PostgresError) -> Trial {
    match error {
        PostgresError::Server { message, .. } if message.contains("too many connections") => {
            warned(format!("{error}; the login's connectionLimit is used up: default_pool_size may be above it"))
        }
        PostgresError::Server { message, .. } if message.contains("statement pooling mode") => {
            (CheckResult::Failed, format!("{error}; set pool_mode = transaction"))
        }
        // The second is said of a login that it has known before.
        PostgresError::Server { message, .. }
            if message == "no such user" || message.contains("authentication failed") =>
        {
            let advice = "PgBouncer asks, and is not told of a login that is there: auth_query is to ask pgbouncer.user_lookup in \
                          pgtenant_pgbouncer; run the bootstrap script again";
            (CheckResult::Failed, format!("{error}; {advice}"))
        }
        PostgresError::Deadline { .. } => (
            CheckResult::Failed,
            format!(
                "{error}; see PgBouncer's log: it has no connection to a server, or all are in use (default_pool_size)"
            ),
        ),
        _ => (CheckResult::Failed, format!("{error}; see PgBouncer's log")),
    }
}
