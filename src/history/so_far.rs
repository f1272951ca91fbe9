//! A bar as far as history tells it before a time: what a live fold goes on from.

use super::amend::Entry;
use super::page::Resume;
use super::reader::{ReadError, Reader};
use crate::bars::{Fold, Period};
use crate::market::{Event, Exchange, Kind, Nanos, Series, Symbol};
use crate::store::{Order, Span};
use crate::wire::Mark;

/// An exchange and its number of a trade.
pub type TradeName = (Exchange, u64);

/// What is asked of history for a bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoFarQuery {
    /// Whose bar.
    pub symbol: Symbol,
    /// The bar's span.
    pub period: Period,
    /// When it begins.
    pub start: Nanos,
    /// Trades from this time on are left out.
    pub until: Nanos,
    /// Trades that corrections and cancels named, by any of their numbers.
    pub names: Vec<TradeName>,
    /// Whether the newest time of the symbol's day is asked for.
    pub newest: bool,
}

/// What history knows of a bar.
#[derive(Clone, Debug)]
pub struct SoFar {
    /// The fold of the bar's trades before `until`; none where an ingested bar stands for it.
    pub fold: Option<Fold>,
    /// The newest time of the symbol's trades, corrections, cancels and minute bars in that New
    /// York day, where it was asked for.
    pub newest: Option<Nanos>,
    /// When the trades were, before `until`, that the names stand for and that were amended.
    pub touched: Vec<Nanos>,
}

impl SoFar {
    /// Of no trade yet.
    #[must_use]
    pub fn new(query: &SoFarQuery) -> Self {
        let fold = Fold::of_history(query.period, query.start);
        Self { fold: Some(fold), newest: None, touched: Vec::new() }
    }

    /// Takes in the next trade of history.
    pub fn take(&mut self, query: &SoFarQuery, entry: &Entry) {
        let (place, tick) = (entry.key.place, &entry.tick);
        if let Some(fold) = &mut self.fold {
            match entry.mark {
                None | Some(Mark::Corrected) => fold.add_at(place, tick),
                Some(Mark::Canceled | Mark::Incorrect) => fold.add_struck(place, tick),
            };
        }
        let name = match &tick.event {
            Event::Trade(trade) => trade.id.map(|id| (trade.exchange, id)),
            _ => None,
        };
        let named = name.is_some_and(|name| query.names.contains(&name));
        if named && entry.mark.is_some() {
            self.touched.push(tick.time);
        }
    }
}

