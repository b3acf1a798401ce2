//! Client dialects: pure translation between a client's API and the `codex` types. No I/O.
//!
//! The same files stand in each dialect: `request` (client's body → what the backend takes),
//! `stream` (backend events → client's frames), `whole` (the same events → one answer), `error`.
//! Clock and ids are handed in, so that recorded streams give the same bytes every time.

mod beginning;
pub mod catalogue;
pub mod chat;
mod cut;
mod effort;
pub mod images;
pub mod messages;
mod model;
mod names;
mod problem;
pub mod responses;
mod signature;
mod tokens;

pub use model::{ModelMap, ResolvedModel, Slugs};
pub use problem::{Overflow, Problem, ProblemKind, Rendered};

use crate::codex::event::Depth;
use crate::codex::sse::Frame;
use crate::codex::{Event, Failure, Usage};
use bytes::{Bytes, BytesMut};

/// The API that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI Responses, and the Codex CLI.
    Responses,
    /// OpenAI Chat Completions.
    Chat,
    /// Anthropic Messages.
    Messages,
}

impl Dialect {
    /// For metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Chat => "chat",
            Self::Messages => "messages",
        }
    }

    /// The error object of this dialect and its status.
    pub fn render(self, problem: &Problem, request_id: &str) -> Rendered {
        match self {
            Self::Responses => responses::error::render(problem),
            Self::Chat => chat::error::render(problem),
            Self::Messages => messages::error::render(problem, request_id),
        }
    }
}

/// What the translators are told about a request.
#[derive(Debug, Clone)]
pub struct Context {
    /// Unique to the request: ids that the client sees are made of it.
    pub request_id: String,
    /// Unix seconds.
    pub now: i64,
}

/// A client's request, ready for the backend.
pub struct Prepared {
    /// The slug that goes upstream.
    pub model: String,
    /// The model as the client named it: what the answer repeats.
    pub requested_model: String,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// The backend's request body, JSON.
    pub body: Bytes,
    /// The fields that could not be honoured; they go out in `x-tollway-ignored`.
    pub ignored: Vec<&'static str>,
    /// What names the conversation, for prompt caching and account affinity.
    pub session: Option<String>,
    /// What names the conversation where its client does not: how it begins.
    pub beginning: Option<String>,
    /// What limits look at.
    pub wish: Wish,
    /// Makes the answer.
    pub reply: Box<dyn Reply>,
}

/// What a request asks for that costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The reasoning effort that goes upstream, if one does.
    pub effort: Option<String>,
    /// The service tier that goes upstream, if one does.
    pub tier: Option<String>,
    /// The most output tokens that the client takes.
    pub most_output: Option<u64>,
}

impl Wish {
    /// Of a request that was made for the backend.
    fn of(request: &crate::codex::Request, most_output: Option<u64>) -> Self {
        let effort = request.reasoning.as_ref().and_then(|reasoning| reasoning.effort.clone());
        Self { effort, tier: request.service_tier.clone(), most_output }
    }
}

/// Makes the translators of one answer; may be asked again when a failed attempt is repeated.
pub trait Reply: Send + Sync {
    /// A translator for a streamed answer.
    fn stream(&self) -> Box<dyn Translator>;
    /// A translator for an answer in one piece.
    fn whole(&self) -> Box<dyn Folder>;

    /// The answer's object before anything of it has come, for one that its client does not wait for;
    /// `None` where the dialect has no such thing.
    fn announced(&self) -> Option<String> {
        None
    }

    /// Whether the translators may have to count tokens, for which [`build_vocabulary`] is to be
    /// called in time.
    fn counts_tokens(&self) -> bool {
        false
    }

    /// About how many tokens the request has, where the dialect words an overflow with the number.
    fn request_tokens(&self) -> Option<u64> {
        None
    }
}

/// Builds the tokenizer's vocabulary, which else the first count does: takes some hundred
/// milliseconds, once for the process, so it is to be called where blocking is allowed.
pub fn build_vocabulary() {
    tokens::exact(".");
}

/// Turns the backend's events into a client's frames.
pub trait Translator: Send {
    /// How much of each event it reads.
    fn depth(&self) -> Depth;

    /// Takes the next event and writes what the client should see of it.
    ///
    /// Terminal events are given too; `Failed` and `Error` are not answered here but in
    /// [`Translator::finish`], unless frames pass through as they are.
    fn event(&mut self, event: &Event<'_>, frame: &Frame, out: &mut BytesMut);

    /// Whether the answer has ended before the backend's: at a stop sequence or an output limit.
    /// Nothing more is to be read for it then; [`Translator::finish`] is still called, without a failure.
    fn is_done(&self) -> bool {
        false
    }

    /// What an answer that [`Translator::is_done`] has used: an estimate, for the backend counts at
    /// the end only. `None` if the backend did count, or has been let finish.
    fn spent(&self) -> Option<Usage> {
        None
    }

    /// As [`Folder::shortfall`]: what [`Translator::finish`] tells the client of by itself.
    fn shortfall(&self) -> Option<Failure> {
        None
    }

    /// What says that the stream is alive while the backend is silent, in the form that resets this
    /// client's own timer. Only sent between frames.
    fn keep_alive(&self) -> Bytes {
        Bytes::from_static(b": keep-alive\n\n")
    }

    /// The stream is over: with `failure` unless a completed or incomplete response was seen.
    /// Writes what is needed for a legal end. Called exactly once.
    fn finish(&mut self, failure: Option<&Problem>, out: &mut BytesMut);
}

/// Folds the backend's events into one answer.
pub trait Folder: Send {
    /// How much of each event it reads.
    fn depth(&self) -> Depth {
        Depth::Control
    }

    /// Takes the next event.
    fn event(&mut self, event: &Event<'_>);

    /// As [`Translator::is_done`]: nothing more is to be read.
    fn is_done(&self) -> bool {
        false
    }

    /// As [`Translator::spent`].
    fn spent(&self) -> Option<Usage> {
        None
    }

    /// Why the answer, though complete, is not one to this request: a failure takes its place.
    fn shortfall(&self) -> Option<Failure> {
        None
    }

    /// The answer's body; called once, only after a completed or incomplete response, or when
    /// [`Folder::is_done`].
    fn finish(self: Box<Self>) -> Bytes;
}

/// What a failure of the backend means to a client.
impl From<&Failure> for Problem {
    fn from(failure: &Failure) -> Self {
        problem::of_failure(failure)
    }
}
