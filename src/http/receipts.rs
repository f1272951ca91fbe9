//! `GET /v1/receipts/{Idempotency-Key}`: what became of a request that its sender named.
//!
//! | answer | meaning |
//! |---|---|
//! | 200 `"outcome":"stored"` | the ticks at `positions` are durable, `accepted` of them |
//! | 200 `"outcome":"unknown"` | as far as is known the same; more may be stored: it is under way, or ended without knowing. The same request again is safe and tells |
//! | 404 `not_seen` | nothing of it was stored since `remembered_since`; before that it may have been |
//!
//! With `stream=true` the key is that of `POST /v1/ingest`, and positions are numbers of lines.
//!
//! A request of which no tick was good has stored nothing, and is not seen. The memory is this
//! node's: it begins with its start, reaches back `tape.requests_minutes` at most, and less where
//! `tape.requests_bytes_max` cuts it short; `remembered_since` says how far.

use std::ops::Range;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::auth::Producer;
use super::params::{IDEMPOTENCY_KEY, Params, named};
use super::{ApiError, ApiResult, App};
use crate::ingest::{KeyOf, Standing};
use crate::market::Nanos;

/// Positions that an answer tells.
const POSITIONS_MAX: usize = 1_000;

/// The routes of receipts.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/receipts/{key}", get(receipt))
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptOut {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// `stored` or `unknown`.
    pub outcome: String,
    /// Ticks that are stored.
    pub accepted: u64,
    /// Where they stood in the body, ascending.
    pub positions: Vec<PositionsOut>,
    /// How many more of these spans there are.
    pub positions_omitted: usize,
    /// Since when all requests are remembered, RFC 3339.
    pub remembered_since: String,
    /// How long a request is remembered.
    pub remembered_minutes: u64,
}

/// A span of positions, both ends included, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionsOut {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

async fn receipt(
    Producer(identity): Producer,
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<ReceiptOut>> {
    let params = Params::decode(query.as_deref())?;
    params.only(&["stream"])?;
    let of = if params.switch("stream")? { KeyOf::Stream } else { KeyOf::Request };
    let key = named(IDEMPOTENCY_KEY, &key)?;
    let standing = app.intake.standing(&identity.account, &key, of);
    let minutes = app.gate.config.tape.requests_minutes;
    told(key, &standing, (app.gate.clock)(), minutes).map(Json)
}

/// The answer; `now` is the wall clock.
fn told(key: String, standing: &Standing, now: Nanos, minutes: u64) -> ApiResult<ReceiptOut> {
    let back = i64::try_from(standing.reaches_back_ms).unwrap_or(i64::MAX);
    let since = now.plus(back.saturating_mul(-1_000_000)).to_string();
    if standing.stored.is_empty() && !standing.is_open {
        let message = format!("no tick of a request with this key was stored here since {since}");
        return Err(ApiError::not_found(message)
            .with("reason", "not_seen")
            .with("remembered_since", since)
            .with("remembered_minutes", minutes));
    }
    let span = |range: &Range<u32>| PositionsOut { first: range.start, last: range.end.saturating_sub(1) };
    Ok(ReceiptOut {
        key,
        outcome: if standing.is_open { "unknown" } else { "stored" }.to_owned(),
        accepted: standing.stored.iter().map(|range| u64::from(range.end) - u64::from(range.start)).sum(),
        positions: standing.stored.iter().take(POSITIONS_MAX).map(span).collect(),
        positions_omitted: standing.stored.len().saturating_sub(POSITIONS_MAX),
        remembered_since: since,
        remembered_minutes: minutes,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::openapi::testing::assert_documented;

    fn answer(stored: Vec<Range<u32>>, is_open: bool) -> (u16, Value) {
        let now = Nanos::parse(b"2024-01-03T15:00:00Z").unwrap();
        let standing = Standing { stored, is_open, reaches_back_ms: 90_000 };
        let (status, body) = match told("k".to_owned(), &standing, now, 10) {
            Ok(receipt) => (200, serde_json::to_value(receipt).unwrap()),
            Err(error) => (error.status().as_u16(), serde_json::from_str(&error.body()).unwrap()),
        };
        assert_documented("get", "/v1/receipts/k", status, &body);
        (status, body)
    }

    #[test]
    fn stored_unknown_and_not_seen() {
        let (status, stored) = answer(vec![0..50, 60..61], false);
        let expected = json!({
            "key": "k", "outcome": "stored", "accepted": 51, "positions_omitted": 0,
            "positions": [{"first": 0, "last": 49}, {"first": 60, "last": 60}],
            "remembered_since": "2024-01-03T14:58:30Z", "remembered_minutes": 10,
        });
        assert_eq!((status, stored), (200, expected));
        let (status, unknown) = answer(Vec::new(), true);
        assert_eq!((status, &unknown["outcome"], &unknown["accepted"]), (200, &json!("unknown"), &json!(0)));
        let (status, unseen) = answer(Vec::new(), false);
        assert_eq!((status, &unseen["reason"]), (404, &json!("not_seen")));
        assert_eq!(unseen["remembered_since"], "2024-01-03T14:58:30Z");
        let many = (0..1_500).map(|at| at * 2..at * 2 + 1).collect();
        let (_, many) = answer(many, false);
        assert_eq!((&many["accepted"], &many["positions_omitted"]), (&json!(1_500), &json!(500)));
    }
}
