//! Renewing before anybody has to wait: each account at its own time, so that a fleet that was
//! added on one day does not renew in one second.
//!
//! Paused and limited accounts are renewed as well: they come back. Accounts that need a login, or
//! are in quarantine, are left alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::directory::Accounts;
use super::settings::TokenSettings;
use super::snapshot::after;
use crate::store::{AccountId, Credentials, Duty, UnixMillis};

/// At most this many accounts are renewed in one round: after a long standstill all are due.
const A_ROUND: usize = 4;

/// When these credentials are to be renewed ahead of demand: between `ahead_longest` and
/// `ahead_shortest` before their end, at a point that depends on the account and the generation
/// only. Short-lived tokens are renewed at half of their life at the earliest.
pub fn due_at(id: AccountId, credentials: &Credentials, settings: &TokenSettings) -> UnixMillis {
    let Some(end) = credentials.access_expires_at else {
        return after(credentials.last_refresh_at, settings.unknown_life);
    };
    let span = settings.ahead_longest.saturating_sub(settings.ahead_shortest);
    let lead = settings.ahead_shortest + span.mul_f64(place(id, credentials.generation));
    let life = end.saturating_sub(credentials.last_refresh_at).max(0);
    end.saturating_sub(after(0, lead).min(life / 2))
}

/// A number in 0.0..1.0 that is spread evenly over accounts (FNV-1a, the upper bits).
fn place(id: AccountId, generation: i64) -> f64 {
    let text = format!("{id}/{generation}");
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // FNV's upper bits barely feel the last bytes; one more mix spreads them.
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32;
    f64::from(u32::try_from(mixed).unwrap_or_default()) / f64::from(u32::MAX)
}

/// Looks every `pace` for accounts that are due, until the process stops.
pub async fn run(accounts: Arc<Accounts>, duty: Duty, pace: Duration) {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = accounts.context().shutdown.cancelled() => return,
            // One replica for all: the others read what it has stored.
            _ = ticks.tick() => if duty.is_ours() { round(&accounts) },
        }
    }
}

/// One look: the most urgent first, and no more than a few at once.
fn round(accounts: &Accounts) {
    let context = accounts.context();
    let now = context.now();
    let members = accounts.members();
    let mut due: Vec<_> = members
        .values()
        .map(|member| {
            let snapshot = member.manager.snapshot();
            let at = due_at(snapshot.account.id, &snapshot.credentials, &context.settings);
            (at, snapshot.generation(), member)
        })
        .filter(|(at, ..)| *at <= now)
        .collect();
    due.sort_by_key(|(at, ..)| *at);
    let begun = due.into_iter().filter(|(_, generation, member)| member.manager.refresh_ahead(*generation));
    let _ = begun.take(A_ROUND).count();
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
