//! Limits on requests: how many at once, and the time and size of a body.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tower_http::timeout::RequestBodyDeadlineLayer;

use super::Gate;
use super::error::ApiError;

/// Puts the limits around these routes.
pub(super) fn limited(routes: Router, gate: &Arc<Gate>) -> Router {
    let http = &gate.config.http;
    routes
        .layer(DefaultBodyLimit::max(http.body_bytes_max))
        .layer(middleware::map_request(with_axum_body))
        // The deadline of the whole body, not the idle time between its pieces: a body that
        // trickles would reset that for ever.
        .layer(RequestBodyDeadlineLayer::new(Duration::from_millis(http.body_ms)))
        .layer(middleware::from_fn_with_state(Arc::clone(gate), admit))
}

async fn with_axum_body<B>(request: axum::http::Request<B>) -> Request
where
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    request.map(Body::new)
}

/// One of `http.requests_in_flight_max`, or 503 at once; 413 at once for an announced body
/// that is too large.
async fn admit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let http = &gate.config.http;
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok()).unwrap_or(0);
    if announced > http.body_bytes_max {
        gate.metrics.http_refused.with_label_values(&["body_bytes"]).inc();
        return too_large(http.body_bytes_max).into_response();
    }
    let Ok(_permit) = gate.in_flight.try_acquire() else {
        gate.metrics.http_refused.with_label_values(&["in_flight"]).inc();
        return ApiError::unavailable("overloaded", "the node is busy; come again", 1).into_response();
    };
    let _counted = Counted::new(&gate);
    next.run(request).await
}

/// Counts a request until it is answered, or dropped because its time was over.
struct Counted(Arc<Gate>);

impl Counted {
    fn new(gate: &Arc<Gate>) -> Self {
        gate.metrics.http_in_flight.inc();
        Self(Arc::clone(gate))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.http_in_flight.dec();
    }
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
