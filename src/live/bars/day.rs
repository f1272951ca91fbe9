//! A New York day: its watermark, its open minutes, and the books of its symbols.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::asks::AskKey;
use super::book::{BOOK_BYTES, Book};
use super::slot::{Asking, FOLDS_BYTES, MINUTE_BYTES, Minute, Slot, Tell, Told};
use super::{BarLimits, BarsEffect, DAY_QUIET_MS, Room, millis};
use crate::bars::{Added, Period};
use crate::history::{SoFar, SoFarQuery};
use crate::market::{Bar, Event, Nanos, Row, Symbol, Tick, Trade};
use crate::tape::{Mono, Now};

/// Between tellings of days where no minute tells.
const DAY_EACH_MS: u64 = 30_000;

/// A day that something came for.
pub(super) struct Day {
    pub(super) start: Nanos,
    end: Nanos,
    /// The two highest times.
    top: Nanos,
    second: Nanos,
    /// When something came last.
    pub(super) fed: Mono,
    /// It is told as it stands, and let go.
    pub(super) ended: bool,
    slots: BTreeMap<Nanos, Slot>,
    /// Minutes that were let go.
    settled: BTreeSet<Nanos>,
    books: HashMap<Symbol, Book>,
    /// Symbols whose day may have changed since it was told.
    moved: BTreeSet<Symbol>,
    days_told: Mono,
}

/// Who hears what.
type Wanted<'a> = &'a dyn Fn(Symbol, Period) -> bool;

impl Day {
    pub(super) fn new(time: Nanos, now: Now) -> Self {
        Self {
            start: Period::Day.start(time),
            end: Period::Day.next_start(time),
            top: Nanos::MIN,
            second: Nanos::MIN,
            fed: now.mono,
            ended: false,
            slots: BTreeMap::new(),
            settled: BTreeSet::new(),
            books: HashMap::new(),
            moved: BTreeSet::new(),
            days_told: now.mono,
        }
    }

    pub(super) fn holds(&self, time: Nanos) -> bool {
        self.start <= time && time < self.end && !self.ended
    }

    /// Takes in a tick's time.
    pub(super) fn advance(&mut self, time: Nanos, now: Now) {
        self.fed = now.mono;
        if time > self.top {
            (self.top, self.second) = (time, self.top);
        } else if time > self.second && time < self.top {
            self.second = time;
        }
    }

    /// How far event time has come.
    fn watermark(&self, now: Now) -> Nanos {
        self.second.min(now.wall)
    }

    /// Whether the minute of a time is over, and the watermark if so.
    pub(super) fn is_over(&self, time: Nanos, now: Now, room: &Room) -> Option<Nanos> {
        let start = time.floor(Nanos::MINUTE);
        let past = start.plus(Nanos::MINUTE).plus(millis(room.limits.slack_ms));
        let watermark = self.watermark(now);
        (watermark >= past || self.settled.contains(&start)).then_some(watermark)
    }

    /// Takes in a trade, in a minute that is over or not.
    pub(super) fn trade(&mut self, row: &Row, trade: &Trade, over: Option<Nanos>, now: Now, room: &mut Room) {
        let (symbol, start) = (row.tick.symbol, row.tick.time.floor(Nanos::MINUTE));
        let fits = self.open_book(symbol, room) && self.open_minute(symbol, start, over, now, room);
        let Some(book) = self.books.get_mut(&symbol) else { return refuse(now, room) };
        self.moved.insert(symbol);
        let minute = self.slots.get_mut(&start).and_then(|slot| slot.minutes.get_mut(&symbol));
        let Some(minute) = minute.filter(|_| fits) else {
            book.trusted = false;
            book.missed(start);
            return refuse(now, room);
        };
        if book.has_named(trade) {
            minute.let_go(room);
        }
        let whole = match fold(minute, row, room) {
            Some(Added::Copy | Added::NotHere) => return,
            Some(Added::New) => book.is_whole(start, minute),
            Some(Added::Refold) => {
                minute.let_go(room);
                false
            }
            None => false,
        };
        minute.changed = true;
        minute.asking.overtaken();
        book.counted(start, whole);
    }

    /// Takes in an ingested bar: it stands for the folded one.
    pub(super) fn ingested(&mut self, tick: &Tick, now: Now, room: &mut Room) {
        self.fed = now.mono;
        let (symbol, start) = (tick.symbol, tick.time);
        if matches!(tick.event, Event::DayBar(_)) {
            if start == self.start && self.open_book(symbol, room) {
                self.books.entry(symbol).and_modify(|book| book.ingested = true);
            }
            return;
        }
        let over = self.is_over(start, now, room);
        if start == start.floor(Nanos::MINUTE) && self.open_minute(symbol, start, over, now, room) {
            let slot = self.slots.get_mut(&start);
            if let Some(minute) = slot.and_then(|slot| slot.minutes.get_mut(&symbol)) {
                minute.ingested = true;
            }
        }
    }

