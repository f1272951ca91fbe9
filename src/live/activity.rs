//! What is traded today: shares, trades and the last price of each symbol.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use chrono::NaiveDate;

use super::latest::sets_price;
use crate::bars::Period;
use crate::bars::conditions::updates;
use crate::market::{Event, Kind, Nanos, Place, Price, Row, Symbol, calendar};

/// What orders the most active symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Shares.
    Volume,
    /// Number of trades.
    Trades,
}

/// A symbol on the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// The symbol.
    pub symbol: Symbol,
    /// Shares, as a daily bar counts them.
    pub volume: u64,
    /// Trades, as a daily bar counts them.
    pub trades: u64,
    last: Option<(Place, Price)>,
    /// The close of the day before: not read yet, or read.
    previous: Option<Option<Price>>,
}

/// A symbol whose price has changed since the close of the day before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mover {
    /// The symbol.
    pub symbol: Symbol,
    /// The last price.
    pub price: Price,
    /// The close of the day before, above zero.
    pub previous: Price,
}

impl Mover {
    /// Price minus close, at 1e-9.
    #[must_use]
    pub const fn change(&self) -> i64 {
        self.price.0.saturating_sub(self.previous.0)
    }

    /// By change in proportion to the close; exactly, as fractions.
    fn by_share(&self, other: &Self) -> Ordering {
        let (one, two) = (i128::from(self.change()), i128::from(other.change()));
        (one * i128::from(other.previous.0)).cmp(&(two * i128::from(self.previous.0)))
    }
}

/// The newest day in New York of which trades came live. Trades of days before it, which come
/// late, do not count, and what came before the beginning is not known. Shares and trades are
/// those reported: what a cancel or a correction takes back stays in them, but its price is not
/// shown on.
#[derive(Debug)]
pub struct Activity {
    symbols_max: usize,
    began: Nanos,
    day: NaiveDate,
    symbols: HashMap<Symbol, Active>,
}

impl Activity {
    /// Nothing yet, from now on, of so many symbols at most: those that come first each day.
    #[must_use]
    pub fn new(symbols_max: usize, now: Nanos) -> Self {
        Self { symbols_max, began: now, day: NaiveDate::MIN, symbols: HashMap::new() }
    }

    /// Takes a tick that was delivered live.
    pub fn apply(&mut self, row: &Row) {
        match &row.tick.event {
            Event::Trade(trade) => {
                let counts = updates(trade, Period::Day).volume;
                let (price, volume) = (sets_price(trade).then_some(trade.price), u64::from(trade.size));
                if !(counts || price.is_some()) || !self.is_of_day(row.tick.time) {
                    return;
                }
                let Some(active) = self.symbol(row.tick.symbol) else { return };
                if counts {
                    active.volume = active.volume.saturating_add(volume);
                    active.trades += 1;
                }
                if let Some(price) = price
                    && active.last.is_none_or(|(place, _)| row.place() > place)
                {
                    active.last = Some((row.place(), price));
                }
            }
            _ if matches!(row.tick.kind(), Kind::Correction | Kind::Cancel) => {
                if let Some(active) = self.symbols.get_mut(&row.tick.symbol) {
                    active.last = None;
                }
            }
            _ => {}
        }
    }

    /// Since when trades count: the beginning of the day, or of this memory where that is later.
    #[must_use]
    pub fn since(&self) -> Nanos {
        self.began.max(self.day_begins())
    }

    /// When the day begins.
    #[must_use]
    pub fn day_begins(&self) -> Nanos {
        calendar::new_york_midnight(self.day)
    }

