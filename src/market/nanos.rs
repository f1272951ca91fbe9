//! Times: nanoseconds since 1970-01-01T00:00:00Z.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Timelike as _};

/// A point in time, in nanoseconds since the Unix epoch (1677-09-21 to 2262-04-11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub i64);

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// It is not an RFC 3339 time within 1677 to 2262.
    #[error("is not an RFC 3339 time such as 2024-01-03T14:30:00.123456789Z")]
    NotATime,
    /// It has more than nine fraction digits; cutting them off would be another time.
    #[error("is finer than a nanosecond")]
    TooFine,
    /// It has a 60th second, which nanoseconds since 1970 do not count: it would become the
    /// second behind it.
    #[error("has a 60th second")]
    LeapSecond,
}

impl Nanos {
    /// One second.
    pub const SECOND: i64 = 1_000_000_000;
    /// One minute.
    pub const MINUTE: i64 = 60 * Self::SECOND;
    /// One hour.
    pub const HOUR: i64 = 60 * Self::MINUTE;
    /// The earliest time that can be told.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest time that can be told.
    pub const MAX: Self = Self(i64::MAX);

    /// Parses RFC 3339 with up to nine fraction digits, seconds up to 59 and any offset.
    ///
    /// # Errors
    /// [`TimeError`] when the text is no such time.
    pub fn parse(text: &[u8]) -> Result<Self, TimeError> {
        if let Some(time) = parse_utc(text) {
            return Ok(time);
        }
        let text = std::str::from_utf8(text).map_err(|_| TimeError::NotATime)?;
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| TimeError::NotATime)?;
        let fraction = text.bytes().skip_while(|byte| *byte != b'.').skip(1);
        if fraction.take_while(u8::is_ascii_digit).count() > 9 {
            return Err(TimeError::TooFine);
        }
        // The parser counts a 60th second, of any minute, as a fraction beyond the 59th.
        if time.nanosecond() >= 1_000_000_000 {
            return Err(TimeError::LeapSecond);
        }
        time.timestamp_nanos_opt().map(Self).ok_or(TimeError::NotATime)
    }

    /// Appends RFC 3339 in UTC, up to nine fraction digits with trailing zeros trimmed:
    /// `2021-02-22T15:51:44.208Z`.
    pub fn write(self, out: &mut Vec<u8>) {
        let (seconds, fraction) = (self.0.div_euclid(Self::SECOND), self.0.rem_euclid(Self::SECOND));
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        for (separator, width, value) in [
            (None, 4, year),
            (Some(b'-'), 2, month),
            (Some(b'-'), 2, day),
            (Some(b'T'), 2, of_day / 3_600),
            (Some(b':'), 2, of_day / 60 % 60),
            (Some(b':'), 2, of_day % 60),
        ] {
            out.extend(separator);
            write_digits(value, width, out);
        }
        if fraction > 0 {
            out.push(b'.');
            write_digits(fraction, 9, out);
            while out.last() == Some(&b'0') {
                out.pop();
            }
        }
        out.push(b'Z');
    }

    /// This time rounded down to a multiple of `step` nanoseconds.
    #[must_use]
    pub const fn floor(self, step: i64) -> Self {
        Self(self.0 - self.0.rem_euclid(step))
    }

    /// This time plus `nanos`, held within the range.
    #[must_use]
    pub const fn plus(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// Year, month and day of a count of days since 1970-01-01. Years are counted from March, so that
/// the leap day is the last of its year, in eras of 400 years, which have equally many days.
const fn civil(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468;
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

/// The last `width` digits of a number that is not negative, at most nine.
fn write_digits(number: i64, width: usize, out: &mut Vec<u8>) {
    let (mut digits, mut rest) = ([b'0'; 9], number);
    for digit in digits.iter_mut().rev().take(width) {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(digits.get(9 - width..).unwrap_or_default());
}

/// The common form `YYYY-MM-DDTHH:MM:SS[.f{1,9}]Z`, read without the general parser.
fn parse_utc(text: &[u8]) -> Option<Nanos> {
    let body = text.strip_suffix(b"Z")?;
    let (head, fraction) = body.split_at_checked(19)?;
    let number = |from: usize, to: usize| -> Option<u32> {
        head.get(from..to)?
            .iter()
            .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| head.get(at) != Some(&byte)) {
        return None;
    }
    let nanos = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            let mut value = 0_u32;
            for place in 0..9 {
                let digit = digits.get(place).copied().unwrap_or(b'0');
                value = digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))?;
            }
            value
        }
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
    let time: NaiveDateTime =
        date.and_hms_nano_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?, nanos)?;
    time.and_utc().timestamp_nanos_opt().map(Nanos)
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(32);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_of_one_time() {
        let nine = Nanos(1_704_292_200_123_456_789);
        for text in ["2024-01-03T14:30:00.123456789Z", "2024-01-03T09:30:00.123456789-05:00"] {
            assert_eq!(Nanos::parse(text.as_bytes()), Ok(nine), "{text}");
        }
        assert_eq!(nine.to_string(), "2024-01-03T14:30:00.123456789Z");
        assert_eq!(Nanos(1_614_009_104_208_000_000).to_string(), "2021-02-22T15:51:44.208Z");
        assert_eq!(Nanos(1_614_009_100_000_000_000).to_string(), "2021-02-22T15:51:40Z");
        assert_eq!(Nanos(0).to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "2024-01-03", "2024-13-03T00:00:00Z", "2024-01-03T00:00:00", "2024-01-03T00:00:00.Z", "x"]
        {
            assert_eq!(Nanos::parse(text.as_bytes()), Err(TimeError::NotATime), "{text}");
        }
    }

    #[test]
    fn what_would_become_another_time_is_refused_by_name() {
        let cases = [
            ("2024-01-03T14:30:60Z", TimeError::LeapSecond),
            ("2016-12-31T23:59:60.5Z", TimeError::LeapSecond),
            ("2016-12-31T18:59:60-05:00", TimeError::LeapSecond),
            ("2024-01-03T14:30:00.1234567891Z", TimeError::TooFine),
            ("2024-01-03T14:30:00.1234567890+00:00", TimeError::TooFine),
            ("2024-01-03T14:30:61Z", TimeError::NotATime),
        ];
        for (text, error) in cases {
            assert_eq!(Nanos::parse(text.as_bytes()), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_time_is_written_as_the_calendar_has_it(nanos in any::<i64>(), coarse in any::<i32>()) {
            for nanos in [nanos, i64::from(coarse) * Nanos::SECOND, i64::from(coarse) * 1_000, i64::MIN, i64::MAX] {
                let time = DateTime::<chrono::Utc>::from_timestamp_nanos(nanos);
                let text = time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
                let text = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
                prop_assert_eq!(Nanos(nanos).to_string(), format!("{text}Z"));
            }
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(nanos in any::<i64>()) {
            let text = Nanos(nanos).to_string();
            prop_assert_eq!(Nanos::parse(text.as_bytes()), Ok(Nanos(nanos)));
        }

        #[test]
        fn the_short_way_agrees_with_the_general_parser(nanos in any::<i64>()) {
            let text = Nanos(nanos).to_string();
            let general = DateTime::parse_from_rfc3339(&text).ok().and_then(|time| time.timestamp_nanos_opt());
            prop_assert_eq!(parse_utc(text.as_bytes()).map(|time| time.0), general);
        }
    }
}
