//! Timeframes of bars, and larger bars from smaller ones.

use std::fmt;

use chrono::{Datelike, NaiveDate};

use super::Period;
use super::fold::average;
use crate::market::{Bar, Nanos, Price, calendar};

/// How long a bar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timeframe {
    /// 1 to 59 minutes.
    Minutes(u8),
    /// 1 to 23 hours.
    Hours(u8),
    /// One calendar day in New York.
    Day,
    /// One week, from Monday midnight in New York.
    Week,
    /// 1, 2, 3, 4, 6 or 12 months, counted from January.
    Months(u8),
}

/// The text is no timeframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a timeframe: 1 to 59 with Min or T, 1 to 23 with Hour or H, 1Day or 1D, 1Week or 1W, \
     or 1, 2, 3, 4, 6 or 12 with Month or M"
)]
pub struct TimeframeError;

impl Timeframe {
    /// Parses `5Min`, `5T`, `4Hour`, `4H`, `1Day`, `1D`, `1Week`, `1W`, `3Month`, `3M`.
    ///
    /// # Errors
    /// [`TimeframeError`] when the text is none of these.
    pub fn parse(text: &str) -> Result<Self, TimeframeError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at_checked(digits).ok_or(TimeframeError)?;
        if count.starts_with('0') {
            return Err(TimeframeError);
        }
        let count: u8 = count.parse().map_err(|_| TimeframeError)?;
        match (unit, count) {
            ("Min" | "T", 1..=59) => Ok(Self::Minutes(count)),
            ("Hour" | "H", 1..=23) => Ok(Self::Hours(count)),
            ("Day" | "D", 1) => Ok(Self::Day),
            ("Week" | "W", 1) => Ok(Self::Week),
            ("Month" | "M", 1 | 2 | 3 | 4 | 6 | 12) => Ok(Self::Months(count)),
            _ => Err(TimeframeError),
        }
    }

    /// The bars that this timeframe is made from: minute bars below a day, else daily bars.
    #[must_use]
    pub const fn base(self) -> Period {
        match self {
            Self::Minutes(_) | Self::Hours(_) => Period::Minute,
            Self::Day | Self::Week | Self::Months(_) => Period::Day,
        }
    }

    /// Whether the bars are the base bars themselves.
    #[must_use]
    pub fn is_base(self) -> bool {
        self == Self::Minutes(1) || self == Self::Day
    }

    /// When the bar that a time belongs to begins.
    ///
    /// Minutes and hours are counted from 1970-01-01T00:00:00Z, so that lengths which divide a
    /// day begin at midnight UTC; days, weeks and months begin at midnight in New York.
    #[must_use]
    pub fn start(self, time: Nanos) -> Nanos {
        match self {
            Self::Minutes(count) => time.floor(i64::from(count) * Nanos::MINUTE),
            Self::Hours(count) => time.floor(i64::from(count) * Nanos::HOUR),
            Self::Day | Self::Week | Self::Months(_) => {
                calendar::new_york_midnight(self.first_day(calendar::new_york_date(time)))
            }
        }
    }

    /// When the bar after the one that a time belongs to begins.
    #[must_use]
    pub fn next_start(self, time: Nanos) -> Nanos {
        let length = match self {
            Self::Minutes(count) => i64::from(count) * Nanos::MINUTE,
            Self::Hours(count) => i64::from(count) * Nanos::HOUR,
            Self::Day | Self::Week | Self::Months(_) => {
                // Past the end of this bar by less than the shortest one: days differ in length.
                let first = self.first_day(calendar::new_york_date(time));
                let days = match self {
                    Self::Week => 7,
                    Self::Months(count) => u64::from(count) * 31,
                    _ => 1,
                };
                let inside = first.checked_add_days(chrono::Days::new(days));
                let next = inside.map(|day| match self {
                    Self::Months(_) => self.first_day(day),
                    _ => day,
                });
                return next.map_or(Nanos::MAX, calendar::new_york_midnight);
            }
        };
        self.start(time).plus(length)
    }

    /// The first day of the bar that a day belongs to.
    fn first_day(self, day: NaiveDate) -> NaiveDate {
        match self {
            Self::Week => calendar::week_start(day),
            Self::Months(count) => {
                let month = day.month0() - day.month0() % u32::from(count.max(1));
                NaiveDate::from_ymd_opt(day.year(), month + 1, 1).unwrap_or(day)
            }
            _ => day,
        }
    }
}

