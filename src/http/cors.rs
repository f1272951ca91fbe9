//! Which pages of other origins may read this API: those of `http.cors_origins`, named exactly.
//!
//! A page of a listed origin may send a key or the cookie of the chart adapter, and read the
//! headers about rate and request. Preflights are answered before any key is looked at. Without a
//! list nothing of it is there, and browsers keep pages of other origins out by themselves; from a
//! WebSocket they do not, so that its upgrade is checked by [`is_allowed_origin`].

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Headers that a page may send.
const SENT: [HeaderName; 7] = [
    HeaderName::from_static("apca-api-key-id"),
    HeaderName::from_static("apca-api-secret-key"),
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("x-request-id"),
];

/// Headers of an answer that a page may read.
const EXPOSED: [HeaderName; 6] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    header::RETRY_AFTER,
    HeaderName::from_static("x-tapeline-incomplete"),
];

/// The layer for these origins; `None` where there are none.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(SENT)
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE);
    Some(layer)
}

/// Whether a WebSocket may be opened by whoever sends these headers: what is no browser says no
/// origin, and a page of this host or of a listed origin may. `origins` is `http.cors_origins`.
#[must_use]
pub fn is_allowed_origin(headers: &HeaderMap, origins: &[String]) -> bool {
    let mut said = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (said.next(), said.next()) else {
        return !headers.contains_key(header::ORIGIN);
    };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").is_some_and(|(_, of_page)| Some(of_page) == host);
    own || origins.iter().any(|listed| listed == origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_no_browser_the_own_host_and_listed_origins() {
        let origins = ["https://charts.example".to_owned()];
        let allowed = |said: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("md.example:8443"));
            for origin in said {
                headers.append(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            is_allowed_origin(&headers, &origins)
        };
        assert!(
            allowed(&[]) && allowed(&["https://md.example:8443"]) && allowed(&["https://charts.example"])
        );
        for other in [
            "http://charts.example",
            "https://charts.example:444",
            "https://charts.example.evil",
            "https://md.example",
            "null",
            "",
        ] {
            assert!(!allowed(&[other]), "{other}");
        }
        assert!(!allowed(&["https://charts.example", "https://evil.example"]), "two are none");
        assert!(!is_allowed_origin(
            &HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://x"))]),
            &origins
        ));
    }
}
