//! The smallest value a JSON schema accepts, for structured output and forced tool calls.
//!
//! Pure. Covers what tools really send; `pattern` and `not` are beyond it.

use serde_json::{Map, Value, json};

/// References deeper than this are a cycle.
const DEPTH: usize = 24;

/// A minimal value for `schema`; `{}` for a schema that says nothing.
pub(crate) fn minimal(schema: &Value) -> Value {
    value(schema, schema, DEPTH)
}

fn value(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let pointed = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return pointed.map_or(Value::Null, |found| value(found, root, depth - 1));
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(first) = schema.get("enum").and_then(Value::as_array).and_then(|all| all.first()) {
        return first.clone();
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(choice).and_then(Value::as_array).and_then(|all| all.first()) {
            return value(first, root, depth - 1);
        }
    }
    match kind(schema) {
        "string" => Value::String(string(schema)),
        "integer" => integer(number(schema).ceil()),
        "number" => json!(number(schema)),
        "boolean" => json!(false),
        "null" => Value::Null,
        "array" => array(schema, root, depth),
        _ => object(schema, root, depth),
    }
}

/// The type, the first one that is not null of several, or what the keywords imply.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(one)) => one,
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("null")
        }
        _ if schema.get("items").is_some() => "array",
        _ => "object",
    }
}

fn size(schema: &Value, key: &str) -> Option<usize> {
    schema.get(key).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok())
}

fn string(schema: &Value) -> String {
    let known = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("date") => "2026-01-01",
        Some("time") => "00:00:00Z",
        Some("email") => "a@example.com",
        Some("uri") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        _ => "text",
    };
    let mut text = known.to_owned();
    if let Some(least) = size(schema, "minLength") {
        text.extend(std::iter::repeat_n('x', least.saturating_sub(text.len())));
    }
    if let Some(most) = size(schema, "maxLength") {
        text.truncate(most);
    }
    text
}

fn number(schema: &Value) -> f64 {
    let bound = |key| schema.get(key).and_then(Value::as_f64);
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|open| open + 1.0));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|open| open - 1.0));
    let start = least.unwrap_or_else(|| most.map_or(0.0, |top| top.min(0.0)));
    match bound("multipleOf") {
        Some(step) if step > 0.0 => (start / step).ceil() * step,
        _ => start,
    }
}

/// A whole number as JSON writes it (`1`, not `1.0`).
fn integer(number: f64) -> Value {
    serde_json::from_str(&format!("{number:.0}")).unwrap_or(Value::Null)
}

fn array(schema: &Value, root: &Value, depth: usize) -> Value {
    let item = schema.get("items").unwrap_or(&Value::Null);
    let least = size(schema, "minItems").unwrap_or(0);
    (0..least).map(|_| value(item, root, depth - 1)).collect()
}

fn object(schema: &Value, root: &Value, depth: usize) -> Value {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let fields: Map<String, Value> = required
        .filter_map(Value::as_str)
        .map(|name| {
            let property = schema.get("properties").and_then(|all| all.get(name)).unwrap_or(&Value::Null);
            (name.to_owned(), value(property, root, depth - 1))
        })
        .collect();
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_required_properties_are_filled() {
        let schema = json!({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer","minimum":3},"c":{"type":"null"}},"required":["a","b"]});
        assert_eq!(minimal(&schema), json!({"a":"text","b":3}));
    }

    #[test]
    fn choices_take_the_first_and_unions_avoid_null() {
        assert_eq!(minimal(&json!({"enum":["x","y"]})), json!("x"));
        assert_eq!(minimal(&json!({"anyOf":[{"type":"boolean"},{"type":"string"}]})), json!(false));
        assert_eq!(minimal(&json!({"type":["null","number"]})), json!(0.0));
    }

    #[test]
    fn references_are_followed_and_cycles_end() {
        let schema = json!({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"n":{"$ref":"#/$defs/n"}},"required":["n"]}}});
        assert!(minimal(&schema)["n"]["n"].is_object());
        let fine = json!({"$defs":{"s":{"type":"string","minLength":6}},"type":"array","minItems":2,"items":{"$ref":"#/$defs/s"}});
        assert_eq!(minimal(&fine), json!(["textxx", "textxx"]));
    }

    #[test]
    fn bounds_and_steps_are_honoured() {
        assert_eq!(minimal(&json!({"type":"integer","exclusiveMinimum":4,"multipleOf":5})), json!(5));
        assert_eq!(minimal(&json!({"type":"integer","maximum":-2})), json!(-2));
        assert_eq!(minimal(&json!({"type":"string","maxLength":2})), json!("te"));
    }
}
