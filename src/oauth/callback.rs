//! The listener on localhost that a browser login comes back to; protocol.md 1.1.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Html;
use axum::routing::get;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::LoginError;
use super::login::{AuthorizationCode, PendingLogin};

/// The only ports whose redirect the issuer accepts, in order of preference.
pub const REGISTERED_PORTS: [u16; 2] = [1455, 1457];

/// How long the page may take to reach the browser after the login is decided.
const LAST_PAGE: Duration = Duration::from_secs(2);

type Outcome = Result<AuthorizationCode, LoginError>;

/// A bound listener. It exists before the login, because its port is in the redirect address.
pub struct CallbackListener {
    listener: TcpListener,
    port: u16,
}

struct Waiting {
    login: Arc<PendingLogin>,
    outcome: mpsc::Sender<Outcome>,
}

impl CallbackListener {
    /// Binds the first free port of `ports` on 127.0.0.1.
    pub async fn bind(ports: &[u16]) -> Result<Self, LoginError> {
        let mut reason = "no port given".to_owned();
        for &port in ports {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let bound =
                TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
            match bound {
                Ok((port, listener)) => return Ok(Self { listener, port }),
                Err(error) => reason = error.to_string(),
            }
        }
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        Err(LoginError::CannotListen { ports: ports.join(" or "), reason })
    }

    /// The redirect address for the login. It says `localhost`: that is what is registered.
    pub fn redirect_uri(&self) -> String {
        redirect_uri(self.port)
    }

    /// Answers callbacks until one of them decides `login`. A callback with a foreign state gets
    /// an explaining page and is otherwise ignored: any web page can make a browser send one.
    pub async fn wait(self, login: Arc<PendingLogin>) -> Outcome {
        let (outcome, mut decided) = mpsc::channel(1);
        let app = Router::new().route("/auth/callback", get(callback)).with_state(Arc::new(Waiting { login, outcome }));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let server = axum::serve(self.listener, app).with_graceful_shutdown(stopped);
        let mut server = std::pin::pin!(server.into_future());
        let outcome = tokio::select! {
            _ = &mut server => return Err(LoginError::ListenerClosed),
            outcome = decided.recv() => outcome.unwrap_or(Err(LoginError::ListenerClosed)),
        };
        stop.cancel();
        // The browser gets its page, but does not keep us by holding its connection open.
        let _ = tokio::time::timeout(LAST_PAGE, server).await;
        outcome
    }
}

/// The redirect address with this port, also for a login without a listener, whose address a
/// person pastes.
pub fn redirect_uri(port: u16) -> String {
    format!("http://localhost:{port}/auth/callback")
}

async fn callback(State(waiting): State<Arc<Waiting>>, RawQuery(query): RawQuery) -> (StatusCode, Html<String>) {
    let outcome = waiting.login.finish_query(&query.unwrap_or_default());
    let (status, text) = match &outcome {
        Ok(_) => (
            StatusCode::OK,
            "Tollway has received the login. You can close this window; the terminal says how it went.",
        ),
        Err(LoginError::Denied { .. }) => {
            (StatusCode::OK, "The login was refused. You can close this window; the terminal says why.")
        }
        Err(_) => (
            StatusCode::BAD_REQUEST,
            "This address does not belong to the login that Tollway waits for. Open the address that the terminal printed last.",
        ),
    };
    if status == StatusCode::OK {
        // Full means that another callback has decided the login already.
        let _ = waiting.outcome.try_send(outcome);
    }
    (status, page(text))
}

/// Nothing of the request is repeated in the page.
fn page(text: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tollway</title>\
         <body style=\"font-family:system-ui;max-width:36em;margin:4em auto\"><h1>Tollway</h1>\
         <p>{text}</p></body></html>\n"
    ))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::super::pkce::LoginEntropy;
    use super::super::testing::client;
    use super::*;

    async fn listening() -> (CallbackListener, Arc<PendingLogin>, String, String) {
        let listener = CallbackListener::bind(&[0]).await.unwrap();
        let entropy = LoginEntropy::random().unwrap();
        let client = client(&"https://issuer.example".parse().unwrap());
        let login = PendingLogin::begin(&client, listener.redirect_uri(), &entropy);
        let address = format!("http://127.0.0.1:{}/auth/callback", listener.port);
        (listener, Arc::new(login), address, entropy.state())
    }

    async fn get(address: String) -> (u16, String) {
        let response = reqwest::get(address).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn the_callback_of_the_login_ends_the_wait_and_the_browser_gets_its_page() {
        let (listener, login, address, state) = listening().await;
        let waiting = tokio::spawn(listener.wait(login));

        let (status, page) = get(format!("{address}?code=c1&state={state}")).await;

        assert_eq!(status, 200);
        assert!(page.contains("close this window") && !page.contains("c1"));
        let code = waiting.await.unwrap().unwrap();
        assert_eq!(code.code.expose_secret(), "c1");
        assert!(code.redirect_uri.starts_with("http://localhost:"));
    }

    #[tokio::test]
    async fn a_strangers_callback_neither_ends_nor_spoils_the_wait() {
        let (listener, login, address, state) = listening().await;
        let waiting = tokio::spawn(listener.wait(login));

        let (foreign, _) = get(format!("{address}?code=evil&state=x")).await;
        let (other, _) = get(address.replace("/auth/callback", "/favicon.ico")).await;
        let (denied, _) = get(format!("{address}?error=access_denied&state={state}")).await;

        assert_eq!((foreign, other, denied), (400, 404, 200));
        let error = waiting.await.unwrap().err().unwrap();
        assert!(matches!(error, LoginError::Denied { .. }));
    }

    #[tokio::test]
    async fn the_second_port_is_taken_when_the_first_is_busy() {
        let busy = CallbackListener::bind(&[0]).await.unwrap();

        let second = CallbackListener::bind(&[busy.port, 0]).await.unwrap();

        assert_ne!(second.port, busy.port);
        let none = CallbackListener::bind(&[busy.port]).await.err().unwrap();
        assert!(none.to_string().contains(&busy.port.to_string()));
    }
}
