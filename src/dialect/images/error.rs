//! Errors in OpenAI's shape (clients.md 2), within a stream.

use crate::dialect::Problem;
use crate::dialect::chat::error::ErrorObject;
use bytes::BytesMut;
use serde::Serialize;

/// The frame that ends a stream which failed: the SDKs raise what stands under `error`.
pub(super) fn write(problem: &Problem, out: &mut BytesMut) {
    #[derive(Serialize)]
    struct Frame<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        error: ErrorObject<'a>,
    }
    let frame = Frame { kind: "error", error: problem.into() };
    out.extend_from_slice(b"event: error\ndata: ");
    out.extend_from_slice(&serde_json::to_vec(&frame).unwrap_or_default());
    out.extend_from_slice(b"\n\n");
}
