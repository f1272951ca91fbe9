//! What is around all routes of a door: request id, rate of the address, time, log and metrics,
//! the headers of every answer, and the envelope around whatever is not JSON yet.

use std::any::Any;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_http::compression::predicate::{
    And, DefaultPredicate, NotForContentType, Predicate as _, SizeAbove,
};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::CorsLayer;

use super::activity::{Activity, AnswerBody};
use super::error::{ApiError, ApiResult};
use super::limits::InFlight;
use super::{Gate, auth, cors, limits, ops};
use crate::access::{Allowance, Identity};
use crate::telemetry::logs;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const REQUEST_ID_CHARACTERS_MAX: usize = 64;
/// More than any plain text that a library answers by itself.
const PLAIN_BYTES_MAX: usize = 4_096;

/// Lines that go out one by one: compressed they would wait for each other.
const LINES: NotForContentType = NotForContentType::const_new("application/x-ndjson");

/// The headers that every answer has, unless its handler set them.
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-site")),
];

/// Which door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everyone with a key.
    Public,
    /// Operators.
    Admin,
}

/// What an answer holds until it was sent or dropped.
#[derive(Clone)]
pub(super) struct Kept(#[expect(dead_code, reason = "it is held, not read")] Arc<dyn Any + Send + Sync>);

impl Kept {
    pub(super) fn new(held: impl Any + Send + Sync) -> Self {
        Self(Arc::new(held))
    }
}

/// What is around the routes of one door.
struct Around {
    gate: Arc<Gate>,
    door: Door,
    cors: Option<CorsLayer>,
    compression: CompressionLayer<And<And<DefaultPredicate, SizeAbove>, NotForContentType>>,
}

/// Puts everything around the routes of a door. It is one layer: each layer of a router costs every
/// request a copy of what is below it, and ten of them cost more than the answer.
pub fn guarded(routes: Router, gate: Arc<Gate>, door: Door) -> Router {
    let routes = routes.fallback(no_route).method_not_allowed_fallback(no_method);
    let size = SizeAbove::new(gate.config.http.compress_bytes_min);
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(DefaultPredicate::new().and(size).and(LINES));
    let cors = cors::layer(&gate.config.http.cors_origins).filter(|_| door == Door::Public);
    let around = Arc::new(Around { gate, door, cors, compression });
    routes.layer(middleware::from_fn_with_state(around, observe))
}

/// 404 of a path that is no route.
async fn no_route(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no {}", uri.path())).with("reason", "no_route")
}

/// 405; the router adds `Allow`.
async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not offered for {}", uri.path()))
        .with("reason", "no_method")
}

fn panicked(gate: &Gate, panic: &(dyn Any + Send)) -> Response {
    gate.metrics.http_panics.inc();
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown");
    ApiError::internal(&format!("a handler panicked: {text}")).into_response()
}

/// Makes the one envelope of an error that a library answered as plain text or without a body.
async fn enveloped(response: Response) -> Response {
    let status = response.status();
    let is_json =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, PLAIN_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let reason = status.canonical_reason().unwrap_or("error").to_lowercase();
    let message = if text.trim().is_empty() { reason } else { text.trim().to_owned() };
    let mut response = ApiError::new(status, message).into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            response.headers_mut().append(name, value.clone());
        }
    }
    *response.extensions_mut() = parts.extensions;
    response
}

/// A body of more bytes than this is not read to its end only to refuse its request.
const LONG_BODY_BYTES: u64 = 64 * 1024;

/// What is learnt of a request while it is answered.
#[derive(Default)]
struct Known {
    identity: Option<Arc<Identity>>,
    allowance: Option<Allowance>,
    in_flight: Option<InFlight>,
}

/// The outermost of it: the rate of the address, the headers of every answer, log and metrics.
async fn observe(State(around): State<Arc<Around>>, request: Request, next: Next) -> Response {
    let gate = &*around.gate;
    let started = gate.mono.elapsed();
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let id: Arc<str> = request_id(&request).into();
    let exchange = request.extensions().get::<Arc<Activity>>().map(Activity::begin);
    let method = request.method().clone();
    let long_body =
        http_body::Body::size_hint(request.body()).upper().is_none_or(|bytes| bytes > LONG_BODY_BYTES);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);

    let of_address = gate.sources.check(address);
    let mut known = Known::default();
    let mut response = match of_address.retry_after_s {
        Some(seconds) => {
            gate.metrics.http_refused.with_label_values(&["address_rate"]).inc();
            if auth::is_upgrade(request.headers()) {
                // SDKs of streams give up for good at a 4xx.
                ApiError::unavailable("address_rate", "too many connections from this address", seconds)
                    .into_response()
            } else {
                auth::too_many(seconds).into_response()
            }
        }
        None => answered(&around, request, next, &id, &mut known).await,
    };

    dress(&mut response, &id, known.allowance.unwrap_or(of_address), gate);
    if long_body && (response.status().is_client_error() || response.status().is_server_error()) {
        // Refused before its body was read: the connection cannot be used again, and says so.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let seconds = gate.mono.elapsed().saturating_sub(started).as_secs_f64();
    let status = response.status();
    gate.metrics.http_requests.with_label_values(&[route, metric_method(&method), status.as_str()]).inc();
    gate.metrics.http_request_seconds.with_label_values(&[route]).observe(seconds);
    tracing::info!(
        %method,
        route,
        status = status.as_u16(),
        duration_ms = seconds * 1_000.0,
        request_id = &*id,
        key_id = known.identity.as_ref().map_or("", |identity| &identity.key_id),
        "request"
    );
    let held = (known.in_flight, response.extensions_mut().remove::<Kept>());
    response.map(|body| Body::new(AnswerBody::new(body, exchange, held)))
}

