//! Anthropic's client tools: the client runs them, but names only a version, for Anthropic's models
//! know the schema. The backend's do not, so it is told what the version means.

use serde_json::value::RawValue;
use serde_json::{Value, json};

/// What a tool does and takes.
pub(super) struct ClientTool {
    pub(super) description: &'static str,
    schema: Value,
}

impl ClientTool {
    pub(super) fn parameters(&self) -> Box<RawValue> {
        serde_json::value::to_raw_value(&self.schema).unwrap_or_default()
    }
}

const BASH: &str = "Run a command in a bash shell that keeps its state between calls, or restart that shell.";

const EDITOR: &str = "View, create and edit files. `view` shows a file with line numbers, or what is in a directory; \
    `create` writes a whole file; `str_replace` replaces `old_str`, which must occur exactly once, by `new_str`; \
    `insert` puts text after line `insert_line`, 0 being the beginning of the file.";

const MEMORY: &str = "Keep notes between conversations as files under /memories. Look there before you begin, and \
    write down what will matter later. `view` shows a file or what is in a directory; `create` writes a whole file; \
    `str_replace` replaces `old_str` by `new_str`; `insert` puts text after a line; `delete` and `rename` work on \
    files and directories.";

/// The client tool of this type and version; `None` for all others.
pub(super) fn of(kind: &str) -> Option<ClientTool> {
    let known = |description, schema| Some(ClientTool { description, schema });
    match kind {
        "bash_20241022" | "bash_20250124" => known(BASH, bash()),
        "text_editor_20241022" | "text_editor_20250124" => known(EDITOR, editor("new_str", true)),
        "text_editor_20250429" => known(EDITOR, editor("new_str", false)),
        "text_editor_20250728" => known(EDITOR, editor("insert_text", false)),
        "memory_20250818" => known(MEMORY, memory()),
        _ => None,
    }
}

fn bash() -> Value {
    json!({ "type": "object", "properties": {
        "command": { "type": "string", "description": "The command; left out with `restart`." },
        "restart": { "type": "boolean", "description": "Whether to restart the shell." },
    } })
}

/// `inserted` names the text of `insert`, which changed from version to version.
fn editor(inserted: &str, can_undo: bool) -> Value {
    let mut commands = vec!["view", "create", "str_replace", "insert"];
    commands.extend(can_undo.then_some("undo_edit"));
    let mut schema = json!({ "type": "object", "properties": {
        "command": { "type": "string", "enum": commands },
        "path": { "type": "string", "description": "The absolute path of a file or directory." },
        "file_text": { "type": "string", "description": "For `create`: the content of the file." },
        "old_str": { "type": "string", "description": "For `str_replace`: what is to be replaced." },
        "new_str": { "type": "string", "description": "For `str_replace`: what stands in its place." },
        "insert_line": { "type": "integer", "description": "For `insert`: the line after which to insert." },
        "view_range": {
            "type": "array", "items": { "type": "integer" },
            "description": "For `view` of a file: the first and the last line, -1 being the end.",
        },
    }, "required": ["command", "path"] });
    schema["properties"][inserted] = if inserted == "new_str" {
        json!({ "type": "string", "description": "For `str_replace` and `insert`: the new text." })
    } else {
        json!({ "type": "string", "description": "For `insert`: the text to insert." })
    };
    schema
}

fn memory() -> Value {
    let mut schema = editor("insert_text", false);
    schema["properties"]["command"]["enum"] = json!(["view", "create", "str_replace", "insert", "delete", "rename"]);
    schema["properties"]["path"]["description"] = json!("A path under /memories; left out with `rename`.");
    schema["properties"]["old_path"] = json!({ "type": "string", "description": "For `rename`: the present path." });
    schema["properties"]["new_path"] = json!({ "type": "string", "description": "For `rename`: the new path." });
    schema["required"] = json!(["command"]);
    schema
}
