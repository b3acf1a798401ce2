//! Items of a conversation: as they are listed, as they are told to the backend, and pages of them.
//! Pure. What is not looked at keeps its bytes: the order of a schema's properties counts.

use crate::codex::raw::Raw;
use crate::dialect::Problem;
use crate::dialect::responses::fields::Members;
use memchr::memmem;
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use uuid::Uuid;

/// An item, JSON.
pub(crate) type Item = Box<RawValue>;

/// How many items a page has at most.
const LONGEST_PAGE: usize = 100;
/// How many it has unless the client says.
const USUAL_PAGE: usize = 20;

/// Items that the backend knows by their id; of all others the id is ours or an earlier account's,
/// and says nothing to it.
const KNOWN_BY_ID: [&str; 4] = ["image_generation_call", "mcp_call", "mcp_list_tools", "mcp_approval_request"];

/// The items of an `input`, which is text or a list of items; `None` if it is neither.
pub(crate) fn of_input(input: Raw<'_>) -> Option<Vec<Item>> {
    if let Ok(said) = serde_json::from_str::<String>(input.get()) {
        let message = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]});
        return Some(vec![raw(message.to_string())?]);
    }
    of_list(input)
}

/// The items of a list; `None` if it is none, or has something else in it.
pub(crate) fn of_list(list: Raw<'_>) -> Option<Vec<Item>> {
    let items: Vec<Item> = serde_json::from_str(list.get()).ok()?;
    items.iter().all(|item| item.get().starts_with('{')).then_some(items)
}

/// The item as it is kept and listed: with an id, and a message in its full form.
pub(crate) fn kept(item: &RawValue) -> Item {
    let Some(members) = read(item) else { return item.to_owned() };
    let mut more: Vec<(&'static str, String)> = Vec::new();
    let kind = kind(&members);
    if text(&members, "id").is_none_or(|id| id.is_empty()) {
        more.push(("id", json!(new_id(prefix(&kind))).to_string()));
    }
    if kind == "message" {
        if text(&members, "type").is_none() {
            more.push(("type", json!("message").to_string()));
        }
        if text(&members, "status").is_none() {
            more.push(("status", json!("completed").to_string()));
        }
        if let Some(said) = text(&members, "content") {
            let part = if text(&members, "role").as_deref() == Some("assistant") {
                json!([{"type": "output_text", "text": said, "annotations": []}])
            } else {
                json!([{"type": "input_text", "text": said}])
            };
            more.push(("content", part.to_string()));
        }
    }
    if more.is_empty() {
        return item.to_owned();
    }
    raw(members.with(&more)).unwrap_or_else(|| item.to_owned())
}

/// The item as the backend takes it again; `None` for reasoning that cannot be continued, because
/// only its summary was given out.
pub(crate) fn told(item: &RawValue) -> Option<Item> {
    let Some(members) = read(item) else { return Some(item.to_owned()) };
    let kind = kind(&members);
    if kind == "reasoning" && text(&members, "encrypted_content").is_none() {
        return None;
    }
    let names: &[&str] = match kind.as_ref() {
        kind if KNOWN_BY_ID.contains(&kind) => return Some(item.to_owned()),
        "message" | "reasoning" | "function_call" | "custom_tool_call" => &["id", "status"],
        _ => &["id"],
    };
    Some(raw(members.without(names)).unwrap_or_else(|| item.to_owned()))
}

/// The id of an item that is nothing but a reference to another.
pub(crate) fn reference(item: &RawValue) -> Option<String> {
    // Some are long: the library's search takes a fifth of the time of `contains`.
    memmem::find(item.get().as_bytes(), b"\"id\"")?;
    let members = read(item)?;
    let id = text(&members, "id")?;
    match text(&members, "type").as_deref() {
        Some("item_reference") => Some(id.into_owned()),
        // The type may be left out, and then there is nothing but the id.
        None => members.0.iter().all(|(name, value)| name == "id" || value.get() == "null").then(|| id.into_owned()),
        Some(_) => None,
    }
}

/// Whether something can be the id of what is kept here.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// The id of an item.
pub(crate) fn id(item: &RawValue) -> Option<String> {
    text(&read(item)?, "id").map(Cow::into_owned)
}

/// A new id of this kind: `msg_…`.
pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::now_v7().simple())
}

