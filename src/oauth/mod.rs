//! OAuth 2.0 towards the issuer: login flows, refresh exchange, token claims, `auth.json`.
