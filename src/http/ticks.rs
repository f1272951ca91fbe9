//! `POST /v1/ticks`: ticks in.
//!
//! | part of the request | what it may be |
//! |---|---|
//! | `Content-Type` | `application/json` (an array), `application/x-ndjson`, `application/msgpack` or `application/x-msgpack` |
//! | `Content-Encoding` | none, `gzip` or `zstd` |
//! | `Idempotency-Key` | 1 to 255 printable ASCII characters; without one the body names the request |
//! | `Tapeline-Lines-Key`, `-Digest`, `-First` | numbered lines: a name, the SHA-256 of the decompressed file in hex, the number of the first line (from 0) |
//! | `atomic`, `backfill`, `validate` | `true` or `false` |
//! | `ack` | `region` or `global`; where a node is the only region, the two are the same |
//!
//! A body that can be read is answered 200 with counts, the position, and a verdict for each
//! refused tick, also when all are refused. One that cannot is 400 with line or byte, and
//! nothing of it is stored. 503 with `outcome: unknown` means that it may be stored: the same
//! request again is safe and tells.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::auth::Producer;
use super::inflate::{Bounds, Coding, Inflate, InflateError, Pour};
use super::{ApiError, ApiResult, App, limits};
use crate::ingest::{Ack, Answer, AppendError, Options, Request, RequestName, TakeError, Taking};
use crate::tape::Refusal as TapeRefusal;
use crate::wire::{BodyError, Format, Refusal};

const LINES_KEY: &str = "tapeline-lines-key";
const LINES_DIGEST: &str = "tapeline-lines-digest";
const LINES_FIRST: &str = "tapeline-lines-first";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The most characters of a name that a client gives.
const NAME_BYTES_MAX: usize = 255;
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
    /// Why each bad one was refused.
    pub verdicts: Vec<TickVerdict>,
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
        let Answer { received, accepted, refused, position } = answer;
        Self { received, accepted, refused: refused.len(), position, verdicts: verdicts(refused) }
    }
}

fn verdicts(refused: Vec<(u32, Box<Refusal>)>) -> Vec<TickVerdict> {
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
    refused.into_iter().map(verdict).collect()
}

async fn post_ticks(
    State(app): State<Arc<App>>,
    Producer(identity): Producer,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<TicksAnswer>> {
    let metrics = &app.gate.metrics;
    let taken = take(&app, identity.account.clone(), &uri, &headers, body).await;
    metrics.ingest_in_flight_bytes.set(i64::try_from(app.intake.held_bytes()).unwrap_or(i64::MAX));
    let outcome = match &taken {
        Ok(_) => "answered",
        Err(error) => error.outcome(),
    };
    metrics.ingest_requests.with_label_values(&[outcome]).inc();
    if let Ok(answer) | Err(Failure::Take(TakeError::NotAll(answer))) = &taken {
        metrics.ingest_ticks.with_label_values(&["accepted"]).inc_by(answer.accepted as u64);
        metrics.ingest_ticks.with_label_values(&["refused"]).inc_by(answer.refused.len() as u64);
    }
    Ok(Json(taken.map(TicksAnswer::from)?))
}

async fn take(
    app: &App,
    account: String,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Answer, Failure> {
    let http = &app.gate.config.http;
    let options = options(uri)?;
    let (format, coding) = (format(headers)?, coding(headers)?);
    let name = name(headers)?;
    let announced = content_length(headers);
    if announced > http.body_bytes_max {
        return Err(Failure::Inflate(InflateError::Sent(http.body_bytes_max)));
    }
    let bounds = Bounds {
        sent_max: http.body_bytes_max,
        bytes_max: http.body_decompressed_bytes_max,
        ratio_max: usize::try_from(http.body_ratio_max).unwrap_or(usize::MAX),
    };
    let request = Request { account, name, format, options, expected_bytes: announced };
    let mut taking = app.intake.begin(request, (app.gate.clock)()).map_err(Failure::Take)?;
    taking.hold(coding.window_bytes(bounds.bytes_max)).map_err(Failure::Take)?;
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

fn options(uri: &Uri) -> ApiResult<Options> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| ApiError::bad_request("the query cannot be read"))?;
    let mut options = Options::default();
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in &query.0 {
        let flag = match name.as_str() {
            "atomic" => Some(&mut options.atomic),
            "backfill" => Some(&mut options.backfill),
            "validate" => Some(&mut options.validate),
            "ack" => None,
            _ => return Err(ApiError::bad_request(format!("unexpected parameter(s): {name}"))),
        };
        if seen.contains(&name.as_str()) {
            return Err(ApiError::bad_field(name, value, "given once"));
        }
        seen.push(name);
        match (flag, value.as_str()) {
            (Some(flag), "true") => *flag = true,
            (Some(flag), "false") => *flag = false,
            (Some(_), _) => return Err(ApiError::bad_field(name, value, "true or false")),
            (None, "region") => options.ack = Ack::Region,
            (None, "global") => options.ack = Ack::Global,
            (None, _) => return Err(ApiError::bad_field(name, value, "region or global")),
        }
    }
    Ok(options)
}

/// A header's text; a second header of the name, or one that is no printable ASCII, is an error.
fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> ApiResult<Option<&'h str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::bad_field(name, "", "given once"));
    }
    let text = value.to_str().map_err(|_| ApiError::bad_field(name, "", "printable ASCII"))?;
    Ok(Some(text.trim()))
}

