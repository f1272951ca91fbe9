//! `POST /v1/ingest?key=&first=`: producers that stay connected.
//!
//! One long request. Its body is NDJSON, a tick a line, and does not end before the producer is
//! done. Its answer begins at once and is NDJSON too: one acknowledgement a batch of lines, in
//! order, while the body is still coming.
//!
//! | line of the answer | meaning |
//! |---|---|
//! | `{"first":0,"last":9,"position":"w1.…","accepted":9,"refused":[{"line":3,"field":"p",…}],"refused_omitted":0}` | what is good of these lines is durable |
//! | `{"bye":"end","resume_from":10}` | the body has ended and all of it is acknowledged |
//! | `{"bye":"draining","resume_from":10}`, `{"bye":"idle",…}` | come again: this node stops, or nothing came for `ingest.stream_idle_ms` |
//! | `{"error":{…},"resume_from":10}` | the envelope of an error; with `"outcome":"unknown"` what is from `resume_from` on may be stored or not |
//!
//! `key` names what the producer sends over all its connections, and each line has a number,
//! counted from `first`, the empty lines too. After a cut it comes again with the same key and
//! `first` = the line behind the last acknowledged one: a line is known by key and number, so
//! that what was stored without its acknowledgement is no duplicate. A number stands for one line
//! for ever. An answer that ends without a last line of the table was cut.
//!
//! - **Batches** end with `ingest.batch_lines_max` lines or `ingest.batch_bytes_max` bytes; with none
//!   under way at once, else after `ingest.batch_linger_ms`.
//! - **Backpressure.** Above `ingest.window_bytes_max` unacknowledged bytes, or while requests hold
//!   all the memory they may, nothing more is read. Who does not take its acknowledgements for
//!   `http.write_stall_ms` is cut.
//! - **Ends.** The limits on the time of requests and bodies do not apply. A key that is revoked
//!   ends the connection at the next batch.

mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::session::{Said, Session, Stream};
use super::auth::Producer;
use super::params::{Params, header_text, named};
use super::{ApiError, ApiResult, App};
use crate::access::Identity;
use crate::config;

/// Acknowledgements that wait to be taken by the connection.
const SAID_MAX: usize = 16;
const LINES: &str = "application/x-ndjson";

/// The producers that are connected.
#[derive(Clone)]
pub struct Producers {
    places: Arc<Semaphore>,
    /// Cancelled when the node stops.
    draining: CancellationToken,
}

impl Producers {
    /// None yet.
    #[must_use]
    pub fn new(config: &config::Ingest, draining: CancellationToken) -> Self {
        let places = config.streams_max.min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places)), draining }
    }

    fn place(&self) -> ApiResult<OwnedSemaphorePermit> {
        if self.draining.is_cancelled() {
            return Err(ApiError::unavailable("draining", "this node stops; come again", 1));
        }
        let full = |_| {
            let message = "as many producers are connected as ingest.streams_max allows";
            ApiError::unavailable("streams_max", message, 5)
        };
        Arc::clone(&self.places).try_acquire_owned().map_err(full)
    }
}

/// The routes of producers that stay.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/ingest", post(ingest))
}

async fn ingest(
    State(app): State<Arc<App>>,
    Producer(identity): Producer,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let stream = asked(query.as_deref(), &headers)?;
    let place = app.producers.place()?;
    let share = app.intake.share().map_err(super::ticks::take_error)?;
    let (say, mut said) = mpsc::channel::<Said>(SAID_MAX);
    tokio::spawn(async move {
        let gate = &app.gate;
        gate.metrics.ingest_streams.inc();
        let session = Session::new(parts(&app, &identity), stream, share, say);
        let end = Box::pin(session.run(body.into_data_stream(), &app.producers.draining)).await;
        gate.metrics.ingest_stream_ends.with_label_values(&[end]).inc();
        gate.metrics.ingest_streams.dec();
        drop(place);
    });
    let lines = stream::poll_fn(move |cx| {
        said.poll_recv(cx).map(|said| said.map(|said| Ok::<Bytes, std::convert::Infallible>(said.line)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    // A proxy that gathers the answer would keep the acknowledgements back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

fn parts<'a>(app: &'a App, identity: &'a Identity) -> session::Parts<'a> {
    let gate = &app.gate;
    session::Parts {
        intake: &app.intake,
        config: &gate.config.ingest,
        metrics: &gate.metrics,
        clock: &gate.clock,
        account: &identity.account,
        is_admitted: Box::new(|| gate.keys.is_live(&identity.key_id, (gate.clock)())),
        stall: Duration::from_millis(gate.config.http.write_stall_ms),
    }
}

/// What a request says before its lines.
fn asked(query: Option<&str>, headers: &HeaderMap) -> ApiResult<Stream> {
    let params = Params::decode(query)?;
    params.only(&["key", "first", "backfill"])?;
    let given = header_text(headers, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let coding = header_text(headers, header::CONTENT_ENCODING.as_str())?.unwrap_or("identity");
    for (name, value, is_right, offered) in [
        ("Content-Type", given, essence.eq_ignore_ascii_case(LINES), LINES),
        ("Content-Encoding", coding, coding == "identity", "identity: a stream is not compressed"),
    ] {
        if !is_right {
            let message = format!("{name} must be {offered}");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
                .with("field", name)
                .with("value", &*crate::wire::beginning(value))
                .with("expected", offered));
        }
    }
    let key = named("key", params.required("key", "a name of what is sent, the same on every connection")?)?;
    let first = params.get("first").map(|text| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u32>().ok().filter(|number| is_number && *number < u32::MAX);
        number.ok_or_else(|| ApiError::bad_field("first", text, "a number from 0 to 4294967294"))
    });
    Ok(Stream { key, first: first.transpose()?.unwrap_or(0), backfill: params.switch("backfill")? })
}
