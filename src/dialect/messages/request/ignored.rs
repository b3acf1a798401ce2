//! What a request may ask for and the backend cannot do: one table, which is also the page in
//! docs/compatibility-messages.md.

use std::collections::BTreeSet;

pub(in crate::dialect::messages) const BLOCKED_DOMAINS: &str = "tools.blocked_domains";
pub(in crate::dialect::messages) const BLOCK_TYPE: &str = "messages.content.type";
pub(in crate::dialect::messages) const EFFORT: &str = "output_config.effort";
pub(in crate::dialect::messages) const FORMAT_STRICT: &str = "output_config.format.strict";
pub(in crate::dialect::messages) const MAX_USES: &str = "tools.max_uses";
pub(in crate::dialect::messages) const SIGNATURE: &str = "messages.content.signature";
pub(in crate::dialect::messages) const TASK_BUDGET: &str = "output_config.task_budget";
pub(in crate::dialect::messages) const TOOL_STRICT: &str = "tools.strict";
pub(in crate::dialect::messages) const TOOL_TYPE: &str = "tools.type";
pub(in crate::dialect::messages) const UNKNOWN: &str = "unknown-fields";

/// Each name that `x-tollway-ignored` can carry, and why.
pub(in crate::dialect::messages) const TABLE: [(&str, &str); 29] = [
    ("cache_control", "the backend caches by itself"),
    ("container", "there is no code execution container"),
    ("context_management", "the backend refuses it; Claude Code compacts by itself"),
    ("inference_geo", "decided by the account's workspace"),
    ("mcp_servers", "the backend does not connect to MCP servers"),
    (BLOCK_TYPE, "a block of a type that is not known and has no text"),
    (SIGNATURE, "thinking that another provider signed, which the backend cannot read"),
    (EFFORT, "a word that is no effort"),
    (FORMAT_STRICT, "a schema outside the strict subset; the model is asked to follow it all the same"),
    (TASK_BUDGET, "the backend has no such budget"),
    ("safeguards", "the backend applies its own"),
    ("service_tier", "tiers are not the same"),
    ("speed", "tiers are not the same"),
    ("temperature", "the backend refuses it"),
    (BLOCKED_DOMAINS, "the backend's search has only a list of allowed domains"),
    (MAX_USES, "the backend's search has no such limit"),
    (TOOL_STRICT, "a schema outside the strict subset; arguments are not checked against it"),
    (TOOL_TYPE, "a tool that Anthropic's servers run, or whose schema only its models know"),
    ("top_k", "the backend has no such parameter"),
    ("top_p", "the backend refuses it"),
    ("user_profile_id", "known to Anthropic only"),
    ("betas", "known to Anthropic only"),
    ("billing_policy", "the accounts are ChatGPT's, which are not billed by use"),
    ("compaction", "the backend does not compact; Claude Code does so by itself"),
    ("diagnostics", "known to Anthropic only"),
    ("fallback_credit_token", "known to Anthropic only"),
    ("fallbacks", "the model is the one that is named"),
    ("workspace_id", "decided by the account"),
    (UNKNOWN, "fields that this version does not know"),
];

/// What one request asked for in vain.
#[derive(Debug, Default)]
pub(super) struct Ignored(BTreeSet<&'static str>);

impl Ignored {
    /// Adds one of the table's names.
    pub(super) fn add(&mut self, name: &'static str) {
        self.0.insert(name);
    }

    /// Adds a field of the top level.
    pub(super) fn add_field(&mut self, name: &str) {
        self.add(TABLE.iter().find(|(known, _)| *known == name).map_or(UNKNOWN, |(known, _)| known));
    }

    pub(super) fn into_names(self) -> Vec<&'static str> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_table_says() {
        let page = include_str!("../../../../docs/compatibility-messages.md");
        let section = page.split("\n## ").find(|section| section.starts_with("Ignored")).expect("the section");
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = TABLE.iter().map(|(name, why)| format!("| `{name}` | {why} |")).collect();
        assert_eq!(rows, expected);
    }
}
