//! Limits on requests: how many at once, and the time and size of a body.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;
use tower_http::timeout::DeadlineBody;

use super::Gate;
use super::error::{ApiError, ApiResult};

/// The route whose requests last as long as their producer.
pub(super) const LASTING: &str = "/v1/ingest";

/// Whether a request lasts as long as its client, or waits for something to come. It holds no place
/// among the requests in flight, and has limits of its own: for producers their number, memory and
/// silence, for streams `http.connections_max`, `live.streams_per_key_max` and the outbox.
fn lasts(path: &str) -> bool {
    let is_poll = path.starts_with("/v1/subscriptions/") && path.ends_with("/events");
    path == LASTING || path == "/v1/stream" || is_poll
}

/// A request whose body has its limits of size and time. The deadline is that of the whole body, not
/// the idle time between its pieces: a body that trickles would reset that for ever.
pub(super) fn timed(gate: &Gate, mut request: Request) -> Request {
    if http_body::Body::is_end_stream(request.body()) {
        return request;
    }
    let http = &gate.config.http;
    DefaultBodyLimit::max(http.body_bytes_max).apply(&mut request);
    if lasts(request.uri().path()) {
        return request;
    }
    let time = Duration::from_millis(http.body_ms);
    request.map(|body| Body::new(DeadlineBody::new(time, body)))
}

/// One of `http.requests_in_flight_max`, or 503 at once; 413 at once for an announced body
/// that is too large. A request that lasts needs none.
pub(super) fn admit(gate: &Arc<Gate>, request: &Request) -> ApiResult<Option<InFlight>> {
    if lasts(request.uri().path()) {
        return Ok(None);
    }
    let http = &gate.config.http;
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok()).unwrap_or(0);
    if announced > http.body_bytes_max {
        gate.metrics.http_refused.with_label_values(&["body_bytes"]).inc();
        return Err(too_large(http.body_bytes_max));
    }
    let Ok(permit) = Arc::clone(&gate.in_flight).try_acquire_owned() else {
        gate.metrics.http_refused.with_label_values(&["in_flight"]).inc();
        return Err(ApiError::unavailable("overloaded", "the node is busy; come again", 1));
    };
    Ok(Some(InFlight::new(gate, permit)))
}

/// One of the requests in flight, until its answer was taken to the end, or it was dropped. The
/// answer's body carries it out.
pub(super) struct InFlight {
    gate: Arc<Gate>,
    _permit: OwnedSemaphorePermit,
}

impl InFlight {
    fn new(gate: &Arc<Gate>, permit: OwnedSemaphorePermit) -> Self {
        gate.metrics.http_in_flight.inc();
        Self { gate: Arc::clone(gate), _permit: permit }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gate.metrics.http_in_flight.dec();
    }
}

/// 414 for a URI, 431 for headers above their limits. HTTP/2 has no request line; its
/// pseudo-headers count as one would.
pub(super) fn check_head(gate: &Gate, request: &Request) -> Result<(), ApiError> {
    let http = &gate.config.http;
    let refused = |reason: &'static str, status, message: String, expected: String| {
        gate.metrics.http_refused.with_label_values(&[reason]).inc();
        Err(ApiError::new(status, message).with("reason", reason).with("expected", expected))
    };
    let uri = request.uri();
    let target_bytes = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target_bytes > http.uri_bytes_max {
        let message = format!("the URI has {target_bytes} bytes");
        let expected = format!("at most {} bytes", http.uri_bytes_max);
        return refused("uri_bytes", StatusCode::URI_TOO_LONG, message, expected);
    }
    let headers = request.headers();
    // Method, blanks, version and line ends; a colon, a blank and a line end.
    let line = request.method().as_str().len() + target_bytes + 12;
    let bytes =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + line;
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    if bytes > http.header_bytes_max {
        let message = format!("request line and headers have {bytes} bytes");
        return refused("header_bytes", status, message, format!("at most {} bytes", http.header_bytes_max));
    }
    if headers.len() > http.headers_max {
        let message = format!("the request has {} headers", headers.len());
        return refused("headers", status, message, format!("at most {}", http.headers_max));
    }
    Ok(())
}

/// 413 for a body as sent.
pub fn too_large(bytes_max: usize) -> ApiError {
    ApiError::too_large(format!("the body is larger than {bytes_max} bytes"))
        .with("reason", "body_bytes")
        .with("expected", format!("at most {bytes_max} bytes"))
}

/// What a failed read of a body means: 408 when its deadline passed, else 400.
#[must_use]
pub fn body_error(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<tower_http::timeout::TimeoutError>() {
            return ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
                .with("reason", "body_time");
        }
        if error.is::<http_body_util::LengthLimitError>() {
            return ApiError::too_large("the body is too large").with("reason", "body_bytes");
        }
        cause = error.source();
    }
    ApiError::bad_request("the body could not be read to its end").with("reason", "body_cut")
}
