//! From the model a client names to the slug and effort that go upstream.

use std::collections::BTreeSet;
use std::sync::Arc;

/// What a client's model name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedModel {
    /// The slug that goes upstream.
    pub slug: String,
    /// The effort that the name carries, unless the request names its own.
    pub effort: Option<String>,
}

impl ResolvedModel {
    /// Reads `slug` or `slug:effort`.
    fn read(target: &str) -> Self {
        let (slug, effort) = target.split_once(':').map_or((target, None), |(s, e)| (s, Some(e.to_owned())));
        Self { slug: slug.to_owned(), effort }
    }
}

/// The slugs that one account's catalogue has.
pub type Slugs = Arc<BTreeSet<String>>;

/// What names mean: aliases, the models that are served, and what stands in for the others.
///
/// A name is looked up in this order, the first that fits: an exact alias; a served model; either of
/// them with an effort behind it (`gpt-5.5-high`); an alias that ends in `*`, the longest first; the
/// name as it is. Where the catalogues are known, a model that none of them has becomes the fallback,
/// if there is one; else it goes upstream, for the backend knows its models best.
#[derive(Debug, Clone, Default)]
pub struct ModelMap {
    /// Exact names before patterns, longer patterns before shorter ones.
    aliases: Arc<[(String, ResolvedModel)]>,
    fallback: Option<ResolvedModel>,
    /// The catalogues of the accounts that may serve; `None` where one of them is not known.
    served: Option<Arc<[Slugs]>>,
}

/// What some clients put before the slug to choose a provider.
const PROVIDER_PREFIXES: [&str; 2] = ["openai-codex/", "openai/"];

/// What may stand behind a name. The last two end the names of models too (`gpt-5.1-codex-max`), so
/// they count only behind a name that is known.
const EFFORTS: [&str; 8] = ["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"];
const AMBIGUOUS: [&str; 2] = ["max", "ultra"];

impl ModelMap {
    /// Builds the map from `(pattern, "slug" | "slug:effort")`.
    pub fn new<K: Into<String>, V: AsRef<str>>(aliases: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut aliases: Vec<_> =
            aliases.into_iter().map(|(name, target)| (name.into(), ResolvedModel::read(target.as_ref()))).collect();
        aliases.sort_by_key(|(pattern, _)| (pattern.ends_with('*'), std::cmp::Reverse(pattern.len())));
        Self { aliases: aliases.into(), ..Self::default() }
    }

    /// With a model, `slug` or `slug:effort`, for names that are not served.
    #[must_use]
    pub fn with_fallback(self, target: Option<&str>) -> Self {
        Self { fallback: target.filter(|target| !target.is_empty()).map(ResolvedModel::read), ..self }
    }

    /// The same map for accounts with these catalogues; `None` where not all are known.
    #[must_use]
    pub fn serving(&self, served: Option<Arc<[Slugs]>>) -> Self {
        Self { served, ..self.clone() }
    }

    /// What `requested` means.
    pub fn resolve(&self, requested: &str) -> ResolvedModel {
        let name = PROVIDER_PREFIXES.iter().find_map(|p| requested.strip_prefix(p)).unwrap_or(requested);
        let meant = self.meaning(name);
        let is_missing = self.served.as_ref().is_some_and(|_| !self.is_served(&meant.slug));
        match &self.fallback {
            Some(fallback) if is_missing => fallback.clone(),
            _ => meant,
        }
    }

    /// What a target, `slug` or `slug:effort`, means.
    pub fn host(&self, target: &str) -> ResolvedModel {
        let ResolvedModel { slug, effort } = ResolvedModel::read(target);
        let meant = self.resolve(&slug);
        ResolvedModel { effort: effort.or(meant.effort), slug: meant.slug }
    }

    fn meaning(&self, name: &str) -> ResolvedModel {
        let plain = |slug: &str, effort: Option<&str>| ResolvedModel {
            slug: slug.to_owned(),
            effort: effort.map(str::to_owned),
        };
        if let Some(model) = self.named(name) {
            return model;
        }
        let suffixed = name.rsplit_once('-').filter(|(stem, effort)| !stem.is_empty() && EFFORTS.contains(effort));
        if let Some((stem, effort)) = suffixed
            && let Some(model) = self.named(stem)
        {
            return plain(&model.slug, Some(effort));
        }
        let suffixed = suffixed.filter(|(_, effort)| !AMBIGUOUS.contains(effort));
        let pattern = |(pattern, _): &&(String, ResolvedModel)| {
            pattern.strip_suffix('*').is_some_and(|stem| name.starts_with(stem))
        };
        match (self.aliases.iter().find(pattern), suffixed) {
            (Some((_, model)), Some((_, effort))) => plain(&model.slug, Some(effort)),
            (Some((_, model)), None) => model.clone(),
            (None, Some((stem, effort))) if self.served.is_none() => plain(stem, Some(effort)),
            (None, _) => plain(name, None),
        }
    }

