//! What a tenant does in the moment in which a claim is ready: a table by admin, a row by write, a look by read.

use crate::api::Claim;
use crate::connect::Session;
use crate::error::{BenchError, Result};
use crate::lab::Lab;

/// Whether all three could do what they are for.
pub(crate) async fn works(lab: &Lab, claim: &Claim) -> Result<()> {
    let admin = login(lab, claim, "admin").await?;
    admin.batch("CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL)").await?;
    let write = login(lab, claim, "write").await?;
    write.batch("INSERT INTO orders (item) VALUES ('a book')").await?;
    let read = login(lab, claim, "read").await?;
    let row = read.client().query_one("SELECT item FROM orders", &[]).await;
    let item: String = row.map_err(BenchError::postgres("SELECT as read"))?.get(0);
    for session in [admin, write, read] {
        session.close().await;
    }
    if item == "a book" {
        return Ok(());
    }
    Err(BenchError::Claim { claim: claim.to_string(), message: format!("read sees {item:?}") })
}

async fn login(lab: &Lab, claim: &Claim, tier: &str) -> Result<Session> {
    let login = lab.credential(&claim.namespace, &format!("{}-{tier}", claim.database()))?;
    lab.primary.connect(&login, &claim.database()).await
}