    /// Takes in a correction or cancel: which trade it amends only history can find.
    pub(super) fn amended(&mut self, tick: &Tick, now: Now, room: &mut Room) {
        let symbol = tick.symbol;
        if !self.open_book(symbol, room) {
            return refuse(now, room);
        }
        let Some(book) = self.books.get_mut(&symbol) else { return };
        book.amended(&tick.event, room);
        for slot in self.slots.values_mut() {
            if let Some(minute) = slot.minutes.get_mut(&symbol) {
                minute.let_go(room);
                minute.changed = true;
                book.missed(slot.start);
            }
        }
        self.moved.insert(symbol);
    }

    /// Closes minutes, tells what changed, lets go of what is settled.
    pub(super) fn poll(&mut self, now: Now, wanted: Wanted<'_>, room: &mut Room) {
        let watermark = self.watermark(now);
        let quiet = now.mono.since(self.fed) >= room.limits.quiet_ms;
        let starts: Vec<Nanos> = self.slots.keys().copied().collect();
        let mut closed = self.ended;
        let mut late: BTreeSet<Symbol> = BTreeSet::new();
        for start in starts {
            let Some(slot) = self.slots.get(&start) else { continue };
            let closing =
                slot.last.is_none() && (self.ended || slot.closes(watermark, quiet, now, &room.limits));
            if !closing && !self.ended && !slot.is_due(watermark, now.mono) {
                continue;
            }
            closed |= closing;
            let changed = self.tell_minutes(start, wanted, room);
            let Some(slot) = self.slots.get_mut(&start) else { continue };
            if !closing && changed.is_empty() {
                self.settle(start, room);
                continue;
            }
            late.extend(changed);
            let mark = if closing { slot.end() } else { slot.end().max(watermark) };
            slot.last = Some(Told { mark, at: now.mono });
        }
        // Where no minute is open that would do it: what was not answered, and amendments.
        let overdue = self.slots.is_empty() && now.mono.since(self.days_told) >= DAY_EACH_MS;
        if closed || overdue {
            late.clone_from(&self.moved);
        }
        if !late.is_empty() {
            self.days_told = now.mono;
            self.tell_days(late, wanted, room);
        }
    }

    /// When something is due, if nothing comes.
    pub(super) fn due(&self, now: Now, limits: &BarLimits) -> Option<Mono> {
        let days =
            (!self.moved.is_empty() && self.slots.is_empty()).then(|| self.days_told.after(DAY_EACH_MS));
        let slots = self.slots.values().map(|slot| slot.due(self.fed, now, limits));
        slots.chain(days).chain([self.fed.after(DAY_QUIET_MS)]).min()
    }

