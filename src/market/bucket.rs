//! Buckets: slices of event time, the unit in which history is kept and found.

use chrono::{DateTime, Datelike, NaiveDate};

use super::{Kind, Nanos, calendar};

/// How wide a bucket is. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BucketWidth {
    /// One UTC hour: trades, quotes, statuses, LULD bands.
    Hour = 1,
    /// One New York trading day: corrections and cancels.
    Day = 2,
    /// One UTC month: minute bars.
    Month = 3,
    /// Ten UTC years: daily bars.
    Decade = 4,
}

/// A bucket as one sortable number: the width in the top byte, below it the count of
/// hours or days since 1970-01-01, of months since year 0, or of decades since year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub i64);

impl Bucket {
    const COUNT_BITS: u32 = 56;

    /// The bucket that a tick of this kind and time is kept in.
    #[must_use]
    pub fn of(kind: Kind, time: Nanos) -> Self {
        let width = BucketWidth::of(kind);
        let count = match width {
            BucketWidth::Hour => time.0.div_euclid(Nanos::HOUR),
            BucketWidth::Day => i64::from(calendar::new_york_date(time).to_epoch_days()),
            BucketWidth::Month => {
                let date = utc_date(time);
                i64::from(date.year()) * 12 + i64::from(date.month0())
            }
            BucketWidth::Decade => i64::from(utc_date(time).year()).div_euclid(10),
        };
        Self::new(width, count)
    }

    const fn new(width: BucketWidth, count: i64) -> Self {
        // Times before 1970 are refused at the door, so that counts are never negative.
        Self(((width as i64) << Self::COUNT_BITS) | (count & ((1 << Self::COUNT_BITS) - 1)))
    }

    /// The width of this bucket; `None` where the number is no bucket.
    #[must_use]
    pub const fn width(self) -> Option<BucketWidth> {
        match self.0 >> Self::COUNT_BITS {
            1 => Some(BucketWidth::Hour),
            2 => Some(BucketWidth::Day),
            3 => Some(BucketWidth::Month),
            4 => Some(BucketWidth::Decade),
            _ => None,
        }
    }

    /// The count within the width.
    #[must_use]
    pub const fn count(self) -> i64 {
        self.0 & ((1 << Self::COUNT_BITS) - 1)
    }

    /// The first and the last nanosecond of the bucket; `None` where the number is no bucket.
    #[must_use]
    pub fn span(self) -> Option<(Nanos, Nanos)> {
        let count = self.count();
        let start_of = |count: i64| -> Option<Nanos> {
            match self.width()? {
                BucketWidth::Hour => count.checked_mul(Nanos::HOUR).map(Nanos),
                BucketWidth::Day => {
                    NaiveDate::from_epoch_days(i32::try_from(count).ok()?).map(calendar::new_york_midnight)
                }
                BucketWidth::Month => {
                    let month = u32::try_from(count % 12).ok()? + 1;
                    utc_midnight(i32::try_from(count / 12).ok()?, month)
                }
                BucketWidth::Decade => utc_midnight(i32::try_from(count).ok()?.checked_mul(10)?, 1),
            }
        };
        Some((start_of(count)?, start_of(count + 1).map_or(Nanos::MAX, |next| next.plus(-1))))
    }
}

impl BucketWidth {
    /// The width that a kind is kept in.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Trade | Kind::Quote | Kind::Status | Kind::Luld => Self::Hour,
            Kind::Correction | Kind::Cancel => Self::Day,
            Kind::MinuteBar => Self::Month,
            Kind::DayBar => Self::Decade,
        }
    }
}

fn utc_date(time: Nanos) -> NaiveDate {
    DateTime::from_timestamp_nanos(time.0).date_naive()
}

fn utc_midnight(year: i32, month: u32) -> Option<Nanos> {
    let midnight = NaiveDate::from_ymd_opt(year, month, 1)?.and_hms_opt(0, 0, 0)?.and_utc();
    midnight.timestamp_nanos_opt().map(Nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_lies_in_the_span_of_its_bucket(time in 0_i64..i64::MAX, number in 1_u8..=8) {
            let kind = Kind::from_number(number).unwrap();
            let bucket = Bucket::of(kind, Nanos(time));
            let (first, last) = bucket.span().unwrap();
            prop_assert!(first.0 <= time && time <= last.0, "{bucket:?} {first} {last}");
            prop_assert_eq!(Bucket::of(kind, first), bucket);
            prop_assert_eq!(Bucket::of(kind, last), bucket);
            prop_assert_eq!(bucket.width(), Some(BucketWidth::of(kind)));
        }

        #[test]
        fn later_times_never_have_smaller_buckets(a in 0_i64..i64::MAX, b in 0_i64..i64::MAX, number in 1_u8..=8) {
            let kind = Kind::from_number(number).unwrap();
            let (early, late) = (a.min(b), a.max(b));
            prop_assert!(Bucket::of(kind, Nanos(early)) <= Bucket::of(kind, Nanos(late)));
        }
    }

    #[test]
    fn a_trade_after_midnight_utc_is_corrected_on_the_new_york_day_before() {
        let late = Nanos::parse(b"2018-01-04T00:55:37.79Z").unwrap();
        let day = Bucket::of(Kind::Cancel, late);
        assert_eq!(day, Bucket::of(Kind::Cancel, Nanos::parse(b"2018-01-03T14:30:00Z").unwrap()));
        assert_eq!(day.span().unwrap().0.to_string(), "2018-01-03T05:00:00Z");
    }
}
