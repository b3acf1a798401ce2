//! Which headers pass through the gateway, in either direction. Everything else stops here:
//! credentials, cookies, hop-by-hop headers and what is bound to a device (protocol.md 2.1).

use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

/// What a Codex CLI sends that the backend is to see.
const UP: [&str; 14] = [
    "session-id",
    "thread-id",
    "session_id",
    "conversation_id",
    "x-client-request-id",
    "originator",
    "user-agent",
    "version",
    "openai-beta",
    "x-openai-internal-codex-responses-lite",
    "x-openai-subagent",
    "x-openai-memgen-request",
    "x-openai-internal-codex-residency",
    "x-responsesapi-include-timing-metrics",
];

/// What names a conversation, the first that is there.
static SESSION: [HeaderName; 6] = [
    HeaderName::from_static("session-id"),
    HeaderName::from_static("session_id"),
    HeaderName::from_static("x-claude-code-session-id"),
    HeaderName::from_static("x-session-affinity"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("conversation_id"),
];

/// The state of a turn, which belongs to the account that handed it out (protocol.md 2.1).
pub(super) const TURN_STATE: HeaderName = HeaderName::from_static("x-codex-turn-state");

/// The family of which all pass up, but for those that name an account or its routing.
const UP_PREFIX: &str = "x-codex-";

/// What the backend answers that a Codex CLI is to see (protocol.md 3, 5.1).
const DOWN: [&str; 4] = ["x-models-etag", "openai-model", "x-reasoning-included", "x-openai-processing-ms"];
const DOWN_PREFIX: &str = "x-codex-";

/// Words in the names of those that tell of one account's limits and plan: a client is told the pool's
/// instead. Such a word is not the last one …
const LIMIT_WORDS: [&str; 5] = ["primary", "secondary", "credits", "plan", "promo"];
/// … and of these pairs, both words in a row.
const LIMIT_PAIRS: [[&str; 2]; 3] = [["limit", "name"], ["active", "limit"], ["rate", "limit"]];

/// Headers for the backend, of a real Codex CLI: its own pass through.
pub(super) fn up(client: &HeaderMap) -> HeaderMap {
    select(client, |name| UP.contains(&name) || name.starts_with(UP_PREFIX))
}

/// Headers for the backend, of any other client: only what names the session, for its prompt cache.
pub(super) fn up_for_session(session: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(value) = session.and_then(|s| HeaderValue::try_from(s).ok()) {
        headers.insert(HeaderName::from_static("session-id"), value);
    }
    headers
}

/// Headers for a Codex CLI, of the backend's answer.
pub(super) fn down(backend: &HeaderMap) -> HeaderMap {
    select(backend, |name| match name.strip_prefix(DOWN_PREFIX) {
        Some(rest) => !tells_of_an_account(rest),
        None => DOWN.contains(&name),
    })
}

/// Whether the client is the Codex CLI (or an editor built on it), by what it calls itself.
pub fn is_codex_cli(client: &HeaderMap) -> bool {
    let originator = client.get("originator").and_then(|v| v.to_str().ok()).unwrap_or_default();
    originator.starts_with("codex_") || originator.starts_with("codex-") || originator == "Codex Desktop"
}

/// What names the conversation in a client's headers, the first that is there.
pub(super) fn session(client: &HeaderMap) -> Option<String> {
    SESSION
        .iter()
        .find_map(|name| client.get(name)?.to_str().ok())
        .filter(|value| !value.is_empty() && value.len() <= 256)
        .map(str::to_owned)
}

/// Whether a header is of the limits or the plan of one account, by what follows its prefix.
fn tells_of_an_account(name: &str) -> bool {
    let mut words = name.split('-').peekable();
    while let (Some(word), Some(next)) = (words.next(), words.peek()) {
        let begins_pair = |[first, second]: &[&str; 2]| word == *first && next.starts_with(second);
        if LIMIT_WORDS.contains(&word) || LIMIT_PAIRS.iter().any(begins_pair) {
            return true;
        }
    }
    memmem::find(name.as_bytes(), b"account").is_some()
}

fn select(headers: &HeaderMap, pass: impl Fn(&str) -> bool) -> HeaderMap {
    headers.iter().filter(|(name, _)| pass(name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|n| (HeaderName::from_static(n), HeaderValue::from_static("v"))).collect()
    }

    #[test]
    fn credentials_and_device_bound_headers_never_travel_up() {
        let client = headers(&[
            "authorization",
            "x-api-key",
            "cookie",
            "chatgpt-account-id",
            "x-openai-account-routing-override",
            "x-oai-attestation",
            "host",
            "connection",
            "x-forwarded-for",
            "session-id",
            "x-codex-turn-state",
        ]);
        let mut passed: Vec<_> = up(&client).keys().map(|n| n.as_str().to_owned()).collect();
        passed.sort();
        assert_eq!(passed, ["session-id", "x-codex-turn-state"]);
    }

    #[test]
    fn cookies_account_ids_and_one_accounts_limits_never_travel_down() {
        let backend = headers(&[
            "set-cookie",
            "chatgpt-account-id",
            "cf-ray",
            "x-codex-primary-used-percent",
            "x-codex-secondary-window-minutes",
            "x-codex-bengalfox-primary-reset-at",
            "x-codex-bengalfox-limit-name",
            "x-codex-active-limit",
            "x-codex-active-limits",
            "x-codex-rate-limit-reached-type",
            "x-codex-credits-balance",
            "x-codex-promo-message",
            "x-codex-accounts",
            "x-codex-my-account-id",
            "x-codex-plan-type",
            "x-codex-turn-state",
            "openai-model",
        ]);
        let mut passed: Vec<_> = down(&backend).keys().map(|name| name.as_str().to_owned()).collect();
        passed.sort();
        assert_eq!(passed, ["openai-model", "x-codex-turn-state"]);
    }
}