    /// All symbols of the day, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Active> {
        self.symbols.values().copied().collect()
    }

    /// The close before the day that begins then, as history has it.
    pub fn previous_loaded(&mut self, day_begins: Nanos, symbol: Symbol, close: Option<Price>) {
        if day_begins == self.day_begins()
            && let Some(active) = self.symbols.get_mut(&symbol)
        {
            active.previous = Some(close.filter(|close| close.0 > 0));
        }
    }

    /// Whether a time is of the day, which a later one moves.
    fn is_of_day(&mut self, time: Nanos) -> bool {
        let day = calendar::new_york_date(time);
        if day > self.day {
            self.day = day;
            self.symbols.clear();
        }
        day == self.day
    }

    fn symbol(&mut self, symbol: Symbol) -> Option<&mut Active> {
        if self.symbols.len() >= self.symbols_max && !self.symbols.contains_key(&symbol) {
            return None;
        }
        let new = Active { symbol, volume: 0, trades: 0, last: None, previous: None };
        Some(self.symbols.entry(symbol).or_insert(new))
    }
}

/// The most active of these symbols, the most active first; of equals by name.
#[must_use]
pub(super) fn most_active(mut all: Vec<Active>, by: By, top: usize) -> Vec<Active> {
    all.retain(|active| active.trades > 0);
    all.sort_unstable_by_key(|active| {
        let amount = match by {
            By::Volume => active.volume,
            By::Trades => active.trades,
        };
        (Reverse(amount), active.symbol)
    });
    all.truncate(top);
    all
}

/// Those that rose and those that fell, in proportion, the strongest first; of equals by name.
#[must_use]
pub(super) fn movers(all: &[Active], top: usize) -> [Vec<Mover>; 2] {
    let of = |active: &Active| {
        let (previous, (_, price)) = (active.previous??, active.last?);
        Some(Mover { symbol: active.symbol, price, previous })
    };
    let moved: Vec<Mover> = all.iter().filter_map(of).collect();
    let (mut gainers, mut losers) = (moved.clone(), moved);
    gainers.retain(|mover| mover.change() > 0);
    gainers.sort_unstable_by(|a, b| b.by_share(a).then(a.symbol.cmp(&b.symbol)));
    losers.retain(|mover| mover.change() < 0);
    losers.sort_unstable_by(|a, b| a.by_share(b).then(a.symbol.cmp(&b.symbol)));
    gainers.truncate(top);
    losers.truncate(top);
    [gainers, losers]
}

