//! Clients that drop, are cut, pause, read slowly, and come back by their cursors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use mio::{Events, Poll, Token};

use crate::connection::{BUFFER_BYTES, Closed, Connection, Pipe, Ready, Refused, Speaks, ready};
use crate::random::Random;
use crate::system::{now, wall_ms};
use crate::transcript::Transcript;
use crate::wire;

const SECOND: u64 = 1_000_000_000;
/// How long a client is away, at most.
const AWAY_MAX: u64 = 20 * SECOND;
/// How soon it tries again where nobody answers.
const AGAIN: u64 = SECOND;
/// A slow reader reads so long, and then so long nothing.
const READS: std::ops::Range<u64> = 2 * SECOND..20 * SECOND;
const SLEEPS: std::ops::Range<u64> = SECOND..10 * SECOND;

/// One client.
pub(crate) struct Follower {
    speaks: Arc<Speaks>,
    pipe: Pipe,
    connection: Option<Connection>,
    cursor: Option<String>,
    pub(crate) transcript: Transcript,
    /// When it connects, while it has no connection.
    back_at: u64,
    /// It reads nothing until then.
    sleeps_until: Option<u64>,
    /// When it begins to read nothing, where it is a slow one.
    sleeps_at: Option<u64>,
}

impl Follower {
    /// Whose trades it is given.
    pub(crate) fn symbols(&self) -> &[String] {
        match &*self.speaks {
            Speaks::Stream(stream) => &stream.symbols,
            Speaks::Redis(_) => &[],
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) drops: u64,
    pub(crate) resumes: u64,
    pub(crate) sleeps: u64,
    /// Connections that broke without a word.
    pub(crate) cut: u64,
    /// Handshakes that were not answered 101, and connections that nobody took.
    pub(crate) unanswered: u64,
    pub(crate) gaps: u64,
    pub(crate) deliveries: u64,
    /// Closed by the node, by code and reason.
    pub(crate) closed: BTreeMap<String, u64>,
    /// What should not be: the first of it.
    pub(crate) problem: Option<String>,
}

/// All of them, in one thread.
pub(crate) struct Followers {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    buffer: Vec<u8>,
    random: Random,
    /// The symbol of a number.
    symbol_of: fn(u64) -> u64,
    pub(crate) all: Vec<Follower>,
    pub(crate) seen: Seen,
    /// Nobody stays away any more.
    is_ending: bool,
}

impl Followers {
    /// These clients, none of which has connected yet.
    pub(crate) fn new(
        address: SocketAddr,
        seed: u64,
        first: u64,
        symbol_of: fn(u64) -> u64,
        clients: impl IntoIterator<Item = (Arc<Speaks>, Pipe)>,
    ) -> anyhow::Result<Self> {
        let mut random = Random::new(seed);
        let all = clients.into_iter().map(|(speaks, pipe)| Follower {
            speaks,
            pipe,
            connection: None,
            cursor: None,
            transcript: Transcript::new(first),
            back_at: now() + random.of(0..SECOND),
            sleeps_until: None,
            sleeps_at: (pipe == Pipe::Narrow).then(|| now() + random.of(READS)),
        });
        let all = all.collect();
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            address,
            buffer: vec![0; BUFFER_BYTES],
            random,
            symbol_of,
            all,
            seen: Seen::default(),
            is_ending: false,
        })
    }

    /// Clients that are subscribed at the moment.
    pub(crate) fn live(&self) -> usize {
        let is_live = |own: &&Follower| own.connection.as_ref().is_some_and(Connection::is_live);
        self.all.iter().filter(is_live).count()
    }

    /// Whether each has had a cursor.
    pub(crate) fn have_cursors(&self) -> bool {
        self.all.iter().all(|own| own.cursor.is_some())
    }

    /// From now on all read, and who is away comes back soon.
    pub(crate) fn end(&mut self) {
        self.is_ending = true;
        let soon = now() + 2 * SECOND;
        for own in &mut self.all {
            own.back_at = own.back_at.min(soon);
            own.sleeps_until = own.sleeps_until.map(|at| at.min(soon));
            own.sleeps_at = None;
        }
    }

    /// Drops one that can come back, for a while.
    pub(crate) fn drop_one(&mut self) {
        let at = usize::try_from(self.random.of(0..self.all.len() as u64)).unwrap_or(0);
        let Some(own) = self.all.get_mut(at) else { return };
        if own.cursor.is_some() && own.connection.as_ref().is_some_and(Connection::is_live) {
            self.seen.drops += 1;
            self.leave(at);
        }
    }

    fn leave(&mut self, at: usize) {
        let away = if self.is_ending { AGAIN } else { self.random.of(0..AWAY_MAX) };
        let reads = (!self.is_ending).then(|| self.random.of(READS));
        if let Some(own) = self.all.get_mut(at) {
            if let Some(connection) = own.connection.take() {
                connection.close(self.poll.registry());
            }
            own.sleeps_until = None;
            own.back_at = now() + away;
            // It reads slowly again, once it is back.
            own.sleeps_at = reads.filter(|_| own.pipe == Pipe::Narrow).map(|reads| own.back_at + reads);
        }
    }

    /// Reads and does what is due, until an instant.
    pub(crate) fn pump(&mut self, until: u64) -> anyhow::Result<()> {
        while now() < until {
            self.due();
            for Ready { at, writable, readable, ends } in
                ready(&mut self.poll, &mut self.events, Duration::from_millis(10))?
            {
                if writable {
                    self.connected(at);
                }
                if readable {
                    self.read(at, ends);
                }
            }
        }
        Ok(())
    }

    fn due(&mut self) {
        let time = now();
        for at in 0..self.all.len() {
            let Some(own) = self.all.get_mut(at) else { return };
            if own.connection.is_none() && own.back_at <= time {
                self.open(at);
            } else if own.sleeps_until.is_some_and(|until| until <= time) {
                own.sleeps_until = None;
                own.sleeps_at = (!self.is_ending).then(|| time + self.random.of(READS));
                self.read(at, true);
            } else if own.sleeps_at.is_some_and(|begins| begins <= time) {
                own.sleeps_at = None;
                own.sleeps_until = Some(time + self.random.of(SLEEPS));
                self.seen.sleeps += 1;
            }
        }
    }

    fn open(&mut self, at: usize) {
        let Some(own) = self.all.get_mut(at) else { return };
        match Connection::open(self.address, own.pipe, self.poll.registry(), Token(at)) {
            Ok(connection) => {
                own.connection = Some(connection);
                own.transcript.resume();
                self.seen.resumes += u64::from(own.cursor.is_some());
            }
            Err(_) => {
                self.seen.unanswered += 1;
                own.back_at = now() + AGAIN;
            }
        }
    }

    fn connected(&mut self, at: usize) {
        let Some(Follower { connection: Some(connection), speaks, cursor, .. }) = self.all.get_mut(at) else {
            return;
        };
        if let Err(error) = connection.connected(speaks, cursor.as_deref()) {
            self.ended(at, Some(&error));
        }
    }

    fn read(&mut self, at: usize, ends: bool) {
        let Some(Follower {
            connection: Some(connection),
            speaks,
            cursor,
            transcript,
            sleeps_until: None,
            ..
        }) = self.all.get_mut(at)
        else {
            return;
        };
        let (seen, symbol_of, at_ms) = (&mut self.seen, self.symbol_of, wall_ms());
        let mut each = |payload: &[u8]| {
            wire::numbers_json(payload, |number| {
                seen.deliveries += 1;
                transcript.take(number, symbol_of(number), at_ms);
            });
            if let Some(told) = wire::cursor(payload, false) {
                *cursor = Some(told);
                transcript.cursor(wire::time_ms(payload).unwrap_or(0));
            } else if payload.len() < 512 && memmem::find(payload, b"\"gap\"").is_some() {
                seen.gaps += 1;
            }
        };
        match connection.read(&mut self.buffer, speaks, ends, &mut each) {
            Ok(true) => {}
            Ok(false) => self.ended(at, None),
            Err(error) => self.ended(at, Some(&error)),
        }
    }

    /// A connection is over by itself.
    fn ended(&mut self, at: usize, why: Option<&anyhow::Error>) {
        let is_live =
            self.all.get(at).is_some_and(|own| own.connection.as_ref().is_some_and(Connection::is_live));
        self.leave(at);
        if let Some(closed) = why.and_then(|why| why.downcast_ref::<Closed>()) {
            *self.seen.closed.entry(closed.to_string()).or_default() += 1;
            // Who is slow, and who is to move: all else is somebody's fault.
            if !(matches!(closed.code, 1_001 | 1_012) || closed.reason == "slow client") {
                self.seen.problem.get_or_insert_with(|| closed.to_string());
            }
        } else if is_live {
            self.seen.cut += 1;
            if let Some(error) = why.filter(|why| why.downcast_ref::<std::io::Error>().is_none()) {
                self.seen.problem.get_or_insert_with(|| format!("what came is no stream: {error:#}"));
            }
        } else {
            self.seen.unanswered += 1;
            if let Some(Refused(status)) = why.and_then(|why| why.downcast_ref())
                && *status != 503
            {
                self.seen.problem.get_or_insert_with(|| format!("a handshake was answered {status}"));
            }
            if let Some(own) = self.all.get_mut(at) {
                own.back_at = now() + AGAIN;
            }
        }
    }
}
