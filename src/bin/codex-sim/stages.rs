//! Scripts of several steps: `first [then] second [then] third` in one user message. Each time the
//! model is asked again, behind the results of its calls, the next part counts.
//!
//! Pure; knows only the order of a request's items.

use serde_json::Value;

/// What parts the steps.
const THEN: &str = "[then]";

/// The part of a script that this request has come to; nothing when no message holds a script, or
/// when it is over.
pub(crate) fn current(input: &[Value]) -> Option<String> {
    let (at, script) = input.iter().enumerate().rev().find_map(|(at, item)| {
        let is_user = item.get("role").and_then(Value::as_str) == Some("user");
        let text = is_user.then(|| text(item.get("content")))?;
        text.contains(THEN).then_some((at, text))
    })?;
    script.split(THEN).nth(rounds(&input[at + 1..])).map(str::to_owned)
}

/// How many times the model has answered with calls: each run of calls is one answer.
fn rounds(items: &[Value]) -> usize {
    let calls: Vec<bool> = items.iter().map(is_call).collect();
    let begins = |at: usize| calls[at] && (at == 0 || !calls[at - 1]);
    (0..calls.len()).filter(|at| begins(*at)).count()
}

fn is_call(item: &Value) -> bool {
    item.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("_call"))
}

fn text(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_answer_with_calls_moves_the_script_on() {
        let call = json!({"type": "function_call", "call_id": "c"});
        let output = json!({"type": "function_call_output", "call_id": "c", "output": "x"});
        let mut input = vec![json!({"role": "user", "content": "one [then] two [then] three"})];
        assert_eq!(current(&input).as_deref(), Some("one "));
        input.extend([call.clone(), call.clone(), output.clone(), output.clone()]);
        assert_eq!(current(&input).as_deref(), Some(" two "), "parallel calls are one answer");
        input.extend([json!({"type": "reasoning"}), call.clone(), output.clone()]);
        assert_eq!(current(&input).as_deref(), Some(" three"));
        input.extend([call, output, json!({"role": "user", "content": "a reminder"})]);
        assert_eq!(current(&input), None, "it is over");
    }

    #[test]
    fn a_message_without_steps_is_no_script() {
        assert_eq!(current(&[json!({"role": "user", "content": "[tool:a]"})]), None);
    }
}