    /// An exact alias, or a model that is served.
    fn named(&self, name: &str) -> Option<ResolvedModel> {
        let exact = self.aliases.iter().find(|(alias, _)| !alias.ends_with('*') && alias == name);
        exact
            .map(|(_, model)| model.clone())
            .or_else(|| self.is_served(name).then(|| ResolvedModel { slug: name.to_owned(), effort: None }))
    }

    fn is_served(&self, slug: &str) -> bool {
        self.served.iter().flat_map(|all| all.iter()).any(|slugs| slugs.contains(slug))
    }

    /// The exact names, for model lists.
    pub fn names(&self) -> impl Iterator<Item = (&str, &ResolvedModel)> {
        self.aliases.iter().filter(|(pattern, _)| !pattern.ends_with('*')).map(|(name, model)| (name.as_str(), model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ModelMap {
        ModelMap::new([("claude-*", "gpt-6.1-sol"), ("claude-haiku*", "gpt-6-luna:low"), ("fast", "gpt-6-luna")])
    }

    fn served(map: &ModelMap, slugs: &[&str]) -> ModelMap {
        let slugs: Slugs = Arc::new(slugs.iter().map(|slug| (*slug).to_owned()).collect());
        map.serving(Some([slugs].into()))
    }

    fn resolve(map: &ModelMap, name: &str) -> (String, Option<String>) {
        let ResolvedModel { slug, effort } = map.resolve(name);
        (slug, effort)
    }

    fn model(slug: &str, effort: &str) -> (String, Option<String>) {
        (slug.to_owned(), (!effort.is_empty()).then(|| effort.to_owned()))
    }

    #[test]
    fn the_longest_match_wins_and_the_rest_passes() {
        for (name, slug, effort) in [
            ("claude-opus-5", "gpt-6.1-sol", ""),
            ("claude-haiku-4-5", "gpt-6-luna", "low"),
            ("fast", "gpt-6-luna", ""),
            ("openai-codex/gpt-5.5", "gpt-5.5", ""),
            ("openai/fast", "gpt-6-luna", ""),
            ("whatever", "whatever", ""),
        ] {
            assert_eq!(resolve(&map(), name), model(slug, effort), "{name}");
        }
    }

    #[test]
    fn an_effort_may_stand_behind_a_name() {
        let known = served(&map(), &["gpt-5.5", "gpt-5.1-codex-max", "gpt-6-low"]);
        for (name, slug, effort) in [
            ("gpt-5.5-high", "gpt-5.5", "high"),
            ("openai-codex/gpt-5.5-ultra", "gpt-5.5", "ultra"),
            ("fast-xhigh", "gpt-6-luna", "xhigh"),
            ("claude-haiku-4-5-high", "gpt-6-luna", "high"),
            ("gpt-5.1-codex-max", "gpt-5.1-codex-max", ""),
            ("gpt-6-low", "gpt-6-low", ""),
            ("unheard-of-high", "unheard-of-high", ""),
        ] {
            assert_eq!(resolve(&known, name), model(slug, effort), "{name}");
        }
    }

    #[test]
    fn without_catalogues_only_what_is_surely_an_effort_is_taken_for_one() {
        assert_eq!(resolve(&map(), "gpt-5.5-high"), model("gpt-5.5", "high"));
        assert_eq!(resolve(&map(), "gpt-5.1-codex-max"), model("gpt-5.1-codex-max", ""));
    }

    #[test]
    fn the_fallback_stands_in_only_for_what_is_known_not_to_be_served() {
        let map = map().with_fallback(Some("gpt-5.5:low"));
        assert_eq!(resolve(&map, "gpt-4o"), model("gpt-4o", ""));
        let known = served(&map, &["gpt-5.5", "gpt-6-luna"]);
        assert_eq!(resolve(&known, "gpt-4o"), model("gpt-5.5", "low"));
        assert_eq!(resolve(&known, "claude-opus-5"), model("gpt-5.5", "low"));
        assert_eq!(resolve(&known, "fast"), model("gpt-6-luna", ""));
    }
}
