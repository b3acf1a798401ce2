//! A kept response: what was asked, what was answered, and where it stands in its conversation.

use super::items::{self, Item};
use crate::dialect::responses::fields::Members;
use crate::store::{KeptResponse, KeyId, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

/// A response with its place.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Whose it is.
    pub key: KeyId,
    /// Its id, as its client knows it.
    pub id: String,
    /// When it was made.
    pub created_at: UnixMillis,
    /// From when on it is as good as gone.
    pub expires_at: UnixMillis,
    /// Until when somebody is known to work on it; `None` for one that has ended.
    pub lease_until: Option<UnixMillis>,
    /// What is sealed.
    pub content: Content,
}

/// What is sealed of a response.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Content {
    /// The response object, as its client saw it last.
    pub response: Item,
    /// The items that its own request brought.
    pub input: Vec<Item>,
    /// The response that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The conversation that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// What keeps its conversation on one account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What its client called the conversation, for the prompt cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_key: Option<String>,
    /// Whether it runs, or ran, without its client.
    #[serde(default)]
    pub background: bool,
    /// The events of a streamed background response, as they were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
}

/// A record that is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("a kept response is damaged: {0}")]
pub(super) struct Damaged(#[from] serde_json::Error);

impl Record {
    /// Reads what the store gave.
    pub(super) fn read(key: KeyId, kept: &KeptResponse) -> Result<Self, Damaged> {
        let content: Content = serde_json::from_slice(&kept.content)?;
        let id = items::id(&content.response).unwrap_or_default();
        let KeptResponse { created_at, expires_at, lease_until, .. } = *kept;
        Ok(Self { key, id, created_at, expires_at, lease_until, content })
    }

    /// The items that the model gave.
    pub(super) fn output(&self) -> Vec<Item> {
        output(&self.content.response)
    }

    /// The item of this id among those that the model gave.
    pub(super) fn item(&self, id: &str) -> Option<Item> {
        self.output().into_iter().find(|item| items::id(item).as_deref() == Some(id))
    }

    /// The ids that a later request may refer to: those of the items that the model gave.
    pub(super) fn item_ids(&self) -> Vec<String> {
        self.output().iter().filter_map(|item| items::id(item)).collect()
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let input: usize = self.content.input.iter().map(|item| item.get().len()).sum();
        self.content.response.get().len() + input + self.content.events.as_ref().map_or(0, String::len)
    }

    /// The response as it is at `now`: one that nobody works on any more, though it has not ended,
    /// was interrupted.
    pub(super) fn response(&self, now: UnixMillis) -> Item {
        match self.lease_until {
            Some(until) if until <= now => ended(&self.content.response, "failed", Some(("server_error", INTERRUPTED))),
            _ => self.content.response.clone(),
        }
    }

    /// Whether somebody works on it.
    pub(super) fn is_running(&self, now: UnixMillis) -> bool {
        self.lease_until.is_some_and(|until| until > now)
    }
}

/// What a client reads of a response that a restart cut off.
pub(super) const INTERRUPTED: &str =
    "The gateway was restarted before this response was complete; send the request again";

/// A response object that ends without having been completed.
pub(super) fn ended(response: &RawValue, status: &str, error: Option<(&str, &str)>) -> Item {
    let error = error.map_or(json!(null), |(code, message)| json!({"code": code, "message": message}));
    changed(response, &[("status", json!(status).to_string()), ("error", error.to_string())])
}

/// A response object with these members.
pub(super) fn changed(response: &RawValue, members: &[(&'static str, String)]) -> Item {
    let Ok(known) = Members::read(response.get().as_bytes()) else { return response.to_owned() };
    items::raw(known.with(members)).unwrap_or_else(|| response.to_owned())
}

/// The items that the model gave.
pub(super) fn output(response: &RawValue) -> Vec<Item> {
    #[derive(Deserialize)]
    struct Output {
        #[serde(default)]
        output: Vec<Item>,
    }
    serde_json::from_str::<Output>(response.get()).map(|all| all.output).unwrap_or_default()
}

/// Whether nothing more comes of a response.
pub(super) fn is_over(response: &RawValue) -> bool {
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        status: Option<String>,
    }
    let Status { status } = serde_json::from_str(response.get()).unwrap_or_default();
    !matches!(status.as_deref(), Some("queued" | "in_progress"))
}
