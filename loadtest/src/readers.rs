//! Thousands of readers in one thread: one epoll loop, frames read in place.
//!
//! A reader costs one read a wake-up and a search for the numbers in what came; nothing is
//! allocated a message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use hdrhistogram::Histogram;
use memchr::memmem;
use mio::{Events, Poll, Token};

use crate::connection::{BUFFER_BYTES, Connection, Pipe, Ready, Refused, Speaks, ready};
use crate::ledger::Ledger;
use crate::system::now;
use crate::wire;

/// Readers that are being connected at once.
const CONNECTING_MAX: usize = 200;
/// Latencies are told to three digits, up to this.
const LATENCY_MAX: u64 = 120_000_000_000;

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

struct Client {
    speaks: Arc<Speaks>,
    /// None: it was dropped, or the server closed it.
    connection: Option<Connection>,
    is_closed: bool,
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

impl Readers {
    /// So many readers, all connected and subscribed.
    pub(crate) fn connect(address: SocketAddr, speaks: Speaks, count: usize) -> anyhow::Result<Self> {
        let speaks = Arc::new(speaks);
        Self::connect_each(address, (0..count).map(|_| Arc::clone(&speaks)))
    }

    /// The same, each of what it speaks.
    pub(crate) fn connect_each(
        address: SocketAddr,
        speaks: impl IntoIterator<Item = Arc<Speaks>>,
    ) -> anyhow::Result<Self> {
        let none = Schedule { start: 0, period: 1, batch: 1, requests: 0, first: u64::MAX };
        let client = |speaks| Client {
            speaks,
            connection: None,
            is_closed: false,
            ledger: Ledger::new(u64::MAX, 1),
            cursor: None,
            stalled: false,
        };
        let clients: Vec<Client> = speaks.into_iter().map(client).collect();
        let mut readers = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            address,
            buffer: vec![0; BUFFER_BYTES],
            tally: Tally::new(none, 0),
            closed: 0,
            dropped: vec![false; clients.len()],
            clients,
            problem: None,
            refused: None,
        };
        readers.open_all(CONNECTING_MAX)?;
        Ok(readers)
    }

    /// Opens all that have no connection, so many at once, and waits until they are subscribed.
    pub(crate) fn open_all(&mut self, at_once: usize) -> anyhow::Result<()> {
        let count = self.clients.len();
        let mut next = 0;
        let (until, closed) = (now() + 120_000_000_000, self.closed);
        while self.live() < count {
            let opened = self.clients.iter().filter(|client| client.connection.is_some()).count();
            if next < count && opened - self.live() < at_once {
                if self.clients.get(next).is_some_and(|client| client.connection.is_none()) {
                    self.open(next)?;
                }
                next += 1;
                continue;
            }
            self.turn(Duration::from_millis(10))?;
            if self.closed > closed || now() > until {
                if let Some(status) = self.refused {
                    return Err(Refused(status).into());
                }
                let problem = self.problem.take().unwrap_or_default();
                let live = self.live();
                bail!("{live} of {count} readers are connected, {} were closed: {problem}", self.closed);
            }
        }
        Ok(())
    }

    fn live(&self) -> usize {
        let is_live = |client: &&Client| client.connection.as_ref().is_some_and(Connection::is_live);
        self.clients.iter().filter(is_live).count()
    }

