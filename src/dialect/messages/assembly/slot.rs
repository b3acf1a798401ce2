//! One slot for each item of the backend's output, and how an event finds its item.
//!
//! Ids may be missing or change from event to event, and so may indexes; between them an item can
//! always be found: by its id, by its call id, else by its place and kind.

use super::piece::Piece;
use crate::codex::event::Item;
use std::ops::{Index, IndexMut};

/// What an item can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Reasoning,
    Call,
    Search,
    Image,
    /// Nothing that a client of this dialect could see.
    Silent,
}

/// What is known of an item when it is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    kind: Kind,
    output_index: u32,
    id: Option<&'a str>,
    call_id: Option<&'a str>,
}

impl<'a> Identity<'a> {
    pub(super) fn of(item: &'a Item, output_index: u32) -> Self {
        let (kind, id, call_id) = match item {
            Item::Message { id, .. } => (Kind::Message, id, &None),
            Item::Reasoning { id, .. } => (Kind::Reasoning, id, &None),
            Item::FunctionCall { id, call_id, .. } | Item::CustomToolCall { id, call_id, .. } => {
                (Kind::Call, id, call_id)
            }
            Item::WebSearchCall { id, .. } => (Kind::Search, id, &None),
            Item::ImageGenerationCall { id, .. } => (Kind::Image, id, &None),
            Item::Other => (Kind::Silent, &None, &None),
        };
        Self { kind, output_index, id: id.as_deref(), call_id: call_id.as_deref() }
    }
}

/// One item of the output.
#[derive(Debug)]
pub(super) struct Slot {
    kind: Kind,
    output_index: u32,
    id: Option<String>,
    /// A call's id and name; a call opens only when both are known.
    call_id: Option<String>,
    name: Option<String>,
    /// How many bytes of each part have been said, so that a finished item adds only the rest.
    said: Vec<(u32, usize)>,
    /// How many citations have been said.
    pub(super) citations: usize,
    /// What is to be written when the slot gets the floor.
    pub(super) waiting: Vec<Piece<'static>>,
    /// Whether `output_item.added` was seen; deltas alone also make a slot.
    announced: bool,
    /// Whether nothing more is taken.
    pub(super) finished: bool,
    /// Whether `output_item.done` was seen.
    done: bool,
}

impl Slot {
    fn new(identity: Identity<'_>) -> Self {
        Self {
            kind: identity.kind,
            output_index: identity.output_index,
            id: identity.id.map(str::to_owned),
            call_id: identity.call_id.map(str::to_owned),
            name: None,
            said: Vec::new(),
            citations: 0,
            waiting: Vec::new(),
            announced: false,
            finished: false,
            done: false,
        }
    }

    /// Learns a call's name and id; what is known already stays.
    pub(super) fn name_call(&mut self, name: Option<&str>, call_id: Option<&str>) {
        let known = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        self.name = self.name.take().or_else(|| known(name));
        self.call_id = self.call_id.take().filter(|id| !id.is_empty()).or_else(|| known(call_id));
    }

    /// A call's id and name.
    pub(super) fn call(&self) -> (&str, &str) {
        (self.call_id.as_deref().unwrap_or_default(), self.name.as_deref().unwrap_or_default())
    }

    /// Whether a block for it could be opened now.
    pub(super) fn can_open(&self) -> bool {
        self.kind != Kind::Call || (self.name.is_some() && self.call_id.as_ref().is_some_and(|id| !id.is_empty()))
    }

    /// Notes that so many bytes of a part were said.
    pub(super) fn count(&mut self, part: u32, bytes: usize) {
        *self.said_of(part) += bytes;
    }

    /// What of a part's whole text was not said yet; it counts as said.
    pub(super) fn rest<'a>(&mut self, part: u32, whole: &'a str) -> &'a str {
        let said = self.said_of(part);
        let rest = whole.get(*said..).unwrap_or_default();
        *said += rest.len();
        rest
    }

    fn said_of(&mut self, part: u32) -> &mut usize {
        let at = self.said.iter().position(|(known, _)| *known == part).unwrap_or_else(|| {
            self.said.push((part, 0));
            self.said.len() - 1
        });
        &mut self.said[at].1
    }
}

