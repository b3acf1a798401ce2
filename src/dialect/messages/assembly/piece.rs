//! What an item says, a piece at a time.

use crate::dialect::messages::frames::{Citation, SearchError, SearchHit, SearchResults};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// A piece of an item; borrowed from the event when it can be written at once.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Text, or a refusal's words, of this part of a message.
    Text { part: u32, text: Cow<'a, str> },
    /// A source of the text before it.
    Citation(Citation),
    /// Reasoning to show, of this part.
    Thinking { part: u32, text: Cow<'a, str> },
    /// The encrypted reasoning, if the backend gave one.
    Signature(Option<Cow<'a, str>>),
    /// Arguments of a call; empty text only opens the block.
    Input(Cow<'a, str>),
    /// A search that the backend ran, whole.
    Search(Box<Search>),
    /// An image that the backend made, whole.
    Image(Image),
}

/// An image, base64.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) media_type: String,
    pub(super) data: String,
}

impl Piece<'_> {
    /// The piece, able to wait.
    pub(super) fn into_owned(self) -> Piece<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Text { part, text } => Piece::Text { part, text: own(text) },
            Self::Citation(citation) => Piece::Citation(citation),
            Self::Thinking { part, text } => Piece::Thinking { part, text: own(text) },
            Self::Signature(encrypted) => Piece::Signature(encrypted.map(own)),
            Self::Input(text) => Piece::Input(own(text)),
            Self::Search(search) => Piece::Search(search),
            Self::Image(image) => Piece::Image(image),
        }
    }
}

/// A search as Anthropic's clients see it.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) id: String,
    /// `{"query":…}` as JSON text.
    pub(super) input: String,
    pub(super) results: SearchResults,
}

impl Search {
    /// What a `web_search_call` item says. A page that was opened counts as a search for its
    /// address; an action that names nothing is not worth a block.
    pub(super) fn of(id: String, status: Option<&str>, action: Option<&Value>) -> Option<Self> {
        let action = action?;
        let text = |name: &str| action.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let first_query = || action.get("queries")?.get(0)?.as_str();
        let query = text("query").or_else(first_query).or_else(|| text("url"))?;
        let results = if status == Some("failed") {
            SearchResults::Failed(SearchError { kind: "web_search_tool_result_error", error_code: "unavailable" })
        } else {
            let sources = action.get("sources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            SearchResults::Found(sources.iter().filter_map(hit).collect())
        };
        Some(Self { id, input: serde_json::json!({ "query": query }).to_string(), results })
    }
}

fn hit(source: &Value) -> Option<SearchHit> {
    let url = source.get("url")?.as_str()?;
    let title = source.get("title").and_then(Value::as_str).unwrap_or(url);
    Some(SearchHit {
        kind: "web_search_result",
        url: url.to_owned(),
        title: title.to_owned(),
        encrypted_content: "",
        page_age: None,
    })
}

/// The citation in an annotation; other kinds of annotation have no counterpart.
pub(super) fn citation(annotation: &str) -> Option<Citation> {
    #[derive(Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Annotation {
        UrlCitation {
            url: String,
            #[serde(default)]
            title: Option<String>,
        },
        #[serde(other)]
        Other,
    }
    match serde_json::from_str(annotation).ok()? {
        Annotation::UrlCitation { url, title } => Some(Citation::web(url, title)),
        Annotation::Other => None,
    }
}
