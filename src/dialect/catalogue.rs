//! Model lists in the shapes that clients expect, from the backend's catalogue (protocol.md 6.2, 7).

use super::ModelMap;
use serde::{Deserialize, Serialize};

/// What the lists say of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// What a request names.
    pub id: String,
    /// For people.
    pub display_name: String,
}

/// The models of a catalogue that people may choose, in its order, then the aliases that lead to one.
pub fn models(catalogue: &[u8], aliases: &ModelMap) -> Result<Vec<Model>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Catalogue {
        models: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        slug: String,
        #[serde(default)]
        display_name: Option<String>,
        #[serde(default)]
        visibility: Option<String>,
        #[serde(default)]
        priority: Option<i64>,
    }
    let mut entries = serde_json::from_slice::<Catalogue>(catalogue)?.models;
    entries.sort_by_key(|entry| entry.priority.unwrap_or(i64::MAX));
    let mut list: Vec<Model> = entries
        .iter()
        .filter(|entry| entry.visibility.as_deref().is_none_or(|v| v == "list"))
        .map(|entry| Model {
            id: entry.slug.clone(),
            display_name: entry.display_name.clone().unwrap_or_else(|| entry.slug.clone()),
        })
        .collect();
    for (name, target) in aliases.names() {
        let known = entries.iter().any(|entry| entry.slug == target.slug);
        if known && list.iter().all(|model| model.id != name) {
            list.push(Model { id: name.to_owned(), display_name: format!("{name} ({})", target.slug) });
        }
    }
    Ok(list)
}

/// How many tokens a request to this model may have.
pub fn context_window(catalogue: &[u8], slug: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Catalogue {
        models: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        slug: String,
        #[serde(default)]
        context_window: Option<u64>,
    }
    let models = serde_json::from_slice::<Catalogue>(catalogue).ok()?.models;
    models.into_iter().find(|entry| entry.slug == slug)?.context_window
}

/// The catalogue gives no dates; clients want one. This one is the API's own epoch for "unknown".
const CREATED: i64 = 0;
const CREATED_AT: &str = "1970-01-01T00:00:00Z";

#[derive(Serialize)]
struct OpenAiModel<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
}

impl<'a> From<&'a Model> for OpenAiModel<'a> {
    fn from(model: &'a Model) -> Self {
        Self { id: &model.id, object: "model", created: CREATED, owned_by: "openai" }
    }
}

#[derive(Serialize)]
struct AnthropicModel<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: &'static str,
}

impl<'a> From<&'a Model> for AnthropicModel<'a> {
    fn from(model: &'a Model) -> Self {
        Self { kind: "model", id: &model.id, display_name: &model.display_name, created_at: CREATED_AT }
    }
}

/// `GET /v1/models` as OpenAI answers it.
pub fn openai_list(models: &[Model]) -> String {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<OpenAiModel<'a>>,
    }
    json(&List { object: "list", data: models.iter().map(Into::into).collect() })
}

/// `GET /v1/models/{id}` as OpenAI answers it.
pub fn openai_model(model: &Model) -> String {
    json(&OpenAiModel::from(model))
}

/// `GET /v1/models` as Anthropic answers it, in one page.
pub fn anthropic_list(models: &[Model]) -> String {
    #[derive(Serialize)]
    struct List<'a> {
        data: Vec<AnthropicModel<'a>>,
        has_more: bool,
        first_id: Option<&'a str>,
        last_id: Option<&'a str>,
    }
    json(&List {
        data: models.iter().map(Into::into).collect(),
        has_more: false,
        first_id: models.first().map(|m| m.id.as_str()),
        last_id: models.last().map(|m| m.id.as_str()),
    })
}

/// `GET /v1/models/{id}` as Anthropic answers it.
pub fn anthropic_model(model: &Model) -> String {
    json(&AnthropicModel::from(model))
}

fn json(value: &impl Serialize) -> String {
    // These types have no map keys and no custom serialisers, so this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATALOGUE: &[u8] = br#"{"models":[{"slug":"b","priority":2,"visibility":"list"},{"slug":"hidden","visibility":"hide","priority":0},{"slug":"a","display_name":"A","priority":1}]}"#;

    #[test]
    fn a_list_has_what_people_may_choose_and_the_aliases_that_lead_there() {
        let aliases = ModelMap::new([("fast", "b"), ("gone", "c"), ("claude-*", "a")]);
        let ids: Vec<_> = models(CATALOGUE, &aliases).expect("legible").into_iter().map(|m| m.id).collect();
        assert_eq!(ids, ["a", "b", "fast"]);
    }

    #[test]
    fn each_dialect_has_its_shape() {
        let list = models(CATALOGUE, &ModelMap::default()).expect("legible");
        assert!(openai_list(&list).starts_with(r#"{"object":"list","data":[{"id":"a","object":"model""#));
        assert!(anthropic_list(&list).contains(r#""has_more":false,"first_id":"a","last_id":"b""#));
    }
}
