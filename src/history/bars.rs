//! Bars: ingested ones, and where there is none those folded from trades.
//!
//! | timeframe | made from |
//! |---|---|
//! | 1Min | the ingested minute bar, else the fold of the minute's trades |
//! | 1Day | the ingested daily bar, else the fold of the New York day's trades |
//! | below a day | the minute bars |
//! | above a day | the daily bars |
//!
//! A page names bars that *begin* in the span, each whole, with all its trades, wherever the
//! span ends. The bar that is running now is told as far as it goes. Folding costs the
//! decoding of the trades: a page ends early rather than read more than its budget, and trades
//! of days that have an ingested daily bar are not read at all.

use std::collections::VecDeque;

use super::amend::Entry;
use super::fill::{Budget, Page, Pages, Part};
use super::page::Resume;
use super::reader::{BarQuery, BarSpan, ReadError, Reader};
use crate::bars::{Aggregate, Folded, Folding, Period, Timeframe};
use crate::market::{Bar, Event, Kind, Nanos, Series, Symbol};
use crate::store::{Order, Span};
use crate::wire::Mark;

/// No bar begins before this: no tick is older than 1970, and no bar longer than a year.
const EARLIEST_BAR: Nanos = Nanos(-400 * 24 * Nanos::HOUR);

/// Trades read at first for each bar that is asked for.
const TRADES_A_BAR: usize = 64;

/// Ingested bars read at once.
const INGESTED_ROWS: usize = 1024;

impl Reader {
    /// A page of bars.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bars(&self, query: &BarQuery) -> Result<Page<BarSpan>, ReadError> {
        let _turn = self.turn().await?;
        let mut budget = self.budget();
        let mut pages = Pages::new(&query.symbols, query.cursor, query.limit, self.limits.probes_max);
        while let Some((symbol, resume)) = pages.ask() {
            let part = self.bars_of(symbol, query, resume, pages.left, &mut budget).await?;
            pages.take(symbol, part, &budget);
        }
        Ok(pages.finish())
    }

    async fn bars_of(
        &self,
        symbol: Symbol,
        query: &BarQuery,
        resume: Resume,
        limit: usize,
        budget: &mut Budget,
    ) -> Result<Part<BarSpan>, ReadError> {
        let after = match resume {
            Resume::AfterBar(time) => Some(time),
            Resume::Start | Resume::After(_) => None,
        };
        let span = base_span(query.timeframe, &query.span, query.order, after);
        let mut base = BaseBars::new(self, symbol, query.timeframe.base(), span, query.order);
        base.fold_rows = limit.saturating_mul(TRADES_A_BAR).clamp(1, self.limits.fold_rows);
        let mut larger = Larger::new(query.timeframe);
        let mut items: Vec<BarSpan> = Vec::new();
        loop {
            let last = items.last().map_or(resume, |bar| Resume::AfterBar(bar.time));
            // A page may end early, but never without having come any further.
            if budget.is_spent() && !items.is_empty() {
                return Ok(Part { items, more: Some(last) });
            }
            let next = base.next(budget).await?;
            let is_end = next.is_none();
            if let Some(bar) = larger.push(next) {
                if items.len() >= limit {
                    return Ok(Part { items, more: Some(last) });
                }
                items.push(bar);
            }
            if is_end {
                return Ok(Part { items, more: None });
            }
        }
    }
}

/// The span of the base bars that make the bars which begin in `span`, after the bar `after`.
fn base_span(timeframe: Timeframe, span: &Span, order: Order, after: Option<Nanos>) -> Span {
    let (start, end) = ((*span.start()).max(EARLIEST_BAR), *span.end());
    if end < start {
        return start..=start.plus(-1);
    }
    let first = if timeframe.start(start) == start { start } else { timeframe.next_start(start) };
    let past = |time: Nanos| timeframe.next_start(time);
    match (order, after) {
        (_, None) => first..=past(end).plus(-1),
        (Order::Ascending, Some(after)) => first.max(past(after))..=past(end).plus(-1),
        (Order::Descending, Some(after)) => first..=past(end).min(after).plus(-1),
    }
}

