//! How many tokens a request is: exactly as far as a tokenizer can tell, or roughly and at once.
//!
//! What is counted is what goes upstream. Text is counted with the backend's vocabulary
//! (`dialect::tokens`); around it stand a few tokens a message that only the backend knows exactly. The
//! rules for what is no text are constants below and a table in docs/compatibility-messages.md.

use super::request;
use crate::codex::Request;
use crate::codex::request::{InputItem, InputPart, TextFormat, Tool, ToolOutput};
use crate::dialect::tokens::{PER_ITEM, PER_TOOL, PRIMING, image};
use crate::dialect::{ModelMap, Problem, tokens};

/// The tokens of a body of `POST /v1/messages/count_tokens`.
///
/// Takes milliseconds for each 100 kB of text, and some hundred at the first call, which builds the
/// vocabulary: to be called where blocking is allowed.
pub fn count_tokens(body: &[u8]) -> Result<u64, Problem> {
    let translated = request::translate(body, &ModelMap::default())?;
    Ok(measure(&translated.request, &tokens::exact))
}

/// About as many, at the cost of looking at each byte once.
pub(in crate::dialect) fn estimate(request: &Request) -> u64 {
    measure(request, &tokens::rough)
}

/// Adds up a request by a measure of text.
fn measure(request: &Request, text: &dyn Fn(&str) -> u64) -> u64 {
    let instructions = request.instructions.as_deref().map_or(0, |prompt| PER_ITEM + text(prompt));
    let items: u64 = request.input.iter().map(|item| PER_ITEM + of_item(item, text)).sum();
    let tools: u64 = request.tools.iter().map(|tool| PER_TOOL + of_tool(tool, text)).sum();
    let format = request.text.as_ref().and_then(|config| config.format.as_ref());
    let schema = format.map_or(0, |format| match format {
        TextFormat::JsonSchema { schema, .. } => PER_TOOL + text(schema.get()),
        TextFormat::JsonObject => 0,
    });
    PRIMING + instructions + items + tools + schema
}

fn of_item(item: &InputItem, text: &dyn Fn(&str) -> u64) -> u64 {
    match item {
        InputItem::Message { content, .. } => of_parts(content, text),
        InputItem::Reasoning { encrypted_content, .. } => tokens::of_reasoning(encrypted_content),
        InputItem::FunctionCall { name, arguments: input, .. } | InputItem::CustomToolCall { name, input, .. } => {
            text(name) + text(input)
        }
        InputItem::FunctionCallOutput { output, .. } | InputItem::CustomToolCallOutput { output, .. } => match output {
            ToolOutput::Text(whole) => text(whole),
            ToolOutput::Parts(parts) => of_parts(parts, text),
        },
        InputItem::Raw(raw) => text(raw.get()),
    }
}

fn of_parts(parts: &[InputPart], text: &dyn Fn(&str) -> u64) -> u64 {
    let of_part = |part: &InputPart| match part {
        InputPart::InputText { text: whole }
        | InputPart::OutputText { text: whole }
        | InputPart::SummaryText { text: whole }
        | InputPart::Refusal { refusal: whole } => text(whole),
        InputPart::InputImage { image_url, .. } => image::tokens(image_url),
        InputPart::InputFile { file_data, .. } => tokens::of_file(file_data.as_deref()),
    };
    parts.iter().map(of_part).sum()
}

fn of_tool(tool: &Tool, text: &dyn Fn(&str) -> u64) -> u64 {
    match tool {
        Tool::Function { name, description, parameters, .. } => {
            text(name) + description.as_deref().map_or(0, text) + text(parameters.get())
        }
        Tool::Custom { name, description, .. } => text(name) + description.as_deref().map_or(0, text),
        Tool::WebSearch(_) | Tool::ImageGeneration(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(body: &str) -> u64 {
        count_tokens(body.as_bytes()).expect("a request")
    }

    #[test]
    fn text_is_counted_with_the_backends_vocabulary() {
        let with = |text: &str| count(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#));
        assert_eq!(with("hello world") - with("hello"), 1);
    }

    #[test]
    fn tools_and_results_count() {
        let plain = count(r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#);
        let tool = count(
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"name":"f","input_schema":{"type":"object","properties":{"city":{"type":"string"}}}}]}"#,
        );
        assert!(tool > plain + PER_TOOL);
    }
}
