//! Looking at a cluster: one round trip from outside for any number of claims, one from inside for each.

use pgtenant_model::{ClaimKey, Tier};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{PostgresError, chain};
use crate::observed::{Inside, Observed};
use crate::plan::Desired;
use crate::server::Server;
use crate::session::Session;

const OBSERVE: &str = include_str!("sql/observe.sql");
const INSIDE: &str = include_str!("sql/inside.sql");

/// What is looked at for one claim.
#[derive(Debug, Serialize)]
struct Target<'a> {
    database: String,
    roles: Vec<String>,
    extensions: &'a [String],
}

impl<'a> Target<'a> {
    fn new(key: &ClaimKey, extensions: &'a [String]) -> Self {
        let roles = Tier::ALL.into_iter().flat_map(|tier| [key.role(tier), key.second_login(tier)]);
        Self { database: key.database(), roles: roles.collect(), extensions }
    }
}

/// Looks at one claim from the maintenance database.
///
/// # Errors
/// [`PostgresError::Standby`] where nothing could be changed; else what the server says.
pub async fn observe(
    server: &Server,
    session: &mut Session,
    key: &ClaimKey,
    extensions: &[String],
) -> Result<Observed, PostgresError> {
    let what = format!("look at database {:?}", key.database());
    let target = [Target::new(key, extensions)];
    let observed = documents(server, session, &what, &target).await?.into_iter().next();
    observed.ok_or_else(|| PostgresError::Answer { what, reason: "no row".into() })
}

/// Looks at many claims in one round trip; the answers are in the order of the claims. A hundred at a time is a good
/// number: the server takes about as long for them as for three by themselves.
///
/// # Errors
/// As [`observe`].
pub async fn observe_many(
    server: &Server,
    session: &mut Session,
    claims: &[(&ClaimKey, &[String])],
) -> Result<Vec<Observed>, PostgresError> {
    let what = format!("look at {} databases", claims.len());
    let targets: Vec<_> = claims.iter().map(|(key, extensions)| Target::new(key, extensions)).collect();
    documents(server, session, &what, &targets).await
}

async fn documents(
    server: &Server,
    session: &mut Session,
    what: &str,
    targets: &[Target<'_>],
) -> Result<Vec<Observed>, PostgresError> {
    let targets = write(what, targets)?;
    let texts = session.texts(what, OBSERVE, &[&targets]).await?;
    let observed: Vec<Observed> = texts.into_iter().map(|text| read(what, text)).collect::<Result<_, _>>()?;
    if let Some(last) = observed.last() {
        server.saw_clock(last.server.clock);
        if last.server.in_recovery {
            return Err(PostgresError::Standby { what: what.to_owned() });
        }
    }
    Ok(observed)
}

/// What [`observe_inside`] asks for.
#[derive(Debug, Serialize)]
struct InsideTarget<'a> {
    provisioner: &'a str,
    admin: String,
    read: String,
    write: String,
    second_admin: String,
    seconds: Vec<String>,
    schemas: Vec<&'a str>,
    adopt: bool,
}

/// Looks at a claim from within its database. Any login of the claim may ask, and sees the same: the session that proved
/// the admin tier's password will do. `provisioner` is [`ServerFacts::current_user`](crate::ServerFacts::current_user).
///
/// # Errors
/// What the server says.
pub async fn observe_inside(
    session: &mut Session,
    desired: &Desired,
    provisioner: &str,
) -> Result<Inside, PostgresError> {
    let Desired { key, schemas, adopt, .. } = desired;
    let what = format!("look into database {:?}", key.database());
    let target = InsideTarget {
        provisioner,
        admin: key.role(Tier::Admin),
        read: key.role(Tier::Read),
        write: key.role(Tier::Write),
        second_admin: key.second_login(Tier::Admin),
        seconds: Tier::ALL.map(|tier| key.second_login(tier)).into(),
        schemas: std::iter::once("public").chain(schemas.iter().map(String::as_str)).collect(),
        adopt: *adopt,
    };
    let most = Inside::MOST.to_string();
    let texts = session.texts(&what, INSIDE, &[&write(&what, &target)?, &most]).await?;
    read(&what, texts.into_iter().next().flatten())
}

fn write(what: &str, value: &(impl Serialize + ?Sized)) -> Result<String, PostgresError> {
    serde_json::to_string(value).map_err(|error| PostgresError::Answer {
        what: what.to_owned(),
        reason: format!("the question can not be written: {error}"),
    })
}

fn read<T: DeserializeOwned>(what: &str, text: Option<String>) -> Result<T, PostgresError> {
    let text = text.unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| PostgresError::Answer { what: what.to_owned(), reason: chain(&error) })
}