/// The answer of what is inside, within its time. What is logged on the way names the request.
async fn answered(
    around: &Arc<Around>,
    request: Request,
    next: Next,
    id: &Arc<str>,
    known: &mut Known,
) -> Response {
    let gate = &around.gate;
    if let Err(error) = limits::check_head(gate, &request) {
        return error.into_response();
    }
    let method = request.method().clone();
    let time = Duration::from_millis(gate.config.http.request_ms);
    let inside = async {
        match &around.cors {
            None => inside(around, request, next, id, known).await,
            // Preflights are answered before any key is looked at.
            Some(cors) => {
                let guarded = once(|request| inside(around, request, next, id, known));
                cors.layer(guarded).oneshot(request).await.unwrap_or_else(|never| match never {})
            }
        }
    };
    // Pinned here: on its way into the timeout it would be copied as often as it is passed on.
    let inside = pin!(AssertUnwindSafe(inside).catch_unwind());
    match tokio::time::timeout(time, logs::naming(Arc::clone(id), inside)).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => panicked(gate, &*panic),
        Err(_) => out_of_time(&method).into_response(),
    }
}

/// The key, the limits, and then the handler.
async fn inside(
    around: &Arc<Around>,
    mut request: Request,
    next: Next,
    id: &str,
    known: &mut Known,
) -> Response {
    if let Err(refused) = admit(around, &mut request, id, known) {
        return refused.into_response();
    }
    let request = limits::timed(&around.gate, request);
    if !request.headers().contains_key(header::ACCEPT_ENCODING) {
        return enveloped(next.run(request).await).await;
    }
    let handled = once(|request| async { enveloped(next.run(request).await).await });
    let compressed = around.compression.layer(handled).oneshot(request).await;
    compressed.unwrap_or_else(|never| match never {}).map(Body::new)
}

/// Lets a request in, or says why not. Its identity is left with it for the handler.
fn admit(around: &Around, request: &mut Request, id: &str, known: &mut Known) -> ApiResult<()> {
    let gate = &around.gate;
    let admitted = match around.door {
        Door::Public => auth::identify(gate, request)?,
        Door::Admin => {
            ops::identify(gate, request, id)?;
            None
        }
    };
    if let Some((identity, allowance)) = admitted {
        known.identity = Some(Arc::clone(&identity));
        known.allowance = Some(allowance);
        if let Some(seconds) = allowance.retry_after_s {
            gate.metrics.http_refused.with_label_values(&["key_rate"]).inc();
            return Err(auth::too_many(seconds));
        }
        request.extensions_mut().insert(identity);
    }
    known.in_flight = limits::admit(gate, request)?;
    Ok(())
}

/// This call as the service that a library's layer wants.
fn once<A: Future<Output = Response> + Send>(
    call: impl FnOnce(Request) -> A,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> {
    let mut call = Some(call);
    service_fn(move |request| {
        let called = call.take().map(|call| call(request));
        async {
            Ok(match called {
                Some(called) => called.await,
                None => ApiError::internal("a layer has called twice").into_response(),
            })
        }
    })
}

fn out_of_time(method: &Method) -> ApiError {
    let error = ApiError::new(StatusCode::GATEWAY_TIMEOUT, "the request took too long");
    let error = error.with("reason", "request_time");
    if method.is_safe() { error } else { error.with("outcome", "unknown") }
}

/// The headers that every answer has.
fn dress(response: &mut Response<Body>, id: &str, allowance: Allowance, gate: &Gate) {
    let now_s = u64::try_from((gate.clock)().0 / 1_000_000_000).unwrap_or(0);
    let headers = response.headers_mut();
    // At once, and not in steps.
    headers.reserve(ALWAYS.len() + 4);
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(LIMIT, allowance.limit.into());
    headers.insert(REMAINING, allowance.remaining.into());
    headers.insert(RESET, (now_s + allowance.reset_s).into());
}

/// The client's own id where it is a plain word, else a new one of 128 random bits.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |text: &&str| {
        (1..=REQUEST_ID_CHARACTERS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    given.filter(plain).map_or_else(new_request_id, str::to_owned)
}

pub(super) fn new_request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The method as a label: what clients make up must not make new series.
fn metric_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
