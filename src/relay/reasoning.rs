//! Takes encrypted reasoning out of a request whose conversation moved to another account: it can
//! be read only by the account that made it (lessons.md 6). Rare, so a tree is fine here.

use bytes::Bytes;
use serde_json::Value;

/// The body without reasoning items; `None` when there are none, or the body is not legible.
pub(super) fn strip(body: &Bytes) -> Option<Bytes> {
    let mut request: Value = serde_json::from_slice(body).ok()?;
    let input = request.get_mut("input")?.as_array_mut()?;
    let before = input.len();
    input.retain(|item| item.get("type").and_then(Value::as_str) != Some("reasoning"));
    (input.len() < before).then(|| Bytes::from(request.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reasoning_goes() {
        let body = Bytes::from_static(
            br#"{"input":[{"type":"reasoning","encrypted_content":"x"},{"type":"message","role":"user"}]}"#,
        );
        assert_eq!(strip(&body).as_deref(), Some(&br#"{"input":[{"role":"user","type":"message"}]}"#[..]));
        assert_eq!(strip(&Bytes::from_static(br#"{"input":[]}"#)), None);
    }
}
