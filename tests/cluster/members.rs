//! Replicas come, go and stand still; what is in the database is everybody's.

use serde_json::json;

use crate::cluster::Cluster;
use crate::support::{Sim, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn replicas_serve_from_one_database_through_kills_pauses_and_a_restart_of_it() {
    let sim = Sim::start().await;
    let Some(mut cluster) = Cluster::new(&sim, 2, &[]).await else { return };
    let account = sim.account(json!({})).await;
    cluster.setup().import(&account);
    let key = cluster.setup().key("ada");
    cluster.serve().await;
    for number in cluster.running() {
        assert_eq!(cluster.gateway(number).status(&key).await, 200, "{}", cluster.logs());
    }

    cluster.kill(0);
    assert_eq!(cluster.running(), [1]);
    assert_eq!(cluster.gateway(1).status(&key).await, 200);
    cluster.start(0).await;
    assert_eq!(cluster.gateway(0).status(&key).await, 200);

    cluster.pause(1);
    let paused = cluster.gateway(1);
    let asking = tokio::spawn({
        let request = paused.http.get(format!("{}/readyz", paused.ops)).timeout(std::time::Duration::from_millis(300));
        request.send()
    });
    assert!(asking.await.expect("a result").is_err(), "a paused replica answers nobody");
    cluster.resume(1);
    assert_eq!(cluster.gateway(1).status(&key).await, 200);

    cluster.postgres.end("fast");
    assert!(cluster.postgres.begin());
    for number in cluster.running() {
        eventually("a ready replica", async || {
            let (status, _) = cluster.gateway(number).ops_page("/readyz").await;
            status.is_success().then_some(())
        })
        .await;
        assert_eq!(cluster.gateway(number).status(&key).await, 200, "{}", cluster.logs());
    }
    assert_eq!(cluster.store().await.accounts().list().await.expect("accounts").len(), 1);
}
