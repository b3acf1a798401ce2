//! From the model a client names to the slug and effort that go upstream.

/// What a client's model name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedModel {
    /// The slug that goes upstream.
    pub slug: String,
    /// The effort that the alias carries, unless the request names its own.
    pub effort: Option<String>,
}

/// Aliases: exact names, and patterns that end in `*`. The longest match wins; a name without a
/// match goes upstream as it is, for the backend knows its models best.
#[derive(Debug, Clone, Default)]
pub struct ModelMap {
    aliases: Vec<(String, ResolvedModel)>,
}

/// What some clients put before the slug to choose a provider.
const PROVIDER_PREFIXES: [&str; 2] = ["openai-codex/", "openai/"];

impl ModelMap {
    /// Builds the map from `(pattern, "slug" | "slug:effort")`.
    pub fn new<K: Into<String>, V: AsRef<str>>(aliases: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut aliases: Vec<_> = aliases
            .into_iter()
            .map(|(pattern, target)| {
                let target = target.as_ref();
                let (slug, effort) = target.split_once(':').map_or((target, None), |(s, e)| (s, Some(e.to_owned())));
                (pattern.into(), ResolvedModel { slug: slug.to_owned(), effort })
            })
            .collect();
        // Exact names before patterns, longer patterns before shorter ones.
        aliases.sort_by_key(|(pattern, _)| (pattern.ends_with('*'), std::cmp::Reverse(pattern.len())));
        Self { aliases }
    }

    /// What `requested` means.
    pub fn resolve(&self, requested: &str) -> ResolvedModel {
        let name = PROVIDER_PREFIXES.iter().find_map(|p| requested.strip_prefix(p)).unwrap_or(requested);
        self.aliases
            .iter()
            .find(|(pattern, _)| match pattern.strip_suffix('*') {
                Some(stem) => name.starts_with(stem),
                None => name == pattern,
            })
            .map_or_else(|| ResolvedModel { slug: name.to_owned(), effort: None }, |(_, model)| model.clone())
    }

    /// The exact names, for model lists.
    pub fn names(&self) -> impl Iterator<Item = (&str, &ResolvedModel)> {
        self.aliases.iter().filter(|(pattern, _)| !pattern.ends_with('*')).map(|(name, model)| (name.as_str(), model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_wins_and_the_rest_passes() {
        let map =
            ModelMap::new([("claude-*", "gpt-6.1-sol"), ("claude-haiku*", "gpt-6-luna:low"), ("fast", "gpt-6-luna")]);
        let slug = |name: &str| map.resolve(name).slug;
        assert_eq!(slug("claude-opus-5"), "gpt-6.1-sol");
        assert_eq!(
            map.resolve("claude-haiku-4-5"),
            ResolvedModel { slug: "gpt-6-luna".into(), effort: Some("low".into()) }
        );
        assert_eq!(slug("fast"), "gpt-6-luna");
        assert_eq!(slug("openai-codex/gpt-5.5"), "gpt-5.5");
        assert_eq!(slug("whatever"), "whatever");
    }
}
