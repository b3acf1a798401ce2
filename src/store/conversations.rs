//! Conversations: an object of their own and a list of items, sealed each; found by the gateway key
//! and their id together. What an item is, is not known here.

use zeroize::Zeroizing;

use super::{
    KeyId, Store, UnixMillis,
    backend::{Write, execute, fetch_all, fetch_one, fetch_optional},
    error::Result,
    vault::Place,
};

/// A conversation as it was kept.
#[derive(Debug)]
pub struct KeptConversation {
    /// When it was made.
    pub created_at: UnixMillis,
    /// What was sealed.
    pub content: Zeroizing<Vec<u8>>,
}

/// An item to be added: its id and its content.
#[derive(Debug, Clone, Copy)]
pub struct NewItem<'a> {
    /// Its id, unique in the conversation.
    pub id: &'a str,
    /// What is sealed.
    pub content: &'a [u8],
}

/// Conversations in the store.
#[derive(Clone, Copy)]
pub struct ConversationStore<'a> {
    store: &'a Store,
}

impl<'a> ConversationStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Keeps a conversation, over one of the same id that may be there; its items stay.
    pub async fn put(
        &self,
        key: KeyId,
        id: &str,
        content: &[u8],
        created_at: UnixMillis,
        expires_at: UnixMillis,
    ) -> Result<()> {
        let place = place_of(key, id);
        let envelope = self.store.seal(object_at(&place), content)?;
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "INSERT INTO conversations (place, created_at, expires_at, content) VALUES ($1, $2, $3, $4)
             ON CONFLICT (place) DO UPDATE SET expires_at = excluded.expires_at, content = excluded.content",
            place,
            created_at,
            expires_at,
            envelope,
        )?;
        write.commit().await
    }

    /// The conversation of this key and id, unless its time is over.
    pub async fn get(&self, key: KeyId, id: &str, now: UnixMillis) -> Result<Option<KeptConversation>> {
        let place = place_of(key, id);
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            (UnixMillis, String),
            "SELECT created_at, content FROM conversations WHERE place = $1 AND expires_at > $2",
            place.as_str(),
            now,
        )?;
        row.map(|(created_at, envelope)| {
            let content = self.store.open_sealed(object_at(&place), &envelope)?;
            Ok(KeptConversation { created_at, content })
        })
        .transpose()
    }

    /// Deletes a conversation and its items. Returns whether it was there.
    pub async fn delete(&self, key: KeyId, id: &str, now: UnixMillis) -> Result<bool> {
        let mut write = self.store.backend.write(&[]).await?;
        let gone = execute!(
            &mut write,
            "DELETE FROM conversations WHERE place = $1 AND expires_at > $2",
            place_of(key, id),
            now,
        )?;
        write.commit().await?;
        Ok(gone > 0)
    }

    /// Adds items at a conversation's end and lets it live on. An item that is there already keeps its
    /// place and is written anew. Returns whether the conversation was there.
    pub async fn append(
        &self,
        key: KeyId,
        id: &str,
        items: &[NewItem<'_>],
        now: UnixMillis,
        expires_at: UnixMillis,
    ) -> Result<bool> {
        let place = place_of(key, id);
        let sealed: Vec<(String, String)> = items
            .iter()
            .map(|item| {
                let place = format!("{place}/{}", item.id);
                let envelope = self.store.seal(item_at(&place), item.content)?;
                Ok((place, envelope))
            })
            .collect::<Result<_>>()?;
        let mut write = self.store.backend.write(&[]).await?;
        // First, because it is also the lock: of two that append, one comes after the other.
        let there = execute!(
            &mut write,
            "UPDATE conversations SET expires_at = $2 WHERE place = $1 AND expires_at > $3",
            place.as_str(),
            expires_at,
            now,
        )?;
        if there == 0 {
            return Ok(false);
        }
        insert(&mut write, &place, &sealed).await?;
        write.commit().await?;
        Ok(true)
    }

    /// All items of a conversation in order, as pairs of id and content.
    pub async fn items(&self, key: KeyId, id: &str) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>> {
        let place = place_of(key, id);
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            (String, String),
            "SELECT place, content FROM conversation_items WHERE conversation = $1 ORDER BY position",
            place.as_str(),
        )?;
        let open = |(at, envelope): (String, String)| {
            let content = self.store.open_sealed(item_at(&at), &envelope)?;
            Ok((at[place.len() + 1..].to_owned(), content))
        };
        rows.into_iter().map(open).collect()
    }

    /// Deletes one item. Returns whether it was there.
    pub async fn delete_item(&self, key: KeyId, id: &str, item: &str) -> Result<bool> {
        let mut write = self.store.backend.write(&[]).await?;
        let at = format!("{}/{item}", place_of(key, id));
        let gone = execute!(&mut write, "DELETE FROM conversation_items WHERE place = $1", at)?;
        write.commit().await?;
        Ok(gone > 0)
    }

    /// Deletes up to `limit` conversations whose time is over. Returns how many.
    pub async fn sweep(&self, now: UnixMillis, limit: u32) -> Result<u64> {
        let mut session = self.store.backend.read().await?;
        let over = fetch_all!(
            &mut session,
            (String,),
            "SELECT place FROM conversations WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
            now,
            i64::from(limit),
        )?;
        drop(session);
        if over.is_empty() {
            return Ok(0);
        }
        let mut gone = 0;
        let mut write = self.store.backend.write(&[]).await?;
        for (place,) in over {
            gone +=
                execute!(&mut write, "DELETE FROM conversations WHERE place = $1 AND expires_at <= $2", place, now)?;
        }
        write.commit().await?;
        Ok(gone)
    }
}

async fn insert(write: &mut Write, conversation: &str, sealed: &[(String, String)]) -> Result<()> {
    let (last,) = fetch_one!(
        &mut *write,
        (i64,),
        "SELECT COALESCE(MAX(position), 0) FROM conversation_items WHERE conversation = $1",
        conversation,
    )?;
    for (position, (place, envelope)) in (last + 1..).zip(sealed) {
        execute!(
            &mut *write,
            "INSERT INTO conversation_items (place, conversation, position, content) VALUES ($1, $2, $3, $4)
             ON CONFLICT (place) DO UPDATE SET content = excluded.content",
            place.as_str(),
            conversation,
            position,
            envelope.as_str(),
        )?;
    }
    Ok(())
}

fn place_of(key: KeyId, id: &str) -> String {
    format!("{key}/{id}")
}

fn object_at(place: &str) -> Place<'_> {
    Place { table: "conversations", column: "content", row: place }
}

fn item_at(place: &str) -> Place<'_> {
    Place { table: "conversation_items", column: "content", row: place }
}
