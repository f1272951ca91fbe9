//! Server-sent events: `GET /v1/stream`, for browsers and `curl -N`.
//!
//! `data` is an array of Alpaca's messages, each with when it was received (`r`) and its tick id
//! (`id`). `id:` is a cursor, at most each 250 ms; a client that comes again with it as
//! `Last-Event-ID`, as browsers do by themselves, is given what it missed. Comments are heartbeats.
//! Events with a name: `connected`, `gap` (`from`, `to`, `reason`), `end` (why, and when to come
//! back): `move`, `revoked`, `changed` and `deleted` of its subscription.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::time::{Instant, sleep_until};

use super::super::auth::{self, Subscriber};
use super::super::params::Params;
use super::super::{ApiError, ApiResult, App};
use super::ask::{Wanted, text};
use crate::access::Identity;
use crate::live::{Codec, Cursor, End, Form, Gap, Next, NoStream, Stream, StreamAsk, Taken, payload};
use crate::subs::end_changed;

/// What the browser sends when it comes again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Between two cursors.
const CURSOR_EVERY: Duration = Duration::from_millis(250);
/// Between two looks whether it is known where a stream begins that is to begin at a time.
const PLACED_WITHIN: Duration = Duration::from_millis(20);
/// How soon a client comes back after its connection broke.
const RETRY_MS: u64 = 1_000;

/// Opens a stream for this caller.
pub(super) async fn open(app: &App, identity: &Identity, wanted: Wanted) -> ApiResult<Stream> {
    let Wanted { interest, personal, start, attached } = wanted;
    let ask = StreamAsk {
        form: Form { codec: Codec::Json, origins: true },
        key_id: &identity.key_id,
        session: None,
        personal,
        attached: attached.clone(),
    };
    let mut stream = app.streams.live.open(ask).map_err(|error| match error {
        NoStream::TooMany => ApiError::too_many_requests(error.to_string(), 1).with("reason", "streams"),
        NoStream::Stopping => ApiError::unavailable("stopping", error.to_string(), 1),
    })?;
    if interest.is_empty() {
        stream.hold(start);
    } else {
        stream.subscribe(&interest, start, |_| None);
    }
    // It may have been changed between being read and being streamed.
    if let Some(attached) = attached {
        end_changed(&app.subs, &app.streams.live, &attached).await;
    }
    Ok(stream)
}

