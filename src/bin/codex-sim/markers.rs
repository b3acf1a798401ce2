//! The script markers a test writes into the last user message, such as `[tool:ls {"path":"."}]`.
//!
//! Pure text work; knows nothing of requests or events.

/// What the markers of one message ask for.
#[derive(Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a marker of its own that may or may not be there")]
pub(crate) struct Markers {
    /// `[tool:NAME ARGS]`, in order; several mean parallel calls.
    pub(crate) tools: Vec<ToolMarker>,
    /// `[reason]`: a reasoning item with a summary.
    pub(crate) reason: bool,
    /// `[image]`: an image generation call.
    pub(crate) image: bool,
    /// `[search]`: a web search call, when the tool is offered.
    pub(crate) search: bool,
    /// `[incomplete]`: end with `response.incomplete`.
    pub(crate) incomplete: bool,
    /// `[refuse]`: a refusal instead of text.
    pub(crate) refuse: bool,
    /// `[commentary]`: a commentary message before the final answer.
    pub(crate) commentary: bool,
    /// `[long N]`: a text of N deltas.
    pub(crate) long: Option<usize>,
}

/// One `[tool:NAME ARGS]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolMarker {
    /// The tool's name, perhaps with its namespace in front (`functions.exec`).
    pub(crate) name: String,
    /// The arguments exactly as written; empty when there are none.
    pub(crate) argument: String,
}

/// Nobody waits for more deltas than this.
const LONGEST: usize = 1_000_000;

impl Markers {
    /// Finds every marker in `text`; anything else in brackets is left alone.
    pub(crate) fn of(text: &str) -> Self {
        let mut markers = Self::default();
        let mut rest = text;
        while let Some(open) = rest.find('[') {
            rest = &rest[open + 1..];
            if let Some(after) = markers.take(rest) {
                rest = after;
            }
        }
        markers
    }

    /// Reads one marker at the start of `text` (behind its bracket); gives what follows it.
    fn take<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if let Some(body) = text.strip_prefix("tool:").or_else(|| text.strip_prefix("tools:")) {
            let (marker, after) = tool(body)?;
            self.tools.push(marker);
            return Some(after);
        }
        let (word, after) = text.split_once(']')?;
        match word.split_once(' ') {
            Some(("long", count)) => {
                self.long = Some(count.trim().parse::<usize>().ok()?.min(LONGEST));
            }
            Some(_) => return None,
            None => *self.flag(word)? = true,
        }
        Some(after)
    }

    fn flag(&mut self, word: &str) -> Option<&mut bool> {
        match word {
            "reason" => Some(&mut self.reason),
            "image" => Some(&mut self.image),
            "search" => Some(&mut self.search),
            "incomplete" => Some(&mut self.incomplete),
            "refuse" => Some(&mut self.refuse),
            "commentary" => Some(&mut self.commentary),
            _ => None,
        }
    }
}

/// `NAME]`, `NAME {json}]` or `NAME free text]`; JSON may itself contain brackets.
fn tool(body: &str) -> Option<(ToolMarker, &str)> {
    let end = body.find([' ', ']', '\n'])?;
    let name = body[..end].to_owned();
    if name.is_empty() {
        return None;
    }
    let argument = body[end..].trim_start();
    let mut values = serde_json::Deserializer::from_str(argument).into_iter::<serde_json::Value>();
    if let Some(Ok(_)) = values.next() {
        let (json, after) = argument.split_at(values.byte_offset());
        if let Some(after) = after.trim_start().strip_prefix(']') {
            return Some((ToolMarker { name, argument: json.to_owned() }, after));
        }
    }
    let (free, after) = argument.split_once(']')?;
    Some((ToolMarker { name, argument: free.trim_end().to_owned() }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, argument: &str) -> ToolMarker {
        ToolMarker { name: name.into(), argument: argument.into() }
    }

    #[test]
    fn json_arguments_may_contain_brackets() {
        let markers = Markers::of(r#"please [tool:ls {"paths":["a]","b"]}] now"#);
        assert_eq!(markers.tools, [call("ls", r#"{"paths":["a]","b"]}"#)]);
    }

    #[test]
    fn two_tool_markers_are_two_calls() {
        let markers = Markers::of("[tool:a {\"x\":1}] and [tools:b]");
        assert_eq!(markers.tools, [call("a", "{\"x\":1}"), call("b", "")]);
    }

    #[test]
    fn free_text_is_kept_for_custom_tools() {
        assert_eq!(Markers::of("[tool:exec text('hi') ]").tools, [call("exec", "text('hi')")]);
    }

    #[test]
    fn words_and_counts_are_found_and_other_brackets_are_ignored() {
        let markers = Markers::of("[x] [reason] [long 40] [ [incomplete] [long x] see [1");
        assert!(markers.reason && markers.incomplete && !markers.image);
        assert_eq!(markers.long, Some(40));
    }
}
