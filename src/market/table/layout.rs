//! How the parts of a table follow each other.

use std::vec::IntoIter;

use super::bytes::{Source, put_count, put_number};
use super::column::{self, Shape};
use super::origins::{self, Requests};
use super::{BYTES_MAX, ROWS_MAX, TableError, VERSION, body, events, series};
use crate::market::{Event, Kind, Nanos, Origin, RequestKey, Row, Series, Tick};

/// What a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Frame = 1,
    Block = 2,
}

/// What the head of a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// How many rows there are.
    pub rows: usize,
    /// The earliest event time; 0 where there are no rows.
    pub first: Nanos,
    /// The latest event time; 0 where there are no rows.
    pub last: Nanos,
}

/// Reads the head of a table of either form, without its columns.
///
/// # Errors
/// [`TableError`] when the head is not that of a table.
pub fn peek(bytes: &[u8]) -> Result<Peek, TableError> {
    let mut source = Source::new(bytes);
    take_head(None, &mut source)
}

pub(super) fn take_head(expected: Option<Form>, source: &mut Source<'_>) -> Result<Peek, TableError> {
    let [version, form] = source.array()?;
    if version != VERSION {
        return Err(TableError::Version(version));
    }
    let known = expected.map_or(matches!(form, 1 | 2), |expected| form == expected as u8);
    if !known {
        return Err(TableError::Form(form));
    }
    let rows = source.count(ROWS_MAX)?;
    if rows == 0 {
        return Ok(Peek { rows, first: Nanos(0), last: Nanos(0) });
    }
    let first = Nanos(i64::from_be_bytes(source.array()?));
    let width = source.number()?;
    Ok(Peek { rows, first, last: Nanos(first.0.wrapping_add_unsigned(width)) })
}

/// Rows in the two orders that a table needs.
struct Plan {
    dictionary: Vec<Series>,
    /// Positions in the rows given: in the order of arrival, with the series' number.
    arrived: Vec<(usize, usize)>,
    /// The same sorted by series; rows of one series in the order given.
    sorted: Vec<(usize, usize)>,
}

impl Plan {
    fn of(rows: &[Row], form: Form, requests: &mut Requests) -> Self {
        let first = rows.first().map(|row| row.tick.series());
        if rows.iter().all(|row| Some(row.tick.series()) == first) {
            let order: Vec<(usize, usize)> = (0..rows.len()).map(|at| (at, 0)).collect();
            return Self { dictionary: first.into_iter().collect(), arrived: order.clone(), sorted: order };
        }
        // A symbol as one number sorts as its text does, and much faster.
        let mut keyed: Vec<(u128, Kind, usize)> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| (u128::from_be_bytes(*row.tick.symbol.padded()), row.tick.kind(), at))
            .collect();
        keyed.sort_unstable();
        let mut dictionary: Vec<Series> = Vec::new();
        let mut arrived: Vec<(usize, usize)> = (0..rows.len()).map(|at| (at, 0)).collect();
        let mut sorted = Vec::with_capacity(rows.len());
        let mut before = None;
        for (symbol, kind, at) in keyed {
            if before != Some((symbol, kind)) {
                before = Some((symbol, kind));
                dictionary.extend(rows.get(at).map(|row| row.tick.series()));
            }
            let number = dictionary.len().saturating_sub(1);
            sorted.push((at, number));
            if let Some(slot) = arrived.get_mut(at) {
                slot.1 = number;
            }
        }
        if form == Form::Frame {
            by_arrival(rows, dictionary.len(), requests, &mut arrived);
        }
        Self { dictionary, arrived, sorted }
    }
}

/// Orders the rows of a frame by request and index, where that leaves the rows of each series
/// in the order given: times and indexes then run on, whoever sorted the rows before.
fn by_arrival(rows: &[Row], series: usize, requests: &mut Requests, arrived: &mut Vec<(usize, usize)>) {
    let keys: Vec<(u64, u32)> =
        rows.iter().map(|row| (requests.number(row.origin.request), row.origin.index)).collect();
    if keys.is_sorted() {
        return;
    }
    let mut ordered = arrived.clone();
    ordered.sort_by_key(|(at, _)| keys.get(*at).copied());
    let mut last = vec![None; series];
    let kept = ordered.iter().all(|(at, number)| {
        last.get_mut(*number).is_some_and(|last| last.replace(*at).is_none_or(|before| before < *at))
    });
    if kept {
        *arrived = ordered;
    }
}

pub(super) fn encode(rows: &[Row], form: Form, requests: &[RequestKey]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&[VERSION, form as u8]);
    put_count(rows.len(), &mut out);
    let times = rows.iter().map(|row| row.tick.time.0);
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else { return out };
    out.extend_from_slice(&first.to_be_bytes());
    put_number(last.wrapping_sub(first).cast_unsigned(), &mut out);

    let mut requests = Requests::new(requests);
    let plan = Plan::of(rows, form, &mut requests);
    let mut columns = Vec::with_capacity(rows.len() * 20);
    series::put(&plan.dictionary, &mut columns);
    let several = plan.dictionary.len() > 1;
    if several {
        let numbers: Vec<u64> = plan.arrived.iter().map(|(_, number)| *number as u64).collect();
        column::put(&numbers, Shape::Free, &[], &mut columns);
    }
    let arrived = || plan.arrived.iter().filter_map(|(at, _)| rows.get(*at));
    let sorted = || plan.sorted.iter().filter_map(|(at, _)| rows.get(*at));
    let mut times: Vec<u64> = Vec::with_capacity(rows.len());
    times.extend(arrived().map(|row| row.tick.time.0.wrapping_sub(first).cast_unsigned()));
    column::put(&times, Shape::Near, &[], &mut columns);
    match form {
        Form::Frame => origins::put(arrived(), form, &mut requests, &mut columns),
        Form::Block => origins::put(sorted(), form, &mut requests, &mut columns),
    }
    for kind in Kind::ALL {
        let of_kind: Vec<&Event> =
            sorted().filter(|row| row.tick.kind() == kind).map(|row| &row.tick.event).collect();
        if !of_kind.is_empty() {
            events::put(kind, &of_kind, !several, &mut columns);
        }
    }
    body::put(&columns, &mut out);
    out
}

