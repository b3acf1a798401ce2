//! Gauges: what is asked when somebody looks at the metrics page, and what is looked at again and
//! again because it has to be measured, or read from the database.

use super::assemble::unix_millis;
use super::state::State;
use crate::account::pool::burn::Burn;
use crate::account::pool::{Reason, exclusion};
use crate::store::{self, AccountScope, AdminKey, Connections, Pool, StoreError, UnixMillis};
use crate::telemetry::metrics::{self, AccountGauges, BudgetGauge, PoolGauge};
use crate::tenant::{Counted, Level};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often pools and keys are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// After how many looks the database is asked again which pools and admin keys there are: a minute.
const ASK: u32 = 12;
/// A key that ends within this time is about to.
const SOON: i64 = 7 * 24 * 60 * 60 * 1000;
/// All accounts together, among the names of pools.
const ALL: &str = "*";

impl State {
    /// Brings those up to date that are asked for.
    pub(super) fn refresh_gauges(&self) {
        metrics::accounts_by_state(&self.accounts_by_state());
        let backlog = self.books.ledger.backlog();
        metrics::ledger(backlog.rows, backlog.oldest, backlog.failures);
        let Connections { open, in_use, most } = self.store.connections();
        metrics::database(self.database.silence().is_none(), [("open", open), ("in_use", in_use), ("most", most)]);
        metrics::leader(self.duty.is_ours());
        store::failures().for_each(|(cause, count)| metrics::database_failures(cause, count));
        metrics::accounts(self.account_gauges());
        metrics::budgets(self.budget_gauges());
    }

    fn account_gauges(&self) -> Vec<AccountGauges> {
        let (members, now) = (self.accounts.members(), unix_millis());
        let gauges = self.relay.candidates(None).into_iter().filter_map(|candidate| {
            let member = members.get(&candidate.id)?;
            let windows = candidate.windows.iter().flatten();
            let told = windows.map(|window| (window.length / 60_000, window.used_at(now), seconds(window.resets_at)));
            Some(AccountGauges {
                account: member.name(),
                up: !wants_somebody(exclusion(&candidate, &AccountScope::All, now)),
                in_flight: candidate.in_flight,
                conversations: candidate.sessions,
                windows: told.collect(),
                token_ends: member.manager.snapshot().credentials.access_expires_at.map(seconds),
            })
        });
        gauges.collect()
    }

    /// Of each team, asked by way of one of its keys.
    fn budget_gauges(&self) -> Vec<BudgetGauge> {
        let mut keys = BTreeMap::new();
        for key in self.keys.all() {
            if let Some(team) = key.team.as_ref().filter(|team| !team.limits.budgets.is_empty()) {
                keys.entry(team.name.clone()).or_insert(key);
            }
        }
        let standings = keys.values().flat_map(|key| self.books.standings(key));
        let budgets = standings.filter_map(|standing| match standing.gauge.what {
            Counted::Budget(budget) if standing.level == Level::Team => Some(BudgetGauge {
                team: standing.name,
                budget: budget.to_string(),
                used: share(standing.gauge.used, standing.gauge.limit),
            }),
            _ => None,
        });
        budgets.collect()
    }
}

/// Looks at pools and keys until `stop`.
pub(super) async fn watch(state: Arc<State>, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut burn, mut stored, mut looks) = (Burn::default(), Stored::default(), 0_u32);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if looks.is_multiple_of(ASK) {
            match Stored::read(&state).await {
                Ok(read) => stored = read,
                Err(error) => tracing::warn!(%error, "which pools and admin keys there are could not be read"),
            }
        }
        looks = looks.wrapping_add(1);
        look(&state, &stored, &mut burn, unix_millis());
    }
}

/// What the database is asked for.
#[derive(Default)]
struct Stored {
    pools: Vec<Pool>,
    admin_keys: Vec<AdminKey>,
}

impl Stored {
    async fn read(state: &State) -> Result<Self, StoreError> {
        Ok(Self { pools: state.store.pools().list().await?, admin_keys: state.store.admin_keys().list().await? })
    }
}

fn look(state: &State, stored: &Stored, burn: &mut Burn, now: UnixMillis) {
    let candidates = state.relay.candidates(None);
    burn.look(&candidates, now);
    let scopes = stored.pools.iter().map(|pool| (pool.name.clone(), AccountScope::only(pool.members.clone())));
    let gauges = std::iter::once((ALL.to_owned(), AccountScope::All)).chain(scopes).flat_map(|(pool, scope)| {
        let outlooks = burn.outlook(&candidates, &scope, now);
        outlooks.into_iter().map(move |outlook| PoolGauge {
            pool: pool.clone(),
            minutes: outlook.length / 60_000,
            left: outlook.left,
            burn: outlook.burn,
            lasts: outlook.lasts,
        })
    });
    metrics::pools(gauges.collect());
    let ends_soon = |end: Option<UnixMillis>| end.is_some_and(|end| end > now && end - now <= SOON);
    let gateway = state.keys.all();
    let gateway = gateway.iter().filter(|key| key.revoked_at.is_none() && ends_soon(key.expires_at)).count();
    metrics::keys_expiring("gateway", gateway);
    let admin = stored.admin_keys.iter().filter(|key| key.revoked_at.is_none() && ends_soon(key.expires_at)).count();
    metrics::keys_expiring("admin", admin);
}

/// Whether an account serves again only when somebody acts.
fn wants_somebody(reason: Option<Reason>) -> bool {
    matches!(reason, Some(Reason::NeedsLogin | Reason::Quarantined | Reason::NotIncluded(_) | Reason::Barred))
}

fn seconds(millis: UnixMillis) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "Unix seconds")]
    let seconds = (millis / 1000) as f64;
    seconds
}

fn share(used: u64, of: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = used as f64 / of.max(1) as f64;
    share
}
