//! The tools a request offers, wherever it offers them: at the top level or inside an
//! `additional_tools` input item, alone or in a namespace (protocol.md 2.3, 2.4).

use serde_json::Value;

use crate::markers::ToolMarker;
use crate::schema;

/// One callable or hosted tool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool<'a> {
    /// `function`, `custom`, `web_search`, `image_generation`, …
    pub(crate) kind: &'a str,
    /// The name the call carries; the kind itself for hosted tools.
    pub(crate) name: &'a str,
    /// The namespace the call carries, for tools inside one.
    pub(crate) namespace: Option<&'a str>,
    /// The schema of a function's arguments.
    pub(crate) parameters: Option<&'a Value>,
    /// How many previews a picture tool is to show.
    pub(crate) previews: Option<u64>,
}

/// A call the script makes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// Custom tools take free text instead of JSON.
    pub(crate) custom: bool,
    /// See [`Tool::namespace`].
    pub(crate) namespace: Option<String>,
    /// The tool's name.
    pub(crate) name: String,
    /// JSON text for functions, anything for custom tools.
    pub(crate) input: String,
}

/// Every tool of the request, in order.
pub(crate) fn offered(request: &Value) -> Vec<Tool<'_>> {
    let top = request.get("tools").and_then(Value::as_array);
    let inside = request.get("input").and_then(Value::as_array).into_iter().flatten();
    let additional = inside
        .filter(|item| item.get("type").and_then(Value::as_str) == Some("additional_tools"))
        .filter_map(|item| item.get("tools").and_then(Value::as_array));
    let mut found = Vec::new();
    for list in top.into_iter().chain(additional) {
        collect(list, None, &mut found);
    }
    found
}

fn collect<'a>(list: &'a [Value], namespace: Option<&'a str>, found: &mut Vec<Tool<'a>>) {
    for tool in list {
        let text = |key| tool.get(key).and_then(Value::as_str);
        let kind = text("type").unwrap_or_default();
        if kind == "namespace" {
            let inner = tool.get("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            collect(inner, text("name"), found);
        } else {
            let name = text("name").unwrap_or(kind);
            let previews = tool.get("partial_images").and_then(Value::as_u64);
            found.push(Tool { kind, name, namespace, parameters: tool.get("parameters"), previews });
        }
    }
}

impl Tool<'_> {
    /// Whether `wanted` names this tool, with or without its namespace.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        let qualified = self.namespace.and_then(|space| wanted.strip_prefix(space));
        self.name == wanted
            || qualified
                .is_some_and(|rest| rest.strip_prefix('.').or_else(|| rest.strip_prefix("__")) == Some(self.name))
    }

    /// Whether the model calls it by name and the client runs it.
    pub(crate) fn callable(&self) -> bool {
        matches!(self.kind, "function" | "custom")
    }

    /// A call with the marker's arguments, or with the least the schema allows.
    pub(crate) fn call(&self, argument: &str) -> Call {
        let custom = self.kind == "custom";
        let input = match (custom, argument) {
            (true, "") => "text".to_owned(),
            // A JSON string stands for the text it holds, so that line breaks can be written.
            (true, raw) => serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned()),
            (false, "") => schema::minimal(self.parameters.unwrap_or(&Value::Null)).to_string(),
            (false, raw) => raw.to_owned(),
        };
        Call { custom, namespace: self.namespace.map(str::to_owned), name: self.name.to_owned(), input }
    }
}

/// What `tool_choice` demands.
#[derive(Debug, PartialEq)]
pub(crate) enum Choice<'a> {
    /// `auto` or absent.
    Free,
    /// `none`.
    Never,
    /// `required`: any tool.
    Any,
    /// One by type and name (`{"type":"function","name":"x"}`); hosted tools have no name.
    Named(&'a str),
}