pub(super) fn decode(
    bytes: &[u8],
    form: Form,
    requests: &[RequestKey],
    received: Nanos,
) -> Result<Vec<Row>, TableError> {
    let mut source = Source::new(bytes);
    let head = take_head(Some(form), &mut source)?;
    if head.rows == 0 {
        source.finish()?;
        return Ok(Vec::new());
    }
    let columns = body::take(&mut source)?;
    let mut source = Source::new(&columns);
    let dictionary = series::take(head.rows, &mut source)?;
    let places = Places::take(head.rows, dictionary.len(), &mut source)?;
    let mut times = column::take(head.rows, &[], &mut source)?;
    let mut origins = origins::take(head.rows, form, requests, received, &mut source)?;
    places.apply(&mut times);
    if form == Form::Frame {
        places.apply(&mut origins);
    }
    let mut events = Events::take(&dictionary, &places.counts, &mut source)?;
    source.finish()?;

    let (mut times, mut origins) = (times.into_iter(), origins.into_iter());
    let mut rows = Vec::with_capacity(head.rows);
    for (series, count) in dictionary.iter().zip(&places.counts) {
        let events = events.of(series.kind);
        for (event, time) in events.by_ref().zip(times.by_ref()).take(*count) {
            let time = Nanos(head.first.0.wrapping_add_unsigned(time));
            let tick = Tick { symbol: series.symbol, time, event };
            let mut row = Row { tick, origin: Origin::UNKNOWN };
            if form == Form::Frame || row.needs_origin() {
                row.origin = origins.next().ok_or(TableError::Malformed("a row has no origin"))?;
            }
            rows.push(row);
        }
    }
    if origins.next().is_some() || rows.len() != head.rows {
        return Err(TableError::Malformed("the parts do not have the same rows"));
    }
    Ok(rows)
}

/// Where each row that arrived stands once rows are sorted by series.
struct Places {
    /// Rows of each series.
    counts: Vec<usize>,
    /// Of each row in the order of arrival, its place; empty where that is the order already.
    of_arrived: Vec<usize>,
}

impl Places {
    fn take(rows: usize, series: usize, source: &mut Source<'_>) -> Result<Self, TableError> {
        if series == 1 {
            return Ok(Self { counts: vec![rows], of_arrived: Vec::new() });
        }
        const UNKNOWN: TableError = TableError::Malformed("a row is of no known series");
        let numbers = column::take(rows, &[], source)?;
        let mut counts = vec![0_usize; series];
        for number in &numbers {
            let count = usize::try_from(*number).ok().and_then(|at| counts.get_mut(at));
            *count.ok_or(UNKNOWN)? += 1;
        }
        let mut next = 0;
        let mut starts: Vec<usize> = counts
            .iter()
            .map(|count| {
                next += count;
                next - count
            })
            .collect();
        let of_arrived = numbers.iter().map(|number| {
            let start = usize::try_from(*number).ok().and_then(|at| starts.get_mut(at)).ok_or(UNKNOWN)?;
            *start += 1;
            Ok(*start - 1)
        });
        let of_arrived = of_arrived.collect::<Result<_, TableError>>()?;
        Ok(Self { counts, of_arrived })
    }

    /// Brings what is in the order of arrival into the order of series.
    fn apply<T: Copy + Default>(&self, values: &mut Vec<T>) {
        if self.of_arrived.is_empty() {
            return;
        }
        let mut placed = vec![T::default(); values.len()];
        for (value, place) in values.iter().zip(&self.of_arrived) {
            if let Some(slot) = placed.get_mut(*place) {
                *slot = *value;
            }
        }
        *values = placed;
    }
}

/// The events of each kind, in the order of series.
struct Events([IntoIter<Event>; Kind::ALL.len()]);

impl Events {
    fn take(dictionary: &[Series], counts: &[usize], source: &mut Source<'_>) -> Result<Self, TableError> {
        let mut budget = BYTES_MAX;
        let mut all: [IntoIter<Event>; Kind::ALL.len()] = Default::default();
        for (slot, kind) in all.iter_mut().zip(Kind::ALL) {
            let of_kind = dictionary.iter().zip(counts).filter(|(series, _)| series.kind == kind);
            let count: usize = of_kind.map(|(_, count)| count).sum();
            if count > 0 {
                *slot = events::take(kind, count, &mut budget, source)?.into_iter();
            }
        }
        Ok(Self(all))
    }

    fn of(&mut self, kind: Kind) -> &mut IntoIter<Event> {
        let [trades, quotes, minutes, days, statuses, lulds, corrections, cancels] = &mut self.0;
        match kind {
            Kind::Trade => trades,
            Kind::Quote => quotes,
            Kind::MinuteBar => minutes,
            Kind::DayBar => days,
            Kind::Status => statuses,
            Kind::Luld => lulds,
            Kind::Correction => corrections,
            Kind::Cancel => cancels,
        }
    }
}