/// The symbols whose close of the day before must be read before they can be movers: the most
/// active ones first.
#[must_use]
pub(super) fn unread(all: &[Active], most: usize) -> Vec<Symbol> {
    let unread = all.iter().filter(|active| active.previous.is_none() && active.last.is_some());
    let unread = most_active(unread.copied().collect(), By::Volume, most);
    unread.into_iter().map(|active| active.symbol).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::{cancel, of, price, time, trade_at};
    use crate::market::Conditions;

    const BEGAN: &str = "2024-01-05T12:00:00Z";

    fn activity(rows: &[Row]) -> Activity {
        let mut activity = Activity::new(3, time(BEGAN));
        rows.iter().for_each(|row| activity.apply(row));
        activity
    }

    fn at(minute: u32, id: u64, symbol: &str, at: &str, size: u32) -> Row {
        of(symbol, trade_at(time(&format!("2024-01-05T15:{minute:02}:00Z")), id, at, size))
    }

    fn names(list: &[Active]) -> Vec<&str> {
        list.iter().map(|active| active.symbol.as_str()).collect()
    }

    #[test]
    fn the_most_active_come_first_by_shares_or_by_trades() {
        let rows = [
            at(0, 1, "A", "1", 50),
            at(1, 2, "A", "1", 50),
            at(0, 3, "B", "1", 500),
            at(0, 4, "C", "1", 500),
        ];
        let all = activity(&rows).all();
        assert_eq!(names(&most_active(all.clone(), By::Volume, 2)), ["B", "C"]);
        let by_trades = most_active(all, By::Trades, 9);
        assert_eq!(names(&by_trades), ["A", "B", "C"]);
        assert_eq!((by_trades[0].volume, by_trades[0].trades), (100, 2));
    }

    #[test]
    fn beyond_its_symbols_nothing_is_kept() {
        let rows: Vec<Row> = ["A", "B", "C", "D"].map(|symbol| at(0, 1, symbol, "1", 5)).to_vec();
        let mut activity = activity(&rows);
        assert_eq!(activity.all().len(), 3);
        activity.apply(&at(1, 2, "A", "1", 5));
        assert_eq!(names(&most_active(activity.all(), By::Trades, 1)), ["A"], "known ones go on");
    }

    #[test]
    fn a_new_day_begins_anew_and_late_trades_of_the_old_one_do_not_count() {
        let mut activity = activity(&[at(0, 1, "A", "1", 5)]);
        assert_eq!(activity.since(), time(BEGAN), "the day began before this memory");
        let next = time("2024-01-08T15:00:00Z");
        activity.previous_loaded(activity.day_begins(), "A".parse().unwrap(), Some(price("2")));
        activity.apply(&of("A", trade_at(next, 2, "3", 7)));
        activity.apply(&at(5, 3, "A", "1", 1_000));
        let all = activity.all();
        assert_eq!((all[0].volume, all[0].trades, all[0].previous), (7, 1, None));
        assert_eq!(activity.since(), time("2024-01-08T05:00:00Z"));
        activity.previous_loaded(time("2024-01-05T05:00:00Z"), "A".parse().unwrap(), Some(price("2")));
        assert_eq!(activity.all()[0].previous, None, "a read for the day before says nothing");
    }

    #[test]
    fn movers_are_ordered_in_proportion_to_the_close_before() {
        let rows = [at(0, 1, "A", "11", 1), at(0, 2, "B", "130", 2), at(0, 3, "C", "9", 3)];
        let mut activity = activity(&rows);
        assert_eq!(movers(&activity.all(), 9), [vec![], vec![]], "closes are not read yet");
        let unread_of = |activity: &Activity| {
            unread(&activity.all(), 9).iter().map(|symbol| symbol.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(unread_of(&activity), ["C", "B", "A"]);
        let day = activity.day_begins();
        for (symbol, close) in [("A", Some("10")), ("B", Some("100")), ("C", Some("10"))] {
            activity.previous_loaded(day, symbol.parse().unwrap(), close.map(price));
        }
        assert!(unread_of(&activity).is_empty());
        let symbols = |activity: &Activity, top: usize| {
            movers(&activity.all(), top)
                .map(|list| list.iter().map(|mover| mover.symbol.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(symbols(&activity, 9), [vec!["B", "A"], vec!["C"]], "30 % before 10 %");
        assert_eq!(symbols(&activity, 1), [vec!["B"], vec!["C"]]);
        activity.apply(&at(1, 9, "B", "101", 2));
        assert_eq!(symbols(&activity, 9), [vec!["A", "B"], vec!["C"]]);
        activity.apply(&at(0, 8, "A", "20", 2));
        let [gainers, _] = movers(&activity.all(), 9);
        assert_eq!(gainers[0].price, price("20"), "of one time the later number");
        for (symbol, close) in [("A", None), ("B", Some("101"))] {
            activity.previous_loaded(day, symbol.parse().unwrap(), close.map(price));
        }
        assert_eq!(symbols(&activity, 9), [vec![], vec!["C".to_owned()]], "no close, and no change");
    }

    #[test]
    fn a_price_that_was_taken_back_is_not_shown_on() {
        let mut activity = activity(&[at(0, 1, "AAPL", "11", 100)]);
        let day = activity.day_begins();
        activity.previous_loaded(day, "AAPL".parse().unwrap(), Some(price("10")));
        activity.apply(&cancel(time("2024-01-05T15:01:00Z"), 1, "11", false));
        assert_eq!(movers(&activity.all(), 9), [vec![], vec![]]);
        activity.apply(&at(2, 2, "AAPL", "12", 100));
        assert_eq!(movers(&activity.all(), 9)[0][0].price, price("12"));
    }

    #[test]
    fn an_odd_lot_counts_and_sets_no_price() {
        let mut odd = at(0, 1, "A", "11", 5);
        if let Event::Trade(trade) = &mut odd.tick.event {
            trade.conditions = Conditions::from_codes(b"@I").unwrap();
        }
        let all = activity(&[odd]).all();
        assert_eq!((all[0].volume, all[0].last), (5, None));
    }
}
