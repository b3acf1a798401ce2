//! What every request passes first: one form of address, and where it comes from. Those that generate, nearly
//! all there are, go on straight to their handler; the router and its layers are for what is left.

use super::{address, linger, serve, surface};
use crate::dialect::Dialect;
use crate::server::origin;
use crate::server::state::State;
use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{Method, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::Service;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use tower::ServiceExt as _;

/// The API, for a connection.
#[derive(Clone)]
pub(in crate::server) struct Front {
    routes: Router,
    state: Arc<State>,
    /// Whether requests may go past the routes: not where these have something to say to pages of other origins.
    is_open: bool,
}

impl Front {
    pub(super) fn new(routes: Router, state: Arc<State>, is_open: bool) -> Self {
        Self { routes, state, is_open }
    }

    /// What the router would find for a request, where nothing is to be done to it before.
    fn direct(&self, request: &Request<Body>) -> Option<(Dialect, &'static str)> {
        let is_plain = request.method() == Method::POST && !request.headers().contains_key(CONTENT_ENCODING);
        if self.is_open && is_plain { serve::generates(request.uri().path()) } else { None }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request = address::canonical(request.map(Body::new));
        let request = origin::tell(request, &self.state.trusted_proxies);
        let Some((dialect, route)) = self.direct(&request) else {
            return Box::pin(self.routes.clone().oneshot(request));
        };
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            let request = linger::read_to_the_end(request, state.max_body);
            Ok(surface::or_panic(dialect, serve::handle(&state, dialect, route, request)).await)
        })
    }
}
