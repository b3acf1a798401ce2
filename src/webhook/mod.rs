//! Tells an operator's system what it has to know: signed, kept in the database until it was taken,
//! and tried again while it was not. The form is that of Standard Webhooks
//! (<https://www.standardwebhooks.com>), for which receivers have libraries.
//!
//! This room must not know what the events mean.

mod signature;

pub use signature::{Secret, SecretError};

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::store::{Delivery, Duty, Store, UnixMillis};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `account.needs_login`, ….
    pub kind: &'static str,
    /// What is to be known of it. No secrets.
    pub data: Value,
}

/// Where events go.
pub struct Receiver {
    /// The address.
    pub url: Url,
    /// What signs them.
    pub secret: Secret,
}

/// Events that wait to be written.
const WAITING: usize = 256;
/// How often it is looked whether a delivery is due.
const PACE: Duration = Duration::from_secs(1);
/// Deliveries tried in one round.
const AT_ONCE: u32 = 16;
/// For one answer, to its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a delivery is ours alone, milliseconds: whoever claimed it and died is given up then.
const LEASE: i64 = 15_000;
/// The pauses between attempts, seconds; after the last one it is given up.
const PAUSES: [i64; 9] = [5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200];
/// How long deliveries that are over are kept, milliseconds.
const KEPT: i64 = 7 * 24 * 3600 * 1000;
/// How often those are forgotten.
const FORGET: Duration = Duration::from_mins(10);
/// How long events are still taken at the end.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How much of a receiver's answer is noted.
const NOTED: usize = 200;

/// Takes events.
#[derive(Clone)]
pub struct Outbox {
    sender: Option<mpsc::Sender<Event>>,
}

impl Outbox {
    /// For nobody: what is put in is gone.
    pub fn nowhere() -> Self {
        Self { sender: None }
    }

    /// Takes an event; never waits. One that cannot be taken is logged as an error.
    pub fn put(&self, event: Event) {
        if let Some(sender) = &self.sender
            && let Err(refused) = sender.try_send(event)
        {
            let (mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) = refused;
            tracing::error!(event = event.kind, data = %event.data, "an event was not taken for its webhook");
        }
    }
}

/// Keeps and delivers events. One for the process.
pub struct Courier {
    store: Store,
    receiver: Receiver,
    http: reqwest::Client,
    clock: fn() -> UnixMillis,
    events: mpsc::Receiver<Event>,
    /// Whether it is ours to deliver what any replica has written.
    duty: Duty,
    /// When deliveries that are over were last forgotten.
    forgotten: Option<Instant>,
}

impl Courier {
    /// A courier to `receiver`, and where to put its events.
    pub fn new(
        store: Store,
        duty: Duty,
        receiver: Receiver,
        http: reqwest::Client,
        clock: fn() -> UnixMillis,
    ) -> (Self, Outbox) {
        let (sender, events) = mpsc::channel(WAITING);
        (Self { store, receiver, http, clock, events, duty, forgotten: None }, Outbox { sender: Some(sender) })
    }

    /// Works until `stop`; what was put in by then is written.
    pub async fn work(mut self, stop: CancellationToken) {
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(event) => self.write(&event).await,
                    None => return,
                },
                () = stop.cancelled() => break,
                _ = ticks.tick() => if self.duty.is_ours() { self.round(&stop).await },
            }
        }
        // Others stop at the same time, and may have a last word.
        while let Ok(Some(event)) = tokio::time::timeout(LAST_WORDS, self.events.recv()).await {
            self.write(&event).await;
        }
    }

    async fn write(&self, event: &Event) {
        let now = (self.clock)();
        let body = json!({"type": event.kind, "timestamp": rfc3339(now), "data": event.data}).to_string();
        if let Err(error) = self.store.webhooks().add(event.kind, &body, now).await {
            tracing::error!(event = event.kind, %error, body, "an event was not kept for its webhook");
        }
    }

    async fn round(&mut self, stop: &CancellationToken) {
        let now = (self.clock)();
        let claimed = match self.store.webhooks().claim(now, now.saturating_add(LEASE), AT_ONCE).await {
            Ok(claimed) => claimed,
            Err(error) => return tracing::warn!(%error, "webhook deliveries could not be read"),
        };
        if claimed.is_empty() {
            if self.forgotten.is_none_or(|at| at.elapsed() > FORGET) {
                self.forgotten = Some(Instant::now());
                if let Err(error) = self.store.webhooks().forget(now.saturating_sub(KEPT)).await {
                    tracing::warn!(%error, "old webhook deliveries were not forgotten");
                }
            }
            return;
        }
        let this = &*self;
        // Side by side: each must be over before its lease is.
        let tried = claimed.iter().map(|delivery| async move {
            let result = tokio::select! {
                // Its lease ends by itself; the next process tries again.
                () = stop.cancelled() => return,
                result = this.deliver(delivery) => result,
            };
            this.note(delivery, result).await;
        });
        futures_util::future::join_all(tried).await;
    }

    /// One attempt; in words why it failed, and whether another one makes sense.
    async fn deliver(&self, delivery: &Delivery) -> Result<(), (String, bool)> {
        let id = format!("msg_{}", delivery.id);
        let timestamp = (self.clock)() / 1000;
        let signature = self.receiver.secret.sign(&id, timestamp, delivery.body.as_bytes());
        let request = self
            .http
            .post(self.receiver.url.clone())
            .timeout(PATIENCE)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(delivery.body.clone());
        // The error may repeat the address, and with it a secret in its query.
        let answer = request.send().await.map_err(|error| (error.without_url().to_string(), true))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = answer.text().await.unwrap_or_default();
        let said: String = said.chars().take(NOTED).collect();
        Err((format!("{status}: {said}"), status != reqwest::StatusCode::GONE))
    }

    async fn note(&self, delivery: &Delivery, result: Result<(), (String, bool)>) {
        let now = (self.clock)();
        let noted = match result {
            Ok(()) => self.store.webhooks().taken(&delivery.id, now).await,
            Err((why, again)) => {
                let attempts = usize::try_from(delivery.attempts).unwrap_or(usize::MAX);
                let pause = PAUSES.get(attempts).filter(|_| again).map(|seconds| seconds * 1000);
                #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "hours")]
                let next = pause.map(|pause| now + pause + (pause as f64 * 0.2 * fastrand::f64()) as i64);
                if next.is_some() {
                    tracing::warn!(event = delivery.event, cause = why, "a webhook was not delivered yet");
                } else {
                    tracing::error!(event = delivery.event, cause = why, "a webhook was given up");
                }
                self.store.webhooks().failed(&delivery.id, next, &why).await
            }
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "a webhook's outcome was not noted; it may be delivered twice");
        }
    }
}

fn rfc3339(at: UnixMillis) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}
