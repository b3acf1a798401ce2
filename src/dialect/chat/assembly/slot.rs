//! What is known of one output item, and which slot an event belongs to.
//!
//! Item ids may be missing or change from event to event, indexes may be missing (then all are 0),
//! call ids are reliable where they are given: so an id that matches decides, else the place does.

use super::{Family, Piece, Sink, Thought, characters, emit};
use crate::codex::event::{ContentPart, Delta, Item};

/// The items that an assistant message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Reasoning,
    Function,
    Custom,
    Image,
}

/// What an event says of the item it belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) index: u32,
    pub(super) item: Option<&'a str>,
    pub(super) call: Option<&'a str>,
}

impl<'a> Key<'a> {
    pub(super) fn of(delta: &'a Delta<'_>) -> Self {
        Self { index: delta.output_index, item: delta.item_id.as_deref(), call: None }
    }
}

/// Kind and key of an item; `None` for items that a chat message has no place for.
pub(super) fn identify(item: &Item, index: u32) -> Option<(Kind, Key<'_>)> {
    let (kind, id, call) = match item {
        Item::Message { id, .. } => (Kind::Message, id, None),
        Item::Reasoning { id, .. } => (Kind::Reasoning, id, None),
        Item::FunctionCall { id, call_id, .. } => (Kind::Function, id, call_id.as_deref()),
        Item::CustomToolCall { id, call_id, .. } => (Kind::Custom, id, call_id.as_deref()),
        Item::ImageGenerationCall { id, .. } => (Kind::Image, id, None),
        _ => return None,
    };
    Some((kind, Key { index, item: id.as_deref(), call: call.filter(|id| !id.is_empty()) }))
}

/// One output item.
#[derive(Debug)]
pub(super) struct Slot {
    index: u32,
    /// The id of the first event that had one.
    pub(super) item_id: Option<String>,
    pub(super) is_done: bool,
    pub(super) body: Body,
}

/// What of the item has gone out.
#[derive(Debug)]
pub(super) enum Body {
    Message(Message),
    Reasoning(Reasoning),
    Call(Call),
    /// It goes out whole, when it is done.
    Image,
}

impl Slot {
    pub(super) fn kind(&self) -> Kind {
        match &self.body {
            Body::Message(_) => Kind::Message,
            Body::Reasoning(_) => Kind::Reasoning,
            Body::Image => Kind::Image,
            Body::Call(Call { family: Family::Function, .. }) => Kind::Function,
            Body::Call(Call { family: Family::Custom, .. }) => Kind::Custom,
        }
    }

    fn call_id(&self) -> Option<&str> {
        match &self.body {
            Body::Call(call) => call.id.as_deref(),
            _ => None,
        }
    }

    /// Whether an id says that this is the item.
    pub(super) fn is_named(&self, key: &Key<'_>) -> bool {
        (key.call.is_some() && key.call == self.call_id())
            || (key.item.is_some() && key.item == self.item_id.as_deref() && self.may_be(key))
    }

    /// Whether nothing says that this is another item: call ids never change.
    pub(super) fn may_be(&self, key: &Key<'_>) -> bool {
        match (key.call, self.call_id()) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        }
    }

    /// Learns the ids that it does not have yet.
    pub(super) fn adopt(&mut self, key: &Key<'_>) {
        if self.item_id.is_none() {
            self.item_id = key.item.map(str::to_owned);
        }
        if let Body::Call(call) = &mut self.body
            && call.id.is_none()
        {
            call.id = key.call.map(str::to_owned);
        }
    }
}

/// Opens a slot at the end.
pub(super) fn open<'s>(slots: &'s mut Vec<Slot>, kind: Kind, key: &Key<'_>) -> &'s mut Slot {
    let body = match kind {
        Kind::Message => Body::Message(Message::default()),
        Kind::Reasoning => Body::Reasoning(Reasoning::default()),
        Kind::Image => Body::Image,
        Kind::Function => Body::Call(Call::new(Family::Function)),
        Kind::Custom => Body::Call(Call::new(Family::Custom)),
    };
    let mut slot = Slot { index: key.index, item_id: None, is_done: false, body };
    slot.adopt(key);
    let at = slots.len();
    slots.push(slot);
    &mut slots[at]
}

