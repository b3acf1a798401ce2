//! Signing people in with OpenID Connect: what a provider says of itself, the authorization code flow
//! with PKCE, what an ID token must be, and what somebody's groups let them do.
//!
//! This room turns a browser's way to the provider and back into a [`Person`]. It must not know of
//! cookies, sessions or pages. Nothing here prints a token or a code: errors carry the provider's error
//! code and which step failed.

mod claims;
mod error;
mod grant;
mod metadata;
mod provider;
mod token;

pub use error::{OidcError, TokenError};
pub use grant::{Grant, Grants, NoGrant};
pub use metadata::is_confidential;
pub use provider::{Began, Callback, Client, Pending, Person, Provider};
