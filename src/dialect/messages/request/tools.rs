//! Tools and the choice among them.

use super::blocks::required;
use super::client_tools::{self, ClientTool};
use super::ignored::{self, Ignored};
use crate::codex::request::{self, Tool};
use crate::dialect::Problem;
use crate::dialect::names::{self, Names};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// A tool as clients write it. What only tells Anthropic's servers how to load or cache a tool
/// (`defer_loading`, `eager_input_streaming`, `cache_control`, …) changes no answer and is not read:
/// every tool is always loaded.
#[derive(Debug, Deserialize)]
pub(super) struct WireTool<'a> {
    /// Absent, `custom`, or the name and version of a tool of Anthropic's.
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    description: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    input_schema: Option<&'a RawValue>,
    #[serde(default)]
    strict: Option<bool>,
    #[serde(default)]
    max_uses: Option<IgnoredAny>,
    #[serde(default)]
    allowed_domains: Option<Vec<String>>,
    #[serde(default)]
    blocked_domains: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    user_location: Option<Map<String, Value>>,
    /// Of images, as the backend has it.
    #[serde(default)]
    size: Option<Value>,
    #[serde(default)]
    quality: Option<Value>,
    #[serde(default)]
    background: Option<Value>,
    #[serde(default)]
    output_format: Option<Value>,
}

/// What a tool is to the backend.
enum Offer {
    Function,
    /// A function whose schema the client leaves to the model's knowledge.
    Known(ClientTool),
    WebSearch,
    /// The backend's own generator, which Anthropic does not have: only where it is named.
    ImageGeneration,
    /// Run by Anthropic's servers, or of a version that is not known here.
    Foreign,
}

impl WireTool<'_> {
    fn offer(&self) -> Offer {
        match self.kind.as_deref() {
            None | Some("custom") => Offer::Function,
            Some(kind) if kind.starts_with("web_search") => Offer::WebSearch,
            Some("image_generation") => Offer::ImageGeneration,
            Some(_) if self.input_schema.is_some() => Offer::Function,
            Some(kind) => client_tools::of(kind).map_or(Offer::Foreign, Offer::Known),
        }
    }
}

/// The tools that the backend can offer.
pub(super) fn translate(
    tools: &[WireTool<'_>],
    names: &mut Names,
    ignored: &mut Ignored,
) -> Result<Vec<Tool>, Problem> {
    let mut offered = Vec::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        match tool.offer() {
            Offer::Function | Offer::Known(_) if tool.name.is_empty() => {
                return Err(required(&format!("tools.{index}.name")));
            }
            Offer::Function => offered.push(function(tool, names, ignored)),
            Offer::Known(known) => offered.push(Tool::Function {
                name: names.offer(&tool.name),
                description: Some(known.description.to_owned()),
                strict: false,
                parameters: known.parameters(),
            }),
            Offer::WebSearch => offered.push(web_search(tool, ignored)),
            Offer::ImageGeneration => offered.push(image_generation(tool)),
            Offer::Foreign => ignored.add(ignored::TOOL_TYPE),
        }
    }
    Ok(offered)
}

fn function(tool: &WireTool<'_>, names: &mut Names, ignored: &mut Ignored) -> Tool {
    let parameters = parameters(tool.input_schema);
    let wants_strict = tool.strict == Some(true);
    let strict = wants_strict && is_strict(&parameters);
    if wants_strict && !strict {
        ignored.add(ignored::TOOL_STRICT);
    }
    let description = tool.description.as_deref().map(str::to_owned);
    Tool::Function { name: names.offer(&tool.name), description, strict, parameters }
}

