//! One column of numbers, in the form that suits them.
//!
//! | form | bytes | for |
//! |---|---|---|
//! | line | first, step | constants, and what counts up |
//! | free | numbers | sizes, prices of many series |
//! | near | differences to the number before | times, ids, prices of one series |
//! | by | differences to the one before with the same first column | ids that each exchange counts on its own |
//! | code | dictionary, a byte a row | exchanges, conditions, tapes |
//!
//! Numbers are LEB128, differences zigzag. Numbers and differences are counted in a grid, which
//! is what divides all numbers of the column: a cent, a millisecond, a round lot. Where most are
//! hundreds and some are not (cents among hundredths, round lots among odd ones), a bit says so
//! of each. What is left to squeeze is left to the compression of the whole table.

use super::TableError;
use super::bytes::{Source, put_count, put_number, unzigzag, zigzag};

/// What a column's numbers are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Near the number before: times, ids, prices of one series.
    Near,
    /// Near the number before, or that before with the same first column: trade ids by exchange.
    NearBy,
    /// Unrelated to the number before: sizes, prices of many series.
    Free,
    /// One of a few values: exchanges, conditions, tapes.
    Code,
}

const LINE: u8 = 0;
const FREE: u8 = 1;
const NEAR: u8 = 2;
const BY: u8 = 3;
const CODE: u8 = 4;
/// Set on free, near and by where a grid follows.
const GRID: u8 = 8;
/// Set on free, near and by where the lowest bit of each number says whether it is of hundreds (0).
const HUNDREDS: u8 = 16;

/// The most entries of a dictionary, so that a number of one is one byte.
const CODES_MAX: usize = 128;

/// Appends a column; of no numbers, nothing. `first_column` is the first column of the same rows,
/// where there is one.
pub(super) fn put(values: &[u64], shape: Shape, first_column: &[u64], out: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    let step = values.get(1).map_or(0, |second| second.wrapping_sub(first));
    if values.windows(2).all(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) == step)) {
        out.push(LINE);
        put_number(first, out);
        put_number(zigzag(step), out);
        return;
    }
    if shape == Shape::Code && put_codes(values, out) {
        return;
    }
    let grid = grid_of(values);
    let in_grid = values.iter().map(|value| if grid > 1 { value / grid } else { *value });
    let (form, numbers): (u8, Vec<u64>) = match shape {
        Shape::Code | Shape::Free => (FREE, in_grid.collect()),
        Shape::NearBy if by_is_shorter(values, first_column) => {
            let mut before = Before::new();
            (BY, in_grid.zip(first_column).map(|(value, group)| before.difference(value, *group)).collect())
        }
        Shape::Near | Shape::NearBy => {
            let mut before = 0;
            (NEAR, in_grid.map(|value| value.wrapping_sub(std::mem::replace(&mut before, value))).collect())
        }
    };
    let signed = form != FREE;
    let hundreds = hundreds_are_shorter(&numbers, signed);
    out.push(form | if grid > 1 { GRID } else { 0 } | if hundreds { HUNDREDS } else { 0 });
    if grid > 1 {
        put_number(grid, out);
    }
    out.reserve(2 * numbers.len());
    for number in numbers {
        put_number(if hundreds { in_hundreds(number, signed) } else { fold(number, signed) }, out);
    }
}

/// A number as it is written: a difference has a sign.
const fn fold(number: u64, signed: bool) -> u64 {
    if signed { zigzag(number) } else { number }
}

const fn unfold(number: u64, signed: bool) -> u64 {
    if signed { unzigzag(number) } else { number }
}

/// A number that says in its lowest bit whether it is of hundreds. It must be below 2^63 as written.
const fn in_hundreds(number: u64, signed: bool) -> u64 {
    let signed_number = number.cast_signed();
    if signed && signed_number % 100 == 0 {
        zigzag((signed_number / 100).cast_unsigned()) << 1
    } else if !signed && number.is_multiple_of(100) {
        (number / 100) << 1
    } else {
        (fold(number, signed) << 1) | 1
    }
}

const fn from_hundreds(number: u64, signed: bool) -> u64 {
    let value = unfold(number >> 1, signed);
    if number & 1 == 0 { value.wrapping_mul(100) } else { value }
}

fn hundreds_are_shorter(numbers: &[u64], signed: bool) -> bool {
    let bits = |number: u64| u64::from(u64::BITS - number.leading_zeros());
    let (mut plain, mut hundreds, mut most) = (0, 0, 0);
    for number in numbers {
        let written = fold(*number, signed);
        most |= written;
        plain += bits(written);
        hundreds += bits(in_hundreds(*number, signed));
    }
    most >> 63 == 0 && hundreds < plain
}

/// The number before of each group, 0 where there is none.
struct Before([u64; 256]);

impl Before {
    const fn new() -> Self {
        Self([0; 256])
    }

    #[expect(clippy::indexing_slicing, reason = "a byte indexes 256 numbers")]
    fn of(&mut self, group: u64) -> &mut u64 {
        &mut self.0[usize::from(group.to_le_bytes()[0])]
    }

    fn difference(&mut self, value: u64, group: u64) -> u64 {
        let before = std::mem::replace(self.of(group), value);
        value.wrapping_sub(before)
    }
}

