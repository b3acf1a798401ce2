//! Model lists in the shapes that clients expect, from the backend's catalogue (protocol.md 6.2, 7).

pub use super::model::Slugs;

use super::ModelMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the lists say of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// What a request names.
    pub id: String,
    /// For people.
    pub display_name: String,
    /// Whether lists show it; one that they do not show can be asked for by name.
    pub listed: bool,
}

/// The slugs of a catalogue.
pub fn slugs(catalogue: &[u8]) -> Result<Slugs, serde_json::Error> {
    let models = serde_json::from_slice::<Raw<'_>>(catalogue)?.models;
    let slugs: Result<BTreeSet<_>, _> = models.into_iter().map(|model| Ok(named(model)?.slug)).collect();
    slugs.map(Arc::new)
}

/// Several catalogues as one: every model once, as the first that has it describes it, by priority.
pub fn merge(catalogues: &[&[u8]]) -> Result<String, serde_json::Error> {
    let mut seen = BTreeSet::new();
    let mut models = Vec::new();
    for catalogue in catalogues {
        for model in serde_json::from_slice::<Raw<'_>>(catalogue)?.models {
            let Named { slug, priority } = named(model)?;
            if seen.insert(slug) {
                models.push((priority.unwrap_or(i64::MAX), model.get()));
            }
        }
    }
    models.sort_by_key(|(priority, _)| *priority);
    let models: Vec<_> = models.into_iter().map(|(_, model)| model).collect();
    Ok(format!("{{\"models\":[{}]}}", models.join(",")))
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    models: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named {
    slug: String,
    #[serde(default)]
    priority: Option<i64>,
}

fn named(model: &RawValue) -> Result<Named, serde_json::Error> {
    serde_json::from_str(model.get())
}

/// The models of a catalogue in its order, then the aliases that lead to one.
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
        .map(|entry| Model {
            listed: entry.visibility.as_deref().is_none_or(|v| v == "list"),
            id: entry.slug.clone(),
            display_name: entry.display_name.clone().unwrap_or_else(|| entry.slug.clone()),
        })
        .collect();
    for (name, target) in aliases.names() {
        let known = entries.iter().any(|entry| entry.slug == target.slug);
        if known && list.iter().all(|model| model.id != name) {
            let display_name = format!("{name} ({})", target.slug);
            list.push(Model { id: name.to_owned(), display_name, listed: true });
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
    json(&List { object: "list", data: models.iter().filter(|m| m.listed).map(Into::into).collect() })
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
    let models: Vec<_> = models.iter().filter(|m| m.listed).collect();
    json(&List {
        data: models.iter().map(|model| AnthropicModel::from(*model)).collect(),
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
        let ids: Vec<_> = models(CATALOGUE, &aliases)
            .expect("legible")
            .into_iter()
            .filter(|model| model.listed)
            .map(|model| model.id)
            .collect();
        assert_eq!(ids, ["a", "b", "fast"]);
    }

    #[test]
    fn merged_catalogues_have_each_model_once_by_priority_and_to_the_byte() {
        let other =
            br#"{"models":[{"slug":"c","priority":0, "new":{"k":1}},{"slug":"a","display_name":"B","priority":9}]}"#;
        let merged = merge(&[CATALOGUE, other]).expect("legible");
        let names: Vec<_> = slugs(merged.as_bytes()).expect("legible").iter().cloned().collect();
        assert_eq!(names, ["a", "b", "c", "hidden"]);
        assert!(merged.contains(r#"{"slug":"c","priority":0, "new":{"k":1}}"#));
        assert!(merged.contains(r#""display_name":"A""#) && !merged.contains(r#""display_name":"B""#));
        assert!(merged.find("\"c\"") < merged.find("\"b\""));
    }

    #[test]
    fn each_dialect_has_its_shape() {
        let list = models(CATALOGUE, &ModelMap::default()).expect("legible");
        assert!(openai_list(&list).starts_with(r#"{"object":"list","data":[{"id":"a","object":"model""#));
        assert!(anthropic_list(&list).contains(r#""has_more":false,"first_id":"a","last_id":"b""#));
    }
}
