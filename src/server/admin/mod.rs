//! The admin API, below `/admin/v1`: everything that operators do and a console needs. Handlers are
//! thin: who calls and what they may do is in a handler's signature, what it does is the store's.

mod accounts;
mod aliases;
mod caller;
mod extract;
mod gate;
mod keys;
mod limits;
mod live;
mod log;
mod logins;
mod once;
mod openapi;
mod page;
mod pools;
mod problem;
mod sign_in;
mod system;
mod tenants;
mod usage;

pub(in crate::server) use live::{Live, Parts};
pub(in crate::server) use sign_in::SignIn;

use super::assemble::unix_millis;
use super::origin;
use crate::config::{Settings, Shown};
use crate::store::{Duty, Role, Store};
use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use caller::Caller;
use gate::Guard;
use ipnet::IpNet;
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::util::{MapRequest, MapRequestLayer};

/// What the handlers share.
pub(in crate::server) struct Admin {
    store: Store,
    live: Live,
    /// Of the price table.
    currency: String,
    /// The settings in force, redacted.
    shown: Vec<Shown>,
    /// The first owner's key.
    bootstrap: Option<SecretString>,
    guard: Guard,
    /// Where people can sign in.
    sign_in: Option<SignIn>,
}

impl Admin {
    /// Over a store and what lives beside it.
    pub(in crate::server) fn new(
        store: Store,
        live: Live,
        currency: String,
        shown: Vec<Shown>,
        sign_in: Option<SignIn>,
    ) -> Arc<Self> {
        let bootstrap = live.settings().admin.key.clone();
        Arc::new(Self { store, live, currency, shown, bootstrap, guard: Guard::default(), sign_in })
    }
}

/// How often slips that have ended are thrown away.
const SWEEP: Duration = Duration::from_mins(10);

/// Throws slips away that have ended, until `stop`, while it is ours to do for all replicas.
pub(super) async fn sweep(store: Store, duty: Duty, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
        if duty.is_ours()
            && let Err(error) = store.slips().forget(unix_millis()).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "slips that have ended were not thrown away");
        }
    }
}

/// The routes of the admin listener.
pub(super) fn router(admin: Arc<Admin>, trusted: Arc<[IpNet]>) -> Router {
    let guarded = routes()
        .layer(from_fn_with_state(admin.clone(), once::repeat))
        .layer(from_fn_with_state(admin.clone(), gate::admit));
    let people = openapi::people()
        .split_for_parts()
        .0
        .route("/auth", axum::routing::get(sign_in::here))
        .method_not_allowed_fallback(system::method_not_allowed)
        .layer(from_fn(page::for_people))
        .layer(from_fn(gate::watch));
    let open = openapi::routes().merge(people);
    let all = Router::new()
        .nest("/admin/v1", guarded.merge(open))
        .layer(from_fn(legible))
        .layer(DefaultBodyLimit::max(once::MOST))
        .with_state(admin);
    Router::new().fallback_service(MapRequest::new(all, move |request: Request<Body>| origin::tell(request, &trusted)))
}

/// The same routes for a command on this machine, whose caller needs no key: who can read the
/// database can do everything.
fn local(admin: Arc<Admin>, caller: Caller) -> Router {
    let known = MapRequestLayer::new(move |mut request: Request<Body>| {
        request.extensions_mut().insert(caller.clone());
        request
    });
    Router::new().nest("/admin/v1", routes().layer(known)).with_state(admin)
}

fn routes() -> Router<Arc<Admin>> {
    let (routes, _) = openapi::described().split_for_parts();
    routes.fallback(system::not_found).method_not_allowed_fallback(system::method_not_allowed)
}

/// Refuses addresses with what no column can hold.
async fn legible(request: Request<Body>, next: axum::middleware::Next) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let text = request.uri().path_and_query().map_or("", |text| text.as_str());
    if text.contains("%00") {
        return problem::Fault::new("invalid_request", "the address holds a NUL character").into_response();
    }
    next.run(request).await
}

/// The admin API in this process, for the command line.
pub struct Local {
    admin: Arc<Admin>,
    router: Router,
}

impl Local {
    /// Over an open store; `name` is who runs the command.
    pub fn new(settings: &Settings, shown: Vec<Shown>, store: Store, currency: String, name: &str) -> Self {
        let caller = Caller {
            id: format!("cli:{name}"),
            name: name.to_owned(),
            role: Role::Owner,
            team: None,
            source: None,
            request_id: format!("req_{}", uuid::Uuid::now_v7().simple()),
            once: None,
            csrf: None,
            expires_at: None,
        };
        let admin = Admin::new(store, Live::apart(settings), currency, shown, None);
        let router = local(admin.clone(), caller);
        Self { admin, router }
    }

    /// Answers a request.
    pub async fn call(&self, request: Request<Body>) -> axum::response::Response {
        use tower::ServiceExt as _;
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Writes what was learnt, and closes the store.
    pub async fn close(self) {
        self.admin.live.put_away(&self.admin.store).await;
        self.admin.store.close().await;
    }
}
