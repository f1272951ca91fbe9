//! The latest of a series: from memory, else from history, once for all who ask.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use super::latest::{Latest, Newer, Quoted, Traded, sets_price};
use crate::bars::Timeframe;
use crate::history::{BarQuery, BarSpan, Entry, ReadError, Reader};
use crate::market::{Event, Kind, Nanos, Series, Symbol};
use crate::store::Order;
use crate::tape::Delivery;
use crate::wire::Mark;

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

/// The latest of each series.
pub struct Newest {
    latest: Mutex<Latest>,
    reader: Arc<Reader>,
    /// Who reads a series from history now; others wait for that one.
    reading: Mutex<HashMap<Series, Arc<Turn<()>>>>,
}

impl Newest {
    /// Over this history, with so many symbols in memory.
    #[must_use]
    pub fn new(reader: Arc<Reader>, symbols_max: usize) -> Self {
        Self { latest: Mutex::new(Latest::new(symbols_max)), reader, reading: Mutex::default() }
    }

    /// Takes what the follower delivered, in order.
    pub fn deliver(&self, deliveries: &[Delivery]) {
        let mut latest = self.latest.lock();
        for row in deliveries.iter().flat_map(Delivery::live_rows) {
            latest.apply(row);
        }
    }

    /// Symbols in memory.
    #[must_use]
    pub fn symbols(&self) -> usize {
        self.latest.lock().len()
    }

    /// The latest trade that sets a price, up to `now`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn trade(&self, symbol: Symbol, now: Nanos) -> Result<Option<Traded>, ReadError> {
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
        let found = self.reader.newest(series, now, counts).await?.and_then(|entry| match entry.tick.event {
            Event::Trade(what) => Some(Newer { place: entry.key.place, time: entry.tick.time, what }),
            _ => None,
        });
        self.latest.lock().trade_loaded(symbol, load, found.clone());
        self.reading.lock().remove(&series);
        Ok(found)
    }

    /// The latest quote, up to `now`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn quote(&self, symbol: Symbol, now: Nanos) -> Result<Option<Quoted>, ReadError> {
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
        let found =
            self.reader.newest(series, now, |_| true).await?.and_then(|entry| match entry.tick.event {
                Event::Quote(what) => Some(Newer { place: entry.key.place, time: entry.tick.time, what }),
                _ => None,
            });
        self.latest.lock().quote_loaded(symbol, load, found.clone());
        self.reading.lock().remove(&series);
        Ok(found)
    }

    /// The last minute bar that is closed at `now`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn minute(&self, symbol: Symbol, now: Nanos) -> Result<Option<BarSpan>, ReadError> {
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
            minute: self.minute(symbol, now).await?,
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
        let page = self.reader.bars(&query).await?;
        Ok(page.series.into_iter().flat_map(|(_, bars)| bars).collect())
    }

    fn turn(&self, series: Series) -> Arc<Turn<()>> {
        Arc::clone(self.reading.lock().entry(series).or_default())
    }
}
