//! Makes a conversation readable for an account that did not make it: encrypted reasoning can be
//! read only by the account that wrote it (lessons.md 6), and a turn's state belongs to the account
//! that handed it out (protocol.md 2.1). Nothing is parsed but the outer object and the types of
//! the items; what stays passes as the bytes that it is.

use super::passage;
use crate::codex::raw::Raw;
use crate::dialect::responses::fields::Members;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// Where the Codex CLI repeats the turn's state on the WebSocket transport (protocol.md 4).
const TURN_STATE: &str = "x-codex-turn-state";

/// Which reasoning of a request belongs to another account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// None.
    None,
    /// That among the first so many items.
    First(usize),
    /// All of it, and the turn's state.
    All,
}

/// Takes what belongs to another account out of a request; says whether the body changed.
pub(super) fn leave_behind(headers: &mut HeaderMap, body: &mut Bytes, foreign: Foreign) -> bool {
    if foreign == Foreign::All {
        headers.remove(passage::TURN_STATE);
    }
    let stripped = strip(body, foreign);
    let is_changed = stripped.is_some();
    if let Some(stripped) = stripped {
        *body = stripped;
    }
    is_changed
}

/// The body without foreign reasoning; `None` when there is none in it, or it is not legible.
fn strip(body: &Bytes, foreign: Foreign) -> Option<Bytes> {
    let first = match foreign {
        Foreign::None => return None,
        Foreign::First(first) => first,
        Foreign::All => usize::MAX,
    };
    let Members(members) = Members::read(body).ok()?;
    let mut out = Vec::with_capacity(body.len());
    let mut is_changed = false;
    for (name, value) in members {
        out.push(if out.is_empty() { b'{' } else { b',' });
        serde_json::to_writer(&mut out, &name).ok()?;
        out.push(b':');
        let start = out.len();
        match &*name {
            "input" => is_changed |= write_items(value, first, &mut out),
            "client_metadata" if foreign == Foreign::All => is_changed |= write_metadata(value, &mut out)?,
            _ => {}
        }
        if out.len() == start {
            out.extend_from_slice(value.get().as_bytes());
        }
    }
    out.push(b'}');
    is_changed.then(|| Bytes::from(out))
}

/// How many items a request's conversation has; zero when it is not legible.
pub(super) fn items(body: &Bytes) -> u32 {
    let count = || Members::read(body).ok()?.get("input")?.elements().ok().map(|items| items.len());
    count().map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// Writes the items that stay, and says whether any was left out. Writes nothing if all stay.
fn write_items(value: Raw<'_>, first: usize, out: &mut Vec<u8>) -> bool {
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }
    // An input may be a text.
    let Ok(items) = value.elements() else { return false };
    let is_foreign = |(place, item): &(usize, &Raw<'_>)| {
        *place < first
            && serde_json::from_str::<Item<'_>>(item.get()).is_ok_and(|item| item.kind.as_deref() == Some("reasoning"))
    };
    let stay: Vec<_> = items.iter().enumerate().filter(|item| !is_foreign(item)).map(|(_, item)| item.get()).collect();
    if stay.len() == items.len() {
        return false;
    }
    out.push(b'[');
    out.extend_from_slice(stay.join(",").as_bytes());
    out.push(b']');
    true
}

fn write_metadata(value: Raw<'_>, out: &mut Vec<u8>) -> Option<bool> {
    let Ok(Value::Object(mut members)) = serde_json::from_str(value.get()) else { return Some(false) };
    if members.remove(TURN_STATE).is_none() {
        return Some(false);
    }
    serde_json::to_writer(out, &members).ok()?;
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"model":"m","input":[{"type":"reasoning","encrypted_content":"x"},{"type":"message", "role":"user"},{"encrypted_content":"y","type":"reasoning"}],"n":1.0}"#;

    fn stripped(body: &'static [u8], foreign: Foreign) -> Option<String> {
        strip(&Bytes::from_static(body), foreign).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn only_foreign_reasoning_goes_and_the_rest_stays_byte_for_byte() {
        let all = stripped(BODY, Foreign::All);
        assert_eq!(all.as_deref(), Some(r#"{"model":"m","input":[{"type":"message", "role":"user"}],"n":1.0}"#));
        let first = stripped(BODY, Foreign::First(1)).expect("one goes");
        assert!(first.contains(r#""y""#) && !first.contains(r#""x""#), "{first}");
        assert_eq!(stripped(BODY, Foreign::None), None);
    }

    #[test]
    fn a_body_without_reasoning_or_sense_is_left_alone() {
        for body in [&br#"{"input":[]}"#[..], br#"{"input":"hi"}"#, b"[]", b"{", br#"{"input":[1,"a",null]}"#] {
            assert_eq!(stripped(body, Foreign::All), None);
        }
    }

    #[test]
    fn the_state_of_a_turn_goes_with_a_move() {
        let body = br#"{"client_metadata":{"x-codex-turn-state":"s","turn_id":"t"},"input":[]}"#;
        assert_eq!(stripped(body, Foreign::All).as_deref(), Some(r#"{"client_metadata":{"turn_id":"t"},"input":[]}"#));
        assert_eq!(stripped(body, Foreign::First(9)), None);
    }

    #[test]
    fn items_are_counted() {
        assert_eq!(items(&Bytes::from_static(BODY)), 3);
        assert_eq!(items(&Bytes::from_static(b"no")), 0);
    }
}
