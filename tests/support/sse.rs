//! Server-sent events as a client sees them. A reader of its own, so that the gateway's is not
//! tested against itself.

use serde_json::Value;

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The `event:` line; empty without one.
    pub(crate) name: String,
    /// The `data:` lines.
    pub(crate) data: String,
}

impl Event {
    /// The data as JSON; null for `[DONE]`.
    pub(crate) fn json(&self) -> Value {
        if self.data == "[DONE]" {
            return Value::Null;
        }
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error} in event {self:?}"))
    }
}

/// The events of a whole body; comments are left out.
pub(crate) fn events(body: &str) -> Vec<Event> {
    body.split("\n\n").filter_map(event).collect()
}

fn event(frame: &str) -> Option<Event> {
    let field = |name: &str| {
        let lines = frame.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>()
    };
    let data = field("data");
    (!data.is_empty()).then(|| Event { name: field("event").concat(), data: data.join("\n") })
}
