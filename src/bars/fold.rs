//! The fold of the trades of one bar.

use std::collections::HashMap;

use super::Period;
use super::conditions::{OpenClose, updates};
use crate::market::{Bar, Event, Nanos, Place, Price, Row, Tick, TickId, canonical};

/// What is remembered of a counted id: the id, 8 bytes of its content's hash and a byte of the
/// hash table, which is at least 7/16 full.
const BYTES_AN_ID: usize = ((16 + 8 + 1) * 16usize).div_ceil(7);

/// What adding a row did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was new, and is folded or counted.
    New,
    /// It was a copy of a row that has been counted.
    Copy,
    /// It is no trade, or not of this bar's span.
    NotHere,
    /// This fold can no longer tell the bar: fold it again from history.
    Refold,
}

/// Rules that a test can switch off to see that it would notice. All are on in production.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A tick id counts once.
    pub one_tick_an_id: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { one_tick_an_id: true }
    }
}

/// A bar as folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// When the bar begins.
    pub start: Nanos,
    /// The bar; `None` where one of its prices has no value.
    pub bar: Option<Bar>,
    /// How many distinct trades and corrections were folded: of two folds of one bar the
    /// higher wins.
    pub covers: u64,
}

/// The fold of the trades of one symbol in one minute or New York day.
///
/// Trades may be added in any order: the bar is that of the total order.
#[derive(Clone, Debug)]
pub struct Fold {
    period: Period,
    start: Nanos,
    /// The first trade that may set the open, also one that may only if it is first.
    first: Option<(Place, Price)>,
    /// The last trade that may set the close whatever came before.
    last: Option<(Place, Price)>,
    high: Option<Price>,
    low: Option<Price>,
    volume: u64,
    trades: u64,
    /// Price times size, and size, over the trades that update both high/low and volume.
    money: i128,
    weight: u64,
    covers: u64,
    seen: Option<Seen>,
    refold: bool,
    rules: Rules,
}

/// The ids that were counted, with what they said.
#[derive(Clone, Debug)]
struct Seen {
    ids: HashMap<TickId, u64>,
    bytes_max: usize,
}

impl Fold {
    /// A fold of rows as they come, copies among them. It remembers the ids it has counted in
    /// at most `ids_bytes_max` bytes.
    #[must_use]
    pub fn open(period: Period, start: Nanos, ids_bytes_max: usize) -> Self {
        let seen = Seen { ids: HashMap::new(), bytes_max: ids_bytes_max };
        Self { seen: Some(seen), ..Self::of_history(period, start) }
    }

    /// A fold of rows of history: one row an id, corrections applied. No id is remembered.
    #[must_use]
    pub fn of_history(period: Period, start: Nanos) -> Self {
        Self {
            period,
            start,
            first: None,
            last: None,
            high: None,
            low: None,
            volume: 0,
            trades: 0,
            money: 0,
            weight: 0,
            covers: 0,
            seen: None,
            refold: false,
            rules: Rules::default(),
        }
    }

    /// The same fold under other rules.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// When the bar begins.
    #[must_use]
    pub const fn start(&self) -> Nanos {
        self.start
    }

    /// The memory that the remembered ids take, in bytes.
    #[must_use]
    pub fn ids_bytes(&self) -> usize {
        self.seen.as_ref().map_or(0, Seen::bytes)
    }

    /// Adds a trade.
    pub fn add(&mut self, row: &Row) -> Added {
        self.add_at(row.place(), &row.tick)
    }

    /// Adds a trade whose place is known, such as one of history, which keeps no origins.
    pub fn add_at(&mut self, place: Place, tick: &Tick) -> Added {
        let Event::Trade(trade) = &tick.event else { return Added::NotHere };
        if self.period.start(tick.time) != self.start {
            return Added::NotHere;
        }
        let added = self.count(place.id, tick);
        if added != Added::New {
            return added;
        }
        let may = updates(trade, self.period);
        if may.volume {
            self.volume = self.volume.saturating_add(u64::from(trade.size));
            self.trades += 1;
        }
        if may.high_low {
            self.high = self.high.max(Some(trade.price));
            self.low = Some(self.low.map_or(trade.price, |low| low.min(trade.price)));
        }
        if may.high_low && may.volume {
            self.money = self.money.saturating_add(i128::from(trade.price.0) * i128::from(trade.size));
            self.weight = self.weight.saturating_add(u64::from(trade.size));
        }
        let here = (place, trade.price);
        if may.open_close != OpenClose::Never && self.first.is_none_or(|first| place < first.0) {
            self.first = Some(here);
        }
        if may.open_close == OpenClose::Always && self.last.is_none_or(|last| place > last.0) {
            self.last = Some(here);
        }
        Added::New
    }

