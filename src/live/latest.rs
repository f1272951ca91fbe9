//! The memory of what is latest of each symbol.

use std::collections::HashMap;

use super::sheet::Known;
use crate::bars::Period;
use crate::bars::conditions::{OpenClose, updates};
use crate::history::BarSpan;
use crate::market::{Event, Exchange, Kind, Nanos, Place, Quote, Row, Symbol, Tick, Trade};
use crate::wire::json;

/// A trade, and where it stands in the order of history.
pub type Traded = Newer<Trade>;
/// A quote, and where it stands in the order of history.
pub type Quoted = Newer<Quote>;

/// What of a symbol is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The latest trade that sets a price.
    Trade,
    /// The latest quote.
    Quote,
    /// The last minute bar that is closed, with what late trades and corrections made of it.
    Bar,
    /// The daily bar of the last day that has one; of today's the state is at most a minute old.
    DailyBar,
    /// The latest trading status.
    Status,
    /// The latest limit-up limit-down band.
    Luld,
}

impl Member {
    /// The kind of the series that it is the newest of.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Trade => Kind::Trade,
            Self::Quote => Kind::Quote,
            Self::Bar => Kind::MinuteBar,
            Self::DailyBar => Kind::DayBar,
            Self::Status => Kind::Status,
            Self::Luld => Kind::Luld,
        }
    }
}

/// A question for the newest of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The symbol.
    pub symbol: Symbol,
    /// What of it.
    pub member: Member,
}

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
    /// The newest as the object of history, once it was asked for so.
    object: Option<Box<[u8]>>,
}

impl<T: Clone> Slot<T> {
    const fn new(epoch: u64) -> Self {
        Self { newest: None, loaded: false, epoch, object: None }
    }

    fn offer(&mut self, place: Place, time: Nanos, what: &T) {
        if self.newest.as_ref().is_none_or(|newest| place > newest.place) {
            self.newest = Some(Newer { place, time, what: what.clone() });
            self.object = None;
        }
    }

    /// Forgets what is known, where this tick is newer.
    fn forget_before(&mut self, row: &Row) {
        if self.newest.as_ref().is_none_or(|newest| row.place() > newest.place) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        (self.newest, self.loaded, self.object) = (None, false, None);
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

    /// Appends the newest as the object of history, where there is one; whether there is, or none where
    /// history must be read.
    fn write(&mut self, symbol: Symbol, event: impl FnOnce(T) -> Event, out: &mut Vec<u8>) -> Option<bool> {
        if !self.loaded {
            return None;
        }
        let Some(newest) = &self.newest else { return Some(false) };
        let object = self.object.get_or_insert_with(|| {
            let mut object = Vec::new();
            let tick = Tick { symbol, time: newest.time, event: event(newest.what.clone()) };
            json::write_history(&tick, None, &mut object);
            object.into_boxed_slice()
        });
        out.extend_from_slice(object);
        Some(true)
    }

    /// What is known, perhaps that there is nothing.
    fn known(&self) -> Option<Option<Newer<T>>> {
        self.loaded.then(|| self.newest.clone())
    }

    /// Takes what another node knew before anything came here.
    fn warm(&mut self, known: Option<Option<Newer<T>>>) {
        if let Some(newest) = known.filter(|_| !self.loaded && self.newest.is_none()) {
            (self.newest, self.loaded) = (newest, true);
        }
    }

    /// `Ok`: what is known, perhaps that there is nothing; `Err`: history must be read.
    fn get(&self) -> Result<Option<Newer<T>>, Load> {
        if self.loaded { Ok(self.newest.clone()) } else { Err(Load { epoch: self.epoch }) }
    }
}

/// A bar that history had, until something happens that may change it.
#[derive(Clone, Copy, Debug)]
struct BarSlot {
    bar: Option<BarSpan>,
    /// The minute in which it was read.
    read_in: Option<Nanos>,
    /// The earliest time of an event since that read was begun.
    touched: Nanos,
    /// The read that was begun last: what one before it found says nothing.
    reading: u64,
}

impl BarSlot {
    const UNREAD: Self = Self { bar: None, read_in: None, touched: Nanos(i64::MAX), reading: 0 };

    fn touch(&mut self, time: Nanos) {
        self.touched = self.touched.min(time);
    }

    /// A read of history begins: it sees all that happened before `seen`.
    const fn begin(&mut self, reading: u64, seen: Nanos) {
        *self = Self { reading, touched: seen, ..Self::UNREAD };
    }

    /// The last closed minute is known while nothing has happened before the running one.
    fn minute(&self, minute: Nanos) -> Option<Option<BarSpan>> {
        (self.read_in.is_some() && self.touched >= minute).then_some(self.bar)
    }

