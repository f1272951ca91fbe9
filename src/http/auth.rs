//! Who makes a request: the layer in front of all routes, and extractors for handlers.
//!
//! A key is shown in one of three header styles: `APCA-API-KEY-ID` with `APCA-API-SECRET-KEY`,
//! `Authorization: Bearer ID.SECRET`, or `Authorization: Basic base64(ID:SECRET)`. The layer
//! refuses a key that is not good, counts the rate of one that is, and leaves its
//! [`Identity`] with the request. A handler takes [`Subscriber`] or [`Producer`], which
//! refuses who shows no key or lacks the scope. Browsers that read charts may show a cookie
//! instead, on `GET /udf/…` alone ([`super::ticket`]).

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Gate;
use super::error::{ApiError, ApiResult};
use super::ticket::cookie_of;
use crate::access::{Allowance, Denied, Identity, Scope, Ticket, TicketError};
use crate::live::Cursor;

const KEY_ID: &str = "apca-api-key-id";
const SECRET: &str = "apca-api-secret-key";

/// Who may read market data (scope `md:read`).
#[derive(Clone, Debug)]
pub struct Subscriber(pub Arc<Identity>);

/// Who may post ticks (scope `ticks:write`).
#[derive(Clone, Debug)]
pub struct Producer(pub Arc<Identity>);

impl<S: Sync> FromRequestParts<S> for Subscriber {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        permitted(parts, Scope::MarketDataRead).map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for Producer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        permitted(parts, Scope::TicksWrite).map(Self)
    }
}

/// Who shows a ticket instead of a key, as browsers do, or the cursor of a stream that a ticket
/// has opened.
pub(super) async fn by_ticket(
    gate: &Gate,
    ticket: &str,
    cursor: Option<&Cursor>,
) -> Result<(Arc<Identity>, Ticket), ApiError> {
    let now = (gate.clock)();
    let named = cursor.and_then(|cursor| cursor.ticket.clone()).map(|(id, key_id)| Ticket { id, key_id });
    // The cursor alone is no credential: clients keep it as what it is, a place.
    let known = named.filter(|named| gate.tickets.name_of(ticket).is_ok_and(|shown| shown == *named));
    let (ticket, (identity, allowance)) = match known {
        Some(ticket) => {
            let admitted = gate.tickets.recognise(&ticket, now);
            (ticket, admitted.map_err(|_| ApiError::from(TicketError::Denied))?)
        }
        None => gate.tickets.redeem(ticket, now).await?,
    };
    if let Some(seconds) = allowance.retry_after_s {
        gate.metrics.http_refused.with_label_values(&["key_rate"]).inc();
        return Err(too_many(seconds));
    }
    if identity.may(Scope::MarketDataRead) {
        Ok((identity, ticket))
    } else {
        Err(without_scope(Scope::MarketDataRead))
    }
}

fn permitted(parts: &Parts, scope: Scope) -> Result<Arc<Identity>, ApiError> {
    let identity = parts.extensions.get::<Arc<Identity>>().ok_or_else(|| unauthorized(parts.uri.path()))?;
    if identity.may(scope) { Ok(Arc::clone(identity)) } else { Err(without_scope(scope)) }
}

/// 403: the key is good and may not do this.
pub(super) fn without_scope(scope: Scope) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, format!("this key may not do that: it lacks the scope {scope}"))
        .with("reason", "scope")
        .with("expected", scope.name())
}

/// No key, or not a good one: 401 with the ways to show one, on Alpaca's paths 403 as Alpaca does.
pub(super) fn unauthorized(path: &str) -> ApiError {
    if is_alpaca(path) {
        return ApiError::new(StatusCode::FORBIDDEN, "forbidden.");
    }
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "a valid key is needed, and none or a wrong one was shown: APCA-API-KEY-ID and APCA-API-SECRET-KEY, or Authorization: Basic or Bearer",
    )
    .with("reason", "key")
    .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tapeline\""))
}