    /// Counts a trade that history shows as canceled or incorrect: the bar covers it without
    /// folding it. In an open fold that has folded the trade before, this calls for a refold.
    pub fn add_struck(&mut self, place: Place, tick: &Tick) -> Added {
        let added = self.count(place.id, tick);
        if added == Added::Copy {
            self.refold = true;
            return Added::Refold;
        }
        added
    }

    /// Counts a correction or a cancel of a trade of this bar.
    ///
    /// In an open fold the trade that it names may have been folded, and a price cannot be
    /// taken out of a high: this calls for a refold.
    pub fn add_correction(&mut self, row: &Row) -> Added {
        let added = self.count(row.id(), &row.tick);
        if added == Added::New && self.seen.is_some() {
            self.refold = true;
            return Added::Refold;
        }
        added
    }

    fn count(&mut self, id: TickId, tick: &Tick) -> Added {
        if let Some(seen) = &mut self.seen {
            let content = content_of(tick);
            match seen.ids.get(&id) {
                Some(known) if *known != content => {
                    self.refold = true;
                    return Added::Refold;
                }
                Some(_) if self.rules.one_tick_an_id => return Added::Copy,
                Some(_) => {}
                None if seen.bytes() + BYTES_AN_ID > seen.bytes_max => {
                    self.refold = true;
                    return Added::Refold;
                }
                None => {
                    seen.ids.insert(id, content);
                }
            }
        }
        self.covers += 1;
        Added::New
    }

    /// Takes in the fold of other trades of the same bar: it becomes that of both. Ids that the
    /// other remembers are not taken over.
    pub fn merge(&mut self, other: &Self) {
        self.volume = self.volume.saturating_add(other.volume);
        self.trades += other.trades;
        self.money = self.money.saturating_add(other.money);
        self.weight = self.weight.saturating_add(other.weight);
        self.covers += other.covers;
        self.high = self.high.max(other.high);
        self.low = self.low.into_iter().chain(other.low).min();
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
        self.refold |= other.refold;
    }

    /// The bar so far; `None` when it must be folded again from history.
    #[must_use]
    pub fn finish(&self) -> Option<Folded> {
        let folded = Folded { start: self.start, bar: self.bar(), covers: self.covers };
        (!self.refold).then_some(folded)
    }

    fn bar(&self) -> Option<Bar> {
        let (_, open) = self.first?;
        // Where no trade may set the close unconditionally, the one that was first has set it.
        let (_, close) = self.last.or(self.first)?;
        Some(Bar {
            open,
            high: self.high?,
            low: self.low?,
            close,
            volume: self.volume,
            trades: self.trades,
            vwap: average(self.money, u128::from(self.weight)),
            updated: false,
        })
    }
}

impl Seen {
    fn bytes(&self) -> usize {
        self.ids.len() * BYTES_AN_ID
    }
}

/// 64 bits of the hash of what a tick says: enough to notice a copy that says something else.
fn content_of(tick: &Tick) -> u64 {
    let hash = blake3::hash(&canonical::bytes(tick));
    hash.as_bytes().first_chunk().map_or(0, |half| u64::from_le_bytes(*half))
}

/// `money` (units of 1e-9 times shares) by `weight` shares, rounded half up to 6 decimals;
/// `None` over no shares.
pub(super) fn average(money: i128, weight: u128) -> Option<Price> {
    /// Units of the sixth decimal.
    const MICRO: i128 = 1_000;
    let weight = i128::try_from(weight).ok().filter(|weight| *weight > 0)?;
    let step = weight.checked_mul(MICRO)?;
    // floor(x + 1/2) with x = money / step.
    let micros = money.checked_mul(2)?.checked_add(step)?.div_euclid(step.checked_mul(2)?);
    i64::try_from(micros.checked_mul(MICRO)?).ok().map(Price)
}

/// Folds the trades of one symbol, given in the order of time or against it, into bar after bar.
#[derive(Clone, Debug)]
pub struct Folding {
    period: Period,
    fold: Option<Fold>,
}

impl Folding {
    /// A folding of history into bars of a period.
    #[must_use]
    pub const fn new(period: Period) -> Self {
        Self { period, fold: None }
    }

    /// Adds a trade of history; gives the bar before it where this trade begins another.
    pub fn push(&mut self, place: Place, tick: &Tick) -> Option<Folded> {
        let done = self.turn_to(tick.time);
        if let Some(fold) = &mut self.fold {
            fold.add_at(place, tick);
        }
        done
    }

