//! Alpaca's stream on one WebSocket connection.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::activity::Activity;
use super::super::auth::{self, Shown, key_of_token};
use super::super::cors;
use super::super::{ApiError, ApiResult, App};
use super::ask::{self, Ask, Wanted};
use super::message::{self, Code};
use super::served::Served;
use super::session::{Reaction, Session};
use super::wire::{Driven, Wire};
use crate::access::{Identity, Scope};
use crate::live::{Attached, Codec, Form, Interest, Live, NoStream, Personal, Start, Stream, StreamAsk};
use crate::subs::{SubsError, end_changed};

/// The feed of made-up data.
const TEST_FEED: &str = "test";

/// Close codes of RFC 6455 and its registry.
pub(super) const POLICY: u16 = 1_008;
const TOO_BIG: u16 = 1_009;
const PROTOCOL: u16 = 1_002;
pub(super) const RESTART: u16 = 1_012;

/// After a key that was refused the connection stays for a while: clients that come again at once
/// cost less.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// The most that a key above its rate is made to wait.
const TARPIT_MAX: Duration = Duration::from_secs(3);
/// How long the last messages of a connection may take, at the least.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) async fn plain(
    app: State<Arc<App>>,
    Path(feed): Path<String>,
    request: Request,
) -> ApiResult<Response> {
    upgrade(&app, &feed, Ok(None), request)
}

pub(super) async fn since(
    app: State<Arc<App>>,
    Path((feed, time)): Path<(String, String)>,
    request: Request,
) -> ApiResult<Response> {
    upgrade(&app, &feed, ask::start_at(&time).map(Some), request)
}

pub(super) async fn cursor(
    app: State<Arc<App>>,
    Path((feed, cursor)): Path<(String, String)>,
    request: Request,
) -> ApiResult<Response> {
    let start = ask::start_of(&cursor, app.reader.keyring());
    upgrade(&app, &feed, start.map(Some), request)
}

/// Answers the handshake; the connection goes on in a task of its own.
fn upgrade(
    app: &Arc<App>,
    feed: &str,
    start: ApiResult<Option<Start>>,
    mut request: Request,
) -> ApiResult<Response> {
    let response = tungstenite::handshake::server::create_response_with_body(&request, Body::empty);
    let response = response.map_err(|error| no_handshake(&error))?;
    if !cors::is_allowed_origin(request.headers(), &app.gate.config.http.cors_origins) {
        let message = "pages of this origin may not open streams; http.cors_origins lists those that may";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message).with("reason", "origin"));
    }
    let ask = Ask::read(request.uri().query(), app.reader.keyring());
    // An address that is wrong stays wrong: SDKs give up at a 4xx, and that is right here.
    let ask = start.and_then(|start| ask.map(|ask| Ask { start: start.or(ask.start.clone()), ..ask }));
    let ask = ask.map_err(|error| error.with("reason", "address"))?;
    let feeds = &app.gate.config.live.feeds;
    let live = match feed {
        TEST_FEED => Some(&app.streams.test),
        other => feeds.iter().any(|known| known == other).then_some(&app.streams.live),
    };
    let connection = Connection {
        app: Arc::clone(app),
        live: live.map(Arc::clone),
        codec: codec_of(request.headers()),
        shown: Shown::of(request.headers()),
        ask,
    };
    if let Some(activity) = request.extensions().get::<Arc<Activity>>() {
        activity.upgrade();
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let message_bytes_max = app.gate.config.live.message_bytes_max;
    app.streams.tasks.spawn(async move {
        match upgraded.await {
            Ok(io) => connection.serve(Wire::new(TokioIo::new(io), message_bytes_max)).await,
            Err(error) => tracing::debug!(%error, "a connection ended before it was a stream"),
        }
    });
    Ok(response)
}

fn no_handshake(error: &tungstenite::Error) -> ApiError {
    let message = format!(
        "this address is a stream over WebSocket ({error}): an SDK speaks it; plain HTTP has GET /v1/stream"
    );
    ApiError::new(StatusCode::UPGRADE_REQUIRED, message)
        .with("reason", "no_websocket")
        .with_header(header::UPGRADE, header::HeaderValue::from_static("websocket"))
}

/// MessagePack where the handshake says so, else JSON.
fn codec_of(headers: &HeaderMap) -> Codec {
    match headers.get(header::CONTENT_TYPE) {
        Some(value) if value.as_bytes().starts_with(b"application/msgpack") => Codec::MessagePack,
        _ => Codec::Json,
    }
}

