//! How the parts of a table follow each other.

use std::collections::HashMap;

use super::bytes::{Source, put_count};
use super::column::{self, Shape};
use super::{BYTES_MAX, ROWS_MAX, TableError, VERSION, events, series};
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

fn take_head(expected: Option<Form>, source: &mut Source<'_>) -> Result<Peek, TableError> {
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
    let first = Nanos(i64::from_le_bytes(source.array()?));
    let width = source.number()?;
    Ok(Peek { rows, first, last: Nanos(first.0.wrapping_add_unsigned(width)) })
}

pub(super) fn encode(rows: &[Row], form: Form, requests: &[RequestKey]) -> Vec<u8> {
    let mut out = vec![VERSION, form as u8];
    put_count(rows.len(), &mut out);
    let times = rows.iter().map(|row| row.tick.time.0);
    let (Some(first), Some(last)) = (times.clone().min(), times.clone().max()) else { return out };
    out.extend_from_slice(&first.to_le_bytes());
    super::bytes::put_number(last.wrapping_sub(first).cast_unsigned(), &mut out);

    // The rows by series; sorting is stable.
    let mut sorted: Vec<(Series, usize)> =
        rows.iter().enumerate().map(|(at, row)| (row.tick.series(), at)).collect();
    sorted.sort_by_key(|(series, _)| *series);
    let mut dictionary: Vec<Series> = Vec::new();
    let mut numbers = vec![0_u64; rows.len()];
    for (series, at) in &sorted {
        if dictionary.last() != Some(series) {
            dictionary.push(*series);
        }
        if let Some(number) = numbers.get_mut(*at) {
            *number = dictionary.len() as u64 - 1;
        }
    }
    series::put(&dictionary, &mut out);
    column::put(&numbers, Shape::Free, &mut out);
    let times: Vec<u64> = times.map(|time| time.wrapping_sub(first).cast_unsigned()).collect();
    column::put(&times, Shape::Near, &mut out);
    put_origins(rows, form, requests, &mut out);
    for kind in Kind::ALL {
        let of_kind: Vec<&Event> = sorted
            .iter()
            .filter(|(series, _)| series.kind == kind)
            .filter_map(|(_, at)| rows.get(*at))
            .map(|row| &row.tick.event)
            .collect();
        if !of_kind.is_empty() {
            events::put(kind, &of_kind, dictionary.len() == 1, &mut out);
        }
    }
    out
}

/// Appends where rows came from: of a frame all of them, of a block those that need it.
/// Requests that the header does not name are named here, and numbered after those it names.
fn put_origins(rows: &[Row], form: Form, requests: &[RequestKey], out: &mut Vec<u8>) {
    let origins: Vec<&Origin> =
        rows.iter().filter(|row| form == Form::Frame || row.needs_origin()).map(|row| &row.origin).collect();
    let mut known: HashMap<RequestKey, u64> = HashMap::new();
    let mut next = 0;
    for request in requests {
        known.entry(*request).or_insert(next);
        next += 1;
    }
    let mut named: Vec<RequestKey> = Vec::new();
    let numbers: Vec<u64> = origins
        .iter()
        .map(|origin| {
            *known.entry(origin.request).or_insert_with(|| {
                named.push(origin.request);
                next += 1;
                next - 1
            })
        })
        .collect();
    put_count(origins.len(), out);
    put_count(named.len(), out);
    for request in &named {
        out.extend_from_slice(&request.0);
    }
    column::put(&numbers, Shape::Near, out);
    column::put(&column_of(&origins, |origin| u64::from(origin.index)), Shape::Near, out);
    if form == Form::Block {
        column::put(&column_of(&origins, |origin| origin.received.0.cast_unsigned()), Shape::Near, out);
    }
}