impl fmt::Display for Timeframe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minutes(count) => write!(f, "{count}Min"),
            Self::Hours(count) => write!(f, "{count}Hour"),
            Self::Day => write!(f, "1Day"),
            Self::Week => write!(f, "1Week"),
            Self::Months(count) => write!(f, "{count}Month"),
        }
    }
}

/// Makes bars of a timeframe from its base bars, given in the order of time or against it.
///
/// The first open, the last close, the highest high, the lowest low, sums of volume and trades.
/// The average price is that of the base bars by volume, rounded half up to 6 decimals; it is
/// not told where a base bar with volume does not tell it.
#[derive(Clone, Debug)]
pub struct Aggregate {
    timeframe: Timeframe,
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    start: Nanos,
    first: Nanos,
    last: Nanos,
    bar: Bar,
    money: Option<i128>,
    weight: u128,
}

impl Aggregate {
    /// An aggregation into bars of a timeframe.
    #[must_use]
    pub const fn new(timeframe: Timeframe) -> Self {
        Self { timeframe, open: None }
    }

    /// Adds a base bar; gives the bar before it where this one begins another.
    pub fn push(&mut self, time: Nanos, bar: &Bar) -> Option<(Nanos, Bar)> {
        let start = self.timeframe.start(time);
        if let Some(open) = self.open.as_mut().filter(|open| open.start == start) {
            open.add(time, bar);
            return None;
        }
        self.open.replace(Open::new(start, time, bar)).map(Open::close)
    }

    /// The last bar.
    pub fn finish(&mut self) -> Option<(Nanos, Bar)> {
        self.open.take().map(Open::close)
    }
}

impl Open {
    fn new(start: Nanos, time: Nanos, bar: &Bar) -> Self {
        let first = Bar { volume: 0, trades: 0, vwap: None, updated: false, ..*bar };
        let mut open = Self { start, first: time, last: time, bar: first, money: Some(0), weight: 0 };
        open.add(time, bar);
        open
    }

    fn add(&mut self, time: Nanos, bar: &Bar) {
        if time < self.first {
            self.first = time;
            self.bar.open = bar.open;
        }
        if time > self.last {
            self.last = time;
            self.bar.close = bar.close;
        }
        self.bar.high = self.bar.high.max(bar.high);
        self.bar.low = self.bar.low.min(bar.low);
        self.bar.volume = self.bar.volume.saturating_add(bar.volume);
        self.bar.trades = self.bar.trades.saturating_add(bar.trades);
        self.weight += u128::from(bar.volume);
        let money = match bar.vwap {
            Some(Price(average)) => i128::from(average).checked_mul(i128::from(bar.volume)),
            None => (bar.volume == 0).then_some(0),
        };
        self.money = self.money.zip(money).and_then(|(sum, money)| sum.checked_add(money));
    }

