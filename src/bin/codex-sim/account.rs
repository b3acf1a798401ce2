//! One simulated ChatGPT account: who it is, its limits and what was counted on it.
//!
//! Knows nothing of HTTP; times are Unix seconds and handed in.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::jwt::Subject;
use crate::usage::{Prompt, Usage};

/// Length of the primary window, in minutes.
const PRIMARY: i64 = 300;
/// Length of the secondary window, in minutes.
const SECONDARY: i64 = 10_080;
/// Prompts remembered for the cache simulation, per account.
const PROMPTS: usize = 4_096;

/// An account.
#[derive(Debug)]
pub(crate) struct Account {
    /// The simulator's name for it: the workspace id, unless two people share one.
    pub(crate) id: String,
    /// The login's address.
    pub(crate) email: String,
    /// Plan name.
    pub(crate) plan: String,
    /// The workspace.
    pub(crate) chatgpt_account_id: String,
    /// The person.
    pub(crate) user_id: String,
    /// FedRAMP workspace.
    pub(crate) fedramp: bool,
    /// Answers 401 `account_deactivated` to everything.
    pub(crate) deactivated: bool,
    /// The models it may use; all when none.
    pub(crate) models: Option<Vec<String>>,
    /// Life of its access tokens in seconds, when not the simulator's.
    pub(crate) access_life_s: Option<i64>,
    /// Where its workspace lives (protocol.md 6.6).
    pub(crate) workspace_backend_origin: String,
    /// `us`, `us_cr` or no constraint.
    pub(crate) routing_override: String,
    /// The two windows.
    pub(crate) limits: Limits,
    /// What was seen.
    pub(crate) counters: Counters,
    /// The last prompt under each `prompt_cache_key`.
    prompts: HashMap<String, Prompt>,
}

/// Usage windows and credits (protocol.md 5.1).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limits {
    /// Of the five-hour window; from 100 on, responses are refused.
    pub(crate) used_percent: f64,
    /// Of the seven-day window; likewise.
    pub(crate) secondary_used_percent: f64,
    /// Unix seconds.
    pub(crate) resets_at: i64,
    /// Unix seconds.
    pub(crate) secondary_resets_at: i64,
    /// Whether credits are left.
    pub(crate) has_credits: bool,
}

/// What was counted on one account.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Counters {
    /// Calls of `/responses` that carried its token.
    pub(crate) responses: u64,
    /// Streams that were sent up to `response.completed` or `.incomplete`.
    pub(crate) completed: u64,
    /// Streams and calls whose client went away first.
    pub(crate) cancelled: u64,
    /// Streams that a fault ended.
    pub(crate) broken: u64,
    /// Token refreshes.
    pub(crate) refreshes: Refreshes,
    /// Logins (code exchanges).
    pub(crate) logins: u64,
    /// Requests whose `x-codex-turn-state` was another account's.
    pub(crate) foreign_turn_state: u64,
    /// Answers by status, over all its calls; 0 is a connection closed on command.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Tokens of the completed streams.
    pub(crate) tokens: Usage,
    /// Responses running now.
    pub(crate) in_flight: u64,
    /// The most that ran at once.
    pub(crate) max_in_flight: u64,
}

/// Refreshes by outcome.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Refreshes {
    /// Rotated.
    pub(crate) ok: u64,
    /// Refused: the token was used before.
    pub(crate) reused: u64,
    /// Refused for another reason, or by a fault.
    pub(crate) failed: u64,
}

/// What `POST /sim/accounts` and `…/set` can say about an account.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Traits {
    pub(crate) email: Option<String>,
    pub(crate) plan: Option<String>,
    pub(crate) chatgpt_account_id: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) fedramp: Option<bool>,
    pub(crate) deactivated: Option<bool>,
    pub(crate) models: Option<Vec<String>>,
    pub(crate) access_life_s: Option<i64>,
    /// Whether the first access token has expired already; only for new accounts.
    pub(crate) expired: Option<bool>,
    pub(crate) used_percent: Option<f64>,
    pub(crate) secondary_used_percent: Option<f64>,
    pub(crate) resets_in_seconds: Option<i64>,
    pub(crate) secondary_resets_in_seconds: Option<i64>,
    pub(crate) has_credits: Option<bool>,
    pub(crate) workspace_backend_origin: Option<String>,
    pub(crate) account_routing_override: Option<String>,
}

