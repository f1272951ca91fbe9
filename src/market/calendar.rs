//! The New York calendar: days, trading sessions, holidays.
//!
//! A day begins at midnight in New York, 04:00Z in summer and 05:00Z in winter. Daily,
//! weekly and monthly bars begin there, a week on Monday. Trading days are Monday to Friday
//! without the full closures of the New York Stock Exchange, which are a table for 2010 to
//! 2030; in other years every weekday counts as a trading day of full length.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Offset, TimeZone, Weekday};
use chrono_tz::America::New_York;

use super::Nanos;

/// The years for which holidays are known.
pub const YEARS: RangeInclusive<i32> = 2010..=2030;

/// Minutes from midnight to the opening, 09:30.
const OPEN_MINUTE: u32 = 9 * 60 + 30;
/// Minutes from midnight to the close, 16:00.
const CLOSE_MINUTE: u32 = 16 * 60;
/// Minutes from midnight to an early close, 13:00.
const EARLY_CLOSE_MINUTE: u32 = 13 * 60;
/// The longest run of days without trading that is looked over for the next trading day.
const CLOSED_DAYS_MAX: u64 = 14;

/// A year of the exchange; days are month times 100 plus day.
struct Year {
    year: i32,
    /// Weekdays without trading.
    closed: &'static [u32],
    /// Days that close at 13:00.
    early: &'static [u32],
}

/// Full closures and early closes of the New York Stock Exchange. Beside the holidays: the
/// hurricane of October 2012 and the days of mourning of December 2018 and January 2025.
#[rustfmt::skip]
const HOLIDAYS: &[Year] = &[
    Year { year: 2010, closed: &[101, 118, 215, 402, 531, 705, 906, 1125, 1224], early: &[1126] },
    Year { year: 2011, closed: &[117, 221, 422, 530, 704, 905, 1124, 1226], early: &[1125] },
    Year { year: 2012, closed: &[102, 116, 220, 406, 528, 704, 903, 1029, 1030, 1122, 1225], early: &[703, 1123, 1224] },
    Year { year: 2013, closed: &[101, 121, 218, 329, 527, 704, 902, 1128, 1225], early: &[703, 1129, 1224] },
    Year { year: 2014, closed: &[101, 120, 217, 418, 526, 704, 901, 1127, 1225], early: &[703, 1128, 1224] },
    Year { year: 2015, closed: &[101, 119, 216, 403, 525, 703, 907, 1126, 1225], early: &[1127, 1224] },
    Year { year: 2016, closed: &[101, 118, 215, 325, 530, 704, 905, 1124, 1226], early: &[1125] },
    Year { year: 2017, closed: &[102, 116, 220, 414, 529, 704, 904, 1123, 1225], early: &[703, 1124] },
    Year { year: 2018, closed: &[101, 115, 219, 330, 528, 704, 903, 1122, 1205, 1225], early: &[703, 1123, 1224] },
    Year { year: 2019, closed: &[101, 121, 218, 419, 527, 704, 902, 1128, 1225], early: &[703, 1129, 1224] },
    Year { year: 2020, closed: &[101, 120, 217, 410, 525, 703, 907, 1126, 1225], early: &[1127, 1224] },
    Year { year: 2021, closed: &[101, 118, 215, 402, 531, 705, 906, 1125, 1224], early: &[1126] },
    Year { year: 2022, closed: &[117, 221, 415, 530, 620, 704, 905, 1124, 1226], early: &[1125] },
    Year { year: 2023, closed: &[102, 116, 220, 407, 529, 619, 704, 904, 1123, 1225], early: &[703, 1124] },
    Year { year: 2024, closed: &[101, 115, 219, 329, 527, 619, 704, 902, 1128, 1225], early: &[703, 1129, 1224] },
    Year { year: 2025, closed: &[101, 109, 120, 217, 418, 526, 619, 704, 901, 1127, 1225], early: &[703, 1128, 1224] },
    Year { year: 2026, closed: &[101, 119, 216, 403, 525, 619, 703, 907, 1126, 1225], early: &[1127, 1224] },
    Year { year: 2027, closed: &[101, 118, 215, 326, 531, 618, 705, 906, 1125, 1224], early: &[1126] },
    Year { year: 2028, closed: &[117, 221, 414, 529, 619, 704, 904, 1123, 1225], early: &[703, 1124] },
    Year { year: 2029, closed: &[101, 115, 219, 330, 528, 619, 704, 903, 1122, 1225], early: &[703, 1123, 1224] },
    Year { year: 2030, closed: &[101, 121, 218, 419, 527, 619, 704, 902, 1128, 1225], early: &[703, 1129, 1224] },
];

/// The regular session of a trading day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// When it opens: 09:30 in New York.
    pub open: Nanos,
    /// When it closes: 16:00 in New York, or 13:00 on a day of early close.
    pub close: Nanos,
}

/// The calendar day in New York at a time.
#[must_use]
pub fn new_york_date(time: Nanos) -> NaiveDate {
    let utc = DateTime::from_timestamp_nanos(time.0).naive_utc();
    let offset = New_York.offset_from_utc_datetime(&utc).fix();
    utc.checked_add_offset(offset).unwrap_or(utc).date()
}

