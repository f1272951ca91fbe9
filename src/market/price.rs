//! Prices: exact decimals as integers of 1e-9 dollars.

use std::cmp::Ordering;
use std::fmt;

/// A price in units of 1e-9 (of a dollar, unless the instrument says otherwise).
///
/// The range is ±9,223,372,036.854775807. Text goes in and out without a float between:
/// `"157.8"` is 157,800,000,000 units and is written `157.8` again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(pub i64);

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The text is not a decimal number.
    #[error("is not a decimal number")]
    NotDecimal,
    /// The number has digits below 1e-9.
    #[error("has more than nine decimals")]
    TooFine,
    /// The number does not fit ±9223372036.854775807.
    #[error("is outside ±9223372036.854775807")]
    OutOfRange,
}

impl Price {
    /// Units of one dollar.
    pub const ONE: i64 = 1_000_000_000;

    /// Parses a JSON number's text: optional sign, digits, optional fraction, optional exponent.
    ///
    /// # Errors
    /// [`PriceError`] when the text is no decimal number, is finer than 1e-9 or out of range.
    pub fn parse(text: &[u8]) -> Result<Self, PriceError> {
        let (units, places) = decimal(text)?;
        shift(units, places)
    }

    /// The price nearest to a JSON number's text, of two that are as near the even one. For what
    /// is computed, such as an average; a price is told exactly.
    ///
    /// # Errors
    /// [`PriceError`] when the text is no decimal number or out of range.
    pub fn nearest(text: &[u8]) -> Result<Self, PriceError> {
        let (units, places) = decimal(text)?;
        if places >= 0 {
            return shift(units, places);
        }
        // Above 10^37 the quotient is 0: `units` has at most 31 digits.
        let divisor = 10_i128.checked_pow(places.unsigned_abs()).unwrap_or(i128::MAX);
        let (quotient, rest) = (units.div_euclid(divisor), units.rem_euclid(divisor));
        let up = match rest.cmp(&(divisor - rest)) {
            Ordering::Less => false,
            Ordering::Equal => quotient % 2 != 0,
            Ordering::Greater => true,
        };
        i64::try_from(quotient + i128::from(up)).map(Self).map_err(|_| PriceError::OutOfRange)
    }

    /// Appends the shortest exact decimal text: `157`, `157.8`, `0.000000001`.
    pub fn write(self, out: &mut Vec<u8>) {
        let magnitude = self.0.unsigned_abs();
        if self.0 < 0 {
            out.push(b'-');
        }
        let (whole, fraction) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
        if fraction != 0 {
            out.push(b'.');
            let (mut digits, mut rest) = ([b'0'; 9], fraction);
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
                rest /= 10;
            }
            let used = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
            out.extend_from_slice(digits.get(..used).unwrap_or_default());
        }
    }

    /// The nearest double, for wires that have no decimals (MessagePack) and for statistics.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "up to 2^53 the cast is exact")]
    pub fn to_f64(self) -> f64 {
        // One division of two exact doubles rounds once, so that 1.57 is the double that others
        // call 1.57. Above 2^53 units the cast would round too; there the text is parsed.
        if self.0.unsigned_abs() <= 1 << 53 {
            return self.0 as f64 / Self::ONE as f64;
        }
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// The price whose shortest decimal text is that of the double.
    ///
    /// # Errors
    /// [`PriceError`] when the double is not finite, finer than 1e-9 or out of range.
    pub fn from_f64(value: f64) -> Result<Self, PriceError> {
        if !value.is_finite() {
            return Err(PriceError::NotDecimal);
        }
        Self::parse(ryu::Buffer::new().format_finite(value).as_bytes())
    }
}

/// The digits of a JSON number's text as one number, and by how many places it is to be shifted
/// to count units.
fn decimal(text: &[u8]) -> Result<(i128, i32), PriceError> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut units: i128 = 0;
    let mut scale: i32 = 0;
    let mut seen_digit = false;
    let mut in_fraction = false;
    let mut rest = digits;
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'0'..=b'9' => {
                seen_digit = true;
                units = units * 10 + i128::from(byte - b'0');
                if units > 1_i128 << 100 {
                    return Err(PriceError::OutOfRange);
                }
                scale += i32::from(in_fraction);
            }
            b'.' if !in_fraction && seen_digit => in_fraction = true,
            b'e' | b'E' if seen_digit => {
                scale -= exponent(tail)?;
                break;
            }
            _ => return Err(PriceError::NotDecimal),
        }
        rest = tail;
    }
    if !seen_digit || digits.last() == Some(&b'.') {
        return Err(PriceError::NotDecimal);
    }
    Ok((if negative { -units } else { units }, 9 - scale))
}