impl Reader {
    /// A bar so far. The whole span before `until` is read: of a day, all its trades.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn so_far(&self, query: &SoFarQuery) -> Result<SoFar, ReadError> {
        let _turn = self.turn().await?;
        let mut budget = self.budget();
        let bars = Series { symbol: query.symbol, kind: query.period.kind() };
        let at = query.start..=query.start;
        let ingested = self.merged(bars, &at, Order::Ascending, None, 1, &mut budget).await?;
        let mut so_far = SoFar::new(query);
        if !ingested.is_empty() {
            so_far.fold = None;
        }
        let trades = Series { symbol: query.symbol, kind: Kind::Trade };
        let span: Span = query.start..=query.until.plus(-1);
        let mut after = None;
        while so_far.fold.is_some() || !query.names.is_empty() {
            let limit = self.limits.fold_rows;
            let part = self.entries(trades, &span, Order::Ascending, after, limit, &mut budget).await?;
            part.items.iter().for_each(|entry| so_far.take(query, entry));
            let Some(Resume::After(key)) = part.more else { break };
            after = Some(key);
        }
        if query.newest {
            so_far.newest = self.newest_of_day(query.symbol, query.start).await?;
        }
        Ok(so_far)
    }

    /// The newest time of what makes bars, of a symbol in the New York day of a time.
    async fn newest_of_day(&self, symbol: Symbol, time: Nanos) -> Result<Option<Nanos>, ReadError> {
        let (mut newest, mut budget) = (None, self.budget());
        for kind in [Kind::Trade, Kind::Correction, Kind::Cancel, Kind::MinuteBar] {
            let span: Span = Period::Day.start(time)..=Period::Day.next_start(time).plus(-1);
            let series = Series { symbol, kind };
            let last = self.merged(series, &span, Order::Descending, None, 1, &mut budget).await?;
            newest = newest.max(last.last().map(|merged| merged.place.time));
        }
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReadLimits;
    use super::super::testing::{World, cancel, correction, of, symbol, time, trade_at};
    use super::*;
    use crate::market::{Bar, Row, Tick};

    const DAY: &str = "2024-01-05T05:00:00Z";

    fn query(period: Period, start: &str, until: &str, names: &[u64]) -> SoFarQuery {
        let names = names.iter().map(|id| (Exchange(b'Q'), *id)).collect();
        SoFarQuery { symbol: symbol(), period, start: time(start), until: time(until), names, newest: true }
    }

    /// `volume close | newest | touched`.
    fn line(so_far: &SoFar) -> String {
        let bar = so_far.fold.as_ref().map(|fold| fold.finish().unwrap().bar);
        let bar = match bar {
            None => "ingested".to_owned(),
            Some(None) => "none".to_owned(),
            Some(Some(bar)) => format!("{} {}", bar.volume, bar.close),
        };
        let newest = so_far.newest.map_or("-".to_owned(), |newest| newest.to_string());
        let touched: Vec<String> = so_far.touched.iter().map(ToString::to_string).collect();
        format!("{bar} | {newest} | {}", touched.join(" "))
    }

    #[tokio::test]
    async fn what_history_knows_of_a_bar_before_a_time() {
        let world = World::new(ReadLimits { fold_rows: 2, ..ReadLimits::default() });
        let at = |text: &str, id: u64, price: &str| trade_at(time(text), id, price, 100);
        let trades = [
            at("2024-01-05T14:30:10Z", 1, "10"),
            at("2024-01-05T14:30:20Z", 2, "11"),
            at("2024-01-05T14:31:10Z", 3, "12"),
            at("2024-01-05T14:31:20Z", 4, "13"),
            of("MSFT", at("2024-01-05T14:31:30Z", 9, "99")),
        ];
        world.put_blocks(&trades[..2]);
        world.put_tail(&trades[2..]);
        world.put_tail(&[
            correction(time("2024-01-05T14:40:00Z"), 2, "11", 12, "15"),
            cancel(time("2024-01-05T14:41:00Z"), 4, "13", false),
        ]);
        let newest = "2024-01-05T14:41:00Z";
        let cases = [
            (
                query(Period::Day, DAY, "2024-01-06T05:00:00Z", &[2, 4, 12]),
                "300 12",
                "2024-01-05T14:30:20Z 2024-01-05T14:30:20Z 2024-01-05T14:31:20Z",
            ),
            (query(Period::Day, DAY, "2024-01-05T14:31:00Z", &[4, 77]), "200 15", ""),
            (query(Period::Day, DAY, "2024-01-05T14:31:15Z", &[1]), "300 12", ""),
            (query(Period::Minute, "2024-01-05T14:31:00Z", "2024-01-05T14:32:00Z", &[]), "100 12", ""),
            (query(Period::Minute, "2024-01-05T14:50:00Z", "2024-01-05T14:51:00Z", &[]), "none", ""),
        ];
        for (query, bar, touched) in cases {
            let so_far = world.reader.so_far(&query).await.unwrap();
            assert_eq!(line(&so_far), format!("{bar} | {newest} | {touched}"), "{query:?}");
        }
    }

    #[tokio::test]
    async fn an_ingested_bar_stands_for_itself_and_corrections_are_still_found() {
        let world = World::new(ReadLimits::default());
        let bar = Row {
            tick: Tick { symbol: symbol(), time: time(DAY), event: Event::DayBar(Bar::default()) },
            ..trade_at(time(DAY), 1, "10", 1)
        };
        let noon = "2024-01-05T17:00:00Z";
        world.put_tail(&[bar, trade_at(time(noon), 1, "10", 100), cancel(time(noon).plus(9), 1, "10", true)]);
        let all = query(Period::Day, DAY, "2024-01-06T05:00:00Z", &[1]);
        let so_far = world.reader.so_far(&all).await.unwrap();
        assert_eq!(line(&so_far), format!("ingested | 2024-01-05T17:00:00.000000009Z | {noon}"));
    }
}