/// The unfinished slot that the event belongs to.
pub(super) fn find_open(slots: &[Slot], kind: Kind, key: &Key<'_>) -> Option<usize> {
    let is_open = |slot: &Slot| !slot.is_done && slot.kind() == kind;
    slots
        .iter()
        .rposition(|slot| is_open(slot) && slot.is_named(key))
        .or_else(|| slots.iter().rposition(|slot| is_open(slot) && slot.index == key.index && slot.may_be(key)))
}

/// Whether an id says that the item is finished.
pub(super) fn is_finished(slots: &[Slot], kind: Kind, key: &Key<'_>) -> bool {
    slots.iter().any(|slot| slot.is_done && slot.kind() == kind && slot.is_named(key))
}

/// How many bytes of each part have gone out. Parts are few, and their numbers are the backend's.
#[derive(Debug, Default)]
pub(super) struct Sent(Vec<(u32, usize)>);

impl Sent {
    fn of(&mut self, part: u32) -> &mut usize {
        let at = self.0.iter().position(|(number, _)| *number == part).unwrap_or_else(|| {
            self.0.push((part, 0));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Notes bytes that go out now; returns how many went before.
    pub(super) fn note(&mut self, part: u32, bytes: usize) -> usize {
        let sent = self.of(part);
        let before = *sent;
        *sent += bytes;
        before
    }

    /// What of the part has not gone out; it counts as gone out.
    pub(super) fn rest<'t>(&mut self, part: u32, whole: &'t str) -> &'t str {
        let sent = self.of(part);
        let rest = whole.get(*sent..).unwrap_or_default();
        *sent += rest.len();
        rest
    }
}

/// Text of the assistant.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) text: Sent,
    pub(super) refusal: Sent,
    /// Citations that have gone out.
    pub(super) annotations: usize,
    /// Where each part begins in the text of the whole answer, in characters.
    origins: Vec<(u32, u64)>,
}

impl Message {
    /// Text of a part goes out after so many characters; the first time is where it begins.
    pub(super) fn begin(&mut self, part: u32, said: u64) {
        if !self.origins.iter().any(|(known, _)| *known == part) {
            self.origins.push((part, said));
        }
    }

    /// Where a part begins.
    pub(super) fn origin(&self, part: u32) -> u64 {
        self.origins.iter().find(|(known, _)| *known == part).map_or(0, |(_, origin)| *origin)
    }

    /// Says what its deltas lacked; `said` counts the characters of text of the whole answer.
    pub(super) fn finish(&mut self, content: &[ContentPart], said: &mut u64, sink: &mut impl Sink) {
        for (part, at) in content.iter().zip(0..) {
            match part {
                ContentPart::OutputText { text, .. } => {
                    self.begin(at, *said);
                    let rest = self.text.rest(at, text);
                    *said += characters(rest);
                    emit(rest, Piece::Text, sink);
                }
                ContentPart::Refusal { refusal } => emit(self.refusal.rest(at, refusal), Piece::Refusal, sink),
                _ => {}
            }
        }
        let citations = content.iter().zip(0..).flat_map(|(part, at)| match part {
            ContentPart::OutputText { annotations, .. } => annotations.iter().map(|citation| (citation, at)).collect(),
            _ => Vec::new(),
        });
        for (citation, part) in citations.skip(self.annotations) {
            sink.take(Piece::Citation { citation, origin: self.origin(part) });
        }
    }
}

/// What reasoning of a whole answer has gone out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reasoned {
    /// Whether any has: parts are set apart by a blank line.
    has_begun: bool,
    /// Details that have begun: the next one's index.
    details: u32,
}

