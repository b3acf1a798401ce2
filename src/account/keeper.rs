//! What is known of accounts, carried over a restart and to other replicas; and the history of their states, with those
//! who are told of it. Beside the requests, never for one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::directory::{Accounts, Member};
use super::pool::condition::KeptCondition;
use super::pool::{Reason, exclusion};
use crate::store::{AccountEvent, AccountId, AccountScope, Changes, Duty, Store, StoreError, UnixMillis};

/// How often what was learnt is written: a crash forgets no more.
const WRITE: Duration = Duration::from_secs(5);
/// How long what others must know waits for more of it.
const BURST: Duration = Duration::from_millis(50);
/// How often states are compared with what they were.
const LOOK: Duration = Duration::from_secs(1);
/// How often old history is forgotten.
const SWEEP: Duration = Duration::from_hours(1);

/// Takes over what the last process knew, or another one knows. What cannot be read is learnt anew.
pub async fn restore(accounts: &Accounts, store: &Store) -> Result<(), StoreError> {
    for (id, content, _) in store.conditions().list().await? {
        let Some(member) = accounts.get(id) else { continue };
        match serde_json::from_str::<KeptCondition>(&content) {
            Ok(kept) => member.live.load().condition.restore(kept),
            Err(error) => tracing::warn!(account_id = %id, %error, "what was known of the account is not legible"),
        }
    }
    accounts.context().tidings.tell();
    Ok(())
}

/// Writes what was learnt: now and then, at once where others must know of it, and once more at the
/// end. Takes over what others have learnt when they tell of it.
pub async fn keep(accounts: Arc<Accounts>, store: Store, mut changes: Changes) {
    let mut ticks = interval(WRITE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What there was at the start has been restored, or is now.
    let mut seen = None;
    loop {
        let is_last = tokio::select! {
            () = accounts.context().shutdown.cancelled() => true,
            _ = ticks.tick() => false,
            () = accounts.news() => {
                // A burst of refusals is one write.
                tokio::time::sleep(BURST).await;
                false
            }
            () = changes.next() => {
                let told = changes.latest().map(|revision| revision.conditions);
                if told.is_some() && told != seen {
                    match restore(&accounts, &store).await {
                        Ok(()) => seen = told,
                        Err(error) => tracing::warn!(%error, "what others have learnt of accounts could not be read"),
                    }
                }
                continue;
            }
        };
        write(&accounts, &store).await;
        if is_last {
            return;
        }
    }
}

/// Writes what was learnt since it was last written.
pub async fn write(accounts: &Accounts, store: &Store) {
    let now = accounts.context().now();
    let members = accounts.members();
    let changed: Vec<&Arc<Member>> =
        members.values().filter(|member| std::mem::take(&mut member.live.load().unwritten)).collect();
    let mut is_news = false;
    let known = changed.iter().filter_map(|member| {
        let mut load = member.live.load();
        is_news |= std::mem::take(&mut load.is_news);
        Some((member.manager.id(), serde_json::to_string(&load.condition.keep(now)).ok()?))
    });
    let known: Vec<_> = known.collect();
    if known.is_empty() {
        return;
    }
    let tell = is_news && store.is_shared();
    if let Err(error) = store.conditions().put(&known, merged, tell, now).await {
        tracing::warn!(%error, "what was learnt of accounts was not written; it will be tried again");
        for member in changed {
            let mut load = member.live.load();
            load.unwritten = true;
            load.is_news |= is_news;
        }
    }
}

/// What is kept and what this process knows, as one. What is not legible is replaced.
fn merged(kept: &str, known: &str) -> String {
    let read = |text: &str| serde_json::from_str::<KeptCondition>(text).ok();
    let both = read(kept).zip(read(known)).map(|(kept, known)| kept.merged(known));
    both.and_then(|both| serde_json::to_string(&both).ok()).unwrap_or_else(|| known.to_owned())
}

/// What became of an account.
#[derive(Debug, Clone)]
pub struct Change {
    /// What operators call it.
    pub name: String,
    /// The event, as the history keeps it.
    pub event: AccountEvent,
    /// In plain words, where somebody has to do something.
    pub detail: Option<String>,
}

/// Who is told of changes. Must not block.
pub type Listener = Box<dyn Fn(&[Change]) + Send + Sync>;

/// Compares states with what they were, writes the history and tells it, until the process stops.
/// Where it is another process's duty, nothing is done until it is ours.
pub async fn chronicle(accounts: Arc<Accounts>, store: Store, duty: Duty, retention: Duration, tell: Listener) {
    // None while somebody else writes.
    let mut known = None;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = interval(SWEEP);
    loop {
        let is_last = tokio::select! {
            () = accounts.context().shutdown.cancelled() => true,
            _ = sweep.tick() => {
                if duty.is_ours() {
                    forget(&store, accounts.context().now(), retention).await;
                }
                false
            }
            _ = ticks.tick() => false,
        };
        if !duty.is_ours() {
            known = None;
            if is_last {
                return;
            }
            continue;
        }
        let known = match &mut known {
            Some(known) => known,
            unknown => unknown.insert(recall(&accounts, &store).await),
        };
        let changes = compare(&accounts, known);
        if !changes.is_empty() {
            tell(&changes);
            let events: Vec<_> = changes.into_iter().map(|change| change.event).collect();
            if let Err(error) = store.conditions().record(&events).await {
                tracing::warn!(%error, lost = events.len(), "changes of accounts are missing in their history");
            }
        }
        if is_last {
            return;
        }
    }
}

/// The state that the history ends with is where whoever writes it begins.
async fn recall(accounts: &Accounts, store: &Store) -> BTreeMap<AccountId, &'static str> {
    let mut known = BTreeMap::new();
    for id in accounts.members().keys() {
        let last = match store.conditions().history(*id, 1).await {
            Ok(mut last) => last.pop(),
            Err(error) => {
                tracing::warn!(%error, "the history of accounts could not be read; it goes on from now");
                break;
            }
        };
        if let Some(state) = last.and_then(|last| STATES.into_iter().find(|state| *state == last.became)) {
            known.insert(*id, state);
        }
    }
    known
}