    /// A day is read again at most once a minute.
    fn day(&self, minute: Nanos) -> Option<Option<BarSpan>> {
        let untouched = self.touched == Nanos(i64::MAX);
        (self.read_in == Some(minute) || self.read_in.is_some() && untouched).then_some(self.bar)
    }
}

/// What is asked for less often, kept only of symbols of which it is.
#[derive(Clone, Debug)]
struct Rare {
    minute: BarSlot,
    day: BarSlot,
    status: Slot<Event>,
    luld: Slot<Event>,
}

impl Rare {
    const fn new(epoch: u64) -> Self {
        let (minute, day) = (BarSlot::UNREAD, BarSlot::UNREAD);
        Self { minute, day, status: Slot::new(epoch), luld: Slot::new(epoch) }
    }

    fn apply(&mut self, row: &Row) {
        let time = row.tick.time;
        match &row.tick.event {
            Event::Trade(_) => {
                self.minute.touch(time);
                self.day.touch(time);
            }
            Event::MinuteBar(_) => self.minute.touch(time),
            Event::DayBar(_) => self.day.touch(time),
            // What they amend may lie anywhere before.
            Event::Correction(_) | Event::Cancel(_) => {
                self.minute.touch(Nanos(0));
                self.day.touch(Nanos(0));
            }
            event @ Event::Status(_) => self.status.offer(row.place(), time, event),
            event @ Event::Luld(_) => self.luld.offer(row.place(), time, event),
            Event::Quote(_) => {}
        }
    }

    fn backfilled(&mut self, row: &Row) {
        match row.tick.event {
            Event::Status(_) => self.status.forget_before(row),
            Event::Luld(_) => self.luld.forget_before(row),
            // Bars are touched alike.
            _ => self.apply(row),
        }
    }

    const fn is_empty(&self) -> bool {
        self.minute.bar.is_none()
            && self.day.bar.is_none()
            && self.status.newest.is_none()
            && self.luld.newest.is_none()
    }
}

#[derive(Clone, Debug)]
struct Series {
    trade: Slot<Trade>,
    quote: Slot<Quote>,
    rare: Option<Box<Rare>>,
    /// Trades that were taken back lately. One may be delivered after what takes it back, by another tape.
    taken_back: Vec<(Exchange, u64)>,
    /// The first epoch of its slots.
    epoch: u64,
}

impl Series {
    const fn new(epoch: u64) -> Self {
        Self { trade: Slot::new(epoch), quote: Slot::new(epoch), rare: None, taken_back: Vec::new(), epoch }
    }

    /// A trade is taken back: history says what is the latest then.
    fn take_back(&mut self, exchange: Exchange, id: u64) {
        if self.taken_back.len() >= TAKEN_BACK_MAX {
            self.taken_back.remove(0);
        }
        self.taken_back.push((exchange, id));
        self.trade.forget();
    }

    fn stands(&self, trade: &Trade) -> bool {
        trade.id.is_none_or(|id| !self.taken_back.contains(&(trade.exchange, id)))
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Box::new(Rare::new(self.epoch)))
    }

    fn known_bar(&self, member: Member, minute: Nanos) -> Option<Option<BarSpan>> {
        let rare = self.rare.as_ref()?;
        if member == Member::Bar { rare.minute.minute(minute) } else { rare.day.day(minute) }
    }

    fn bar(&mut self, member: Member) -> Option<&mut BarSlot> {
        match member {
            Member::Bar => Some(&mut self.rare().minute),
            Member::DailyBar => Some(&mut self.rare().day),
            _ => None,
        }
    }

    fn event(&mut self, member: Member) -> Option<&mut Slot<Event>> {
        match member {
            Member::Status => Some(&mut self.rare().status),
            Member::Luld => Some(&mut self.rare().luld),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        let rare = self.rare.as_ref().is_none_or(|rare| rare.is_empty());
        self.trade.newest.is_none() && self.quote.newest.is_none() && rare
    }
}

/// Trades of a symbol that are remembered as taken back.
const TAKEN_BACK_MAX: usize = 16;
/// Epochs of one series before those of the next.
const EPOCH_BITS: u32 = 24;

/// The latest of each symbol.
#[derive(Debug)]
pub struct Latest {
    symbols_max: usize,
    symbols: HashMap<Symbol, Series, foldhash::fast::RandomState>,
    /// Raised with each series and each read of a bar, so that nothing that was begun before a series
    /// was dropped and made again counts for the new one.
    begun: u64,
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
        Self { symbols_max, symbols: HashMap::default(), begun: 0 }
    }

