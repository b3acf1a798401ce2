//! Refresh-token families, access tokens and authorisation codes: the rules of rotation.
//!
//! Pure: times are handed in as Unix seconds, tokens are minted by the caller. Knows accounts
//! only by their id.

use std::collections::HashMap;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

/// Where a refresh token stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// The one that works.
    Live,
    /// Exchanged already; using it again is a reuse.
    Used,
    /// Taken back, alone or with its family.
    Revoked,
    /// Past its life.
    Expired,
}

/// A refresh token: its account, its login (family) and its standing.
#[derive(Debug, Clone)]
pub(crate) struct RefreshToken {
    /// Whose it is.
    pub(crate) account: String,
    /// The login it descends from.
    pub(crate) family: u64,
    /// Whether it works.
    pub(crate) standing: Standing,
}

/// Why a refresh was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Never heard of it.
    Unknown,
    /// It was exchanged before.
    Reused,
    /// It, or its family, was taken back.
    Invalidated,
    /// Past its life.
    Expired,
}

/// Why an access token does not open the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    /// Never heard of it.
    Unknown,
    /// Its `exp` has passed.
    Expired,
    /// `invalidate_access` was called.
    Invalidated,
    /// The login was revoked.
    Revoked,
}

#[derive(Debug, Clone)]
struct AccessToken {
    account: String,
    expires_at: i64,
    shut: Option<Shut>,
}

/// A login waiting to be exchanged.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    /// Who logged in.
    pub(crate) account: String,
    /// S256 challenge.
    pub(crate) challenge: String,
    /// The exact redirect, or none when only its path counts (device login).
    pub(crate) redirect_uri: String,
    /// Unix seconds.
    pub(crate) expires_at: i64,
    /// Whether `offline_access` was asked for.
    pub(crate) offline: bool,
}

/// All tokens there are.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    refresh: HashMap<String, RefreshToken>,
    access: HashMap<String, AccessToken>,
    codes: HashMap<String, Code>,
    families: u64,
}

impl Grants {
    /// Starts a login: a first refresh token in a family of its own.
    pub(crate) fn login(&mut self, account: &str, token: String) {
        self.families += 1;
        let family = self.families;
        self.refresh.insert(token, RefreshToken { account: account.to_owned(), family, standing: Standing::Live });
    }

    /// Notes an access token.
    pub(crate) fn admit(&mut self, account: &str, token: String, expires_at: i64) {
        self.access.insert(token, AccessToken { account: account.to_owned(), expires_at, shut: None });
    }

    /// What is known of a refresh token.
    pub(crate) fn known(&self, token: &str) -> Option<&RefreshToken> {
        self.refresh.get(token)
    }

    /// Exchanges `old` for `new`. A second use of `old` is refused, and takes the whole family
    /// with it when `punish` is set.
    pub(crate) fn rotate(&mut self, old: &str, new: String, punish: bool) -> Result<(), Refused> {
        let Some(held) = self.refresh.get_mut(old) else {
            return Err(Refused::Unknown);
        };
        match held.standing {
            Standing::Live => {
                held.standing = Standing::Used;
                let successor = RefreshToken { standing: Standing::Live, ..held.clone() };
                self.refresh.insert(new, successor);
                Ok(())
            }
            Standing::Used => {
                let family = held.family;
                if punish {
                    self.end(|token| token.family == family, Standing::Revoked);
                }
                Err(Refused::Reused)
            }
            Standing::Revoked => Err(Refused::Invalidated),
            Standing::Expired => Err(Refused::Expired),
        }
    }

    /// Gives every live refresh token that `chosen` picks another standing.
    pub(crate) fn end(&mut self, chosen: impl Fn(&RefreshToken) -> bool, standing: Standing) {
        let live = self.refresh.values_mut().filter(|token| token.standing == Standing::Live);
        for token in live.filter(|token| chosen(token)) {
            token.standing = standing;
        }
    }

    /// Takes back one refresh token, as `/oauth/revoke` does; gives its account.
    pub(crate) fn revoke(&mut self, token: &str) -> Option<String> {
        if let Some(held) = self.refresh.get_mut(token) {
            held.standing = Standing::Revoked;
            return Some(held.account.clone());
        }
        let held = self.access.get_mut(token)?;
        held.shut = Some(Shut::Revoked);
        Some(held.account.clone())
    }

    /// Makes every access token of an account stop working.
    pub(crate) fn shut(&mut self, account: &str, why: Shut) {
        for token in self.access.values_mut().filter(|token| token.account == account) {
            token.shut = Some(why);
        }
    }

    /// The account an access token opens now.
    pub(crate) fn open(&self, token: &str, now: i64) -> Result<&str, (Shut, Option<&str>)> {
        let Some(held) = self.access.get(token) else {
            return Err((Shut::Unknown, None));
        };
        match held.shut {
            Some(why) => Err((why, Some(&held.account))),
            None if held.expires_at <= now => Err((Shut::Expired, Some(&held.account))),
            None => Ok(&held.account),
        }
    }

