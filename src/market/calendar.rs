//! The New York calendar.

use chrono::{DateTime, NaiveDate, Offset, TimeZone};
use chrono_tz::America::New_York;

use super::Nanos;

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
    let midnight = date.and_time(chrono::NaiveTime::MIN);
    let local = New_York.from_local_datetime(&midnight).earliest();
    let utc = local.map_or(midnight, |time| time.naive_utc()).and_utc();
    utc.timestamp_nanos_opt().map_or(if utc.timestamp() < 0 { Nanos::MIN } else { Nanos::MAX }, Nanos)
}
