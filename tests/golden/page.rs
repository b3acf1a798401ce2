//! docs/compatibility-fields.md, written from what the translators do: each field and form of the
//! official SDKs' request types is sent through (`tests/golden/fields`), and each event that a golden
//! stream has. `UPDATE_GOLDEN=1` writes the page anew; `tests/clients/strict_types.py` holds the lists
//! of names to the SDKs.

use super::cases::{cases, root};
use super::expect;
use super::grammar;
use super::run::{Api, prepare, trace};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const HEAD: &str = "# Fields and events, one by one

This page is written by a test (`tests/golden/page.rs`) that sends each field through the translator and
looks at what comes of it; do not edit it. Why it is so stands in [compatibility.md](compatibility.md) and
[compatibility-messages.md](compatibility-messages.md).

\"Passed\" goes upstream as it came; \"translated\" is said in the backend's words, in the upstream fields that
are named; \"emulated\" is Tollway's own doing and the backend never hears of it; \"ignored\" is left out and named
in `x-tollway-ignored`; \"left out\" is what an earlier answer had and a later one does not need;
\"refused\" is answered with an error.
";

const DIALECTS: [(&str, &str, Api); 3] = [
    ("OpenAI Responses", "responses", Api::Responses),
    ("OpenAI Chat Completions", "chat", Api::Chat),
    ("Anthropic Messages", "messages", Api::Messages),
];

fn read(name: &str) -> Value {
    serde_json::from_slice(&fs::read(root().join("fields").join(name)).unwrap()).unwrap()
}

/// The base request with these fields instead of its own.
fn with(base: &Value, fields: &Map<String, Value>) -> Value {
    let mut body = base.clone();
    body.as_object_mut().unwrap().extend(fields.clone());
    body
}

/// What becomes of a request's fields, in two cells of a table. A form that says what stands beside it
/// is compared with that alone.
fn disposition(api: Api, base: &Value, fields: &Map<String, Value>) -> [String; 2] {
    let upstream = |body: &Value| -> Result<(Map<String, Value>, Vec<&'static str>), String> {
        let prepared = prepare(api, body.to_string().as_bytes()).map_err(|problem| problem.message)?;
        Ok((serde_json::from_slice(&prepared.body).unwrap(), prepared.ignored))
    };
    let beside = fields.get("beside").and_then(Value::as_object);
    let base = beside.map_or_else(|| base.clone(), |beside| with(base, beside));
    let fields = fields.get("with").and_then(Value::as_object).unwrap_or(fields);
    let (plain, already) = upstream(&base).unwrap();
    let (changed, ignored) = match upstream(&with(&base, fields)) {
        Ok(seen) => seen,
        Err(message) => return ["refused".to_owned(), message.replace('|', "\\|")],
    };
    let names: BTreeSet<&String> = plain.keys().chain(changed.keys()).collect();
    let differs: Vec<&String> = names.into_iter().filter(|name| plain.get(*name) != changed.get(*name)).collect();
    let ignored: Vec<String> =
        ignored.iter().filter(|name| !already.contains(name)).map(|name| format!("`{name}`")).collect();
    let says_the_same = fields.iter().all(|(name, value)| changed.get(name) == Some(value));
    let word = match (differs.is_empty(), ignored.is_empty()) {
        (_, true) if says_the_same => "passed",
        (true, false) => "ignored",
        (true, true) if beside.is_some() => "left out",
        (true, true) => "emulated",
        (false, true) => "translated",
        (false, false) => "translated in part",
    };
    let mut how: Vec<String> = differs.iter().map(|name| format!("`{name}`")).collect();
    if !ignored.is_empty() {
        how.push(format!("named: {}", ignored.join(", ")));
    }
    [word.to_owned(), how.join("; ")]
}

/// What is resolved before the translator is asked, where responses are kept (`src/kept`;
/// `tests/gateway/kept_responses.rs` and `background.rs` show it).
const KEPT: [&str; 4] = ["background", "conversation", "previous_response_id", "store"];
const RESOLVED: &str =
    "resolved from what Tollway keeps; refused or named where it keeps nothing (`responses.retention`)";

fn rows_of_fields(name: &str, api: Api, page: &mut String) {
    let lists = read(&format!("{name}.json"));
    writeln!(page, "Fields of {}.\n", lists["sdk"].as_str().unwrap()).unwrap();
    page.push_str("| field | what becomes of it | upstream, or why |\n|---|---|---|\n");
    for (field, sample) in lists["fields"].as_object().unwrap() {
        let fields = Map::from_iter([(field.clone(), sample.clone())]);
        let [word, how] = match api {
            Api::Responses if KEPT.contains(&field.as_str()) => ["emulated".to_owned(), RESOLVED.to_owned()],
            _ => disposition(api, &lists["base"], &fields),
        };
        writeln!(page, "| `{field}` | {word} | {how} |").unwrap();
    }
    page.push_str("\n| form | what becomes of it | upstream, or why |\n|---|---|---|\n");
    for (form, fields) in lists["forms"].as_object().unwrap() {
        let [word, how] = disposition(api, &lists["base"], fields.as_object().unwrap());
        writeln!(page, "| {form} | {word} | {how} |").unwrap();
    }
    page.push('\n');
}

