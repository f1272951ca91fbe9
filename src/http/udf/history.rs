//! Bars as columns: `{"s":"ok","t":[…],"o":[…],"h":[…],"l":[…],"c":[…],"v":[…]}`.
//!
//! Times are seconds since 1970; `from` is included, `to` is not; a bar of a day or longer has
//! the time 00:00 UTC of its first day in New York. `countback` overrides `from`: so many bars
//! before `to`. Of more than `history.page_limit_max` bars the newest are answered. Where there
//! are none: `{"s":"no_data"}`, with `nextTime` where an earlier bar exists.

use axum::response::Response;
use chrono::{DateTime, NaiveDate, NaiveTime};

use super::named;
use crate::bars::Timeframe;
use crate::history::{BarQuery, BarSpan};
use crate::http::alpaca::{MarketData, json_answer};
use crate::http::params::Params;
use crate::http::{ApiError, ApiResult};
use crate::market::{Nanos, Price, Symbol, calendar};
use crate::store::{Order, Span};

/// Pages that one answer is made of at most; the rest of a span is asked for again.
const PAGES_MAX: usize = 64;

/// What is asked for.
struct Ask {
    symbol: Symbol,
    timeframe: Timeframe,
    from: Option<i64>,
    to: i64,
    limit: usize,
}

impl Ask {
    fn read(query: Option<&str>, bars_max: usize, now: Nanos) -> ApiResult<Self> {
        let params = Params::decode(query)?;
        params.only(&["symbol", "from", "to", "resolution", "countback"])?;
        let text = params.required("resolution", "1, 5, 60, 1D, 1W or 1M")?;
        let timeframe = resolution(text).ok_or_else(|| {
            let expected =
                "minutes below 60 or whole hours below 24 in minutes, 1D, 1W, or 1M, 2M, 3M, 4M, 6M, 12M";
            ApiError::bad_field("resolution", text, expected)
        })?;
        let countback = params.count("countback", usize::MAX)?;
        let to = seconds(&params, "to")?.unwrap_or(now.0 / Nanos::SECOND + 1);
        let from = match countback {
            Some(_) => None,
            None => Some(seconds(&params, "from")?.ok_or_else(|| {
                ApiError::bad_request("from is required where countback is not given").with("field", "from")
            })?),
        };
        if from.is_some_and(|from| from > to) {
            return Err(ApiError::bad_request("to should not be before from").with("field", "to"));
        }
        let limit = countback.unwrap_or(bars_max).min(bars_max);
        Ok(Self { symbol: named(&params)?, timeframe, from, to, limit })
    }

    /// When the bars begin that have a time from `from` and before `to`; `None` where none can.
    fn span(&self, from: Option<i64>, to: i64) -> Option<Span> {
        let last = to.checked_sub(1)?;
        let (first, last) = if is_of_days(self.timeframe) {
            let first = match from {
                Some(from) => calendar::new_york_midnight(day_at_or_after(from)?),
                None => Nanos(0),
            };
            (first, calendar::new_york_midnight(DateTime::from_timestamp(last, 0)?.date_naive()))
        } else {
            (Nanos(from.unwrap_or(0).checked_mul(Nanos::SECOND)?), Nanos(last.checked_mul(Nanos::SECOND)?))
        };
        (first <= last).then_some(first..=last)
    }
}

pub(super) async fn answer(data: &MarketData, query: Option<&str>) -> ApiResult<Response> {
    let ask = Ask::read(query, data.config.history.page_limit_max, (data.clock)())?;
    let bars = newest(data, &ask, ask.span(ask.from, ask.to), ask.limit).await?;
    if !bars.is_empty() {
        return Ok(json_answer(columns(&ask, &bars)));
    }
    let earlier = match ask.from {
        Some(from) => newest(data, &ask, ask.span(None, from), 1).await?,
        None => Vec::new(),
    };
    let next = earlier.first().map(|bar| format!(",\"nextTime\":{}", time_of(&ask, bar)));
    Ok(json_answer(format!("{{\"s\":\"no_data\"{}}}", next.unwrap_or_default()).into_bytes()))
}

