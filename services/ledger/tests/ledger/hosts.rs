//! A ledger on several hosts.

use std::time::{Duration, Instant};

use pgtenant_ledger::Ledger;

/// Waits until something can be written.
async fn writes(ledger: &Ledger) {
    let begun = Instant::now();
    loop {
        let written = async {
            let mut tx = ledger.begin().await?;
            sqlx::query("insert into clusters (name, spec, source) values (gen_random_uuid()::text, '{}', 'settings')")
                .execute(&mut *tx)
                .await?;
            Ok::<_, pgtenant_ledger::LedgerError>(tx.commit().await?)
        };
        match written.await {
            Ok(()) => return,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_made_to_the_host_that_takes_writes() {
    let mut cluster = pgtenant_testkit::pair().await;
    let primary = cluster.superuser();
    let standby = cluster.standby().expect("a standby").superuser();
    // The one that is named first is a standby.
    let ledger = Ledger::on_hosts(standby, vec![primary], 4);
    ledger.migrate().await.expect("the schema");
    writes(&ledger).await;
    let mut listener = ledger.listen(&["news"]).await.expect("ears");

    cluster.primary().kill().await;
    cluster.promote_standby().await.expect("a promotion");
    writes(&ledger).await;
    listener.recv().await.expect_err("its server is gone");
    let mut listener = ledger.listen(&["news"]).await.expect("ears");
    sqlx::query("notify news, 'again'")
        .execute(&mut *ledger.acquire().await.expect("a connection"))
        .await
        .expect("said");
    assert_eq!(listener.recv().await.expect("heard")[0].payload, "again");
}
