//! Corrections and cancels, applied to the trades they name.
//!
//! An exchange takes a trade back (a cancel) or replaces it (a correction). History shows
//! both: the trade that was, marked, and the trade that is, at the original's event time.
//!
//! | what came | the original's `u` | added |
//! |---|---|---|
//! | cancel, action `C` | `canceled` | |
//! | cancel, action `E` (the trade was an error) | `incorrect` | |
//! | correction | `incorrect` | the corrected trade, `u` = `corrected` |
//!
//! A correction or cancel is matched on (symbol, exchange, exchange's number) with the trades
//! of its own New York day. It may come until the end of the next trading day; since exchanges
//! number anew each day, it then must also name the trade's price and size. A number
//! stands for all versions of its trade, so that whoever corrects the corrected trade or,
//! again, the original, amends the version that counts now. A correction whose original is
//! not in history shows nothing, for it does not say when the trade was.

use std::collections::{HashMap, HashSet};

use super::merge::{Key, Merged};
use crate::market::{Cancel, Correction, Event, Nanos, Price, Row, Tick, Trade, calendar};
use crate::store::Span;
use crate::wire::Mark;

/// One entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place and version: what the next page starts after.
    pub key: Key,
    /// The tick.
    pub tick: Tick,
    /// What became of it; `None` where nothing did.
    pub mark: Option<Mark>,
}

/// An exchange and its number of a trade.
type Name = (u8, u64);

/// Which corrections and cancels matter to a set of trades: those that name one of them, or
/// name what such a correction made of it.
#[derive(Debug)]
pub struct Wanted {
    names: HashSet<Name>,
}

impl Wanted {
    /// What may amend these trades.
    #[must_use]
    pub fn by(trades: &[Merged]) -> Self {
        Self { names: trades.iter().filter_map(|trade| name_of(&trade.row.tick)).collect() }
    }

    /// Whether this row does. Corrections must be asked about in the total order and before
    /// cancels, since each may name what the last one made.
    pub fn wants(&mut self, action: &Row) -> bool {
        match &action.tick.event {
            Event::Correction(correction) => {
                let wanted = self.names.contains(&(correction.exchange.0, correction.original_id));
                if wanted {
                    self.names.insert((correction.exchange.0, correction.corrected_id));
                }
                wanted
            }
            Event::Cancel(cancel) => self.names.contains(&(cancel.exchange.0, cancel.id)),
            _ => false,
        }
    }
}

/// The span of event time in which corrections and cancels of trades between these times come.
#[must_use]
pub fn reach(first: Nanos, last: Nanos) -> Span {
    let (opens, _) = calendar::new_york_day(calendar::correction_days(first).0);
    let (_, closes) = calendar::new_york_day(calendar::correction_days(last).1);
    opens..=closes
}

/// Applies corrections and cancels (in any order, one row an id) to trades in ascending order.
/// The answer is in ascending order too.
#[must_use]
pub fn amend(trades: Vec<Merged>, mut actions: Vec<Row>) -> Vec<Entry> {
    let mut book = Book::new(&trades);
    if !actions.is_empty() {
        actions.sort_by_cached_key(|row| (row.tick.time, row.tick.kind(), row.place()));
        for action in &actions {
            book.apply(&trades, action);
        }
    }
    let mut entries = Vec::with_capacity(trades.len());
    for (at, trade) in trades.into_iter().enumerate() {
        let chain = book.chains.remove(&at);
        book.entries_of(trade, chain, &mut entries);
    }
    entries.sort_by_key(|entry| entry.key);
    entries
}

/// The versions of one trade after the original; the last one counts unless `ended` says otherwise.
#[derive(Debug, Default)]
struct Chain {
    versions: Vec<Trade>,
    ended: Option<Mark>,
}

#[derive(Debug)]
struct Book {
    by_name: HashMap<Name, Vec<usize>>,
    chains: HashMap<usize, Chain>,
}

/// A correction or a cancel.
#[derive(Clone, Copy)]
enum Action<'a> {
    Correct(&'a Correction),
    Cancel(&'a Cancel),
}

impl Action<'_> {
    const fn name(&self) -> Name {
        match self {
            Self::Correct(correction) => (correction.exchange.0, correction.original_id),
            Self::Cancel(cancel) => (cancel.exchange.0, cancel.id),
        }
    }

    const fn price_and_size(&self) -> (Price, u32) {
        match self {
            Self::Correct(correction) => (correction.original_price, correction.original_size),
            Self::Cancel(cancel) => (cancel.price, cancel.size),
        }
    }
}

impl Book {
    fn new(trades: &[Merged]) -> Self {
        let mut by_name: HashMap<Name, Vec<usize>> = HashMap::new();
        for (at, trade) in trades.iter().enumerate() {
            if let Some(name) = name_of(&trade.row.tick) {
                by_name.entry(name).or_default().push(at);
            }
        }
        Self { by_name, chains: HashMap::new() }
    }

