//! Looking at a claim: one round trip from outside, one from inside.

use pgtenant_model::{ClaimKey, Tier};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{PostgresError, chain};
use crate::observed::{Inside, Observed};
use crate::plan::Desired;
use crate::server::Server;
use crate::session::{Parameter, Session};
use tokio_postgres::types::Type;

const OBSERVE: &str = include_str!("sql/observe.sql");
const INSIDE: &str = include_str!("sql/inside.sql");
const FOREIGN: &str = include_str!("sql/foreign.sql");

/// What is looked at for one claim.
#[derive(Debug, Serialize)]
struct Target<'a> {
    database: String,
    roles: Vec<String>,
    extensions: &'a [String],
}

impl<'a> Target<'a> {
    fn new(key: &ClaimKey, database: &str, extensions: &'a [String]) -> Self {
        let roles = Tier::ALL.into_iter().flat_map(|tier| [key.role(tier), key.second_login(tier)]);
        Self { database: database.to_owned(), roles: roles.collect(), extensions }
    }
}

/// Looks at one claim's roles and `database`, its own or a copy, from the maintenance database.
///
/// # Errors
/// [`PostgresError::Standby`] where nothing could be changed; else what the server says.
pub async fn observe(
    server: &Server,
    session: &mut Session,
    key: &ClaimKey,
    database: &str,
    extensions: &[String],
) -> Result<Observed, PostgresError> {
    let what = format!("look at database {database:?}");
    let targets = write(&what, &[Target::new(key, database, extensions)])?;
    let observed: Observed = one(&what, session.texts(&what, OBSERVE, &[(&targets, Type::TEXT)]).await?)?;
    server.saw_clock(observed.server.clock);
    if observed.server.in_recovery {
        return Err(PostgresError::Standby { what });
    }
    Ok(observed)
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
    let key = &desired.key;
    let what = format!("look into database {:?}", desired.database);
    let roles = Tier::ALL.map(|tier| key.role(tier));
    let [read, write, admin] = &roles;
    let seconds = Tier::ALL.map(|tier| key.second_login(tier));
    let schemas: Vec<_> = std::iter::once("public").chain(desired.schemas.iter().map(String::as_str)).collect();
    let most = i64::try_from(Inside::MOST).unwrap_or(i64::MAX);
    let parameters: [Parameter<'_>; 8] = [
        (&provisioner, Type::TEXT),
        (read, Type::TEXT),
        (write, Type::TEXT),
        (admin, Type::TEXT),
        (&key.second_login(Tier::Admin), Type::TEXT),
        (&seconds.as_slice(), Type::TEXT_ARRAY),
        (&schemas, Type::TEXT_ARRAY),
        (&most, Type::INT8),
    ];
    let mut inside: Inside = one(&what, session.texts(&what, INSIDE, &parameters).await?)?;
    if desired.adopt {
        let own: Vec<_> = roles.iter().chain(&seconds).collect();
        let parameters: [Parameter<'_>; 4] =
            [(&provisioner, Type::TEXT), (&own, Type::TEXT_ARRAY), (&schemas, Type::TEXT_ARRAY), (&most, Type::INT8)];
        inside.foreign = one(&what, session.texts(&what, FOREIGN, &parameters).await?)?;
    }
    Ok(inside)
}

fn one<T: DeserializeOwned>(what: &str, rows: Vec<Option<String>>) -> Result<T, PostgresError> {
    read(what, rows.into_iter().next().flatten())
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
