//! Numbers from their text, exactly.

use crate::market::{Price, PriceError};

/// Why a number is not taken as an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntegerError {
    /// It has a fraction.
    Fractional,
    /// It is below zero.
    Negative,
    /// It is above the largest.
    TooLarge,
}

/// An integer from a JSON number's text (its grammar is checked before): a fraction of zeros
/// and an exponent are fine as long as the value is whole.
pub(super) fn integer(text: &[u8], max: u64) -> Result<u64, IntegerError> {
    if text.len() <= 19 {
        let plain = text
            .iter()
            .try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')));
        if let Some(value) = plain {
            return if value <= max { Ok(value) } else { Err(IntegerError::TooLarge) };
        }
    }
    integer_in_full(text, max)
}

fn integer_in_full(text: &[u8], max: u64) -> Result<u64, IntegerError> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = split_at_byte(text, |byte| matches!(byte, b'e' | b'E'));
    let (whole, fraction) = split_at_byte(mantissa, |byte| byte == b'.');
    let digits = || whole.iter().chain(fraction).map(|byte| u64::from(byte - b'0'));
    if digits().all(|digit| digit == 0) {
        return Ok(0);
    }
    if negative {
        return Err(IntegerError::Negative);
    }
    // How many digits stand before the point once the exponent has moved it.
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(exponent_of(exponent));
    let mut value = 0_u64;
    let mut at = 0_i64;
    for digit in digits() {
        if at >= point && digit != 0 {
            return Err(IntegerError::Fractional);
        }
        if at < point {
            value = push_digit(value, digit, max)?;
        }
        at += 1;
    }
    while at < point {
        value = push_digit(value, 0, max)?;
        at += 1;
    }
    Ok(value)
}

fn push_digit(value: u64, digit: u64, max: u64) -> Result<u64, IntegerError> {
    let next = value.checked_mul(10).and_then(|value| value.checked_add(digit));
    next.filter(|value| *value <= max).ok_or(IntegerError::TooLarge)
}

fn exponent_of(text: &[u8]) -> i64 {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let value = digits.iter().fold(0_i64, |sum, byte| (sum * 10 + i64::from(byte - b'0')).min(1_000_000));
    if negative { -value } else { value }
}

fn split_at_byte(text: &[u8], is_it: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| is_it(*byte)) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

/// An integer from a double.
pub(super) fn integer_of_double(value: f64, max: u64) -> Result<u64, IntegerError> {
    if value.fract() != 0.0 || value.is_nan() {
        return Err(IntegerError::Fractional);
    }
    if value < 0.0 {
        return Err(IntegerError::Negative);
    }
    // Below 2^53 every whole double is that integer; above, nobody can tell which was meant.
    if value >= 9_007_199_254_740_992.0 {
        return Err(IntegerError::TooLarge);
    }
    integer(ryu::Buffer::new().format_finite(value).as_bytes(), max)
}

/// A price from a JSON number's text.
pub(super) fn price(text: &[u8]) -> Result<Price, PriceError> {
    short_price(text).map_or_else(|| Price::parse(text), Ok)
}

/// The common form: up to 18 digits, at most nine of them decimals, no exponent.
fn short_price(text: &[u8]) -> Option<Price> {
    const SCALE: [i64; 10] =
        [1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    if digits.len() > 18 {
        return None;
    }
    let mut units = 0_i64;
    let mut decimals = None;
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                units = units * 10 + i64::from(byte - b'0');
                decimals = decimals.map(|count| count + 1);
            }
            b'.' if decimals.is_none() => decimals = Some(0_usize),
            _ => return None,
        }
    }
    let units = units.checked_mul(*SCALE.get(decimals.unwrap_or(0))?)?;
    Some(Price(if negative { -units } else { units }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_numbers_however_they_are_written() {
        let cases: &[(&str, Result<u64, IntegerError>)] = &[
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("-0.0e5", Ok(0)),
            ("10", Ok(10)),
            ("10.0", Ok(10)),
            ("10.5", Err(IntegerError::Fractional)),
            ("0.1", Err(IntegerError::Fractional)),
            ("1e3", Ok(1000)),
            ("1.25E2", Ok(125)),
            ("1.25e1", Err(IntegerError::Fractional)),
            ("2500e-2", Ok(25)),
            ("-1", Err(IntegerError::Negative)),
            ("4294967295", Ok(4_294_967_295)),
            ("4294967296", Err(IntegerError::TooLarge)),
            ("1e400", Err(IntegerError::TooLarge)),
            ("0e400", Ok(0)),
            ("1e-400", Err(IntegerError::Fractional)),
            ("99999999999999999999999", Err(IntegerError::TooLarge)),
        ];
        for (text, expected) in cases {
            assert_eq!(integer(text.as_bytes(), u64::from(u32::MAX)), *expected, "{text}");
        }
        assert_eq!(integer(b"18446744073709551615", u64::MAX), Ok(u64::MAX));
        assert_eq!(integer(b"18446744073709551616", u64::MAX), Err(IntegerError::TooLarge));
    }

    #[test]
    fn doubles_that_are_whole() {
        assert_eq!(integer_of_double(10.0, 100), Ok(10));
        assert_eq!(integer_of_double(1e15, u64::MAX), Ok(1_000_000_000_000_000));
        assert_eq!(integer_of_double(10.5, 100), Err(IntegerError::Fractional));
        assert_eq!(integer_of_double(-1.0, 100), Err(IntegerError::Negative));
        assert_eq!(integer_of_double(1e17, u64::MAX), Err(IntegerError::TooLarge));
        assert_eq!(integer_of_double(f64::NAN, 100), Err(IntegerError::Fractional));
        assert_eq!(integer_of_double(f64::INFINITY, 100), Err(IntegerError::Fractional));
    }

    proptest! {
        #[test]
        fn the_short_way_agrees_with_the_exact_parser(text in "-?(0|[1-9][0-9]{0,12})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?") {
            prop_assert_eq!(price(text.as_bytes()), Price::parse(text.as_bytes()));
        }

        #[test]
        fn plain_integers_agree_with_std(value in any::<u64>()) {
            prop_assert_eq!(integer(value.to_string().as_bytes(), u64::MAX), Ok(value));
        }
    }
}