impl Account {
    /// An account with these traits and defaults for the rest. `number` tells it from others.
    pub(crate) fn new(traits: &Traits, number: u64, now: i64) -> Self {
        let given = |text: &Option<String>, otherwise: String| text.clone().unwrap_or(otherwise);
        let chatgpt_account_id = given(&traits.chatgpt_account_id, format!("5111a7ed-0000-4000-8000-{number:012}"));
        let mut account = Self {
            id: chatgpt_account_id.clone(),
            email: given(&traits.email, format!("user{number}@example.com")),
            plan: "plus".to_owned(),
            chatgpt_account_id,
            user_id: given(&traits.user_id, format!("user-sim{number:04}")),
            fedramp: false,
            deactivated: false,
            models: None,
            access_life_s: None,
            workspace_backend_origin: "NO_CONSTRAINT".to_owned(),
            routing_override: "NO_CONSTRAINT".to_owned(),
            limits: Limits {
                used_percent: 0.0,
                secondary_used_percent: 0.0,
                resets_at: now + PRIMARY * 60,
                secondary_resets_at: now + SECONDARY * 60,
                has_credits: false,
            },
            counters: Counters::default(),
            prompts: HashMap::new(),
        };
        account.set(traits, now);
        account
    }

    /// Changes what `traits` names; ids stay as they are.
    pub(crate) fn set(&mut self, traits: &Traits, now: i64) {
        fn put<T: Clone>(place: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                place.clone_from(value);
            }
        }
        put(&mut self.plan, traits.plan.as_ref());
        put(&mut self.email, traits.email.as_ref());
        put(&mut self.fedramp, traits.fedramp.as_ref());
        put(&mut self.deactivated, traits.deactivated.as_ref());
        put(&mut self.limits.used_percent, traits.used_percent.as_ref());
        put(&mut self.limits.secondary_used_percent, traits.secondary_used_percent.as_ref());
        put(&mut self.limits.resets_at, traits.resets_in_seconds.map(|seconds| now + seconds).as_ref());
        put(
            &mut self.limits.secondary_resets_at,
            traits.secondary_resets_in_seconds.map(|seconds| now + seconds).as_ref(),
        );
        put(&mut self.workspace_backend_origin, traits.workspace_backend_origin.as_ref());
        put(&mut self.routing_override, traits.account_routing_override.as_ref());
        put(&mut self.limits.has_credits, traits.has_credits.as_ref());
        self.models = traits.models.clone().or(self.models.take());
        self.access_life_s = traits.access_life_s.or(self.access_life_s);
    }

    /// What its tokens say of it.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject {
            email: &self.email,
            plan: &self.plan,
            chatgpt_account_id: &self.chatgpt_account_id,
            user_id: &self.user_id,
            fedramp: self.fedramp,
        }
    }

    /// The cached tokens of this prompt, which is then remembered under its key.
    pub(crate) fn cached(&mut self, key: Option<&str>, prompt: &Prompt) -> u64 {
        let Some(key) = key else { return 0 };
        if self.prompts.len() >= PROMPTS {
            self.prompts.clear();
        }
        let earlier = self.prompts.insert(key.to_owned(), prompt.clone());
        earlier.map_or(0, |earlier| prompt.shared_with(&earlier))
    }
}

impl Limits {
    /// Starts a new window where one has ended.
    pub(crate) fn roll(&mut self, now: i64) {
        if self.resets_at <= now {
            self.used_percent = 0.0;
            self.resets_at = now + PRIMARY * 60;
        }
        if self.secondary_resets_at <= now {
            self.secondary_used_percent = 0.0;
            self.secondary_resets_at = now + SECONDARY * 60;
        }
    }