pub(super) async fn events(
    shown: Result<Subscriber, ApiError>,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty());
    let (identity, ticket) = match (shown, Params::decode(query.as_deref())?.get("ticket")) {
        (Ok(Subscriber(identity)), _) => (identity, None),
        (Err(_), Some(ticket)) => {
            let cursor = last.and_then(|last| Cursor::open(last, app.reader.keyring()).ok());
            let (identity, ticket) = auth::by_ticket(&app.gate, ticket, cursor.as_ref()).await?;
            (identity, Some((ticket.id, ticket.key_id)))
        }
        (Err(refused), None) => return Err(refused),
    };
    app.streams.live.caught_up().await;
    let wanted = Wanted::read(&app, &identity, query.as_deref(), last).await?;
    let stream = open(&app, &identity, wanted).await?;
    let events = Events::new(app, stream, ticket);
    let pieces = futures::stream::unfold(events, |mut events| async move {
        let piece = events.next().await?;
        Some((Ok::<_, Infallible>(piece), events))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The events of one connection.
struct Events {
    app: Arc<App>,
    stream: Stream,
    /// The ticket by which it was opened: its cursors name it.
    ticket: Option<([u8; 16], String)>,
    cursor_at: Instant,
    heartbeat_at: Instant,
    is_open: bool,
    /// It was told a cursor, without which a browser cannot come back by its ticket.
    is_placed: bool,
    has_ended: bool,
    _counted: Counted,
}

/// One open connection in the metrics.
struct Counted(Arc<crate::telemetry::Metrics>);

impl Counted {
    fn new(app: &App) -> Self {
        let metrics = Arc::clone(&app.gate.metrics);
        metrics.live_connections.inc();
        Self(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.live_connections.dec();
    }
}

impl Events {
    fn new(app: Arc<App>, stream: Stream, ticket: Option<([u8; 16], String)>) -> Self {
        let now = Instant::now();
        let counted = Counted::new(&app);
        Self {
            app,
            stream,
            ticket,
            cursor_at: now,
            heartbeat_at: now,
            is_open: false,
            is_placed: false,
            has_ended: false,
            _counted: counted,
        }
    }

    /// The next piece of the answer; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        if !self.is_open {
            self.is_open = true;
            self.heartbeat_at = Instant::now() + self.heartbeat_every();
            let mut out = BytesMut::new();
            out.put_slice(format!("retry: {RETRY_MS}\n").as_bytes());
            self.write_cursor(&mut out);
            out.put_slice(b"event: connected\ndata: {}\n\n");
            return Some(out.freeze());
        }
        let bytes_max = self.app.gate.config.live.batch_bytes_max;
        loop {
            let look_at = if self.is_placed { self.heartbeat_at } else { Instant::now() + PLACED_WITHIN };
            tokio::select! {
                next = self.stream.next(bytes_max) => return Some(self.event(next)),
                () = sleep_until(self.heartbeat_at.min(look_at)) => {
                    if Instant::now() >= self.heartbeat_at || self.stream.cursor().is_some() {
                        return Some(self.heartbeat());
                    }
                }
            }
        }
    }

    /// A comment, and where the client is.
    fn heartbeat(&mut self) -> Bytes {
        let mut out = BytesMut::from(": heartbeat\n".as_bytes());
        self.write_cursor(&mut out);
        out.put_slice(b"\n");
        self.heartbeat_at = Instant::now() + self.heartbeat_every();
        out.freeze()
    }

    fn heartbeat_every(&self) -> Duration {
        Duration::from_millis(self.app.gate.config.live.heartbeat_ms)
    }

    fn event(&mut self, next: Next) -> Bytes {
        let mut out = BytesMut::new();
        match next {
            Next::Message(Taken::Control(payload)) => write_data(&[payload], &mut out),
            Next::Message(Taken::Data(pieces)) => {
                self.app
                    .gate
                    .metrics
                    .live_ticks
                    .inc_by(pieces.iter().map(|piece| u64::from(piece.ticks)).sum());
                if Instant::now() >= self.cursor_at {
                    self.write_cursor(&mut out);
                }
                write_data(&payload(&pieces, Codec::Json), &mut out);
            }
            Next::Gap(gap) => {
                out.put_slice(b"event: gap\n");
                write_data(&[gap_json(&gap)], &mut out);
            }
            Next::End(end) => {
                self.has_ended = true;
                self.write_cursor(&mut out);
                if let End::Move { retry_ms } = end {
                    out.put_slice(format!("retry: {retry_ms}\n").as_bytes());
                }
                out.put_slice(b"event: end\n");
                write_data(&[end_json(end)], &mut out);
            }
        }
        out.put_slice(b"\n");
        out.freeze()
    }

    /// The cursor of who has had all events up to this one.
    fn write_cursor(&mut self, out: &mut BytesMut) {
        if let Some(cursor) = self.stream.cursor() {
            let token = Cursor { ticket: self.ticket.clone(), ..cursor }.token(self.app.reader.keyring());
            out.put_slice(b"id: ");
            out.put_slice(token.as_bytes());
            out.put_slice(b"\n");
            self.is_placed = true;
        }
        self.cursor_at = Instant::now() + CURSOR_EVERY;
    }
}

fn write_data(parts: &[Bytes], out: &mut BytesMut) {
    out.put_slice(b"data: ");
    parts.iter().for_each(|part| out.put_slice(part));
    out.put_slice(b"\n");
}

/// A gap as JSON.
pub(super) fn gap_json(gap: &Gap) -> Bytes {
    let (from, to, reason) = (text(gap.from), text(gap.to), gap.reason.name());
    Bytes::from(format!("{{\"from\":\"{from}\",\"to\":\"{to}\",\"reason\":\"{reason}\"}}"))
}

fn end_json(end: End) -> Bytes {
    Bytes::from(match end {
        End::Move { retry_ms } => format!("{{\"reason\":\"move\",\"retry_ms\":{retry_ms}}}"),
        End::Revoked => "{\"reason\":\"revoked\"}".to_owned(),
        End::TakenOver => "{\"reason\":\"taken_over\"}".to_owned(),
        End::Changed => "{\"reason\":\"changed\"}".to_owned(),
        End::Deleted => "{\"reason\":\"deleted\"}".to_owned(),
    })
}
