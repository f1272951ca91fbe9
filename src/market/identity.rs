//! Who a tick is: its id, where it came from, and its place in the total order of history.

use std::fmt;

use super::{Event, Kind, Nanos, Tick, canonical};

const NUMBERED_DOMAIN: &[u8] = b"tapeline tick by number v1";
const REQUEST_DOMAIN: &[u8] = b"tapeline tick by request v1";
const KEY_DOMAIN: &[u8] = b"tapeline request key v1";

/// 128 bits that name a tick: two rows with one id are copies of one tick.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TickId(pub [u8; 16]);

/// 128 bits that name a request: hash of the producer's account and its `Idempotency-Key`,
/// or else the decompressed body.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(pub [u8; 16]);

impl RequestKey {
    /// The key of a request that names one.
    #[must_use]
    pub fn of_idempotency_key(account: &str, key: &str) -> Self {
        Self::hash(b'k', account, key.as_bytes())
    }

    /// The key of a request that names none: its decompressed body is its name. `body` is
    /// the 256-bit BLAKE3 hash of the body.
    #[must_use]
    pub fn of_body(account: &str, body: &[u8; 32]) -> Self {
        Self::hash(b'b', account, body)
    }

    /// The key of numbered lines: `key` and `digest` (SHA-256 of the decompressed file) name the file.
    #[must_use]
    pub fn of_lines(account: &str, key: &str, digest: &[u8; 32]) -> Self {
        let mut name = digest.to_vec();
        name.extend_from_slice(key.as_bytes());
        Self::hash(b'l', account, &name)
    }

    /// The key of the lines that a producer sends over connections that stay: `key` names them all.
    #[must_use]
    pub fn of_stream(account: &str, key: &str) -> Self {
        Self::hash(b's', account, key.as_bytes())
    }

    fn hash(form: u8, account: &str, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(KEY_DOMAIN).update(&[form]);
        hasher.update(&(account.len() as u64).to_be_bytes()).update(account.as_bytes()).update(name);
        Self(first_half(&hasher))
    }
}

/// Where a row came from: which tick of which request, and when a node took it in.
///
/// A block does not keep the origin of a tick that has an exchange's number, for its id
/// and order do not need it; read back it is [`Origin::UNKNOWN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// When the node that took it in sealed the frame, by that node's clock.
    pub received: Nanos,
    /// The position in the request's body (of numbered lines: the line's number in the file).
    pub index: u32,
    /// The request.
    pub request: RequestKey,
}

impl Origin {
    /// Not kept.
    pub const UNKNOWN: Self = Self { received: Nanos(0), index: 0, request: RequestKey([0; 16]) };
}

/// A tick as it is stored: what it says and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The tick.
    pub tick: Tick,
    /// Where it came from.
    pub origin: Origin,
}

/// The middle key of the total order: ticks of one nanosecond are in the exchange's order
/// where it numbers them, else in the order in which they were taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ordinal {
    /// The exchange's number.
    Numbered(u64),
    /// Received-at and the index in the request. Of several copies the lowest counts.
    Arrived(Nanos, u32),
}

/// A tick's place in the total order of history of its series: event time, then order, then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Event time.
    pub time: Nanos,
    /// The order within one nanosecond.
    pub order: Ordinal,
    /// The tick id, which breaks what ties are left.
    pub id: TickId,
}

impl Tick {
    /// The exchange's number of this tick, where it has one. A bar is numbered by its time.
    #[must_use]
    pub const fn number(&self) -> Option<u64> {
        match &self.event {
            Event::Trade(trade) => trade.id,
            Event::Cancel(cancel) => Some(cancel.id),
            Event::Correction(correction) => Some(correction.original_id),
            Event::MinuteBar(_) | Event::DayBar(_) => Some(0),
            Event::Quote(_) | Event::Status(_) | Event::Luld(_) => None,
        }
    }
}

impl Row {
    /// The tick's id.
    ///
    /// With a number of the exchange: hash of (kind, symbol, time, exchange, number), so that
    /// whoever posts the trade again, grouped as they like, posts the same tick. Of bars there
    /// is one a (symbol, timeframe, time). Else: hash of (request key, index, canonical bytes).
    #[must_use]
    pub fn id(&self) -> TickId {
        let tick = &self.tick;
        let mut hasher = blake3::Hasher::new();
        let numbers: [u64; 2] = match &tick.event {
            Event::Trade(trade) => match trade.id {
                Some(id) => [id, 0],
                None => return self.id_by_request(),
            },
            Event::Cancel(cancel) => [cancel.id, 0],
            Event::Correction(correction) => [correction.original_id, correction.corrected_id],
            Event::MinuteBar(_) | Event::DayBar(_) => [0, 0],
            Event::Quote(_) | Event::Status(_) | Event::Luld(_) => return self.id_by_request(),
        };
        let exchange = match &tick.event {
            Event::Trade(trade) => trade.exchange.0,
            Event::Cancel(cancel) => cancel.exchange.0,
            Event::Correction(correction) => correction.exchange.0,
            _ => 0,
        };
        hasher.update(NUMBERED_DOMAIN).update(&[tick.kind().number()]);
        hasher.update(tick.symbol.padded()).update(&tick.time.0.to_be_bytes()).update(&[exchange]);
        for number in numbers {
            hasher.update(&number.to_be_bytes());
        }
        TickId(first_half(&hasher))
    }

    fn id_by_request(&self) -> TickId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(REQUEST_DOMAIN).update(&self.origin.request.0);
        hasher.update(&self.origin.index.to_be_bytes()).update(&canonical::bytes(&self.tick));
        TickId(first_half(&hasher))
    }

    /// The row's place in the total order of its series.
    #[must_use]
    pub fn place(&self) -> Place {
        let order = match self.tick.number() {
            Some(number) => Ordinal::Numbered(number),
            None => Ordinal::Arrived(self.origin.received, self.origin.index),
        };
        Place { time: self.tick.time, order, id: self.id() }
    }

    /// Whether a block keeps this row's origin: only where id or order need it.
    #[must_use]
    pub const fn needs_origin(&self) -> bool {
        self.tick.number().is_none()
    }

    /// Of two rows with one id, the one that history shows: of bars an updated one, then the
    /// one of more trades, then of more shares; else, and of other ticks at once, the one with
    /// the lowest canonical bytes. The lower (received-at, index) gives the order.
    #[must_use]
    pub fn wins_over(&self, other: &Self) -> bool {
        let rank = |row: &Self| match &row.tick.event {
            Event::MinuteBar(bar) | Event::DayBar(bar) => (bar.updated, bar.trades, bar.volume),
            _ => (false, 0, 0),
        };
        let (mine, theirs) = (rank(self), rank(other));
        mine > theirs || (mine == theirs && canonical::bytes(&self.tick) < canonical::bytes(&other.tick))
    }
}

fn first_half(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    half
}

macro_rules! hex_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    )*};
}
hex_debug!(TickId, RequestKey);

impl Kind {
    /// Whether ticks of this kind correct others, and are therefore read for a whole trading day.
    #[must_use]
    pub const fn corrects(self) -> bool {
        matches!(self, Self::Correction | Self::Cancel)
    }
}