    /// Books one answer. Below `ceiling` the account never locks itself.
    pub(crate) fn grow(&mut self, percent: f64, ceiling: f64) {
        let add = |used: f64, more: f64| {
            if used < ceiling { four_places(used + more).min(ceiling) } else { used }
        };
        self.used_percent = add(self.used_percent, percent);
        self.secondary_used_percent = add(self.secondary_used_percent, percent / 10.0);
    }

    /// When a full window resets, if one is full.
    pub(crate) fn full_until(&self) -> Option<i64> {
        let secondary = (self.secondary_used_percent >= 100.0).then_some(self.secondary_resets_at);
        secondary.or((self.used_percent >= 100.0).then_some(self.resets_at))
    }

    /// The `x-codex-*` headers (protocol.md 5.1).
    pub(crate) fn headers(&self, plan: &str) -> Vec<(&'static str, String)> {
        // The backend writes its booleans with a capital letter.
        let credits = if self.has_credits { "True" } else { "False" };
        vec![
            ("x-codex-plan-type", plan.to_owned()),
            ("x-codex-active-limit", "premium".to_owned()),
            ("x-codex-primary-used-percent", self.used_percent.to_string()),
            ("x-codex-primary-window-minutes", PRIMARY.to_string()),
            ("x-codex-primary-reset-at", self.resets_at.to_string()),
            ("x-codex-secondary-used-percent", self.secondary_used_percent.to_string()),
            ("x-codex-secondary-window-minutes", SECONDARY.to_string()),
            ("x-codex-secondary-reset-at", self.secondary_resets_at.to_string()),
            ("x-codex-credits-has-credits", credits.to_owned()),
            ("x-codex-credits-unlimited", "False".to_owned()),
            ("x-codex-credits-balance", if self.has_credits { "5.00" } else { "" }.to_owned()),
        ]
    }

    /// The `codex.rate_limits` event's fields (protocol.md 5.2).
    pub(crate) fn event(&self, plan: &str) -> Value {
        json!({
            "plan_type": plan, "metered_limit_name": "codex", "limit_name": null,
            "rate_limits": {
                "primary": {"used_percent": self.used_percent, "window_minutes": PRIMARY, "reset_at": self.resets_at},
                "secondary": {"used_percent": self.secondary_used_percent, "window_minutes": SECONDARY, "reset_at": self.secondary_resets_at},
            },
            "credits": {"has_credits": self.has_credits, "unlimited": false, "balance": null},
        })
    }

    /// `rate_limit` of `/wham/usage` (protocol.md 6.1).
    pub(crate) fn usage(&self, now: i64) -> Value {
        let window = |used: f64, minutes: i64, reset_at: i64| json!({"used_percent": used, "limit_window_seconds": minutes * 60, "reset_after_seconds": (reset_at - now).max(0), "reset_at": reset_at});
        let full = self.full_until().is_some();
        json!({
            "allowed": !full, "limit_reached": full,
            "primary_window": window(self.used_percent, PRIMARY, self.resets_at),
            "secondary_window": window(self.secondary_used_percent, SECONDARY, self.secondary_resets_at),
        })
    }
}

/// Cuts off what adding floats leaves behind.
fn four_places(percent: f64) -> f64 {
    (percent * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_window_refuses_until_it_rolls_over() {
        let traits = Traits { used_percent: Some(100.0), resets_in_seconds: Some(5), ..Traits::default() };
        let mut account = Account::new(&traits, 1, 1_000);
        assert_eq!(account.limits.full_until(), Some(1_005));
        account.limits.roll(1_005);
        assert_eq!(account.limits.full_until(), None);
    }

    #[test]
    fn use_grows_up_to_the_ceiling_only() {
        let mut account = Account::new(&Traits::default(), 1, 0);
        account.limits.grow(98.0, 99.0);
        account.limits.grow(98.0, 99.0);
        assert_eq!(account.limits.used_percent.to_string(), "99");
    }
}
