//! `encrypted_content` that only the account it was made for can bring back.
//!
//! Pure and stateless, so that a restarted simulator still opens what it sealed.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const HEAD: &str = "gAAAAAB";
const NONCE: usize = 16;

/// Seals something for a workspace; `nonce` is 16 characters.
pub(crate) fn seal(chatgpt_account_id: &str, nonce: &str) -> String {
    format!("{HEAD}{nonce}{}", tag(chatgpt_account_id, nonce))
}

/// Whether `sealed` was made for this workspace.
pub(crate) fn opens(chatgpt_account_id: &str, sealed: &str) -> bool {
    let parts = sealed.strip_prefix(HEAD).and_then(|rest| rest.split_at_checked(NONCE));
    parts.is_some_and(|(nonce, given)| given == tag(chatgpt_account_id, nonce))
}

fn tag(chatgpt_account_id: &str, nonce: &str) -> String {
    let text = format!("codex-sim|{chatgpt_account_id}|{nonce}");
    // Twice, to be about as long as the short ones of the real backend.
    let digest = digest::digest(&digest::SHA512, text.as_bytes());
    URL_SAFE_NO_PAD.encode([digest.as_ref(), digest.as_ref()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_account_opens_it() {
        let sealed = seal("acc-1", "0123456789abcdef");
        assert!(opens("acc-1", &sealed));
        assert!(!opens("acc-2", &sealed));
        assert!(!opens("acc-1", "gAAAAABshort"));
    }
}
