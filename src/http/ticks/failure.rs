//! From what went wrong to its answer.

use super::{Would, verdicts};
use crate::http::ApiError;
use crate::http::inflate::InflateError;
use crate::ingest::{Answer, AppendError, Fate, TakeError};
use crate::tape::Refusal as TapeRefusal;
use crate::wire::BodyError;

/// Why a request is not answered 200.
#[derive(Debug)]
pub(super) enum Failure {
    /// A header or parameter.
    Asked(ApiError),
    /// The body did not arrive.
    BrokenOff(ApiError),
    /// Its compression or its size.
    Inflate(InflateError<TakeError>),
    /// Its ticks.
    Take(TakeError),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Asked(error)
    }
}

impl From<InflateError<TakeError>> for Failure {
    fn from(error: InflateError<TakeError>) -> Self {
        match error {
            InflateError::Sink(error) => Self::Take(error),
            error => Self::Inflate(error),
        }
    }
}

impl Failure {
    /// The label of the metric.
    pub(super) const fn outcome(&self) -> &'static str {
        match self {
            Self::Asked(_) => "bad_request",
            Self::BrokenOff(_) => "broken_off",
            Self::Inflate(InflateError::Broken(_)) => "unreadable",
            Self::Inflate(_) => "too_large",
            Self::Take(error) => match error {
                TakeError::Body(BodyError::Malformed { .. }) => "unreadable",
                TakeError::Body(_)
                | TakeError::Append(AppendError::Refused(TapeRefusal::TooLarge { .. })) => "too_large",
                TakeError::Numbering(_) => "bad_request",
                TakeError::KeyReused => "key_reused",
                TakeError::NotAll(_) => "not_all",
                TakeError::Append(AppendError::Unknown) => "unknown",
                TakeError::Append(AppendError::RegionOnly) => "region_only",
                TakeError::Full(_) | TakeError::Append(AppendError::Refused(_)) => "unavailable",
            },
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Asked(error) | Failure::BrokenOff(error) => error,
            Failure::Inflate(error @ InflateError::Broken(_)) => {
                Self::bad_request(error.to_string()).with("reason", "unreadable")
            }
            Failure::Inflate(error @ InflateError::Sent(_)) => {
                Self::too_large(error.to_string()).with("reason", "body_bytes")
            }
            Failure::Inflate(error) => {
                Self::too_large(error.to_string()).with("reason", "decompressed_bytes")
            }
            Failure::Take(error) => taking(error),
        }
    }
}

/// What a request that asked for verdicts only would be answered.
pub(super) fn would(fate: Fate, answer: &Answer) -> Would {
    let (received, refused) = (answer.received, answer.refused);
    let error = match fate {
        Fate::Stored => return Would { status: 200, reason: None, message: None },
        Fate::NotAll => TakeError::NotAll(Box::new(Answer { received, refused, ..Answer::default() })),
        Fate::KeyReused => TakeError::KeyReused,
        Fate::TooLarge(refusal) => TakeError::Append(AppendError::Refused(refusal)),
    };
    let error = taking(error);
    let reason = error.reason().map(str::to_owned);
    Would { status: error.status().as_u16(), reason, message: Some(error.message().to_owned()) }
}

fn taking(error: TakeError) -> ApiError {
    let message = error.to_string();
    match error {
        TakeError::Body(BodyError::Malformed { byte, line, .. }) => {
            let error = ApiError::bad_request(message).with("reason", "unreadable").with("byte", byte);
            line.map_or(error.clone(), |line| error.with("line", line))
        }
        TakeError::Body(BodyError::TickTooLong { .. }) => {
            ApiError::too_large(message).with("reason", "tick_bytes")
        }
        TakeError::Body(BodyError::TooManyTicks { .. }) => {
            ApiError::too_large(message).with("reason", "ticks_max")
        }
        TakeError::Full(_) => ApiError::unavailable("overloaded", message, 1),
        TakeError::KeyReused => {
            ApiError::unprocessable("key_reused", message).with("field", "Idempotency-Key")
        }
        TakeError::Numbering(_) => ApiError::bad_request(message).with("field", "Tapeline-Lines-First"),
        TakeError::NotAll(answer) => {
            let omitted = answer.refused.saturating_sub(answer.verdicts.len());
            let verdicts = serde_json::to_value(verdicts(answer.verdicts)).unwrap_or_default();
            ApiError::unprocessable("refused", message)
                .with("verdicts", verdicts)
                .with("verdicts_omitted", omitted)
        }
        TakeError::Append(AppendError::Unknown) => ApiError::outcome_unknown(
            "the ticks were not known to be durable in time; send the same request again",
        ),
        TakeError::Append(AppendError::RegionOnly) => ApiError::outcome_unknown(
            "the ticks are durable in this region, and were not known to be in each; send the same request again, or ask for ack=region",
        )
        .with("durable", "region"),
        TakeError::Append(AppendError::Refused(refusal)) => match refusal {
            TapeRefusal::Full { .. } | TapeRefusal::Busy(_) => {
                ApiError::unavailable("overloaded", message, 1)
            }
            TapeRefusal::TooLarge { .. } => ApiError::too_large(message).with("reason", "frame_bytes"),
            TapeRefusal::Stopped(_) => ApiError::unavailable("store", message, 5),
            TapeRefusal::Draining => ApiError::unavailable("draining", message, 1),
        },
    }
}
