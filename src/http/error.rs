//! The one error envelope, and from every failure to its status.
//!
//! `{"code": 40010001, "message": "…", "reason": "…", "field": "…", "value": "…",
//! "expected": "…", "outcome": "…"}`: code and message always, the others where they apply.
//! The code is the status times 100,000 plus a number, as Alpaca does it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::store::{StoreError, StoreErrorKind};

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    number: u32,
    message: String,
    details: Vec<(&'static str, Value)>,
    retry_after_s: Option<u64>,
}

/// A handler's result.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error with this status and message. For 429 and 503 use [`Self::too_many`] and
    /// [`Self::unavailable`], which say when to come again.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, number: 0, message: message.into(), details: Vec::new(), retry_after_s: None }
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
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with("reason", reason);
        error.retry_after_s = Some(retry_after_s.max(1));
        error
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
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        let code = u32::from(self.status.as_u16()) * 100_000 + self.number;
        body.insert("code".to_owned(), code.into());
        body.insert("message".to_owned(), self.message.into());
        for (name, value) in self.details {
            body.insert(name.to_owned(), value);
        }
        let mut response = (self.status, Json(Value::Object(body))).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
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
            StoreErrorKind::Corrupt => {
                tracing::error!(detail = error.detail, "stored data is damaged");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "stored data is damaged; run tapeline verify")
                    .with("reason", "corrupt")
            }
        }
    }
}

/// At most 64 characters of what a client sent.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
