//! Tools and the choice among them.

use super::fields::{Fields, parse, word};
use crate::codex::Request;
use crate::codex::raw::Raw;
use crate::codex::request::{self, Tool};
use crate::dialect::Problem;
use crate::dialect::names::{Names, shorten};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// A tool as clients write it: nested as Chat Completions has it, or flat as Responses has it.
#[derive(Debug, Deserialize)]
struct WireTool<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<Definition<'a>>,
    #[serde(borrow, default)]
    custom: Option<Definition<'a>>,
}

/// What a tool is called, does and takes.
#[derive(Debug, Deserialize)]
struct Definition<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    name: Cow<'a, str>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    strict: Option<bool>,
    /// A function's schema.
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
    /// A custom tool's format.
    #[serde(default)]
    format: Option<Value>,
}

/// Puts tools, choice and parallelism into the request. Whether the client uses the older
/// `functions`, which have room for one call an answer.
pub(super) fn translate(
    fields: &mut Fields<'_>,
    request: &mut Request,
    wants_images: bool,
    names: &mut Names,
) -> Result<bool, Problem> {
    let tools = fields.list("tools")?.unwrap_or_default();
    for (at, raw) in tools.into_iter().enumerate() {
        let path = format!("tools[{at}]");
        request.tools.push(tool(raw, &path, names)?);
    }
    let functions: Vec<Definition<'_>> = fields.take("functions")?.unwrap_or_default();
    let is_legacy = request.tools.is_empty() && !functions.is_empty();
    for (at, definition) in functions.into_iter().enumerate() {
        request.tools.push(function(definition, &format!("functions[{at}]"), names)?);
    }
    let search: Option<SearchOptions> = fields.take("web_search_options")?;
    request.tools.extend(search.map(SearchOptions::tool));
    if wants_images && !request.tools.iter().any(|tool| matches!(tool, Tool::ImageGeneration(_))) {
        request.tools.push(Tool::ImageGeneration(Map::new()));
    }

    let choice = match fields.take::<Raw<'_>>("tool_choice")? {
        Some(raw) => Some(choice(raw)?),
        None => fields.take::<Raw<'_>>("function_call")?.map(legacy_choice).transpose()?,
    };
    let parallel: Option<bool> = fields.take("parallel_tool_calls")?;
    if request.tools.is_empty() {
        return match choice {
            None | Some(request::ToolChoice::Mode("auto" | "none")) => Ok(false),
            Some(_) => Err(Problem::invalid("tool_choice", "`tool_choice` is only allowed with `tools`")),
        };
    }
    request.tool_choice = choice;
    request.parallel_tool_calls = if is_legacy { Some(false) } else { parallel };
    Ok(is_legacy)
}

pub(super) fn tool(raw: Raw<'_>, path: &str, names: &mut Names) -> Result<Tool, Problem> {
    let wire: WireTool<'_> = parse(raw, path)?;
    match (wire.kind.as_deref(), wire.function, wire.custom) {
        (None | Some("function"), Some(definition), _) => function(definition, &format!("{path}.function"), names),
        (Some("function"), None, _) => function(parse(raw, path)?, path, names),
        (Some("custom"), _, Some(definition)) => custom(definition, &format!("{path}.custom"), names),
        (Some("custom"), _, None) => custom(parse(raw, path)?, path, names),
        (Some(kind), ..) if kind.starts_with("web_search") => Ok(Tool::WebSearch(hosted(raw, path)?)),
        (Some("image_generation"), ..) => Ok(Tool::ImageGeneration(hosted(raw, path)?)),
        (kind, ..) => {
            let kind = kind.unwrap_or_default();
            Err(Problem::invalid(path, format!("`{path}.type`: unknown type '{kind}'")))
        }
    }
}

/// A tool that the backend runs, as the client wrote it but for its type.
fn hosted(raw: Raw<'_>, path: &str) -> Result<Map<String, Value>, Problem> {
    let mut tool: Map<String, Value> = parse(raw, path)?;
    // Some clients name every tool; to the backend a name is none of its parameters.
    for field in ["type", "name"] {
        tool.remove(field);
    }
    Ok(tool)
}