    fn close(self) -> (Nanos, Bar) {
        let vwap = self.money.and_then(|money| average(money, self.weight));
        (self.start, Bar { vwap, ..self.bar })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Nanos {
        Nanos::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn texts_of_timeframes() {
        for (text, written) in [
            ("1Min", "1Min"),
            ("59T", "59Min"),
            ("23Hour", "23Hour"),
            ("4H", "4Hour"),
            ("1Day", "1Day"),
            ("1D", "1Day"),
            ("1Week", "1Week"),
            ("1W", "1Week"),
            ("12Month", "12Month"),
            ("4M", "4Month"),
        ] {
            assert_eq!(Timeframe::parse(text).unwrap().to_string(), written);
        }
        for text in [
            "", "Min", "0Min", "60Min", "1min", "01Min", "24Hour", "2Day", "2Week", "5Month", "13M", "1",
            "999Min", "-1Min", "1Min ", "1é",
        ] {
            assert_eq!(Timeframe::parse(text), Err(TimeframeError), "{text}");
        }
    }

    #[test]
    fn bars_begin_where_they_should() {
        let cases = [
            ("5Min", "2024-07-10T13:34:59.999Z", "2024-07-10T13:30:00Z", "2024-07-10T13:35:00Z"),
            ("4Hour", "2024-07-10T13:34:59Z", "2024-07-10T12:00:00Z", "2024-07-10T16:00:00Z"),
            ("1Day", "2024-07-11T03:59:59Z", "2024-07-10T04:00:00Z", "2024-07-11T04:00:00Z"),
            ("1Day", "2024-01-04T00:30:00Z", "2024-01-03T05:00:00Z", "2024-01-04T05:00:00Z"),
            // A Sunday with a clock change ends the week.
            ("1Week", "2024-03-10T20:00:00Z", "2024-03-04T05:00:00Z", "2024-03-11T04:00:00Z"),
            ("1Week", "2024-01-01T05:00:00Z", "2024-01-01T05:00:00Z", "2024-01-08T05:00:00Z"),
            ("1Month", "2024-03-01T04:59:59Z", "2024-02-01T05:00:00Z", "2024-03-01T05:00:00Z"),
            ("3Month", "2024-06-15T00:00:00Z", "2024-04-01T04:00:00Z", "2024-07-01T04:00:00Z"),
            ("4Month", "2024-12-15T00:00:00Z", "2024-09-01T04:00:00Z", "2025-01-01T05:00:00Z"),
            ("12Month", "2024-12-31T23:00:00Z", "2024-01-01T05:00:00Z", "2025-01-01T05:00:00Z"),
        ];
        for (timeframe, at, start, next) in cases {
            let timeframe = Timeframe::parse(timeframe).unwrap();
            assert_eq!(timeframe.start(time(at)), time(start), "{timeframe} {at}");
            assert_eq!(timeframe.next_start(time(at)), time(next), "{timeframe} {at}");
        }
    }

    fn bar(open: i64, high: i64, low: i64, close: i64, volume: u64, vwap: Option<&str>) -> Bar {
        let vwap = vwap.map(|text| Price::parse(text.as_bytes()).unwrap());
        Bar {
            open: Price(open),
            high: Price(high),
            low: Price(low),
            close: Price(close),
            volume,
            trades: 2,
            vwap,
            updated: true,
        }
    }

    #[test]
    fn larger_bars_from_smaller_ones_in_both_directions() {
        let mut bars = vec![
            (time("2024-01-03T14:31:00Z"), bar(10, 12, 9, 11, 100, Some("10.5"))),
            (time("2024-01-03T14:33:00Z"), bar(11, 11, 8, 8, 200, Some("9.000001"))),
            (time("2024-01-03T14:35:00Z"), bar(8, 15, 8, 14, 50, None)),
            (time("2024-01-03T14:36:00Z"), bar(14, 14, 13, 13, 0, None)),
            (time("2024-01-03T14:40:00Z"), bar(13, 13, 13, 13, 0, None)),
        ];
        let aggregated = |bars: &[(Nanos, Bar)]| {
            let mut aggregate = Aggregate::new(Timeframe::Minutes(5));
            let mut all: Vec<_> = bars.iter().filter_map(|(time, bar)| aggregate.push(*time, bar)).collect();
            all.extend(aggregate.finish());
            all
        };
        let forward = aggregated(&bars);
        let expect = |open, high, low, close, volume, trades, vwap: Option<&str>| Bar {
            trades,
            updated: false,
            ..bar(open, high, low, close, volume, vwap)
        };
        assert_eq!(
            forward,
            [
                (time("2024-01-03T14:30:00Z"), expect(10, 12, 8, 8, 300, 4, Some("9.500001"))),
                (time("2024-01-03T14:35:00Z"), expect(8, 15, 8, 13, 50, 4, None)),
                (time("2024-01-03T14:40:00Z"), expect(13, 13, 13, 13, 0, 2, None)),
            ]
        );
        bars.reverse();
        let mut backward = aggregated(&bars);
        backward.reverse();
        assert_eq!(backward, forward);
    }

    proptest! {
        #[test]
        fn a_time_lies_between_its_start_and_the_next(at in 0_i64..4_000_000_000_000_000_000, kind in 0_usize..10) {
            let text = ["1Min", "7Min", "59Min", "23Hour", "1Day", "1Week", "1Month", "2Month", "6Month", "12Month"][kind];
            let timeframe = Timeframe::parse(text).unwrap();
            let (start, next) = (timeframe.start(Nanos(at)), timeframe.next_start(Nanos(at)));
            prop_assert!(start.0 <= at && at < next.0, "{text} {start} {next}");
            prop_assert_eq!(timeframe.start(start), start);
            prop_assert_eq!(timeframe.start(next), next);
            prop_assert_eq!(timeframe.start(next.plus(-1)), start);
        }
    }
}
