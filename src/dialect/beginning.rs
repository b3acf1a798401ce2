//! How a conversation begins: its instructions and everything up to its first user message. Clients
//! that do not name their conversations repeat that part with every turn, so that it names them.

use crate::codex::request::{InputItem, Request, Role};
use aws_lc_rs::digest;

/// So much of each part counts, bytes: a prompt of 200 KB takes as long to hash as to translate, and
/// conversations that begin alike for so long have their prompt cache in common anyway.
const PART: usize = 16 * 1024;

/// Gathers a beginning.
pub(in crate::dialect) struct Beginning {
    hash: digest::Context,
    is_complete: bool,
}

impl Beginning {
    /// Nothing yet.
    pub(in crate::dialect) fn new() -> Self {
        Self { hash: digest::Context::new(&digest::SHA256), is_complete: false }
    }

    /// The next part, unless the first user message was there already. `is_user` says whether this
    /// is one.
    pub(in crate::dialect) fn add(&mut self, part: &[u8], is_user: bool) {
        if !self.is_complete {
            let part = &part[..part.len().min(PART)];
            self.hash.update(&part.len().to_be_bytes());
            self.hash.update(part);
            self.is_complete = is_user;
        }
    }

    /// Whether more parts would change nothing.
    pub(in crate::dialect) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// A name for the conversation, in the form of a UUID; none while no user has said anything.
    pub(in crate::dialect) fn name(self) -> Option<String> {
        let digest = self.hash.finish();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_ref()[..16]);
        self.is_complete.then(|| uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string())
    }

    /// The name of a translated request's conversation.
    pub(in crate::dialect) fn of(request: &Request) -> Option<String> {
        let mut beginning = Self::new();
        beginning.add(request.instructions.as_deref().unwrap_or_default().as_bytes(), false);
        for item in &request.input {
            let is_user = matches!(item, InputItem::Message { role: Role::User, .. });
            let mut part = Vec::new();
            item.cut(PART).as_ref().unwrap_or(item).write(&mut part);
            beginning.add(&part, is_user);
            if beginning.is_complete() {
                break;
            }
        }
        beginning.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::request::InputPart;

    fn message(role: Role, text: &str) -> InputItem {
        InputItem::Message { role, content: vec![InputPart::InputText { text: text.to_owned() }] }
    }

    fn name(turns: &[(Role, &str)]) -> Option<String> {
        let mut request = Request::new("m");
        request.instructions = Some("be brief".to_owned());
        request.input = turns.iter().map(|(role, text)| message(*role, text)).collect();
        Beginning::of(&request)
    }

    #[test]
    fn later_turns_do_not_change_the_name_and_the_first_one_does() {
        let first = name(&[(Role::Developer, "d"), (Role::User, "hello")]);
        assert!(first.as_ref().is_some_and(|name| name.len() == 36));
        let grown = [(Role::Developer, "d"), (Role::User, "hello"), (Role::Assistant, "hi"), (Role::User, "more")];
        assert_eq!(first, name(&grown));
        assert_ne!(first, name(&[(Role::Developer, "d"), (Role::User, "hello there")]));
        assert_ne!(first, name(&[(Role::Developer, "dh"), (Role::User, "ello")]));
    }

    #[test]
    fn of_a_long_part_the_beginning_counts() {
        let long = |last: &str| format!("{}{last}", "x".repeat(PART));
        assert_eq!(name(&[(Role::User, &long("a"))]), name(&[(Role::User, &long("b"))]));
        assert!(name(&[(Role::User, &long("a"))]).is_some());
        assert_ne!(name(&[(Role::User, &"x".repeat(PART - 200))]), name(&[(Role::User, &"x".repeat(PART - 201))]));
        assert_ne!(
            name(&[(Role::Developer, &long("")), (Role::User, "a")]),
            name(&[(Role::Developer, &long("")), (Role::User, "b")])
        );
    }

    #[test]
    fn without_a_user_there_is_no_conversation() {
        assert_eq!(name(&[(Role::Developer, "d")]), None);
    }
}
