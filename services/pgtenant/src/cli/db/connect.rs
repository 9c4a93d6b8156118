//! `pgtenant db connect`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use pgtenant_model::{ClaimKey, RoleStatus, Roles, SecretRef, Tier};
use pgtenant_secrets::Access;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::change::TierArg;
use super::psql::{Login, open};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Outcome, Result};
use crate::cli::name::{Target, database_path};
use crate::cli::server::explain;

/// A credential has a few KiB.
const MAX_BYTES: u64 = 64 * 1024;

/// Arguments of `pgtenant db connect`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The password is in no argument and no variable: psql reads it from a file that is gone afterwards.

Examples:
  pgtenant db connect idp-dev/my-db
  pgtenant db connect idp-dev/my-db --tier admin
  pgtenant db connect idp-dev/my-db --tier write -- -c 'select 1'"
)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    target: Target,
    /// As which role
    #[arg(long, value_enum, default_value = "read")]
    tier: TierArg,
    /// The directory of the file store; where it is not given a Secret is read, by KUBECONFIG
    #[arg(long, env = "PGTENANT_SECRETS_DIR", value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// Arguments for psql
    #[arg(last = true, value_name = "PSQL ARGS")]
    psql: Vec<OsString>,
}

#[derive(Deserialize)]
struct Credentials {
    roles: Roles,
}

pub(super) async fn run(context: &Context, args: &ConnectArgs) -> Result<Outcome> {
    let login = login(context, &args.target.key()?, args.tier.tier(), args.secrets_dir.as_deref()).await?;
    let ca = std::env::var_os("PGTENANT_CA").filter(|path| !path.is_empty()).map(PathBuf::from);
    open(&login, ca.as_deref(), &args.psql).await
}

/// The stored credential of a tier, read from the file store or from a Secret.
///
/// # Errors
/// It is in neither, or can not be read from here.
pub(in crate::cli) async fn login(
    context: &Context,
    key: &ClaimKey,
    tier: Tier,
    secrets_dir: Option<&Path>,
) -> Result<Login> {
    let path = [&database_path(key)[..], &["credentials"]].concat();
    let Credentials { roles } = context.client()?.get(&path, &[]).await?.read()?;
    let role = match tier {
        Tier::Read => roles.read,
        Tier::Write => roles.write,
        Tier::Admin => roles.admin,
    };
    match locate(key, tier, &role, secrets_dir)? {
        Place::File(file) => read(&file),
        Place::Secret(secret) => read_secret(&secret).await,
    }
}

/// Where a credential is that can be read from here.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Secret(SecretRef),
}

/// What holds the credential of a role: a file where the directory is known, or else a Secret.
fn locate(key: &ClaimKey, tier: Tier, role: &RoleStatus, directory: Option<&Path>) -> Result<Place> {
    if role.stores.is_empty() {
        return Err(CliError::failed(format!("the {tier} credential of {key} was not stored yet"))
            .hint(format!("`pgtenant db get {key}` says how far it is")));
    }
    let of = |store: &str| role.stores.iter().find(|place| place.store == store);
    let secret = of("kubernetes").and_then(|place| place.location.split_once('/'));
    let secret = secret.map(|(namespace, name)| SecretRef { namespace: namespace.to_owned(), name: name.to_owned() });
    let (place, directory) = match (of("file"), directory, secret) {
        (Some(place), Some(directory), _) => (place, Some(directory)),
        (_, _, Some(secret)) => return Ok(Place::Secret(secret)),
        (Some(place), None, None) => (place, None),
        (None, _, None) => {
            let places: Vec<String> = role.stores.iter().map(|p| format!("{} {}", p.store, p.location)).collect();
            return Err(CliError::failed(format!(
                "the {tier} credential of {key} is in no store that is read from here"
            ))
            .hint(format!("it is in {}; read it from there", places.join(", "))));
        }
    };
    let Some(directory) = directory else {
        return Err(CliError::usage("which directory holds the credentials?").hint(
            "set PGTENANT_SECRETS_DIR (or --secrets-dir) to the directory of the file store; with `pgtenant dev`, \
             `. DIR/env` sets it",
        ));
    };
    let mut relative = PathBuf::from(&place.location);
    if relative.as_os_str().is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(CliError::failed(format!("{:?} is not a place below a directory", place.location)));
    }
    if relative.extension().is_none_or(|extension| extension != "json") {
        relative.as_mut_os_string().push(".json");
    }
    Ok(Place::File(directory.join(relative)))
}