fn exponent(text: &[u8]) -> Result<i32, PriceError> {
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let value: i32 =
        std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(PriceError::NotDecimal)?;
    if value.abs() > 40 { Err(PriceError::OutOfRange) } else { Ok(value) }
}

/// `units` times ten to the power `places`, exactly.
fn shift(mut units: i128, places: i32) -> Result<Price, PriceError> {
    if units == 0 {
        return Ok(Price(0));
    }
    for _ in 0..places.unsigned_abs().min(60) {
        if places > 0 {
            units = units.checked_mul(10).ok_or(PriceError::OutOfRange)?;
        } else if units % 10 == 0 {
            units /= 10;
        } else {
            return Err(PriceError::TooFine);
        }
    }
    i64::try_from(units).map(Price).map_err(|_| PriceError::OutOfRange)
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(24);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exact_decimals_in_and_out() {
        let cases: &[(&str, i64, &str)] = &[
            ("157.8", 157_800_000_000, "157.8"),
            ("0", 0, "0"),
            ("-0.5", -500_000_000, "-0.5"),
            ("1e2", 100_000_000_000, "100"),
            ("1.5E-3", 1_500_000, "0.0015"),
            ("0.000000001", 1, "0.000000001"),
            ("100.000000000000", 100_000_000_000, "100"),
            ("9223372036.854775807", i64::MAX, "9223372036.854775807"),
            ("-9223372036.854775808", i64::MIN, "-9223372036.854775808"),
        ];
        for (text, units, written) in cases {
            assert_eq!(Price::parse(text.as_bytes()), Ok(Price(*units)), "{text}");
            assert_eq!(Price(*units).to_string(), *written);
        }
    }

    #[test]
    fn what_is_no_price_says_why() {
        for text in ["", "-", ".5", "5.", "1.2.3", "NaN", "1e", "1 ", "--1", "0x10"] {
            assert_eq!(Price::parse(text.as_bytes()), Err(PriceError::NotDecimal), "{text}");
        }
        assert_eq!(Price::parse(b"0.0000000001"), Err(PriceError::TooFine));
        assert_eq!(Price::parse(b"9223372036.854775808"), Err(PriceError::OutOfRange));
        assert_eq!(Price::parse(b"1e99"), Err(PriceError::OutOfRange));
    }

    #[test]
    fn the_nearest_price_of_a_computed_number() {
        let cases: &[(&str, i64)] = &[
            ("178.235733123456789", 178_235_733_123),
            ("0.0000000005", 0),
            ("0.0000000015", 2),
            ("0.00000000050000000001", 1),
            ("-0.0000000005", 0),
            ("-0.0000000015", -2),
            ("-0.0000000016", -2),
            ("1e-30", 0),
            ("157.8", 157_800_000_000),
            ("1.5e2", 150_000_000_000),
            ("9223372036.8547758074", i64::MAX),
        ];
        for (text, units) in cases {
            assert_eq!(Price::nearest(text.as_bytes()), Ok(Price(*units)), "{text}");
        }
        assert_eq!(Price::nearest(b"9223372036.8547758075"), Err(PriceError::OutOfRange));
        assert_eq!(Price::nearest(b"1e99"), Err(PriceError::OutOfRange));
        assert_eq!(Price::nearest(b"1."), Err(PriceError::NotDecimal));
    }

    #[test]
    fn a_double_is_the_one_its_text_names() {
        for text in
            ["1.57", "38.387753", "1.82", "23.754467", "-1.57", "9007199.254740993", "9223372036.854775807"]
        {
            let price = Price::parse(text.as_bytes()).unwrap();
            assert_eq!(price.to_f64().to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn doubles_are_the_nearest(units in prop_oneof![any::<i64>(), -1_000_000_000_000_i64..1_000_000_000_000]) {
            let text = Price(units).to_string();
            prop_assert_eq!(Price(units).to_f64().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }

        #[test]
        fn text_round_trips(units in any::<i64>()) {
            prop_assert_eq!(Price::parse(Price(units).to_string().as_bytes()), Ok(Price(units)));
        }

        #[test]
        fn doubles_keep_six_decimals(micros in 0_i64..9_000_000_000_000) {
            let price = Price(micros * 1000);
            prop_assert_eq!(Price::from_f64(price.to_f64()), Ok(price));
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(price) = Price::parse(&bytes) {
                prop_assert_eq!(Price::nearest(&bytes), Ok(price));
            }
            let _ = Price::nearest(&bytes);
        }
    }
}