    /// The folds that could be let go: their bytes, minute and symbol.
    pub(super) fn folds(&self) -> impl Iterator<Item = (usize, Nanos, Symbol)> + '_ {
        self.slots.values().flat_map(|slot| {
            let minutes = slot.minutes.iter().filter(|(_, minute)| minute.folds.is_some());
            minutes.map(|(symbol, minute)| (minute.folds_bytes(), slot.start, *symbol))
        })
    }

    /// Lets a fold go.
    pub(super) fn shed(&mut self, symbol: Symbol, start: Nanos, room: &mut Room) {
        let slot = self.slots.get_mut(&start);
        if let Some(minute) = slot.and_then(|slot| slot.minutes.get_mut(&symbol)) {
            minute.let_go(room);
            room.counts.shed += 1;
            if let Some(book) = self.books.get_mut(&symbol) {
                book.missed(start);
            }
        }
    }

    /// Gives all room back.
    pub(super) fn forget(&mut self, room: &mut Room) -> bool {
        let starts: Vec<Nanos> = self.slots.keys().copied().collect();
        starts.into_iter().for_each(|start| self.settle(start, room));
        room.give(self.books.values().map(Book::bytes).sum());
        false
    }

    /// The question for a minute, where it is still wanted.
    pub(super) fn ask_minute(&mut self, symbol: Symbol, start: Nanos) -> Option<SoFarQuery> {
        let minute = self.slots.get_mut(&start)?.minutes.get_mut(&symbol)?;
        // It may have been told since, by a fold that turned out to be whole.
        minute.asking = if minute.changed { Asking::Sent } else { Asking::No };
        if minute.asking == Asking::No {
            return None;
        }
        let until = start.plus(Nanos::MINUTE);
        let newest = self.books.get(&symbol).is_some_and(|book| book.may_lack(until));
        let (period, names) = (Period::Minute, Vec::new());
        Some(SoFarQuery { symbol, period, start, until, names, newest })
    }

    /// The question for a day.
    pub(super) fn ask_day(&mut self, symbol: Symbol) -> Option<SoFarQuery> {
        let minutes = minutes_of(&self.slots, symbol);
        self.books.get_mut(&symbol).map(|book| book.ask(symbol, minutes))
    }

    pub(super) fn minute_answered(
        &mut self,
        symbol: Symbol,
        start: Nanos,
        answer: Option<&SoFar>,
        room: &mut Room,
    ) {
        if let (Some(book), Some(answer)) = (self.books.get_mut(&symbol), answer) {
            book.learn(answer);
        }
        let Some(slot) = self.slots.get_mut(&start) else { return };
        let Some(minute) = slot.minutes.get_mut(&symbol) else { return };
        let stale = std::mem::take(&mut minute.asking) == Asking::Stale;
        let Some(answer) = answer else { return };
        let whole = self.books.get(&symbol).is_some_and(|book| book.is_whole(start, minute));
        let tell = match &answer.fold {
            None => {
                minute.ingested = true;
                Tell::Nothing
            }
            Some(_) if whole => minute.told(true),
            Some(fold) => {
                minute.changed = stale;
                minute.differs(fold.finish().and_then(|folded| folded.bar))
            }
        };
        if let Tell::Bar(bar) = tell {
            slot.tell(symbol, bar, room);
        }
    }

    pub(super) fn day_answered(&mut self, symbol: Symbol, answer: Option<&SoFar>, now: Now, room: &mut Room) {
        let Some(book) = self.books.get_mut(&symbol) else { return };
        let more = book.answered(answer);
        let bar = book.bar(minutes_of(&self.slots, symbol));
        if let Some(bar) = bar.and_then(|bar| book.differs(bar)) {
            tell_day(self.start, symbol, bar, room);
        }
        if more {
            book.forget_sum();
        }
        if more || (bar.is_none() && !book.ingested) {
            self.moved.insert(symbol);
        } else {
            self.moved.remove(&symbol);
        }
        let touched = answer.map(|answer| answer.touched.as_slice()).unwrap_or_default();
        let minutes: BTreeSet<Nanos> = touched.iter().map(|time| time.floor(Nanos::MINUTE)).collect();
        minutes.into_iter().for_each(|start| self.touch(symbol, start, now, room));
    }

    /// History says that a trade of this minute was amended.
    fn touch(&mut self, symbol: Symbol, start: Nanos, now: Now, room: &mut Room) {
        let watermark = self.watermark(now);
        let over = (!self.slots.contains_key(&start)).then_some(watermark);
        let held = self.slots.get(&start).is_some_and(|slot| slot.minutes.contains_key(&symbol));
        if !held && !room.take(MINUTE_BYTES) {
            return;
        }
        let slot = self.slots.entry(start).or_insert_with(|| Slot::new(start, over, now, &room.limits));
        let minute = slot.minutes.entry(symbol).or_default();
        if minute.folds.is_some() {
            minute.let_go(room);
            self.books.entry(symbol).and_modify(|book| book.missed(start));
        }
        minute.changed = true;
        minute.asking.overtaken();
    }

    /// Tells what changed in a minute; answers whose bars did.
    fn tell_minutes(&mut self, start: Nanos, wanted: Wanted<'_>, room: &mut Room) -> Vec<Symbol> {
        let mut changed: Vec<Symbol> = Vec::new();
        let Some(slot) = self.slots.get_mut(&start) else { return changed };
        let mut bars: Vec<(Symbol, Bar)> = Vec::new();
        for (symbol, minute) in &mut slot.minutes {
            let whole = self.books.get(symbol).is_some_and(|book| book.is_whole(start, minute));
            match minute.told(whole) {
                Tell::Nothing => {}
                Tell::Bar(bar) => {
                    changed.push(*symbol);
                    bars.push((*symbol, bar));
                }
                Tell::Ask if minute.asking == Asking::No && !wanted(*symbol, Period::Minute) => {
                    minute.changed = false;
                }
                Tell::Ask => {
                    changed.push(*symbol);
                    let key = AskKey { day: self.start, symbol: *symbol, minute: Some(start) };
                    queue(&mut minute.asking, key, room);
                }
            }
        }
        bars.into_iter().for_each(|(symbol, bar)| slot.tell(symbol, bar, room));
        changed
    }

    /// Tells the days of symbols, where something came for them.
    fn tell_days(&mut self, symbols: BTreeSet<Symbol>, wanted: Wanted<'_>, room: &mut Room) {
        for symbol in symbols {
            if !self.moved.remove(&symbol) {
                continue;
            }
            let Some(book) = self.books.get_mut(&symbol) else { continue };
            let bar = book.bar(minutes_of(&self.slots, symbol));
            let unknown = bar.is_none() && !book.ingested && wanted(symbol, Period::Day);
            if let Some(bar) = bar.and_then(|bar| book.differs(bar)) {
                tell_day(self.start, symbol, bar, room);
            }
            if book.must_locate(wanted(symbol, Period::Minute)) || unknown {
                let key = AskKey { day: self.start, symbol, minute: None };
                queue(&mut book.asking, key, room);
                self.moved.insert(symbol);
            }
        }
    }

    /// Lets a minute go: what it holds is the day's from now on.
    fn settle(&mut self, start: Nanos, room: &mut Room) {
        let Some(slot) = self.slots.remove(&start) else { return };
        room.give(slot.bytes());
        for (symbol, minute) in &slot.minutes {
            room.folds = room.folds.saturating_sub(minute.folds_bytes());
            if let Some(book) = self.books.get_mut(symbol) {
                book.settle(start, minute);
            }
        }
        self.settled.insert(start);
    }

    /// Makes a symbol's book where there is none; answers whether there is one.
    fn open_book(&mut self, symbol: Symbol, room: &mut Room) -> bool {
        if self.books.contains_key(&symbol) {
            return true;
        }
        let fits = room.take(BOOK_BYTES);
        if fits {
            self.books.insert(symbol, Book::new(self.start, room.horizon()));
        }
        fits
    }

    /// Makes a symbol's minute where there is none; answers whether there is one.
    fn open_minute(
        &mut self,
        symbol: Symbol,
        start: Nanos,
        over: Option<Nanos>,
        now: Now,
        room: &mut Room,
    ) -> bool {
        let slot = self.slots.get(&start);
        if slot.is_some_and(|slot| slot.minutes.contains_key(&symbol)) {
            return true;
        }
        let late = slot.map_or(over.is_some(), |slot| slot.late);
        let folds = if late { 0 } else { FOLDS_BYTES };
        if !room.take(MINUTE_BYTES + folds) {
            return false;
        }
        room.folds += folds;
        let slot = self.slots.entry(start).or_insert_with(|| Slot::new(start, over, now, &room.limits));
        // In a minute that was let go before, what came earlier is history's.
        let minute = if late { Minute::default() } else { Minute::new(self.start, start) };
        slot.minutes.insert(symbol, minute);
        true
    }
}

