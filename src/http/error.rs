//! The one error envelope, and from every failure to its status.
//!
//! `{"code": 40010001, "message": "…", "reason": "…", "field": "…", "value": "…",
//! "expected": "…", "outcome": "…"}`: code and message always, the others where they apply.
//! The code is the status times 100,000 plus a number, as Alpaca does it.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::access::AccessError;
use crate::history::ReadError;
use crate::store::{StoreError, StoreErrorKind};

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    number: u32,
    message: String,
    details: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A handler's result.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error with this status and message. For 429 and 503 use [`Self::too_many_requests`]
    /// and [`Self::unavailable`], which say when to come again.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, number: 0, message: message.into(), details: Vec::new(), headers: Vec::new() }
    }

    /// 400 with a message of Alpaca's style, such as `invalid symbol: X`.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400 that names field, value and what would be right.
    #[must_use]
    pub fn bad_field(field: &str, value: &str, expected: impl Into<String>) -> Self {
        let expected = expected.into();
        Self::bad_request(format!("invalid value for {field}: must be {expected}"))
            .with("field", field)
            .with("value", shortened(value))
            .with("expected", expected)
    }

    /// 404.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 413.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// 422 with a reason such as `key_reused`.
    #[must_use]
    pub fn unprocessable(reason: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message).with("reason", reason)
    }

    /// 503 with a reason such as `overloaded`, and after how many seconds to come again.
    #[must_use]
    pub fn unavailable(reason: &str, message: impl Into<String>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with("reason", reason).come_again(retry_after_s)
    }

    /// 429, and after how many seconds to come again.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message).with("reason", "rate").come_again(retry_after_s)
    }

    fn come_again(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// 503: it may have happened; the same request again is safe and tells.
    #[must_use]
    pub fn outcome_unknown(message: impl Into<String>) -> Self {
        Self::unavailable("unknown", message, 1).with("outcome", "unknown")
    }

    /// 500. The detail goes to the log, not to the client.
    #[must_use]
    pub fn internal(detail: &str) -> Self {
        tracing::error!(detail, "internal error");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error; the log of the node has the details")
    }

    /// The last digits of the code, to tell errors of one status apart (below 100,000).
    #[must_use]
    pub fn numbered(mut self, number: u32) -> Self {
        self.number = number;
        self
    }

    /// Adds one of the fields `reason`, `field`, `value`, `expected`, `outcome`, or another.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The reason, where there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.details.iter().find(|(name, _)| *name == "reason").and_then(|(_, value)| value.as_str())
    }

    /// The envelope.
    pub(super) fn body(&self) -> String {
        let mut body = Map::new();
        let code = u32::from(self.status.as_u16()) * 100_000 + self.number;
        body.insert("code".to_owned(), code.into());
        body.insert("message".to_owned(), self.message.as_str().into());
        for (name, value) in &self.details {
            body.insert((*name).to_owned(), value.clone());
        }
        Value::Object(body).to_string()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Unknown => Self::unavailable("store", "the store did not answer in time", 1),
            StoreErrorKind::Refused => Self::unavailable("store", error.detail, 5),
            StoreErrorKind::Invalid => Self::internal(&error.detail),
            StoreErrorKind::Corrupt => corrupt(&error.detail),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Store(error) => error.into(),
            AccessError::NoSuchKey(_) => Self::not_found(error.to_string()).with("reason", "no_such_key"),
            AccessError::Invalid { field, ref expected } => {
                Self::bad_request(error.to_string()).with("field", field).with("expected", expected.as_str())
            }
            AccessError::Full(_) => Self::unprocessable("keys_max", error.to_string()),
            AccessError::Damaged(detail) => corrupt(&detail),
            AccessError::NoRandomness(_) => Self::internal(&error.to_string()),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::CatchingUp => Self::unavailable("catching_up", "history catching up", 1),
            ReadError::Corrupt(detail) => corrupt(&detail),
            ReadError::Store(error) => error.into(),
        }
    }
}

fn corrupt(detail: &str) -> ApiError {
    tracing::error!(detail, "stored data is damaged");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "stored data is damaged; run tapeline verify")
        .with("reason", "corrupt")
}

/// At most 64 characters of what a client sent.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
