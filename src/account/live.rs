//! What changes about an account with every request: how busy it is and whether it is aside.
//! In memory; only a limit outlives the process.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::directory::Member;
use crate::codex::limits::Limits;
use crate::store::UnixMillis;

/// One account's live numbers.
#[derive(Default)]
pub(super) struct Live {
    in_flight: AtomicU32,
    load: Mutex<Load>,
}

/// What the lock guards.
#[derive(Default, Clone)]
pub(super) struct Load {
    /// Its quota is used up until then.
    pub(super) limited_until: Option<UnixMillis>,
    /// A code, for the store.
    pub(super) limit_reason: Option<String>,
    /// Limits that are known here and not yet stored; the row is older than they are.
    pub(super) unsaved_limits: u32,
    /// Aside for a short time.
    pub(super) cooling_until: Option<UnixMillis>,
    /// The fuller of its windows.
    pub(super) used_percent: Option<f32>,
    /// Its windows as last reported, and when that was.
    pub(super) limits: Option<(Limits, UnixMillis)>,
    /// When it was last chosen.
    pub(super) last_used: Option<UnixMillis>,
}

impl Live {
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the stored limit over, unless a newer one is on its way to the store.
    pub(super) fn observe(&self, until: Option<UnixMillis>, reason: Option<String>) {
        let mut load = self.load();
        if load.unsaved_limits == 0 {
            load.limited_until = until;
            load.limit_reason = reason;
        }
    }
}

/// A request that is under way on an account; counts until it is dropped.
pub struct InFlight {
    member: Arc<Member>,
}

impl InFlight {
    pub(super) fn begin(member: Arc<Member>, now: UnixMillis) -> Self {
        member.live.in_flight.fetch_add(1, Ordering::Relaxed);
        member.live.load().last_used = Some(now);
        Self { member }
    }

    /// The account that works.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.member.live.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