    /// Takes a tick that was delivered live.
    pub fn apply(&mut self, row: &Row) {
        // Of a symbol that nobody has asked for nothing need be known: who asks reads history.
        let Some(series) = self.symbols.get_mut(&row.tick.symbol) else { return };
        let time = row.tick.time;
        match &row.tick.event {
            Event::Trade(trade) if sets_price(trade) && series.stands(trade) => {
                series.trade.offer(row.place(), time, trade);
            }
            Event::Quote(quote) => series.quote.offer(row.place(), time, quote),
            Event::Correction(correction) => series.take_back(correction.exchange, correction.original_id),
            Event::Cancel(cancel) => series.take_back(cancel.exchange, cancel.id),
            _ => {}
        }
        if let Some(rare) = &mut series.rare {
            rare.apply(row);
        }
    }

    /// Takes a tick of a backfill: it is never shown by itself, but where it is newer than what is known
    /// history is read, as a node reads it that starts. So all nodes answer alike.
    pub fn backfilled(&mut self, row: &Row) {
        let Some(series) = self.symbols.get_mut(&row.tick.symbol) else { return };
        match &row.tick.event {
            Event::Trade(trade) if sets_price(trade) => series.trade.forget_before(row),
            Event::Quote(_) => series.quote.forget_before(row),
            Event::Correction(correction) => series.take_back(correction.exchange, correction.original_id),
            Event::Cancel(cancel) => series.take_back(cancel.exchange, cancel.id),
            _ => {}
        }
        if let Some(rare) = &mut series.rare {
            rare.backfilled(row);
        }
    }

    /// Appends the newest as the object of history, where the running minute began at `minute`;
    /// whether there is one, or none where history must be read.
    pub fn write(&mut self, ask: Ask, minute: Nanos, out: &mut Vec<u8>) -> Option<bool> {
        let Ask { symbol, member } = ask;
        let series = self.symbols.get_mut(&symbol)?;
        match member {
            Member::Trade => series.trade.write(symbol, Event::Trade, out),
            Member::Quote => series.quote.write(symbol, Event::Quote, out),
            Member::Status => series.rare.as_mut()?.status.write(symbol, |event| event, out),
            Member::Luld => series.rare.as_mut()?.luld.write(symbol, |event| event, out),
            Member::Bar | Member::DailyBar => {
                let bar = series.known_bar(member, minute)?;
                if let Some(bar) = bar {
                    json::write_history(&bar.to_tick(symbol), None, out);
                }
                Some(bar.is_some())
            }
        }
    }

    /// The bar that is known, perhaps that there is none; none where history must be read.
    #[must_use]
    pub fn bar(&self, ask: Ask, minute: Nanos) -> Option<Option<BarSpan>> {
        self.symbols.get(&ask.symbol)?.known_bar(ask.member, minute)
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

    /// A read of history for a bar begins: what is told of the symbol from now on counts.
    /// Of the running minute, which began at `minute`, a read for the last closed one sees nothing.
    pub fn begin_bar(&mut self, symbol: Symbol, member: Member, minute: Nanos) -> Load {
        self.begun += 1;
        let reading = self.begun;
        let seen = if member == Member::Bar { minute } else { Nanos(i64::MAX) };
        if let Some(slot) = self.series(symbol).and_then(|series| series.bar(member)) {
            slot.begin(reading, seen);
        }
        Load { epoch: reading }
    }

    /// What that read found, in the running minute. It counts only if none was begun since.
    pub fn bar_loaded(&mut self, ask: Ask, load: Load, minute: Nanos, found: Option<BarSpan>) {
        let Ask { symbol, member } = ask;
        let slot = self.symbols.get_mut(&symbol).and_then(|series| series.bar(member));
        if let Some(slot) = slot.filter(|slot| slot.reading == load.epoch) {
            (slot.bar, slot.read_in) = (found, Some(minute));
            self.keep_or_drop(symbol);
        }
    }

    /// The latest status or band: what is known, or the read of history that is to be made.
    ///
    /// # Errors
    /// [`Load`], for [`Self::event_loaded`].
    pub fn event(&mut self, symbol: Symbol, member: Member) -> Result<Option<Newer<Event>>, Load> {
        let slot = self.series(symbol).and_then(|series| series.event(member));
        slot.map_or(Err(Load { epoch: u64::MAX }), |slot| slot.get())
    }

    /// What history had.
    pub fn event_loaded(&mut self, symbol: Symbol, member: Member, load: Load, found: Option<Newer<Event>>) {
        if let Some(slot) = self.symbols.get_mut(&symbol).and_then(|series| series.event(member)) {
            slot.loaded(load, found);
            self.keep_or_drop(symbol);
        }
    }

    /// The symbols, in no order.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> {
        self.symbols.keys().copied()
    }

    /// What is known of these symbols, ascending.
    #[must_use]
    pub fn known(&self, symbols: &[Symbol]) -> Vec<Known> {
        let known = |symbol: &Symbol| {
            let series = self.symbols.get(symbol)?;
            let known = Known { symbol: *symbol, trade: series.trade.known(), quote: series.quote.known() };
            (known.trade.is_some() || known.quote.is_some()).then_some(known)
        };
        let mut all: Vec<Known> = symbols.iter().filter_map(known).collect();
        all.sort_unstable_by_key(|known| known.symbol);
        all
    }

