//! A stream's connection once its client is known: what it says, what it is given, what is due.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::super::App;
use super::ask::{self, Ask, text};
use super::message::{self, Code, Value, Wish};
use super::session::{Reaction, Session};
use super::websocket::{Close, POLICY, RESTART};
use super::wire::{Driven, Wire};
use crate::live::{Codec, Cursor, End, Gap, GapReason, Next, Start, Stream, Taken};

/// A silent client is asked for a sign of life, and is gone when it gives none.
const PING_AFTER: Duration = Duration::from_secs(30);
const GONE_AFTER: Duration = Duration::from_secs(90);
/// Acknowledgements that wait; above it the client's messages are not read.
const CONTROL_BYTES_MAX: usize = 256 * 1024;
/// Subscriptions that wait for what came before them.
const REPLAYS_MAX: usize = 128;
/// How long after its key the address of a connection says where subscriptions begin.
const START_WITHIN: Duration = Duration::from_secs(10);

/// A connection whose client is known.
pub(super) struct Served {
    app: Arc<App>,
    codec: Codec,
    /// It takes messages that Alpaca has not.
    ext: bool,
    /// Where its subscriptions begin, and until when.
    start: Option<(Start, Instant)>,
    session: Session,
    stream: Stream,
    alive_at: Instant,
    ping_at: Instant,
    heartbeat_at: Option<Instant>,
    stall_at: Option<Instant>,
}