/// The newest bars of a span, the oldest of them first.
async fn newest(data: &MarketData, ask: &Ask, span: Option<Span>, limit: usize) -> ApiResult<Vec<BarSpan>> {
    let Some(span) = span else { return Ok(Vec::new()) };
    let mut bars: Vec<BarSpan> = Vec::new();
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let (symbols, order) = (vec![ask.symbol], Order::Descending);
        let (timeframe, span, left) = (ask.timeframe, span.clone(), limit - bars.len());
        let query = BarQuery { symbols, timeframe, span, order, limit: left, cursor };
        let page = data.reader.bars(&query).await?;
        bars.extend(page.series.into_iter().flat_map(|(_, bars)| bars));
        cursor = page.next;
        if cursor.is_none() || bars.len() >= limit {
            break;
        }
    }
    bars.reverse();
    Ok(bars)
}

type PriceOf = fn(&BarSpan) -> Price;

fn columns(ask: &Ask, bars: &[BarSpan]) -> Vec<u8> {
    let mut out = b"{\"s\":\"ok\"".to_vec();
    column("t", bars, &mut out, |bar, out| number(time_of(ask, bar), out));
    let prices: [(&str, PriceOf); 4] = [
        ("o", |bar| bar.bar.open),
        ("h", |bar| bar.bar.high),
        ("l", |bar| bar.bar.low),
        ("c", |bar| bar.bar.close),
    ];
    for (name, price) in prices {
        column(name, bars, &mut out, |bar, out| price(bar).write(out));
    }
    column("v", bars, &mut out, |bar, out| number(bar.bar.volume, out));
    out.push(b'}');
    out
}

fn column(name: &str, bars: &[BarSpan], out: &mut Vec<u8>, write: impl Fn(&BarSpan, &mut Vec<u8>)) {
    out.extend_from_slice(format!(",\"{name}\":[").as_bytes());
    for (at, bar) in bars.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(bar, out);
    }
    out.push(b']');
}

fn number(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn time_of(ask: &Ask, bar: &BarSpan) -> i64 {
    if is_of_days(ask.timeframe) {
        return calendar::new_york_date(bar.time).and_time(NaiveTime::MIN).and_utc().timestamp();
    }
    bar.time.0 / Nanos::SECOND
}

const fn is_of_days(timeframe: Timeframe) -> bool {
    matches!(timeframe, Timeframe::Day | Timeframe::Week | Timeframe::Months(_))
}

/// The first day that begins, in UTC, at this second or after it.
fn day_at_or_after(seconds: i64) -> Option<NaiveDate> {
    let time = DateTime::from_timestamp(seconds, 0)?;
    let day = time.date_naive();
    if time.time() == NaiveTime::MIN { Some(day) } else { day.succ_opt() }
}

/// A resolution in the words of the protocol.
fn resolution(text: &str) -> Option<Timeframe> {
    let minutes = text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let name = match (minutes, text) {
        (Some(minutes), _) if minutes >= 60 && minutes % 60 == 0 => format!("{}Hour", minutes / 60),
        (Some(_), _) => format!("{text}Min"),
        (None, "D" | "W" | "M") => format!("1{text}"),
        // `T` and `H` are no units of this protocol.
        (None, _) if text.ends_with(['D', 'W', 'M']) => text.to_owned(),
        _ => return None,
    };
    Timeframe::parse(&name).ok()
}

/// Seconds that no time has stand for the first or the last that has one.
fn seconds(params: &Params, name: &str) -> ApiResult<Option<i64>> {
    let Some(text) = params.get(name) else { return Ok(None) };
    match text.parse::<i64>() {
        Ok(value) => Ok(Some(value.clamp(0, Nanos::MAX.0 / Nanos::SECOND))),
        Err(_) => Err(ApiError::bad_field(name, text, "seconds since 1970")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_are_those_of_the_protocol() {
        for (text, expected) in [
            ("1", Some(Timeframe::Minutes(1))),
            ("59", Some(Timeframe::Minutes(59))),
            ("60", Some(Timeframe::Hours(1))),
            ("240", Some(Timeframe::Hours(4))),
            ("D", Some(Timeframe::Day)),
            ("1D", Some(Timeframe::Day)),
            ("W", Some(Timeframe::Week)),
            ("3M", Some(Timeframe::Months(3))),
            ("M", Some(Timeframe::Months(1))),
            ("0", None),
            ("61", None),
            ("1440", None),
            ("+5", None),
            ("5T", None),
            ("1S", None),
            ("", None),
            ("2D", None),
        ] {
            assert_eq!(resolution(text), expected, "{text}");
        }
    }
}
