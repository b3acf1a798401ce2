//! Responses: one terminal event and nothing after it, numbers that never fall back.

use super::payloads;
use crate::run::Answer;
use serde_json::Value;

/// Whether the stream is legal and ends as the whole answer does.
pub(crate) fn check(answer: &Answer) -> Result<(), String> {
    let (mut terminal, mut number) = (None, None);
    for payload in payloads(&answer.stream.replace("\r\n", "\n"))? {
        let event: Value = serde_json::from_str(payload).map_err(|e| e.to_string())?;
        if let Some(terminal) = terminal {
            return Err(format!("after {terminal}: {payload}"));
        }
        let next = event["sequence_number"].as_u64();
        if next.is_some() && next <= number {
            return Err(format!("the number falls back: {payload}"));
        }
        number = next.or(number);
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        if ["response.completed", "response.incomplete", "response.failed", "error"].contains(&kind.as_str()) {
            terminal = Some(kind);
        }
    }
    let ended_well = matches!(terminal.as_deref(), Some("response.completed" | "response.incomplete"));
    if terminal.is_some() && ended_well != answer.failed { Ok(()) } else { Err(format!("ends with {terminal:?}")) }
}
