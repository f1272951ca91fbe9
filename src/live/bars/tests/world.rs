//! A machine, a clock that goes from due to due, and history as it would answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::bars::Period;
use crate::history::amend::{Entry, amend};
use crate::history::merge::Merge;
use crate::history::{SoFar, SoFarQuery};
use crate::live::bars::{AskId, BarCounts, BarLimits, BarsEffect, OpenBars};
use crate::market::{Bar, Event, Kind, Nanos, Row, Series, Symbol, Tick};
use crate::store::Order;
use crate::tape::{Mono, Now};

pub(super) const LIMITS: BarLimits = BarLimits {
    bytes_max: 64 << 20,
    mark_ms: 50,
    slack_ms: 2_000,
    quiet_ms: 10_000,
    future_ms: 5_000,
    asks_max: 4,
    asks_queued_max: 1_000,
};

pub(super) fn time(text: &str) -> Nanos {
    Nanos::parse(text.as_bytes()).unwrap()
}

/// What history, which holds these rows, answers.
pub(super) fn answer(rows: &[Row], query: &SoFarQuery) -> SoFar {
    let of = |kind: Kind, first: Nanos, last: Nanos| {
        let mut merge = Merge::new(Order::Ascending, first..=last, None, rows.len() + 1);
        let series = Series { symbol: query.symbol, kind };
        rows.iter().filter(|row| row.tick.series() == series).for_each(|row| merge.offer(row));
        merge.finish()
    };
    let mut so_far = SoFar::new(query);
    if !of(query.period.kind(), query.start, query.start).is_empty() {
        so_far.fold = None;
    }
    let (day, next) = (Period::Day.start(query.start), Period::Day.next_start(query.start));
    let mut actions: Vec<Row> = Vec::new();
    for kind in [Kind::Correction, Kind::Cancel] {
        actions.extend(of(kind, day, next.plus(-1)).into_iter().map(|merged| merged.row));
    }
    let trades = of(Kind::Trade, query.start, query.until.plus(-1));
    let entries: Vec<Entry> = amend(trades, actions);
    entries.iter().for_each(|entry| so_far.take(query, entry));
    if query.newest {
        let kinds = [Kind::Trade, Kind::Correction, Kind::Cancel, Kind::MinuteBar];
        let times = kinds.into_iter().flat_map(|kind| of(kind, day, next.plus(-1)));
        so_far.newest = times.map(|merged| merged.place.time).max();
    }
    so_far
}

/// The bar of history, where there is one that is folded.
pub(super) fn model(rows: &[Row], symbol: Symbol, period: Period, start: Nanos) -> Option<Bar> {
    let until = period.next_start(start);
    let query = SoFarQuery { symbol, period, start, until, names: Vec::new(), newest: false };
    answer(rows, &query).fold.and_then(|fold| fold.finish()).and_then(|folded| folded.bar)
}

pub(super) struct World {
    pub(super) bars: OpenBars,
    pub(super) wall: Nanos,
    began: Nanos,
    /// All rows that were ever delivered, also before the machine was made.
    pub(super) history: Vec<Row>,
    asked: VecDeque<(AskId, SoFarQuery)>,
    /// Who is heard.
    pub(super) wanted: fn(Symbol, Period) -> bool,
    /// Polls that a question waits for its answer, and whether the next answer fails.
    pub(super) answer_after: usize,
    pub(super) failing: VecDeque<bool>,
    waited: usize,
    pub(super) asks: Vec<SoFarQuery>,
    pub(super) told: Vec<(Nanos, Tick)>,
    /// The most memory that was in use.
    pub(super) bytes: usize,
}

impl World {
    pub(super) fn new(limits: BarLimits, wall: Nanos) -> Self {
        let now = Now { mono: Mono(0), wall };
        Self {
            bars: OpenBars::new(limits, now),
            wall,
            began: wall,
            history: Vec::new(),
            asked: VecDeque::new(),
            wanted: |_, _| true,
            answer_after: 0,
            failing: VecDeque::new(),
            waited: 0,
            asks: Vec::new(),
            told: Vec::new(),
            bytes: 0,
        }
    }

    fn now(&self) -> Now {
        let ms = (self.wall.0 - self.began.0) / 1_000_000;
        Now { mono: Mono(u64::try_from(ms).unwrap()), wall: self.wall }
    }

    /// The same history and clock with a machine that has just been made.
    pub(super) fn restart(&mut self, limits: BarLimits) {
        self.bars = OpenBars::new(limits, self.now());
        self.asked.clear();
        self.told.clear();
    }

    pub(super) fn deliver(&mut self, row: &Row) {
        self.history.push(row.clone());
        self.bars.apply(row, self.now());
        self.bytes = self.bytes.max(self.bars.counts().bytes);
    }

