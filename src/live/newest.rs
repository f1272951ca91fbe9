//! The latest of a series: from memory, else from history, once for all who ask.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, MutexGuard};

use super::latest::{Ask, Latest, Member, Newer, Quoted, Traded, sets_price};
use super::sheet::{Known, Sheet};
use crate::bars::Timeframe;
use crate::history::{BarQuery, BarSpan, Entry, ReadError, Reader};
use crate::market::{Event, Kind, Nanos, Row, Series, Symbol, Tick};
use crate::store::Order;
use crate::tape::{Delivery, Follower, Position, SHARDS, shard_of};
use crate::wire::{Mark, json};

/// Answers of the memory for which its lock is held at once.
const ASKS_AT_ONCE: usize = 64;
/// Bytes of an object, for the buffer's first size.
const OBJECT_BYTES: usize = 128;

/// What a symbol is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The latest trade that sets a price.
    pub trade: Option<Traded>,
    /// The latest quote.
    pub quote: Option<Quoted>,
    /// The last minute bar that is closed.
    pub minute: Option<BarSpan>,
    /// The daily bar of the last day that has one: today's is told as far as it goes.
    pub day: Option<BarSpan>,
    /// The daily bar before it.
    pub previous_day: Option<BarSpan>,
}

/// Answers as objects of history in JSON, in the order asked.
#[derive(Debug, Default)]
pub struct Objects {
    bytes: Vec<u8>,
    /// Where each ends: where the one before does, there is nothing.
    ends: Vec<usize>,
}

impl Objects {
    fn with_capacity(count: usize) -> Self {
        Self { bytes: Vec::with_capacity(count * OBJECT_BYTES), ends: Vec::with_capacity(count) }
    }

    fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Each answer; `None` where there is nothing.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let object = |(start, end): (&usize, &usize)| self.bytes.get(*start..*end);
        starts.zip(&self.ends).map(move |span| object(span).filter(|object| !object.is_empty()))
    }

    /// The same with what was found for some of them.
    fn with(&self, found: &BTreeMap<usize, Option<Tick>>) -> Self {
        let mut all = Self::with_capacity(self.ends.len());
        for (at, object) in self.iter().enumerate() {
            match (found.get(&at), object) {
                (Some(Some(tick)), _) => json::write_history(tick, None, &mut all.bytes),
                (None, Some(object)) => all.bytes.extend_from_slice(object),
                _ => {}
            }
            all.end();
        }
        all
    }
}

/// Reads of one series, one after the other. The last of them leaves nothing behind.
struct InTurn<'n> {
    newest: &'n Newest,
    series: Series,
    turn: Arc<Turn<()>>,
}

impl InTurn<'_> {
    async fn lock(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Drop for InTurn<'_> {
    fn drop(&mut self) {
        /// Of the map and of this one.
        const LAST: usize = 2;
        let mut reading = self.newest.reading.lock();
        if Arc::strong_count(&self.turn) <= LAST {
            reading.remove(&self.series);
        }
    }
}

/// The latest of each series.
pub struct Newest {
    latest: Mutex<Latest>,
    reader: Arc<Reader>,
    /// Who reads a series from history now; others wait for that one.
    reading: Mutex<HashMap<Series, Arc<Turn<()>>>>,
    /// Reads of history so far.
    reads: AtomicU64,
    /// By shard, what the sheets cover, until the node has followed all of it.
    sheets: Mutex<BTreeMap<u8, Position>>,
    /// What is in memory may be answered: with sheets it is older than what was acknowledged until the tapes
    /// were followed to their ends.
    is_ready: AtomicBool,
}

impl Newest {
    /// Over this history, with so many symbols in memory.
    #[must_use]
    pub fn new(reader: Arc<Reader>, symbols_max: usize) -> Self {
        let latest = Mutex::new(Latest::new(symbols_max));
        let (reading, sheets, reads) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        Self { latest, reader, reading, reads, sheets, is_ready: AtomicBool::new(true) }
    }

    /// Takes what the follower delivered, in order. What a sheet covers is in it already, also what was taken
    /// back: it is not taken again.
    pub fn deliver(&self, follower: &Follower, deliveries: &[Delivery]) {
        let mut sheets = self.sheets.lock();
        sheets.retain(|_, position| !follower.has_followed(position));
        let mut latest = self.latest.lock();
        for delivery in deliveries {
            let frame = &delivery.frame;
            let covers = |position: &Position| follower.progress(position, frame.tape).covers(frame.seq);
            let in_sheets = sheets.iter().filter(|(_, position)| covers(position)).map(|(shard, _)| *shard);
            let in_sheets: Vec<u8> = in_sheets.collect();
            let is_new =
                |row: &&Row| in_sheets.is_empty() || !in_sheets.contains(&shard_of(row.tick.symbol, SHARDS));
            delivery.live_rows().filter(is_new).for_each(|row| latest.apply(row));
            delivery.backfill_rows().filter(is_new).for_each(|row| latest.backfilled(row));
        }
    }

