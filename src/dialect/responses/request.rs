//! A Responses request, made acceptable to the backend with as few bytes touched as can be.
//!
//! Rule for the unknown: a top-level field that no table names goes upstream as it came; the backend
//! knows its fields best. Items and tools go as they came, but for the few spellings that the
//! backend refuses.

use super::bound::Bound;
use super::bounded::{BoundedStream, BoundedWhole};
use super::echo::Echo;
use super::fields::{DROPPED, Members, REFUSED, check_metadata, quote};
use super::stream::Passthrough;
use super::whole::Whole;
use crate::codex::raw::Raw;
use crate::codex::request::ENCRYPTED_REASONING;
use crate::codex::skim;
use crate::dialect::beginning::Beginning;
use crate::dialect::{Context, Folder, ModelMap, Prepared, Problem, ProblemKind, Reply, Translator, Wish, tokens};
use bytes::Bytes;
use memchr::memmem::Finder;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// Reads the request of an SDK or, with `codex_cli`, of a Codex CLI, whose requests the backend
/// takes as they are: of these only the model's name may change.
pub fn prepare(body: &Bytes, context: &Context, models: &ModelMap, codex_cli: bool) -> Result<Prepared, Problem> {
    prepare_with(body, context, models, codex_cli, Echo::new())
}

/// The same, with more for the response object to say than stands in the request.
pub fn prepare_with(
    body: &Bytes,
    context: &Context,
    models: &ModelMap,
    codex_cli: bool,
    echo: Echo,
) -> Result<Prepared, Problem> {
    let members = Members::read(body).map_err(|error| {
        Problem::new(ProblemKind::InvalidRequest, format!("The request body is not a JSON object: {error}"))
    })?;
    let requested = model(&members)?;
    let resolved = models.resolve(&requested);
    let stream = codex_cli || flag(&members, "stream")?.unwrap_or(false);
    let session = members.get("prompt_cache_key").and_then(text);
    let wish = wish(&members, resolved.effort.as_deref());
    let limit = if codex_cli { None } else { limit(&members)? };
    let echo = Arc::new(echo.of(&members, &requested, context.now));
    let mut edit = Edit::new(session.is_none() && !codex_cli);
    let mut beginning = None;
    let body = if codex_cli && resolved.slug == requested && resolved.effort.is_none() {
        body.clone()
    } else {
        edit.members(&members, codex_cli, &resolved.slug, resolved.effort.as_deref())?;
        beginning = edit.name_conversation();
        edit.finish(body.len())
    };
    Ok(Prepared {
        model: resolved.slug,
        requested_model: requested.clone(),
        stream,
        body,
        ignored: edit.ignored,
        session,
        beginning,
        wish: Wish { most_output: limit.as_ref().map(|limit| limit.tokens), ..wish },
        reply: Box::new(ResponsesReply { codex_cli, context: context.clone(), model: requested, echo, limit }),
    })
}

fn model(members: &Members<'_>) -> Result<String, Problem> {
    let value = members.get("model").ok_or_else(|| Problem::invalid("model", "`model` is required"))?;
    text(value)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Problem::invalid("model", "`model` must be a non-empty string"))
}

/// `max_output_tokens`, with an estimate of the request's own tokens.
fn limit(members: &Members<'_>) -> Result<Option<Limit>, Problem> {
    let Some(value) = members.get("max_output_tokens").filter(|value| value.get() != "null") else { return Ok(None) };
    let tokens: u64 = serde_json::from_str(value.get()).ok().filter(|tokens| *tokens > 0).ok_or_else(|| {
        Problem::invalid("max_output_tokens", "`max_output_tokens` must be a whole number greater than 0")
    })?;
    let read = ["instructions", "input", "tools"].into_iter().filter_map(|name| members.get(name));
    Ok(Some(Limit { tokens, input: read.map(|value| tokens::rough(value.get())).sum() }))
}

/// What the request asks for that costs: an effort in the model's name comes before its own.
fn wish(members: &Members<'_>, effort: Option<&str>) -> Wish {
    #[derive(Deserialize)]
    struct Reasoning {
        #[serde(default)]
        effort: Option<String>,
    }
    let reasoning =
        members.get("reasoning").and_then(|value| serde_json::from_str::<Option<Reasoning>>(value.get()).ok());
    let own = reasoning.flatten().and_then(|reasoning| reasoning.effort);
    let tier = members.get("service_tier").and_then(text);
    Wish {
        effort: effort.map(str::to_owned).or(own),
        tier: tier.filter(|tier| matches!(tier.as_str(), "priority" | "fast" | "flex")).map(priority),
        most_output: None,
    }
}

