//! Faults on command: which request meets which fault, and requests held until released.
//!
//! Decides and counts; what a fault does to an answer is told in [`crate::mishap`] and
//! [`crate::playback`].

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::state::lock;

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// `/backend-api/codex/responses`.
    Responses,
    /// The WebSocket handshake of the same path; what is asked on it is `responses`.
    Handshake,
    /// `/oauth/token`.
    Token,
    /// `/backend-api/codex/models`.
    Models,
    /// `/backend-api/wham/usage`.
    Usage,
    /// `/backend-api/wham/accounts/check`.
    AccountsCheck,
    /// `/oauth/revoke`.
    Revoke,
    /// The device login's two endpoints.
    Device,
}

/// Before the request is worked on, or after it was and before the answer goes out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    #[default]
    Before,
    After,
}

/// Where a stream stalls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stall {
    /// Nothing is answered at all.
    #[default]
    Headers,
    /// After `response.created`.
    Created,
    /// Half-way through.
    Mid,
}

/// How a 200 stream fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Position {
    /// Behind `response.in_progress`.
    #[default]
    BeforeText,
    /// After half of the answer.
    AfterText,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Kind {
    /// Any status, body (a string goes out as it is, else JSON) and headers.
    Status {
        status: u16,
        #[serde(default)]
        body: Value,
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// 429 `usage_limit_reached`.
    UsageLimit {
        #[serde(default = "hour")]
        resets_in_seconds: i64,
    },
    /// 429 `rate_limit_exceeded`.
    RateLimit {
        #[serde(default = "one")]
        retry_after: u64,
    },
    /// 401.
    Unauthorized {
        #[serde(default = "invalidated")]
        code: String,
    },
    /// 403 with Cloudflare's page.
    ForbiddenHtml {},
    /// 503 `server_is_overloaded`.
    Overloaded {},
    /// 500.
    ServerError {},
    /// The connection closes before the headers.
    Disconnect {},
    /// The request is worked on (a refresh rotates), then the connection closes.
    DropAnswer {},
    /// Nothing more comes.
    Stall {
        #[serde(default)]
        at: Stall,
    },
    /// The stream ends after so many events: torn, or cleanly but without a final event.
    Cut {
        #[serde(default = "three")]
        after_events: usize,
        #[serde(default)]
        clean: bool,
    },
    /// Broken JSON as the event after so many; elsewhere a 200 with broken JSON.
    Malformed {
        #[serde(default = "three")]
        after_events: usize,
    },
    /// `response.failed` (or `error`) inside a 200.
    FailedEvent {
        #[serde(default)]
        code: Option<String>,
        #[serde(default = "sorry")]
        message: String,
        #[serde(default)]
        at: Position,
        /// `failed` or `error`: which event carries it.
        #[serde(default = "failed")]
        event: String,
    },
    /// A pause before each event; with `bytes`, before each so many bytes.
    Slow {
        ms: u64,
        #[serde(default)]
        bytes: Option<usize>,
    },
    /// A pause before working on the request, or before the answer.
    DelayMs {
        ms: u64,
        #[serde(default)]
        at: When,
    },
    /// Waits for `POST /sim/release`.
    Hold {
        #[serde(default)]
        at: When,
    },
}

fn hour() -> i64 {
    3_600
}
fn one() -> u64 {
    1
}
fn three() -> usize {
    3
}
fn invalidated() -> String {
    "token_invalidated".to_owned()
}
fn sorry() -> String {
    "The simulated model failed.".to_owned()
}
fn failed() -> String {
    "failed".to_owned()
}

impl Kind {
    /// Slows a request without deciding its end; several may meet one request.
    fn passing(&self) -> bool {
        matches!(self, Self::Slow { .. } | Self::DelayMs { .. } | Self::Hold { .. })
    }

    /// Makes sense only where events stream.
    fn streams_only(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::FailedEvent { .. } | Self::Slow { .. })
            || matches!(self, Self::Stall { at } if *at != Stall::Headers)
    }
}

