//! People sign in with OpenID Connect: to the provider, back with a code, and out again.
//!
//! What a sign-in remembers until the browser is back is a sealed slip, found by the hash of `state`
//! and taken once; a cookie ties it to the browser that began it. A session is a slip too, found by the
//! hash of its cookie.

use super::Admin;
use super::caller::{As, Sees};
use super::extract::{Answer, Params, json};
use super::gate::{self, Asked, CSRF, Guard, HOST_SESSION, SESSION, Session, Whose};
use super::page;
use super::problem::Fault;
use super::system::{self, MeView};
use crate::config::Settings;
use crate::oidc::{Began, Callback, Client, Grant, Grants, OidcError, Pending, Person, Provider};
use crate::server::ServerError;
use crate::server::assemble::{self, unix_millis};
use crate::store::{Actor, Store, StoreError, TeamId};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::{Url, form_urlencoded};
use utoipa::{IntoParams, ToSchema};

/// How long somebody may take at the provider.
const PATIENCE: Duration = Duration::from_mins(10);
/// Sign-ins that one address may begin within a minute: each is a row until it ends.
const BEGINNINGS: u32 = 30;
/// Where sign-ins come back to, below the public address.
const CALLBACK: &str = "admin/v1/auth/callback";
/// The page that says who is signed in, below the public address.
const HERE: &str = "admin/v1/auth";
/// The longest address to go back to.
const LONGEST_RETURN: usize = 2048;

/// Where people sign in, and what they get.
pub(in crate::server) struct SignIn {
    provider: Provider,
    grants: Grants,
    public: Url,
    lifetime: Duration,
    beginnings: Guard,
}

/// What a sign-in remembers.
#[derive(Serialize, Deserialize)]
struct Waiting {
    pending: Pending,
    /// The hash of the browser's cookie.
    browser: String,
    return_to: Option<String>,
}

impl SignIn {
    /// As the settings say; none if they name no provider.
    pub(in crate::server) fn of(settings: &Settings) -> Result<Option<Self>, ServerError> {
        let (oidc, admin) = (&settings.oidc, &settings.admin);
        let (Some(issuer), Some(public)) = (oidc.issuer.clone(), admin.public_url.clone()) else { return Ok(None) };
        let unusable = |setting, reason: String| ServerError::Setting { setting, reason };
        let grant =
            |setting, text: &str| text.parse::<Grant>().map_err(|error| unusable(setting, format!("`{text}` {error}")));
        let by_group = oidc.groups.iter().map(|(group, text)| Ok((group.clone(), grant("oidc.groups", text)?)));
        let grants = Grants {
            by_group: by_group.collect::<Result<_, ServerError>>()?,
            otherwise: oidc.default_role.as_deref().map(|text| grant("oidc.default_role", text)).transpose()?,
        };
        let client = Client {
            issuer,
            id: oidc.client_id.clone(),
            secret: oidc.client_secret.clone(),
            scopes: oidc.scopes.clone(),
            redirect: below(&public, CALLBACK),
            groups_claim: oidc.groups_claim.clone(),
            name_claim: oidc.name_claim.clone(),
        };
        let provider = Provider::new(assemble::provider_client(settings)?, client);
        let lifetime = admin.session_lifetime;
        Ok(Some(Self { provider, grants, public, lifetime, beginnings: Guard::new(BEGINNINGS) }))
    }