/// The open minutes of a symbol.
fn minutes_of(
    slots: &BTreeMap<Nanos, Slot>,
    symbol: Symbol,
) -> impl Iterator<Item = (Nanos, &Minute)> + use<'_> {
    slots.values().filter_map(move |slot| slot.minutes.get(&symbol).map(|minute| (slot.start, minute)))
}

/// Folds a trade in its minute, where that has folds; where its id finds no room, they must go.
fn fold(minute: &mut Minute, row: &Row, room: &mut Room) -> Option<Added> {
    let folds = minute.folds.as_mut()?;
    let (place, before) = (row.place(), folds.minute.ids_bytes());
    let added = folds.minute.add_at(place, &row.tick);
    if added == Added::New {
        folds.day.add_at(place, &row.tick);
    }
    let ids = folds.minute.ids_bytes() - before;
    room.counts.bytes += ids;
    room.folds += ids;
    if room.counts.bytes > room.limits.bytes_max {
        room.counts.shed += 1;
        return Some(Added::Refold);
    }
    Some(added)
}

/// A trade finds no room: from now on nothing is known of who has no book.
const fn refuse(now: Now, room: &mut Room) {
    room.counts.refused += 1;
    room.since = now.wall;
}

/// Queues a question, unless it is asked already.
fn queue(asking: &mut Asking, key: AskKey, room: &mut Room) {
    if *asking != Asking::No {
        return;
    }
    if room.asks.queue(key) {
        *asking = Asking::Queued;
    } else {
        room.counts.asks_dropped += 1;
    }
}

fn tell_day(start: Nanos, symbol: Symbol, bar: Bar, room: &mut Room) {
    let tick = Tick { symbol, time: start, event: Event::DayBar(bar) };
    room.out.push(BarsEffect::Tell(tick));
}