/// When a calendar day begins in New York (04:00Z in summer, 05:00Z in winter).
///
/// Days outside the range of [`Nanos`] begin at its ends.
#[must_use]
pub fn new_york_midnight(date: NaiveDate) -> Nanos {
    new_york_time(date, 0)
}

/// The first and the last nanosecond of a calendar day in New York; it has 23, 24 or 25 hours.
#[must_use]
pub fn new_york_day(date: NaiveDate) -> (Nanos, Nanos) {
    let next = date.succ_opt().map_or(Nanos::MAX, new_york_midnight);
    (new_york_midnight(date), if next == Nanos::MAX { next } else { next.plus(-1) })
}

/// The Monday of the week of a day.
#[must_use]
pub fn week_start(date: NaiveDate) -> NaiveDate {
    date.week(Weekday::Mon).checked_first_day().unwrap_or(date)
}

/// Whether the exchange trades on a day.
#[must_use]
pub fn is_trading_day(date: NaiveDate) -> bool {
    !matches!(date.weekday(), Weekday::Sat | Weekday::Sun)
        && !holidays(date.year()).is_some_and(|year| year.closed.contains(&month_and_day(date)))
}

/// The regular session of a day; `None` where the exchange does not trade.
#[must_use]
pub fn session(date: NaiveDate) -> Option<Session> {
    let early = holidays(date.year()).is_some_and(|year| year.early.contains(&month_and_day(date)));
    let close = if early { EARLY_CLOSE_MINUTE } else { CLOSE_MINUTE };
    is_trading_day(date)
        .then(|| Session { open: new_york_time(date, OPEN_MINUTE), close: new_york_time(date, close) })
}

/// The first trading day after a day.
#[must_use]
pub fn next_trading_day(date: NaiveDate) -> NaiveDate {
    let mut later = (1..=CLOSED_DAYS_MAX).filter_map(|days| date.checked_add_days(Days::new(days)));
    later.find(|day| is_trading_day(*day)).unwrap_or(date)
}

/// The last trading day before a day.
#[must_use]
pub fn previous_trading_day(date: NaiveDate) -> NaiveDate {
    let mut earlier = (1..=CLOSED_DAYS_MAX).filter_map(|days| date.checked_sub_days(Days::new(days)));
    earlier.find(|day| is_trading_day(*day)).unwrap_or(date)
}

/// The days, first and last, on which a trade of this time can be corrected or canceled:
/// its own New York day up to the next trading day.
#[must_use]
pub fn correction_days(trade: Nanos) -> (NaiveDate, NaiveDate) {
    let day = new_york_date(trade);
    (day, next_trading_day(day))
}

/// The first day whose trades a correction or cancel of this time can name: the trading day
/// before its own New York day.
#[must_use]
pub fn corrected_since(correction: Nanos) -> NaiveDate {
    previous_trading_day(new_york_date(correction))
}

fn holidays(year: i32) -> Option<&'static Year> {
    let at = usize::try_from(year.checked_sub(*YEARS.start())?).ok()?;
    HOLIDAYS.get(at).filter(|row| row.year == year)
}

fn month_and_day(date: NaiveDate) -> u32 {
    date.month() * 100 + date.day()
}

