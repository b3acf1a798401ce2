//! Requests shaped like Responses (`input` and no `messages`) that come to the chat path: some
//! editors send them there and expect chunks of Chat Completions back (clients.md 1.3).

use super::fields::{IGNORED, Ignored, is_neutral, refuse_what_cannot_be_done};
use super::{Fields, completion_id, options};
use crate::dialect::chat::{Answer, Shape};
use crate::dialect::names::Names;
use crate::dialect::responses::fields::Members;
use crate::dialect::{Context, ModelMap, Prepared, Problem, responses};
use bytes::Bytes;
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;

/// Takes out what only Chat Completions knows, leaves the rest to the Responses dialect, and answers
/// in chunks. Tool names go as they are: the Responses dialect does not read tools.
pub(super) fn prepare(members: &Members<'_>, context: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let mut fields = Fields::new(Members(members.0.clone()));
    refuse_what_cannot_be_done(&mut fields)?;
    let include_usage = options::include_usage(&mut fields)?;
    let mut ignored = Ignored::default();
    let mut body = String::from("{");
    for (name, value) in &members.0 {
        let of_chat = IGNORED.iter().find(|(known, _)| known == name && *known != "service_tier");
        match (of_chat, &**name) {
            (Some(_), name) if is_neutral(name, value) => {}
            (Some((known, _)), _) => ignored.add(known),
            (None, "stream_options" | "n" | "logprobs" | "audio" | "modalities") => {}
            (None, _) => {
                let comma = if body.len() > 1 { "," } else { "" };
                // Writing to a string cannot fail.
                let _ = write!(body, "{comma}{}:{}", json!(name), value.get());
            }
        }
    }
    body.push('}');
    let mut prepared = responses::request::prepare(&Bytes::from(body), context, models, false)?;
    prepared.ignored.iter().for_each(|name| ignored.add(name));
    prepared.ignored = ignored.into_names();
    prepared.reply = Box::new(Answer(Arc::new(Shape {
        id: completion_id(context),
        created: context.now,
        model: prepared.requested_model.clone(),
        names: Names::default(),
        is_legacy: false,
        include_usage,
    })));
    Ok(prepared)
}
