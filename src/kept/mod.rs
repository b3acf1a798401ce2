//! Kept responses: the backend keeps nothing, so what clients want kept is kept here. Responses and
//! conversations by gateway key, what follows from `previous_response_id`, `conversation` and
//! `item_reference`, and responses that run without their client.
//!
//! This room must not know HTTP, nor how an answer comes about: it expands a request before it goes
//! out, and listens to the answer on its way back. Nothing is written before an answer has ended; a
//! writer of its own brings it into the database.

mod asked;
mod background;
mod conversations;
mod expand;
mod items;
mod queue;
mod record;
mod reply;
mod run;

pub use background::Announced;
pub use expand::Expanded;
pub use items::AskedPage;
pub use run::{Follower, Run};

use crate::dialect::responses::request;
use crate::dialect::{Context, ModelMap, Prepared, Problem, ProblemKind};
use crate::store::{Duty, KeptResponse, KeyId, Store, StoreError, UnixMillis};
use background::Background;
use items::Item;
use queue::{Queue, Write};
use record::{Content, Record};
use reply::KeptReply;
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What is kept, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a response lives; zero keeps nothing.
    pub retention: Duration,
    /// How many bytes of one response are kept at most.
    pub max_size: usize,
    /// How many responses run at once without their client.
    pub background_runs: u32,
}

/// Before it is looked again for what another server may be writing; doubles each time.
const FIRST_LOOK: Duration = Duration::from_millis(30);