/// Which part of a list a client asks for.
#[derive(Debug, Default)]
pub struct AskedPage {
    limit: Option<String>,
    order: Option<String>,
    after: Option<String>,
    before: Option<String>,
}

impl AskedPage {
    /// Reads it out of a query's pairs; of several of one name the last counts, others are not ours.
    pub fn of<'a>(pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Self {
        let mut asked = Self::default();
        for (name, value) in pairs {
            match name.as_ref() {
                "limit" => asked.limit = Some(value.into_owned()),
                "order" => asked.order = Some(value.into_owned()),
                "after" => asked.after = Some(value.into_owned()),
                "before" => asked.before = Some(value.into_owned()),
                _ => {}
            }
        }
        asked
    }

    /// As much as a page holds, oldest first.
    pub(crate) fn all_in_order() -> Self {
        Self { limit: Some(LONGEST_PAGE.to_string()), order: Some("asc".to_owned()), ..Self::default() }
    }
}

/// One page of a list, as the client gets it. Newest first unless it asks for `asc`.
pub(crate) fn page(items: &[Item], asked: &AskedPage) -> Result<String, Problem> {
    let limit = match asked.limit.as_deref() {
        None => USUAL_PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LONGEST_PAGE).contains(limit))
            .ok_or_else(|| Problem::invalid("limit", "`limit` must be a number from 1 to 100"))?,
    };
    let mut ordered: Vec<(String, &str)> =
        items.iter().map(|item| (id(item).unwrap_or_default(), item.get())).collect();
    match asked.order.as_deref() {
        None | Some("desc") => ordered.reverse(),
        Some("asc") => {}
        Some(_) => return Err(Problem::invalid("order", "`order` must be `asc` or `desc`")),
    }
    let place = |name: &'static str, id: &Option<String>| match id {
        None => Ok(None),
        Some(id) => ordered
            .iter()
            .position(|(known, _)| known == id)
            .map(Some)
            .ok_or_else(|| Problem::invalid(name, format!("No item '{id}' is in this list"))),
    };
    let start = place("after", &asked.after)?.map_or(0, |place| place + 1);
    let end = place("before", &asked.before)?.unwrap_or(ordered.len()).max(start);
    // Before a place, the nearest ones are meant.
    let (start, end, has_more) = match (&asked.before, &asked.after) {
        (Some(_), None) => (end.saturating_sub(limit), end, end > limit),
        _ => (start, end.min(start + limit), end > start + limit),
    };
    let shown = &ordered[start..end];
    let data: Vec<&str> = shown.iter().map(|(_, item)| *item).collect();
    let edge = |one: Option<&(String, &str)>| json!(one.map_or("", |(id, _)| id)).to_string();
    Ok(format!(
        "{{\"object\":\"list\",\"data\":[{}],\"first_id\":{},\"last_id\":{},\"has_more\":{has_more}}}",
        data.join(","),
        edge(shown.first()),
        edge(shown.last()),
    ))
}

/// JSON text as an item.
pub(crate) fn raw(text: String) -> Option<Item> {
    RawValue::from_string(text).ok()
}

fn read(item: &RawValue) -> Option<Members<'_>> {
    Members::read(item.get().as_bytes()).ok()
}

fn text<'a>(members: &Members<'a>, name: &str) -> Option<Cow<'a, str>> {
    serde_json::from_str::<String>(members.get(name)?.get()).ok().map(Cow::Owned)
}

fn kind<'a>(members: &Members<'a>) -> Cow<'a, str> {
    text(members, "type").unwrap_or(Cow::Borrowed("message"))
}