/// Under the one name that the backend and its prices have for it.
fn priority(tier: String) -> String {
    if tier == "fast" { "priority".to_owned() } else { tier }
}

fn flag(members: &Members<'_>, name: &'static str) -> Result<Option<bool>, Problem> {
    match members.get(name).map(Raw::get) {
        None | Some("null") => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Problem::invalid(name, format!("`{name}` must be true or false"))),
    }
}

fn text(value: Raw<'_>) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The outgoing members, in order, and what was left out.
struct Edit<'a> {
    /// Gathers how the conversation begins, where its client does not name it.
    beginning: Option<Beginning>,
    out: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    ignored: Vec<&'static str>,
}

impl<'a> Edit<'a> {
    fn new(is_nameless: bool) -> Self {
        Self { beginning: is_nameless.then(Beginning::new), out: Vec::new(), ignored: Vec::new() }
    }

    /// Has the prompt cache know the conversation by how it begins, and gives that name.
    fn name_conversation(&mut self) -> Option<String> {
        let name = self.beginning.take()?.name()?;
        self.put("prompt_cache_key", json!(name).to_string());
        Some(name)
    }

    fn members(
        &mut self,
        members: &Members<'a>,
        codex_cli: bool,
        slug: &str,
        effort: Option<&str>,
    ) -> Result<(), Problem> {
        for (key, value) in members.0.iter().map(|(key, value)| (key, *value)) {
            match key.as_ref() {
                "model" => self.put("model", json!(slug).to_string()),
                "reasoning" if effort.is_some() => {}
                _ if codex_cli => self.keep(key.clone(), value),
                "stream" | "store" | "include" => {}
                name if is_refused(name, value) => return Err(refusal(name)),
                name if REFUSED.iter().any(|(refused, _)| *refused == name) => {}
                "input" => self.input(value)?,
                // The backend does not take it; the answer is cut on its way down.
                "max_output_tokens" => {}
                // For the response object alone.
                "metadata" => check_metadata(value)?,
                "tools" => self.tools(value),
                "service_tier" => self.service_tier(value),
                "instructions" if value.get() == "null" => {}
                "prompt_cache_key" if self.beginning.is_some() => {}
                "instructions" => {
                    if let Some(beginning) = &mut self.beginning {
                        beginning.add(value.get().as_bytes(), false);
                    }
                    self.keep(key.clone(), value);
                }
                name => match DROPPED.iter().find(|dropped| **dropped == name) {
                    Some(dropped) if value.get() != "null" => self.ignored.push(dropped),
                    Some(_) => {}
                    None => self.keep(key.clone(), value),
                },
            }
        }
        if let Some(effort) = effort {
            self.effort(members.get("reasoning"), effort);
        }
        if !codex_cli {
            if members.get("input").is_none() {
                return Err(Problem::invalid("input", "`input` is required"));
            }
            self.include(members.get("include"))?;
            self.put("stream", "true".to_owned());
            self.put("store", "false".to_owned());
        }
        Ok(())
    }

    fn put(&mut self, name: &'static str, value: String) {
        self.out.push((Cow::Borrowed(name), Cow::Owned(value)));
    }

    fn keep(&mut self, name: impl Into<Cow<'a, str>>, value: Raw<'a>) {
        self.out.push((name.into(), Cow::Borrowed(value.get())));
    }

