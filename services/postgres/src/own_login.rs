//! A login of the control plane that replaces its own password: on 16 and later nobody but a superuser could do it for it, since
//! logins that act as the group can not be managed by the group.

use crate::error::PostgresError;
use crate::server::Server;
use crate::session::Session;
use crate::sql::{ident, literal};
use crate::verifier::Verifier;
use secrecy::SecretString;

/// Of the database, so that whoever holds it is the only one: it ends with the session.
const TURN: &str = "SELECT pg_try_advisory_lock(hashtext('pgtenant'), hashtext('own login'))::text";

/// The role as which a session makes things.
///
/// # Errors
/// What the server says.
pub async fn acts_as(session: &mut Session) -> Result<String, PostgresError> {
    let rows = session.texts("ask for the session's role", "SELECT current_user::text", &[]).await?;
    Ok(rows.into_iter().flatten().next().unwrap_or_default())
}

/// A session of the login whose password is to be replaced.
#[derive(Debug)]
pub struct OwnLogin {
    session: Session,
    login: String,
}

impl OwnLogin {
    /// Logs in and takes the turn; none: another replica has it.
    ///
    /// # Errors
    /// What the server says; see [`PostgresError::sqlstate`].
    pub async fn take_turn(
        server: &Server,
        login: &str,
        password: &SecretString,
    ) -> Result<Option<Self>, PostgresError> {
        let mut session = server.log_in(&server.options().maintenance_database, login, password).await?;
        let granted = session.texts("take the turn of the own login", TURN, &[]).await?;
        let ours = granted.first().is_some_and(|granted| granted.as_deref() == Some("true"));
        Ok(ours.then(|| Self { session, login: login.to_owned() }))
    }

    /// Replaces the password; sessions go on. The login acts as itself for that, and not as the group.
    ///
    /// # Errors
    /// What the server says.
    pub async fn set_password(&mut self, verifier: &Verifier) -> Result<(), PostgresError> {
        let (login, password) = (ident(&self.login), literal(verifier.expose()));
        let sql = format!("SET ROLE NONE; ALTER ROLE {login} PASSWORD {password}");
        let deadline = self.session.timeouts().statement;
        let set = self.session.batch(&sql, deadline).await;
        set.map_err(|failure| failure.cause.into_error(&format!("replace the password of {login}")))
    }

    /// Whether the turn is still held, as the server says now.
    pub async fn still_has_it(&mut self) -> bool {
        self.session.texts("ask for a sign of life", "SELECT 'yes'", &[]).await.is_ok()
    }
}
