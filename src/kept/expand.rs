//! From a request that builds on what was kept to one that says everything itself, as the backend
//! needs it.

use super::asked::{Asked, coded};
use super::items::{self, Item};
use super::record::{Record, output};
use super::{Draft, Kept, Lookup, Sought};
use crate::dialect::responses::Echo;
use crate::dialect::responses::fields::Members;
use crate::dialect::{Problem, ProblemKind};
use crate::store::KeyId;
use bytes::Bytes;
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;

/// The longest chain of responses that is followed.
const LONGEST_CHAIN: usize = 2000;

/// What is answered here and says nothing to the backend.
const ANSWERED: [&str; 3] = ["previous_response_id", "conversation", "background"];

/// A request that says everything itself, and what is to become of its answer.
pub struct Expanded {
    /// The request's body: earlier items stand in its `input`.
    pub body: Bytes,
    /// What the response object says, which does not stand in the body.
    pub echo: Echo,
    /// What was asked for and is not done; for `x-tollway-ignored`.
    pub ignored: Vec<&'static str>,
    /// Names the conversation where the request does not, so that its account stays the same.
    pub session: Option<String>,
    /// What is to be kept; `None` where nothing is.
    pub draft: Option<Draft>,
}

impl Expanded {
    /// A request that is left as it is.
    fn plain(body: &Bytes) -> Self {
        Self { body: body.clone(), echo: Echo::new(), ignored: Vec::new(), session: None, draft: None }
    }
}

/// What came before a request.
#[derive(Default)]
struct Before {
    items: Vec<Item>,
    /// The responses that it builds on, newest first, and those of them that would go too early.
    to_extend: Vec<String>,
    session: Option<String>,
    cache_key: Option<String>,
}

impl Kept {
    /// Expands a request of this key: `previous_response_id`, `conversation` and `item_reference`
    /// become items, and what is to be kept of it is noted. The database is read only for these.
    ///
    /// A body that is no request comes back as it is: others say what is wrong with it.
    pub async fn expand(&self, key: KeyId, body: &Bytes) -> Result<Expanded, Problem> {
        let Ok(members) = Members::read(body) else { return Ok(Expanded::plain(body)) };
        let mut asked = Asked::read(&members)?;
        if !self.is_on() {
            return without_keeping(&asked, &members, body);
        }
        let before = self.before(key, &asked).await?;
        // An input that is no list is left for others to refuse.
        let is_list = asked.input.is_some() || members.get("input").is_none();
        let looks_back = asked.looks_back() && is_list;
        let own = match asked.input.take() {
            Some(own) => self.resolved(key, own).await?,
            None => Vec::new(),
        };
        let mut expanded = Expanded::plain(body);
        if looks_back {
            let mut more = Vec::new();
            if asked.cache_key.is_none()
                && let Some(cache_key) = &before.cache_key
            {
                more.push(("prompt_cache_key", json!(cache_key).to_string()));
            }
            more.push(("input", joined(&before.items, &own)));
            expanded.body = Bytes::from(members.lacking(&ANSWERED).with(&more));
        } else {
            expanded.body = stripped(&members, body);
        }
        expanded.session.clone_from(&before.session);
        expanded.draft = self.draft(key, asked, &own, before, &mut expanded.ignored)?;
        expanded.echo = echo(&members, expanded.draft.as_ref());
        Ok(expanded)
    }

    async fn before(&self, key: KeyId, asked: &Asked) -> Result<Before, Problem> {
        if let Some(previous) = &asked.previous {
            return self.chain(key, previous).await;
        }
        let Some(conversation) = &asked.conversation else { return Ok(Before::default()) };
        let items = self.conversation_items(key, conversation).await?;
        let items = items.iter().filter_map(|item| items::told(item)).collect();
        Ok(Before { items, session: Some(conversation.clone()), ..Before::default() })
    }

    /// The items of a response and of all that it follows, oldest first.
    async fn chain(&self, key: KeyId, last: &str) -> Result<Before, Problem> {
        let mut chain: Vec<Arc<Record>> = Vec::new();
        let mut next = Some(last.to_owned());
        while let Some(id) = next.take().filter(|_| chain.len() < LONGEST_CHAIN) {
            let Lookup::Found(record) = self.find(key, &id).await? else { return Err(no_previous(&id)) };
            if record.is_running(self.now()) {
                let message = format!("The response '{id}' is still in progress; wait for its end to continue from it");
                return Err(Problem::invalid("previous_response_id", message));
            }
            next.clone_from(&record.content.previous);
            chain.push(record);
        }
        let mut before = Before::default();
        if let Some(newest) = chain.first() {
            before.session.clone_from(&newest.content.session);
            before.cache_key.clone_from(&newest.content.cache_key);
        }
        let expires_at = self.expiry();
        let is_short = |record: &&Arc<Record>| record.expires_at < expires_at - self.retention_millis() / 10;
        before.to_extend = chain.iter().filter(is_short).map(|record| record.id.clone()).collect();
        for record in chain.iter().rev() {
            let all = record
                .content
                .input
                .iter()
                .chain(&output(&record.content.response))
                .filter_map(|item| items::told(item))
                .collect::<Vec<_>>();
            before.items.extend(all);
        }
        Ok(before)
    }

    /// A request's own items, each reference replaced by what it refers to.
    async fn resolved(&self, key: KeyId, own: Vec<Item>) -> Result<Vec<Own>, Problem> {
        let mut resolved = Vec::with_capacity(own.len());
        for item in own {
            resolved.push(match items::reference(&item) {
                None => Own { item, was_kept: false },
                Some(id) => Own { item: self.referred(key, &id).await?, was_kept: true },
            });
        }
        Ok(resolved)
    }

