//! A browser login as a value; protocol.md 1.2. It ends either at the callback listener or with
//! an address that a person pastes.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use secrecy::{ExposeSecret, SecretString};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::client::OAuthClient;
use super::error::{LoginError, clean_message};
use super::pkce::{LoginEntropy, Pkce};

/// What the code exchange needs. Single use.
pub struct AuthorizationCode {
    /// From the callback, or from the device poll.
    pub code: SecretString,
    /// Proves that the exchange belongs to the login.
    pub verifier: SecretString,
    /// The one that was in the authorize URL, to the letter.
    pub redirect_uri: String,
}

/// A browser login that waits for its callback.
pub struct PendingLogin {
    /// Where the person goes.
    pub url: Url,
    state: String,
    verifier: SecretString,
    redirect_uri: String,
}

/// The parameters of a callback; the first of each name counts.
#[derive(Default)]
struct Callback {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    description: Option<String>,
}

impl PendingLogin {
    /// Begins a login that will come back to `redirect_uri`.
    pub fn begin(client: &OAuthClient, redirect_uri: String, entropy: &LoginEntropy) -> Self {
        let pkce = Pkce::from_random(&entropy.verifier);
        let state = entropy.state();
        Self {
            url: client.authorize_url(&redirect_uri, &pkce.challenge, &state),
            state,
            verifier: pkce.verifier,
            redirect_uri,
        }
    }

    /// For a login that another process may end: to be kept sealed.
    pub fn to_note(&self) -> Zeroizing<Vec<u8>> {
        let parts = [self.url.as_str(), &self.state, self.verifier.expose_secret(), &self.redirect_uri];
        Zeroizing::new(parts.join("\n").into_bytes())
    }

    /// What [`PendingLogin::to_note`] kept.
    pub fn of_note(note: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(note).ok()?.split('\n');
        let mut next = || parts.next().map(str::to_owned);
        let (url, state, verifier, redirect_uri) = (next()?, next()?, next()?, next()?);
        Some(Self { url: Url::parse(&url).ok()?, state, verifier: verifier.into(), redirect_uri })
    }

    /// Ends the login with what a person pasted: the whole address that the browser ended at, its
    /// query alone, or `code#state`. A bare code is refused, because without the state nothing
    /// says that it belongs to this login.
    pub fn finish(&self, pasted: &str) -> Result<AuthorizationCode, LoginError> {
        let pasted = pasted.trim().trim_matches(['"', '\'', '<', '>']).trim();
        if pasted.is_empty() {
            return Err(LoginError::Empty);
        }
        if pasted.contains("://") {
            let url = Url::parse(pasted).map_err(|_| LoginError::Unreadable)?;
            return self.finish_query(url.query().unwrap_or_default());
        }
        let query = pasted.rsplit_once('?').map_or(pasted, |(_, query)| query);
        let callback = Callback::parse(query);
        if callback.is_some() {
            return self.accept(callback);
        }
        match pasted.split_once('#') {
            Some((code, state)) => self.accept(Callback {
                code: Some(code.to_owned()),
                state: Some(state.to_owned()),
                ..Callback::default()
            }),
            None => Err(LoginError::BareCode),
        }
    }

    /// Ends the login with the query of its callback.
    pub fn finish_query(&self, query: &str) -> Result<AuthorizationCode, LoginError> {
        self.accept(Callback::parse(query))
    }

    /// The state comes first: whatever else stands in a stranger's callback is not for us.
    fn accept(&self, callback: Callback) -> Result<AuthorizationCode, LoginError> {
        let state = match (callback.state, &callback.code, &callback.error) {
            (Some(state), ..) => state,
            (None, None, None) => return Err(LoginError::MissingCode),
            (None, ..) => return Err(LoginError::MissingState),
        };
        verify_slices_are_equal(state.as_bytes(), self.state.as_bytes()).map_err(|_| LoginError::StateMismatch)?;
        if let Some(error) = callback.error {
            return Err(LoginError::Denied {
                error: clean_message(&error),
                description: callback.description.as_deref().map(clean_message),
            });
        }
        let code = callback.code.ok_or(LoginError::MissingCode)?;
        Ok(AuthorizationCode {
            code: code.into(),
            verifier: self.verifier.clone(),
            redirect_uri: self.redirect_uri.clone(),
        })
    }
}

impl Callback {
    fn parse(query: &str) -> Self {
        let mut callback = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "code" => &mut callback.code,
                "state" => &mut callback.state,
                "error" => &mut callback.error,
                "error_description" => &mut callback.description,
                _ => continue,
            };
            if !value.is_empty() {
                place.get_or_insert_with(|| value.into_owned());
            }
        }
        callback
    }

    fn is_some(&self) -> bool {
        self.code.is_some() || self.state.is_some() || self.error.is_some()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::super::testing::client;
    use super::*;

    const REDIRECT: &str = "http://localhost:1455/auth/callback";

    fn pending() -> (PendingLogin, String) {
        let entropy = LoginEntropy { verifier: [1; 64], state: [2; 32] };
        let client = client(&"https://issuer.example".parse().unwrap());
        let login = PendingLogin::begin(&client, REDIRECT.to_owned(), &entropy);
        (login, entropy.state())
    }

    #[test]
    fn a_login_is_finished_by_every_form_that_carries_its_state() {
        let (login, state) = pending();
        for pasted in [
            format!("{REDIRECT}?code=c%2F1&scope=openid&state={state}"),
            format!("  \"{REDIRECT}?code=c%2F1&state={state}\"\n"),
            format!("/auth/callback?code=c%2F1&state={state}"),
            format!("?state={state}&code=c%2F1"),
            format!("code=c%2F1&state={state}"),
            format!("c/1#{state}"),
        ] {
            let code = login.finish(&pasted).unwrap();

            assert_eq!(code.code.expose_secret(), "c/1", "{pasted}");
            assert_eq!(code.redirect_uri, REDIRECT);
            assert_eq!(code.verifier.expose_secret(), login.verifier.expose_secret());
        }
    }

    #[test]
    fn each_unusable_paste_has_its_own_error() {
        let (login, state) = pending();
        for (pasted, error) in [
            (String::new(), LoginError::Empty),
            ("c1".into(), LoginError::BareCode),
            ("c1#another".into(), LoginError::StateMismatch),
            (format!("{REDIRECT}?code=c1"), LoginError::MissingState),
            (format!("{REDIRECT}?code=c1&state=x"), LoginError::StateMismatch),
            (format!("{REDIRECT}?error=access_denied&state=x"), LoginError::StateMismatch),
            (format!("{REDIRECT}?state={state}"), LoginError::MissingCode),
            (format!("{REDIRECT}?code=&state={state}"), LoginError::MissingCode),
            (login.url.to_string(), LoginError::MissingCode),
            (REDIRECT.to_owned(), LoginError::MissingCode),
            ("http://".into(), LoginError::Unreadable),
        ] {
            assert_eq!(login.finish(&pasted).err(), Some(error), "{pasted}");
        }
    }

    #[test]
    fn a_refused_login_says_what_the_issuer_said() {
        let (login, state) = pending();

        let error = login
            .finish(&format!("{REDIRECT}?error=access_denied&error_description=You+said+no&state={state}"))
            .err()
            .unwrap();

        assert_eq!(error.to_string(), "the login was refused: access_denied (You said no)");
    }
}