/// Whether differences by the first column take fewer bits than those to the number before.
fn by_is_shorter(values: &[u64], first_column: &[u64]) -> bool {
    let bits = |difference: u64| u64::from(u64::BITS - difference.leading_zeros());
    let (mut before, mut last) = (Before::new(), 0_u64);
    let (mut by, mut near) = (0, 0);
    for (value, group) in values.iter().zip(first_column) {
        by += bits(zigzag(before.difference(*value, *group)));
        near += bits(zigzag(value.wrapping_sub(std::mem::replace(&mut last, *value))));
    }
    values.len() == first_column.len() && by < near
}

/// The greatest number that divides all; of a column that is not constant, at least 1.
fn grid_of(values: &[u64]) -> u64 {
    let mut grid = 0_u64;
    for value in values {
        if grid == 1 {
            break;
        }
        if grid == 0 || value % grid != 0 {
            let (mut a, mut b) = (grid, *value);
            while b != 0 {
                (a, b) = (b, a % b);
            }
            grid = a;
        }
    }
    grid
}

/// Appends a dictionary and its numbers, unless there are too many values.
fn put_codes(values: &[u64], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut known: Vec<u64> = Vec::with_capacity(16);
    let mut numbers: Vec<u8> = Vec::with_capacity(values.len());
    let (mut before, mut number) = (None, 0_u8);
    for value in values {
        if before != Some(*value) {
            before = Some(*value);
            let at = known.iter().position(|known| known == value).unwrap_or_else(|| {
                known.push(*value);
                known.len() - 1
            });
            if at >= CODES_MAX {
                out.truncate(start);
                return false;
            }
            number = at.to_le_bytes()[0];
        }
        numbers.push(number);
    }
    out.push(CODE);
    put_count(known.len(), out);
    known.iter().for_each(|value| put_number(*value, out));
    out.extend_from_slice(&numbers);
    true
}

/// Reads a column of `count` numbers, which the caller has bounded; `first_column` as in [`put`].
pub(super) fn take(
    count: usize,
    first_column: &[u64],
    source: &mut Source<'_>,
) -> Result<Vec<u64>, TableError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut values = Vec::with_capacity(count);
    let form = source.byte()?;
    let grid = if form & GRID == 0 { 1 } else { source.number()? };
    let kind = form & !(GRID | HUNDREDS);
    let next = |signed: bool, source: &mut Source<'_>| -> Result<u64, TableError> {
        let number = source.number()?;
        let number =
            if form & HUNDREDS == 0 { unfold(number, signed) } else { from_hundreds(number, signed) };
        Ok(number.wrapping_mul(grid))
    };
    match kind {
        LINE if form == LINE => {
            let mut value = source.number()?;
            let step = unzigzag(source.number()?);
            for _ in 0..count {
                values.push(value);
                value = value.wrapping_add(step);
            }
        }
        FREE => {
            for _ in 0..count {
                values.push(next(false, source)?);
            }
        }
        NEAR => {
            let mut value = 0_u64;
            for _ in 0..count {
                value = value.wrapping_add(next(true, source)?);
                values.push(value);
            }
        }
        BY if first_column.len() == count => {
            let mut before = Before::new();
            for group in first_column {
                let value = before.of(*group);
                *value = value.wrapping_add(next(true, source)?);
                values.push(*value);
            }
        }
        CODE if form == CODE => {
            let known = source.count(CODES_MAX)?;
            let known: Vec<u64> = (0..known).map(|_| source.number()).collect::<Result<_, _>>()?;
            for number in source.take(count)? {
                let value = known.get(usize::from(*number));
                values.push(*value.ok_or(TableError::Malformed("a code is not in its dictionary"))?);
            }
        }
        _ => return Err(TableError::Malformed("a column has an unknown form")),
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn round_trip(values: &[u64], shape: Shape, first_column: &[u64]) -> usize {
        let mut out = Vec::new();
        put(values, shape, first_column, &mut out);
        let mut source = Source::new(&out);
        assert_eq!(take(values.len(), first_column, &mut source).unwrap(), values);
        source.finish().unwrap();
        out.len()
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(
            rows in vec(
                (prop_oneof![any::<u64>(), 0_u64..4, (0_u64..9).prop_map(|n| n * 1_000_000)], any::<u64>()),
                0..300,
            ),
        ) {
            let (values, groups): (Vec<u64>, Vec<u64>) = rows.into_iter().unzip();
            for shape in [Shape::Near, Shape::NearBy, Shape::Free, Shape::Code] {
                round_trip(&values, shape, &groups);
                round_trip(&values, shape, &[]);
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..100), count in 0_usize..200) {
            let _ = take(count, &[], &mut Source::new(&bytes));
            let _ = take(count, &vec![7; count], &mut Source::new(&bytes));
        }
    }

    #[test]
    fn each_form_is_as_short_as_it_promises() {
        let counting: Vec<u64> = (500..1500).collect();
        assert_eq!(round_trip(&counting, Shape::Near, &[]), 4);
        assert_eq!(round_trip(&[7; 1000], Shape::Code, &[]), 3);
        let cents: Vec<u64> = (0..1000).map(|at| (15_000 + at * at % 50) * 10_000_000).collect();
        assert!(round_trip(&cents, Shape::Near, &[]) < 1020);
        let codes: Vec<u64> = (0..1000).map(|at| u64::MAX - at * at % 7).collect();
        assert!(round_trip(&codes, Shape::Code, &[]) < 1080);
        let exchanges: Vec<u64> = (0..1000).map(|at| at * at % 5).collect();
        let ids: Vec<u64> = (0..1000).zip(&exchanges).map(|(at, group)| group * 1_000_000 + at).collect();
        assert!(round_trip(&ids, Shape::NearBy, &exchanges) < 1020);
    }
}