    /// A string becomes a message; `system` becomes `developer`; references to what nobody keeps go.
    fn input(&mut self, value: Raw<'a>) -> Result<(), Problem> {
        if let Some(said) = text(value) {
            let message =
                json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}]);
            let message = message.to_string();
            if let Some(beginning) = &mut self.beginning {
                beginning.add(message.as_bytes(), true);
            }
            self.put("input", message);
            return Ok(());
        }
        let items =
            value.elements().map_err(|_| Problem::invalid("input", "`input` must be a string or a list of items"))?;
        let mut edited = Vec::with_capacity(items.len());
        let mut changed = false;
        for item in items {
            let outline = Outline::of(item);
            self.note_beginning(item, outline.as_ref());
            match self.item(item, outline.as_ref())? {
                Item::Same => edited.push(Cow::Borrowed(item.get())),
                Item::Edited(text) => {
                    changed = true;
                    edited.push(Cow::Owned(text));
                }
                Item::Gone => changed = true,
            }
        }
        if changed {
            self.put("input", format!("[{}]", edited.join(",")));
        } else {
            self.keep("input", value);
        }
        Ok(())
    }

    fn note_beginning(&mut self, item: Raw<'_>, outline: Option<&Outline<'_>>) {
        let Some(beginning) = &mut self.beginning else { return };
        match outline {
            // Not its id, which may be another one with each turn.
            Some(Outline { role: Some(role), content: Some(content), .. }) => {
                beginning.add(content, role == "user");
            }
            _ => beginning.add(item.get().as_bytes(), false),
        }
    }

    /// Items are looked into only when they hold something that may need an edit.
    fn item(&mut self, item: Raw<'_>, outline: Option<&Outline<'_>>) -> Result<Item, Problem> {
        static CACHE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("cache_"));
        let raw = item.get();
        if !raw.starts_with('{') {
            return Err(Problem::invalid("input", "each item of `input` must be an object"));
        }
        let is_plain = |outline: &Outline<'_>| {
            outline.role.as_deref() != Some("system") && outline.kind.as_deref() != Some("item_reference")
        };
        if outline.is_some_and(is_plain) && CACHE.find(raw.as_bytes()).is_none() {
            return Ok(Item::Same);
        }
        let mut tree: Map<String, Value> = serde_json::from_str(raw)
            .map_err(|_| Problem::invalid("input", "each item of `input` must be an object"))?;
        if tree.get("type").and_then(Value::as_str) == Some("item_reference") {
            // The backend keeps nothing that it could refer to (protocol.md 2.4).
            if !self.ignored.contains(&"input[].item_reference") {
                self.ignored.push("input[].item_reference");
            }
            return Ok(Item::Gone);
        }
        let mut changed = false;
        if tree.get("role").and_then(Value::as_str) == Some("system") {
            tree.insert("role".to_owned(), json!("developer"));
            changed = true;
        }
        if let Some(Value::Array(parts)) = tree.get_mut("content") {
            for part in parts.iter_mut().filter_map(Value::as_object_mut) {
                changed |= part.remove("prompt_cache_breakpoint").is_some() | part.remove("cache_control").is_some();
            }
        }
        Ok(if changed { Item::Edited(Value::Object(tree).to_string()) } else { Item::Same })
    }

    /// The preview's name of the hosted search is an older spelling. The other tools keep their
    /// bytes: the order of a schema's properties is the order in which the model fills them.
    fn tools(&mut self, value: Raw<'a>) {
        const OLDER: &str = "web_search_preview";
        let Ok(tools) = value.elements() else { return self.keep("tools", value) };
        let renamed = |tool: &Raw<'a>| -> Option<String> {
            let mut tool: Map<String, Value> =
                tool.get().contains(OLDER).then(|| serde_json::from_str(tool.get()).ok())??;
            let is_older = tool.get("type").and_then(Value::as_str).is_some_and(|kind| kind.starts_with(OLDER));
            tool.insert("type".to_owned(), json!("web_search"));
            is_older.then(|| Value::Object(tool).to_string())
        };
        let edited: Vec<Option<String>> = tools.iter().map(renamed).collect();
        if edited.iter().all(Option::is_none) {
            return self.keep("tools", value);
        }
        let tools = tools.iter().zip(&edited).map(|(tool, edited)| edited.as_deref().unwrap_or(tool.get()));
        self.put("tools", format!("[{}]", tools.collect::<Vec<_>>().join(",")));
    }

    /// The backend knows one tier besides its default; `fast` is that tier's name among people.
    fn service_tier(&mut self, value: Raw<'a>) {
        match text(value).as_deref() {
            Some("priority" | "fast") => self.put("service_tier", "\"priority\"".to_owned()),
            Some("auto" | "default") | None => {}
            Some(_) => self.ignored.push("service_tier"),
        }
    }

    fn include(&mut self, value: Option<Raw<'_>>) -> Result<(), Problem> {
        let asked: Option<Vec<String>> = match value {
            None => None,
            Some(value) => serde_json::from_str(value.get())
                .map_err(|_| Problem::invalid("include", "`include` must be a list of strings"))?,
        };
        let mut include = asked.unwrap_or_default();
        if !include.iter().any(|name| name == ENCRYPTED_REASONING) {
            include.push(ENCRYPTED_REASONING.to_owned());
        }
        self.put("include", json!(include).to_string());
        Ok(())
    }

    /// The alias's effort, unless the request names its own.
    fn effort(&mut self, value: Option<Raw<'_>>, effort: &str) {
        let mut reasoning: Map<String, Value> =
            value.and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default();
        if reasoning.get("effort").is_none_or(Value::is_null) {
            reasoning.insert("effort".to_owned(), json!(effort));
        }
        self.put("reasoning", Value::Object(reasoning).to_string());
    }

    fn finish(&self, size: usize) -> Bytes {
        let mut body = String::with_capacity(size + 256);
        for (name, value) in &self.out {
            body.push(if body.is_empty() { '{' } else { ',' });
            quote(name, &mut body);
            body.push(':');
            body.push_str(value);
        }
        body.push('}');
        Bytes::from(body)
    }
}