/// A wall-clock minute of a day in New York. A time that daylight saving skips or repeats
/// (02:00 to 03:00) is the earlier one; no caller asks for one.
fn new_york_time(date: NaiveDate, minute: u32) -> Nanos {
    let time = NaiveTime::from_num_seconds_from_midnight_opt(minute * 60, 0).unwrap_or(NaiveTime::MIN);
    let wall = date.and_time(time);
    let local = New_York.from_local_datetime(&wall).earliest();
    let utc = local.map_or(wall, |time| time.naive_utc()).and_utc();
    utc.timestamp_nanos_opt().map_or(if utc.timestamp() < 0 { Nanos::MIN } else { Nanos::MAX }, Nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn session_text(day: &str) -> Option<(String, String)> {
        session(date(day)).map(|session| (session.open.to_string(), session.close.to_string()))
    }

    #[test]
    fn sessions_follow_daylight_saving_and_early_closes() {
        let times = |open: &str, close: &str| Some((open.to_owned(), close.to_owned()));
        let cases = [
            ("2024-01-03", times("2024-01-03T14:30:00Z", "2024-01-03T21:00:00Z")),
            ("2024-07-10", times("2024-07-10T13:30:00Z", "2024-07-10T20:00:00Z")),
            ("2024-03-08", times("2024-03-08T14:30:00Z", "2024-03-08T21:00:00Z")),
            ("2024-03-11", times("2024-03-11T13:30:00Z", "2024-03-11T20:00:00Z")),
            ("2024-11-29", times("2024-11-29T14:30:00Z", "2024-11-29T18:00:00Z")),
            ("2024-07-03", times("2024-07-03T13:30:00Z", "2024-07-03T17:00:00Z")),
            ("2024-11-28", None),
            ("2024-11-30", None),
            ("2012-10-29", None),
            ("2018-12-05", None),
            ("2025-01-09", None),
            // A holiday that falls on Saturday closes Friday, except New Year.
            ("2020-07-03", None),
            ("2021-12-31", times("2021-12-31T14:30:00Z", "2021-12-31T21:00:00Z")),
            // No table: a weekday trades.
            ("2031-12-25", times("2031-12-25T14:30:00Z", "2031-12-25T21:00:00Z")),
            ("2009-12-25", times("2009-12-25T14:30:00Z", "2009-12-25T21:00:00Z")),
        ];
        for (day, expected) in cases {
            assert_eq!(session_text(day), expected, "{day}");
        }
    }

    #[test]
    fn next_and_previous_trading_days_step_over_weekends_and_holidays() {
        for (day, next) in [
            ("2024-01-03", "2024-01-04"),
            ("2024-01-12", "2024-01-16"),
            ("2024-01-13", "2024-01-16"),
            ("2012-10-26", "2012-10-31"),
            ("2018-12-04", "2018-12-06"),
        ] {
            assert_eq!(next_trading_day(date(day)), date(next));
            assert!(previous_trading_day(date(next)) <= date(day), "{next}");
        }
        assert_eq!(previous_trading_day(date("2024-01-16")), date("2024-01-12"));
        assert_eq!(previous_trading_day(date("2012-10-31")), date("2012-10-26"));
    }

    #[test]
    fn a_late_evening_trade_is_corrected_over_its_new_york_day_and_the_next_trading_day() {
        let friday_evening = Nanos::parse(b"2024-01-13T00:55:00Z").unwrap();
        assert_eq!(correction_days(friday_evening), (date("2024-01-12"), date("2024-01-16")));
        let tuesday = Nanos::parse(b"2024-01-16T15:00:00Z").unwrap();
        assert_eq!(corrected_since(tuesday), date("2024-01-12"));
    }

    #[test]
    fn days_of_clock_changes_have_23_and_25_hours() {
        for (day, hours) in [("2024-03-10", 23), ("2024-11-03", 25), ("2024-06-01", 24)] {
            let (first, last) = new_york_day(date(day));
            assert_eq!(last.0 - first.0 + 1, hours * Nanos::HOUR, "{day}");
        }
        assert_eq!(week_start(date("2024-01-07")), date("2024-01-01"));
        assert_eq!(week_start(date("2024-01-08")), date("2024-01-08"));
    }

    /// The rules of the exchange, written without the table: holidays that move with the
    /// weekday, observed on Friday or Monday.
    #[test]
    fn the_table_obeys_the_rules_of_its_holidays() {
        let nth =
            |year, month, weekday, n| NaiveDate::from_weekday_of_month_opt(year, month, weekday, n).unwrap();
        let observed = |day: NaiveDate| match day.weekday() {
            Weekday::Sat => day.pred_opt().unwrap(),
            Weekday::Sun => day.succ_opt().unwrap(),
            _ => day,
        };
        assert_eq!(HOLIDAYS.len(), YEARS.count());
        for (year, row) in YEARS.zip(HOLIDAYS) {
            assert_eq!(row.year, year);
            let fixed = |month, day| observed(NaiveDate::from_ymd_opt(year, month, day).unwrap());
            let thanksgiving = nth(year, 11, Weekday::Thu, 4);
            let closed = [
                nth(year, 1, Weekday::Mon, 3),
                nth(year, 2, Weekday::Mon, 3),
                nth(year, 9, Weekday::Mon, 1),
                thanksgiving,
                fixed(7, 4),
                fixed(12, 25),
            ];
            for day in closed {
                assert!(!is_trading_day(day), "{day}");
            }
            assert_eq!(!is_trading_day(fixed(6, 19)), year >= 2022, "Juneteenth of {year}");
            assert!(row.early.contains(&month_and_day(thanksgiving.succ_opt().unwrap())));
            let good_friday = row.closed.iter().filter(|day| (320..=423).contains(*day)).count();
            assert_eq!(good_friday, 1, "Good Friday of {year}");
            for day in row.closed.iter().chain(row.early) {
                let date = NaiveDate::from_ymd_opt(year, day / 100, day % 100).unwrap();
                assert!(!matches!(date.weekday(), Weekday::Sat | Weekday::Sun), "{date} needs no row");
            }
            assert!(row.early.iter().all(|day| !row.closed.contains(day)), "{year}");
        }
    }

    proptest! {
        #[test]
        fn a_time_lies_in_its_new_york_day(time in 0_i64..i64::MAX) {
            let (first, last) = new_york_day(new_york_date(Nanos(time)));
            prop_assert!(first.0 <= time && time <= last.0);
        }

        #[test]
        fn trading_days_are_found_from_any_day(days in 0_i32..60_000) {
            let day = NaiveDate::from_epoch_days(days).unwrap();
            let (before, after) = (previous_trading_day(day), next_trading_day(day));
            prop_assert!(before < day && day < after);
            prop_assert!(is_trading_day(before) && is_trading_day(after));
        }
    }
}