/// How an id of this kind of item begins.
fn prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        "function_call_output" => "fco",
        "custom_tool_call" => "ctc",
        "custom_tool_call_output" => "ctco",
        "web_search_call" => "ws",
        "image_generation_call" => "ig",
        "compaction" => "cmp",
        _ => "item",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn item(value: &Value) -> Item {
        raw(value.to_string()).expect("JSON")
    }

    fn value(item: &RawValue) -> Value {
        serde_json::from_str(item.get()).expect("JSON")
    }

    #[test]
    fn a_message_is_kept_in_its_full_form() {
        let short = kept(&item(&json!({"role": "user", "content": "hi"})));
        let seen = value(&short);
        assert!(seen["id"].as_str().is_some_and(|id| id.starts_with("msg_")));
        assert_eq!((&seen["type"], &seen["status"]), (&json!("message"), &json!("completed")));
        assert_eq!(seen["content"], json!([{"type": "input_text", "text": "hi"}]));
        assert_eq!(kept(&short).get(), short.get(), "what is full already keeps its bytes");
        let own = value(&kept(&item(&json!({"role": "assistant", "content": "hello", "id": "msg_1"}))));
        assert_eq!((&own["id"], &own["content"][0]["type"]), (&json!("msg_1"), &json!("output_text")));
    }

    #[test]
    fn the_backend_is_told_no_ids_and_no_reasoning_that_it_cannot_read() {
        let told = |item: Value| told(&self::item(&item)).map(|item| value(&item));
        let call = json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"});
        assert_eq!(told(call), Some(json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"})));
        assert_eq!(told(json!({"type": "reasoning", "id": "rs_1", "summary": []})), None);
        let sealed = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"});
        assert_eq!(told(sealed), Some(json!({"type": "reasoning", "summary": [], "encrypted_content": "x"})));
        let picture = json!({"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGk="});
        assert_eq!(told(picture.clone()), Some(picture));
    }

    #[test]
    fn a_reference_is_known_with_and_without_its_type() {
        let reference = |item: Value| reference(&self::item(&item));
        assert_eq!(reference(json!({"type": "item_reference", "id": "rs_1"})).as_deref(), Some("rs_1"));
        assert_eq!(reference(json!({"id": "rs_1", "type": null})).as_deref(), Some("rs_1"));
        assert_eq!(reference(json!({"id": "msg_1", "role": "user", "content": "hi"})), None);
        assert_eq!(reference(json!({"id": "rs_1", "type": "reasoning"})), None);
    }

    #[test]
    fn schemas_keep_the_order_of_their_properties() {
        let tools =
            RawValue::from_string(r#"{"type":"additional_tools","tools":[{"z":1,"a":2}]}"#.into()).expect("JSON");
        assert!(kept(&tools).get().contains(r#"{"z":1,"a":2}"#));
    }

    #[test]
    fn pages_follow_order_and_cursors() {
        let items: Vec<Item> = (0..5).map(|n| item(&json!({"id": format!("msg_{n}")}))).collect();
        let ids = |asked: AskedPage| {
            let page: Value = serde_json::from_str(&page(&items, &asked).expect("a page")).expect("JSON");
            let ids: Vec<String> = page["data"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|item| item["id"].as_str().unwrap_or_default()[4..].to_owned())
                .collect();
            assert_eq!(
                page["first_id"].as_str().unwrap_or_default().get(4..).unwrap_or_default(),
                ids.first().map_or("", String::as_str)
            );
            (ids.concat(), page["has_more"] == json!(true))
        };
        let asked = |limit: &str, order: &str, after: Option<&str>, before: Option<&str>| AskedPage {
            limit: Some(limit.into()),
            order: Some(order.into()),
            after: after.map(Into::into),
            before: before.map(Into::into),
        };
        assert_eq!(ids(AskedPage::default()), ("43210".into(), false));
        assert_eq!(ids(asked("2", "asc", None, None)), ("01".into(), true));
        assert_eq!(ids(asked("2", "asc", Some("msg_1"), None)), ("23".into(), true));
        assert_eq!(ids(asked("2", "asc", Some("msg_3"), None)), ("4".into(), false));
        assert_eq!(ids(asked("2", "desc", Some("msg_3"), None)), ("21".into(), true));
        assert_eq!(ids(asked("2", "asc", None, Some("msg_3"))), ("12".into(), true));
        assert_eq!(ids(asked("9", "asc", Some("msg_4"), None)), (String::new(), false));
        for (bad, name) in [
            (asked("0", "asc", None, None), "limit"),
            (asked("1", "up", None, None), "order"),
            (asked("1", "asc", Some("msg_9"), None), "after"),
        ] {
            assert_eq!(page(&items, &bad).expect_err("refused").param.as_deref(), Some(name));
        }
    }
}