/// Bars of a timeframe from its base bars; the base bars themselves as they are.
struct Larger {
    aggregate: Option<Aggregate>,
}

impl Larger {
    fn new(timeframe: Timeframe) -> Self {
        Self { aggregate: (!timeframe.is_base()).then(|| Aggregate::new(timeframe)) }
    }

    /// Takes the next base bar, or the end; gives a bar once it is whole.
    fn push(&mut self, next: Option<BarSpan>) -> Option<BarSpan> {
        let Some(aggregate) = &mut self.aggregate else {
            return next;
        };
        let whole = match next {
            Some(base) => aggregate.push(base.time, &base.bar),
            None => aggregate.finish(),
        };
        whole.map(|(time, bar)| BarSpan { time, bar })
    }
}

/// The minute bars or the daily bars of a symbol, in the order asked for.
struct BaseBars<'a> {
    reader: &'a Reader,
    symbol: Symbol,
    period: Period,
    order: Order,
    ingested: Queue,
    folded: Queue,
    /// The fold of the bar that is being folded.
    folding: Folding,
    /// Trades to read next for a fold: more each time, so that a page of few bars reads little.
    fold_rows: usize,
}

/// Bars that are ready, and what of the span was not read for more.
struct Queue {
    ready: VecDeque<BarSpan>,
    /// Nothing where all was read.
    rest: Option<(Span, Resume)>,
}

impl Queue {
    fn of(span: &Span) -> Self {
        Self { ready: VecDeque::new(), rest: (!span.is_empty()).then(|| (span.clone(), Resume::Start)) }
    }
}

impl<'a> BaseBars<'a> {
    fn new(reader: &'a Reader, symbol: Symbol, period: Period, span: Span, order: Order) -> Self {
        let queue = || Queue::of(&span);
        let (ingested, folded) = (queue(), queue());
        let (folding, fold_rows) = (Folding::new(period), reader.limits.fold_rows);
        Self { reader, symbol, period, order, ingested, folded, folding, fold_rows }
    }

    /// The next bar; of an ingested and a folded one at one time the ingested.
    async fn next(&mut self, budget: &mut Budget) -> Result<Option<BarSpan>, ReadError> {
        while self.ingested.ready.is_empty() && self.ingested.rest.is_some() {
            self.read_ingested(budget).await?;
        }
        while self.folded.ready.is_empty() && self.folded.rest.is_some() {
            match self.period {
                Period::Minute => self.fold_trades(budget).await?,
                Period::Day => {
                    if !self.fold_day(budget).await? {
                        break;
                    }
                }
            }
        }
        let ingested = self.ingested.ready.front().map(|bar| bar.time);
        let folded = self.folded.ready.front().map(|bar| bar.time);
        match (ingested, folded) {
            (Some(ingested), Some(folded)) if ingested == folded => {
                self.folded.ready.pop_front();
                Ok(self.ingested.ready.pop_front())
            }
            (Some(ingested), Some(folded)) if !self.is_before(ingested, folded) => {
                Ok(self.folded.ready.pop_front())
            }
            (Some(_), _) => Ok(self.ingested.ready.pop_front()),
            (None, _) => Ok(self.folded.ready.pop_front()),
        }
    }

    fn is_before(&self, a: Nanos, b: Nanos) -> bool {
        match self.order {
            Order::Ascending => a < b,
            Order::Descending => a > b,
        }
    }

