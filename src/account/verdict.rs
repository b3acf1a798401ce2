//! What the operator is told when an account stops working: plain words and what to do.

use super::snapshot::Standing;
use crate::store::{AccountState, UnixMillis};

/// A standing that this process has found out itself. It holds for one credential set; newer
/// credentials make it void.
#[derive(Clone)]
pub(super) struct Verdict {
    pub(super) generation: i64,
    pub(super) standing: Standing,
}

/// The backend refuses a token that the issuer has just made.
pub(super) const UNAUTHORIZED_AFTER_REFRESH: &str = "unauthorized_after_refresh";

/// Whoever was sending the refresh token died or stood still before the outcome was stored.
pub(super) const INTERRUPTED: &str = "refresh_interrupted";

/// Somebody has used a refresh token before us.
pub(super) const REUSED: &str = "refresh_token_reused";

/// What to do in every case.
const LOG_IN: &str = "Log in again with `tollway account login`.";

impl Verdict {
    /// A permanent refusal of the issuer. `doubtful`: an earlier exchange of the same token ended
    /// without an answer, so that we may have used it up ourselves.
    pub(super) fn needs_login(
        generation: i64,
        code: &str,
        message: Option<&str>,
        doubtful: bool,
        now: UnixMillis,
    ) -> Self {
        let mut detail = words(code, doubtful);
        if let Some(message) = message {
            detail = format!("{detail} (The issuer's words: {message})");
        }
        Self::of(generation, AccountState::NeedsLogin, code, detail, now)
    }

    /// A refresh was begun, and whoever made it has not come back.
    pub(super) fn interrupted(generation: i64, now: UnixMillis) -> Self {
        let detail = format!(
            "A refresh of this account was cut off: the server or command that made it was killed, or stood \
             still for long, before the outcome was stored. The refresh token may be used up, and sending it \
             again could look like theft to the issuer, so it is not sent again. {LOG_IN} To try it once \
             all the same: `tollway account refresh NAME --resend`."
        );
        Self::of(generation, AccountState::NeedsLogin, INTERRUPTED, detail, now)
    }

    /// The backend refuses what the issuer has just renewed.
    pub(super) fn quarantined(generation: i64, reason: &str, now: UnixMillis) -> Self {
        let detail = "The backend refuses this account's access token although the issuer has \
             just renewed it; renewing once more would not help. Check that the account can use \
             Codex at chatgpt.com, then try `tollway account refresh`, or log in again with \
             `tollway account login`."
            .to_owned();
        Self::of(generation, AccountState::Quarantined, reason, detail, now)
    }

    fn of(generation: i64, state: AccountState, reason: &str, detail: String, now: UnixMillis) -> Self {
        Self {
            generation,
            standing: Standing { state, reason: Some(reason.to_owned()), detail: Some(detail), since: now },
        }
    }
}

/// lessons.md 16: two holders of one refresh token break each other, and most people who meet
/// this do not know that there are two.
fn words(code: &str, doubtful: bool) -> String {
    match code {
        REUSED if doubtful => format!(
            "The refresh token has been used already. Probably Tollway's own earlier refresh did \
             reach the issuer and its answer was lost on the way; it may also be that somebody \
             else holds a copy of these credentials. {LOG_IN}"
        ),
        REUSED => "Somebody else holds a copy of these credentials and has used the refresh token: \
             most often an auth.json that is still in use, for example ~/.codex/auth.json on a \
             laptop. Log in again with `tollway account login`, and remove the copy or give its \
             holder a login of their own; two holders of one login log each other out."
            .to_owned(),
        "refresh_token_expired" | "token_expired" | "account_session_expired" => {
            format!("The login has expired. {LOG_IN}")
        }
        "refresh_token_invalidated" | "token_invalidated" | "app_session_terminated" => format!(
            "The login was ended at the issuer (signed out, password changed, or replaced by a \
             newer login). {LOG_IN}"
        ),
        "account_deactivated" | "account_suspended" | "account_deleted" => {
            "The ChatGPT account is deactivated, suspended or deleted. A new login will help only \
             when that is settled."
                .to_owned()
        }
        _ => format!("The issuer no longer accepts the refresh token. {LOG_IN}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(code: &str, doubtful: bool) -> String {
        Verdict::needs_login(1, code, None, doubtful, 0).standing.detail.unwrap()
    }

    #[test]
    fn a_reused_token_is_explained_by_its_other_holder_and_what_to_do() {
        let detail = detail(REUSED, false);

        assert!(detail.starts_with("Somebody else holds a copy of these credentials"));
        for part in ["~/.codex/auth.json", "tollway account login", "remove the copy"] {
            assert!(detail.contains(part), "{part}");
        }
    }

    #[test]
    fn after_a_lost_answer_a_reused_token_is_probably_our_own_doing() {
        let detail = detail(REUSED, true);

        assert!(detail.contains("Probably Tollway's own earlier refresh"));
        assert!(detail.contains("somebody else holds a copy"));
    }

    #[test]
    fn a_refresh_that_was_cut_off_is_told_with_both_ways_out() {
        let standing = Verdict::interrupted(1, 0).standing;

        assert_eq!((standing.state, standing.reason.as_deref()), (AccountState::NeedsLogin, Some(INTERRUPTED)));
        let detail = standing.detail.unwrap();
        for part in ["was cut off", "not sent again", "tollway account login", "account refresh NAME --resend"] {
            assert!(detail.contains(part), "{part}");
        }
    }

    #[test]
    fn every_verdict_names_its_code_and_says_what_to_do() {
        for code in ["refresh_token_expired", "token_invalidated", "account_deleted", "unauthorized"] {
            let verdict = Verdict::needs_login(1, code, Some("bye"), false, 0);

            assert_eq!(verdict.standing.reason.as_deref(), Some(code));
            let detail = verdict.standing.detail.unwrap();
            assert!(detail.contains("login") && detail.ends_with("(The issuer's words: bye)"));
        }
    }
}
