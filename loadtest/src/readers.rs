//! Thousands of readers in one thread: one epoll loop, frames read in place.
//!
//! A reader costs one read a wake-up and a search for the numbers in what came; nothing is
//! allocated a message. Sockets are edge-triggered: a read that does not fill its buffer has
//! emptied the socket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::ledger::Ledger;
use crate::system::now;
use crate::wire::{self, Frame};

/// What one read may bring.
const BUFFER_BYTES: usize = 1 << 20;
/// Readers that are being connected at once.
const CONNECTING_MAX: usize = 200;
/// Latencies are told to three digits, up to this.
const LATENCY_MAX: u64 = 120_000_000_000;

/// What the readers speak.
#[derive(Clone, Debug)]
pub(crate) enum Speaks {
    /// The stream of a node.
    Stream(Stream),
    /// Redis pub/sub, of this channel.
    Redis(String),
}

/// How to open a stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Path and query.
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) symbol: String,
    pub(crate) msgpack: bool,
}

/// When each number was to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) start: u64,
    /// Between requests.
    pub(crate) period: u64,
    /// Numbers of a request.
    pub(crate) batch: u64,
    /// Requests.
    pub(crate) requests: u64,
    /// The first number.
    pub(crate) first: u64,
}

impl Schedule {
    /// So many requests a second for so many seconds, `first` the first number, soon.
    pub(crate) fn new(first: u64, per_second: u64, batch: u64, seconds: f64) -> Self {
        let requests = ((per_second as f64 * seconds) as u64).max(1);
        Self { start: now() + 300_000_000, period: 1_000_000_000 / per_second, batch, requests, first }
    }

    /// The number behind the last.
    pub(crate) const fn end(&self) -> u64 {
        self.first + self.requests * self.batch
    }

    /// When a request is to be sent.
    pub(crate) const fn at(&self, request: u64) -> u64 {
        self.start + request * self.period
    }

    fn of(&self, number: u64) -> u64 {
        self.at(number.saturating_sub(self.first) / self.batch)
    }

    /// When the last is to be sent.
    pub(crate) const fn last(&self) -> u64 {
        self.at(self.requests)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Greeting,
    Authenticating,
    Subscribing,
    Live,
    Closed,
}

struct Client {
    socket: Option<TcpStream>,
    phase: Phase,
    /// A frame that is not whole yet.
    left: Vec<u8>,
    ledger: Ledger,
    cursor: Option<String>,
    stalled: bool,
}

/// What all readers got.
pub(crate) struct Tally {
    schedule: Schedule,
    pub(crate) deliveries: u64,
    pub(crate) latency: Histogram<u64>,
    /// Readers that a number has not reached yet.
    waiting: Vec<u32>,
    /// From schedule to the last reader.
    pub(crate) last: Histogram<u64>,
    /// Explicit gaps that the server told.
    pub(crate) gaps: u64,
}

impl Tally {
    fn new(schedule: Schedule, readers: u32) -> Self {
        let numbers = usize::try_from(schedule.end() - schedule.first).unwrap_or(0);
        Self {
            schedule,
            deliveries: 0,
            latency: histogram(),
            waiting: vec![readers; numbers],
            last: histogram(),
            gaps: 0,
        }
    }