    /// Reads on in a queue's series; the rest of the queue is what comes after.
    async fn read(
        &self,
        kind: Kind,
        rest: (Span, Resume),
        limit: usize,
        budget: &mut Budget,
    ) -> Result<(Vec<Entry>, Option<(Span, Resume)>), ReadError> {
        let (span, resume) = rest;
        let after = match resume {
            Resume::After(key) => Some(key),
            Resume::Start | Resume::AfterBar(_) => None,
        };
        let series = Series { symbol: self.symbol, kind };
        let part = self.reader.entries(series, &span, self.order, after, limit, budget).await?;
        Ok((part.items, part.more.map(|resume| (span, resume))))
    }

    async fn read_ingested(&mut self, budget: &mut Budget) -> Result<(), ReadError> {
        let Some(rest) = self.ingested.rest.take() else {
            return Ok(());
        };
        let (entries, rest) = self.read(self.period.kind(), rest, INGESTED_ROWS, budget).await?;
        self.ingested.rest = rest;
        let bars = entries.iter().filter_map(|entry| match &entry.tick.event {
            Event::MinuteBar(bar) | Event::DayBar(bar) => Some(BarSpan { time: entry.tick.time, bar: *bar }),
            _ => None,
        });
        self.ingested.ready.extend(bars);
        Ok(())
    }

    /// Folds the next trades.
    async fn fold_trades(&mut self, budget: &mut Budget) -> Result<(), ReadError> {
        let Some(rest) = self.folded.rest.take() else {
            return Ok(());
        };
        let limit = self.fold_rows;
        self.fold_rows = limit.saturating_mul(2).min(self.reader.limits.fold_rows);
        let (entries, rest) = self.read(Kind::Trade, rest, limit, budget).await?;
        for entry in entries {
            let done = fold(&mut self.folding, &entry);
            self.folded.ready.extend(done);
        }
        if rest.is_none() {
            let done = self.folding.finish().and_then(bar_of);
            self.folded.ready.extend(done);
        }
        self.folded.rest = rest;
        Ok(())
    }

    /// Folds the next day that has trades. Answers false where an ingested bar stands before
    /// it, or for it: that one is given out first, and its day is not folded.
    async fn fold_day(&mut self, budget: &mut Budget) -> Result<bool, ReadError> {
        let Some((span, _)) = self.folded.rest.clone() else {
            return Ok(false);
        };
        let trades = Series { symbol: self.symbol, kind: Kind::Trade };
        let first = self.reader.merged(trades, &span, self.order, None, 1, budget).await?;
        let first = match self.order {
            Order::Ascending => first.first(),
            Order::Descending => first.last(),
        };
        let Some(time) = first.map(|trade| trade.place.time) else {
            self.folded.rest = None;
            return Ok(true);
        };
        let (day, next_day) = (self.period.start(time), self.period.next_start(time));
        let rest = match self.order {
            Order::Ascending => next_day..=*span.end(),
            Order::Descending => *span.start()..=day.plus(-1),
        };
        let rest = (!rest.is_empty()).then_some((rest, Resume::Start));
        match self.ingested.ready.front().map(|bar| bar.time) {
            Some(ingested) if ingested == day => {
                self.folded.rest = rest;
                return Ok(false);
            }
            Some(ingested) if self.is_before(ingested, day) => return Ok(false),
            _ => {}
        }
        self.folded.rest = Some((day..=next_day.plus(-1), Resume::Start));
        while self.folded.rest.is_some() {
            self.fold_trades(budget).await?;
        }
        self.folded.rest = rest;
        Ok(true)
    }
}

/// Adds an entry of trades to a fold; gives the bar before it where it begins another.
fn fold(folding: &mut Folding, entry: &Entry) -> Option<BarSpan> {
    let (place, tick) = (entry.key.place, &entry.tick);
    let folded = match entry.mark {
        None | Some(Mark::Corrected) => folding.push(place, tick),
        Some(Mark::Canceled | Mark::Incorrect) => folding.push_struck(place, tick),
    };
    folded.and_then(bar_of)
}

fn bar_of(folded: Folded) -> Option<BarSpan> {
    let bar: Bar = folded.bar?;
    Some(BarSpan { time: folded.start, bar })
}