/// What stands in an item.
#[derive(Default, Deserialize)]
struct Outline<'a> {
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type", deserialize_with = "crate::codex::text::borrowed")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "written")]
    content: Option<&'a [u8]>,
}

impl<'a> Outline<'a> {
    /// `None` for an item that is not made so.
    fn of(item: Raw<'a>) -> Option<Self> {
        Self::skim(item.get().as_bytes()).or_else(|| serde_json::from_str(item.get()).ok())
    }

    fn skim(item: &'a [u8]) -> Option<Self> {
        let mut outline = Self::default();
        skim::members(item, |name, value| {
            let before = match name {
                _ if value == b"null" => return Some(()),
                b"role" => outline.role.replace(skim::text(value)?).is_some(),
                b"type" => outline.kind.replace(skim::text(value)?).is_some(),
                b"content" => outline.content.replace(value).is_some(),
                _ => false,
            };
            (!before).then_some(())
        })?;
        Some(outline)
    }
}

/// A value's bytes.
fn written<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a [u8]>, D::Error> {
    Ok(Option::<Raw<'_>>::deserialize(deserializer)?.map(|value| value.get().as_bytes()))
}

enum Item {
    Same,
    Edited(String),
    Gone,
}

fn is_refused(name: &str, value: Raw<'_>) -> bool {
    !matches!(value.get(), "null" | "false") && REFUSED.iter().any(|(refused, _)| *refused == name)
}

fn refusal(name: &str) -> Problem {
    let reason = REFUSED.iter().find(|(refused, _)| *refused == name).map_or("", |(_, reason)| *reason);
    Problem { code: Some("unsupported_parameter".to_owned()), ..Problem::invalid(name, reason) }
}

/// Makes the translators of a Responses answer.
struct ResponsesReply {
    codex_cli: bool,
    context: Context,
    model: String,
    echo: Arc<Echo>,
    limit: Option<Limit>,
}

/// How long the answer may be.
#[derive(Clone, Copy)]
struct Limit {
    tokens: u64,
    /// About how many tokens the request has.
    input: u64,
}

impl Limit {
    fn bound(self) -> Bound {
        Bound::new(self.tokens, self.input)
    }
}

impl Reply for ResponsesReply {
    fn stream(&self) -> Box<dyn Translator> {
        // A Codex CLI reads no request out of the response object.
        let echo = if self.codex_cli { Arc::default() } else { Arc::clone(&self.echo) };
        let inner = Passthrough::new(&self.context, &self.model, echo, !self.codex_cli);
        match self.limit {
            None => Box::new(inner),
            Some(limit) => Box::new(BoundedStream { inner, bound: limit.bound(), is_cut: false }),
        }
    }

    fn whole(&self) -> Box<dyn Folder> {
        let inner = Whole::new(Arc::clone(&self.echo));
        match self.limit {
            None => Box::new(inner),
            Some(limit) => Box::new(BoundedWhole { inner, bound: limit.bound(), is_cut: false }),
        }
    }

    fn counts_tokens(&self) -> bool {
        self.limit.is_some()
    }

    fn announced(&self) -> Option<String> {
        let object = json!({"status": "queued", "usage": null}).to_string();
        self.echo.apply(&serde_json::from_str(&object).ok()?, Vec::new())
    }
}