    fn apply(&mut self, trades: &[Merged], row: &Row) {
        let action = match &row.tick.event {
            Event::Correction(correction) => Action::Correct(correction),
            Event::Cancel(cancel) => Action::Cancel(cancel),
            _ => return,
        };
        let day = calendar::new_york_date(row.tick.time);
        let named = self.by_name.get(&action.name()).cloned().unwrap_or_default();
        for at in named {
            let Some((time, original)) = trades.get(at).and_then(|trade| trade_of(&trade.row.tick)) else {
                continue;
            };
            let chain = self.chains.entry(at).or_default();
            let (traded, until) = calendar::correction_days(time);
            let told = std::iter::once(original)
                .chain(chain.versions.iter())
                .any(|trade| (trade.price, trade.size) == action.price_and_size());
            let matches = day == traded || (day > traded && day <= until && told);
            if !matches || chain.ended.is_some() {
                continue;
            }
            match action {
                Action::Cancel(cancel) => {
                    chain.ended = Some(if cancel.error { Mark::Incorrect } else { Mark::Canceled });
                }
                Action::Correct(correction) => {
                    let current = chain.versions.last().unwrap_or(original);
                    let corrected = replace(current, correction);
                    // The same correction told twice, at two times, is one.
                    if corrected == *current {
                        continue;
                    }
                    let name = (correction.exchange.0, correction.corrected_id);
                    let also = self.by_name.entry(name).or_default();
                    let reported = |other: &usize| {
                        *other != at && trades.get(*other).is_some_and(|other| other.row.tick.time == time)
                    };
                    if also.iter().any(reported) {
                        // The corrected trade was also reported by itself: it stands for itself.
                        chain.ended = Some(Mark::Incorrect);
                        continue;
                    }
                    chain.versions.push(corrected);
                    if !also.contains(&at) {
                        also.push(at);
                    }
                }
            }
        }
    }

    /// Appends the versions of a trade, or another tick as it is.
    fn entries_of(&self, merged: Merged, chain: Option<Chain>, out: &mut Vec<Entry>) {
        let Chain { versions, ended } = chain.unwrap_or_default();
        let (time, symbol) = (merged.row.tick.time, merged.row.tick.symbol);
        let original_mark = if versions.is_empty() { ended } else { Some(Mark::Incorrect) };
        let last = versions.len();
        let origin = merged.row.origin;
        out.push(Entry {
            key: Key { place: merged.place, version: 0 },
            tick: merged.row.tick,
            mark: original_mark,
        });
        for (version, trade) in (1_u32..).zip(versions) {
            let is_last = usize::try_from(version).is_ok_and(|version| version == last);
            let tick = Tick { symbol, time, event: Event::Trade(trade) };
            let place = Row { tick: tick.clone(), origin }.place();
            let mark = if is_last { ended.unwrap_or(Mark::Corrected) } else { Mark::Incorrect };
            out.push(Entry { key: Key { place, version }, tick, mark: Some(mark) });
        }
    }
}

fn replace(current: &Trade, correction: &Correction) -> Trade {
    Trade {
        id: Some(correction.corrected_id),
        exchange: correction.exchange,
        price: correction.corrected_price,
        size: correction.corrected_size,
        conditions: correction.corrected_conditions,
        tape: if correction.tape.letter().is_some() { correction.tape } else { current.tape },
    }
}

fn trade_of(tick: &Tick) -> Option<(Nanos, &Trade)> {
    match &tick.event {
        Event::Trade(trade) => Some((tick.time, trade)),
        _ => None,
    }
}

