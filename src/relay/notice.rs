//! What holders of keys are told of their accounts as one with every answer. It takes a look at all of
//! them, and is therefore kept: until something has changed that is to be told at once, and for a moment.

use super::routing::Routing;
use super::standing::{self, Pool};
use crate::account::Accounts;
use crate::codex::limits::OWN_HEADERS;
use crate::codex::sse::Frame;
use crate::store::AccountScope;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How old may be what nobody changed: the hands of the clock, and parts of a percent.
const RECENT: Duration = Duration::from_secs(1);
/// Scopes of which it is kept: each key can have one of its own.
const SCOPES: usize = 10_000;

/// What is told of one scope.
#[derive(Debug)]
pub(super) struct Notice {
    pool: Pool,
    /// Headers of the windows, as text.
    headers: Vec<(&'static HeaderName, HeaderValue)>,
    /// Written when the first stream asks for it.
    event: OnceLock<Option<Frame>>,
}

impl Notice {
    fn of(pool: Pool) -> Self {
        let mut headers = Vec::new();
        for (names, window) in OWN_HEADERS.iter().zip([pool.primary, pool.secondary]) {
            let Some(window) = window else { continue };
            if let Ok(percent) = HeaderValue::try_from(window.used_percent.to_string()) {
                headers.push((&names.used_percent, percent));
            }
            headers.push((&names.window_minutes, HeaderValue::from(window.window_minutes.unwrap_or_default())));
            if let Some(at) = window.resets_at {
                headers.push((&names.reset_at, HeaderValue::from(at)));
            }
        }
        Self { pool, headers, event: OnceLock::new() }
    }

    /// Puts the headers of its windows in the place of others.
    pub(super) fn head(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(*name, value.clone());
        }
    }

    /// The event of its limits within a stream.
    pub(super) fn event(&self) -> Option<Frame> {
        self.event.get_or_init(|| self.pool.event()).clone()
    }
}

/// The notices of all scopes.
pub(super) struct Notices {
    accounts: Arc<Accounts>,
    routing: Arc<Routing>,
    known: Mutex<HashMap<AccountScope, Known>>,
}

/// A notice, and what it was made from.
struct Known {
    notice: Arc<Notice>,
    tidings: u64,
    made: Instant,
}

impl Notices {
    pub(super) fn new(accounts: Arc<Accounts>, routing: Arc<Routing>) -> Self {
        Self { accounts, routing, known: Mutex::default() }
    }

    /// What the holder of a key of this scope is told.
    pub(super) fn of(&self, scope: &AccountScope) -> Arc<Notice> {
        // Read first: what changes meanwhile makes the next one look again.
        let tidings = self.accounts.tidings();
        let is_valid = |known: &&Known| known.tidings == tidings && known.made.elapsed() < RECENT;
        if let Some(known) = self.known().get(scope).filter(is_valid) {
            return known.notice.clone();
        }
        let made = Instant::now();
        let notice = Arc::new(Notice::of(standing::pool(&self.accounts, &self.routing, scope)));
        let mut known = self.known();
        if known.len() >= SCOPES && !known.contains_key(scope) {
            known.clear();
        }
        known.insert(scope.clone(), Known { notice: notice.clone(), tidings, made });
        notice
    }

    fn known(&self) -> MutexGuard<'_, HashMap<AccountScope, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::pool::condition::Defaults;
    use crate::account::pool::quota::Source;
    use crate::account::pool::remedy::Consequence;
    use crate::account::testing::{Bench, HOUR};
    use crate::codex::limits::{Limits, Window};
    use crate::codex::{Failure, FailureKind};
    use crate::relay::millis_from_now;
    use crate::store::AccountId;

    /// A directory whose clock is the one that notices look at, and what is told of it.
    async fn notices() -> (Bench, Arc<Accounts>, Notices, [AccountId; 2]) {
        let mut bench = Bench::new();
        let context = Arc::get_mut(&mut bench.context).expect("nobody has it yet");
        context.clock = Arc::new(|| millis_from_now(Duration::ZERO));
        let ids = [bench.add("ada", HOUR), bench.add("bob", HOUR)];
        let accounts = Accounts::new(bench.context.clone());
        accounts.reload().await.expect("accounts");
        let notices = Notices::new(accounts.clone(), Arc::default());
        (bench, accounts, notices, ids)
    }

    fn read(accounts: &Arc<Accounts>, id: AccountId, used_percent: f64) {
        let primary = Some(Window { used_percent, window_minutes: Some(300), resets_at: None });
        accounts.note_limits(id, &Limits { primary, ..Limits::default() }, Source::Usage, None);
    }

    fn percent(notice: &Notice) -> String {
        let mut headers = HeaderMap::new();
        notice.head(&mut headers);
        headers["x-codex-primary-used-percent"].to_str().expect("text").to_owned()
    }

    #[tokio::test]
    async fn a_notice_is_kept_until_a_change_that_is_to_be_told_at_once_and_no_longer_than_a_moment() {
        let (bench, accounts, notices, [ada, bob]) = notices().await;
        let all = || notices.of(&AccountScope::All);
        read(&accounts, ada, 40.0);
        read(&accounts, bob, 60.0);
        let first = all();
        assert_eq!(percent(&first), "50");
        read(&accounts, ada, 40.5);
        assert!(Arc::ptr_eq(&first, &all()), "half a percent waits");
        for known in notices.known().values_mut() {
            known.made -= RECENT;
        }
        assert_eq!(percent(&all()), "50.25", "for a moment");
        read(&accounts, ada, 42.0);
        assert_eq!(percent(&all()), "51", "whole percents do not");
        let defaults = Defaults { cooldown: Duration::from_mins(1), limit: Duration::from_mins(1) };
        let failure = Failure::of(FailureKind::UsageLimit, "no");
        accounts.suffer(bob, Consequence::Limit, &failure, None, defaults);
        assert_eq!(percent(&all()), "71", "one that is used up counts as full");
        bench.settle().await;
        bench.store.shelf().rows.get_mut(&bob).expect("a row").0.paused = true;
        accounts.reload().await.expect("accounts");
        assert_eq!(percent(&all()), "42", "one that is paused does not count");
    }

    #[tokio::test]
    async fn each_scope_has_its_own_notice_in_headers_and_in_events() {
        let (_bench, accounts, notices, [ada, bob]) = notices().await;
        read(&accounts, ada, 40.0);
        read(&accounts, bob, 60.0);
        for (scope, told) in
            [(AccountScope::All, "50"), (AccountScope::only([ada]), "40"), (AccountScope::only([bob]), "60")]
        {
            let notice = notices.of(&scope);
            assert_eq!(percent(&notice), told);
            let event = notice.event().expect("an event");
            let data = event.data().expect("data");
            let event: serde_json::Value = serde_json::from_slice(&data).expect("JSON");
            assert_eq!(event["rate_limits"]["primary"]["used_percent"].to_string(), format!("{told}.0"));
            assert!(Arc::ptr_eq(&notice, &notices.of(&scope)));
        }
        assert_eq!(notices.known().len(), 3);
    }
}