    fn take(&mut self, number: u64, at: u64) {
        self.deliveries += 1;
        let latency = at.saturating_sub(self.schedule.of(number));
        self.latency.saturating_record(latency);
        let index = usize::try_from(number - self.schedule.first).unwrap_or(usize::MAX);
        if let Some(waiting) = self.waiting.get_mut(index) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.last.saturating_record(latency);
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constants that are allowed")]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_MAX, 3).expect("bounds of a histogram")
}

/// How a run ended, over all readers that were to read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Audit {
    pub(crate) lost: u64,
    /// Copies that no resume explains.
    pub(crate) repeated: u64,
    /// Copies after a resume.
    pub(crate) resumed: u64,
    pub(crate) disordered: u64,
    /// Readers, of those that never dropped, that saw another order than the first.
    pub(crate) other_order: u64,
    /// Readers that the server closed.
    pub(crate) closed: u64,
}

impl Audit {
    pub(crate) const fn is_clean(&self) -> bool {
        self.lost == 0 && self.repeated == 0 && self.disordered == 0 && self.other_order == 0
    }
}

/// The readers.
pub(crate) struct Readers {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    speaks: Speaks,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    tally: Tally,
    closed: u64,
    /// Who has dropped at least once.
    dropped: Vec<bool>,
    problem: Option<String>,
    /// The status of a handshake that was refused.
    refused: Option<u16>,
}

/// The handshake was answered with this status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(pub(crate) u16);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the handshake was answered with {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl Readers {
    /// So many readers, all connected and subscribed.
    pub(crate) fn connect(address: SocketAddr, speaks: Speaks, count: usize) -> anyhow::Result<Self> {
        let none = Schedule { start: 0, period: 1, batch: 1, requests: 0, first: u64::MAX };
        let mut readers = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            address,
            speaks,
            clients: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            tally: Tally::new(none, 0),
            closed: 0,
            dropped: vec![false; count],
            problem: None,
            refused: None,
        };
        let until = now() + 120_000_000_000;
        while readers.live() < count {
            let connecting = readers.clients.len() - readers.live();
            if readers.clients.len() < count && connecting < CONNECTING_MAX {
                let at = readers.clients.len();
                let ledger = Ledger::new(u64::MAX, 1);
                readers.clients.push(Client {
                    socket: None,
                    phase: Phase::Connecting,
                    left: Vec::new(),
                    ledger,
                    cursor: None,
                    stalled: false,
                });
                readers.open(at)?;
                continue;
            }
            readers.turn(Duration::from_millis(10))?;
            if readers.closed > 0 || now() > until {
                if let Some(status) = readers.refused {
                    return Err(Refused(status).into());
                }
                let problem = readers.problem.take().unwrap_or_default();
                let live = readers.live();
                bail!("{live} of {count} readers are connected, {} were closed: {problem}", readers.closed);
            }
        }
        Ok(readers)
    }

    fn live(&self) -> usize {
        self.clients.iter().filter(|client| client.phase == Phase::Live).count()
    }

    fn open(&mut self, at: usize) -> anyhow::Result<()> {
        let mut socket = TcpStream::connect(self.address).context("no connection")?;
        let _ = socket.set_nodelay(true);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(at), interest)?;
        if let Some(client) = self.clients.get_mut(at) {
            client.socket = Some(socket);
            client.phase = Phase::Connecting;
            client.left.clear();
        }
        Ok(())
    }

    /// Begins a run: what came before is forgotten.
    pub(crate) fn begin(&mut self, schedule: Schedule) {
        let reading = self.clients.iter().filter(|client| !client.stalled).count();
        self.tally = Tally::new(schedule, u32::try_from(reading).unwrap_or(u32::MAX));
        for client in &mut self.clients {
            client.ledger = Ledger::new(schedule.first, schedule.batch);
        }
        self.dropped.fill(false);
    }

    /// From now on these readers read nothing.
    pub(crate) fn stall(&mut self, count: usize) {
        for client in self.clients.iter_mut().take(count) {
            client.stalled = true;
        }
    }

    /// Drops a reader and opens it again, where it left off.
    pub(crate) fn drop_and_resume(&mut self, at: usize) -> anyhow::Result<()> {
        let Some(client) = self.clients.get_mut(at) else { return Ok(()) };
        if client.phase != Phase::Live || client.stalled || client.cursor.is_none() {
            return Ok(());
        }
        if let Some(mut socket) = client.socket.take() {
            let _ = self.poll.registry().deregister(&mut socket);
        }
        client.ledger.resume();
        if let Some(dropped) = self.dropped.get_mut(at) {
            *dropped = true;
        }
        self.open(at)
    }

    /// Reads until an instant.
    pub(crate) fn pump(&mut self, until: u64) -> anyhow::Result<()> {
        while now() < until {
            let left = Duration::from_nanos(until.saturating_sub(now()));
            self.turn(left.min(Duration::from_millis(20)))?;
        }
        Ok(())
    }

    /// Reads until every reader that reads has everything or was closed, or an instant.
    pub(crate) fn finish(&mut self, until: u64) -> anyhow::Result<()> {
        let end = self.tally.schedule.end();
        let ended =
            |client: &Client| client.stalled || client.phase == Phase::Closed || client.ledger.lost(end) == 0;
        while now() < until && !self.clients.iter().all(ended) {
            self.pump((now() + 5_000_000).min(until))?;
        }
        // What comes twice comes now.
        self.pump(now() + 100_000_000)
    }

    pub(crate) const fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(crate) fn audit(&self) -> Audit {
        let end = self.tally.schedule.end();
        let mut audit = Audit { closed: self.closed, ..Audit::default() };
        let mut order = None;
        for (client, dropped) in self.clients.iter().zip(&self.dropped).filter(|(client, _)| !client.stalled)
        {
            let ledger = &client.ledger;
            audit.lost += ledger.lost(end);
            audit.repeated += ledger.repeated - ledger.resumed;
            audit.resumed += ledger.resumed;
            audit.disordered += ledger.disordered;
            if !dropped && ledger.lost(end) == 0 {
                audit.other_order += u64::from(*order.get_or_insert(ledger.order) != ledger.order);
            }
        }
        audit
    }

    /// One round of what is ready.
    fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        let polled = self.poll.poll(&mut self.events, Some(wait));
        if let Err(error) = polled.as_ref()
            && error.kind() != ErrorKind::Interrupted
        {
            polled?;
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Token(at) = event.token();
            if event.is_writable() {
                self.opened(at);
            }
            if event.is_readable() || event.is_read_closed() {
                self.read(at, event.is_read_closed());
            }
        }
        self.events = events;
        Ok(())
    }

    /// The connection stands: the first words.
    fn opened(&mut self, at: usize) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if client.phase != Phase::Connecting {
            return;
        }
        let (words, phase) = match &self.speaks {
            Speaks::Stream(stream) => {
                let path = match &client.cursor {
                    Some(cursor) => format!("{}&cursor={cursor}", stream.path),
                    None => stream.path.clone(),
                };
                (wire::upgrade(&path, stream.msgpack).into_bytes(), Phase::Upgrading)
            }
            Speaks::Redis(channel) => {
                let mut words = Vec::new();
                wire::put_command(&mut words, &[b"SUBSCRIBE", channel.as_bytes()]);
                (words, Phase::Subscribing)
            }
        };
        client.phase = phase;
        if let Err(error) = client.say(&words) {
            self.close(at, &error.to_string());
        }
    }

    fn read(&mut self, at: usize, ends: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let ended = self.read_with(at, &mut buffer, ends);
        self.buffer = buffer;
        match ended {
            Ok(true) => {}
            Ok(false) => self.close(at, "the server closed the connection"),
            Err(error) => self.close(at, &error.to_string()),
        }
    }

    /// Reads what there is, to its end where the server has ended it; answers whether the
    /// connection stands.
    fn read_with(&mut self, at: usize, buffer: &mut Vec<u8>, ends: bool) -> anyhow::Result<bool> {
        let Some(client) = self.clients.get_mut(at) else { return Ok(true) };
        if client.stalled {
            return Ok(true);
        }
        loop {
            let Some(socket) = &mut client.socket else { return Ok(true) };
            let held = client.left.len();
            if buffer.len() < held + BUFFER_BYTES / 2 {
                buffer.resize(held + BUFFER_BYTES, 0);
            }
            let Some((start, room)) = buffer.split_at_mut_checked(held) else { return Ok(true) };
            start.copy_from_slice(&client.left);
            let came = match socket.read(room) {
                Ok(0) => return Ok(client.phase == Phase::Closed),
                Ok(came) => came,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            let emptied = came < room.len() && !ends;
            let bytes = buffer.get(..held + came).unwrap_or_default();
            let used = client.take(bytes, &self.speaks, &mut self.tally, &mut self.refused)?;
            client.left.clear();
            client.left.extend_from_slice(bytes.get(used..).unwrap_or_default());
            if emptied {
                return Ok(true);
            }
        }
    }

    fn close(&mut self, at: usize, why: &str) {
        if let Some(client) = self.clients.get_mut(at) {
            if let Some(mut socket) = client.socket.take() {
                let _ = self.poll.registry().deregister(&mut socket);
            }
            client.phase = Phase::Closed;
        }
        self.closed += 1;
        self.problem.get_or_insert_with(|| why.to_owned());
    }
}

