//! The memory of the latest trade and quote of each symbol.

use std::collections::HashMap;

use crate::bars::Period;
use crate::bars::conditions::{OpenClose, updates};
use crate::market::{Event, Kind, Nanos, Place, Quote, Row, Symbol, Trade};

/// A trade, and where it stands in the order of history.
pub type Traded = Newer<Trade>;
/// A quote, and where it stands in the order of history.
pub type Quoted = Newer<Quote>;

/// What is newest of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newer<T> {
    /// Its place: of two the higher is newer.
    pub place: Place,
    /// When it happened.
    pub time: Nanos,
    /// What it says.
    pub what: T,
}

/// Names a read of history for the memory, and what it was begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    epoch: u64,
}

/// The newest of a series as far as the memory knows.
#[derive(Clone, Debug)]
struct Slot<T> {
    newest: Option<Newer<T>>,
    /// History was read since the last event that could take something back.
    loaded: bool,
    /// Raised by each such event: a read that was begun before it says nothing.
    epoch: u64,
}

impl<T: Clone> Slot<T> {
    const fn new() -> Self {
        Self { newest: None, loaded: false, epoch: 0 }
    }

    fn offer(&mut self, place: Place, time: Nanos, what: &T) {
        if self.newest.as_ref().is_none_or(|newest| place > newest.place) {
            self.newest = Some(Newer { place, time, what: what.clone() });
        }
    }

    fn forget(&mut self) {
        (self.newest, self.loaded) = (None, false);
        self.epoch += 1;
    }

    fn loaded(&mut self, load: Load, found: Option<Newer<T>>) {
        if load.epoch != self.epoch {
            return;
        }
        self.loaded = true;
        if let Some(found) = found {
            self.offer(found.place, found.time, &found.what);
        }
    }

    /// `Ok`: what is known, perhaps that there is nothing; `Err`: history must be read.
    fn get(&self) -> Result<Option<Newer<T>>, Load> {
        if self.loaded { Ok(self.newest.clone()) } else { Err(Load { epoch: self.epoch }) }
    }
}

#[derive(Clone, Debug)]
struct Series {
    trade: Slot<Trade>,
    quote: Slot<Quote>,
}

/// The latest of each symbol.
#[derive(Debug)]
pub struct Latest {
    symbols_max: usize,
    symbols: HashMap<Symbol, Series>,
}

/// Whether a trade may be shown as the latest: one that cannot update a bar's price is none, such
/// as an odd lot.
#[must_use]
pub(super) fn sets_price(trade: &Trade) -> bool {
    let may = updates(trade, Period::Minute);
    may.high_low || may.open_close != OpenClose::Never
}

impl Latest {
    /// A memory of so many symbols at most.
    #[must_use]
    pub fn new(symbols_max: usize) -> Self {
        Self { symbols_max, symbols: HashMap::new() }
    }

    /// Takes a tick that was delivered live.
    pub fn apply(&mut self, row: &Row) {
        let (symbol, time) = (row.tick.symbol, row.tick.time);
        let taken_back = matches!(row.tick.kind(), Kind::Correction | Kind::Cancel);
        let told = match &row.tick.event {
            Event::Trade(trade) => sets_price(trade),
            Event::Quote(_) => true,
            _ => taken_back,
        };
        // Of a symbol that nobody has asked for nothing need be known: who asks reads history.
        let Some(series) = self.symbols.get_mut(&symbol).filter(|_| told) else { return };
        match &row.tick.event {
            Event::Trade(trade) => series.trade.offer(row.place(), time, trade),
            Event::Quote(quote) => series.quote.offer(row.place(), time, quote),
            _ => series.trade.forget(),
        }
    }

    /// The latest trade: what is known, or the read of history that is to be made.
    ///
    /// # Errors
    /// [`Load`], for [`Self::trade_loaded`].
    pub fn trade(&mut self, symbol: Symbol) -> Result<Option<Traded>, Load> {
        self.series(symbol).map_or(Err(Load { epoch: u64::MAX }), |series| series.trade.get())
    }

    /// The same of the latest quote.
    ///
    /// # Errors
    /// [`Load`], for [`Self::quote_loaded`].
    pub fn quote(&mut self, symbol: Symbol) -> Result<Option<Quoted>, Load> {
        self.series(symbol).map_or(Err(Load { epoch: u64::MAX }), |series| series.quote.get())
    }

    /// What history had. It counts only if nothing was taken back since the read was begun.
    pub fn trade_loaded(&mut self, symbol: Symbol, load: Load, found: Option<Traded>) {
        if let Some(series) = self.symbols.get_mut(&symbol) {
            series.trade.loaded(load, found);
            self.keep_or_drop(symbol);
        }
    }

