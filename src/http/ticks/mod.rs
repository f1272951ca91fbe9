//! `POST /v1/ticks`: ticks in.
//!
//! | part of the request | what it may be |
//! |---|---|
//! | `Content-Type` | `application/json` (an array), `application/x-ndjson`, `application/msgpack` or `application/x-msgpack` |
//! | `Content-Encoding` | none, `gzip` or `zstd` |
//! | `Idempotency-Key` | 1 to 255 printable ASCII characters; without one the body names the request |
//! | `Tapeline-Lines-Key`, `-Digest`, `-First` | numbered lines: a name, the SHA-256 of the decompressed file in hex, the number of the first line (from 0) |
//! | `atomic`, `backfill`, `validate` | `true` or `false` |
//! | `ack` | `region`, or `global`: answered when the ticks are durable in every region |
//!
//! A body that can be read is answered 200 with counts, the position, and a verdict for each
//! refused tick (of many the first, and how many more), also when all are refused. With
//! `validate` nothing is stored, and the answer says what a request without it would be
//! answered. One that cannot is 400 with line or byte, and
//! nothing of it is stored. 503 with `outcome: unknown` means that it may be stored: the same
//! request again is safe and tells. With `ack=global` it has `durable: region` where the ticks are
//! stored in this region and not known to be in each.

mod ask;
mod failure;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::auth::Producer;
use super::inflate::{Bounds, Inflate, InflateError, Pour};
use super::layers::Kept;
use super::{ApiError, App, limits};
use crate::config;
use crate::ingest::{Answer, Intake, Request, TakeError, Taking};
use crate::market::Nanos;
use crate::wire::Refusal;
use ask::Ask;
use failure::Failure;

pub use super::params::IDEMPOTENCY_KEY;
pub use ask::{LINES_DIGEST, LINES_FIRST, LINES_KEY};

/// How much is decompressed before other requests have their turn.
const TURN_BYTES: usize = 16 * 1024;

/// The routes of this door.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/ticks", post(post_ticks))
}

/// What became of a request's ticks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicksAnswer {
    /// Ticks in the body.
    pub received: usize,
    /// Good ones; they are stored unless `validate` was asked for.
    pub accepted: usize,
    /// Bad ones.
    pub refused: usize,
    /// By which a read can wait for these ticks (`after`); null where nothing was stored.
    pub position: Option<String>,
    /// Why the first of the bad ones were refused, at most `ingest.verdicts_max`.
    pub verdicts: Vec<TickVerdict>,
    /// How many more were refused.
    pub verdicts_omitted: usize,
    /// With `validate`: what the same request without it would be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would: Option<Would>,
}

/// What a request without `validate` would be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Would {
    /// The status.
    pub status: u16,
    /// The reason, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The message of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why one tick was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickVerdict {
    /// Position in the body, from 0; of numbered lines the line's number.
    pub index: u32,
    /// The field, or `tick` where it is not one field.
    pub field: String,
    /// What it held, shortened; empty where it was missing.
    pub value: String,
    /// Why it was refused.
    pub why: String,
    /// What would be right.
    pub expected: String,
}

impl From<Answer> for TicksAnswer {
    fn from(answer: Answer) -> Self {
        let would = answer.fate.clone().map(|fate| failure::would(fate, &answer));
        let Answer { received, accepted, refused, position, verdicts: told, .. } = answer;
        let verdicts_omitted = refused.saturating_sub(told.len());
        Self { received, accepted, refused, position, verdicts: verdicts(told), verdicts_omitted, would }
    }
}

pub(super) fn verdicts(told: Vec<(u32, Box<Refusal>)>) -> Vec<TickVerdict> {
    let verdict = |(index, refusal): (u32, Box<Refusal>)| {
        let Refusal { field, value, why, expected } = *refusal;
        TickVerdict {
            index,
            field: field.into(),
            value: value.into(),
            why: why.into_owned(),
            expected: expected.into_owned(),
        }
    };
    told.into_iter().map(verdict).collect()
}

async fn post_ticks(
    State(app): State<Arc<App>>,
    Producer(identity): Producer,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let metrics = &app.gate.metrics;
    let http = &app.gate.config.http;
    let mut taken = match Ask::read(&uri, &headers, app.gate.config.regions().len()) {
        Ok(ask) => take(&app.intake, http, (app.gate.clock)(), &identity.account, ask, body).await,
        Err(error) => Err(Failure::Asked(error)),
    };
    metrics.ingest_in_flight_bytes.set(i64::try_from(app.intake.held_bytes()).unwrap_or(i64::MAX));
    let outcome = match &taken {
        Ok(_) => "answered",
        Err(error) => error.outcome(),
    };
    metrics.ingest_requests.with_label_values(&[outcome]).inc();
    let answer = match &mut taken {
        Ok(answer) => Some(answer),
        Err(Failure::Take(TakeError::NotAll(answer))) => Some(&mut **answer),
        Err(_) => None,
    };
    let mut share = None;
    if let Some(answer) = answer {
        metrics.ingest_ticks.with_label_values(&["accepted"]).inc_by(answer.accepted as u64);
        metrics.ingest_ticks.with_label_values(&["refused"]).inc_by(answer.refused as u64);
        share = answer.share.take();
    }
    let mut response = match taken {
        Ok(answer) => Json(TicksAnswer::from(answer)).into_response(),
        Err(failure) => ApiError::from(failure).into_response(),
    };
    if let Some(share) = share {
        response.extensions_mut().insert(Kept::new(share));
    }
    response
}

/// What failed in taking ticks in, as an answer.
pub(super) fn take_error(error: TakeError) -> ApiError {
    Failure::Take(error).into()
}

/// Takes a request in; `now` is the wall clock.
async fn take(
    intake: &Intake,
    http: &config::Http,
    now: Nanos,
    account: &str,
    ask: Ask,
    body: Body,
) -> Result<Answer, Failure> {
    let Ask { options, format, coding, name, announced_bytes } = ask;
    if announced_bytes > http.body_bytes_max {
        return Err(Failure::Inflate(InflateError::Sent(http.body_bytes_max)));
    }
    let bounds = Bounds {
        sent_max: http.body_bytes_max,
        bytes_max: http.body_decompressed_bytes_max,
        ratio_max: usize::try_from(http.body_ratio_max).unwrap_or(usize::MAX),
    };
    let request =
        Request { account: account.to_owned(), name, format, options, expected_bytes: announced_bytes };
    let mut taking = intake.begin(request, now).map_err(Failure::Take)?;
    taking.hold(coding.window_bytes(bounds, announced_bytes)).map_err(Failure::Take)?;
    let mut inflate = Inflate::new(coding, bounds, taking)?;
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Failure::BrokenOff(limits::body_error(&error)))?;
        for piece in chunk.chunks(TURN_BYTES) {
            inflate.push(piece)?;
            tokio::task::yield_now().await;
        }
    }
    inflate.finish()?.finish().await.map_err(Failure::Take)
}

impl Pour for Taking<'_> {
    type Error = TakeError;

    fn pour(&mut self, bytes: &[u8]) -> Result<(), TakeError> {
        self.feed(bytes)
    }
}

#[cfg(test)]
mod tests;