/// Reads `tool_choice`; the first of `allowed_tools` stands for all.
pub(crate) fn choice(request: &Value) -> Choice<'_> {
    match request.get("tool_choice") {
        Some(Value::String(word)) if word == "none" => Choice::Never,
        Some(Value::String(word)) if word == "required" => Choice::Any,
        Some(object @ Value::Object(_)) => {
            let text = |key| object.get(key).and_then(Value::as_str);
            match (text("type"), text("mode")) {
                (Some("allowed_tools"), Some("required")) => {
                    let first = object.pointer("/tools/0/name").and_then(Value::as_str);
                    first.map_or(Choice::Any, Choice::Named)
                }
                (Some("allowed_tools"), _) => Choice::Free,
                (kind, _) => text("name").or(kind).map_or(Choice::Free, Choice::Named),
            }
        }
        _ => Choice::Free,
    }
}

/// The calls the markers and the choice ask for; an unknown name is given back as the error.
pub(crate) fn calls(request: &Value, tools: &[Tool<'_>], markers: &[ToolMarker]) -> Result<Vec<Call>, String> {
    let choice = choice(request);
    let mut marked = Vec::new();
    if choice != Choice::Never {
        for marker in markers {
            let tool = tools.iter().find(|tool| tool.callable() && tool.is(&marker.name));
            marked.push(tool.ok_or_else(|| marker.name.clone())?.call(&marker.argument));
        }
    }
    if request.get("parallel_tool_calls").and_then(Value::as_bool) == Some(false) {
        marked.truncate(1);
    }
    let forced = match choice {
        Choice::Any => tools.iter().find(|tool| tool.callable()),
        Choice::Named(name) => tools.iter().find(|tool| tool.callable() && tool.is(name)),
        Choice::Free | Choice::Never => None,
    };
    if let Some(tool) = forced {
        let already = marked.iter().any(|call| choice == Choice::Any || call.name == tool.name);
        if !already {
            return Ok(vec![tool.call("")]);
        }
    }
    Ok(marked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markers::Markers;
    use serde_json::json;

    fn request() -> Value {
        json!({"tools":[{"type":"function","name":"ls","parameters":{"type":"object","properties":{"p":{"type":"string"}},"required":["p"]}}],
               "input":[{"type":"additional_tools","tools":[{"type":"namespace","name":"functions","tools":[{"type":"custom","name":"exec"}]}]}]})
    }

    fn calls_of(request: &Value, text: &str) -> Result<Vec<Call>, String> {
        calls(request, &offered(request), &Markers::of(text).tools)
    }

    #[test]
    fn tools_in_namespaces_are_found_and_called_with_their_namespace() {
        let made = calls_of(&request(), r#"[tool:functions.exec "a\nb"]"#).unwrap();
        assert_eq!(
            made,
            [Call { custom: true, namespace: Some("functions".into()), name: "exec".into(), input: "a\nb".into() }]
        );
    }

    #[test]
    fn a_forced_choice_calls_with_minimal_arguments() {
        let mut request = request();
        request["tool_choice"] = json!({"type":"function","name":"ls"});
        assert_eq!(calls_of(&request, "hello").unwrap()[0].input, r#"{"p":"text"}"#);
        assert_eq!(calls_of(&request, r#"[tool:ls {"p":"x"}]"#).unwrap()[0].input, r#"{"p":"x"}"#);
    }

    #[test]
    fn parallel_calls_can_be_switched_off_and_unknown_names_are_told() {
        let mut request = request();
        assert_eq!(calls_of(&request, "[tool:ls {}][tool:exec x]").unwrap().len(), 2);
        request["parallel_tool_calls"] = json!(false);
        assert_eq!(calls_of(&request, "[tool:ls {}][tool:exec x]").unwrap().len(), 1);
        assert_eq!(calls_of(&request, "[tool:rm {}]"), Err("rm".to_owned()));
        request["tool_choice"] = json!("none");
        assert_eq!(calls_of(&request, "[tool:ls {}]"), Ok(vec![]));
    }
}
