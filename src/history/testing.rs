//! Rows, a store in memory and a tail, for the tests of this module and of `http`.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::reader::{ReadLimits, Reader};
use super::{TailDoor, block_seal_key};
use crate::market::{
    Bucket, Cancel, Conditions, Correction, Event, Exchange, Kind, Nanos, Origin, Price, Quote, RequestKey,
    Row, Series, SipTape, Symbol, Tick, Trade, table,
};
use crate::seal::Keyring;
use crate::store::{
    At, BlockKey, BlockPage, BlockRow, BucketKey, BucketRow, FrameRow, Order, Reach, Record, Records, Space,
    Span, Store, StoreError, SymbolRow, TapeId,
};
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

/// A store that keeps blocks and records in maps.
#[derive(Default)]
pub(crate) struct MemoryStore {
    blocks: Mutex<BTreeMap<BucketKey, BTreeMap<BlockKey, BlockRow>>>,
    records: Mutex<BTreeMap<(Space, String, String), Record>>,
    /// Called before each read of blocks: what happens elsewhere meanwhile.
    pub(crate) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl MemoryStore {
    pub(crate) fn put_block(&self, key: BucketKey, block: BlockRow) {
        self.blocks.lock().entry(key).or_default().insert(block.key, block);
    }

    /// Flips a bit in the body of every block.
    pub(crate) fn damage(&self) {
        for block in self.blocks.lock().values_mut().flat_map(BTreeMap::values_mut) {
            let mut body = block.body.to_vec();
            *body.last_mut().unwrap() ^= 1;
            block.body = Bytes::from(body);
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(&self, _: FrameRow, _: Reach) -> Result<(), StoreError> {
        Err(StoreError::invalid("no tapes here"))
    }

    async fn frames(
        &self,
        _: TapeId,
        _: RangeInclusive<u64>,
        _: usize,
        _: At,
    ) -> Result<Vec<FrameRow>, StoreError> {
        Ok(Vec::new())
    }

    async fn put_blocks(
        &self,
        _: u16,
        _: u64,
        blocks: Vec<(BucketKey, Vec<BlockRow>)>,
    ) -> Result<(), StoreError> {
        for (key, rows) in blocks {
            rows.into_iter().for_each(|row| self.put_block(key, row));
        }
        Ok(())
    }

    async fn block_count(&self, _: u16) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn blocks(
        &self,
        key: BucketKey,
        kind: Kind,
        span: Span,
        after: Option<BlockKey>,
        bytes_max: usize,
    ) -> Result<BlockPage, StoreError> {
        let blocks = self.blocks.lock();
        let mut page = BlockPage::default();
        let mut bytes = 0;
        let held = blocks.get(&key).into_iter().flat_map(BTreeMap::values);
        let wanted = held.filter(|block| {
            block.key.kind == kind
                && after.is_none_or(|after| block.key > after)
                && block.key.first <= *span.end()
                && block.last >= *span.start()
        });
        for block in wanted {
            bytes += block.body.len();
            if bytes > bytes_max && !page.blocks.is_empty() {
                page.more = true;
                break;
            }
            page.blocks.push(block.clone());
        }
        Ok(page)
    }

    async fn buckets(
        &self,
        symbol: Symbol,
        from: Bucket,
        to: Bucket,
        order: Order,
        limit: usize,
    ) -> Result<Vec<BucketRow>, StoreError> {
        if let Some(meanwhile) = self.meanwhile.lock().take() {
            meanwhile();
        }
        let blocks = self.blocks.lock();
        let mut rows: Vec<BucketRow> = blocks
            .iter()
            .filter(|(key, _)| key.symbol == symbol && (from..=to).contains(&key.bucket))
            .map(|(key, blocks)| BucketRow {
                bucket: key.bucket,
                kinds: blocks.keys().fold(0, |kinds, block| kinds | 1 << block.kind.number()),
            })
            .collect();
        if order == Order::Descending {
            rows.reverse();
        }
        rows.truncate(limit);
        Ok(rows)
    }

    async fn symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<Vec<SymbolRow>, StoreError> {
        let blocks = self.blocks.lock();
        let mut rows: BTreeMap<Symbol, SymbolRow> = BTreeMap::new();
        for (key, block) in
            blocks.iter().flat_map(|(key, blocks)| blocks.values().map(move |block| (key, block)))
        {
            let row = rows.entry(key.symbol).or_insert(SymbolRow {
                symbol: key.symbol,
                kinds: 0,
                first: block.key.first,
                last: block.last,
            });
            row.kinds |= 1 << block.key.kind.number();
            row.first = row.first.min(block.key.first);
            row.last = row.last.max(block.last);
        }
        let wanted = rows.into_values().filter(|row| {
            row.symbol.as_str().starts_with(prefix) && after.is_none_or(|after| row.symbol > after)
        });
        Ok(wanted.take(limit).collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Records for MemoryStore {
    async fn get(&self, space: Space, part: &str, key: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.records.lock().get(&(space, part.to_owned(), key.to_owned())).cloned())
    }

    async fn put(&self, space: Space, part: &str, record: Record) -> Result<(), StoreError> {
        self.records.lock().insert((space, part.to_owned(), record.key.clone()), record);
        Ok(())
    }

    async fn put_if(&self, _: Space, _: &str, _: Record, _: u64) -> Result<bool, StoreError> {
        Err(StoreError::invalid("no compare-and-set here"))
    }

    async fn scan(
        &self,
        space: Space,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let records = self.records.lock();
        let rows = records.iter().filter(|((of, within, key), _)| {
            *of == space && within == part && after.is_none_or(|after| key.as_str() > after)
        });
        Ok(rows.map(|(_, record)| record.clone()).take(limit).collect())
    }
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
    fn snapshot(&self, series: Series) -> Result<Snapshot, Unreadable> {
        if *self.shed.lock() {
            return Err(CatchingUp { frames: 1 }.into());
        }
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