/// A connection before it is served.
struct Connection {
    app: Arc<App>,
    /// The feed's hub; `None` of a feed that there is not.
    live: Option<Arc<Live>>,
    codec: Codec,
    shown: Shown,
    ask: Ask,
}

/// Why a connection ends.
pub(super) enum Close {
    /// The peer has gone.
    Gone,
    /// With this code and reason.
    With(u16, String),
    /// The same after a while: clients that come again at once cost less.
    Later(u16, String),
}

impl From<Driven> for Close {
    fn from(driven: Driven) -> Self {
        match driven {
            Driven::Ended(Some(why @ "message too big")) => Self::With(TOO_BIG, why.to_owned()),
            Driven::Ended(Some(why)) => Self::With(PROTOCOL, why.to_owned()),
            _ => Self::Gone,
        }
    }
}

impl Connection {
    async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(self, mut wire: Wire<IO>) {
        let metrics = Arc::clone(&self.app.gate.metrics);
        let goodbye = Duration::from_millis(self.app.gate.config.live.stall_ms);
        metrics.live_connections.inc();
        let close = match self.greet(&mut wire).await {
            Ok(served) => Box::pin(served.run(&mut wire)).await,
            Err(close) => close,
        };
        if let Close::Later(..) = close {
            _ = timeout(REFUSED_PAUSE, finish(&mut wire)).await;
            sleep(REFUSED_PAUSE).await;
        }
        if let Close::With(code, reason) | Close::Later(code, reason) = close {
            metrics.live_closed.with_label_values(&[&code.to_string()]).inc();
            wire.close(code, &reason);
        }
        // Who stood still is told so if it moves again in that time.
        _ = timeout(goodbye.max(GOODBYE), finish(&mut wire)).await;
        _ = timeout(GOODBYE, wire.shutdown()).await;
        metrics.live_connections.dec();
    }

    /// Until the client has shown a good key.
    async fn greet<IO: AsyncRead + AsyncWrite + Unpin>(self, wire: &mut Wire<IO>) -> Result<Served, Close> {
        let Self { app, live, codec, shown, ask } = self;
        let symbols_max = app.gate.config.live.symbols_per_connection_max;
        let mut session = Session::new(codec, symbols_max);
        wire.send(codec, vec![message::success(codec, "connected")]);
        let refuse = |wire: &mut Wire<IO>, code: Code, reason: String| {
            wire.send(codec, vec![message::error(codec, code)]);
            Err(Close::Later(POLICY, reason))
        };
        // What is read again after a start is history to whoever connects now.
        _ = timeout(auth_time(&app), app.streams.live.caught_up()).await;
        let Some(live) = live else {
            return refuse(wire, Code::InsufficientSubscription, "there is no such feed".to_owned());
        };
        let auth = auth_time(&app);
        let mut deadline = Instant::now() + auth;
        let mut key = match shown {
            Shown::Key { id, secret } => Some((id, secret, true)),
            Shown::Nothing => None,
            Shown::Malformed | Shown::Token(_) => Some((String::new(), String::new(), true)),
        };
        let mut ticket = ask.ticket.clone().filter(|_| key.is_none());
        loop {
            let shown = match (ticket.take(), key.take()) {
                (Some(ticket), _) => {
                    let known = auth::by_ticket(&app.gate, &ticket, None).await;
                    Some((known.map(|(identity, _)| identity).map_err(|error| code_of_ticket(&error)), true))
                }
                (None, Some((id, secret, by_header))) => Some((admit(&app, &id, &secret).await, by_header)),
                (None, None) => None,
            };
            if let Some((admitted, by_header)) = shown {
                match admitted {
                    Ok(identity) => match open(&app, &live, codec, &ask, &identity).await {
                        Ok((mut stream, asked)) => {
                            stream.subscriber().tell(session.authenticated(by_header));
                            if let Some((asked, attached)) = asked {
                                attach(&mut stream, &asked, &ask, codec);
                                end_changed(&app.subs, &live, &attached).await;
                            }
                            return Ok(Served::new(app, ask, session, stream));
                        }
                        Err(NotOpen::Told(code)) => {
                            wire.send(codec, vec![message::error(codec, code)]);
                            deadline = Instant::now() + auth;
                        }
                        Err(NotOpen::Refused(code, why)) => return refuse(wire, code, why),
                        Err(NotOpen::Closed(close)) => return Err(close),
                    },
                    Err(code) => {
                        // Of a ticket: nobody knows now, or its key has made too many requests.
                        let why = match code {
                            Code::InternalError => "the ticket is not looked up now; come again",
                            _ => "the key was refused",
                        };
                        return refuse(wire, code, why.to_owned());
                    }
                }
            }
            let driven = wire.drive(!wire.is_sending());
            match timeout_at(deadline, driven).await {
                Err(_) => return refuse(wire, Code::AuthTimeout, "no key was shown in time".to_owned()),
                Ok(Driven::Heard(of, bytes)) => match session.hear(&bytes, of, &Interest::default()) {
                    Reaction::Authenticate { key: id, secret } => key = Some(by_message(id, secret)),
                    Reaction::Tell(payload) => wire.send(codec, vec![payload]),
                    Reaction::Subscribe(..) | Reaction::Unsubscribe(_) => {}
                },
                Ok(Driven::Alive | Driven::Sent) => {}
                Ok(ended) => return Err(ended.into()),
            }
        }
    }
}