    /// The refresh tokens of an account with this standing.
    pub(crate) fn refresh_tokens(&self, account: &str, standing: Standing) -> Vec<&str> {
        let mut found: Vec<&str> = self
            .refresh
            .iter()
            .filter(|(_, token)| token.account == account && token.standing == standing)
            .map(|(text, _)| text.as_str())
            .collect();
        found.sort_unstable();
        found
    }

    /// How many access tokens of an account work now.
    pub(crate) fn open_access_tokens(&self, account: &str, now: i64) -> usize {
        let works = |token: &&AccessToken| token.account == account && token.shut.is_none() && token.expires_at > now;
        self.access.values().filter(works).count()
    }

    /// Notes an authorisation code.
    pub(crate) fn issue_code(&mut self, text: String, code: Code) {
        self.codes.insert(text, code);
    }

    /// Uses up a code. It is gone whatever the answer: one try each.
    pub(crate) fn redeem(
        &mut self,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
        now: i64,
    ) -> Result<Code, &'static str> {
        let held = self.codes.remove(code).ok_or("authorization code is unknown or was used before")?;
        if held.expires_at <= now {
            return Err("authorization code has expired");
        }
        if held.redirect_uri != redirect_uri {
            return Err("redirect_uri does not match the authorization request");
        }
        if challenge(verifier) != held.challenge {
            return Err("code_verifier does not match the code_challenge");
        }
        Ok(held)
    }
}

/// The S256 challenge of a verifier (RFC 7636).
pub(crate) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_login() -> Grants {
        let mut grants = Grants::default();
        grants.login("ada", "r1".into());
        grants
    }

    #[test]
    fn each_refresh_kills_the_token_before_it() {
        let mut grants = one_login();
        assert_eq!(grants.rotate("r1", "r2".into(), true), Ok(()));
        assert_eq!(grants.refresh_tokens("ada", Standing::Live), ["r2"]);
        assert_eq!(grants.refresh_tokens("ada", Standing::Used), ["r1"]);
    }

    #[test]
    fn reuse_revokes_the_family_but_no_other_login() {
        let mut grants = one_login();
        grants.login("ada", "other".into());
        grants.rotate("r1", "r2".into(), true).unwrap();
        assert_eq!(grants.rotate("r1", "r3".into(), true), Err(Refused::Reused));
        assert_eq!(grants.rotate("r2", "r4".into(), true), Err(Refused::Invalidated));
        assert_eq!(grants.rotate("r1", "r5".into(), true), Err(Refused::Reused));
        assert_eq!(grants.refresh_tokens("ada", Standing::Live), ["other"]);
    }

    #[test]
    fn without_punishment_the_current_token_survives_a_reuse() {
        let mut grants = one_login();
        grants.rotate("r1", "r2".into(), false).unwrap();
        assert_eq!(grants.rotate("r1", "r3".into(), false), Err(Refused::Reused));
        assert_eq!(grants.rotate("r2", "r4".into(), false), Ok(()));
        assert_eq!(grants.rotate("nobody", "r5".into(), true), Err(Refused::Unknown));
    }

    #[test]
    fn access_tokens_expire_and_can_be_shut() {
        let mut grants = one_login();
        grants.admit("ada", "a1".into(), 100);
        assert_eq!(grants.open("a1", 99), Ok("ada"));
        assert_eq!(grants.open("a1", 100), Err((Shut::Expired, Some("ada"))));
        grants.shut("ada", Shut::Invalidated);
        assert_eq!(grants.open("a1", 99), Err((Shut::Invalidated, Some("ada"))));
        assert_eq!(grants.open("zz", 99), Err((Shut::Unknown, None)));
    }

    #[test]
    fn a_code_needs_its_verifier_its_redirect_and_its_first_use() {
        // The pair of RFC 7636, appendix B.
        let (verifier, expected) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(challenge(verifier), expected);
        let code = Code {
            account: "ada".into(),
            challenge: expected.into(),
            redirect_uri: "u".into(),
            expires_at: 10,
            offline: true,
        };
        let attempt = |verifier: &str, redirect: &str, now: i64| {
            let mut grants = Grants::default();
            grants.issue_code("c".into(), code.clone());
            let first = grants.redeem("c", verifier, redirect, now).map(|code| code.account);
            (first, grants.redeem("c", verifier, redirect, now).is_err())
        };
        assert_eq!(attempt(verifier, "u", 9), (Ok("ada".to_owned()), true));
        assert!(attempt("wrong", "u", 9).0.unwrap_err().contains("code_verifier"));
        assert!(attempt(verifier, "v", 9).0.unwrap_err().contains("redirect_uri"));
        assert!(attempt(verifier, "u", 10).0.unwrap_err().contains("expired"));
    }
}