    fn open(&mut self, at: usize) -> anyhow::Result<()> {
        let connection = Connection::open(self.address, Pipe::Wide, self.poll.registry(), Token(at))?;
        if let Some(client) = self.clients.get_mut(at) {
            client.connection = Some(connection);
            client.is_closed = false;
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

    /// From now on these readers read nothing, and the system takes little for them.
    pub(crate) fn stall(&mut self, count: usize) {
        for client in self.clients.iter_mut().take(count) {
            client.stalled = true;
            if let Some(connection) = &client.connection {
                connection.narrow();
            }
        }
    }

    /// Whether each has a cursor.
    pub(crate) fn have_cursors(&self) -> bool {
        self.clients.iter().all(|client| client.cursor.is_some())
    }

    /// Drops a reader and opens it again, where it left off.
    pub(crate) fn drop_and_resume(&mut self, at: usize) -> anyhow::Result<()> {
        if self.drop(at) { self.open(at) } else { Ok(()) }
    }

    /// Drops all of them, until [`Self::open_all`].
    pub(crate) fn drop_all(&mut self) {
        for at in 0..self.clients.len() {
            self.drop(at);
        }
    }

    /// Drops a reader that can come back; answers whether it did.
    fn drop(&mut self, at: usize) -> bool {
        let Some(client) = self.clients.get_mut(at) else { return false };
        if client.stalled || client.cursor.is_none() {
            return false;
        }
        let Some(connection) = client.connection.take_if(|connection| connection.is_live()) else {
            return false;
        };
        connection.close(self.poll.registry());
        client.ledger.resume();
        if let Some(dropped) = self.dropped.get_mut(at) {
            *dropped = true;
        }
        true
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
        let ended = |client: &Client| client.stalled || client.is_closed || client.ledger.lost(end) == 0;
        while now() < until && !self.clients.iter().all(ended) {
            self.pump((now() + 5_000_000).min(until))?;
        }
        // What comes twice comes now.
        self.pump(now() + 100_000_000)
    }

    pub(crate) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The latencies since this was last asked.
    pub(crate) fn take_latency(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.tally.latency, histogram())
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
        for Ready { at, writable, readable, ends } in ready(&mut self.poll, &mut self.events, wait)? {
            if writable {
                self.opened(at);
            }
            if readable {
                self.read(at, ends);
            }
        }
        Ok(())
    }

    /// The connection stands: the first words.
    fn opened(&mut self, at: usize) {
        let Some(Client { connection: Some(connection), speaks, cursor, .. }) = self.clients.get_mut(at)
        else {
            return;
        };
        if let Err(error) = connection.connected(speaks, cursor.as_deref()) {
            self.close(at, &error);
        }
    }

    fn read(&mut self, at: usize, ends: bool) {
        let Some(Client { connection: Some(connection), speaks, ledger, cursor, stalled: false, .. }) =
            self.clients.get_mut(at)
        else {
            return;
        };
        let (speaks, tally, at_time) = (Arc::clone(speaks), &mut self.tally, now());
        let mut each = |payload: &[u8]| take(payload, &speaks, ledger, cursor, tally, at_time);
        match connection.read(&mut self.buffer, &speaks, ends, &mut each) {
            Ok(true) => {}
            Ok(false) => self.close(at, &anyhow::anyhow!("the server closed the connection")),
            Err(error) => self.close(at, &error),
        }
    }

    fn close(&mut self, at: usize, why: &anyhow::Error) {
        if let Some(client) = self.clients.get_mut(at) {
            if let Some(connection) = client.connection.take() {
                connection.close(self.poll.registry());
            }
            client.is_closed = true;
        }
        self.closed += 1;
        if let Some(Refused(status)) = why.downcast_ref() {
            self.refused = Some(*status);
        }
        self.problem.get_or_insert_with(|| why.to_string());
    }
}

/// A message of ticks, or one with a cursor.
fn take(
    payload: &[u8],
    speaks: &Speaks,
    ledger: &mut Ledger,
    cursor: &mut Option<String>,
    tally: &mut Tally,
    at: u64,
) {
    let number = |number| {
        if ledger.take(number) {
            tally.take(number, at);
        }
    };
    let Speaks::Stream(stream) = speaks else { return wire::numbers_json(payload, number) };
    if stream.msgpack {
        wire::numbers_msgpack(payload, number);
    } else {
        wire::numbers_json(payload, number);
    }
    if let Some(told) = wire::cursor(payload, stream.msgpack) {
        *cursor = Some(told);
    } else if payload.len() < 512 && memmem::find(payload, b"gap").is_some() {
        tally.gaps += 1;
    }
}