/// How a response is looked for.
#[derive(Clone, Copy)]
enum Sought<'a> {
    Id(&'a str),
    /// By an item that is in it.
    WithItem(&'a str),
}

/// Keeps responses. One for the process.
pub struct Kept {
    store: Store,
    options: Options,
    queue: Queue,
    /// Hands out the time.
    clock: fn() -> UnixMillis,
    background: Background,
}

/// What is to be kept of a request, until its answer has come.
#[derive(Debug, Clone)]
pub struct Draft {
    key: KeyId,
    /// Whether the response itself is kept; if not, its items go to the conversation alone.
    is_stored: bool,
    input: Vec<Item>,
    previous: Option<String>,
    conversation: Option<String>,
    session: String,
    cache_key: Option<String>,
    /// The response's id, where it runs in the background and so must be called something at once.
    background: Option<String>,
    /// Whether its events are kept too.
    is_streamed: bool,
    /// Responses that it builds on and that would go before it.
    to_extend: Vec<String>,
    created_at: UnixMillis,
}

/// What a search for a response brought.
enum Lookup {
    Found(Arc<Record>),
    Absent,
}

/// How often what is over is looked for, at most.
const SWEEP_PACE: Duration = Duration::from_mins(1);
/// How much is deleted in one transaction.
const SWEEP_BATCH: u32 = 200;

impl Kept {
    /// Keeps responses in this store.
    pub fn new(store: Store, options: Options, clock: fn() -> UnixMillis) -> Arc<Self> {
        let background = Background::new(options.background_runs);
        Arc::new(Self { store, options, queue: Queue::default(), clock, background })
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        !self.options.retention.is_zero()
    }

    /// Makes an expanded request ready for the backend; its answer is listened to. One that is to run
    /// in the background comes with its draft, for [`Kept::announce`].
    pub fn prepare(
        self: &Arc<Self>,
        expanded: Expanded,
        context: &Context,
        models: &ModelMap,
    ) -> Result<(Prepared, Option<Draft>), Problem> {
        let Expanded { body, echo, ignored, mut draft, session } = expanded;
        let mut prepared = request::prepare_with(&body, context, models, false, echo)?;
        prepared.ignored.splice(0..0, ignored);
        // What is built on it later belongs to the conversation as it is known from now on.
        if let (None, Some(draft), Some(name)) = (session, &mut draft, &prepared.beginning) {
            draft.session.clone_from(name);
        }
        match draft {
            Some(draft) if draft.background.is_some() => return Ok((prepared, Some(draft))),
            Some(draft) => prepared.reply = Box::new(KeptReply::new(prepared.reply, draft, self.clone())),
            None => {}
        }
        Ok((prepared, None))
    }

    /// The response object of this key and id.
    pub async fn response(&self, key: KeyId, id: &str) -> Result<String, Problem> {
        let record = self.known(key, id).await?;
        Ok(record.response(self.now()).get().to_owned())
    }

    /// A page of the items that a response's own request brought, after those that it builds on.
    pub async fn input_items(&self, key: KeyId, id: &str, asked: &AskedPage) -> Result<String, Problem> {
        items::page(&self.known(key, id).await?.content.input, asked)
    }

    /// Deletes the response of this key and id.
    pub async fn delete(&self, key: KeyId, id: &str) -> Result<String, Problem> {
        if !items::is_id(id) {
            return Err(unknown(id));
        }
        self.abandon(key, id);
        let (done, deleted) = oneshot::channel();
        let was_waiting = self.queue.get(key, id).is_some();
        self.queue.push(Write::Delete { key, id: id.to_owned(), now: self.now(), done });
        match deleted.await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) if was_waiting => {}
            Ok(Ok(false)) => return Err(unknown(id)),
            Ok(Err(error)) => return Err(unreadable(&error)),
            Err(_) => return Err(Problem::new(ProblemKind::ShuttingDown, "The gateway is shutting down")),
        }
        Ok(json!({"id": id, "object": "response", "deleted": true}).to_string())
    }

    /// Brings into the database what is to be kept, until `stop` and then what is left.
    pub async fn write(self: Arc<Self>, stop: CancellationToken) {
        let ended = async {
            stop.cancelled().await;
            self.background.ending.cancel();
            self.background.tasks.close();
            self.background.tasks.wait().await;
        };
        self.queue.write(&self.store, ended).await;
    }

    /// Before anybody asks: what the last process was working on has ended with it.
    pub async fn begin(&self) -> Result<(), StoreError> {
        self.store.responses().end_leases().await
    }

    /// Deletes what is over, until `stop`, while it is ours to do for all replicas.
    pub async fn sweep(self: Arc<Self>, duty: Duty, stop: CancellationToken) {
        let pace = if self.is_on() {
            (self.options.retention / 4).clamp(Duration::from_millis(100), SWEEP_PACE)
        } else {
            SWEEP_PACE
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                () = stop.cancelled() => return,
            }
            if duty.is_ours()
                && let Err(error) = self.sweep_once().await
            {
                tracing::warn!(%error, "kept responses whose time is over could not be deleted");
            }
        }
    }

    async fn sweep_once(&self) -> Result<(), StoreError> {
        let now = self.now();
        let batch = u64::from(SWEEP_BATCH);
        while self.store.responses().sweep(now, SWEEP_BATCH).await? == batch {}
        while self.store.conversations().sweep(now, SWEEP_BATCH).await? == batch {}
        Ok(())
    }

    /// An answer has ended with this response object.
    fn keep(&self, draft: &Draft, response: &RawValue) {
        let id = items::id(response).unwrap_or_default();
        self.keep_beside(draft, response);
        if !draft.is_stored || id.is_empty() {
            return;
        }
        let record = draft.record(response.to_owned(), id, self.expiry());
        if record.size() > self.options.max_size {
            tracing::warn!(response = record.id, size = record.size(), "a response is too large to be kept");
            return;
        }
        self.queue.push(Write::Put(Arc::new(record)));
    }

    /// What an answer means to others that are kept: its conversation, and what it builds on.
    fn keep_beside(&self, draft: &Draft, response: &RawValue) {
        let expires_at = self.expiry();
        if let Some(conversation) = &draft.conversation {
            let output = record::output(response);
            let items = draft.input.iter().cloned().chain(output).collect();
            let conversation = conversation.clone();
            self.queue.push(Write::Append { key: draft.key, conversation, items, now: self.now(), expires_at });
        }
        if draft.is_stored && !draft.to_extend.is_empty() {
            self.queue.push(Write::Extend { key: draft.key, ids: draft.to_extend.clone(), expires_at });
        }
    }

    async fn known(&self, key: KeyId, id: &str) -> Result<Arc<Record>, Problem> {
        match self.find(key, id).await? {
            Lookup::Found(record) => Ok(record),
            Lookup::Absent => Err(unknown(id)),
        }
    }

    async fn find(&self, key: KeyId, id: &str) -> Result<Lookup, Problem> {
        if !items::is_id(id) {
            return Ok(Lookup::Absent);
        }
        if let Some(record) = self.running(key, id).or_else(|| self.queue.get(key, id)) {
            return Ok(Lookup::Found(record));
        }
        let found = self.awaited(key, Sought::Id(id)).await?;
        Ok(found.map_or(Lookup::Absent, Lookup::Found))
    }

    /// What is in the database. Where several servers share one, what is not there is looked for again
    /// for a moment: a client may be as fast as to follow a response elsewhere before it is written.
    async fn awaited(&self, key: KeyId, sought: Sought<'_>) -> Result<Option<Arc<Record>>, Problem> {
        let responses = self.store.responses();
        let mut pause = FIRST_LOOK;
        let mut waited = Duration::ZERO;
        loop {
            let found = match sought {
                Sought::Id(id) => responses.get(key, id, self.now()).await,
                Sought::WithItem(item) => responses.with_item(key, item, self.now()).await,
            };
            let found = self.read(key, found)?;
            if found.is_some() || !self.store.is_shared() || waited >= queue::LATEST {
                return Ok(found);
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause *= 2;
        }
    }

    #[expect(clippy::unused_self, reason = "reads as the searches that it ends")]
    fn read(
        &self,
        key: KeyId,
        found: Result<Option<KeptResponse>, StoreError>,
    ) -> Result<Option<Arc<Record>>, Problem> {
        let Some(kept) = found.map_err(|error| unreadable(&error))? else { return Ok(None) };
        Record::read(key, &kept).map(|record| Some(Arc::new(record))).map_err(|error| unreadable(&error))
    }

    fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    fn retention_millis(&self) -> i64 {
        i64::try_from(self.options.retention.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
    }

    fn expiry(&self) -> UnixMillis {
        self.now() + self.retention_millis()
    }
}

impl Draft {
    /// The draft that a record was made of, as far as it tells.
    fn of(record: &Record) -> Self {
        let content = &record.content;
        Self {
            key: record.key,
            is_stored: true,
            input: content.input.clone(),
            previous: content.previous.clone(),
            conversation: content.conversation.clone(),
            session: content.session.clone().unwrap_or_default(),
            cache_key: content.cache_key.clone(),
            background: content.background.then(|| record.id.clone()),
            is_streamed: content.events.is_some(),
            to_extend: Vec::new(),
            created_at: record.created_at,
        }
    }

    fn record(&self, response: Item, id: String, expires_at: UnixMillis) -> Record {
        let content = Content {
            response,
            input: self.input.clone(),
            previous: self.previous.clone(),
            conversation: self.conversation.clone(),
            session: Some(self.session.clone()),
            cache_key: self.cache_key.clone(),
            background: self.background.is_some(),
            events: None,
        };
        Record { key: self.key, id, created_at: self.created_at, expires_at, lease_until: None, content }
    }
}

/// No response of this id for this key; whether another key has one is nobody's business.
fn unknown(id: &str) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("Response with id '{id}' not found."))
}

/// What was kept cannot be read; why is for the operator.
fn unreadable(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error = %error, cause = error.source().map(tracing::field::display), "what was kept could not be read");
    if error.downcast_ref::<StoreError>().is_some_and(StoreError::is_outage) {
        return Problem::unavailable("What the gateway has kept cannot be read now: its database does not answer");
    }
    Problem::new(ProblemKind::Internal, "The gateway could not read what it has kept")
}
