//! One test a shape, and one table for what is refused.

use secrecy::ExposeSecret;
use serde_json::json;

use super::super::testing::{access_token, jwt};
use super::*;

fn parsed(value: &Value) -> Result<Vec<Enrolment>, AuthJsonError> {
    parse(value.to_string().as_bytes())
}

fn refused(value: &Value) -> AuthJsonError {
    parsed(value).err().unwrap()
}

#[test]
fn the_codex_clis_file_gives_one_login() {
    let file = json!({
        "auth_mode": "chatgpt", "OPENAI_API_KEY": null,
        "tokens": {"id_token": jwt(&json!({"email": "ada@work.example"})),
                   "access_token": access_token("acc-jwt", "user-1", 50),
                   "refresh_token": "rt_1", "account_id": "acc-file"},
        "last_refresh": "2026-11-23T13:18:45.748571331Z",
    });

    let login = parsed(&file).unwrap().remove(0);

    assert_eq!(login.chatgpt_account_id, "acc-file");
    assert_eq!(login.chatgpt_user_id.as_deref(), Some("user-1"));
    assert_eq!(login.email.as_deref(), Some("ada@work.example"));
    assert_eq!(login.plan.as_deref(), Some("team"));
    assert_eq!(login.refresh_token.expose_secret(), "rt_1");
    assert_eq!(login.access_expires_at, Some(50_000));
}

#[test]
fn without_a_mode_and_an_account_id_the_token_says_it() {
    let file = json!({"tokens": {"access_token": access_token("acc-jwt", "u", 1),
                                 "refresh_token": "rt", "account_id": null}});

    assert_eq!(parsed(&file).unwrap()[0].chatgpt_account_id, "acc-jwt");
}

#[test]
fn tokens_beside_an_api_key_are_a_login() {
    let file = json!({"OPENAI_API_KEY": "sk-1", "tokens": {
        "access_token": access_token("a", "u", 1), "refresh_token": "rt"}});

    assert_eq!(parsed(&file).unwrap().len(), 1);
}

#[test]
fn codexias_file_gives_the_codex_login_and_leaves_the_other_providers() {
    let login = json!({"provider": "codex", "access_token": "opaque", "refresh_token": "rt",
                       "expires_at": 1_790_781_392, "account_id": "acc-1"});
    let file = json!({"version": 2, "active_provider": "grok",
                      "providers": {"codex": login, "grok": {"access_token": "g"}}});

    let enrolled = parsed(&file).unwrap();

    assert_eq!(enrolled.len(), 1);
    assert_eq!(enrolled[0].chatgpt_account_id, "acc-1");
    assert_eq!(enrolled[0].access_expires_at, Some(1_790_781_392_000));
    assert_eq!(parsed(&login).unwrap()[0].chatgpt_account_id, "acc-1");
}

#[test]
fn lists_give_every_entry_in_order_and_expiry_in_either_unit() {
    let entries = json!([
        {"access_token": "a", "refresh_token": "r", "account_id": "one", "email": "a@b.c",
         "expires_at": 1_790_781_392_000_i64},
        {"tokens": {"access_token": "a", "refresh_token": "r"}, "account_id": "two",
         "expires": 1_790_781_392},
    ]);

    for file in [entries.clone(), json!({ "accounts": entries })] {
        let logins = parsed(&file).unwrap();

        assert_eq!(logins[0].chatgpt_account_id, "one");
        assert_eq!(logins[0].email.as_deref(), Some("a@b.c"));
        assert_eq!(logins[1].chatgpt_account_id, "two");
        assert!(logins.iter().all(|l| l.access_expires_at == Some(1_790_781_392_000)));
    }
}

#[test]
fn what_is_no_refreshable_chatgpt_login_is_refused_by_its_kind() {
    let tokens = |refresh: Value| json!({"access_token": "a", "refresh_token": refresh, "account_id": "x"});
    let other = |name: &str| AuthJsonError::OtherProvider(name.into());
    for (file, error) in [
        (json!({"OPENAI_API_KEY": "sk-1"}), AuthJsonError::ApiKey),
        (json!({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-1", "tokens": null}), AuthJsonError::ApiKey),
        (json!({"auth_mode": "chatgptAuthTokens", "tokens": tokens(json!(""))}), AuthJsonError::ExternalTokens),
        (json!({"agent_identity": {"id": 1}}), AuthJsonError::AgentIdentity),
        (json!({"auth_mode": "personal_access_token"}), AuthJsonError::PersonalAccessToken),
        (json!({"auth_mode": "chatgpt", "tokens": tokens(json!(""))}), AuthJsonError::NoRefreshToken),
        (tokens(Value::Null), AuthJsonError::NoRefreshToken),
        (json!({"tokens": {"refresh_token": "r"}}), AuthJsonError::NoAccessToken),
        (json!({"access_token": "a", "refresh_token": "r"}), AuthJsonError::NoAccountId),
        (json!({"provider": "grok", "access_token": "a"}), other("grok")),
        (json!({"providers": {"grok": {}}}), other("grok")),
        (json!({"accounts": []}), AuthJsonError::NoEntries),
        (json!({"hello": 1}), AuthJsonError::UnknownShape),
        (json!("text"), AuthJsonError::UnknownShape),
    ] {
        assert_eq!(refused(&file), error, "{file}");
    }
}

#[test]
fn a_faulty_entry_is_named_by_its_position() {
    let file = json!([
        {"access_token": "a", "refresh_token": "r", "account_id": "one"},
        {"access_token": "a", "refresh_token": "", "account_id": "two"},
    ]);

    let error = refused(&file).to_string();

    assert!(error.starts_with("entry 2 of the file: the refresh token is missing"), "{error}");
}

#[test]
fn a_broken_file_is_located_and_not_quoted() {
    let error = parse(b"{\n  \"tokens\": rt_secret }").err().unwrap();

    assert_eq!(error.to_string(), "the file is not JSON (line 2, column 13)");
}