/// Begins with what a subscription asks for, which is nothing while it is paused.
fn attach(stream: &mut Stream, asked: &Interest, ask: &Ask, codec: Codec) {
    if asked.is_empty() {
        stream.hold(ask.start.clone());
    }
    let ack = |asked: &Interest| Some(message::subscription(codec, asked));
    stream.subscribe(asked, ask.start.clone(), ack);
}

fn auth_time(app: &App) -> Duration {
    Duration::from_millis(app.gate.config.live.auth_ms)
}

/// The key of a message. Under two literal names the secret is a token.
fn by_message(key: String, secret: String) -> (String, String, bool) {
    if matches!(key.as_str(), "oauth" | "access_token") {
        let (id, secret) = key_of_token(&secret).unwrap_or_default();
        return (id.to_owned(), secret.to_owned(), false);
    }
    (key, secret, false)
}

/// Why a ticket opens nothing: it is none, its key may not, or it is to come again.
fn code_of_ticket(error: &ApiError) -> Code {
    match error.status() {
        StatusCode::UNAUTHORIZED => Code::AuthFailed,
        StatusCode::FORBIDDEN => Code::InsufficientScope,
        _ => Code::InternalError,
    }
}

/// Who shows a key. One above its rate waits.
async fn admit(app: &App, id: &str, secret: &str) -> Result<Arc<Identity>, Code> {
    let gate = &app.gate;
    let Ok((identity, allowance)) = gate.keys.admit(id, secret, (gate.clock)()) else {
        gate.metrics.http_refused.with_label_values(&["key"]).inc();
        return Err(Code::AuthFailed);
    };
    if let Some(seconds) = allowance.retry_after_s {
        sleep(Duration::from_secs(seconds).min(TARPIT_MAX)).await;
    }
    if identity.may(Scope::MarketDataRead) { Ok(identity) } else { Err(Code::InsufficientScope) }
}

/// Why a client with a good key has no stream.
enum NotOpen {
    /// It is told, and may try again.
    Told(Code),
    /// It is told, and closed.
    Refused(Code, String),
    Closed(Close),
}

/// Opens a stream, and what of it is asked for by a subscription that the address names.
async fn open(
    app: &App,
    live: &Arc<Live>,
    codec: Codec,
    ask: &Ask,
    identity: &Identity,
) -> Result<(Stream, Option<(Interest, Attached)>), NotOpen> {
    let (mut asked, mut personal) = (None, Personal::new(ask.conflate, None));
    if let Some(id) = &ask.subscription {
        let subscription = app.subs.get(&identity.account, id).await;
        let subscription = subscription.map_err(|error| match error {
            SubsError::NoSuch(_) => NotOpen::Refused(Code::InsufficientSubscription, error.to_string()),
            // SDKs come again after that, and give up after the others.
            _ => NotOpen::Refused(Code::InternalError, error.to_string()),
        })?;
        let wanted = Wanted::of(app, &subscription, None);
        personal = wanted.personal;
        asked = wanted.attached.map(|attached| (wanted.interest, attached));
    }
    let attached = asked.as_ref().map(|(_, attached)| attached.clone());
    let (form, session) = (Form { codec, origins: ask.ext }, ask.session.as_deref());
    let opened = live.open(StreamAsk { form, key_id: &identity.key_id, session, personal, attached });
    let stream = opened.map_err(|error| match error {
        NoStream::TooMany => NotOpen::Told(Code::ConnectionLimitExceeded),
        NoStream::Stopping => NotOpen::Closed(Close::With(RESTART, "the node is stopping".to_owned())),
    })?;
    Ok((stream, asked))
}

/// Writes what is left.
async fn finish<IO: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<IO>) {
    while wire.is_sending() {
        if let Driven::Ended(_) = wire.drive(false).await {
            return;
        }
    }
}
