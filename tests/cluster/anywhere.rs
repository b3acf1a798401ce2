//! What is begun on one replica goes on on any other: responses that are kept, batches, and people's
//! sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::support::people::{Parts, where_people_sign_in};
use crate::support::{Dialect, Event, Gateway, Sim, events, eventually_within, json_of, skip};

const BACKEND: &str = "/backend-api/codex/responses";

/// Three replicas with one account, and a key.
async fn three(sim: &Sim) -> Option<(Cluster, String)> {
    let mut cluster = Cluster::new(sim, 3, &[]).await?;
    cluster.setup().import(&sim.account(json!({})).await);
    let key = cluster.setup().key("ada");
    cluster.serve().await;
    Some((cluster, key))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_response_is_followed_read_and_deleted_on_any_replica() {
    let sim = Sim::start().await;
    let Some((cluster, key)) = three(&sim).await else { return };
    let mut said = vec!["turn 0".to_owned()];
    let ask = json!({"model": "gpt-6.1-sol", "input": said[0]});
    let mut last = cluster.gateway(0).whole(&key, Dialect::Responses, &ask).await;
    // At once, each time on the next one: as fast as an agent follows its own calls.
    for turn in 1..12 {
        said.push(format!("turn {turn}"));
        let ask = json!({"model": "gpt-6.1-sol", "input": said[turn], "previous_response_id": last["id"]});
        last = cluster.gateway(turn % 3).whole(&key, Dialect::Responses, &ask).await;
        let seen = sim.requests(BACKEND).await.pop().expect("a request");
        let input = seen["body"]["input"].as_array().expect("a list");
        let users = input.iter().filter(|item| item["role"] == "user");
        let texts: Vec<_> = users.filter_map(|item| item["content"][0]["text"].as_str()).collect();
        assert_eq!(texts, said);
    }
    let id = last["id"].as_str().expect("an id");
    let path = |number: usize| format!("{}/v1/responses/{id}", cluster.gateway(number).url);
    for number in cluster.running() {
        let http = &cluster.gateway(number).http;
        let (status, kept) = json_of(http.get(path(number)).bearer_auth(&key).send().await.expect("an answer")).await;
        assert_eq!((status.as_u16(), &kept["id"], &kept["output"]), (200, &last["id"], &last["output"]));
    }
    let gone = cluster.gateway(1).http.delete(path(1)).bearer_auth(&key).send().await.expect("an answer");
    assert_eq!(gone.status(), 200);
    for number in cluster.running() {
        let answer = cluster.gateway(number).http.get(path(number)).bearer_auth(&key).send().await.expect("an answer");
        assert_eq!(answer.status(), 404);
    }
}

/// The events of a background response as they are followed on a replica, and their numbers.
async fn followed(gateway: &Gateway, key: &str, id: &str, after: u64) -> Vec<(String, u64)> {
    let url = format!("{}/v1/responses/{id}?stream=true&starting_after={after}", gateway.url);
    let answer = gateway.http.get(url).bearer_auth(key).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let events = events(&answer.text().await.expect("events"));
    let number = |event: &Event| event.json()["sequence_number"].as_u64().expect("a number");
    events.iter().map(|event| (event.name.clone(), number(event))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_response_is_followed_on_any_replica_also_while_it_runs() {
    let sim = Sim::start().await;
    let Some((cluster, key)) = three(&sim).await else { return };
    sim.fault(json!({"kind": "slow", "ms": 60, "where": "responses"})).await;
    let ask = json!({"model": "gpt-6.1-sol", "input": "hello [long 40]", "background": true, "stream": true});
    let mut answer = cluster.gateway(0).send(&key, Dialect::Responses, &ask).await;
    let mut begun = String::new();
    while !begun.contains("\n\n") {
        begun.push_str(&String::from_utf8_lossy(&answer.chunk().await.expect("a stream").expect("an event")));
    }
    let first = &events(&begun)[0];
    let id = first.json()["response"]["id"].as_str().expect("an id").to_owned();
    // It takes some seconds more.
    let following = |number: usize| followed(cluster.gateway(number), &key, &id, 0);
    let (here, there) = tokio::join!(following(0), following(1));
    assert_eq!(there.last().map(|(name, _)| name.as_str()), Some("response.completed"));
    assert_eq!(there, here, "the same events with the same numbers");
    // And when it is over, from any place, on a replica that has nothing to do with it.
    let after = there[2].1;
    assert_eq!(followed(cluster.gateway(2), &key, &id, after).await, there[3..]);
}

/// A batch as a replica sees it; where it has ended, with its results.
async fn batch(gateway: &Gateway, key: &str, id: &str) -> (Value, Vec<Value>) {
    let get = |url: String| gateway.http.get(url).header("x-api-key", key).header("anthropic-version", "2023-06-01");
    let asked = get(format!("{}/v1/messages/batches/{id}", gateway.url)).send().await.expect("an answer");
    let (status, batch) = json_of(asked).await;
    assert_eq!(status, 200, "{batch}");
    let Some(url) = batch["results_url"].as_str() else { return (batch, Vec::new()) };
    let lines = get(url.to_owned()).send().await.expect("an answer").text().await.expect("lines");
    let results = lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    (batch, results)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_read_on_any_replica_and_goes_on_when_the_one_that_works_on_it_is_killed() {
    let sim = Sim::start().await;
    let Some((mut cluster, key)) = three(&sim).await else { return };
    let requests: Vec<_> = (0..20)
        .map(|number| {
            let messages = json!([{"role": "user", "content": format!("number {number} [long 40]")}]);
            let params = json!({"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": messages});
            json!({"custom_id": format!("r-{number}"), "params": params})
        })
        .collect();
    let post = cluster.gateway(0).http.post(format!("{}/v1/messages/batches", cluster.gateway(0).url));
    let post = post.header("x-api-key", &key).header("anthropic-version", "2023-06-01");
    let (status, handed_in) = json_of(post.json(&json!({"requests": requests})).send().await.expect("an answer")).await;
    assert_eq!(status, 200, "{handed_in}");
    let id = handed_in["id"].as_str().expect("an id");

    let worker = eventually_within(Duration::from_secs(30), "somebody works on it", async || {
        let calls = sim.requests(BACKEND).await;
        let who = calls.last()?["headers"]["user-agent"].as_str()?.strip_prefix("replica-")?.parse::<usize>().ok()?;
        (calls.len() >= 4).then_some(who)
    })
    .await;
    cluster.kill(worker);
    // Its requests are free again when their lease is over.
    for number in cluster.running() {
        let gateway = cluster.gateway(number);
        let results = eventually_within(Duration::from_mins(2), "the end of the batch", async || {
            let (batch, results) = batch(gateway, &key, id).await;
            (batch["processing_status"] == "ended").then_some(results)
        })
        .await;
        assert_eq!(results.len(), 20);
        for (number, line) in results.iter().enumerate() {
            assert_eq!(line["custom_id"], format!("r-{number}"));
            assert_eq!(line["result"]["type"], "succeeded", "{line}");
        }
    }
}

/// Hands each connection to the next of several servers.
struct Balancer {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Balancer {
    fn over(listener: TcpListener, targets: Vec<String>) -> Self {
        let address = listener.local_addr().expect("its address");
        let next = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let target = targets[next.fetch_add(1, Ordering::Relaxed) % targets.len()].clone();
                tokio::spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(&target).await {
                        // Either side may end it.
                        let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                    }
                });
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_and_work_whichever_replica_a_connection_goes_to() {
    let Some(parts) = Parts::find() else { return skip("oidc-provider, playwright-core or chromium") };
    let sim = Sim::start().await;
    let Some(mut cluster) = Cluster::new(&sim, 2, &[]).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let public = format!("http://{}", listener.local_addr().expect("its address"));
    let (provider, issuer) = parts.provider(cluster.setup(), false).await;
    for number in 0..2 {
        let setup = cluster.setup_of(number).clone().set("TOLLWAY_OIDC__CLIENT_SECRET", "a+secret with/odd:letters");
        cluster.set_setup(number, where_people_sign_in(setup, &issuer, &public));
    }
    cluster.serve().await;
    cluster.gateway(0).make_team("core").await;
    let targets = cluster.running().into_iter().map(|number| cluster.gateway(number).admin.replace("http://", ""));
    let balancer = Balancer::over(listener, targets.collect());
    let logs = || format!("{}\n{}", provider.output(), cluster.logs());
    parts.sign_in(&format!("http://{}", balancer.address), &issuer, 2, logs).await;
}
