//! Which extensions a claim could have: `CREATE EXTENSION` runs as the tenant's admin role, which may install trusted ones
//! (PostgreSQL 13, "CREATE EXTENSION").

use std::collections::BTreeMap;

use pgtenant_model::CheckResult;
use serde::Deserialize;
use tokio_postgres::types::Type;

use super::statements::{self, Role};
use super::{Sandbox, ServerBasics, Trial, passed};
use crate::error::{PostgresError, chain};
use crate::session::Session;
use crate::sql::ident;

#[derive(Deserialize)]
struct Facts {
    /// On RDS: names separated by commas, or `*`. Extensions that are not among them are blocked.
    allowed: Option<String>,
    /// Those on the server, and whether somebody who is no superuser may create them.
    found: Vec<(String, bool)>,
}

/// What stands in the way of an extension, with what mends it; nothing is created. An extension that is not named: nothing.
///
/// # Errors
/// The server did not answer.
pub async fn extension_problems(
    session: &mut Session,
    extensions: &[String],
) -> Result<BTreeMap<String, String>, PostgresError> {
    const FACTS: &str = "SELECT json_build_object( \
             'allowed', nullif(current_setting('rds.allowed_extensions', true), ''), \
             'found', (SELECT coalesce(json_agg(json_build_array(v.name, v.trusted OR NOT v.superuser)), '[]') \
                FROM pg_available_extension_versions v JOIN pg_available_extensions e \
                  ON e.name = v.name AND e.default_version = v.version WHERE v.name = ANY ($1)))::text";
    if extensions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let what = "look for extensions";
    let text = session.texts(what, FACTS, &[(&extensions, Type::TEXT_ARRAY)]).await?.into_iter().flatten().next();
    let facts: Facts = serde_json::from_str(&text.unwrap_or_default())
        .map_err(|error| PostgresError::Answer { what: what.to_owned(), reason: chain(&error) })?;
    Ok(facts.problems(extensions))
}

impl Facts {
    fn problems(&self, extensions: &[String]) -> BTreeMap<String, String> {
        let allowed = self.allowed.as_deref().map(|list| list.split(',').map(str::trim).collect::<Vec<_>>());
        let blocked = |name: &str| allowed.as_ref().is_some_and(|list| !list.contains(&"*") && !list.contains(&name));
        let may = |name: &str| self.found.iter().find(|(found, _)| found == name).map(|(_, may)| *may);
        let problem = |name: &String| match may(name) {
            _ if blocked(name) => Some(format!(
                "{name} is blocked: add it to rds.allowed_extensions in the cluster's parameter group, or take it off \
                 allowedExtensions"
            )),
            None => Some(format!("{name} is not on the server: install its package on every server")),
            Some(false) => Some(format!(
                "only a superuser may create {name}, which is not trusted: take it off allowedExtensions, or set \
                 `trusted = true` in its control file on every server"
            )),
            Some(true) => None,
        };
        extensions.iter().filter_map(|name| Some((name.clone(), problem(name)?))).collect()
    }
}

/// Creates each of `extensions` in a transaction that is rolled back, as a tenant's admin role does. The messages of several that
/// do not work are one.
///
/// # Errors
/// The server did not answer; a refusal is the trial's outcome.
pub async fn try_extensions(
    sandbox: &mut Sandbox,
    basics: &ServerBasics,
    extensions: &[String],
) -> Result<Trial, PostgresError> {
    let Sandbox { database, inside } = sandbox;
    let mut problems = extension_problems(inside, extensions).await?;
    let deadline = inside.timeouts().statement;
    for extension in extensions {
        if problems.contains_key(extension) {
            continue;
        }
        let role = Role::new(basics.version);
        let mut all = vec!["ROLLBACK".to_owned(), "BEGIN".to_owned()];
        all.extend(role.make());
        all.extend(role.own(database));
        all.extend([
            format!("SET LOCAL ROLE {}", role.name()),
            "SET LOCAL search_path = public".to_owned(),
            format!("CREATE EXTENSION {}", ident(extension)),
            "ROLLBACK".to_owned(),
        ]);
        if let Some(refusal) = statements::run(inside, &all, deadline).await? {
            problems.insert(extension.clone(), refusal.plain().1);
        }
    }
    Ok(match problems.is_empty() {
        true => passed(format!("{} can be created", extensions.join(", "))),
        false => (CheckResult::Failed, problems.into_values().collect::<Vec<_>>().join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_blocked_missing_or_not_trusted_is_told_apart() {
        let found = vec![("pgcrypto".to_owned(), true), ("dblink".to_owned(), false), ("hstore".to_owned(), true)];
        let asked = ["pgcrypto", "dblink", "hstore", "postgis"].map(str::to_owned);
        let problems = |allowed: Option<&str>| {
            Facts { allowed: allowed.map(str::to_owned), found: found.clone() }.problems(&asked)
        };
        for allowed in [None, Some("*")] {
            let told = problems(allowed);
            assert_eq!(told.keys().collect::<Vec<_>>(), ["dblink", "postgis"]);
            assert!(told["dblink"].starts_with("only a superuser may create dblink"), "{told:?}");
            assert!(told["postgis"].starts_with("postgis is not on the server"), "{told:?}");
        }
        let told = problems(Some("pgcrypto, dblink,postgis"));
        assert!(told["hstore"].starts_with("hstore is blocked: add it to rds.allowed_extensions"), "{told:?}");
        assert_eq!(told.len(), 3);
    }
}
