//! One column of numbers.

use super::TableError;
use super::bytes::{Source, put_number, unzigzag, zigzag};

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

/// Appends a column.
pub(super) fn put(values: &[u64], shape: Shape, out: &mut Vec<u8>) {
    out.push(u8::from(shape == Shape::Near));
    let mut before = 0;
    for value in values {
        put_number(if shape == Shape::Near { zigzag(value.wrapping_sub(before)) } else { *value }, out);
        before = *value;
    }
}

/// Reads a column of `count` numbers, which the caller has bounded.
pub(super) fn take(count: usize, source: &mut Source<'_>) -> Result<Vec<u64>, TableError> {
    let near = match source.byte()? {
        0 => false,
        1 => true,
        _ => return Err(TableError::Malformed("a column has an unknown form")),
    };
    let mut before = 0_u64;
    (0..count)
        .map(|_| {
            let number = source.number()?;
            before = if near { before.wrapping_add(unzigzag(number)) } else { number };
            Ok(before)
        })
        .collect()
}