/// As whoever runs this may: by the file that KUBECONFIG names, `~/.kube/config`, or a Pod's ServiceAccount.
async fn read_secret(secret: &SecretRef) -> Result<Login> {
    let fault = |why: String| CliError::failed(format!("can not use the credential in {secret}: {why}"));
    let client = pgtenant_operator::connect(None).await.map_err(|error| {
        fault(explain(&error).render().trim().to_owned())
            .hint("set KUBECONFIG; where it is in a file store as well, PGTENANT_SECRETS_DIR will do")
    })?;
    let values = Access::with_kubernetes(client).read(secret).await;
    let values = values.map_err(|error| fault(error.what()).hint("whoever runs this has to be allowed to read it"))?;
    let fields: BTreeMap<_, _> = values.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).collect();
    let mut text = Zeroizing::new(Vec::with_capacity(8192));
    let parsed = serde_json::to_writer(&mut *text, &fields).and_then(|()| serde_json::from_slice(&text));
    // The library's own words would quote values.
    parsed.map_err(|_| fault("it is not as pgtenant writes it".to_owned()))
}

fn read(file: &Path) -> Result<Login> {
    let fault = |why: String| CliError::failed(format!("can not use the credential {}: {why}", file.display()));
    let text = std::fs::File::open(file)
        .and_then(|found| {
            let mut text = Vec::with_capacity(8192);
            std::io::Read::read_to_end(&mut std::io::Read::take(found, MAX_BYTES), &mut text)?;
            Ok(Zeroizing::new(text))
        })
        .map_err(|error| {
            fault(error.to_string())
                .hint("are PGTENANT_SECRETS_DIR right and the file yours to read? it must be on this machine")
        })?;
    // The library's own words would quote values.
    serde_json::from_slice(&text)
        .map_err(|error| fault(format!("it is not as expected (line {}, column {})", error.line(), error.column())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgtenant_model::StoreLocation;

    fn role(places: &[(&str, &str)]) -> RoleStatus {
        let stores = places.iter().map(|(store, location)| StoreLocation::new(*store, *location));
        RoleStatus { role: "a-b-read".into(), login: "a-b-read".into(), set_at: None, stores: stores.collect() }
    }

    fn find(places: &[(&str, &str)], directory: Option<&str>) -> Result<Place> {
        let key = ClaimKey::new("a", "b").unwrap();
        locate(&key, Tier::Read, &role(places), directory.map(Path::new))
    }

    #[test]
    fn the_file_store_is_found_among_others() {
        let places = [("kubernetes", "a/a-b-read"), ("file", "customer/a/a-b-read.json")];
        let file = |path: &str| Place::File(path.into());
        assert_eq!(find(&places, Some("/s")).unwrap(), file("/s/customer/a/a-b-read.json"));
        assert_eq!(find(&[("file", "x/y")], Some("/s")).unwrap(), file("/s/x/y.json"));
        // Which directory that is nobody has said, and there is another way.
        let secret = Place::Secret(SecretRef { namespace: "a".to_owned(), name: "a-b-read".to_owned() });
        assert_eq!(find(&places, None).unwrap(), secret);
        assert_eq!(find(&places[..1], Some("/s")).unwrap(), secret);
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(find(&[], Some("/s")).unwrap_err().render().contains("not stored yet"));
        assert!(find(&[("vault", "kv/x")], Some("/s")).unwrap_err().render().contains("vault kv/x"));
        assert!(find(&[("file", "x")], None).unwrap_err().render().contains("PGTENANT_SECRETS_DIR"));
    }

    #[test]
    fn a_location_does_not_leave_the_directory() {
        for location in ["../x", "/etc/x", "a/../../x", ""] {
            assert!(find(&[("file", location)], Some("/s")).is_err(), "{location}");
        }
    }
}