    /// The same of quotes.
    pub fn quote_loaded(&mut self, symbol: Symbol, load: Load, found: Option<Quoted>) {
        if let Some(series) = self.symbols.get_mut(&symbol) {
            series.quote.loaded(load, found);
            self.keep_or_drop(symbol);
        }
    }

    /// Symbols in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// A symbol that has nothing takes no room: whoever asks for names that are none fills nothing.
    fn keep_or_drop(&mut self, symbol: Symbol) {
        let has = |series: &Series| series.trade.newest.is_some() || series.quote.newest.is_some();
        if self.symbols.get(&symbol).is_some_and(|series| !has(series)) {
            self.symbols.remove(&symbol);
        }
    }

    /// The symbol's entry, made where there is room.
    fn series(&mut self, symbol: Symbol) -> Option<&mut Series> {
        if self.symbols.len() >= self.symbols_max && !self.symbols.contains_key(&symbol) {
            return None;
        }
        let fresh = || Series { trade: Slot::new(), quote: Slot::new() };
        Some(self.symbols.entry(symbol).or_insert_with(fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::{cancel, quote_at, symbol, time, trade};
    use crate::market::Conditions;

    fn newer(row: &Row) -> Traded {
        let Event::Trade(trade) = &row.tick.event else { unreachable!() };
        Newer { place: row.place(), time: row.tick.time, what: *trade }
    }

    #[test]
    fn what_history_had_and_what_came_since_whichever_is_newer() {
        for (history, live) in [(5, 9), (9, 5)] {
            let mut latest = Latest::new(10);
            let load = latest.trade(symbol()).unwrap_err();
            let (old, new) = (trade(history, 1, "10"), trade(live, 2, "11"));
            latest.apply(&new);
            assert!(latest.trade(symbol()).is_err(), "history may have a newer one");
            latest.trade_loaded(symbol(), load, Some(newer(&old)));
            let expected = if live > history { newer(&new) } else { newer(&old) };
            assert_eq!(latest.trade(symbol()), Ok(Some(expected)));
        }
    }

    #[test]
    fn a_trade_that_sets_no_price_is_not_the_latest() {
        let mut latest = Latest::new(10);
        let load = latest.trade(symbol()).unwrap_err();
        latest.trade_loaded(symbol(), load, Some(newer(&trade(4, 1, "9"))));
        let mut odd = trade(5, 1, "10");
        if let Event::Trade(trade) = &mut odd.tick.event {
            trade.conditions = Conditions::from_codes(b"@I").unwrap();
        }
        latest.apply(&odd);
        assert_eq!(latest.trade(symbol()), Ok(Some(newer(&trade(4, 1, "9")))));
    }

    #[test]
    fn a_cancel_makes_history_be_read_again_and_a_read_from_before_it_says_nothing() {
        let mut latest = Latest::new(10);
        let load = latest.trade(symbol()).unwrap_err();
        latest.trade_loaded(symbol(), load, Some(newer(&trade(5, 7, "10"))));
        latest.apply(&cancel(time("2024-01-05T21:00:00Z"), 7, "10", false));
        let during = latest.trade(symbol()).unwrap_err();
        latest.apply(&cancel(time("2024-01-05T21:00:01Z"), 6, "10", false));
        latest.trade_loaded(symbol(), during, Some(newer(&trade(4, 6, "9"))));
        let again = latest.trade(symbol()).unwrap_err();
        latest.trade_loaded(symbol(), again, Some(newer(&trade(3, 5, "8"))));
        assert_eq!(latest.trade(symbol()), Ok(Some(newer(&trade(3, 5, "8")))));
    }

    #[test]
    fn beyond_its_symbols_nothing_is_kept_and_what_has_nothing_takes_no_room() {
        let mut latest = Latest::new(1);
        let none = "NONE".parse().unwrap();
        let load = latest.trade(none).unwrap_err();
        latest.trade_loaded(none, load, None);
        assert!(latest.is_empty());
        let load = latest.quote(symbol()).unwrap_err();
        latest.apply(&quote_at(5, 10, 0, 1));
        latest.quote_loaded(symbol(), load, None);
        assert!(latest.quote(symbol()).unwrap().is_some());
        let other = "MSFT".parse().unwrap();
        let load = latest.trade(other).unwrap_err();
        latest.trade_loaded(other, load, Some(newer(&trade(4, 1, "9"))));
        assert!(latest.trade(other).is_err() && latest.len() == 1);
    }
}