fn format(headers: &HeaderMap) -> ApiResult<Format> {
    const OFFERED: &str = "application/json, application/x-ndjson or application/msgpack";
    let given = text(headers, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-ndjson" => Ok(Format::NdJson),
        "application/msgpack" | "application/x-msgpack" => Ok(Format::MsgPack),
        _ => Err(unsupported("Content-Type", given, OFFERED)),
    }
}

fn coding(headers: &HeaderMap) -> ApiResult<Coding> {
    let given = text(headers, header::CONTENT_ENCODING.as_str())?.unwrap_or_default();
    Coding::parse(given).ok_or_else(|| unsupported("Content-Encoding", given, "gzip or zstd"))
}

fn unsupported(name: &'static str, given: &str, offered: &str) -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{name} must be {offered}"))
        .with("field", name)
        .with("value", given)
        .with("expected", offered)
}

fn name(headers: &HeaderMap) -> ApiResult<RequestName> {
    let key = text(headers, IDEMPOTENCY_KEY)?;
    let lines_key = text(headers, LINES_KEY)?;
    let digest = text(headers, LINES_DIGEST)?;
    let first = text(headers, LINES_FIRST)?;
    match (key, lines_key, digest, first) {
        (None, None, None, None) => Ok(RequestName::Body),
        (Some(key), None, None, None) => named(IDEMPOTENCY_KEY, key).map(RequestName::Key),
        (None, Some(key), Some(digest), Some(first)) => {
            let number = first.parse().ok().filter(|_| first.bytes().all(|byte| byte.is_ascii_digit()));
            Ok(RequestName::Lines {
                key: named(LINES_KEY, key)?,
                digest: sha256(digest)?,
                first: number.ok_or_else(|| {
                    ApiError::bad_field(LINES_FIRST, first, "a number from 0 to 4294967295")
                })?,
            })
        }
        (Some(_), ..) => Err(ApiError::bad_request(
            "a request is named by Idempotency-Key or by the Tapeline-Lines headers, not by both",
        )),
        _ => Err(ApiError::bad_request(
            "numbered lines need all of Tapeline-Lines-Key, Tapeline-Lines-Digest and Tapeline-Lines-First",
        )),
    }
}

fn named(header: &'static str, name: &str) -> ApiResult<String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits && name.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Ok(name.to_owned());
    }
    Err(ApiError::bad_field(header, name, "1 to 255 printable ASCII characters"))
}

fn sha256(text: &str) -> ApiResult<[u8; 32]> {
    let bad = || ApiError::bad_field(LINES_DIGEST, text, "a SHA-256 of 64 hexadecimal digits");
    if text.len() != 64 {
        return Err(bad());
    }
    let mut digest = [0; 32];
    for (slot, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |at: usize| pair.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let value = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        *slot = value.ok_or_else(bad)?;
    }
    Ok(digest)
}

fn content_length(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Why a request is not answered 200.
#[derive(Debug)]
enum Failure {
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
    const fn outcome(&self) -> &'static str {
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
            Failure::Inflate(error) => Self::too_large(error.to_string()),
            Failure::Take(error) => taking(error),
        }
    }
}

fn taking(error: TakeError) -> ApiError {
    let message = error.to_string();
    match error {
        TakeError::Body(BodyError::Malformed { byte, line, .. }) => {
            let error = ApiError::bad_request(message).with("reason", "unreadable").with("byte", byte);
            line.map_or(error.clone(), |line| error.with("line", line))
        }
        TakeError::Body(BodyError::TickTooLong { .. } | BodyError::TooManyTicks { .. }) => {
            ApiError::too_large(message)
        }
        TakeError::Full(_) => ApiError::unavailable("overloaded", message, 1),
        TakeError::KeyReused => {
            ApiError::unprocessable("key_reused", message).with("field", "Idempotency-Key")
        }
        TakeError::Numbering(_) => ApiError::bad_request(message).with("field", "Tapeline-Lines-First"),
        TakeError::NotAll(answer) => {
            let verdicts = serde_json::to_value(verdicts(answer.refused)).unwrap_or_default();
            ApiError::unprocessable("refused", message).with("verdicts", verdicts)
        }
        TakeError::Append(AppendError::Unknown) => ApiError::outcome_unknown(
            "the ticks were not known to be durable in time; send the same request again",
        ),
        TakeError::Append(AppendError::Refused(refusal)) => match refusal {
            TapeRefusal::Full { .. } => ApiError::unavailable("overloaded", message, 1),
            TapeRefusal::TooLarge { .. } => ApiError::too_large(message),
            TapeRefusal::Stopped(_) => ApiError::unavailable("disk", message, 5),
            TapeRefusal::Draining => ApiError::unavailable("draining", message, 1),
        },
    }
}