fn column_of(origins: &[&Origin], field: impl Fn(&Origin) -> u64) -> Vec<u64> {
    origins.iter().map(|origin| field(origin)).collect()
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
    let dictionary = series::take(head.rows, &mut source)?;
    let numbers = column::take(head.rows, &mut source)?;
    let times = column::take(head.rows, &mut source)?;
    let mut heads = Vec::with_capacity(head.rows);
    let mut counts = [0_usize; Kind::ALL.len()];
    for (number, time) in numbers.iter().zip(times) {
        let series = usize::try_from(*number).ok().and_then(|at| dictionary.get(at));
        let series = *series.ok_or(TableError::Malformed("a row is of no known series"))?;
        if let Some(count) = counts.get_mut(usize::from(series.kind.number()) - 1) {
            *count += 1;
        }
        heads.push((*number, series, head.first.0.wrapping_add_unsigned(time)));
    }
    let mut origins = take_origins(head.rows, form, requests, received, &mut source)?.into_iter();
    let mut budget = BYTES_MAX;
    let mut by_kind = Vec::with_capacity(Kind::ALL.len());
    for (kind, count) in Kind::ALL.into_iter().zip(counts) {
        let events =
            if count == 0 { Vec::new() } else { events::take(kind, count, &mut budget, &mut source)? };
        by_kind.push(events.into_iter());
    }
    source.finish()?;

    let mut arrived = Vec::with_capacity(head.rows);
    for (number, series, time) in heads {
        let kept = form == Form::Frame || !numbered(series.kind);
        arrived.push((number, series, time, kept));
    }
    let mut placed: Vec<(u64, Series, i64, Option<Origin>)> = Vec::with_capacity(head.rows);
    for (number, series, time, kept) in arrived {
        let origin = if kept && form == Form::Frame { origins.next() } else { None };
        placed.push((number, series, time, origin));
    }
    placed.sort_by_key(|(number, ..)| *number);
    let mut rows = Vec::with_capacity(head.rows);
    for (_, series, time, origin) in placed {
        let events = by_kind.get_mut(usize::from(series.kind.number()) - 1);
        let event = events.and_then(Iterator::next).ok_or(TableError::Truncated)?;
        let tick = Tick { symbol: series.symbol, time: Nanos(time), event };
        let mut row = Row { tick, origin: origin.unwrap_or(Origin::UNKNOWN) };
        if form == Form::Block && row.needs_origin() {
            row.origin = origins.next().ok_or(TableError::Malformed("an origin is missing"))?;
        }
        rows.push(row);
    }
    if origins.next().is_some() {
        return Err(TableError::Malformed("there are more origins than rows"));
    }
    Ok(rows)
}

const fn numbered(kind: Kind) -> bool {
    matches!(kind, Kind::MinuteBar | Kind::DayBar | Kind::Correction | Kind::Cancel)
}

fn take_origins(
    rows: usize,
    form: Form,
    requests: &[RequestKey],
    received: Nanos,
    source: &mut Source<'_>,
) -> Result<Vec<Origin>, TableError> {
    let count = source.count(rows)?;
    if form == Form::Frame && count != rows {
        return Err(TableError::Malformed("a row of a frame has no origin"));
    }
    let named = source.count(rows)?;
    let named: Vec<RequestKey> =
        (0..named).map(|_| source.array().map(RequestKey)).collect::<Result<_, _>>()?;
    let numbers = column::take(count, source)?;
    let indexes = column::take(count, source)?;
    let times = match form {
        Form::Frame => vec![received.0.cast_unsigned(); count],
        Form::Block => column::take(count, source)?,
    };
    let keys = |number: u64| {
        let at = usize::try_from(number).ok()?;
        requests.get(at).or_else(|| named.get(at.checked_sub(requests.len())?)).copied()
    };
    numbers
        .into_iter()
        .zip(indexes)
        .zip(times)
        .map(|((number, index), time)| {
            Ok(Origin {
                received: Nanos(time.cast_signed()),
                index: u32::try_from(index).map_err(|_| TableError::Malformed("an index is too large"))?,
                request: keys(number).ok_or(TableError::Malformed("a request is not known"))?,
            })
        })
        .collect()
}