impl Served {
    pub(super) fn new(app: Arc<App>, ask: Ask, session: Session, stream: Stream) -> Self {
        let now = Instant::now();
        let start = ask.start.map(|start| (start, now + START_WITHIN));
        let mut served = Self {
            app,
            codec: session.codec(),
            ext: ask.ext,
            start,
            session,
            stream,
            alive_at: now,
            ping_at: now + PING_AFTER,
            heartbeat_at: None,
            stall_at: None,
        };
        served.heartbeat_at = served.ext.then(|| now + served.heartbeat());
        served
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.app.gate.config.live.heartbeat_ms)
    }

    fn stall(&self) -> Duration {
        Duration::from_millis(self.app.gate.config.live.stall_ms)
    }

    pub(super) async fn run<IO: AsyncRead + AsyncWrite + Unpin>(mut self, wire: &mut Wire<IO>) -> Close {
        let batch_bytes_max = self.app.gate.config.live.batch_bytes_max;
        let mut timer = pin!(sleep_until(self.ping_at));
        loop {
            self.set(&mut timer);
            let may_read = self.stream.subscriber().control_bytes() <= CONTROL_BYTES_MAX;
            let is_sending = wire.is_sending();
            if is_sending && self.stall_at.is_none() {
                self.watch(wire);
            }
            tokio::select! {
                biased;
                driven = wire.drive(may_read) => match driven {
                    Driven::Heard(codec, bytes) => {
                        self.alive_at = Instant::now();
                        if let Err(close) = self.hear(wire, &bytes, codec) {
                            return close;
                        }
                    }
                    Driven::Alive => self.alive_at = Instant::now(),
                    Driven::Sent => self.stall_at = None,
                    ended @ Driven::Ended(_) => return ended.into(),
                },
                next = self.stream.next(batch_bytes_max), if !is_sending => {
                    if let Err(close) = self.give(wire, next) {
                        return close;
                    }
                }
                () = &mut timer => if let Err(close) = self.tick(wire) {
                    return close;
                },
            }
        }
    }

    /// Sends what comes next. Mostly it is taken at once, and nobody need look after it.
    fn give<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<IO>,
        next: Next,
    ) -> Result<(), Close> {
        match next {
            Next::Message(Taken::Control(payload)) => wire.send(self.codec, vec![payload]),
            Next::Message(Taken::Data(pieces)) => {
                let ticks: u64 = pieces.iter().map(|piece| u64::from(piece.ticks)).sum();
                self.app.gate.metrics.live_ticks.inc_by(ticks);
                wire.send_pieces(self.codec, &pieces);
            }
            Next::Gap(gap) if self.ext => wire.send(self.codec, vec![self.gap(&gap)]),
            Next::Gap(gap) => match gap.reason {
                // A time in the address of an SDK stays there: what begins at one begins as far back as a
                // stream goes.
                GapReason::TooEarly => return Ok(()),
                // No tick is lost, and such bars are in history.
                GapReason::BarsNotKept => return Ok(()),
                GapReason::TooOld | GapReason::Lost => {
                    let from = text(gap.from);
                    let why = format!("ticks since {from} are lost to this stream; read them from history");
                    return Err(Close::Later(POLICY, why));
                }
            },
            Next::End(end) => return Err(self.end(wire, end)),
        }
        match wire.drive(false).now_or_never() {
            Some(Driven::Sent) => Ok(()),
            Some(ended @ Driven::Ended(_)) => Err(ended.into()),
            _ => {
                self.watch(wire);
                Ok(())
            }
        }
    }

    /// What is being sent must move from now on.
    fn watch<IO: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<IO>) {
        wire.watch();
        self.stall_at = Some(Instant::now() + self.stall());
    }

    fn hear<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<IO>,
        bytes: &[u8],
        codec: Codec,
    ) -> Result<(), Close> {
        match self.session.hear(bytes, codec, self.stream.asked()) {
            Reaction::Tell(payload) => self.stream.subscriber().tell(payload),
            Reaction::Authenticate { .. } => {}
            Reaction::Subscribe(more, wish) => {
                self.grant(&wish);
                let start = match self.start_of(wish) {
                    Ok(start) => start,
                    Err(why) => {
                        wire.send(self.codec, vec![message::error(self.codec, Code::InvalidSyntax)]);
                        return Err(Close::Later(POLICY, why));
                    }
                };
                if self.stream.replays() >= REPLAYS_MAX {
                    return Err(Close::Later(POLICY, "too many replays wait".to_owned()));
                }
                let codec = self.codec;
                self.stream.subscribe(&more, start, |asked| Some(message::subscription(codec, asked)));
            }
            Reaction::Unsubscribe(less) => {
                let codec = self.codec;
                self.stream.unsubscribe(&less, |asked| Some(message::subscription(codec, asked)));
            }
        }
        Ok(())
    }

    /// What a message asks for beyond Alpaca's holds from now on.
    fn grant(&mut self, wish: &Wish) {
        if wish.ext && !self.ext {
            self.ext = true;
            self.stream.subscriber().take_origins();
            self.heartbeat_at = Some(Instant::now() + self.heartbeat());
        }
        if let Some(every) = wish.conflate {
            self.stream.subscriber().conflate(every);
        }
        if let Some(session) = &wish.session {
            self.stream.take_over(session);
        }
    }

    /// Where a subscription begins: as it says itself, else as the address of the connection does.
    fn start_of(&self, wish: Wish) -> Result<Option<Start>, String> {
        if let Some(cursor) = wish.cursor {
            let start = ask::start_of(&cursor, self.app.reader.keyring()).map(Some);
            return start.map_err(|_| "the cursor of the message is none of this service".to_owned());
        }
        let of_address = self.start.as_ref().filter(|(_, until)| Instant::now() <= *until);
        Ok(wish.since.map(Start::Since).or_else(|| of_address.map(|(start, _)| start.clone())))
    }

    /// Sets the timer to what is due first. It is let fire early rather than be set for each message.
    fn set(&self, timer: &mut Pin<&mut Sleep>) {
        let due = [Some(self.ping_at), self.heartbeat_at, self.stall_at];
        if let Some(due) = due.into_iter().flatten().min()
            && (due < timer.deadline() || timer.is_elapsed())
        {
            timer.as_mut().reset(due);
        }
    }

    fn tick<IO: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<IO>) -> Result<(), Close> {
        let now = Instant::now();
        if self.stall_at.is_some_and(|at| at <= now) {
            if wire.is_blocked() {
                return Err(self.too_slow(wire));
            }
            self.stall_at = Some(now + self.stall());
        }
        if self.ping_at <= now {
            if now.duration_since(self.alive_at) >= GONE_AFTER {
                return Err(Close::Gone);
            }
            wire.ping();
            self.ping_at = now + PING_AFTER;
        }
        if self.heartbeat_at.is_some_and(|at| at <= now) {
            self.stream.subscriber().tell(self.heartbeat_message());
            self.heartbeat_at = Some(now + self.heartbeat());
        }
        Ok(())
    }

    /// The client has taken nothing for too long.
    fn too_slow<IO: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<IO>) -> Close {
        let cursor = self.stream.drop_waiting();
        wire.send(self.codec, vec![message::error(self.codec, Code::SlowClient)]);
        if self.ext {
            wire.send(
                self.codec,
                vec![self.with_cursor(cursor.map(|cursor| self.token(&cursor)).as_deref())],
            );
        }
        Close::With(POLICY, "slow client".to_owned())
    }

    fn end<IO: AsyncRead + AsyncWrite + Unpin>(&self, wire: &mut Wire<IO>, end: End) -> Close {
        if self.ext {
            wire.send(self.codec, vec![self.heartbeat_message()]);
        }
        match end {
            End::Move { retry_ms } => {
                Close::With(RESTART, format!("the node is stopping; come back in {retry_ms} ms"))
            }
            End::Revoked => Close::With(POLICY, "the key is no longer good".to_owned()),
            End::TakenOver => {
                Close::With(POLICY, "another connection has taken over this session".to_owned())
            }
            End::Changed => Close::With(RESTART, "the subscription was changed; connect again".to_owned()),
            End::Deleted => Close::With(POLICY, "the subscription was deleted".to_owned()),
        }
    }

    fn token(&self, cursor: &Cursor) -> String {
        cursor.token(self.app.reader.keyring())
    }

    /// A heartbeat, with the cursor of who has had everything before it.
    fn heartbeat_message(&self) -> bytes::Bytes {
        self.with_cursor(self.cursor().as_deref())
    }

    /// Before its first subscription a client that named where it begins is there still.
    fn cursor(&self) -> Option<String> {
        let begins = self.start.as_ref().filter(|(_, until)| Instant::now() <= *until);
        let cursor = match begins.filter(|_| self.stream.asked().is_empty()) {
            Some((start, _)) => start.cursor(),
            None => self.stream.cursor(),
        };
        cursor.map(|cursor| self.token(&cursor))
    }

    fn with_cursor(&self, cursor: Option<&str>) -> bytes::Bytes {
        let mut fields = vec![("T", Value::Text("hb")), ("t", Value::Time((self.app.gate.clock)()))];
        if let Some(cursor) = cursor {
            fields.push(("cursor", Value::Text(cursor)));
        }
        message::control(self.codec, &fields)
    }

    fn gap(&self, gap: &Gap) -> bytes::Bytes {
        let fields = [
            ("T", Value::Text("gap")),
            ("from", Value::Time(gap.from)),
            ("to", Value::Time(gap.to)),
            ("reason", Value::Text(gap.reason.name())),
        ];
        message::control(self.codec, &fields)
    }
}
