//! Conversations: an object with metadata, and items that requests and clients add to it.

use super::asked::coded;
use super::items::{self, AskedPage, Item};
use super::{Kept, unreadable};
use crate::codex::raw::Raw;
use crate::dialect::responses::fields::{Members, check_metadata};
use crate::dialect::{Problem, ProblemKind};
use crate::store::{KeyId, NewItem, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

/// How many items one request may bring.
const MOST_ITEMS: usize = 20;

/// What is sealed of a conversation.
#[derive(Serialize, Deserialize)]
struct Content {
    metadata: Box<RawValue>,
}

impl Kept {
    /// `POST /v1/conversations`: a new one, with the items that the body brings.
    pub async fn create_conversation(&self, key: KeyId, body: &[u8]) -> Result<String, Problem> {
        self.require()?;
        let members = object(body)?;
        let metadata = metadata(&members)?.unwrap_or_else(|| "{}".to_owned());
        let items = match members.get("items").filter(|items| items.get() != "null") {
            Some(given) => new_items(given)?,
            None => Vec::new(),
        };
        let id = items::new_id("conv");
        let now = self.now();
        self.put_conversation(key, &id, metadata.clone(), now).await?;
        if !items.is_empty() {
            self.append(key, &id, &items).await?;
        }
        Ok(shown(&id, now, &metadata))
    }

    /// `GET /v1/conversations/{id}`.
    pub async fn conversation(&self, key: KeyId, id: &str) -> Result<String, Problem> {
        let (created_at, metadata) = self.known_conversation(key, id).await?;
        Ok(shown(id, created_at, &metadata))
    }

    /// `POST /v1/conversations/{id}`: new metadata.
    pub async fn update_conversation(&self, key: KeyId, id: &str, body: &[u8]) -> Result<String, Problem> {
        let (created_at, _) = self.known_conversation(key, id).await?;
        let members = object(body)?;
        let metadata = metadata(&members)?.unwrap_or_else(|| "{}".to_owned());
        self.put_conversation(key, id, metadata.clone(), created_at).await?;
        Ok(shown(id, created_at, &metadata))
    }

    /// `DELETE /v1/conversations/{id}`: with all its items.
    pub async fn delete_conversation(&self, key: KeyId, id: &str) -> Result<String, Problem> {
        self.known_conversation(key, id).await?;
        let gone = self.store.conversations().delete(key, id, self.now()).await.map_err(|error| unreadable(&error))?;
        if !gone {
            return Err(no_conversation(id));
        }
        Ok(json!({"id": id, "object": "conversation.deleted", "deleted": true}).to_string())
    }

    /// `GET /v1/conversations/{id}/items`.
    pub async fn list_conversation(&self, key: KeyId, id: &str, asked: &AskedPage) -> Result<String, Problem> {
        items::page(&self.conversation_items(key, id).await?, asked)
    }

    /// `POST /v1/conversations/{id}/items`: the items that were added, as they are kept.
    pub async fn extend_conversation(&self, key: KeyId, id: &str, body: &[u8]) -> Result<String, Problem> {
        self.known_conversation(key, id).await?;
        let members = object(body)?;
        let given = members.get("items").ok_or_else(|| Problem::invalid("items", "`items` is required"))?;
        let items = new_items(given)?;
        self.append(key, id, &items).await?;
        let asc = AskedPage::all_in_order();
        items::page(&items, &asc)
    }

    /// `GET /v1/conversations/{id}/items/{item}`.
    pub async fn conversation_item(&self, key: KeyId, id: &str, item: &str) -> Result<String, Problem> {
        let all = self.conversation_items(key, id).await?;
        let found = all.into_iter().find(|one| items::id(one).as_deref() == Some(item));
        found.map(|item| item.get().to_owned()).ok_or_else(|| no_item(item))
    }

    /// `DELETE /v1/conversations/{id}/items/{item}`: the conversation, without it.
    pub async fn delete_conversation_item(&self, key: KeyId, id: &str, item: &str) -> Result<String, Problem> {
        let shown = self.conversation(key, id).await?;
        if !items::is_id(item) {
            return Err(no_item(item));
        }
        let gone = self.store.conversations().delete_item(key, id, item).await.map_err(|error| unreadable(&error))?;
        if gone { Ok(shown) } else { Err(no_item(item)) }
    }

    /// The items of a conversation in order, also those that wait to be written.
    pub(super) async fn conversation_items(&self, key: KeyId, id: &str) -> Result<Vec<Item>, Problem> {
        self.known_conversation(key, id).await?;
        let kept = self.store.conversations().items(key, id).await.map_err(|error| unreadable(&error))?;
        let read = |(_, content): &(String, _)| -> Result<Item, Problem> {
            serde_json::from_slice::<Item>(AsRef::<[u8]>::as_ref(content as &zeroize::Zeroizing<Vec<u8>>))
                .map_err(|error| unreadable(&error))
        };
        kept.iter().map(read).collect()
    }

    async fn known_conversation(&self, key: KeyId, id: &str) -> Result<(UnixMillis, String), Problem> {
        self.require()?;
        if !items::is_id(id) {
            return Err(no_conversation(id));
        }
        self.queue.reached().await;
        let found = self.store.conversations().get(key, id, self.now()).await.map_err(|error| unreadable(&error))?;
        let kept = found.ok_or_else(|| no_conversation(id))?;
        let content: Content = serde_json::from_slice(&kept.content).map_err(|error| unreadable(&error))?;
        Ok((kept.created_at, content.metadata.get().to_owned()))
    }

    async fn put_conversation(
        &self,
        key: KeyId,
        id: &str,
        metadata: String,
        created_at: UnixMillis,
    ) -> Result<(), Problem> {
        let content = RawValue::from_string(metadata).map(|metadata| Content { metadata });
        let content = content.and_then(|content| serde_json::to_vec(&content)).map_err(|error| unreadable(&error))?;
        let kept = self.store.conversations().put(key, id, &content, created_at, self.expiry()).await;
        kept.map_err(|error| unreadable(&error))
    }

    async fn append(&self, key: KeyId, id: &str, items: &[Item]) -> Result<(), Problem> {
        let named: Vec<_> = items.iter().filter_map(|item| Some((items::id(item)?, item.get()))).collect();
        let new: Vec<_> = named.iter().map(|(id, item)| NewItem { id, content: item.as_bytes() }).collect();
        let (now, expires_at) = (self.now(), self.expiry());
        let there = self.store.conversations().append(key, id, &new, now, expires_at).await;
        if there.map_err(|error| unreadable(&error))? { Ok(()) } else { Err(no_conversation(id)) }
    }

    fn require(&self) -> Result<(), Problem> {
        if self.is_on() {
            return Ok(());
        }
        let message = "This gateway keeps no conversations (its operator set `responses.retention` to 0)";
        Err(coded("unsupported_endpoint", Problem::new(ProblemKind::InvalidRequest, message)))
    }
}

/// A body's members; no body is an object without any.
fn object(body: &[u8]) -> Result<Members<'_>, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    Members::read(body).map_err(|error| {
        Problem::new(ProblemKind::InvalidRequest, format!("The request body is not a JSON object: {error}"))
    })
}

fn metadata(members: &Members<'_>) -> Result<Option<String>, Problem> {
    let Some(given) = members.get("metadata").filter(|given| given.get() != "null") else { return Ok(None) };
    check_metadata(given)?;
    Ok(Some(given.get().to_owned()))
}

fn new_items(given: Raw<'_>) -> Result<Vec<Item>, Problem> {
    let wrong = || Problem::invalid("items", "`items` must be a list of at most 20 items");
    let items = items::of_list(given).ok_or_else(wrong)?;
    if items.len() > MOST_ITEMS {
        return Err(wrong());
    }
    Ok(items.iter().map(|item| items::kept(item)).collect())
}

fn shown(id: &str, created_at: UnixMillis, metadata: &str) -> String {
    let (id, created_at) = (json!(id), created_at / 1000);
    format!("{{\"id\":{id},\"object\":\"conversation\",\"created_at\":{created_at},\"metadata\":{metadata}}}")
}

fn no_conversation(id: &str) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("Conversation with id '{id}' not found."))
}

fn no_item(id: &str) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("Item with id '{id}' not found."))
}
