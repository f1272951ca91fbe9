//! The one error envelope, and from every failure to its status.
//!
//! `{"code": 40010001, "message": "…", "reason": "…", "field": "…", "value": "…",
//! "expected": "…", "outcome": "…"}`: code and message always, the others where they apply.
//! The code is the status times 100,000 plus a number, as Alpaca does it.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::access::{AccessError, TicketError};
use crate::history::ReadError;
use crate::store::{StoreError, StoreErrorKind};
use crate::subs::{SubsError, TooMany};
use crate::wire::beginning;

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
            .with("value", beginning(value))
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

    /// Whether what was asked may have happened.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.details.iter().any(|(name, value)| *name == "outcome" && value == "unknown")
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

impl From<SubsError> for ApiError {
    fn from(error: SubsError) -> Self {
        let message = error.to_string();
        match error {
            SubsError::Store(error) => error.into(),
            SubsError::NoSuch(_) => Self::not_found(message).with("reason", "no_subscription"),
            SubsError::Full { limit, most } => Self::unprocessable("limit", message)
                .with("field", limit)
                .with("expected", format!("at most {most} subscriptions")),
            SubsError::KeyReused => {
                Self::unprocessable("key_reused", message).with("field", "Idempotency-Key")
            }
            SubsError::Deleted => Self::new(StatusCode::CONFLICT, message)
                .with("reason", "deleted")
                .with("field", "Idempotency-Key"),
            SubsError::Unwritten(detail) => Self::internal(&detail),
        }
    }
}

impl From<TooMany> for ApiError {
    fn from(error: TooMany) -> Self {
        Self::bad_request(error.to_string())
            .with("reason", "limit")
            .with("field", "subs.feed_symbols_max")
            .with("expected", format!("at most {} symbols together", error.most))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Unknown => {
                tracing::warn!(detail = error.detail, "the store did not answer in time");
                Self::new(StatusCode::GATEWAY_TIMEOUT, "the store did not answer in time")
                    .with("reason", "store")
            }
            StoreErrorKind::Refused => Self::unavailable("store", error.detail, 5),
            StoreErrorKind::Invalid => Self::internal(&error.detail),
            StoreErrorKind::Corrupt => corrupt(&error.detail),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            // What is done to keys is written: it may have happened.
            AccessError::Store(error) if error.kind == StoreErrorKind::Unknown => {
                Self::from(error).with("outcome", "unknown")
            }
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

impl From<TicketError> for ApiError {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::Denied => {
                Self::new(StatusCode::UNAUTHORIZED, error.to_string()).with("reason", "ticket")
            }
            TicketError::Full(_) => Self::unavailable("tickets_max", error.to_string(), 1),
            TicketError::Access(error) => error.into(),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::CatchingUp => Self::unavailable("catching_up", "history catching up", 1),
            error @ ReadError::Busy(_) => Self::unavailable("busy", error.to_string(), 1),
            // Another node may be of that program.
            ReadError::Newer(detail) => Self::unavailable("newer_program", detail, 5),
            ReadError::Corrupt(detail) => corrupt(&detail),
            ReadError::Store(error) => error.into(),
        }
    }
}

/// 501: what is asked for cannot be served, and will not be by asking again. Each of 500, 502,
/// 503 and 504 is asked again by some client, up to ten times; a 4xx would blame the client, and
/// be missed by whoever watches for failures of the server.
fn corrupt(detail: &str) -> ApiError {
    tracing::error!(detail, "stored data is damaged");
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "stored data is damaged; run tapeline verify")
        .with("reason", "corrupt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_store_is_answered_by_what_a_client_can_do() {
        let read = |error: StoreError| ApiError::from(ReadError::Store(error));
        let write = |error: StoreError| ApiError::from(AccessError::Store(error));
        let cases = [
            (read(StoreError::unknown("disk0 is slow")), 504, Some("store"), None, None),
            (write(StoreError::unknown("disk0 is slow")), 504, Some("store"), Some("unknown"), None),
            (read(StoreError::refused("the disk is full")), 503, Some("store"), None, Some("5")),
            (ApiError::from(ReadError::CatchingUp), 503, Some("catching_up"), None, Some("1")),
            (read(StoreError::new(StoreErrorKind::Corrupt, "block 7")), 501, Some("corrupt"), None, None),
            (ApiError::from(ReadError::Corrupt("block 7".to_owned())), 501, Some("corrupt"), None, None),
            (
                ApiError::from(ReadError::Newer("frame 1".to_owned())),
                503,
                Some("newer_program"),
                None,
                Some("5"),
            ),
            (read(StoreError::invalid("block 7")), 500, None, None, None),
        ];
        for (error, status, reason, outcome, retry_after) in cases {
            assert_eq!((error.status().as_u16(), error.reason()), (status, reason), "{error:?}");
            assert!(!error.body().contains("disk0") && !error.body().contains("block"), "{error:?}");
            let body: Value = serde_json::from_str(&error.body()).unwrap();
            assert_eq!(body["outcome"].as_str(), outcome, "{error:?}");
            let response = error.into_response();
            let header = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(header, retry_after);
        }
    }
}