    /// Symbols in memory.
    #[must_use]
    pub fn symbols(&self) -> usize {
        self.latest.lock().len()
    }

    /// Reads of history for the latest of a series, so far.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The symbols in memory, by shard.
    #[must_use]
    pub fn by_shard(&self) -> BTreeMap<u8, Vec<Symbol>> {
        let mut shards = BTreeMap::<u8, Vec<Symbol>>::new();
        let latest = self.latest.lock();
        latest.symbols().for_each(|symbol| shards.entry(shard_of(symbol, SHARDS)).or_default().push(symbol));
        shards
    }

    /// What is known of these symbols, ascending.
    #[must_use]
    pub fn known(&self, symbols: &[Symbol]) -> Vec<Known> {
        self.latest.lock().known(symbols)
    }

    /// Takes what another node knew of a shard. Nothing was delivered here yet, and what the sheet does not
    /// cover will be.
    pub fn warm(&self, shard: u8, sheet: Sheet) {
        let mut latest = self.latest.lock();
        for known in sheet.symbols {
            latest.warm(known);
        }
        self.sheets.lock().insert(shard, sheet.position);
        self.is_ready.store(false, Ordering::Relaxed);
    }

    /// Whether what is in memory may be answered.
    fn ready(&self) -> Result<(), ReadError> {
        if !self.is_ready.load(Ordering::Relaxed) {
            self.reader.readable()?;
            self.is_ready.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The newest of many series, in the order asked: what the memory knows under one lock, the
    /// rest from history. A daily bar is told as a minute bar is.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn newest(&self, asks: &[Ask], now: Nanos) -> Result<Objects, ReadError> {
        self.ready()?;
        let minute = now.floor(Nanos::MINUTE);
        let (mut objects, mut missing) = (Objects::with_capacity(asks.len()), Vec::new());
        for some in asks.chunks(ASKS_AT_ONCE) {
            let mut latest = self.latest.lock();
            for ask in some {
                if latest.write(*ask, minute, &mut objects.bytes).is_none() {
                    missing.push((objects.ends.len(), *ask));
                }
                objects.end();
            }
        }
        if missing.is_empty() {
            return Ok(objects);
        }
        let mut found = BTreeMap::new();
        for (at, ask) in missing {
            found.insert(at, self.read(ask, now).await?);
        }
        Ok(objects.with(&found))
    }

    /// The newest of a series that the memory does not know.
    async fn read(&self, ask: Ask, now: Nanos) -> Result<Option<Tick>, ReadError> {
        let Ask { symbol, member } = ask;
        let tick = |time, event| Tick { symbol, time, event };
        Ok(match member {
            Member::Trade => {
                self.trade(symbol, now).await?.map(|trade| tick(trade.time, Event::Trade(trade.what)))
            }
            Member::Quote => {
                self.quote(symbol, now).await?.map(|quote| tick(quote.time, Event::Quote(quote.what)))
            }
            Member::Bar | Member::DailyBar => self.bar(ask, now).await?.map(|bar| bar.to_tick(symbol)),
            Member::Status | Member::Luld => {
                self.event(ask, now).await?.map(|event| tick(event.time, event.what))
            }
        })
    }

    /// A bar, remembered until something happens that may change it.
    async fn bar(&self, ask: Ask, now: Nanos) -> Result<Option<BarSpan>, ReadError> {
        let Ask { symbol, member } = ask;
        let minute = now.floor(Nanos::MINUTE);
        if let Some(known) = self.latest.lock().bar(ask, minute) {
            return Ok(known);
        }
        let turn = self.turn(Series { symbol, kind: member.kind() });
        let _reading = turn.lock().await;
        let load = {
            let mut latest = self.latest.lock();
            if let Some(known) = latest.bar(ask, minute) {
                return Ok(known);
            }
            latest.begin_bar(symbol, member, minute)
        };
        let found = match member {
            Member::DailyBar => self.bars(symbol, "1Day", now, 1).await?.into_iter().next(),
            _ => self.minute(symbol, now).await?,
        };
        self.latest.lock().bar_loaded(ask, load, minute, found);
        Ok(found)
    }

    /// The latest status or band, up to `now`.
    async fn event(&self, ask: Ask, now: Nanos) -> Result<Option<Newer<Event>>, ReadError> {
        self.ready()?;
        let Ask { symbol, member } = ask;
        let series = Series { symbol, kind: member.kind() };
        let turn = self.turn(series);
        let _reading = turn.lock().await;
        let load = match self.latest.lock().event(symbol, member) {
            Ok(known) => return Ok(known),
            Err(load) => load,
        };
        self.reads.fetch_add(1, Ordering::Relaxed);
        let found = self.reader.newest(series, now, |_| true).await?;
        let found = found.map(|entry| Newer {
            place: entry.key.place,
            time: entry.tick.time,
            what: entry.tick.event,
        });
        self.latest.lock().event_loaded(symbol, member, load, found.clone());
        Ok(found)
    }

    /// The latest trade that sets a price, up to `now`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn trade(&self, symbol: Symbol, now: Nanos) -> Result<Option<Traded>, ReadError> {
        self.ready()?;
        if let Ok(known) = self.latest.lock().trade(symbol) {
            return Ok(known);
        }
        let series = Series { symbol, kind: Kind::Trade };
        let turn = self.turn(series);
        let _reading = turn.lock().await;
        let load = match self.latest.lock().trade(symbol) {
            Ok(known) => return Ok(known),
            Err(load) => load,
        };
        let counts = |entry: &Entry| {
            let stands = !matches!(entry.mark, Some(Mark::Canceled | Mark::Incorrect));
            stands && matches!(&entry.tick.event, Event::Trade(trade) if sets_price(trade))
        };
        self.reads.fetch_add(1, Ordering::Relaxed);
        let found = self.reader.newest(series, now, counts).await?.and_then(|entry| match entry.tick.event {
            Event::Trade(what) => Some(Newer { place: entry.key.place, time: entry.tick.time, what }),
            _ => None,
        });
        self.latest.lock().trade_loaded(symbol, load, found.clone());
        Ok(found)
    }

