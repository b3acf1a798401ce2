//! Where several servers hold limits together: tells them what is used here and takes what they have
//! to spare, in the background and for all holders at once.

use super::books::Books;
use crate::store::{GatewayKey, Slices, UnixMillis, UsageRow};
use crate::tenant::{Amount, Subject};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two exchanges, at least; and after one that failed.
const GAP: Duration = Duration::from_millis(5);
const AGAIN: Duration = Duration::from_millis(250);
/// How long a request for numbers waits for those of other servers.
const LOOK: Duration = Duration::from_secs(1);
/// Where nobody uses any limit.
const NOBODY: Duration = Duration::from_mins(1);
/// Milliseconds.
const HOUR: i64 = 3_600_000;

impl Books {
    /// Exchanges with the other servers until `stop`. Returns at once where there are none.
    pub async fn exchange(&self, stop: CancellationToken) {
        let Some(slices) = &self.slices else { return };
        let mut failing_since = None;
        loop {
            let due = self.meters.due_in((self.now)()).unwrap_or(NOBODY);
            if due > Duration::ZERO {
                tokio::select! {
                    () = tokio::time::sleep(due) => {}
                    () = self.meters.asks() => {}
                    () = stop.cancelled() => return,
                }
            }
            let pause = match self.exchange_once(slices).await {
                Ok(()) => {
                    if let Some(since) = failing_since.take() {
                        let for_ms = Instant::now().duration_since(since).as_millis();
                        tracing::info!(for_ms, "limits are held together with other servers again");
                    }
                    GAP
                }
                Err(error) => {
                    if failing_since.is_none() {
                        failing_since = Some(Instant::now());
                        tracing::warn!(error, "limits cannot be held together with other servers");
                    }
                    // If it cannot be done now, the next exchange begins with it.
                    let _ = tokio::time::timeout(slices.lease() / 3, slices.renew()).await;
                    AGAIN
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn exchange_once(&self, slices: &Slices) -> Result<(), String> {
        // What is used is either in the ledger or said here, and not both.
        let still = self.ledger.still().await;
        let begun = self.ledger.unwritten(|rows| {
            let mut sums = sums(rows);
            self.meters.begin(&mut sums, (self.now)())
        });
        let Some((exchange, asked)) = begun else { return Ok(()) };
        let mut shares = Vec::new();
        let exchanged = slices.exchange(&asked, |there, sights| {
            shares = self.meters.decide(&exchange, there, &sights, (self.now)());
            shares.clone()
        });
        let done = tokio::time::timeout(slices.lease() / 3, exchanged).await;
        drop(still);
        match done {
            Ok(Ok(())) => {
                self.meters.keep(&exchange, &shares, slices.lease());
                Ok(())
            }
            Ok(Err(error)) => Err(std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)),
            Err(_) => Err("the database does not answer".to_owned()),
        }
    }

    /// Gives back to the other servers what this one has: it stops.
    pub async fn leave(&self) {
        if let Some(slices) = &self.slices
            && let Err(error) = slices.leave().await
        {
            tracing::warn!(%error, "slices of limits were not given back; others get them when they run out");
        }
    }

    /// Sees to it that a key's numbers are those of all servers, as far as that takes no longer than a
    /// second.
    pub async fn refresh(&self, key: &GatewayKey) {
        let Some(round) = self.meters.look(key, (self.now)()) else { return };
        let deadline = Instant::now() + LOOK;
        loop {
            let mut released = std::pin::pin!(self.meters.released());
            released.as_mut().enable();
            let is_over = self.meters.has_heard(key, round);
            if is_over || tokio::time::timeout_at(deadline, released).await.is_err() {
                return;
            }
        }
    }
}

/// What rows used, by holder and Unix hour.
fn sums(rows: &mut dyn Iterator<Item = &UsageRow>) -> HashMap<Subject, BTreeMap<i64, Amount>> {
    use crate::store::Holder::{Key, Team, User};
    let mut sums: HashMap<Subject, BTreeMap<i64, Amount>> = HashMap::new();
    for row in rows {
        let (tokens, cost) = (row.used.input + row.used.output, row.cost.unwrap_or(0));
        if (tokens, cost) == (0, 0) {
            continue;
        }
        for (holder, id) in [(Team, &row.team_id), (User, &row.user_id), (Key, &row.key_id)] {
            let hours = sums.entry(Subject { holder, id: id.clone() }).or_default();
            let sum = hours.entry(hour(row.at)).or_default();
            sum.tokens = sum.tokens.saturating_add(tokens);
            sum.cost = sum.cost.saturating_add(cost);
        }
    }
    sums
}

fn hour(at: UnixMillis) -> i64 {
    at.div_euclid(HOUR)
}
