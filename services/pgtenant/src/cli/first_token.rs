//! `pgtenant token bootstrap`: a platform token straight into the ledger, since REST gives one only to who has one.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use clap::Args;
use pgtenant_ledger::{Actor, Ledger, LedgerError, NewToken, Token, TokenRole, create_token, write_audit};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::output::{note, until};
use super::server::{explain, settings};
use crate::config::SettingsArgs;
use crate::serve;

/// Arguments of `pgtenant token bootstrap`: those of `serve`, and the token's.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "For the first token, and for when every platform token is lost: it needs the settings and the password of the ledger, and
no control plane. The audit shows it as made by `bootstrap`.

Examples:
  pgtenant token bootstrap --config /etc/pgtenant/pgtenant.toml --file platform.token
  PGTENANT_TOKEN=$(pgtenant token bootstrap --config /etc/pgtenant/pgtenant.toml --name me --expires 1d)"
)]
pub(super) struct BootstrapArgs {
    /// For people; the audit shows token:NAME
    #[arg(long, default_value = "bootstrap", value_parser = name)]
    name: String,
    /// Time until it ends, as 90d [default: it does not end by itself]
    #[arg(long, value_parser = lifetime, value_name = "TIME")]
    expires: Option<TimeDelta>,
    /// Write the token into this new file, mode 0600, and not to standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// As REST has it for names of tokens.
fn name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && text.len() <= 64 && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `@` and `-`, with a letter or digit first".to_owned())
}

/// From a second to ten years, as REST has it.
fn lifetime(text: &str) -> Result<TimeDelta, String> {
    const LONGEST: Duration = Duration::from_secs(315_360_000);
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(Duration::from_secs(1)..=LONGEST).contains(&time) {
        return Err("is not between a second and ten years".to_owned());
    }
    TimeDelta::from_std(time).map_err(|error| error.to_string())
}

pub(super) async fn run(context: &Context, args: BootstrapArgs) -> Result<Outcome> {
    let BootstrapArgs { name, expires, file, settings: given } = args;
    let ledger = serve::ledger(&settings(&given)?).map_err(|error| explain(&*error))?;
    let expires_at = expires.map(|time| Utc::now() + time);
    let new = NewToken { name, role: TokenRole::Platform, namespaces: Vec::new(), expires_at };
    // A token that is valid and that nobody has is worse than a file that holds none: the file comes first.
    let target = file.as_deref().map(create).transpose()?;
    let made = make(&ledger, new, target).await;
    ledger.close().await;
    let (token, secret) = match made {
        Ok(made) => made,
        Err(error) => {
            if let Some(path) = &file {
                let _ = std::fs::remove_file(path);
            }
            return Err(error);
        }
    };
    if context.out.is_for_machines() {
        context.out.document(&document(&token, file.is_none().then_some(&secret)))?;
        return Ok(Outcome::Done);
    }
    let end = token
        .expires_at
        .map_or_else(|| "never ends by itself".to_owned(), |at| format!("ends {}", until(at, Utc::now())));
    let place = file.as_ref().map_or_else(|| "shown this once:".to_owned(), |path| format!("in {}", path.display()));
    note(&format!("token {} ({}, platform) {end}; it is {place}", token.id, token.name));
    if file.is_none() {
        context.out.line(secret.expose_secret())?;
    }
    Ok(Outcome::Done)
}

/// As `POST /v1/tokens` answers; the secret is null where a file has it.
fn document(token: &Token, secret: Option<&SecretString>) -> Value {
    let Token { id, name, role, namespaces, created_at, expires_at, revoked_at } = token;
    json!({
        "id": id, "name": name, "role": role, "namespaces": namespaces, "createdAt": created_at,
        "expiresAt": expires_at, "revokedAt": revoked_at, "secret": secret.map(ExposeSecret::expose_secret),
    })
}

fn create(path: &Path) -> Result<File> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| {
        let fault = CliError::failed(format!("can not make {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => fault.hint("name a file that is not there: nothing is overwritten"),
            _ => fault,
        }
    })
}

/// The token and its audit, once the file holds it.
async fn make(ledger: &Ledger, new: NewToken, file: Option<File>) -> Result<(Token, SecretString)> {
    let mut tx = ledger.begin().await.map_err(fault)?;
    let (token, secret) = create_token(&mut tx, new).await.map_err(fault)?;
    let detail = json!({
        "token": token.id, "role": token.role, "namespaces": token.namespaces, "expiresAt": token.expires_at,
    });
    let target = (None, Some(token.name.as_str()));
    write_audit(&mut tx, &Actor::new("bootstrap"), "token.create", target, &detail).await.map_err(fault)?;
    if let Some(mut file) = file {
        file.write_all(secret.expose_secret().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
    }
    tx.commit().await.map_err(|error| fault(error.into()))?;
    Ok((token, secret))
}

fn fault(error: LedgerError) -> CliError {
    let no_table = |error: &sqlx::Error| error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42P01");
    if matches!(&error, LedgerError::Database(error) if no_table(error)) {
        return CliError::failed("the ledger has no tables yet")
            .hint("`pgtenant migrate` with the same settings makes them");
    }
    explain(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_rest_takes() {
        assert!(["me", "ci.1@x_y-z", "0"].iter().all(|text| name(text).is_ok()));
        let long = "x".repeat(65);
        assert!(["", "-a", "a b", "ä", &long].iter().all(|text| name(text).is_err()));
    }

    #[test]
    fn a_token_lives_for_a_second_to_ten_years() {
        assert_eq!(lifetime("90d"), Ok(TimeDelta::days(90)));
        assert!(["0s", "11years", "x"].iter().all(|text| lifetime(text).is_err()));
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        create(&path).unwrap();
        assert!(create(&path).unwrap_err().render().contains("nothing is overwritten"));
    }
}