/// 429, in Alpaca's words.
pub(super) fn too_many(retry_after_s: u64) -> ApiError {
    ApiError::too_many_requests("too many requests.", retry_after_s)
}

/// Whether a path belongs to Alpaca's API.
fn is_alpaca(path: &str) -> bool {
    path.starts_with("/v2/")
}

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The key that a bearer token is: `ID.SECRET`.
pub(super) fn key_of_token(token: &str) -> Option<(&str, &str)> {
    token.split_once('.')
}

/// What a request shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    Malformed,
    Key {
        id: String,
        secret: String,
    },
    /// A bearer token without a dot: not of a key.
    Token(String),
}

impl Shown {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self::read(headers).unwrap_or(Self::Malformed)
    }

    fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().map(str::to_owned));
        match (text(KEY_ID), text(SECRET)) {
            (Some(id), Some(secret)) => return Some(Self::Key { id: id.ok()?, secret: secret.ok()? }),
            (None, None) => {}
            _ => return None,
        }
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Some(Self::Nothing) };
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(match key_of_token(rest) {
                Some((id, secret)) => Self::Key { id: id.to_owned(), secret: secret.to_owned() },
                None => Self::Token(rest.to_owned()),
            });
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
            let (id, secret) = decoded.split_once(':')?;
            return Some(Self::Key { id: id.to_owned(), secret: secret.to_owned() });
        }
        None
    }
}

/// Refuses a key that is not good, and counts the rate of one that is; a request without one goes
/// on without an identity.
pub(super) fn identify(gate: &Gate, request: &Request) -> ApiResult<Option<(Arc<Identity>, Allowance)>> {
    let (path, headers) = (request.uri().path(), request.headers());
    if is_alpaca(path) && is_upgrade(headers) {
        // A stream says in its own words what is wrong with a key.
        return Ok(None);
    }
    let admitted = match Shown::of(headers) {
        Shown::Nothing => match cookie_of(request.method(), path, headers) {
            Some(cookie) => gate.tickets.of_cookie(cookie, (gate.clock)()),
            None => return Ok(None),
        },
        Shown::Key { id, secret } => gate.keys.admit(&id, &secret, (gate.clock)()),
        Shown::Malformed | Shown::Token(_) => Err(Denied),
    };
    admitted.map(Some).map_err(|Denied| {
        gate.metrics.http_refused.with_label_values(&["key"]).inc();
        unauthorized(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(headers: &[(&'static str, &str)]) -> Shown {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        Shown::of(&map)
    }

    #[test]
    fn three_header_styles_show_a_key() {
        let key = Shown::Key { id: "TLID".to_owned(), secret: "se_-cret".to_owned() };
        let basic = format!("Basic {}", STANDARD.encode("TLID:se_-cret"));
        let styles: [&[(&'static str, &str)]; 5] = [
            &[("apca-api-key-id", "TLID"), ("apca-api-secret-key", "se_-cret")],
            &[("authorization", "Bearer TLID.se_-cret")],
            &[("authorization", "bearer  TLID.se_-cret")],
            &[("authorization", &basic)],
            &[("apca-api-key-id", "TLID"), ("apca-api-secret-key", "se_-cret"), ("authorization", "Basic !")],
        ];
        for headers in styles {
            assert_eq!(shown(headers), key, "{headers:?}");
        }
    }

    #[test]
    fn what_shows_no_key_is_told_apart() {
        assert_eq!(shown(&[]), Shown::Nothing);
        assert_eq!(shown(&[("authorization", "Bearer abc")]), Shown::Token("abc".to_owned()));
        let no_colon = format!("Basic {}", STANDARD.encode("TLID"));
        let malformed: [&[(&'static str, &str)]; 6] = [
            &[("apca-api-key-id", "TLID")],
            &[("apca-api-secret-key", "x")],
            &[("authorization", "Basic !!!")],
            &[("authorization", &no_colon)],
            &[("authorization", "Digest abc")],
            &[("authorization", "Bearer")],
        ];
        for headers in malformed {
            assert_eq!(shown(headers), Shown::Malformed, "{headers:?}");
        }
    }
}
