//! SIGTERM: nobody new, everybody else to the end.

use std::time::Duration;

use reqwest::Response;
use serde_json::json;

use crate::support::{Dialect, Gateway, Setup, Sim, events, eventually, json_of};

/// A gateway whose backend streams slowly, with one stream of each dialect in flight.
async fn with_streams_in_flight(
    setup: impl FnOnce(Setup) -> Setup,
) -> (Sim, Gateway, String, Vec<(Dialect, Response, String)>) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = setup(Setup::new(&sim));
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    sim.fault(json!({"kind": "slow", "ms": 25, "times": 3})).await;
    let mut streams = Vec::new();
    for dialect in Dialect::ALL {
        let mut answer = gateway.send(&key, dialect, &dialect.ask_streamed("[long 60]")).await;
        let first = answer.chunk().await.expect("a stream").expect("a first write");
        streams.push((dialect, answer, String::from_utf8_lossy(&first).into_owned()));
    }
    (sim, gateway, key, streams)
}

/// The rest of a stream behind what was read of it.
async fn rest(mut answer: Response, mut read: String) -> String {
    while let Ok(Some(bytes)) = answer.chunk().await {
        read.push_str(&String::from_utf8_lossy(&bytes));
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_streams_finish_and_refuses_new_requests() {
    // Another scheduler serves where there is one processor.
    for threads in ["1", "2"] {
        sigterm_lets_streams_finish(threads).await;
    }
}

async fn sigterm_lets_streams_finish(threads: &str) {
    let with_threads = |setup: Setup| setup.set("TOKIO_WORKER_THREADS", threads);
    let (_sim, mut gateway, key, streams) = with_streams_in_flight(with_threads).await;
    assert_eq!(gateway.ops_page("/readyz").await.0, 200);
    gateway.terminate();
    eventually("red readiness", async || (gateway.ops_page("/readyz").await.0 == 503).then_some(())).await;
    assert_eq!(gateway.ops_page("/healthz").await.0, 200, "alive while it drains");
    for dialect in Dialect::ALL {
        let (status, answer) = json_of(gateway.send(&key, dialect, &dialect.ask("late")).await).await;
        assert_eq!(status, 503, "{dialect:?}: {answer}");
    }
    for (dialect, answer, read) in streams {
        let events = events(&rest(answer, read).await);
        assert!(dialect.ended_well(&events), "{dialect:?} was cut: {:?}", events.last());
        assert!(dialect.streamed_text(&events).ends_with("word59 "), "{dialect:?} is complete");
    }
    assert_eq!(gateway.ended().await, Some(0), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_served_until_load_balancers_had_time_to_see_red_readiness() {
    let (sim, mut gateway, key, streams) =
        with_streams_in_flight(|setup| setup.set("TOLLWAY_SERVER__DRAIN_DELAY", "3s")).await;
    gateway.terminate();
    eventually("red readiness", async || (gateway.ops_page("/readyz").await.0 == 503).then_some(())).await;
    for dialect in Dialect::ALL {
        let (status, answer) = json_of(gateway.send(&key, dialect, &dialect.ask("in time")).await).await;
        assert_eq!(status, 200, "{dialect:?}: {answer}");
    }
    for (_, answer, read) in streams {
        rest(answer, read).await;
    }
    assert_eq!(gateway.ended().await, Some(0), "{}", gateway.log());
    drop(sim);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_outlive_the_grace_are_cut_and_the_exit_is_still_clean() {
    let (_sim, mut gateway, _, streams) =
        with_streams_in_flight(|setup| setup.set("TOLLWAY_SERVER__DRAIN_GRACE", "200ms")).await;
    gateway.terminate();
    assert_eq!(gateway.ended().await, Some(0), "{}", gateway.log());
    for (dialect, answer, read) in streams {
        let events = events(&rest(answer, read).await);
        assert!(!dialect.ended_well(&events), "{dialect:?}: a cut stream must not look good");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_at_sigterm_is_stored() {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    sim.fault(json!({"where": "token", "kind": "delay_ms", "ms": 700, "at": "after"})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let asking = tokio::spawn({
        let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(&key);
        request.json(&Dialect::Responses.ask("hello")).send()
    });
    eventually("a refresh under way", async || (!sim.requests("/oauth/token").await.is_empty()).then_some(())).await;
    // The client leaves; the refresh must not.
    asking.abort();
    let setup = gateway.stop().await;
    assert_eq!(sim.live_refresh_tokens(&account).await, [setup.refresh_token(&account).await]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_gateway_stops_at_once() {
    let sim = Sim::start().await;
    // It waits for nothing that may take so long.
    let mut gateway = Setup::new(&sim).set("TOLLWAY_SERVER__DRAIN_GRACE", "1h").serve().await;
    gateway.terminate();
    let ended = tokio::time::timeout(Duration::from_secs(5), gateway.ended()).await;
    assert_eq!(ended, Ok(Some(0)));
}
