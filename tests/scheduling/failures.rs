//! The table in docs/failures.md, written from the table in the code.

use std::fmt::Write as _;
use tollway::account::pool::remedy::{Consequence, Remedy, Same, Then, remedy};
use tollway::codex::FailureKind;

const BEGIN: &str = "<!-- the table: written from the code -->\n";
const END: &str = "<!-- the end of the table -->\n";

#[test]
fn the_table_of_failures_is_the_one_in_the_code() {
    let mut table = String::from(
        "| failure | how the backend shows it | first, on the same account | the account | the request, before its first byte |\n|---|---|---|---|---|\n",
    );
    for kind in FailureKind::ALL {
        let Remedy { same, account, then } = remedy(kind);
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | {} |",
            kind.as_str(),
            shown(kind),
            on_the_same(same),
            of_the_account(account),
            of_the_request(then),
        );
    }
    crate::page::check_part("docs/failures.md", BEGIN, END, &table);
}

fn shown(kind: FailureKind) -> &'static str {
    use FailureKind as K;
    match kind {
        K::Unauthorized => "401; `token_invalidated`, `token_expired`, `token_revoked`, `account_deactivated`",
        K::Forbidden => "403, as a rule a page of Cloudflare's",
        K::UsageLimit => {
            "`usage_limit_reached`, `insufficient_quota`, `credit_balance_exhausted` and the spend limits; 402; 429 with a window at 100 %"
        }
        K::NotIncluded => "`usage_not_included`",
        K::ModelNotOffered => "400 “… is not supported when using Codex with a ChatGPT account”",
        K::RateLimited => "`rate_limit_exceeded`, `slow_down`; any other 429",
        K::Overloaded => "`server_is_overloaded`; 503, 529; a failed response that says so in words",
        K::ServerError => "`server_error`, `internal_server_error`; 5xx; an answer that is none",
        K::Connection => "No connection, or one that broke before the head of the answer",
        K::Timeout => "No head within `backend.first_byte_timeout`, nor a first event; 408, 504",
        K::StreamCut => "A stream that ends without a final event, or an event in it that is not legible",
        K::ContextLength => "`context_length_exceeded`, or in words",
        K::Policy => "`cyber_policy`, `bio_policy`, `misalignment_policy_violation`, `content_policy_violation`",
        K::BadRequest => "`invalid_prompt`; any other 4xx",
        K::ForeignReasoning => "`invalid_encrypted_content`",
    }
}

fn on_the_same(same: Same) -> &'static str {
    match same {
        Same::No => "–",
        Same::Refresh => "The token is refreshed, and the request sent again, once",
        Same::StripReasoning => "Encrypted reasoning is left out, and the request sent again, once",
        Same::Again => "Sent again once, after a pause, if no other account may serve",
    }
}

fn of_the_account(consequence: Consequence) -> &'static str {
    match consequence {
        Consequence::None => "Nothing: it is not to blame",
        Consequence::Counted => "Its circuit breaker counts it",
        Consequence::Cool => {
            "Left alone (`cooling`) for the delay that was named, at most an hour, else for `accounts.default_cooldown`"
        }
        Consequence::Limit => {
            "Aside (`limited`) until the reset that was named, else for `accounts.default_limit`; only the model (`model_limited`) where the backend names a family of its own"
        }
        Consequence::CloseModel => "Not asked for this model for an hour",
        Consequence::CloseAccount => "Aside for an hour",
        Consequence::Quarantine => "Out of use (`needs_login`, or `quarantined` if the refreshed token is refused too)",
    }
}

fn of_the_request(then: Then) -> &'static str {
    match then {
        Then::NextFree => "The next account, at once; counts against no budget",
        Then::Next => "The next account, within the budgets",
        Then::GiveUp => "Its client is told",
    }
}