/// What a dialect writes, in its own words.
fn words(api: Api, written: &str, said: &mut BTreeSet<String>) {
    if written.contains("[DONE]") {
        said.insert("[DONE]".to_owned());
    }
    for frame in grammar::responses::events(&written.replace("data: [DONE]", "")).unwrap() {
        let kind = frame["type"].as_str().unwrap_or_default();
        match api {
            Api::Chat => said.extend(words_of_a_chunk(&frame)),
            Api::Messages => {
                let parts = [&frame["content_block"], &frame["delta"]];
                let detail = parts.into_iter().find_map(|part| part["type"].as_str());
                said.insert(detail.map_or_else(|| kind.to_owned(), |detail| format!("{kind} {detail}")));
            }
            Api::CodexCli | Api::Images | Api::Responses => {
                said.insert(kind.to_owned());
            }
        }
    }
}

fn words_of_a_chunk(chunk: &Value) -> Vec<String> {
    let choice = &chunk["choices"][0];
    let delta = choice["delta"].as_object().into_iter().flatten();
    let mut words: Vec<String> =
        delta.filter(|(_, value)| !value.is_null() && **value != "").map(|(name, _)| format!("delta.{name}")).collect();
    for (name, value) in
        [("finish_reason", &choice["finish_reason"]), ("usage", &chunk["usage"]), ("error", &chunk["error"])]
    {
        if !value.is_null() {
            words.push(name.to_owned());
        }
    }
    words
}

/// For each event, what each dialect was ever seen to write upon it.
fn events() -> BTreeMap<String, [BTreeSet<String>; 3]> {
    let mut seen: BTreeMap<String, [BTreeSet<String>; 3]> = BTreeMap::new();
    let mut streams: Vec<Vec<u8>> = cases().into_iter().filter_map(|case| case.stream).collect();
    for kind in read("events.json")["events"].as_array().unwrap() {
        // Where no case has it: in the middle of a message.
        let event = json!({ "type": kind, "item_id": "m", "output_index": 0, "delta": "", "response": { "id": "r" } });
        let before = json!({ "type": "response.created", "response": { "id": "r" } });
        streams.push(format!("data: {before}\n\ndata: {event}\n\n").into_bytes());
    }
    for (column, (_, _, api)) in DIALECTS.into_iter().enumerate() {
        let reply = prepare(api, api.plain_request()).unwrap().reply;
        for stream in &streams {
            for (kind, written) in trace(&*reply, stream) {
                words(api, &written, &mut seen.entry(kind).or_default()[column]);
            }
        }
    }
    seen
}

fn rows_of_events(page: &mut String) {
    page.push_str("| event of the backend | Responses | Chat Completions | Messages |\n|---|---|---|---|\n");
    let known: Vec<String> = serde_json::from_value(read("events.json")["events"].clone()).unwrap();
    for (kind, columns) in events() {
        if !known.contains(&kind) && !kind.starts_with("codex.") {
            continue;
        }
        let [responses, others @ ..] = &columns;
        let first =
            if responses.len() == 1 && responses.contains(&kind) { "passed".to_owned() } else { list(responses) };
        writeln!(page, "| `{kind}` | {first} | {} | {} |", list(&others[0]), list(&others[1])).unwrap();
    }
}

fn list(words: &BTreeSet<String>) -> String {
    if words.is_empty() {
        return "nothing".to_owned();
    }
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_page_of_fields_says_what_becomes_of_each() {
    let mut page = HEAD.to_owned();
    for (title, name, api) in DIALECTS.into_iter().chain([("OpenAI Images", "images", Api::Images)]) {
        write!(page, "\n## {title}\n\n").unwrap();
        rows_of_fields(name, api, &mut page);
        let trimmed = page.trim_end().len();
        page.truncate(trimmed);
        page.push('\n');
    }
    page.push_str(
        "\n## Events\n\nWhat a client's stream was seen to get upon each; also what the event completes or ends.\n\n",
    );
    rows_of_events(&mut page);
    let mut faults = Vec::new();
    expect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility-fields.md"), &page, &mut faults);
    assert!(faults.is_empty(), "{}\nUPDATE_GOLDEN=1 writes the page anew; read the difference", faults.join("\n\n"));
}