    /// The cookie of a session.
    pub(super) fn session_cookie(&self) -> &'static str {
        if self.is_tls() { HOST_SESSION } else { SESSION }
    }

    /// The cookie that ties a sign-in to its browser; each sign-in has its own, so that two tabs may.
    fn browser_cookie(&self, state: &str) -> String {
        let prefix = if self.is_tls() { "__Host-" } else { "" };
        let short: String = hash(state).chars().take(12).collect();
        format!("{prefix}tollway_signin_{short}")
    }

    fn is_tls(&self) -> bool {
        self.public.scheme() == "https"
    }

    /// A cookie that no script reads and no other site's form sends; over TLS only where there is TLS.
    fn cookie(&self, name: &str, content: &str, life: Duration) -> HeaderValue {
        let secure = if self.is_tls() { "; Secure" } else { "" };
        let seconds = life.as_secs();
        let text = format!("{name}={content}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

fn below(public: &Url, path: &str) -> Url {
    let mut url = public.clone();
    url.set_path(&format!("{}/{path}", public.path().trim_end_matches('/')));
    url
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

fn slip(state: &str) -> String {
    format!("signin:{}", hash(state))
}

/// The slip of what the provider wants to see at a session's end.
fn hint_slip(token: &str) -> String {
    format!("signout:{}", hash(token))
}

fn random() -> Result<String, Fault> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Fault::new("internal", "the operating system gave no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn offered(admin: &Admin) -> Result<&SignIn, Fault> {
    let none = || Fault::new("not_found", "nobody can sign in here: the gateway's settings name no oidc.issuer");
    admin.sign_in.as_ref().ok_or_else(none)
}

/// An address of this very site: a path, which no browser takes for another host's.
fn is_ours(path: &str) -> bool {
    let rest = path.strip_prefix('/');
    rest.is_some_and(|rest| !rest.starts_with(['/', '\\']))
        && path.len() <= LONGEST_RETURN
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

fn see_other(to: &str, cookies: Vec<HeaderValue>) -> Result<Response, Fault> {
    let to = HeaderValue::try_from(to).map_err(|_| Fault::new("internal", "the address cannot be gone to"))?;
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response();
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The store that notes what somebody does who is not (or no longer) a caller.
fn acting(admin: &Admin, asked: &Asked, id: &str, name: &str) -> Store {
    admin.store.acting(Actor {
        id: id.to_owned(),
        name: name.to_owned(),
        source: asked.source.map(|address| address.to_string()),
        request_id: Some(asked.request_id.clone()),
        at: unix_millis(),
        once: None,
    })
}

/// What a failed exchange is to the browser; the log has the rest.
fn failed(admin: &Admin, asked: &Asked, error: &OidcError) -> Fault {
    tracing::warn!(request_id = asked.request_id, error = error as &dyn std::error::Error, "a sign-in failed");
    if error.is_of_browser() {
        admin.guard.count(asked.source);
        return Fault::new("invalid_request", "the provider does not know this sign-in any more; sign in again");
    }
    match error {
        OidcError::Ended(code) if code == "access_denied" => {
            admin.guard.count(asked.source);
            Fault::new("forbidden", "the provider says that the sign-in was refused")
        }
        OidcError::NoRandomness => Fault::new("internal", error.to_string()),
        _ => Fault::new("upstream", "the provider did not finish the sign-in; the gateway's log says why"),
    }
}

/// Where to go afterwards.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LoginQuery {
    /// A path of this site, `/admin/v1/auth` if left out.
    return_to: Option<String>,
}

/// Sign in: sends a browser to the provider
#[utoipa::path(get, path = "/auth/login", tag = "Sign-in", params(LoginQuery), security(()), responses((status = 303, description = "To the provider")))]
pub(super) async fn login(
    Shared(admin): Shared<Arc<Admin>>,
    Extension(asked): Extension<Asked>,
    Params(query): Params<LoginQuery>,
) -> Answer {
    let sign_in = offered(&admin)?;
    if query.return_to.as_deref().is_some_and(|path| !is_ours(path)) {
        return Err(Fault::new("invalid_request", "return_to: give a path of this site, such as /admin/v1/auth"));
    }
    let waits = admin.guard.shut(asked.source).or_else(|| sign_in.beginnings.shut(asked.source));
    if let Some(seconds) = waits {
        return Err(gate::wait(seconds));
    }
    sign_in.beginnings.count(asked.source);
    let began = sign_in.provider.begin().await;
    let Began { url, state, pending } = began.map_err(|error| failed(&admin, &asked, &error))?;
    let browser = random()?;
    let waiting = Waiting { pending, browser: hash(&browser), return_to: query.return_to };
    let note = zeroize::Zeroizing::new(serde_json::to_vec(&waiting).unwrap_or_default());
    admin.store.slips().put(&slip(&state), &note, gate::end_of(PATIENCE)).await?;
    see_other(url.as_str(), vec![sign_in.cookie(&sign_in.browser_cookie(&state), &browser, PATIENCE)])
}

/// What the browser comes back with.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Callback` reads")]
pub(super) struct CallbackQuery {
    /// As it was sent.
    state: Option<String>,
    /// What the tokens are had for.
    code: Option<String>,
    /// The provider (RFC 9207).
    iss: Option<String>,
    /// In the place of a code.
    error: Option<String>,
}

/// Signed in: the provider sends browsers here
#[utoipa::path(get, path = "/auth/callback", tag = "Sign-in", params(CallbackQuery), security(()), responses((status = 303, description = "To where the sign-in was to lead, with a session's cookie")))]
pub(super) async fn callback(
    Shared(admin): Shared<Arc<Admin>>,
    Extension(asked): Extension<Asked>,
    headers: HeaderMap,
    Params(callback): Params<Callback>,
) -> Answer {
    let sign_in = offered(&admin)?;
    if let Some(seconds) = admin.guard.shut(asked.source) {
        return Err(gate::wait(seconds));
    }
    let state = callback.state.clone().unwrap_or_default();
    let waiting = taken(&admin, sign_in, &headers, &state).await?;
    let waiting = waiting.ok_or_else(|| {
        admin.guard.count(asked.source);
        tracing::warn!(request_id = asked.request_id, "a sign-in that nobody began here, or that is over, came back");
        Fault::new(
            "invalid_request",
            "this sign-in was not begun in this browser, took too long, or is over; sign in again",
        )
    })?;
    let person = sign_in.provider.finish(&waiting.pending, &callback).await;
    let person = person.map_err(|error| failed(&admin, &asked, &error))?;
    let (token, session) = begin_session(&admin, sign_in, &asked, &headers, &person).await?;
    let here = below(&sign_in.public, HERE);
    let to = waiting.return_to.as_deref().unwrap_or(here.path());
    let cookies = vec![
        sign_in.cookie(&sign_in.browser_cookie(&state), "", Duration::ZERO),
        sign_in.cookie(sign_in.session_cookie(), &token, sign_in.lifetime),
    ];
    let mut response = see_other(to, cookies)?;
    response.extensions_mut().insert(Whose(session.id));
    Ok(response)
}

/// What a sign-in remembers, once, and only for the browser that began it.
async fn taken(admin: &Admin, sign_in: &SignIn, headers: &HeaderMap, state: &str) -> Result<Option<Waiting>, Fault> {
    let read = |note: &[u8]| serde_json::from_slice::<Waiting>(note).ok();
    let slips = admin.store.slips();
    let Some(waiting) = slips.get(&slip(state), unix_millis()).await?.and_then(|note| read(&note)) else {
        return Ok(None);
    };
    let browser = hash(gate::cookie(headers, &sign_in.browser_cookie(state)).unwrap_or_default());
    if verify_slices_are_equal(browser.as_bytes(), waiting.browser.as_bytes()).is_err() {
        return Ok(None);
    }
    // Of two that come back at once, one goes on.
    Ok(slips.take(&slip(state), unix_millis()).await?.and_then(|note| read(&note)))
}

/// What the person may do here. Who may do nothing is refused, and that is noted.
async fn granted(
    admin: &Admin,
    sign_in: &SignIn,
    asked: &Asked,
    person: &Person,
) -> Result<(Grant, Option<TeamId>), Fault> {
    let id = format!("person:{}", person.subject);
    let refused = async |reason: &str| {
        admin.guard.count(asked.source);
        let groups = person.groups.iter().take(50).cloned().collect::<Vec<_>>().join(", ");
        tracing::warn!(request_id = asked.request_id, actor = id, groups, reason, "a sign-in was refused");
        let store = acting(admin, asked, &id, &person.name);
        store.note_event("session.refuse", &id, &person.name, Some(value!({"reason": reason}))).await?;
        let detail = format!("the provider knows you as {}, but {reason}; ask those who run this gateway", person.name);
        Ok::<_, Fault>(Fault::new("forbidden", detail))
    };
    let Some(grant) = sign_in.grants.of(&person.groups).cloned() else {
        return Err(refused("none of your groups may do anything here").await?);
    };
    let Some(asked_team) = &grant.team else { return Ok((grant, None)) };
    match admin.store.tenants().find_team(asked_team).await {
        Ok(team) => Ok((grant, Some(team.id))),
        Err(StoreError::NotFound { .. } | StoreError::Ambiguous { .. }) => {
            Err(refused("the team that your group is for does not exist here").await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// A new session; the one that the browser had, if any, is over.
async fn begin_session(
    admin: &Admin,
    sign_in: &SignIn,
    asked: &Asked,
    headers: &HeaderMap,
    person: &Person,
) -> Result<(String, Session), Fault> {
    let (grant, team) = granted(admin, sign_in, asked, person).await?;
    let (token, csrf) = (random()?, random()?);
    let expires_at = gate::end_of(sign_in.lifetime);
    let id = format!("person:{}", person.subject);
    let session = Session { id, name: person.name.clone(), role: grant.role, team, csrf, expires_at };
    let slips = admin.store.slips();
    if let Some(old) = gate::cookie(headers, sign_in.session_cookie()) {
        slips.drop(&gate::slip_of(old)).await?;
        slips.drop(&hint_slip(old)).await?;
    }
    // Noted first: there is no session that the log does not know.
    let may = value!({"role": grant.role, "team_id": team, "expires_at": expires_at});
    acting(admin, asked, &session.id, &session.name)
        .note_event("session.begin", &session.id, &session.name, Some(may))
        .await?;
    let note = zeroize::Zeroizing::new(serde_json::to_vec(&session).unwrap_or_default());
    slips.put(&hint_slip(&token), person.id_token.expose_secret().as_bytes(), expires_at).await?;
    slips.put(&gate::slip_of(&token), &note, expires_at).await?;
    tracing::info!(
        request_id = asked.request_id,
        actor = session.id,
        role = session.role.as_str(),
        team = team.map(|team| team.to_string()),
        "somebody signed in"
    );
    Ok((token, session))
}

/// Who is signed in, and until when
#[utoipa::path(get, path = "/auth/session", tag = "Sign-in", responses((status = 200, description = "The caller", body = MeView)))]
pub(super) async fn session(caller: As<Sees>) -> Answer {
    json(StatusCode::OK, &system::who(&caller))
}

/// A session that is over.
#[derive(Serialize, ToSchema)]
pub(super) struct LogoutView {
    /// Where to send the browser to be signed out at the provider too.
    end_session_url: Option<String>,
}

/// Sign out; takes the `csrf_token` in X-CSRF-Token, or as a field of a form
#[utoipa::path(post, path = "/auth/logout", tag = "Sign-in", security(("session" = [])), responses((status = 200, description = "The session is over", body = LogoutView)))]
pub(super) async fn logout(
    Shared(admin): Shared<Arc<Admin>>,
    Extension(asked): Extension<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let sign_in = offered(&admin)?;
    let session = gate::session_of(&admin, &headers, asked.source).await?;
    let session = session.ok_or_else(|| Fault::new("unauthenticated", "nobody is signed in"))?;
    let field = form_urlencoded::parse(&body).find(|(name, _)| name == "csrf_token").map(|(_, token)| token);
    let in_form = field.map(|token| token.into_owned().into_bytes()).unwrap_or_default();
    gate::check_csrf(headers.get(CSRF).map_or(&in_form, HeaderValue::as_bytes), &session)?;

    let token = gate::cookie(&headers, sign_in.session_cookie()).unwrap_or_default();
    let slips = admin.store.slips();
    let hint = slips.take(&hint_slip(token), unix_millis()).await?;
    slips.drop(&gate::slip_of(token)).await?;
    acting(&admin, &asked, &session.id, &session.name).note_deed("session.end", &session.id, &session.name).await?;
    tracing::info!(request_id = asked.request_id, actor = session.id, "somebody signed out");
    let hint: Option<SecretString> = hint.and_then(|hint| Some(std::str::from_utf8(&hint).ok()?.into()));
    // They are signed out here whether or not the provider can be asked.
    let provider = sign_in.provider.end_session(hint.as_ref()).await.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the provider's place to sign out is not known");
        None
    });
    let provider = provider.map(String::from);
    let mut response = if page::is_wanted(&headers) {
        page::leaving(provider.as_deref())
    } else {
        json(StatusCode::OK, &LogoutView { end_session_url: provider })?
    };
    let gone = sign_in.cookie(sign_in.session_cookie(), "", Duration::ZERO);
    response.headers_mut().append(header::SET_COOKIE, gone);
    response.extensions_mut().insert(Whose(session.id));
    Ok(response)
}

/// A page that says who is signed in, for browsers without any other.
pub(super) async fn here(
    Shared(admin): Shared<Arc<Admin>>,
    Extension(asked): Extension<Asked>,
    headers: HeaderMap,
) -> Answer {
    offered(&admin)?;
    let Some(session) = gate::session_of(&admin, &headers, asked.source).await? else { return Ok(page::signed_out()) };
    let team = match session.team {
        Some(id) => Some(
            admin.store.tenants().find_team(&id.to_string()).await.map_or_else(|_| id.to_string(), |team| team.name),
        ),
        None => None,
    };
    let until = OffsetDateTime::from_unix_timestamp(session.expires_at / 1000).ok();
    let until = until.and_then(|until| until.format(&Rfc3339).ok()).unwrap_or_default();
    Ok(page::signed_in(&session, team.as_deref(), &until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_site_are_gone_back_to() {
        for (path, expected) in [
            ("/", true),
            ("/console?tab=keys#top", true),
            ("/admin/v1/auth", true),
            ("", false),
            ("console", false),
            ("//evil.example.com", false),
            ("/\\evil.example.com", false),
            ("/a\\b", false),
            ("https://evil.example.com", false),
            ("/\t/evil.example.com", false),
            ("/a\r\nset-cookie: b", false),
        ] {
            assert_eq!(is_ours(path), expected, "{path:?}");
        }
    }

    #[test]
    fn addresses_are_below_the_public_one_with_its_path() {
        for (public, expected) in [
            ("https://a.example.com", "https://a.example.com/admin/v1/auth/callback"),
            ("https://a.example.com/tollway/", "https://a.example.com/tollway/admin/v1/auth/callback"),
        ] {
            assert_eq!(below(&Url::parse(public).unwrap(), CALLBACK).as_str(), expected);
        }
    }
}