impl Reasoned {
    /// The index of a detail that begins now.
    pub(super) fn next_detail(&mut self) -> u32 {
        let index = self.details;
        self.details += 1;
        index
    }
}

/// Reasoning that a client may see.
#[derive(Debug, Default)]
pub(super) struct Reasoning {
    summary: Sent,
    raw: Sent,
    /// The index of the summary among all details, once it has begun; and that of the rest.
    summary_index: Option<u32>,
    raw_index: Option<u32>,
}

impl Reasoning {
    /// What of a part has not been said; unlike [`Sent::rest`] it does not count as said.
    pub(super) fn rest<'t>(&mut self, part: u32, is_summary: bool, whole: &'t str) -> &'t str {
        let sent = if is_summary { &mut self.summary } else { &mut self.raw };
        whole.get(*sent.of(part)..).unwrap_or_default()
    }

    /// Says more of a part, after a blank line if it is a new one and something went before.
    pub(super) fn say(
        &mut self,
        part: u32,
        is_summary: bool,
        text: &str,
        id: Option<&str>,
        reasoned: &mut Reasoned,
        sink: &mut impl Sink,
    ) {
        if text.is_empty() {
            return;
        }
        let (sent, index) = if is_summary {
            (&mut self.summary, &mut self.summary_index)
        } else {
            (&mut self.raw, &mut self.raw_index)
        };
        let is_new = index.is_none();
        let thought = Thought { index: *index.get_or_insert_with(|| reasoned.next_detail()), id, is_summary, is_new };
        if sent.note(part, text.len()) == 0 && reasoned.has_begun {
            // Between two thoughts it belongs to neither.
            sink.take(Piece::Reasoning { text: "\n\n", thought: Some(thought).filter(|_| !is_new) });
        }
        reasoned.has_begun = true;
        sink.take(Piece::Reasoning { text, thought: Some(thought) });
    }
}

/// A call of a tool. It begins when its id and its name are known; until then its arguments wait.
#[derive(Debug)]
pub(super) struct Call {
    family: Family,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    /// The call's index, once it has begun.
    begun: Option<u32>,
    waiting: String,
    /// Bytes of the arguments so far, those that wait included.
    seen: usize,
}

impl Call {
    fn new(family: Family) -> Self {
        Self { family, id: None, name: None, begun: None, waiting: String::new(), seen: 0 }
    }

    /// More arguments.
    pub(super) fn append(&mut self, text: &str, sink: &mut impl Sink) {
        self.seen += text.len();
        match self.begun {
            _ if text.is_empty() => {}
            Some(index) => sink.take(Piece::Arguments { index, family: self.family, text }),
            None => self.waiting.push_str(text),
        }
    }

    /// All arguments so far; begins the call if it can.
    pub(super) fn finish_arguments(&mut self, whole: &str, calls: &mut u32, sink: &mut impl Sink) {
        self.begin(calls, sink);
        let rest = whole.get(self.seen..).unwrap_or_default();
        self.append(rest, sink);
    }

    fn begin(&mut self, calls: &mut u32, sink: &mut impl Sink) {
        let (None, Some(id), Some(name)) = (self.begun, &self.id, &self.name) else { return };
        let (index, family) = (*calls, self.family);
        *calls += 1;
        self.begun = Some(index);
        sink.take(Piece::Call { index, id, name, family });
        if !self.waiting.is_empty() {
            sink.take(Piece::Arguments { index, family, text: &self.waiting });
        }
    }

    /// The call is complete. Without an id it gets the item's or one of ours; without a name it
    /// cannot be made and is left out. A function's arguments are JSON even if there are none.
    pub(super) fn close(&mut self, item_id: Option<&str>, whole: &str, calls: &mut u32, sink: &mut impl Sink) {
        if self.id.is_none() {
            self.id = Some(item_id.map_or_else(|| format!("call_{calls}"), str::to_owned));
        }
        self.finish_arguments(whole, calls, sink);
        if self.seen == 0 && self.family == Family::Function {
            self.append("{}", sink);
        }
    }
}