    async fn referred(&self, key: KeyId, id: &str) -> Result<Item, Problem> {
        let record = match self.queue.with_item(key, id) {
            Some(record) => Some(record),
            None if !items::is_id(id) => None,
            None => self.awaited(key, Sought::WithItem(id)).await?,
        };
        record.and_then(|record| record.item(id)).ok_or_else(|| {
            let message = format!(
                "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with `store` set to true, or remove this item from your input."
            );
            Problem { param: Some("input".to_owned()), ..Problem::new(ProblemKind::NotFound, message) }
        })
    }

    /// What is to be kept of a request; nothing where it says so, or where there is no room.
    fn draft(
        &self,
        key: KeyId,
        asked: Asked,
        own: &[Own],
        before: Before,
        ignored: &mut Vec<&'static str>,
    ) -> Result<Option<Draft>, Problem> {
        if asked.store == Some(false) && asked.conversation.is_none() {
            return Ok(None);
        }
        let input: Vec<Item> = own.iter().map(|own| items::kept(&own.item)).collect();
        let size: usize = input.iter().map(|item| item.get().len()).sum();
        if size > self.options.max_size {
            let limit = self.options.max_size;
            let message = format!("What is kept of a response may take {limit} bytes at most; its input takes {size}");
            return unkept(&asked, Problem::new(ProblemKind::TooLarge, message), ignored);
        }
        if !self.queue.has_room() {
            let message = "The gateway's database is behind: no response can be kept for the moment";
            return unkept(&asked, Problem::new(ProblemKind::Overloaded, message), ignored);
        }
        Ok(Some(Draft {
            key,
            is_stored: asked.store != Some(false),
            input,
            previous: asked.previous,
            conversation: asked.conversation,
            session: before.session.unwrap_or_else(|| items::new_id("kept")),
            cache_key: asked.cache_key.or(before.cache_key),
            background: asked.background.then(|| items::new_id("resp")),
            is_streamed: asked.stream,
            to_extend: before.to_extend,
            created_at: self.now(),
        }))
    }
}

/// A response that cannot be kept is served all the same, unless it is of no use then.
fn unkept(asked: &Asked, problem: Problem, ignored: &mut Vec<&'static str>) -> Result<Option<Draft>, Problem> {
    if asked.background || asked.conversation.is_some() {
        return Err(problem);
    }
    ignored.push("store");
    Ok(None)
}

/// An item of a request's own.
struct Own {
    /// As the client means it.
    item: Item,
    /// Whether it stands for a reference, and is not the client's own words.
    was_kept: bool,
}

impl Own {
    /// As the backend is told it; `None` where it could not be continued from.
    fn told(&self) -> Option<Cow<'_, str>> {
        if self.was_kept {
            return items::told(&self.item).map(|told| Cow::Owned(told.get().to_owned()));
        }
        Some(Cow::Borrowed(self.item.get()))
    }
}

/// Where nothing is kept, what needs it is refused, and a wish to keep is named.
fn without_keeping(asked: &Asked, members: &Members<'_>, body: &Bytes) -> Result<Expanded, Problem> {
    let needs = [
        ("previous_response_id", asked.previous.is_some()),
        ("conversation", asked.conversation.is_some()),
        ("background", asked.background),
    ];
    if let Some((name, _)) = needs.into_iter().find(|(_, is_asked)| *is_asked) {
        let message = format!(
            "`{name}` cannot be served: this gateway keeps no responses (its operator set `responses.retention` to 0). Send the whole conversation in `input`"
        );
        return Err(coded("unsupported_parameter", Problem::invalid(name, message)));
    }
    let mut expanded = Expanded::plain(body);
    expanded.body = stripped(members, body);
    if asked.store == Some(true) {
        expanded.ignored.push("store");
    }
    expanded.echo = echo(members, None);
    Ok(expanded)
}

/// The body without what has been answered here.
fn stripped(members: &Members<'_>, body: &Bytes) -> Bytes {
    if ANSWERED.iter().all(|name| members.get(name).is_none()) {
        return body.clone();
    }
    Bytes::from(members.without(&ANSWERED))
}

fn echo(members: &Members<'_>, draft: Option<&Draft>) -> Echo {
    let mut echo = Echo::new().saying("store", json!(draft.is_some_and(|draft| draft.is_stored)).to_string());
    let given = |name: &str| members.get(name).filter(|value| value.get() != "null");
    if let Some(previous) = given("previous_response_id") {
        echo = echo.saying("previous_response_id", previous.get().to_owned());
    }
    let Some(draft) = draft else { return echo };
    if let Some(id) = &draft.conversation {
        echo = echo.saying("conversation", json!({ "id": id }).to_string());
    }
    if let Some(id) = &draft.background {
        // Its client has been told when it was made, before the backend was asked.
        let created_at = draft.created_at.div_euclid(1000).to_string();
        echo = echo.saying("background", "true".to_owned()).saying("id", json!(id).to_string());
        echo = echo.saying("created_at", created_at);
    }
    echo
}

fn joined(before: &[Item], own: &[Own]) -> String {
    let before = before.iter().map(|item| Cow::Borrowed(item.get()));
    let all: Vec<_> = before.chain(own.iter().filter_map(Own::told)).collect();
    format!("[{}]", all.join(","))
}

fn no_previous(id: &str) -> Problem {
    let message = format!("Previous response with id '{id}' not found.");
    coded("previous_response_not_found", Problem::invalid("previous_response_id", message))
}
