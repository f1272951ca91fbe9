//! Who makes a request: extractors for handlers.
//!
//! The layer in front of all routes looks at the three header styles, asks the keys, counts
//! the key's rate and leaves the [`Identity`] with the request. A handler takes
//! [`Subscriber`] or [`Producer`], which refuses who lacks the scope.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::ApiError;
use crate::access::{Identity, Scope};

/// Who may read market data (scope `md:read`).
#[derive(Clone, Debug)]
pub struct Subscriber(pub Identity);

/// Who may post ticks (scope `ticks:write`).
#[derive(Clone, Debug)]
pub struct Producer(pub Identity);

impl<S: Sync> FromRequestParts<S> for Subscriber {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        identity(parts, Scope::MarketDataRead).map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for Producer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        identity(parts, Scope::TicksWrite).map(Self)
    }
}

fn identity(parts: &Parts, scope: Scope) -> Result<Identity, ApiError> {
    let identity = parts.extensions.get::<Identity>();
    let identity = identity.ok_or_else(|| ApiError::new(axum::http::StatusCode::UNAUTHORIZED, "no key"))?;
    if !identity.may(scope) {
        return Err(ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            format!("this key has no scope {scope}"),
        ));
    }
    Ok(identity.clone())
}
