//! Rows, a tail and a reader of them over a store in memory, for the tests of this module and of `http`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::reader::{ReadLimits, Reader};
use super::{TailDoor, block_seal_key};
use crate::market::{
    Bucket, Cancel, Conditions, Correction, Event, Exchange, Kind, Nanos, Origin, Price, Quote, RequestKey,
    Row, Series, SipTape, Symbol, Tick, Trade, table,
};
use crate::seal::Keyring;
use crate::store::memory::MemoryStore;
use crate::store::{BlockKey, BlockRow, BucketKey, Records, Store, TapeId};
use crate::tape::{CatchingUp, Frame, Region, Snapshot, Unreadable, WaitToken, fixtures};

pub(crate) fn symbol() -> Symbol {
    "AAPL".parse().unwrap()
}

pub(crate) fn price(text: &str) -> Price {
    Price::parse(text.as_bytes()).unwrap()
}

pub(crate) fn time(text: &str) -> Nanos {
    Nanos::parse(text.as_bytes()).unwrap()
}

fn row(time: Nanos, event: Event) -> Row {
    Row { tick: Tick { symbol: symbol(), time, event }, origin: Origin::UNKNOWN }
}

pub(crate) fn of(symbol: &str, row: Row) -> Row {
    Row { tick: Tick { symbol: symbol.parse().unwrap(), ..row.tick }, ..row }
}

/// 100 shares on exchange Q.
pub(crate) fn trade(time: i64, id: u64, at: &str) -> Row {
    trade_at(Nanos(time), id, at, 100)
}

pub(crate) fn trade_at(time: Nanos, id: u64, at: &str, size: u32) -> Row {
    let conditions = Conditions::from_codes(b"@").unwrap();
    let exchange = Exchange(b'Q');
    let trade = Trade { id: Some(id), exchange, price: price(at), size, conditions, tape: SipTape::C };
    row(time, Event::Trade(trade))
}

/// Replaces trade `id` (100 shares at `was`) by trade `corrected` (100 shares at `is`).
pub(crate) fn correction(time: Nanos, id: u64, was: &str, corrected: u64, is: &str) -> Row {
    let correction = Correction {
        exchange: Exchange(b'Q'),
        original_id: id,
        original_price: price(was),
        original_size: 100,
        corrected_id: corrected,
        corrected_price: price(is),
        corrected_size: 100,
        tape: SipTape::C,
        ..Correction::default()
    };
    row(time, Event::Correction(Box::new(correction)))
}

pub(crate) fn cancel(time: Nanos, id: u64, was: &str, error: bool) -> Row {
    let exchange = Exchange(b'Q');
    let cancel = Cancel { id, exchange, price: price(was), size: 100, error, tape: SipTape::C };
    row(time, Event::Cancel(cancel))
}

/// A quote without a number: its order comes from its arrival.
pub(crate) fn quote_at(time: i64, received: i64, index: u32, ask_size: u32) -> Row {
    let quote = Quote { ask_price: price("10"), ask_size, ..Quote::default() };
    let origin = Origin { received: Nanos(received), index, request: RequestKey([1; 16]) };
    Row { origin, ..row(Nanos(time), Event::Quote(quote)) }
}

/// Trades within a few nanoseconds, with and without numbers, among them copies of one
/// tick with other contents and other arrivals.
pub(crate) fn any_copies() -> impl Strategy<Value = Vec<Row>> {
    let one = (0_i64..12, prop::option::of(0_u64..3), 0_u8..2, 0_i64..3, (0_i64..4, 0_u32..3, 0_u8..2));
    let one = one.prop_map(|(time, id, exchange, cents, (received, index, request))| {
        let mut row = trade(time, 0, "10");
        let Event::Trade(trade) = &mut row.tick.event else { unreachable!() };
        trade.id = id;
        trade.exchange = Exchange(b'P' + exchange);
        trade.price = Price(Price::ONE + cents);
        row.origin = Origin { received: Nanos(received), index, request: RequestKey([request; 16]) };
        row
    });
    prop::collection::vec(one, 0..25)
}

