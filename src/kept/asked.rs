//! What a request asks of whoever keeps responses. Pure.

use super::items::{self, Item};
use crate::codex::raw::Raw;
use crate::dialect::Problem;
use crate::dialect::responses::fields::Members;
use memchr::memmem;
use serde::Deserialize;

/// The fields of a request that concern what is kept.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Whether the response is to be kept; `None` where the request does not say.
    pub store: Option<bool>,
    /// The response that it follows.
    pub previous: Option<String>,
    /// The conversation that it is part of.
    pub conversation: Option<String>,
    /// Whether it is to run without its client.
    pub background: bool,
    /// Whether the client wants events.
    pub stream: bool,
    /// What its client calls the conversation, for the prompt cache.
    pub cache_key: Option<String>,
    /// Its items; `None` where it has none, or they are no list: then others refuse it.
    pub input: Option<Vec<Item>>,
}

impl Asked {
    /// Reads a request's fields.
    pub(super) fn read(members: &Members<'_>) -> Result<Self, Problem> {
        let mut asked = Self {
            store: flag(members, "store")?,
            previous: text(members, "previous_response_id")?,
            conversation: conversation(members)?,
            background: flag(members, "background")?.unwrap_or(false),
            stream: flag(members, "stream")?.unwrap_or(false),
            cache_key: text(members, "prompt_cache_key")?,
            input: None,
        };
        let input = members.get("input");
        let may_refer = |input: Raw<'_>| memmem::find(input.get().as_bytes(), b"\"id\"").is_some();
        // What neither is kept nor refers to what is kept goes on as it came.
        if asked.store != Some(false)
            || asked.conversation.is_some()
            || asked.previous.is_some()
            || input.is_some_and(may_refer)
        {
            asked.input = input.and_then(items::of_input);
        }
        if asked.previous.is_some() && asked.conversation.is_some() {
            let message = "Mutually exclusive parameters: give `previous_response_id` or `conversation`, not both";
            return Err(coded("mutually_exclusive_parameters", Problem::invalid("previous_response_id", message)));
        }
        if asked.background && asked.store == Some(false) {
            let message = "A background response is kept until it is fetched: `background` requires `store` to be true";
            return Err(Problem::invalid("background", message));
        }
        Ok(asked)
    }

    /// Whether something that was kept is needed to answer.
    pub(super) fn looks_back(&self) -> bool {
        self.previous.is_some()
            || self.conversation.is_some()
            || self.input.iter().flatten().any(|item| items::reference(item).is_some())
    }
}

/// A problem with a code of its own.
pub(super) fn coded(code: &str, problem: Problem) -> Problem {
    Problem { code: Some(code.to_owned()), ..problem }
}

fn flag(members: &Members<'_>, name: &'static str) -> Result<Option<bool>, Problem> {
    read(members, name, "must be true or false")
}

fn text(members: &Members<'_>, name: &'static str) -> Result<Option<String>, Problem> {
    Ok(read::<String>(members, name, "must be a string")?.filter(|text| !text.is_empty()))
}

/// Its id, alone or in an object.
fn conversation(members: &Members<'_>) -> Result<Option<String>, Problem> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Named {
        Id(String),
        Object { id: String },
    }
    Ok(read(members, "conversation", "must be a conversation's id, or an object with it")?.map(|named| match named {
        Named::Id(id) | Named::Object { id } => id,
    }))
}

fn read<T: for<'de> Deserialize<'de>>(
    members: &Members<'_>,
    name: &'static str,
    problem: &str,
) -> Result<Option<T>, Problem> {
    let value = members.get(name).map(Raw::get);
    value.map_or(Ok(None), serde_json::from_str).map_err(|_| Problem::invalid(name, format!("`{name}` {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: &Value) -> Result<Asked, Problem> {
        let body = body.to_string();
        Asked::read(&serde_json::from_str(&body).expect("an object"))
    }

    #[test]
    fn nulls_are_as_good_as_absent() {
        let body = json!({"store": null, "previous_response_id": null, "conversation": null, "background": null});
        let asked = read(&body).expect("read");
        assert_eq!((asked.store, asked.looks_back(), asked.background), (None, false, false));
    }

    #[test]
    fn a_conversation_is_named_by_itself_or_in_an_object() {
        for named in [json!("conv_1"), json!({"id": "conv_1"})] {
            assert_eq!(read(&json!({"conversation": named})).expect("read").conversation.as_deref(), Some("conv_1"));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (body, param) in [
            (json!({"previous_response_id": "resp_1", "conversation": "conv_1"}), "previous_response_id"),
            (json!({"background": true, "store": false}), "background"),
            (json!({"store": "yes"}), "store"),
            (json!({"conversation": 7}), "conversation"),
            (json!({"previous_response_id": {}}), "previous_response_id"),
        ] {
            assert_eq!(read(&body).expect_err("refused").param.as_deref(), Some(param), "{body}");
        }
    }
}
