//! `POST /v1/stream/ticket`: what a browser, whose `EventSource` and `WebSocket` send no headers of
//! its own, shows instead of a key.
//!
//! `{"ticket":"k1.…","expires_in_s":30}`: the ticket opens one stream within that time
//! ([`crate::access::Tickets`] says how a stream's handler takes it). It goes into the stream's URL;
//! what a log keeps of it is worth nothing any more. With `{"cookie":true}` the answer sets a cookie
//! too, out of reach of scripts, for the chart adapter: it is taken on `GET /udf/…` alone, where
//! nothing can be changed, and read by pages of listed origins alone.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;

use super::auth::Subscriber;
use super::types::from_json;
use super::{ApiError, ApiResult, Gate};
use crate::access::Identity;

/// The cookie's name.
const COOKIE: &str = "tapeline_udf";
/// Where a cookie is sent by browsers, and taken.
const COOKIE_PATH: &str = "/udf";
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What may be asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TicketIn {
    /// Whether a cookie is wanted too.
    cookie: bool,
}

pub(super) fn routes(gate: Arc<Gate>) -> Router {
    Router::new().route("/v1/stream/ticket", post(ticket)).with_state(gate)
}

async fn ticket(
    Subscriber(identity): Subscriber,
    State(gate): State<Arc<Gate>>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<Response> {
    let ask: TicketIn = if body.is_empty() { TicketIn::default() } else { from_json(&body)? };
    let (ticket, expires_in_s) = gate.tickets.issue(&identity, (gate.clock)())?;
    let answer = Json(serde_json::json!({"ticket": ticket, "expires_in_s": expires_in_s}));
    let mut response = answer.into_response();
    if ask.cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie_for(&gate, &identity, &headers)?);
    }
    Ok(response)
}

fn cookie_for(gate: &Gate, identity: &Identity, headers: &HeaderMap) -> ApiResult<HeaderValue> {
    let (value, seconds) = gate.tickets.cookie(identity, (gate.clock)());
    // A client that makes the header up has its own cookie kept from plain HTTP.
    let secure = gate.config.http.tls_cert.is_some()
        || headers.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    let listed = |origin: &HeaderValue| gate.config.http.cors_origins.iter().any(|listed| origin == listed);
    let sites = sites(secure, headers.get(header::ORIGIN).is_some_and(listed));
    let text = format!("{COOKIE}={value}; Path={COOKIE_PATH}; Max-Age={seconds}; HttpOnly; {sites}");
    HeaderValue::from_str(&text).map_err(|error| ApiError::internal(&error.to_string()))
}

/// From which pages a browser sends the cookie: those of this site, or over TLS that of a listed origin
/// that asked for it, which may be of another site. There the cookie is that page's own.
const fn sites(secure: bool, is_listed: bool) -> &'static str {
    match (secure, is_listed) {
        (true, true) => "SameSite=None; Secure; Partitioned",
        (true, false) => "SameSite=Strict; Secure",
        (false, _) => "SameSite=Strict",
    }
}

/// The value of the cookie that a request shows, where such a request may be made with one.
pub(super) fn cookie_of<'a>(method: &Method, path: &str, headers: &'a HeaderMap) -> Option<&'a str> {
    let below = path.strip_prefix(COOKIE_PATH).is_some_and(|rest| rest.starts_with('/'));
    if !below || !(method == Method::GET || method == Method::HEAD) {
        return None;
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_of_this_site_but_for_a_listed_page_over_tls() {
        assert_eq!(sites(true, true), "SameSite=None; Secure; Partitioned");
        for (secure, is_listed) in [(true, false), (false, true), (false, false)] {
            assert!(sites(secure, is_listed).starts_with("SameSite=Strict"), "{secure} {is_listed}");
        }
    }

    #[test]
    fn a_cookie_is_taken_where_nothing_changes() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("a=b; tapeline_udf=u1.x"));
        let found = |method: &Method, path: &str| cookie_of(method, path, &headers);
        assert_eq!(found(&Method::GET, "/udf/history"), Some("u1.x"));
        assert_eq!(found(&Method::HEAD, "/udf/config"), Some("u1.x"));
        for (method, path) in [
            (Method::POST, "/udf/history"),
            (Method::GET, "/udf"),
            (Method::GET, "/udfx/history"),
            (Method::GET, "/v1/symbols"),
            (Method::GET, "/v2/udf/x"),
        ] {
            assert_eq!(found(&method, path), None, "{method} {path}");
        }
        assert_eq!(cookie_of(&Method::GET, "/udf/config", &HeaderMap::new()), None);
    }
}