    pub(super) fn poll(&mut self) {
        loop {
            let effects = self.bars.poll(self.now(), self.wanted);
            for effect in effects {
                match effect {
                    BarsEffect::Tell(tick) => self.told.push((self.wall, tick)),
                    BarsEffect::Ask { id, query } => {
                        self.asks.push(query.clone());
                        self.asked.push_back((id, query));
                    }
                }
            }
            assert!(self.asked.len() <= LIMITS.asks_max);
            self.waited += 1;
            if self.asked.is_empty() || self.waited <= self.answer_after {
                return;
            }
            self.waited = 0;
            let (id, query) = self.asked.pop_front().unwrap();
            let fails = self.failing.pop_front().unwrap_or(false);
            let so_far = (!fails).then(|| answer(&self.history, &query));
            self.bars.answered(id, so_far.as_ref(), self.now());
        }
    }

    /// Lets the clock go to a time, from due to due.
    pub(super) fn go_to(&mut self, wall: Nanos) {
        self.poll();
        for _ in 0..1_000_000 {
            let now = self.now();
            let pause = match self.bars.due(now) {
                _ if !self.asked.is_empty() => 1,
                Some(due) => i64::try_from(due.since(now.mono)).unwrap().max(1),
                None => i64::MAX / 1_000_000,
            };
            let next = self.wall.plus(pause.saturating_mul(1_000_000));
            if next > wall {
                self.wall = wall;
                return;
            }
            self.wall = next;
            self.poll();
        }
        panic!("always something due before {wall}");
    }

    /// Lets it go on until nothing is left to tell.
    pub(super) fn settle(&mut self) {
        self.go_to(self.wall.plus(20 * Nanos::MINUTE));
        assert_eq!(self.counts().asking, 0);
    }

    pub(super) fn counts(&self) -> BarCounts {
        self.bars.counts()
    }

    /// The bar that was told last, of each symbol, period and start.
    pub(super) fn last(&self) -> BTreeMap<(Symbol, Period, Nanos), Bar> {
        let mut last = BTreeMap::new();
        for (_, tick) in &self.told {
            let (period, bar) = match tick.event {
                Event::MinuteBar(bar) => (Period::Minute, bar),
                Event::DayBar(bar) => (Period::Day, bar),
                _ => unreachable!(),
            };
            last.insert((tick.symbol, period, tick.time), Bar { updated: false, ..bar });
        }
        last
    }

    /// Every bar of these rows that history folds is what was told last, and no bar is told
    /// twice in a row (an update may be: of a minute that was let go nothing is known).
    pub(super) fn check(&self, rows: &[Row]) {
        let last = self.last();
        let mut bars: BTreeSet<(Symbol, Period, Nanos)> = BTreeSet::new();
        for row in rows.iter().filter(|row| row.tick.kind() == Kind::Trade) {
            for period in [Period::Minute, Period::Day] {
                bars.insert((row.tick.symbol, period, period.start(row.tick.time)));
            }
        }
        for (symbol, period, start) in bars {
            if let Some(bar) = model(&self.history, symbol, period, start) {
                let told = last.get(&(symbol, period, start));
                assert_eq!(told, Some(&bar), "{symbol} {period:?} {start}: told {:#?}", self.lines());
            }
        }
        let mut before: BTreeMap<(Symbol, Kind, Nanos), Bar> = BTreeMap::new();
        for (wall, tick) in &self.told {
            let (Event::MinuteBar(bar) | Event::DayBar(bar)) = tick.event else { unreachable!() };
            let bar = Bar { updated: false, ..bar };
            let known = before.insert((tick.symbol, tick.kind(), tick.time), bar);
            let update = matches!(tick.event, Event::MinuteBar(Bar { updated: true, .. }));
            assert!(update || known != Some(bar), "told twice: {wall} {tick:?}");
        }
    }

    /// `wall letter start close volume` of all that was told, times of today as minutes and seconds.
    pub(super) fn lines(&self) -> Vec<String> {
        let clock = |time: Nanos| {
            let text = time.to_string();
            text.get(14..).unwrap_or_default().trim_end_matches('Z').to_owned()
        };
        let line = |(wall, tick): &(Nanos, Tick)| {
            let (letter, bar) = match tick.event {
                Event::MinuteBar(bar) if bar.updated => ("u", bar),
                Event::MinuteBar(bar) => ("b", bar),
                Event::DayBar(bar) => ("d", bar),
                _ => unreachable!(),
            };
            let start = if letter == "d" { String::new() } else { clock(tick.time) + " " };
            format!("{} {letter} {start}{} {}", clock(*wall), bar.close, bar.volume)
        };
        self.told.iter().map(line).collect()
    }
}