    /// The latest quote, up to `now`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn quote(&self, symbol: Symbol, now: Nanos) -> Result<Option<Quoted>, ReadError> {
        self.ready()?;
        if let Ok(known) = self.latest.lock().quote(symbol) {
            return Ok(known);
        }
        let series = Series { symbol, kind: Kind::Quote };
        let turn = self.turn(series);
        let _reading = turn.lock().await;
        let load = match self.latest.lock().quote(symbol) {
            Ok(known) => return Ok(known),
            Err(load) => load,
        };
        self.reads.fetch_add(1, Ordering::Relaxed);
        let found =
            self.reader.newest(series, now, |_| true).await?.and_then(|entry| match entry.tick.event {
                Event::Quote(what) => Some(Newer { place: entry.key.place, time: entry.tick.time, what }),
                _ => None,
            });
        self.latest.lock().quote_loaded(symbol, load, found.clone());
        Ok(found)
    }

    /// The last minute bar that is closed at `now`, from history.
    async fn minute(&self, symbol: Symbol, now: Nanos) -> Result<Option<BarSpan>, ReadError> {
        // A bar is told when it begins: the running one begins with the minute.
        let closed = now.floor(Nanos::MINUTE).plus(-1);
        Ok(self.bars(symbol, "1Min", closed, 1).await?.into_iter().next())
    }

    /// Everything of a symbol.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn snapshot(&self, symbol: Symbol, now: Nanos) -> Result<Snapshot, ReadError> {
        let mut days = self.bars(symbol, "1Day", now, 2).await?.into_iter();
        Ok(Snapshot {
            trade: self.trade(symbol, now).await?,
            quote: self.quote(symbol, now).await?,
            minute: self.bar(Ask { symbol, member: Member::Bar }, now).await?,
            day: days.next(),
            previous_day: days.next(),
        })
    }

    /// The newest bars that begin until `until`, the newest first.
    async fn bars(
        &self,
        symbol: Symbol,
        timeframe: &str,
        until: Nanos,
        limit: usize,
    ) -> Result<Vec<BarSpan>, ReadError> {
        let Ok(timeframe) = Timeframe::parse(timeframe) else { return Ok(Vec::new()) };
        let (span, order) = (Nanos(0)..=until, Order::Descending);
        let query = BarQuery { symbols: vec![symbol], timeframe, span, order, limit, cursor: None };
        self.reads.fetch_add(1, Ordering::Relaxed);
        let page = self.reader.bars(&query).await?;
        Ok(page.series.into_iter().flat_map(|(_, bars)| bars).collect())
    }

    fn turn(&self, series: Series) -> InTurn<'_> {
        let turn = Arc::clone(self.reading.lock().entry(series).or_default());
        InTurn { newest: self, series, turn }
    }
}