/// One fault and whom it still waits for.
#[derive(Debug, Clone, Serialize)]
struct Fault {
    id: u64,
    /// An account, or `*`.
    scope: String,
    #[serde(rename = "where")]
    place: Place,
    #[serde(flatten)]
    kind: Kind,
    /// Requests it still strikes; all when none.
    times: Option<u64>,
    /// Matching requests it still lets pass.
    after: u64,
    /// Requests it struck.
    hits: u64,
}

impl Fault {
    /// Whether it strikes this request; counts that it does.
    fn strikes(&mut self, place: Place, account: Option<&str>) -> bool {
        let meant = self.place == place && (self.scope == "*" || Some(self.scope.as_str()) == account);
        if !meant || self.times == Some(0) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        self.times = self.times.map(|left| left - 1);
        self.hits += 1;
        true
    }
}

/// What one request has to go through.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// Delays and holds, in order.
    waits: Vec<(When, Wait)>,
    /// Pause before each event or chunk.
    pub(crate) slow: Option<(u64, Option<usize>)>,
    /// How it ends, if not well.
    pub(crate) end: Option<Kind>,
}

#[derive(Debug)]
enum Wait {
    Millis(u64),
    Release(watch::Receiver<u64>),
}

/// All faults, and the gates that hold requests.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    faults: Vec<Fault>,
    next: u64,
    gates: BTreeMap<Place, watch::Sender<u64>>,
}

impl Faults {
    /// Reads and adds a fault; gives it back as stored.
    pub(crate) fn add(&self, mut spec: Map<String, Value>) -> Result<Value, String> {
        let mut common = |key: &str, otherwise: Value| spec.remove(key).unwrap_or(otherwise);
        let read = |what: &str, error: serde_json::Error| format!("{what}: {error}");
        let scope: String =
            serde_json::from_value(common("scope", json!("*"))).map_err(|error| read("scope", error))?;
        let place: Place =
            serde_json::from_value(common("where", json!("responses"))).map_err(|error| read("where", error))?;
        let times: Option<u64> =
            serde_json::from_value(common("times", json!(1))).map_err(|error| read("times", error))?;
        let after: u64 = serde_json::from_value(common("after", json!(0))).map_err(|error| read("after", error))?;
        let kind: Kind = serde_json::from_value(Value::Object(spec)).map_err(|error| read("kind", error))?;
        if kind.streams_only() && place != Place::Responses {
            return Err("kind: this one needs where = responses".to_owned());
        }
        let mut inner = lock(&self.inner);
        inner.next += 1;
        let fault = Fault { id: inner.next, scope, place, kind, times, after, hits: 0 };
        let stored = json!(fault);
        inner.faults.push(fault);
        Ok(stored)
    }

    /// All faults with what is left of them.
    pub(crate) fn list(&self) -> Value {
        json!(lock(&self.inner).faults)
    }

