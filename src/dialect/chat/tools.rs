//! Tools and the choice among them.

use super::wire::{Function, Request as Wire};
use crate::codex::Request;
use crate::codex::request::{Tool, ToolChoice};
use crate::dialect::Problem;
use crate::dialect::names::Names;
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub(super) fn translate(
    wire: &mut Wire,
    request: &mut Request,
    names: &mut Names,
    ignored: &mut Vec<&'static str>,
) -> Result<(), Problem> {
    for tool in wire.tools.take().unwrap_or_default() {
        if let Some(declared) = tool.function {
            request.tools.push(function(declared, names));
        } else if let Some(custom) = tool.custom {
            request.tools.push(Tool::Custom {
                name: names.offer(&custom.name),
                description: custom.description,
                format: custom.format.map(custom_format),
            });
        } else if !ignored.contains(&"tools[].type") {
            ignored.push("tools[].type");
        }
    }
    for declared in wire.functions.iter_mut().flatten() {
        let taken = Function {
            name: declared.name.clone(),
            description: declared.description.take(),
            parameters: declared.parameters.take(),
            strict: declared.strict,
        };
        request.tools.push(function(taken, names));
    }
    if request.tools.is_empty() {
        return Ok(());
    }
    request.parallel_tool_calls = wire.parallel_tool_calls;
    // One call a message is all that the legacy form can say.
    if wire.functions.is_some() {
        request.parallel_tool_calls = Some(false);
    }
    let choice = wire.tool_choice.take().or_else(|| wire.function_call.take());
    request.tool_choice = choice.map(|choice| tool_choice(&choice, names)).transpose()?;
    Ok(())
}

fn function(declared: Function, names: &mut Names) -> Tool {
    Tool::Function {
        name: names.offer(&declared.name),
        description: declared.description,
        strict: declared.strict.unwrap_or(false),
        parameters: declared.parameters.filter(|schema| schema.get() != "null").unwrap_or_else(any_object),
    }
}

/// The schema of a function that says nothing of its parameters.
pub(super) fn any_object() -> Box<RawValue> {
    RawValue::from_string(r#"{"type":"object","properties":{}}"#.to_owned())
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Chat nests a grammar that Responses has flat.
fn custom_format(format: Value) -> Value {
    match format.get("grammar") {
        Some(grammar) => {
            json!({"type": "grammar", "syntax": grammar["syntax"], "definition": grammar["definition"]})
        }
        None => format,
    }
}

fn tool_choice(choice: &Value, names: &mut Names) -> Result<ToolChoice, Problem> {
    if let Some(mode) = choice.as_str() {
        return mode_of(mode)
            .map(ToolChoice::Mode)
            .ok_or_else(|| Problem::invalid("tool_choice", format!("`{mode}` is not a tool choice")));
    }
    let unknown = || Problem::invalid("tool_choice", "`tool_choice` names no tool");
    if choice["type"] == "allowed_tools" {
        let allowed = &choice["allowed_tools"];
        let mode = allowed["mode"].as_str().and_then(mode_of).unwrap_or("auto");
        let tools = allowed["tools"].as_array().ok_or_else(unknown)?;
        let tools: Option<Vec<Value>> = tools.iter().map(|tool| named(tool, names)).collect();
        let tools = tools.ok_or_else(unknown)?;
        return Ok(ToolChoice::Object(json!({"type": "allowed_tools", "mode": mode, "tools": tools})));
    }
    // The legacy `function_call` is a name alone.
    let legacy = choice["name"].as_str().map(|name| json!({"type": "function", "name": names.offer(name)}));
    named(choice, names).or(legacy).map(ToolChoice::Object).ok_or_else(unknown)
}

fn mode_of(mode: &str) -> Option<&'static str> {
    ["auto", "none", "required"].into_iter().find(|known| *known == mode)
}

/// `{"type":"function","function":{"name"}}` made flat.
fn named(tool: &Value, names: &mut Names) -> Option<Value> {
    ["function", "custom"].into_iter().find_map(|kind| {
        let name = tool[kind]["name"].as_str()?;
        Some(json!({"type": kind, "name": names.offer(name)}))
    })
}
