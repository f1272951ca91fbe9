//! One column of numbers, in the form that suits them.
//!
//! | form | bytes | for |
//! |---|---|---|
//! | line | first, step | constants, and what counts up |
//! | free | \[grid\], numbers | sizes, prices of many series |
//! | near | \[grid\], differences | times, ids, prices of one series |
//! | code | dictionary, a byte a row | exchanges, conditions, tapes |
//!
//! Numbers are LEB128; differences are to the number before and zigzag; a grid is what
//! divides all numbers of the column (a cent, a millisecond, a round lot), which are then
//! counted in it. What is left to squeeze is left to the compression of the whole table.

use super::TableError;
use super::bytes::{Source, put_count, put_number, unzigzag, zigzag};

/// What a column's numbers are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Near the number before: times, ids, prices of one series.
    Near,
    /// Unrelated to the number before: sizes, prices of many series.
    Free,
    /// One of a few values: exchanges, conditions, tapes.
    Code,
}

const LINE: u8 = 0;
const FREE: u8 = 1;
const NEAR: u8 = 2;
const CODE: u8 = 3;
/// Set on `FREE` and `NEAR` where a grid follows.
const GRID: u8 = 4;

/// The most entries of a dictionary, so that a number of one is one byte.
const CODES_MAX: usize = 128;

/// Appends a column; of no numbers, nothing.
pub(super) fn put(values: &[u64], shape: Shape, out: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    let step = values.get(1).map_or(0, |second| second.wrapping_sub(first));
    if values.windows(2).all(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) == step)) {
        out.push(LINE);
        put_number(first, out);
        put_number(zigzag(step), out);
        return;
    }
    match shape {
        Shape::Code if put_codes(values, out) => {}
        Shape::Code | Shape::Free => {
            let grid = put_form(FREE, values, out);
            values.iter().for_each(|value| put_number(in_grid(*value, grid), out));
        }
        Shape::Near => {
            let grid = put_form(NEAR, values, out);
            let mut before = 0;
            for value in values {
                let value = in_grid(*value, grid);
                put_number(zigzag(value.wrapping_sub(before)), out);
                before = value;
            }
        }
    }
}

const fn in_grid(value: u64, grid: u64) -> u64 {
    if grid > 1 { value / grid } else { value }
}

/// Appends the form and the grid, and tells the grid; 1 is none.
fn put_form(form: u8, values: &[u64], out: &mut Vec<u8>) -> u64 {
    let grid = grid_of(values);
    if grid > 1 {
        out.push(form | GRID);
        put_number(grid, out);
    } else {
        out.push(form);
    }
    grid
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

/// Reads a column of `count` numbers, which the caller has bounded.
pub(super) fn take(count: usize, source: &mut Source<'_>) -> Result<Vec<u64>, TableError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut values = Vec::with_capacity(count);
    let form = source.byte()?;
    let grid = if form & GRID == 0 { 1 } else { source.number()? };
    match form & !GRID {
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
                values.push(source.number()?.wrapping_mul(grid));
            }
        }
        NEAR => {
            let mut value = 0_u64;
            for _ in 0..count {
                value = value.wrapping_add(unzigzag(source.number()?).wrapping_mul(grid));
                values.push(value);
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

    fn round_trip(values: &[u64], shape: Shape) -> usize {
        let mut out = Vec::new();
        put(values, shape, &mut out);
        let mut source = Source::new(&out);
        assert_eq!(take(values.len(), &mut source).unwrap(), values);
        source.finish().unwrap();
        out.len()
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(
            values in vec(prop_oneof![any::<u64>(), 0_u64..4, (0_u64..9).prop_map(|n| n * 1_000_000)], 0..300),
        ) {
            for shape in [Shape::Near, Shape::Free, Shape::Code] {
                round_trip(&values, shape);
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..100), count in 0_usize..200) {
            let _ = take(count, &mut Source::new(&bytes));
        }
    }

    #[test]
    fn each_form_is_as_short_as_it_promises() {
        let counting: Vec<u64> = (500..1500).collect();
        assert_eq!(round_trip(&counting, Shape::Near), 4);
        assert_eq!(round_trip(&[7; 1000], Shape::Code), 3);
        let cents: Vec<u64> = (0..1000).map(|at| (15_000 + at * at % 50) * 10_000_000).collect();
        assert!(round_trip(&cents, Shape::Near) < 1020);
        let codes: Vec<u64> = (0..1000).map(|at| u64::MAX - at * at % 7).collect();
        assert!(round_trip(&codes, Shape::Code) < 1080);
    }
}