impl Client {
    fn say(&mut self, words: &[u8]) -> anyhow::Result<()> {
        let socket = self.socket.as_mut().context("no socket")?;
        socket.write_all(words).context("a few bytes do not fit the socket")
    }

    fn say_message(&mut self, stream: &Stream, fields: &[(&str, Said<'_>)]) -> anyhow::Result<()> {
        let mut out = Vec::new();
        let (opcode, payload) = if stream.msgpack { (2, msgpack(fields)) } else { (1, json(fields)) };
        wire::put_frame(&mut out, opcode, &payload, true);
        self.say(&out)
    }

    /// Takes what came; answers how many bytes were of whole messages.
    fn take(
        &mut self,
        bytes: &[u8],
        speaks: &Speaks,
        tally: &mut Tally,
        refused: &mut Option<u16>,
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        let at = now();
        let stream = match speaks {
            Speaks::Stream(stream) => stream,
            Speaks::Redis(_) => {
                while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                    let Some(length) = wire::resp(rest) else { break };
                    self.phase = Phase::Live;
                    let value = rest.get(..length).unwrap_or_default();
                    wire::numbers_json(value, |number| self.number(number, at, tally));
                    used += length;
                }
                return Ok(used);
            }
        };
        if self.phase == Phase::Upgrading {
            let Some((status, end)) = wire::head(bytes) else { return Ok(0) };
            if status != 101 {
                *refused = Some(status);
                bail!("the handshake was answered {status}: {}", String::from_utf8_lossy(bytes));
            }
            self.phase = Phase::Greeting;
            used = end;
        }
        while let Some((frame, length)) = wire::frame(bytes.get(used..).unwrap_or_default())? {
            used += length;
            match frame {
                Frame::Data(payload) if self.phase == Phase::Live => self.data(payload, stream, at, tally),
                Frame::Data(payload) => self.answer(payload, stream, at, tally)?,
                Frame::Ping(payload) => {
                    let mut out = Vec::new();
                    wire::put_frame(&mut out, 10, payload, true);
                    self.say(&out)?;
                }
                Frame::Pong => {}
                Frame::Close(payload) => bail!("closed: {}", String::from_utf8_lossy(payload)),
            }
        }
        Ok(used)
    }

    fn number(&mut self, number: u64, at: u64, tally: &mut Tally) {
        if self.ledger.take(number) {
            tally.take(number, at);
        }
    }

    fn data(&mut self, payload: &[u8], stream: &Stream, at: u64, tally: &mut Tally) {
        if stream.msgpack {
            wire::numbers_msgpack(payload, |number| self.number(number, at, tally));
        } else {
            wire::numbers_json(payload, |number| self.number(number, at, tally));
        }
        if let Some(cursor) = wire::cursor(payload, stream.msgpack) {
            self.cursor = Some(cursor);
        } else if payload.len() < 512 && memmem::find(payload, b"gap").is_some() {
            tally.gaps += 1;
        }
    }

    /// A message of the opening.
    fn answer(&mut self, payload: &[u8], stream: &Stream, at: u64, tally: &mut Tally) -> anyhow::Result<()> {
        let has = |word: &str| memmem::find(payload, word.as_bytes()).is_some();
        match self.phase {
            Phase::Greeting if has("connected") => {
                self.phase = Phase::Authenticating;
                let (key, secret) = (Said::Text(&stream.key), Said::Text(&stream.secret));
                self.say_message(stream, &[("action", Said::Text("auth")), ("key", key), ("secret", secret)])
            }
            Phase::Authenticating if has("authenticated") => {
                self.phase = Phase::Subscribing;
                let trades = Said::List(&stream.symbol);
                self.say_message(stream, &[("action", Said::Text("subscribe")), ("trades", trades)])
            }
            Phase::Subscribing if has("subscription") => {
                self.phase = Phase::Live;
                Ok(())
            }
            _ if has("\"hb\"") || has("\u{2}hb") || wire::cursor(payload, stream.msgpack).is_some() => {
                self.data(payload, stream, at, tally);
                Ok(())
            }
            _ => bail!("unexpected in {:?}: {}", self.phase, String::from_utf8_lossy(payload)),
        }
    }
}

/// A value of a client's message.
enum Said<'a> {
    Text(&'a str),
    /// A list of one text.
    List(&'a str),
}

fn json(fields: &[(&str, Said<'_>)]) -> Vec<u8> {
    let value = |said: &Said<'_>| match said {
        Said::Text(text) => serde_json::json!(text),
        Said::List(text) => serde_json::json!([text]),
    };
    let map: serde_json::Map<String, serde_json::Value> =
        fields.iter().map(|(name, said)| ((*name).to_owned(), value(said))).collect();
    serde_json::Value::Object(map).to_string().into_bytes()
}

fn msgpack(fields: &[(&str, Said<'_>)]) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(0xd9);
        out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(text.as_bytes());
    }
    let mut out = vec![0x80 | u8::try_from(fields.len()).unwrap_or(15)];
    for (name, said) in fields {
        text(&mut out, name);
        match said {
            Said::Text(value) => text(&mut out, value),
            Said::List(value) => {
                out.push(0x91);
                text(&mut out, value);
            }
        }
    }
    out
}
