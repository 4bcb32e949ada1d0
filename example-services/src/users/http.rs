//! What is asked of users besides the contract: the keys that check their tokens.

use axum::{Json, Router, routing::get};

use super::tokens::Tokens;

/// `GET /.well-known/jwks.json` (GW-901).
pub fn router(tokens: Tokens) -> Router {
    let keys = move || async move {
        (
            [("cache-control", "public, max-age=300")],
            Json(tokens.keys()),
        )
    };
    Router::new().route("/.well-known/jwks.json", get(keys))
}
