//! The model catalogue of protocol.md 7, in the backend's shape (protocol.md 6.2).
//!
//! Data only; the prompt texts are our own.

use serde_json::{Value, json};

/// One row of the catalogue.
#[derive(Debug)]
pub(crate) struct Model {
    /// The name requests use.
    pub(crate) slug: &'static str,
    priority: u32,
    /// Normal and largest context window, in tokens.
    windows: (u32, u32),
    /// How many of [`EFFORTS`] it supports, from the lowest.
    efforts: usize,
    default_effort: &'static str,
    listed: bool,
    /// Whether the priority tier exists, and whether it is the default.
    tier: Option<bool>,
    upgrade: Option<&'static str>,
    /// Full-shape requests instead of Responses Lite.
    pub(crate) classic: bool,
}

const EFFORTS: [&str; 6] = ["low", "medium", "high", "xhigh", "max", "ultra"];

const WIDE: (u32, u32) = (272_000, 872_000);

const fn model(
    slug: &'static str,
    priority: u32,
    windows: (u32, u32),
    efforts: usize,
    default_effort: &'static str,
) -> Model {
    Model {
        slug,
        priority,
        windows,
        efforts,
        default_effort,
        listed: true,
        tier: Some(false),
        upgrade: None,
        classic: false,
    }
}

/// Every model, by priority.
pub(crate) static MODELS: [Model; 12] = [
    model("gpt-6.1-sol", 1, WIDE, 6, "low"),
    model("gpt-6-astra", 2, WIDE, 6, "low"),
    Model { tier: Some(true), ..model("gpt-6-sol", 3, WIDE, 6, "medium") },
    Model { tier: Some(true), ..model("gpt-6-luna", 4, WIDE, 5, "medium") },
    Model { upgrade: Some("gpt-6-sol"), ..model("gpt-5.6-sol", 5, WIDE, 6, "low") },
    model("gpt-6.1-terra", 7, (500_000, 872_000), 6, "low"),
    Model { upgrade: Some("gpt-6-sol"), ..model("gpt-5.6-terra", 8, WIDE, 6, "medium") },
    Model { upgrade: Some("gpt-6-luna"), ..model("gpt-5.6-luna", 9, WIDE, 5, "medium") },
    Model { listed: false, tier: None, ..model("gpt-daybreak-blue-latest", 11, WIDE, 6, "low") },
    Model { listed: false, tier: None, ..model("gpt-daybreak-red-latest", 12, (372_000, 372_000), 6, "medium") },
    Model { upgrade: Some("gpt-6-sol"), classic: true, ..model("gpt-5.5", 13, (272_000, 272_000), 4, "medium") },
    Model { listed: false, ..model("codex-auto-review", 43, WIDE, 5, "medium") },
];

/// Changes whenever the catalogue does; also sent as `x-models-etag`.
pub(crate) const ETAG: &str = "W/\"sim-models-1\"";

/// The model called `slug`.
pub(crate) fn find(slug: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.slug == slug)
}

impl Model {
    /// The reasoning efforts it takes.
    pub(crate) fn efforts(&self) -> &'static [&'static str] {
        &EFFORTS[..self.efforts]
    }

    /// The backend's `ModelInfo`.
    pub(crate) fn info(&self) -> Value {
        let levels: Vec<Value> = self
            .efforts()
            .iter()
            .map(|effort| json!({"effort": effort, "description": format!("Simulated {effort} effort")}))
            .collect();
        let tiers = self
            .tier
            .map_or(json!([]), |_| json!([{"id":"priority","name":"Fast","description":"Simulated fast tier"}]));
        let mut info = json!({
            "slug": self.slug, "display_name": self.slug, "description": format!("Simulated {}", self.slug),
            "default_reasoning_level": self.default_effort, "supported_reasoning_levels": levels,
            "shell_type": "unified_exec", "visibility": if self.listed { "list" } else { "hide" },
            "supported_in_api": true, "priority": self.priority,
            "additional_speed_tiers": if self.tier.is_some() { json!(["fast"]) } else { json!([]) },
            "service_tiers": tiers, "availability_nux": null,
            "upgrade": self.upgrade.map(|to| json!({"model": to, "migration_markdown": format!("Try {to}.")})),
            "base_instructions": "You are a simulated coding agent.", "model_messages": null,
            "default_reasoning_summary": "none", "support_verbosity": true, "default_verbosity": "low",
            "apply_patch_tool_type": "freeform", "web_search_tool_type": "text_and_image",
            "truncation_policy": {"mode": "tokens", "limit": 10000}, "supports_image_detail_original": true,
        });
        let more = json!({
            "context_window": self.windows.0, "max_context_window": self.windows.1, "comp_hash": "sim-1",
            "effective_context_window_percent": 95, "experimental_supported_tools": [],
            "input_modalities": ["text", "image"], "supports_search_tool": true,
            "supports_experimental_context": false, "use_responses_lite": !self.classic,
            "supports_reasoning_effort_updates": !self.classic,
            "node_repl_auto_review_required": true, "node_repl_disabled": false,
        });
        merge(&mut info, more);
        if self.tier == Some(true) {
            merge(&mut info, json!({"default_service_tier": "priority"}));
        }
        if !self.classic {
            merge(&mut info, json!({"tool_mode": "code_mode_only", "multi_agent_version": "v2"}));
        }
        info
    }
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(target), Value::Object(source)) = (into, from) {
        target.extend(source);
    }
}

/// The body of `GET /codex/models` for an account that may use `allowed` (all when `None`).
pub(crate) fn listing(allowed: Option<&[String]>) -> Value {
    let may = |model: &&Model| allowed.is_none_or(|list| list.iter().any(|slug| slug == model.slug));
    json!({"models": MODELS.iter().filter(may).map(Model::info).collect::<Vec<_>>()})
}
