//! What a legal answer is in each dialect, and what it says.

pub(crate) mod chat;
pub(crate) mod images;
pub(crate) mod messages;
pub(crate) mod responses;

use crate::run::{Answer, Api};

/// Whether the stream is legal and says the same as the whole answer.
pub(crate) fn check(api: Api, answer: &Answer) -> Result<(), String> {
    match api {
        Api::Chat => chat::check(answer),
        Api::Images => images::check(answer),
        Api::Messages => messages::check(answer),
        Api::CodexCli | Api::Responses => responses::check(answer),
    }
}

/// The frames' payloads.
pub(crate) fn payloads(stream: &str) -> Result<Vec<&str>, String> {
    let frames = stream.split_terminator("\n\n");
    frames
        .map(|frame| frame.lines().find_map(|line| line.strip_prefix("data: ")).ok_or(format!("no data in {frame}")))
        .collect()
}
