//! Query parameters: decoded, each known and given once, and read into types. And headers that
//! several doors read.

use std::ops::RangeInclusive;

use axum::http::HeaderMap;

use super::ApiError;
use crate::market::{Nanos, Symbol, TimeError, calendar};
use crate::wire::beginning;

/// Names a request.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The most characters of a name that a client gives.
const NAME_BYTES_MAX: usize = 255;

/// The parameters of a request, in the order they were given.
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Decodes a query string.
    ///
    /// A raw `+` stays a `+`: no parameter here holds blanks, and clients send the offset of a
    /// time without encoding it.
    ///
    /// # Errors
    /// 400 where an escape is broken, or a parameter is given twice.
    pub(crate) fn decode(query: Option<&str>) -> Result<Self, ApiError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let broken = || {
                ApiError::bad_field(
                    "query",
                    pair,
                    "percent-encoded UTF-8, such as start=2024-01-03T14%3A30%3A00Z",
                )
            };
            let name = unescape(name).ok_or_else(broken)?;
            let value = unescape(value).ok_or_else(broken)?;
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(ApiError::bad_field(&name, &value, "given once"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// Refuses what is not among the names.
    ///
    /// # Errors
    /// 400 `unexpected parameter(s): …`.
    pub(crate) fn only(&self, names: &[&str]) -> Result<(), ApiError> {
        let mut unexpected = self.pairs.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        let Some((first, value)) = unexpected.next() else { return Ok(()) };
        let others = unexpected.map(|(name, _)| beginning(name));
        let all: Vec<_> = std::iter::once(beginning(first)).chain(others).collect();
        let message = format!("unexpected parameter(s): {}", all.join(", "));
        Err(ApiError::bad_request(message)
            .with("field", beginning(first))
            .with("value", beginning(value))
            .with("expected", names.join(", ")))
    }

    /// Whether a parameter was given, be it empty.
    pub(super) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(known, _)| known == name)
    }

    /// The value of a parameter; an empty one counts as not given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(known, _)| known == name);
        pair.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of a parameter that must be given.
    ///
    /// # Errors
    /// 400 `NAME is required`.
    pub(super) fn required(&self, name: &str, expected: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| {
            ApiError::bad_request(format!("{name} is required"))
                .with("field", name)
                .with("expected", expected)
        })
    }

    /// One of a set of words.
    ///
    /// # Errors
    /// 400 that names them.
    pub(super) fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        found.map(Some).ok_or_else(|| ApiError::bad_field(name, value, one_of_text(&known)))
    }

    /// A switch; not given: off. Unlike other parameters an empty one is an error, for it may
    /// have been meant.
    ///
    /// # Errors
    /// 400 `must be true or false`.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, ApiError> {
        match self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::bad_field(name, other, "true or false")),
        }
    }

    /// A whole number from 1 to `most`.
    ///
    /// # Errors
    /// 400 that says so.
    pub(super) fn count(&self, name: &str, most: usize) -> Result<Option<usize>, ApiError> {
        self.number_in(name, 1..=most)
    }

    /// A whole number from 0 to `most`.
    ///
    /// # Errors
    /// 400 that says so.
    pub(super) fn number(&self, name: &str, most: usize) -> Result<Option<usize>, ApiError> {
        self.number_in(name, 0..=most)
    }

    fn number_in(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = range.into_inner();
            ApiError::bad_field(name, value, format!("a whole number from {least} to {most}"))
        })
    }

    /// A time, or a calendar day, which is taken to be one in New York.
    ///
    /// # Errors
    /// 400 `Invalid format for parameter …`.
    pub(super) fn time(&self, name: &str, of_day: Edge) -> Result<Option<Nanos>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        if let Some(day) = day(value) {
            let (first, last) = calendar::new_york_day(day);
            return Ok(Some(match of_day {
                Edge::First => first,
                Edge::Last => last,
            }));
        }
        // An encoded blank stands for a `+` that was decoded on its way.
        let time = Nanos::parse(value.replace(' ', "+").as_bytes());
        time.map(Some).map_err(|error| {
            let expected = match error {
                TimeError::NotATime => "RFC3339 or YYYY-MM-DD",
                TimeError::TooFine => "RFC3339 with at most nine fraction digits",
                TimeError::LeapSecond => "RFC3339 with seconds up to 59",
            };
            bad_format(name, value, expected)
        })
    }
}

/// Which end of a calendar day a parameter means. `end=2024-01-03` takes that day in.
#[derive(Clone, Copy)]
pub(super) enum Edge {
    First,
    Last,
}

/// 400 with the words that Alpaca says this with.
pub(super) fn bad_format(name: &str, value: &str, expected: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Invalid format for parameter {name}: error parsing '{}' as {expected}",
        beginning(value)
    ))
    .with("field", name)
    .with("value", beginning(value))
    .with("expected", expected)
}

/// A symbol.
///
/// # Errors
/// 400 `invalid symbol: X`.
pub(super) fn symbol(text: &str) -> Result<Symbol, ApiError> {
    Symbol::parse(text.as_bytes()).map_err(|error| {
        ApiError::bad_request(format!("invalid symbol: {}", beginning(text)))
            .with("field", "symbols")
            .with("value", beginning(text))
            .with("expected", error.to_string().trim_start_matches("is not a symbol: "))
    })
}

/// A calendar day as `YYYY-MM-DD`.
pub(super) fn day(text: &str) -> Option<chrono::NaiveDate> {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shape.then(|| chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()).flatten()
}

/// A header's text; a second header of the name, or one that is no printable ASCII, is an error.
///
/// # Errors
/// 400 that names it.
pub(super) fn header_text<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::bad_field(name, "", "given once"));
    }
    let text = value.to_str().map_err(|_| ApiError::bad_field(name, "", "printable ASCII"))?;
    Ok(Some(text.trim()))
}

/// A name that a client gives in a header or parameter.
///
/// # Errors
/// 400 that names it.
pub(super) fn named(field: &str, name: &str) -> Result<String, ApiError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits && name.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Ok(name.to_owned());
    }
    Err(ApiError::bad_field(field, name, "1 to 255 printable ASCII characters"))
}

fn one_of_text(words: &[&str]) -> String {
    match words {
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
        [] => String::new(),
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (digits, tail) = rest.split_first_chunk::<2>()?;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.contains('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
