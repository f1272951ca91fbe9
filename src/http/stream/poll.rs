//! The long poll: `GET /v1/subscriptions/{id}/events?cursor=&wait=`.
//!
//! The client holds the cursor; each answer has the next. Without one it begins where the
//! subscription was created, or as far back as a stream reaches, and is told the gap.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::super::alpaca::json_answer;
use super::super::auth::Subscriber;
use super::super::params::Params;
use super::super::{ApiError, ApiResult, App};
use super::ask::{self, Wanted};
use super::sse;
use crate::live::{Codec, End, Next, Piece, Start, Taken, payload};
use crate::subs::SubsError;

/// The longest wait, in milliseconds: answered before clients and proxies that give up after 30 s do.
const WAIT_MS_MAX: usize = 25_000;
/// Where a time is looked up on the tapes an answer waits for that in any case.
const CURSOR_WITHIN: Duration = Duration::from_secs(10);
/// What comes within so long of the first ticks goes with them.
const GATHER: Duration = Duration::from_millis(5);

pub(super) async fn events(
    Subscriber(identity): Subscriber,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let params = Params::decode(query.as_deref())?;
    params.only(&["cursor", "wait"])?;
    let wait = params.number("wait", WAIT_MS_MAX)?.unwrap_or(0);
    app.streams.live.caught_up().await;
    let subscription = app.subs.get(&identity.account, &id).await?;
    let start = match params.get("cursor") {
        Some(cursor) => ask::start_of(cursor, app.reader.keyring())?,
        None => Start::Since(subscription.created),
    };
    let wanted = Wanted::of(&app, &subscription, Some(start));
    let is_held = wanted.interest.is_empty();
    let mut stream = sse::open(&app, &identity, wanted).await?;
    let bytes_max = app.gate.config.live.batch_bytes_max;
    let begun = Instant::now();
    let (mut pieces, mut bytes, mut gaps): (Vec<Arc<Piece>>, usize, Vec<Bytes>) = Default::default();
    let mut until = begun + Duration::from_millis(wait.try_into().unwrap_or(0)).max(GATHER);
    loop {
        let next = match timeout_at(until, stream.next(bytes_max - bytes)).await {
            Ok(next) => next,
            Err(_) if !is_held && stream.cursor().is_none() && begun.elapsed() < CURSOR_WITHIN => {
                until = Instant::now() + GATHER;
                continue;
            }
            Err(_) => break,
        };
        match next {
            Next::Message(Taken::Data(more)) => {
                bytes += more.iter().map(|piece| piece.bytes.len()).sum::<usize>();
                pieces.extend(more);
                if bytes >= bytes_max {
                    break;
                }
                until = Instant::now() + GATHER;
            }
            Next::Message(Taken::Control(_)) => {}
            Next::Gap(gap) => gaps.push(sse::gap_json(&gap)),
            Next::End(End::Deleted) => return Err(SubsError::NoSuch(id).into()),
            // The next poll is answered by what it says then.
            Next::End(End::Changed | End::Revoked | End::TakenOver | End::Move { .. }) => break,
        }
    }
    // A paused subscription stays where it begins, which may be a time that nobody looked up.
    let cursor = match stream.cursor().map(|cursor| cursor.token(app.reader.keyring())) {
        Some(token) => format!("\"{token}\""),
        None if is_held => "null".to_owned(),
        None => {
            return Err(ApiError::unavailable("catching_up", "where the stream begins is not known yet", 1));
        }
    };
    app.gate.metrics.live_ticks.inc_by(pieces.iter().map(|piece| u64::from(piece.ticks)).sum());
    let mut out = Vec::with_capacity(bytes + 512);
    out.extend_from_slice(b"{\"events\":");
    if pieces.is_empty() {
        out.extend_from_slice(b"[]");
    }
    for part in payload(&pieces, Codec::Json).iter().filter(|_| !pieces.is_empty()) {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b",\"gaps\":[");
    out.extend_from_slice(&gaps.join(&b","[..]));
    out.extend_from_slice(format!("],\"cursor\":{cursor}}}").as_bytes());
    Ok(json_answer(out))
}