/// All items of one response, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    done_items: usize,
}

impl Slots {
    /// The slot a delta belongs to; a delta may come before anything announced its item.
    pub(super) fn of_delta(&mut self, kind: Kind, id: Option<&str>, output_index: u32) -> usize {
        let identity = Identity { kind, output_index, id, call_id: None };
        self.by_id(identity).or_else(|| self.at_place(identity, |_| true)).unwrap_or_else(|| self.push(identity))
    }

    /// The slot of an announced item; `None` if it is already done.
    pub(super) fn of_added(&mut self, identity: Identity<'_>) -> Option<usize> {
        let found = self.by_id(identity).or_else(|| self.at_place(identity, |slot| !slot.announced && !slot.done));
        let slot = found.unwrap_or_else(|| self.push(identity));
        self.slots[slot].announced = true;
        self.slots[slot].adopt(identity);
        (!self.slots[slot].done).then_some(slot)
    }

    /// The slot of a finished item; `None` if that was said before. Where events lack indexes, all
    /// items stand at the first place, so a finished one there is not taken for this one.
    pub(super) fn of_done(&mut self, identity: Identity<'_>) -> Option<usize> {
        let may_be_it = |slot: &Slot| !slot.done && slot.may_be_call(identity.call_id);
        let found = self.by_id(identity).or_else(|| self.at_place(identity, may_be_it));
        self.settle(found, identity)
    }

    /// The slot of an item of the final response's output, whose places are sure; `None` if it was
    /// finished before.
    pub(super) fn of_output(&mut self, identity: Identity<'_>) -> Option<usize> {
        let may_be_it = |slot: &Slot| slot.may_be_call(identity.call_id);
        let found = self.by_id(identity).or_else(|| self.at_place(identity, may_be_it));
        self.settle(found, identity)
    }

    fn settle(&mut self, found: Option<usize>, identity: Identity<'_>) -> Option<usize> {
        let slot = found.unwrap_or_else(|| self.push(identity));
        if std::mem::replace(&mut self.slots[slot].done, true) {
            return None;
        }
        self.done_items += 1;
        self.slots[slot].adopt(identity);
        Some(slot)
    }

    /// How many items were finished.
    pub(super) fn done_items(&self) -> usize {
        self.done_items
    }

    /// The first slot that has something to say and could open a block.
    pub(super) fn next_ready(&self) -> Option<usize> {
        self.slots.iter().position(|slot| !slot.waiting.is_empty() && slot.can_open())
    }

    /// Nothing more will come.
    pub(super) fn finish_all(&mut self) {
        for slot in &mut self.slots {
            slot.finished = true;
        }
    }

    fn by_id(&self, identity: Identity<'_>) -> Option<usize> {
        let same = |known: &Option<String>, given: Option<&str>| given.is_some() && known.as_deref() == given;
        self.slots.iter().rposition(|slot| {
            slot.kind == identity.kind && (same(&slot.id, identity.id) || same(&slot.call_id, identity.call_id))
        })
    }

    fn at_place(&self, identity: Identity<'_>, fits: impl Fn(&Slot) -> bool) -> Option<usize> {
        self.slots
            .iter()
            .rposition(|slot| slot.kind == identity.kind && slot.output_index == identity.output_index && fits(slot))
    }

    fn push(&mut self, identity: Identity<'_>) -> usize {
        self.slots.push(Slot::new(identity));
        self.slots.len() - 1
    }
}

impl Slot {
    /// Whether an item with this call id can be this one.
    fn may_be_call(&self, call_id: Option<&str>) -> bool {
        self.call_id.is_none() || call_id.is_none() || self.call_id.as_deref() == call_id
    }

    /// Takes over what an item says of itself.
    fn adopt(&mut self, identity: Identity<'_>) {
        if let Some(id) = identity.id {
            self.id = Some(id.to_owned());
        }
        if let (None, Some(call_id)) = (&self.call_id, identity.call_id) {
            self.call_id = Some(call_id.to_owned());
        }
    }
}

impl Index<usize> for Slots {
    type Output = Slot;

    fn index(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }
}

impl IndexMut<usize> for Slots {
    fn index_mut(&mut self, slot: usize) -> &mut Slot {
        &mut self.slots[slot]
    }
}
