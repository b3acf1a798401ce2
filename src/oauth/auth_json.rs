//! Files that hold logins made elsewhere: the Codex CLI's `auth.json` in all its modes
//! (protocol.md 1.9), codexia's file, and plain lists of token sets.
//!
//! Read with [`parse`]. What cannot be used is refused with the reason, because a login that
//! cannot be refreshed would work for some days and then fail.

use secrecy::SecretString;
use serde_json::{Map, Value};
use thiserror::Error;

use super::tokens::{Enrolment, claims_of, own_expiry};

/// Why a file, or one entry of it, was refused. Never quotes the file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthJsonError {
    /// Not JSON.
    #[error("the file is not JSON (line {line}, column {column})")]
    NotJson {
        /// Counted from one.
        line: usize,
        /// Counted from one.
        column: usize,
    },
    /// JSON, but no token in a known place.
    #[error(
        "the file holds no login: expected a Codex auth.json (an object with \"tokens\"), an object \
         with access_token and refresh_token, or a list of those"
    )]
    UnknownShape,
    /// A list without entries.
    #[error("the file's list of accounts is empty")]
    NoEntries,
    /// `auth_mode` apikey.
    #[error(
        "the file holds an OpenAI API key and no ChatGPT login; Tollway works through ChatGPT \
         accounts: run `tollway account login`, or `codex login` with ChatGPT and import again"
    )]
    ApiKey,
    /// `auth_mode` chatgptAuthTokens.
    #[error(
        "the file holds tokens that another application manages (auth_mode chatgptAuthTokens) and no \
         refresh token; run `tollway account login` to give Tollway a login of its own"
    )]
    ExternalTokens,
    /// `auth_mode` of an agent identity.
    #[error("the file holds an agent identity and no ChatGPT login; run `tollway account login` instead")]
    AgentIdentity,
    /// `auth_mode` of a personal access token.
    #[error(
        "the file holds a personal access token and no ChatGPT login; run `tollway account login` \
         instead"
    )]
    PersonalAccessToken,
    /// Credentials of another provider.
    #[error("the credentials are for another provider ({0}), not for Codex")]
    OtherProvider(String),
    /// No access token.
    #[error("there is no access token in the file")]
    NoAccessToken,
    /// No refresh token, or an empty one.
    #[error(
        "the refresh token is missing or empty, so the login could not be renewed; run \
         `tollway account login` instead"
    )]
    NoRefreshToken,
    /// Neither the file nor its tokens name the account.
    #[error(
        "neither the file nor its tokens name a ChatGPT account (account_id, or the claim \
         chatgpt_account_id)"
    )]
    NoAccountId,
    /// One entry of a list is faulty.
    #[error("entry {position} of the file: {fault}")]
    Entry {
        /// Counted from one.
        position: usize,
        /// What is wrong with it.
        fault: Box<AuthJsonError>,
    },
}

/// Reads every login that a file holds. One faulty entry refuses the whole file.
pub fn parse(bytes: &[u8]) -> Result<Vec<Enrolment>, AuthJsonError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| AuthJsonError::NotJson { line: error.line(), column: error.column() })?;
    match &value {
        Value::Array(entries) => list(entries),
        Value::Object(object) => match object.get("accounts") {
            Some(Value::Array(entries)) => list(entries),
            _ => Ok(vec![single(object)?]),
        },
        _ => Err(AuthJsonError::UnknownShape),
    }
}

fn list(entries: &[Value]) -> Result<Vec<Enrolment>, AuthJsonError> {
    if entries.is_empty() {
        return Err(AuthJsonError::NoEntries);
    }
    let numbered = entries.iter().zip(1..);
    numbered
        .map(|(entry, position)| {
            let object = entry.as_object().ok_or(AuthJsonError::UnknownShape);
            object.and_then(single).map_err(|fault| AuthJsonError::Entry { position, fault: Box::new(fault) })
        })
        .collect()
}