/// The schema as the client wrote it, unless the backend would refuse it: arguments are always an
/// object, and an object's properties must be there even if there are none.
fn parameters(schema: Option<&RawValue>) -> Box<RawValue> {
    #[derive(Default, Deserialize)]
    struct Peek {
        #[serde(rename = "type", default)]
        kind: Option<IgnoredAny>,
        #[serde(default)]
        properties: Option<IgnoredAny>,
    }
    let text = schema.map_or("{}", RawValue::get);
    let peek: Option<Peek> = text.starts_with('{').then(|| serde_json::from_str(text).unwrap_or_default());
    let (text, peek) = match peek {
        Some(peek) => (text, peek),
        None => ("{}", Peek::default()),
    };
    let mut missing = Vec::new();
    if peek.kind.is_none() {
        missing.push(r#""type":"object""#);
    }
    if peek.properties.is_none() {
        missing.push(r#""properties":{}"#);
    }
    let rest = text[1..].trim_start();
    if !missing.is_empty() && !rest.starts_with('}') {
        missing.push("");
    }
    let whole = if missing.is_empty() { text.to_owned() } else { format!("{{{}{rest}", missing.join(",")) };
    RawValue::from_string(whole).unwrap_or_default()
}

/// Whether the backend takes a schema as strict: every object lists all its properties as required
/// and allows no others, and nothing is used that it cannot guarantee.
pub(super) fn is_strict(schema: &RawValue) -> bool {
    serde_json::from_str(schema.get()).is_ok_and(|schema: Value| schema.is_object() && is_strict_node(&schema))
}

const NEVER_STRICT: [&str; 9] =
    ["allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties"];

fn is_strict_node(node: &Value) -> bool {
    let Value::Object(node) = node else { return true };
    if NEVER_STRICT.iter().any(|keyword| node.contains_key(*keyword)) {
        return false;
    }
    let is_object = match node.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        _ => node.contains_key("properties"),
    };
    let no_properties = Map::new();
    let properties = node.get("properties").and_then(Value::as_object).unwrap_or(&no_properties);
    if is_object {
        let required = node.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_closed = node.get("additionalProperties") == Some(&Value::Bool(false));
        if !is_closed || properties.keys().any(|name| !required.iter().any(|r| r == name)) {
            return false;
        }
    }
    let definitions = ["$defs", "definitions"].into_iter().filter_map(|key| node.get(key)?.as_object());
    let branches = node.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    properties
        .values()
        .chain(definitions.flat_map(Map::values))
        .chain(branches)
        .chain(node.get("items"))
        .all(is_strict_node)
}

fn web_search(tool: &WireTool<'_>, ignored: &mut Ignored) -> Tool {
    if tool.max_uses.is_some() {
        ignored.add(ignored::MAX_USES);
    }
    if tool.blocked_domains.as_ref().is_some_and(|domains| !domains.is_empty()) {
        ignored.add(ignored::BLOCKED_DOMAINS);
    }
    let mut search = Map::from_iter([("external_web_access".to_owned(), json!(true))]);
    if let Some(domains) = tool.allowed_domains.as_ref().filter(|domains| !domains.is_empty()) {
        search.insert("filters".to_owned(), json!({ "allowed_domains": domains }));
    }
    if let Some(location) = &tool.user_location {
        search.insert("user_location".to_owned(), Value::Object(location.clone()));
    }
    Tool::WebSearch(search)
}

fn image_generation(tool: &WireTool<'_>) -> Tool {
    let options = [
        ("size", &tool.size),
        ("quality", &tool.quality),
        ("background", &tool.background),
        ("output_format", &tool.output_format),
    ];
    let said = options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    Tool::ImageGeneration(said.collect())
}

/// `tool_choice` of a request.
#[derive(Debug, Deserialize)]
pub(super) struct ToolChoice<'a> {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    disable_parallel_tool_use: Option<bool>,
}

impl ToolChoice<'_> {
    /// Whether the calls of a turn must come one at a time.
    pub(super) fn is_serial(&self) -> bool {
        self.disable_parallel_tool_use == Some(true)
    }

    /// The choice among `offered`.
    pub(super) fn translate(self, offered: &[WireTool<'_>]) -> Result<request::ToolChoice, Problem> {
        use request::ToolChoice::{Mode, Object};
        Ok(match (&*self.kind, self.name) {
            ("auto", _) => Mode("auto"),
            ("any", _) => Mode("required"),
            ("none", _) => Mode("none"),
            ("tool", Some(name)) => match offered.iter().find(|tool| tool.name == name).map(WireTool::offer) {
                Some(Offer::Function | Offer::Known(_)) => {
                    Object(json!({ "type": "function", "name": names::shorten(&name) }))
                }
                Some(Offer::WebSearch) => Object(json!({ "type": "web_search" })),
                Some(Offer::ImageGeneration) => Object(json!({ "type": "image_generation" })),
                Some(Offer::Foreign) => Mode("auto"),
                None => return Err(invalid(format!("Tool '{name}' not found in provided tools"))),
            },
            ("tool", None) => return Err(required("tool_choice.name")),
            (other, _) => return Err(invalid(format!("tool_choice: unknown type '{other}'"))),
        })
    }
}

fn invalid(message: String) -> Problem {
    Problem::invalid("tool_choice", message)
}