    /// Adds a trade that history shows as canceled or incorrect.
    pub fn push_struck(&mut self, place: Place, tick: &Tick) -> Option<Folded> {
        let done = self.turn_to(tick.time);
        if let Some(fold) = &mut self.fold {
            fold.add_struck(place, tick);
        }
        done
    }

    /// The last bar.
    pub fn finish(&mut self) -> Option<Folded> {
        self.fold.take().and_then(|fold| fold.finish())
    }

    fn turn_to(&mut self, time: Nanos) -> Option<Folded> {
        let start = self.period.start(time);
        if self.fold.as_ref().is_some_and(|fold| fold.start == start) {
            return None;
        }
        let before = self.fold.replace(Fold::of_history(self.period, start));
        before.and_then(|fold| fold.finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::market::{Cancel, Conditions, Exchange, Origin, RequestKey, SipTape, Tick, Trade};

    const START: &str = "2024-01-03T14:30:00Z";
    const IDS: usize = 1 << 20;

    /// One trade a word: `id:price*size` and conditions, at nanosecond `id` of the minute.
    fn trade(text: &str) -> Row {
        let (id, rest) = text.split_once(':').unwrap();
        let (price, rest) = rest.split_once('*').unwrap();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let id: u64 = id.parse().unwrap();
        let trade = Trade {
            id: Some(id),
            exchange: Exchange(b'Q'),
            price: Price::parse(price.as_bytes()).unwrap(),
            size: rest[..digits].parse().unwrap(),
            conditions: Conditions::from_codes(rest[digits..].trim_start_matches('/').as_bytes()).unwrap(),
            tape: SipTape::C,
        };
        at(start().plus(i64::try_from(id).unwrap()), Event::Trade(trade))
    }

    fn at(time: Nanos, event: Event) -> Row {
        Row { tick: Tick { symbol: "AAPL".parse().unwrap(), time, event }, origin: Origin::UNKNOWN }
    }

    fn start() -> Nanos {
        Nanos::parse(START.as_bytes()).unwrap()
    }

    fn fold(period: Period, text: &str) -> Fold {
        let mut fold = Fold::open(period, period.start(start()), IDS);
        for word in text.split_whitespace() {
            assert_ne!(fold.add(&trade(word)), Added::NotHere, "{word}");
        }
        fold
    }

    /// `o h l c v n vw` of the bar, and what it covers.
    fn line(fold: &Fold) -> String {
        let Some(folded) = fold.finish() else { return "refold".to_owned() };
        let Some(bar) = folded.bar else { return format!("none, covers {}", folded.covers) };
        let vwap = bar.vwap.map_or("-".to_owned(), |price| price.to_string());
        let Bar { open, high, low, close, volume, trades, .. } = bar;
        format!("{open} {high} {low} {close} {volume} {trades} {vwap}, covers {}", folded.covers)
    }

    #[test]
    fn bars_by_the_table() {
        use Period::{Day, Minute};
        let cases = [
            (Minute, "", "none, covers 0"),
            (Minute, "1:10*100/@ 2:12*300/@ 3:9*100/@F 4:11*100/@", "10 12 9 11 600 4 11, covers 4"),
            // Odd lots count as volume only, also where they alone would be first, last, high and low.
            (Minute, "1:99*5/@I 2:10*100/@ 3:11*100/@ 4:1*5/@I", "10 11 10 11 210 4 10.5, covers 4"),
            (Minute, "1:10*5/@I 2:11*7/@I", "none, covers 2"),
            // Official open and close change nothing, but are covered.
            (Minute, "1:10*100/@O 2:50*900/@Q 3:1*900/@M", "10 10 10 10 100 1 10, covers 3"),
            // Extended hours: prices in the minute, volume in the day.
            (Minute, "1:10*100/@T 2:11*100/@T", "10 11 10 11 200 2 10.5, covers 2"),
            (Day, "1:10*100/@T 2:11*100/@T", "none, covers 2"),
            (Day, "1:10*100/@T 2:11*100/@ 3:12*100/@T", "11 11 11 11 300 3 11, covers 3"),
            // Sold out of sequence: volume in the minute; in the day high and low, and the open
            // and close where it is the first.
            (Minute, "1:20*100/@Z 2:11*100/@", "11 11 11 11 200 2 11, covers 2"),
            (Day, "1:20*100/@Z 2:11*100/@ 3:5*100/@Z", "20 20 5 11 300 3 12, covers 3"),
            (Day, "1:11*100/@ 2:20*100/@Z", "11 20 11 11 200 2 15.5, covers 2"),
            (Day, "1:20*100/@Z 2:30*100/@4", "20 30 20 20 200 2 25, covers 2"),
            // Corrected close: a price without volume, in the day alone.
            (Minute, "1:10*100/@ 2:12*100/9", "10 10 10 10 100 1 10, covers 2"),
            (Day, "1:10*100/@ 2:12*100/9", "10 12 10 12 100 1 10, covers 2"),
            (Day, "1:12*100/9", "12 12 12 12 0 0 -, covers 1"),
            // A trade of no shares has no weight.
            (Minute, "1:12*0/@", "12 12 12 12 0 1 -, covers 1"),
            // Half up at the seventh decimal.
            (Minute, "1:1.000001*1/@ 2:1*1/@", "1.000001 1.000001 1 1 2 2 1.000001, covers 2"),
            (Minute, "1:1.000001*1/@ 2:1*2/@", "1.000001 1.000001 1 1 3 2 1, covers 2"),
        ];
        for (period, trades, expected) in cases {
            assert_eq!(line(&fold(period, trades)), expected, "{period:?} {trades}");
        }
    }

    #[test]
    fn a_tick_id_counts_once_and_the_rule_is_what_does_it() {
        let trades = "1:10*100/@ 2:12*300/@ 1:10*100/@ 2:12*300/@";
        assert_eq!(line(&fold(Period::Minute, trades)), "10 12 10 12 400 2 11.5, covers 2");

        let mut twice = Fold::open(Period::Minute, start(), IDS).with_rules(Rules { one_tick_an_id: false });
        for word in trades.split_whitespace() {
            twice.add(&trade(word));
        }
        assert_eq!(line(&twice), "10 12 10 12 800 4 11.5, covers 4");
    }

    #[test]
    fn trades_without_a_number_are_told_apart_by_their_request() {
        let unnumbered = |request: u8, index: u32, received: i64| {
            let mut row = trade("1:10*100/@");
            let Event::Trade(trade) = &mut row.tick.event else { unreachable!() };
            trade.id = None;
            row.origin = Origin { received: Nanos(received), index, request: RequestKey([request; 16]) };
            row
        };
        let mut fold = Fold::open(Period::Minute, start(), IDS);
        let added: Vec<Added> = [(1, 0, 5), (1, 0, 9), (1, 1, 5), (2, 0, 5)]
            .map(|(request, index, received)| fold.add(&unnumbered(request, index, received)))
            .into();
        assert_eq!(added, [Added::New, Added::Copy, Added::New, Added::New]);
        assert_eq!(fold.finish().unwrap().bar.unwrap().volume, 300);
    }

    #[test]
    fn past_its_budget_a_fold_gives_no_bar() {
        let mut fold = Fold::open(Period::Minute, start(), 2 * BYTES_AN_ID);
        assert_eq!(fold.add(&trade("1:10*100/@")), Added::New);
        assert_eq!(fold.add(&trade("2:10*100/@")), Added::New);
        assert_eq!(fold.add(&trade("2:10*100/@")), Added::Copy);
        assert!(fold.ids_bytes() <= 2 * BYTES_AN_ID && fold.finish().is_some());
        assert_eq!(fold.add(&trade("3:10*100/@")), Added::Refold);
        assert_eq!(line(&fold), "refold");
    }

    #[test]
    fn what_changes_a_counted_trade_calls_for_a_refold() {
        let cancel = at(
            start().plus(9),
            Event::Cancel(Cancel { id: 1, exchange: Exchange(b'Q'), ..Cancel::default() }),
        );
        let mut open = fold(Period::Minute, "1:10*100/@ 2:12*300/@");
        assert_eq!(open.clone().add(&trade("1:11*100/@")), Added::Refold, "a copy that says something else");
        let struck = trade("1:10*100/@");
        assert_eq!(open.clone().add_struck(struck.place(), &struck.tick), Added::Refold);
        assert_eq!(open.add_correction(&cancel), Added::Refold);
        assert_eq!(line(&open), "refold");

        // From history: the canceled trade and its cancel are covered, not folded.
        let mut history = Fold::of_history(Period::Minute, start());
        history.add_struck(struck.place(), &struck.tick);
        history.add_correction(&cancel);
        history.add(&trade("2:12*300/@"));
        assert_eq!(line(&history), "12 12 12 12 300 1 12, covers 3");
    }

    #[test]
    fn what_is_not_of_the_bar_is_not_taken() {
        let mut fold = Fold::open(Period::Minute, start(), IDS);
        let mut late = trade("1:10*100/@");
        late.tick.time = start().plus(Nanos::MINUTE);
        assert_eq!(fold.add(&late), Added::NotHere);
        assert_eq!(fold.add(&at(start(), Event::Cancel(Cancel::default()))), Added::NotHere);
        assert_eq!(line(&fold), "none, covers 0");
        late.tick.time = start().plus(Nanos::MINUTE - 1);
        assert_eq!(fold.add(&late), Added::New);
    }

    #[test]
    fn a_folding_gives_bar_after_bar_in_both_directions() {
        let minute = |minute: i64, text: &str| {
            let mut row = trade(text);
            row.tick.time = row.tick.time.plus(minute * Nanos::MINUTE);
            row
        };
        let mut rows = vec![
            minute(0, "1:10*100/@"),
            minute(0, "2:11*100/@"),
            minute(2, "3:12*100/@"),
            minute(3, "4:13*5/@I"),
        ];
        let folded = |rows: &[Row]| {
            let mut folding = Folding::new(Period::Minute);
            let mut all: Vec<Folded> =
                rows.iter().filter_map(|row| folding.push(row.place(), &row.tick)).collect();
            all.extend(folding.finish());
            all
        };
        let forward = folded(&rows);
        let closes: Vec<Option<String>> =
            forward.iter().map(|folded| folded.bar.map(|bar| bar.close.to_string())).collect();
        assert_eq!(closes, [Some("11".to_owned()), Some("12".to_owned()), None]);
        rows.reverse();
        let mut backward = folded(&rows);
        backward.reverse();
        assert_eq!(backward, forward);
        assert_eq!(Folding::new(Period::Day).finish(), None);
    }

    #[test]
    fn the_largest_sums_are_told_or_not_told_but_never_wrong() {
        assert_eq!(average(i128::MAX, 1), None);
        assert_eq!(average(i128::from(i64::MAX) * i128::from(u32::MAX), u128::from(u32::MAX)), None);
        let large = i128::from(9_000_000_000 * Price::ONE) * i128::from(u32::MAX);
        assert_eq!(average(large, u128::from(u32::MAX)), Some(Price(9_000_000_000 * Price::ONE)));
    }

    fn any_trades() -> impl Strategy<Value = Vec<Row>> {
        let codes = prop::sample::select(vec!["@", "@I", "@T", "@Z", "9", "@M", "Z9", "@4"]);
        let one = (0_u64..20, 1_u32..40, 0_u32..500, codes).prop_map(|(id, cents, size, codes)| {
            trade(&format!("{id}:{}.{:02}*{size}/{codes}", cents / 10, cents % 10))
        });
        prop::collection::vec(one, 0..30).prop_map(|mut rows| {
            rows.sort_by_key(Row::place);
            rows.dedup_by_key(|row| row.id());
            rows
        })
    }

    /// The bar as the rules tell it, one trade after the other in the total order.
    fn told(period: Period, rows: &[Row]) -> Option<(Price, Price, Price, Price)> {
        let (mut open_close, mut high_low) = (None, None);
        for row in rows {
            let Event::Trade(trade) = &row.tick.event else { continue };
            let may = updates(trade, period);
            let first = may.open_close == OpenClose::IfFirst && open_close.is_none();
            if may.open_close == OpenClose::Always || first {
                let (open, _) = open_close.unwrap_or((trade.price, trade.price));
                open_close = Some((open, trade.price));
            }
            if may.high_low {
                let (high, low) = high_low.unwrap_or((trade.price, trade.price));
                high_low = Some((trade.price.max(high), trade.price.min(low)));
            }
        }
        let ((open, close), (high, low)) = (open_close?, high_low?);
        Some((open, high, low, close))
    }

    proptest! {
        #[test]
        fn the_bar_is_that_of_the_total_order_in_whatever_order_trades_come(
            (rows, shuffled) in any_trades().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
            day in any::<bool>(),
        ) {
            let period = if day { Period::Day } else { Period::Minute };
            let begin = period.start(start());
            let mut forward = Fold::of_history(period, begin);
            let mut mixed = Fold::open(period, begin, IDS);
            rows.iter().for_each(|row| { forward.add(row); });
            shuffled.iter().chain(&rows).for_each(|row| { mixed.add(row); });
            prop_assert_eq!(forward.finish(), mixed.finish());
            let (mut whole, mut rest) = (Fold::of_history(period, begin), Fold::of_history(period, begin));
            shuffled.iter().enumerate().for_each(|(at, row)| {
                if at % 3 == 0 { rest.add(row) } else { whole.add(row) };
            });
            whole.merge(&rest);
            prop_assert_eq!(forward.finish(), whole.finish());
            let bar = forward.finish().unwrap().bar;
            prop_assert_eq!(bar.map(|bar| (bar.open, bar.high, bar.low, bar.close)), told(period, &rows));
        }
    }
}