async fn forget(store: &Store, now: UnixMillis, retention: Duration) {
    let kept = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    if let Err(error) = store.conditions().forget(now.saturating_sub(kept)).await {
        tracing::warn!(%error, "old history of accounts was not forgotten");
    }
}

/// Every state that the history knows.
const STATES: [&str; 8] =
    ["active", "limited", "not_included", "cooling", "tripped", "paused", "needs_login", "quarantined"];

/// An account's state for operators.
fn state_of(reason: Option<Reason>) -> &'static str {
    match reason {
        None => "active",
        Some(Reason::OnTrial) => "tripped",
        Some(reason) => reason.as_str(),
    }
}

/// The accounts whose state is not what it was. One that was not known was active.
fn compare(accounts: &Accounts, known: &mut BTreeMap<AccountId, &'static str>) -> Vec<Change> {
    let now = accounts.context().now();
    let members = accounts.members();
    known.retain(|id, _| members.contains_key(id));
    let mut changes = Vec::new();
    for (id, member) in &*members {
        let reason = exclusion(&member.candidate(None, now), &AccountScope::All, now);
        let (was, became) = (known.get(id).copied().unwrap_or("active"), state_of(reason));
        known.insert(*id, became);
        if was != became {
            changes.push(change(*id, member, (was, became), reason, now));
        }
    }
    changes
}

fn change(
    id: AccountId,
    member: &Member,
    (was, became): (&str, &str),
    reason: Option<Reason>,
    now: UnixMillis,
) -> Change {
    let snapshot = member.manager.snapshot();
    let code = match reason {
        // Without a refusal it is a window that was read to be full.
        Some(Reason::Limited(_)) => {
            member.live.load().condition.limit_reason.clone().or_else(|| Some("window_full".to_owned()))
        }
        Some(Reason::NeedsLogin | Reason::Quarantined) => snapshot.standing.reason.clone(),
        _ => None,
    };
    Change {
        name: snapshot.account.name.clone(),
        detail: snapshot.standing.detail.clone().filter(|_| became == "needs_login" || became == "quarantined"),
        event: AccountEvent {
            account: id,
            at: now,
            was: was.to_owned(),
            became: became.to_owned(),
            reason: code,
            until: reason.and_then(Reason::until),
        },
    }
}
