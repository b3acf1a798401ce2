//! The three APIs as their clients see them: how one asks, and where the answer is.

use serde_json::{Value, json};

use super::Event;

/// A real picture of one pixel, PNG, base64.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// The model that requests name.
const MODEL: &str = "gpt-6.1-sol";

/// An API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Responses,
    Messages,
}

impl Dialect {
    pub(crate) const ALL: [Self; 3] = [Self::Chat, Self::Responses, Self::Messages];

    /// Where requests go.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    /// A request with one user message.
    pub(crate) fn ask(self, prompt: &str) -> Value {
        self.request(&json!(prompt))
    }

    /// The same, streamed.
    pub(crate) fn ask_streamed(self, prompt: &str) -> Value {
        with(self.ask(prompt), "stream", json!(true))
    }

    /// A request with a picture beside the text.
    pub(crate) fn ask_with_picture(self, prompt: &str) -> Value {
        let url = format!("data:image/png;base64,{PIXEL}");
        self.request(&match self {
            Self::Chat => json!([{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": url}}]),
            Self::Responses => {
                json!([{"type": "input_text", "text": prompt}, {"type": "input_image", "image_url": url}])
            }
            Self::Messages => json!([
                {"type": "text", "text": prompt},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
            ]),
        })
    }

    /// A request that offers the tool `weather`.
    pub(crate) fn ask_with_tool(self, prompt: &str) -> Value {
        with(self.ask(prompt), "tools", json!([self.weather_tool()]))
    }

    fn weather_tool(self) -> Value {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        let about = "The weather in a city";
        match self {
            Self::Chat => {
                json!({"type": "function", "function": {"name": "weather", "description": about, "parameters": schema}})
            }
            Self::Responses => {
                json!({"type": "function", "name": "weather", "description": about, "parameters": schema})
            }
            Self::Messages => json!({"name": "weather", "description": about, "input_schema": schema}),
        }
    }

    /// The second request of a tool loop: the first one, the model's call, and what the tool said.
    pub(crate) fn answer_tool(self, first: &Value, answer: &Value, result: &str) -> Value {
        let call = self.tool_calls(answer).remove(0);
        let (field, more) = match self {
            Self::Chat => (
                "messages",
                vec![
                    answer["choices"][0]["message"].clone(),
                    json!({"role": "tool", "tool_call_id": call.id, "content": result}),
                ],
            ),
            Self::Responses => {
                let mut items = answer["output"].as_array().cloned().unwrap_or_default();
                items.push(json!({"type": "function_call_output", "call_id": call.id, "output": result}));
                ("input", items)
            }
            Self::Messages => (
                "messages",
                vec![
                    json!({"role": "assistant", "content": answer["content"]}),
                    json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": result}]}),
                ],
            ),
        };
        let mut second = first.clone();
        second[field].as_array_mut().expect("a list of messages").extend(more);
        second
    }

    /// A request whose answer must be JSON of a schema with the number `temperature`.
    pub(crate) fn ask_structured(self, prompt: &str) -> Value {
        let schema = json!({"type": "object", "properties": {"temperature": {"type": "number"}},
            "required": ["temperature"], "additionalProperties": false});
        let ask = self.ask(prompt);
        match self {
            Self::Chat => with(
                ask,
                "response_format",
                json!({"type": "json_schema", "json_schema": {"name": "weather", "strict": true, "schema": schema}}),
            ),
            Self::Responses => with(
                ask,
                "text",
                json!({"format": {"type": "json_schema", "name": "weather", "strict": true, "schema": schema}}),
            ),
            Self::Messages => with(ask, "output_config", json!({"format": {"type": "json_schema", "schema": schema}})),
        }
    }

    fn request(self, content: &Value) -> Value {
        let messages = json!([{"role": "user", "content": content}]);
        match self {
            Self::Chat => json!({"model": MODEL, "messages": messages}),
            Self::Responses => json!({"model": MODEL, "input": messages}),
            Self::Messages => json!({"model": MODEL, "max_tokens": 1024, "messages": messages}),
        }
    }

    /// The text of a whole answer.
    pub(crate) fn text(self, answer: &Value) -> String {
        match self {
            Self::Chat => answer["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned(),
            Self::Responses => {
                let parts = list(&answer["output"]).iter().flat_map(|item| list(&item["content"]));
                parts.filter_map(|part| part["text"].as_str()).collect()
            }
            Self::Messages => list(&answer["content"]).iter().filter_map(|part| part["text"].as_str()).collect(),
        }
    }

    /// The text of a streamed answer.
    pub(crate) fn streamed_text(self, events: &[Event]) -> String {
        let delta = |event: &Event| {
            let data = event.json();
            let place = match self {
                Self::Chat => &data["choices"][0]["delta"]["content"],
                Self::Responses if data["type"] == "response.output_text.delta" => &data["delta"],
                Self::Messages if data["type"] == "content_block_delta" => &data["delta"]["text"],
                _ => &Value::Null,
            };
            place.as_str().map(str::to_owned)
        };
        events.iter().filter_map(delta).collect()
    }

    /// The calls in a whole answer.
    pub(crate) fn tool_calls(self, answer: &Value) -> Vec<ToolCall> {
        let parse = |text: &Value| serde_json::from_str(text.as_str().unwrap_or_default()).unwrap_or(Value::Null);
        match self {
            Self::Chat => list(&answer["choices"][0]["message"]["tool_calls"])
                .iter()
                .map(|call| {
                    ToolCall::new(&call["id"], &call["function"]["name"], parse(&call["function"]["arguments"]))
                })
                .collect(),
            Self::Responses => of_type(&answer["output"], "function_call")
                .map(|call| ToolCall::new(&call["call_id"], &call["name"], parse(&call["arguments"])))
                .collect(),
            Self::Messages => of_type(&answer["content"], "tool_use")
                .map(|call| ToolCall::new(&call["id"], &call["name"], call["input"].clone()))
                .collect(),
        }
    }

    /// The argument text of the calls in a streamed answer, and in how many pieces it came.
    pub(crate) fn streamed_arguments(self, events: &[Event]) -> (String, usize) {
        let pieces: Vec<String> = events
            .iter()
            .filter_map(|event| {
                let data = event.json();
                let place = match self {
                    Self::Chat => &data["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"],
                    Self::Responses if data["type"] == "response.function_call_arguments.delta" => &data["delta"],
                    Self::Messages => &data["delta"]["partial_json"],
                    Self::Responses => &Value::Null,
                };
                place.as_str().filter(|piece| !piece.is_empty()).map(str::to_owned)
            })
            .collect();
        (pieces.concat(), pieces.len())
    }

    /// Input and output tokens of a whole answer.
    pub(crate) fn usage(self, answer: &Value) -> (u64, u64) {
        let (input, output) = match self {
            Self::Chat => ("prompt_tokens", "completion_tokens"),
            Self::Responses | Self::Messages => ("input_tokens", "output_tokens"),
        };
        let tokens = |key: &str| answer["usage"][key].as_u64().unwrap_or_default();
        (tokens(input), tokens(output))
    }

    /// Whether a stream ended as a good one does.
    pub(crate) fn ended_well(self, events: &[Event]) -> bool {
        let last = events.last().map(|event| event.data.clone()).unwrap_or_default();
        match self {
            Self::Chat => last == "[DONE]",
            Self::Responses => last.contains("\"response.completed\""),
            Self::Messages => last.contains("\"message_stop\""),
        }
    }

    /// Whether a stream ended with the error event of the API, and nothing that says it was good.
    pub(crate) fn ended_in_error(self, events: &[Event]) -> bool {
        let all: Vec<Value> = events.iter().map(Event::json).collect();
        let last = all.iter().rfind(|data| !data.is_null()).cloned().unwrap_or_default();
        let failed = match self {
            Self::Chat => last["error"]["message"].is_string(),
            Self::Responses => last["type"] == "response.failed" || last["type"] == "error",
            Self::Messages => last["type"] == "error" && last["error"]["type"].is_string(),
        };
        failed && !all.iter().any(|data| self.says_it_was_good(data))
    }

    fn says_it_was_good(self, data: &Value) -> bool {
        match self {
            Self::Chat => data["choices"][0]["finish_reason"].is_string(),
            Self::Responses => data["type"] == "response.completed",
            Self::Messages => data["type"] == "message_stop" || data["delta"]["stop_reason"].is_string(),
        }
    }

    /// The type of an error answer, where this API puts it.
    pub(crate) fn error_type(self, answer: &Value) -> &str {
        if self == Self::Messages {
            assert_eq!(answer["type"], "error", "an Anthropic error says so: {answer}");
        }
        assert!(answer["error"]["message"].is_string(), "an error has a message: {answer}");
        answer["error"]["type"].as_str().unwrap_or_default()
    }
}

/// A call the model made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: Value,
}

impl ToolCall {
    fn new(id: &Value, name: &Value, arguments: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self { id: text(id), name: text(name), arguments }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn of_type<'a>(items: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    list(items).iter().filter(move |item| item["type"] == kind)
}

fn with(mut request: Value, field: &str, value: Value) -> Value {
    request[field] = value;
    request
}