fn function(definition: Definition<'_>, path: &str, names: &mut Names) -> Result<Tool, Problem> {
    let name = name(&definition, path, names)?;
    let parameters = match definition.parameters.map(RawValue::get) {
        None | Some("null" | "{}") => RawValue::from_string(r#"{"type":"object","properties":{}}"#.to_owned()),
        Some(schema) if schema.starts_with('{') => RawValue::from_string(schema.to_owned()),
        Some(_) => return Err(Problem::invalid(path, format!("`{path}.parameters` must be an object"))),
    };
    Ok(Tool::Function {
        name,
        description: definition.description,
        strict: definition.strict.unwrap_or(false),
        parameters: parameters.unwrap_or_default(),
    })
}

fn custom(definition: Definition<'_>, path: &str, names: &mut Names) -> Result<Tool, Problem> {
    let name = name(&definition, path, names)?;
    Ok(Tool::Custom { name, description: definition.description, format: definition.format.map(flatten_grammar) })
}

fn name(definition: &Definition<'_>, path: &str, names: &mut Names) -> Result<String, Problem> {
    if definition.name.is_empty() {
        return Err(Problem::invalid(path, format!("`{path}.name` is required")));
    }
    Ok(names.offer(&definition.name))
}

/// Chat Completions nests what the backend has flat: `{"type":"grammar","grammar":{"syntax",…}}`.
fn flatten_grammar(mut format: Value) -> Value {
    if let Some(Value::Object(mut grammar)) = format.get_mut("grammar").map(Value::take) {
        grammar.insert("type".to_owned(), json!("grammar"));
        return Value::Object(grammar);
    }
    format
}

/// `web_search_options`: asks for the backend's own search.
#[derive(Debug, Deserialize)]
struct SearchOptions {
    #[serde(default)]
    search_context_size: Option<String>,
    #[serde(default)]
    user_location: Option<Location>,
}

#[derive(Debug, Deserialize)]
struct Location {
    #[serde(default)]
    approximate: Map<String, Value>,
}

impl SearchOptions {
    fn tool(self) -> Tool {
        let mut search = Map::from_iter([("external_web_access".to_owned(), json!(true))]);
        if let Some(size) = self.search_context_size {
            search.insert("search_context_size".to_owned(), json!(size));
        }
        if let Some(Location { approximate: mut location }) = self.user_location {
            location.insert("type".to_owned(), json!("approximate"));
            search.insert("user_location".to_owned(), Value::Object(location));
        }
        Tool::WebSearch(search)
    }
}

const CHOICE: &str = "tool_choice";

/// `tool_choice`, and a member of its `allowed_tools`: nested, or flat as Responses has it.
#[derive(Debug, Deserialize)]
struct Chosen<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<Named<'a>>,
    #[serde(borrow, default)]
    custom: Option<Named<'a>>,
    #[serde(borrow, default)]
    allowed_tools: Option<Allowed<'a>>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    mode: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tools: Vec<Raw<'a>>,
}

#[derive(Debug, Deserialize)]
struct Named<'a> {
    #[serde(borrow, deserialize_with = "word")]
    name: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct Allowed<'a> {
    #[serde(borrow)]
    mode: Cow<'a, str>,
    #[serde(borrow)]
    tools: Vec<Raw<'a>>,
}

pub(super) fn choice(raw: Raw<'_>) -> Result<request::ToolChoice, Problem> {
    if raw.get().starts_with('"') {
        return mode(&parse::<String>(raw, CHOICE)?, CHOICE);
    }
    let chosen: Chosen<'_> = parse(raw, CHOICE)?;
    if chosen.kind != "allowed_tools" {
        return one(&chosen).map(request::ToolChoice::Object);
    }
    let Allowed { mode, tools } = match (chosen.allowed_tools, chosen.mode) {
        (Some(allowed), _) => allowed,
        (None, Some(mode)) => Allowed { mode, tools: chosen.tools },
        (None, None) => return Err(Problem::invalid(CHOICE, "`tool_choice.allowed_tools` is required")),
    };
    let tools: Vec<Value> =
        tools.into_iter().map(|raw| one(&parse(raw, "tool_choice.allowed_tools.tools")?)).collect::<Result<_, _>>()?;
    Ok(request::ToolChoice::Object(json!({ "type": "allowed_tools", "mode": mode, "tools": tools })))
}

/// One tool, flat.
fn one(chosen: &Chosen<'_>) -> Result<Value, Problem> {
    let named = |nested: &Option<Named<'_>>| {
        let name = nested.as_ref().map(|named| &*named.name).or(chosen.name.as_deref());
        name.map(|name| json!({ "type": chosen.kind, "name": shorten(name) }))
    };
    let choice = match &*chosen.kind {
        "function" => named(&chosen.function),
        "custom" => named(&chosen.custom),
        kind if kind.starts_with("web_search") => Some(json!({ "type": "web_search" })),
        "image_generation" => Some(json!({ "type": "image_generation" })),
        other => return Err(Problem::invalid(CHOICE, format!("`tool_choice.type`: unknown type '{other}'"))),
    };
    choice.ok_or_else(|| Problem::invalid(CHOICE, format!("`tool_choice.{}.name` is required", chosen.kind)))
}

/// `function_call`: a mode, or `{"name"}`.
fn legacy_choice(raw: Raw<'_>) -> Result<request::ToolChoice, Problem> {
    const PATH: &str = "function_call";
    if raw.get().starts_with('"') {
        return mode(&parse::<String>(raw, PATH)?, PATH);
    }
    let Named { name } = parse(raw, PATH)?;
    Ok(request::ToolChoice::Object(json!({ "type": "function", "name": shorten(&name) })))
}

fn mode(word: &str, path: &str) -> Result<request::ToolChoice, Problem> {
    Ok(request::ToolChoice::Mode(match word {
        "auto" => "auto",
        "none" => "none",
        // `any` is Anthropic's word for it, which some clients keep.
        "required" | "any" => "required",
        other => return Err(Problem::invalid(path, format!("`{path}`: unknown choice '{other}'"))),
    }))
}