    /// Forgets all faults and lets everyone go.
    pub(crate) fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.faults.clear();
        for gate in inner.gates.values() {
            gate.send_modify(|round| *round += 1);
        }
    }

    /// Lets the requests held at `place` (everywhere when none) go. Their hold faults end too,
    /// unless `keep`. Gives how many were waiting.
    pub(crate) fn release(&self, place: Option<Place>, keep: bool) -> usize {
        let mut inner = lock(&self.inner);
        let here = |other: Place| place.is_none_or(|place| place == other);
        if !keep {
            inner.faults.retain(|fault| !(here(fault.place) && matches!(fault.kind, Kind::Hold { .. })));
        }
        let open = inner.gates.iter().filter(|(gate, _)| here(**gate));
        open.map(|(_, gate)| {
            gate.send_modify(|round| *round += 1);
            gate.receiver_count()
        })
        .sum()
    }

    /// How many requests are held, by place.
    pub(crate) fn waiting(&self) -> BTreeMap<Place, usize> {
        let inner = lock(&self.inner);
        inner.gates.iter().map(|(place, gate)| (*place, gate.receiver_count())).collect()
    }

    /// What a request of this account at this place meets. Holds subscribe here, under the
    /// lock, so that no release can slip between.
    pub(crate) fn meet(&self, place: Place, account: Option<&str>) -> Fate {
        let mut inner = lock(&self.inner);
        let mut fate = Fate::default();
        let Inner { faults, gates, .. } = &mut *inner;
        for fault in faults.iter_mut() {
            if !fault.kind.passing() && fate.end.is_some() {
                continue;
            }
            if !fault.strikes(place, account) {
                continue;
            }
            match &fault.kind {
                Kind::DelayMs { ms, at } => fate.waits.push((*at, Wait::Millis(*ms))),
                Kind::Hold { at } => {
                    let gate = gates.entry(place).or_insert_with(|| watch::channel(0).0);
                    fate.waits.push((*at, Wait::Release(gate.subscribe())));
                }
                Kind::Slow { ms, bytes } => fate.slow = Some((*ms, *bytes)),
                kind => fate.end = Some(kind.clone()),
            }
        }
        fate
    }
}

impl Fate {
    /// Waits as told for this moment.
    pub(crate) async fn pass(&mut self, moment: When) {
        let (now, later) = std::mem::take(&mut self.waits).into_iter().partition(|(when, _)| *when == moment);
        self.waits = later;
        let now: Vec<(When, Wait)> = now;
        for (_, wait) in now {
            match wait {
                Wait::Millis(ms) => tokio::time::sleep(std::time::Duration::from_millis(ms)).await,
                // An error means the simulator is going away.
                Wait::Release(mut gate) => drop(gate.changed().await),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(specs: &[Value]) -> Faults {
        let faults = Faults::default();
        for spec in specs {
            faults.add(spec.as_object().unwrap().clone()).unwrap();
        }
        faults
    }

    #[test]
    fn a_fault_skips_strikes_and_ends() {
        let faults = faults(&[json!({"kind":"overloaded","after":1,"times":2,"scope":"a"})]);
        let ends: Vec<bool> = (0..4).map(|_| faults.meet(Place::Responses, Some("a")).end.is_some()).collect();
        assert_eq!(ends, [false, true, true, false]);
        assert!(faults.meet(Place::Responses, Some("b")).end.is_none());
    }

    #[test]
    fn delays_join_the_first_end_and_spare_the_second() {
        let faults =
            faults(&[json!({"kind":"delay_ms","ms":5}), json!({"kind":"overloaded"}), json!({"kind":"server_error"})]);
        let first = faults.meet(Place::Responses, None);
        assert_eq!((first.waits.len(), first.end), (1, Some(Kind::Overloaded {})));
        assert_eq!(faults.meet(Place::Responses, None).end, Some(Kind::ServerError {}));
    }

    #[test]
    fn misspelt_faults_are_refused() {
        let add = |spec: Value| Faults::default().add(spec.as_object().unwrap().clone());
        assert!(add(json!({"kind":"slow","ms":1,"mss":2})).unwrap_err().contains("mss"));
        assert!(add(json!({"kind":"cut","where":"token"})).is_err());
        assert!(add(json!({"kind":"overloaded","tims":2})).is_err());
    }

    #[tokio::test]
    async fn a_held_request_goes_on_when_released() {
        let faults = faults(&[json!({"kind":"hold","where":"token","times":null})]);
        let mut fate = faults.meet(Place::Token, None);
        assert_eq!(faults.waiting()[&Place::Token], 1);
        assert_eq!(faults.release(Some(Place::Token), false), 1);
        fate.pass(When::Before).await;
        assert!(faults.meet(Place::Token, None).waits.is_empty());
    }
}
