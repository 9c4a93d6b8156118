//! What is wrong in the apps folder, for every replica to show.

use sqlx::PgConnection;

use crate::Result;

/// A fault in a file of the apps folder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct AppsProblem {
    /// The file, relative to the apps folder.
    pub file: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub line: i32,
    /// The key's path, as `postgresqlDatabases[0].mode`; empty where there is none.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Every problem of the last scan, by file and line.
///
/// # Errors
/// The ledger did not answer.
pub async fn apps_problems(db: &mut PgConnection) -> Result<Vec<AppsProblem>> {
    Ok(sqlx::query_as("select file, line, key, message from apps_problems order by file, line, key")
        .fetch_all(db)
        .await?)
}

/// Replaces the problems by those of a new scan.
///
/// # Errors
/// The ledger did not answer.
pub async fn replace_apps_problems(db: &mut PgConnection, problems: &[AppsProblem]) -> Result<()> {
    sqlx::query("delete from apps_problems").execute(&mut *db).await?;
    for problem in problems {
        sqlx::query("insert into apps_problems (file, line, key, message) values ($1, $2, $3, $4)")
            .bind(&problem.file)
            .bind(problem.line)
            .bind(&problem.key)
            .bind(&problem.message)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