/// A tail of rows in no order.
#[derive(Default)]
pub(crate) struct MemoryTail {
    pub(crate) rows: Mutex<Vec<Row>>,
    pub(crate) shed: Mutex<bool>,
    /// What the node has followed.
    pub(crate) followed: Mutex<BTreeMap<TapeId, u64>>,
}

#[async_trait]
impl TailDoor for MemoryTail {
    fn readable(&self) -> Result<(), Unreadable> {
        if *self.shed.lock() { Err(CatchingUp { frames: 1 }.into()) } else { Ok(()) }
    }

    fn snapshot(&self, series: Series) -> Result<Snapshot, Unreadable> {
        self.readable()?;
        let rows = self.rows.lock();
        let rows: Vec<Row> = rows.iter().filter(|row| row.tick.series() == series).cloned().collect();
        let run = 0..rows.len();
        let frame = Frame { rows, ..Frame::clone(&fixtures::frame(1, 1, 0, &[])) };
        Ok(Snapshot::of(vec![(Arc::new(frame), run)]))
    }

    fn series_from(&self, from: Bound<Series>, limit: usize) -> Result<Vec<Series>, Unreadable> {
        let rows = self.rows.lock();
        let series: std::collections::BTreeSet<Series> = rows.iter().map(|row| row.tick.series()).collect();
        Ok(series.range((from, Bound::Unbounded)).take(limit).copied().collect())
    }

    async fn wait_for(&self, token: &WaitToken, _: Duration) -> bool {
        let followed = self.followed.lock();
        token.0.iter().all(|(tape, seq)| followed.get(tape).is_some_and(|known| known >= seq))
    }
}

/// A reader and what it reads.
pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) tail: Arc<MemoryTail>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) reader: Arc<Reader>,
}

impl World {
    pub(crate) fn new(limits: ReadLimits) -> Self {
        let store = Arc::new(MemoryStore::default());
        let tail = Arc::new(MemoryTail::default());
        let keyring = Arc::new(Keyring::from_secret([7; 32]));
        let region = Region::parse("local").unwrap();
        let (blocks, records): (Arc<dyn Store>, Arc<dyn Records>) = (store.clone(), store.clone());
        let reader = Reader::new(blocks, records, keyring.clone(), tail.clone(), region, limits);
        Self { store, tail, keyring, reader: Arc::new(reader) }
    }

    /// Writes blocks as a keeper does: one a series and bucket, in the order of history.
    pub(crate) fn put_blocks(&self, rows: &[Row]) {
        for (key, block) in blocks_of(&self.keyring, rows) {
            self.store.put_block(key, block);
        }
    }

    pub(crate) fn put_tail(&self, rows: &[Row]) {
        self.tail.rows.lock().extend_from_slice(rows);
    }
}

pub(crate) fn blocks_of(keyring: &Keyring, rows: &[Row]) -> Vec<(BucketKey, BlockRow)> {
    let mut buckets: BTreeMap<(BucketKey, Kind), Vec<Row>> = BTreeMap::new();
    for row in rows {
        let bucket = Bucket::of(row.tick.kind(), row.tick.time);
        let key = BucketKey { symbol: row.tick.symbol, bucket };
        buckets.entry((key, row.tick.kind())).or_default().push(row.clone());
    }
    let block = |((key, kind), mut rows): ((BucketKey, Kind), Vec<Row>)| {
        rows.sort_by_key(Row::place);
        let body = table::encode_block(&rows);
        let (first, last) = (rows.first().unwrap().tick.time, rows.last().unwrap().tick.time);
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(&body).as_bytes()[..16]);
        let name = BlockKey { kind, first, id };
        let count = u32::try_from(rows.len()).unwrap();
        let body = keyring.seal(&block_seal_key(&key, &name, last, count), &body);
        (key, BlockRow { key: name, last, count, body })
    };
    buckets.into_iter().map(block).collect()
}
