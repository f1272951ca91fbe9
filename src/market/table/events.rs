//! Ticks as columns of numbers, and back: which fields a kind has and how they are written.

use std::collections::HashMap;
use std::vec::IntoIter;

use super::bytes::{Source, put_count, unzigzag, zigzag};
use super::column::{self, Shape};
use super::{BYTES_MAX, TableError};
use crate::market::{
    Bar, Cancel, Code, Conditions, Correction, Event, Exchange, Kind, Luld, Price, Quote, SipTape, Status,
    Trade,
};

/// The fields of one kind as numbers, in stored order. Fields that move together are stored
/// as differences: an ask by its distance to the bid, a high to the open, and so on.
trait Fields<const N: usize>: Sized {
    /// What the columns are like in a table of one series; of many, `Near` and `NearBy` become `Free`.
    const SHAPES: [Shape; N];
    fn numbers(&self) -> [u64; N];
    fn read(numbers: [u64; N]) -> Option<Self>;
}

const fn price_bits(price: Price) -> u64 {
    price.0.cast_unsigned()
}

const fn price(bits: u64) -> Price {
    Price(bits.cast_signed())
}

const fn apart(from: Price, to: Price) -> u64 {
    zigzag(price_bits(to).wrapping_sub(price_bits(from)))
}

const fn along(from: Price, apart: u64) -> Price {
    price(price_bits(from).wrapping_add(unzigzag(apart)))
}

fn exchange(bits: u64) -> Option<Exchange> {
    u8::try_from(bits).ok().map(Exchange)
}

fn tape(bits: u64) -> Option<SipTape> {
    SipTape::from_byte(u8::try_from(bits).ok()?)
}

fn size(bits: u64) -> Option<u32> {
    u32::try_from(bits).ok()
}