/// One login: the CLI's file, one of codexia's, or bare fields.
fn single(object: &Map<String, Value>) -> Result<Enrolment, AuthJsonError> {
    if let Some(Value::Object(providers)) = object.get("providers") {
        let Some(Value::Object(codex)) = providers.get("codex") else {
            let names: Vec<_> = providers.keys().map(String::as_str).collect();
            return Err(AuthJsonError::OtherProvider(names.join(", ")));
        };
        return enrolment(codex, object);
    }
    if let Some(provider) = text(object, "provider").filter(|name| *name != "codex") {
        return Err(AuthJsonError::OtherProvider(provider.to_owned()));
    }
    usable_mode(object)?;
    match object.get("tokens") {
        Some(Value::Object(tokens)) => enrolment(tokens, object),
        _ => enrolment(object, object),
    }
}

/// Refuses the modes of protocol.md 1.9 that hold no refreshable ChatGPT login. Without
/// `auth_mode` the CLI takes an API key for the mode when there is one.
fn usable_mode(object: &Map<String, Value>) -> Result<(), AuthJsonError> {
    let mode = text(object, "auth_mode").map(|mode| {
        let letters = mode.chars().filter(char::is_ascii_alphanumeric);
        letters.collect::<String>().to_ascii_lowercase()
    });
    match mode.as_deref() {
        Some("apikey") => Err(AuthJsonError::ApiKey),
        Some("chatgptauthtokens") => Err(AuthJsonError::ExternalTokens),
        Some("agentidentity") => Err(AuthJsonError::AgentIdentity),
        Some("personalaccesstoken") => Err(AuthJsonError::PersonalAccessToken),
        Some(_) => Ok(()),
        None if has_tokens(object) => Ok(()),
        None if text(object, "OPENAI_API_KEY").is_some() => Err(AuthJsonError::ApiKey),
        None if object.get("agent_identity").is_some_and(|v| !v.is_null()) => Err(AuthJsonError::AgentIdentity),
        None if text(object, "personal_access_token").is_some() => Err(AuthJsonError::PersonalAccessToken),
        None => Err(AuthJsonError::UnknownShape),
    }
}

fn has_tokens(object: &Map<String, Value>) -> bool {
    object.get("tokens").is_some_and(Value::is_object)
        || object.contains_key("access_token")
        || object.contains_key("refresh_token")
}

/// `tokens` holds the token fields; what describes the account may stand there or around it.
fn enrolment(tokens: &Map<String, Value>, around: &Map<String, Value>) -> Result<Enrolment, AuthJsonError> {
    let secret = |name| text(tokens, name).map(SecretString::from);
    let described = |name| text(tokens, name).or_else(|| text(around, name));
    let access_token = secret("access_token").ok_or(AuthJsonError::NoAccessToken)?;
    let refresh_token = secret("refresh_token").ok_or(AuthJsonError::NoRefreshToken)?;
    let id_token = secret("id_token");
    let claims = claims_of(id_token.as_ref(), &access_token);
    let stated_expiry = ["expires_at", "expires"]
        .into_iter()
        .find_map(|name| tokens.get(name).or_else(|| around.get(name)))
        .and_then(unix_millis);
    Ok(Enrolment {
        chatgpt_account_id: described("account_id")
            .map(str::to_owned)
            .or(claims.chatgpt_account_id)
            .ok_or(AuthJsonError::NoAccountId)?,
        email: claims.email.or_else(|| described("email").map(str::to_owned)),
        chatgpt_user_id: claims.chatgpt_user_id,
        plan: claims.plan,
        fedramp: claims.fedramp,
        access_expires_at: own_expiry(&access_token).or(stated_expiry),
        access_token,
        refresh_token,
        id_token,
    })
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let text = object.get(name)?.as_str()?.trim();
    (!text.is_empty()).then_some(text)
}

/// Seconds and milliseconds both occur; no date before the year 5000 is as large in seconds as
/// any date after 1973 is in milliseconds.
fn unix_millis(value: &Value) -> Option<i64> {
    const SECONDS_END: i64 = 100_000_000_000;
    match value.as_i64()? {
        seconds @ 0..SECONDS_END => Some(seconds * 1000),
        millis if millis > 0 => Some(millis),
        _ => None,
    }
}

#[cfg(test)]
#[path = "auth_json_tests.rs"]
mod tests;
