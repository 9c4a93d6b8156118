//! The token, and what is said once everything is up.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use pgtenant_ledger::{
    Actor, Claim, ClaimFilter, Ledger, NewToken, TokenRole, claims, create_token, find_token, write_audit,
};
use pgtenant_model::{DatabaseState, Source, Tier};
use secrecy::{ExposeSecret, SecretString};

use super::Result;
use super::folder::{Folder, quote, url, write_private};
use super::servers::Servers;

/// The platform token of this folder: the one of the last start, if the ledger still knows it.
pub(super) async fn token(folder: &Folder, ledger: &Ledger) -> Result<SecretString> {
    let mut tx = ledger.begin().await?;
    if let Ok(text) = std::fs::read_to_string(folder.token_file()) {
        let known = SecretString::from(text.trim());
        if find_token(&mut tx, &known).await?.is_some() {
            return Ok(known);
        }
    }
    let new = NewToken { name: "dev".to_owned(), role: TokenRole::Platform, namespaces: Vec::new(), expires_at: None };
    let (token, secret) = create_token(&mut tx, new).await?;
    let detail = serde_json::json!({"role": token.role});
    write_audit(&mut tx, &Actor::new("dev"), "token.create", (None, Some(&token.name)), &detail).await?;
    tx.commit().await?;
    write_private(&folder.token_file(), secret.expose_secret().as_bytes())?;
    Ok(secret)
}

/// A claim that can be used, once there is one and those of the apps folder are all Ready; none after `limit`.
pub(super) async fn first_ready(ledger: &Ledger, limit: Duration) -> Option<Claim> {
    let mut ready = None;
    let wait = async {
        let mut empty = 0;
        loop {
            if let Ok(mut db) = ledger.acquire().await {
                let filter = ClaimFilter { source: Some(Source::Apps), ..ClaimFilter::default() };
                let all = claims(&mut db, &filter, 100).await.unwrap_or_default();
                let waiting = |c: &&Claim| {
                    matches!(c.state, DatabaseState::Pending | DatabaseState::Provisioning | DatabaseState::Degraded)
                };
                ready = all.iter().find(|c| c.state == DatabaseState::Ready).cloned();
                // An apps folder without a claim is seen within a second.
                empty += i32::from(all.is_empty());
                if (!all.is_empty() && !all.iter().any(|c| waiting(&c))) || empty > 30 {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, wait).await.ok();
    ready
}

/// What a person reads last: a line `ready`, and what to type next.
pub(super) fn message(
    folder: &Folder,
    address: SocketAddr,
    servers: &Servers,
    first: Option<&Claim>,
    example: bool,
    further: &[(&str, String)],
) -> String {
    let url = url(address);
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "  {name:<13}{value}").ok();
    line("REST", &format!("{url}/v1   documents: {url}/docs"));
    line(
        "token",
        &format!(
            "in {}; for your shell: . {}",
            folder.token_file().display(),
            quote(&folder.env_file().display().to_string())
        ),
    );
    line("credentials", &format!("{}/customer/NAMESPACE/ROLE.json", folder.secrets().display()));
    line("apps folder", &format!("{}{}", folder.apps().display(), if example { "   (with an example)" } else { "" }));
    let of = |wanted: &str| further.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
    if let Some(file) = of("KUBECONFIG") {
        line("Kubernetes", &format!("KUBECONFIG={}; then: kubectl get pgdb -A", quote(file)));
    }
    if let Some(url) = of("AWS_ENDPOINT_URL") {
        line("Amazon", &format!("moto at {url}; with the lines of env: aws secretsmanager list-secrets"));
    }
    if let Some(pooler) = &servers.pooler {
        line("PgBouncer", &format!("{}; poolUri in the credentials of read and write", pooler.address()));
    }
    line("log", &folder.log_file().display().to_string());
    if let Some(claim) = first {
        line("try", &psql(folder, servers, claim));
    }
    line("stop", "Ctrl-C; the next start goes on where this one was");
    format!("ready {url}\n{text}")
}

/// A line to paste: the password is in a passfile, and the writable host is found by libpq.
fn psql(folder: &Folder, servers: &Servers, claim: &Claim) -> String {
    let hosts = servers.hosts();
    let join = |part: fn(&pgtenant_model::HostPort) -> String| hosts.iter().map(part).collect::<Vec<_>>().join(",");
    format!(
        "PGPASSFILE={} psql \"host={} port={} dbname={} user={} sslmode=verify-full sslrootcert={} target_session_attrs=read-write\"",
        quote(&folder.passfile().display().to_string()),
        join(|h| h.host.clone()),
        join(|h| h.port.to_string()),
        claim.key.database(),
        claim.key.role(Tier::Admin),
        quote(&servers.ca_file.display().to_string()),
    )
}