const fn flag(bits: u64) -> Option<bool> {
    match bits {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl Fields<7> for Trade {
    const SHAPES: [Shape; 7] =
        [Shape::Code, Shape::Code, Shape::NearBy, Shape::Near, Shape::Free, Shape::Code, Shape::Code];

    fn numbers(&self) -> [u64; 7] {
        [
            u64::from(self.exchange.0),
            u64::from(self.id.is_some()),
            self.id.unwrap_or_default(),
            price_bits(self.price),
            u64::from(self.size),
            self.conditions.to_bits(),
            u64::from(self.tape.to_byte()),
        ]
    }

    fn read([venue, has_id, id, at, shares, conditions, z]: [u64; 7]) -> Option<Self> {
        Some(Self {
            id: flag(has_id)?.then_some(id),
            exchange: exchange(venue)?,
            price: price(at),
            size: size(shares)?,
            conditions: Conditions::from_bits(conditions)?,
            tape: tape(z)?,
        })
    }
}

impl Fields<8> for Quote {
    const SHAPES: [Shape; 8] = [
        Shape::Near,
        Shape::Free,
        Shape::Free,
        Shape::Free,
        Shape::Code,
        Shape::Code,
        Shape::Code,
        Shape::Code,
    ];

    fn numbers(&self) -> [u64; 8] {
        [
            price_bits(self.bid_price),
            apart(self.bid_price, self.ask_price),
            u64::from(self.bid_size),
            u64::from(self.ask_size),
            u64::from(self.bid_exchange.0),
            u64::from(self.ask_exchange.0),
            self.conditions.to_bits(),
            u64::from(self.tape.to_byte()),
        ]
    }

    fn read(numbers: [u64; 8]) -> Option<Self> {
        let [bid, spread, bid_size, ask_size, bid_exchange, ask_exchange, conditions, z] = numbers;
        Some(Self {
            ask_exchange: exchange(ask_exchange)?,
            ask_price: along(price(bid), spread),
            ask_size: size(ask_size)?,
            bid_exchange: exchange(bid_exchange)?,
            bid_price: price(bid),
            bid_size: size(bid_size)?,
            conditions: Conditions::from_bits(conditions)?,
            tape: tape(z)?,
        })
    }
}

impl Fields<9> for Bar {
    const SHAPES: [Shape; 9] = [
        Shape::Near,
        Shape::Free,
        Shape::Free,
        Shape::Free,
        Shape::Free,
        Shape::Free,
        Shape::Code,
        Shape::Free,
        Shape::Code,
    ];

    fn numbers(&self) -> [u64; 9] {
        let vwap = self.vwap.unwrap_or(self.open);
        [
            price_bits(self.open),
            apart(self.open, self.high),
            apart(self.open, self.low),
            apart(self.open, self.close),
            self.volume,
            self.trades,
            u64::from(self.vwap.is_some()),
            apart(self.open, vwap),
            u64::from(self.updated),
        ]
    }

    fn read([open, high, low, close, volume, trades, has_vwap, vwap, updated]: [u64; 9]) -> Option<Self> {
        let open = price(open);
        Some(Self {
            open,
            high: along(open, high),
            low: along(open, low),
            close: along(open, close),
            volume,
            trades,
            vwap: flag(has_vwap)?.then_some(along(open, vwap)),
            updated: flag(updated)?,
        })
    }
}

impl Fields<4> for Luld {
    const SHAPES: [Shape; 4] = [Shape::Near, Shape::Free, Shape::Code, Shape::Code];

    fn numbers(&self) -> [u64; 4] {
        [
            price_bits(self.limit_down),
            apart(self.limit_down, self.limit_up),
            u64::from(self.indicator.0),
            u64::from(self.tape.to_byte()),
        ]
    }

    fn read([down, width, indicator, z]: [u64; 4]) -> Option<Self> {
        Some(Self {
            limit_up: along(price(down), width),
            limit_down: price(down),
            indicator: Code(u8::try_from(indicator).ok()?),
            tape: tape(z)?,
        })
    }
}

impl Fields<10> for Correction {
    const SHAPES: [Shape; 10] = [
        Shape::Near,
        Shape::Near,
        Shape::Near,
        Shape::Free,
        Shape::Free,
        Shape::Free,
        Shape::Code,
        Shape::Code,
        Shape::Code,
        Shape::Code,
    ];

    fn numbers(&self) -> [u64; 10] {
        [
            self.original_id,
            self.corrected_id,
            price_bits(self.original_price),
            apart(self.original_price, self.corrected_price),
            u64::from(self.original_size),
            u64::from(self.corrected_size),
            u64::from(self.exchange.0),
            self.original_conditions.to_bits(),
            self.corrected_conditions.to_bits(),
            u64::from(self.tape.to_byte()),
        ]
    }

    fn read(numbers: [u64; 10]) -> Option<Self> {
        let [original_id, corrected_id, at, moved, shares, corrected, venue, old, new, z] = numbers;
        Some(Self {
            exchange: exchange(venue)?,
            original_id,
            original_price: price(at),
            original_size: size(shares)?,
            original_conditions: Conditions::from_bits(old)?,
            corrected_id,
            corrected_price: along(price(at), moved),
            corrected_size: size(corrected)?,
            corrected_conditions: Conditions::from_bits(new)?,
            tape: tape(z)?,
        })
    }
}

impl Fields<6> for Cancel {
    const SHAPES: [Shape; 6] = [Shape::Near, Shape::Near, Shape::Free, Shape::Code, Shape::Code, Shape::Code];

    fn numbers(&self) -> [u64; 6] {
        [
            self.id,
            price_bits(self.price),
            u64::from(self.size),
            u64::from(self.exchange.0),
            u64::from(self.error),
            u64::from(self.tape.to_byte()),
        ]
    }

    fn read([id, at, shares, venue, error, z]: [u64; 6]) -> Option<Self> {
        Some(Self {
            id,
            exchange: exchange(venue)?,
            price: price(at),
            size: size(shares)?,
            error: flag(error)?,
            tape: tape(z)?,
        })
    }
}

/// The texts of statuses as numbers of a dictionary.
struct Texts<'a> {
    numbers: HashMap<&'a str, u64>,
    distinct: Vec<&'a str>,
}

impl<'a> Texts<'a> {
    fn number(&mut self, text: &'a str) -> u64 {
        *self.numbers.entry(text).or_insert_with(|| {
            self.distinct.push(text);
            self.distinct.len() as u64 - 1
        })
    }
}

const STATUS_SHAPES: [Shape; 5] = [Shape::Code; 5];

fn put_statuses(events: &[&Event], out: &mut Vec<u8>) {
    let mut texts = Texts { numbers: HashMap::new(), distinct: Vec::new() };
    let rows: Vec<[u64; 5]> = events
        .iter()
        .filter_map(|event| match event {
            Event::Status(status) => Some([
                texts.number(&status.status_code),
                texts.number(&status.status_message),
                texts.number(&status.reason_code),
                texts.number(&status.reason_message),
                u64::from(status.tape.to_byte()),
            ]),
            _ => None,
        })
        .collect();
    put_count(texts.distinct.len(), out);
    for text in &texts.distinct {
        put_count(text.len(), out);
        out.extend_from_slice(text.as_bytes());
    }
    put_rows(&rows, STATUS_SHAPES, out);
}

fn take_statuses(
    count: usize,
    budget: &mut usize,
    source: &mut Source<'_>,
) -> Result<Vec<Event>, TableError> {
    let distinct = source.count(count.saturating_mul(4))?;
    let texts: Vec<&str> = (0..distinct)
        .map(|_| {
            let length = source.count(BYTES_MAX)?;
            std::str::from_utf8(source.take(length)?)
                .map_err(|_| TableError::Malformed("a text is not UTF-8"))
        })
        .collect::<Result<_, _>>()?;
    let mut text = |number: u64| -> Result<Box<str>, TableError> {
        let text = usize::try_from(number).ok().and_then(|at| texts.get(at));
        let text = text.ok_or(TableError::Malformed("a text is not in the dictionary"))?;
        *budget = budget.checked_sub(text.len()).ok_or(TableError::TooManyBytes)?;
        Ok(Box::from(*text))
    };
    take_rows::<5>(count, source)?
        .map(|[status_code, status_message, reason_code, reason_message, z]| {
            Ok(Event::Status(Box::new(Status {
                status_code: text(status_code)?,
                status_message: text(status_message)?,
                reason_code: text(reason_code)?,
                reason_message: text(reason_message)?,
                tape: tape(z).ok_or(BAD_FIELD)?,
            })))
        })
        .collect()
}

const BAD_FIELD: TableError = TableError::Malformed("a field holds no valid value");

fn put_rows<const N: usize>(rows: &[[u64; N]], shapes: [Shape; N], out: &mut Vec<u8>) {
    let mut first = Vec::new();
    for (at, shape) in shapes.into_iter().enumerate() {
        let values: Vec<u64> = rows.iter().map(|row| row.get(at).copied().unwrap_or_default()).collect();
        column::put(&values, shape, &first, out);
        if at == 0 {
            first = values;
        }
    }
}

fn take_rows<const N: usize>(
    count: usize,
    source: &mut Source<'_>,
) -> Result<impl Iterator<Item = [u64; N]>, TableError> {
    let mut columns = Vec::with_capacity(N);
    for _ in 0..N {
        let first = columns.first().map_or(&[][..], IntoIter::as_slice);
        columns.push(column::take(count, first, source)?.into_iter());
    }
    Ok((0..count).map(move |_| {
        let mut values = columns.iter_mut().map(|column| column.next().unwrap_or_default());
        std::array::from_fn(|_| values.next().unwrap_or_default())
    }))
}

fn put_fields<'a, const N: usize, T: Fields<N> + 'a>(
    events: &[&'a Event],
    one_series: bool,
    pick: impl Fn(&'a Event) -> Option<&'a T>,
    out: &mut Vec<u8>,
) {
    let mut rows: Vec<[u64; N]> = Vec::with_capacity(events.len());
    rows.extend(events.iter().copied().filter_map(pick).map(Fields::numbers));
    let shapes = T::SHAPES.map(|shape| match shape {
        Shape::Near | Shape::NearBy if !one_series => Shape::Free,
        shape => shape,
    });
    put_rows(&rows, shapes, out);
}

fn take_fields<const N: usize, T: Fields<N>>(
    count: usize,
    wrap: impl Fn(T) -> Event,
    source: &mut Source<'_>,
) -> Result<Vec<Event>, TableError> {
    take_rows(count, source)?.map(|row| T::read(row).map(&wrap).ok_or(BAD_FIELD)).collect()
}

/// Appends the events of one kind.
pub(super) fn put(kind: Kind, events: &[&Event], one_series: bool, out: &mut Vec<u8>) {
    macro_rules! fields {
        ($($pattern:pat => $value:expr),*) => {
            put_fields(events, one_series, |event| match event { $($pattern => Some($value),)* _ => None }, out)
        };
    }
    match kind {
        Kind::Trade => fields!(Event::Trade(trade) => trade),
        Kind::Quote => fields!(Event::Quote(quote) => quote),
        Kind::MinuteBar | Kind::DayBar => fields!(Event::MinuteBar(bar) => bar, Event::DayBar(bar) => bar),
        Kind::Status => put_statuses(events, out),
        Kind::Luld => fields!(Event::Luld(luld) => luld),
        Kind::Correction => fields!(Event::Correction(correction) => &**correction),
        Kind::Cancel => fields!(Event::Cancel(cancel) => cancel),
    }
}

/// Reads the events of one kind. `budget` is how many bytes of texts the table may still hold.
pub(super) fn take(
    kind: Kind,
    count: usize,
    budget: &mut usize,
    source: &mut Source<'_>,
) -> Result<Vec<Event>, TableError> {
    match kind {
        Kind::Trade => take_fields(count, Event::Trade, source),
        Kind::Quote => take_fields(count, Event::Quote, source),
        Kind::MinuteBar => take_fields(count, Event::MinuteBar, source),
        Kind::DayBar => take_fields(count, Event::DayBar, source),
        Kind::Status => take_statuses(count, budget, source),
        Kind::Luld => take_fields(count, Event::Luld, source),
        Kind::Correction => take_fields(count, |correction| Event::Correction(Box::new(correction)), source),
        Kind::Cancel => take_fields(count, Event::Cancel, source),
    }
}
