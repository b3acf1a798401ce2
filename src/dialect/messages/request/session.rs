//! Which conversation a request belongs to, from `metadata.user_id`.

use aws_lc_rs::digest;
use serde::Deserialize;
use std::borrow::Cow;

/// `metadata` of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    user_id: Option<Cow<'a, str>>,
}

/// A stable key for the conversation. Claude Code sends `{"session_id":…}` as JSON text, or, in
/// older versions, `user_…_account_…_session_…`; other user ids name a person, not a conversation.
/// What goes upstream is a hash, so that nobody's id leaves the house.
pub(super) fn of(metadata: &Metadata<'_>) -> Option<String> {
    #[derive(Deserialize)]
    struct Ids<'a> {
        #[serde(borrow)]
        session_id: Cow<'a, str>,
    }
    let user_id = metadata.user_id.as_deref()?;
    let session = match serde_json::from_str::<Ids<'_>>(user_id) {
        Ok(ids) => ids.session_id,
        Err(_) => Cow::Borrowed(user_id.rsplit_once("_session_")?.1),
    };
    (!session.is_empty()).then(|| key(&session))
}

fn key(session: &str) -> String {
    let digest = digest::digest(&digest::SHA256, session.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(user_id: &str) -> Option<String> {
        of(&Metadata { user_id: Some(user_id.into()) })
    }

    #[test]
    fn both_forms_of_claude_code_name_the_same_session() {
        let id = "5b1c0f6e-9a53-4a53-8f0b-0f2f0d4b8a11";
        let json = session(&format!(r#"{{"device_id":"d","account_uuid":"","session_id":"{id}"}}"#));
        assert!(json.as_deref().is_some_and(|key| key.len() == 36 && key != id));
        assert_eq!(json, session(&format!("user_abc_account__session_{id}")));
    }

    #[test]
    fn a_persons_id_is_no_session() {
        for user_id in ["", "ada@example.com", "{\"device_id\":\"d\"}", "_session_"] {
            assert_eq!(session(user_id), None, "{user_id}");
        }
    }
}
