//! Whether another login can take the provisioner's place, so that its password can be replaced.

use pgtenant_model::CheckResult;
use serde::Deserialize;

use super::{Trial, passed};
use crate::error::{PostgresError, chain};
use crate::session::Session;
use crate::sql::{ident, literal};

#[derive(Deserialize)]
struct Facts {
    group: String,
    /// The one that is in use.
    login: String,
    logins: Vec<Login>,
}

#[derive(Deserialize)]
struct Login {
    name: String,
    /// Its sessions act as the group from their first statement.
    acts: bool,
}

/// The logins of the group that the provisioner acts as. None: it acts as itself.
///
/// # Errors
/// The server did not answer.
pub async fn try_logins(session: &mut Session) -> Result<Option<Trial>, PostgresError> {
    const LOGINS: &str = "SELECT json_build_object('group', current_user, 'login', session_user, 'logins', ( \
             SELECT coalesce(json_agg(json_build_object('name', r.rolname, 'acts', EXISTS ( \
                        SELECT FROM pg_db_role_setting s, unnest(s.setconfig) c \
                         WHERE s.setrole = r.oid AND s.setdatabase = 0 AND c = 'role=' || current_user)) \
                      ORDER BY r.rolname), '[]') \
               FROM pg_roles r WHERE r.rolcanlogin AND NOT r.rolsuper AND r.oid IN ( \
                        SELECT m.member FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
                         WHERE g.rolname = current_user)))::text \
         WHERE current_user <> session_user";
    let what = "look for the provisioner's logins";
    let Some(text) = session.texts(what, LOGINS, &[]).await?.into_iter().flatten().next() else { return Ok(None) };
    let Facts { group, login: own, logins } = serde_json::from_str(&text)
        .map_err(|error| PostgresError::Answer { what: what.to_owned(), reason: chain(&error) })?;
    if let Some(Login { name, .. }) = logins.iter().find(|login| !login.acts) {
        let (quoted, value) = (ident(name), literal(&group));
        let told = format!(
            "{name:?} is a member of {group:?} and does not act as it: what it makes would be its own; a superuser mends it \
             with: ALTER ROLE {quoted} SET role = {value};"
        );
        return Ok(Some((CheckResult::Warning, told)));
    }
    Ok(Some(passed(match logins.as_slice() {
        [] | [_] => format!("{own:?} acts as {group:?}; another login that does can take its place at any time"),
        several => {
            let names: Vec<_> = several.iter().map(|login| format!("{:?}", login.name)).collect();
            format!("{} act as {group:?}", names.join(" and "))
        }
    })))
}
