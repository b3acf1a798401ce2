//! OAuth 2.0 towards the issuer: login flows, refresh exchange, token claims, `auth.json`.
//!
//! This room turns what a person or a file brings into an [`Enrolment`] and a refresh token into a
//! fresh [`TokenSet`]. It must not know where credentials are kept, when they are refreshed, or who
//! uses them; protocol facts come from protocol.md section 1. Nothing here prints a token: errors
//! carry the issuer's code and a short, cleaned message, never a body.

pub mod auth_json;
mod callback;
mod claims;
mod client;
mod departure;
mod device;
mod error;
mod login;
mod pkce;
mod reply;
mod tokens;

pub use callback::{CallbackListener, REGISTERED_PORTS, redirect_uri};
pub use claims::{Claims, ClaimsError};
pub use client::{CLIENT_ID, Endpoints, OAuthClient, OAuthConfig, RefreshReason, SCOPE};
pub use departure::Timely;
pub use device::{DEVICE_CODE_LIFE, DeviceCode, DevicePoll, wait_for_approval};
pub use error::{Class, DeviceError, IssuerFault, LoginError, OAuthError, RefreshError, classify};
pub use login::{AuthorizationCode, PendingLogin};
pub use pkce::{LoginEntropy, Pkce};
pub use tokens::{Enrolment, IdentityError, LoginTokens, TokenSet};

#[cfg(test)]
pub(crate) mod testing;