    /// Takes what another node knew, as of a Position that this one has not followed beyond: all that is
    /// not in it will be applied.
    pub fn warm(&mut self, known: Known) {
        let Known { symbol, trade, quote } = known;
        if let Some(series) = self.series(symbol) {
            series.trade.warm(trade);
            series.quote.warm(quote);
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
        if self.symbols.get(&symbol).is_some_and(Series::is_empty) {
            self.symbols.remove(&symbol);
        }
    }

    /// The symbol's entry, made where there is room.
    fn series(&mut self, symbol: Symbol) -> Option<&mut Series> {
        if self.symbols.len() >= self.symbols_max && !self.symbols.contains_key(&symbol) {
            return None;
        }
        let begun = &mut self.begun;
        Some(self.symbols.entry(symbol).or_insert_with(|| {
            *begun += 1;
            Series::new(*begun << EPOCH_BITS)
        }))
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
    fn a_trade_that_comes_after_what_takes_it_back_is_not_the_latest() {
        let mut latest = Latest::new(10);
        let load = latest.trade(symbol()).unwrap_err();
        latest.trade_loaded(symbol(), load, Some(newer(&trade(4, 30, "9"))));
        for id in 1..=20 {
            latest.apply(&cancel(time("2024-01-05T21:00:00Z"), id, "10", false));
        }
        let load = latest.trade(symbol()).unwrap_err();
        latest.apply(&trade(9, 20, "10"));
        latest.trade_loaded(symbol(), load, Some(newer(&trade(4, 30, "9"))));
        assert_eq!(latest.trade(symbol()), Ok(Some(newer(&trade(4, 30, "9")))));
        assert_eq!(latest.symbols[&symbol()].taken_back.len(), TAKEN_BACK_MAX);
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
    fn the_last_closed_minute_is_read_again_once_another_may_have_closed() {
        let mut latest = Latest::new(10);
        let ask = Ask { symbol: symbol(), member: Member::Bar };
        let minute = |number: i64| Nanos(number * Nanos::MINUTE);
        let bar = |number| Some(BarSpan { time: minute(number), bar: crate::market::Bar::default() });
        let first = latest.begin_bar(symbol(), Member::Bar, minute(10));
        let second = latest.begin_bar(symbol(), Member::Bar, minute(10));
        latest.bar_loaded(ask, second, minute(10), bar(9));
        latest.bar_loaded(ask, first, minute(10), bar(8));
        assert_eq!(latest.bar(ask, minute(10)), Some(bar(9)), "what was begun before says nothing");
        // There may have been trades in the tenth minute before the read was begun.
        assert_eq!(latest.bar(ask, minute(11)), None);
    }

    #[test]
    fn a_series_that_is_made_again_knows_nothing_of_reads_begun_before() {
        let mut latest = Latest::new(10);
        let before = latest.quote(symbol()).unwrap_err();
        let load = latest.begin_bar(symbol(), Member::Bar, Nanos(0));
        let ask = Ask { symbol: symbol(), member: Member::Bar };
        latest.bar_loaded(ask, load, Nanos(0), None);
        assert!(latest.is_empty(), "there was nothing");
        let again = latest.quote(symbol()).unwrap_err();
        latest.quote_loaded(symbol(), before, None);
        assert!(latest.quote(symbol()).is_err() && again != before);
    }

    #[test]
    fn the_object_of_the_latest_is_that_of_the_latest() {
        let mut latest = Latest::new(10);
        let ask = Ask { symbol: symbol(), member: Member::Trade };
        let written = |latest: &mut Latest| {
            let mut out = Vec::new();
            latest.write(ask, Nanos(0), &mut out).map(|is_there| (is_there, out))
        };
        assert_eq!(written(&mut latest), None, "nobody has read history");
        let load = latest.trade(symbol()).unwrap_err();
        latest.trade_loaded(symbol(), load, None);
        let load = latest.quote(symbol()).unwrap_err();
        latest.quote_loaded(symbol(), load, None);
        latest.apply(&quote_at(5, 10, 0, 1));
        for (second, price) in [(5, "10"), (6, "11"), (7, "12")] {
            let row = trade(second, 1, price);
            let load = latest.trade(symbol());
            latest.apply(&row);
            if let Err(load) = load {
                latest.trade_loaded(symbol(), load, None);
            }
            let mut object = Vec::new();
            json::write_history(&row.tick, None, &mut object);
            for _ in 0..2 {
                assert_eq!(written(&mut latest), Some((true, object.clone())));
            }
        }
        latest.apply(&cancel(time("2024-01-05T21:00:00Z"), 1, "12", false));
        assert_eq!(written(&mut latest), None, "history is to be read again");
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
