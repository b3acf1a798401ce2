//! What holds for any body, in every dialect.

use super::{chat, messages};
use crate::run::{Api, prepare};
use proptest::prelude::*;
use serde_json::{Value, json};

const FIELDS: [&str; 14] = [
    "messages",
    "input",
    "tools",
    "tool_choice",
    "system",
    "thinking",
    "output_config",
    "response_format",
    "reasoning",
    "reasoning_effort",
    "stream_options",
    "include",
    "metadata",
    "stop",
];

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused_with_a_4xx(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for api in Api::ALL {
            let refused = prepare(api, &body).err().map(|problem| problem.kind.status());
            prop_assert!(refused.is_none_or(|status| status.is_client_error()), "{:?}", api);
        }
    }

    /// One field is anything, in a request that is right but for it.
    #[test]
    fn any_json_in_any_field_is_taken_or_refused_with_a_4xx(
        body in prop_oneof![chat::any_json(), messages::any_json()],
        field in prop::sample::select(FIELDS.to_vec()),
    ) {
        for api in Api::ALL {
            let mut request: Value = serde_json::from_slice(api.plain_request()).unwrap();
            request[field] = body.clone();
            for request in [&body, &request, &json!({ "model": body, "messages": [], "input": [] })] {
                match prepare(api, request.to_string().as_bytes()) {
                    Ok(prepared) => prop_assert!(serde_json::from_slice::<Value>(&prepared.body).is_ok()),
                    Err(problem) => prop_assert!(problem.kind.status().is_client_error(), "{:?} {:?}", api, problem),
                }
            }
        }
    }
}