fn name_of(tick: &Tick) -> Option<Name> {
    trade_of(tick).and_then(|(_, trade)| trade.id.map(|id| (trade.exchange.0, id)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cancel, correction, time, trade_at};
    use super::*;

    const DAY: &str = "2024-01-05T15:00:00Z";
    const FRIDAY: &str = "2024-01-05T21:00:00Z";
    const SATURDAY: &str = "2024-01-06T15:00:00Z";
    const MONDAY: &str = "2024-01-08T15:00:00Z";
    const TUESDAY: &str = "2024-01-09T15:00:00Z";

    fn merged(rows: Vec<Row>) -> Vec<Merged> {
        let mut rows: Vec<Merged> = rows.into_iter().map(|row| Merged { place: row.place(), row }).collect();
        rows.sort_by_key(|merged| merged.place);
        rows
    }

    /// `number price mark` of each entry.
    fn shown(trades: Vec<Row>, actions: &[Row]) -> Vec<String> {
        let line = |entry: &Entry| {
            let (_, trade) = trade_of(&entry.tick).unwrap();
            let mark = entry.mark.map_or("-", Mark::as_str);
            format!("{} {} {mark}", trade.id.unwrap_or_default(), trade.price)
        };
        let forward = amend(merged(trades.clone()), actions.to_vec());
        let mut backward = actions.to_vec();
        backward.reverse();
        assert_eq!(
            amend(merged(trades), backward),
            forward,
            "the order in which actions are read is nothing"
        );
        assert!(forward.is_sorted_by_key(|entry| entry.key));
        forward.iter().map(line).collect()
    }

    fn one() -> Vec<Row> {
        vec![trade_at(time(DAY), 7, "10", 100)]
    }

    #[test]
    fn marks_and_versions() {
        let at = |offset: i64| time(FRIDAY).plus(offset);
        let fix = |offset, id, was, to, is| correction(at(offset), id, was, to, is);
        let cases: &[(&str, Vec<Row>, &[&str])] = &[
            ("nothing", vec![], &["7 10 -"]),
            ("canceled", vec![cancel(at(0), 7, "10", false)], &["7 10 canceled"]),
            ("an error", vec![cancel(at(0), 7, "10", true)], &["7 10 incorrect"]),
            ("another trade", vec![cancel(at(0), 8, "10", false)], &["7 10 -"]),
            ("corrected", vec![fix(0, 7, "10", 9, "11")], &["7 10 incorrect", "9 11 corrected"]),
            ("to a lower number", vec![fix(0, 7, "10", 3, "11")], &["3 11 corrected", "7 10 incorrect"]),
            ("the same number", vec![fix(0, 7, "10", 7, "11")], &["7 10 incorrect", "7 11 corrected"]),
            (
                "told twice",
                vec![fix(0, 7, "10", 9, "11"), fix(1, 7, "10", 9, "11")],
                &["7 10 incorrect", "9 11 corrected"],
            ),
            (
                "and corrected again",
                vec![fix(0, 7, "10", 9, "11"), fix(1, 9, "11", 12, "12")],
                &["7 10 incorrect", "9 11 incorrect", "12 12 corrected"],
            ),
            (
                "again by the first number",
                vec![fix(0, 7, "10", 9, "11"), fix(1, 7, "10", 12, "12")],
                &["7 10 incorrect", "9 11 incorrect", "12 12 corrected"],
            ),
            (
                "then canceled",
                vec![fix(0, 7, "10", 9, "11"), cancel(at(1), 9, "11", false)],
                &["7 10 incorrect", "9 11 canceled"],
            ),
            (
                "canceled, then corrected",
                vec![cancel(at(0), 7, "10", false), fix(1, 7, "10", 9, "11")],
                &["7 10 canceled"],
            ),
        ];
        for (what, actions, expected) in cases {
            assert_eq!(&shown(one(), actions), expected, "{what}");
        }
    }

    #[test]
    fn until_the_end_of_the_next_trading_day() {
        let marks = |at: &str, was: &str| shown(one(), &[cancel(time(at), 7, was, false)]);
        assert_eq!(marks(FRIDAY, "99"), ["7 10 canceled"], "on its day the number is enough");
        assert_eq!(marks(SATURDAY, "10"), ["7 10 canceled"]);
        assert_eq!(marks(MONDAY, "10"), ["7 10 canceled"]);
        assert_eq!(marks(MONDAY, "99"), ["7 10 -"], "numbers begin anew each day: the price must be told");
        assert_eq!(marks(TUESDAY, "10"), ["7 10 -"]);
        assert_eq!(marks("2024-01-04T15:00:00Z", "10"), ["7 10 -"], "the day before");
        let reach = reach(time(DAY), time(DAY));
        assert_eq!(*reach.start(), time("2024-01-05T05:00:00Z"));
        assert_eq!(*reach.end(), time("2024-01-09T04:59:59.999999999Z"));
    }

    #[test]
    fn a_corrected_trade_that_was_also_reported_is_one() {
        let mut trades = one();
        trades.push(trade_at(time(DAY), 9, "11", 100));
        let actions = [correction(time(FRIDAY), 7, "10", 9, "11")];
        assert_eq!(shown(trades, &actions), ["7 10 incorrect", "9 11 -"]);
    }

    #[test]
    fn only_what_names_a_trade_is_wanted() {
        let mut wanted = Wanted::by(&merged(one()));
        let at = time(FRIDAY);
        assert!(!wanted.wants(&cancel(at, 9, "11", false)));
        assert!(wanted.wants(&correction(at, 7, "10", 9, "11")));
        assert!(wanted.wants(&cancel(at, 9, "11", false)), "what the correction made");
        assert!(!wanted.wants(&correction(at, 8, "10", 10, "11")));
        assert!(!wanted.wants(&trade_at(at, 7, "10", 100)));
    }
}
