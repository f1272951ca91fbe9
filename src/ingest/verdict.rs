//! What makes a well-written tick a bad one.
//!
//! A verdict depends on the tick, on these rules and, for the bound on the future alone, on
//! the time: a retry gets the same answer, except that what was too early becomes good.

use crate::market::{Bar, Event, Nanos, Price, Quote, Tick, calendar};
use crate::wire::Refusal;

/// Checks a tick; `now` is the node's wall clock. `docs/adr/0005-verdicts.md` has the reasons,
/// and what is kept on purpose.
///
/// | refused | because |
/// |---|---|
/// | `t` before 1970, or more than `future_ms` ahead of `now` | no market's clock says that |
/// | a trade's `p`, a correction's `cp`, a bar's `o`, `h`, `l`, `c` not above 0 | nothing trades for nothing |
/// | a quote's `ap`, `bp`, a cancel's `p`, a correction's `op`, a band's `u`, `d`, a bar's `vw` below 0 | 0 stands for none |
/// | a bar's `h` below `l` | the highest is the highest; adjusted bars of real sources have an `o` or `c` outside |
/// | a minute bar's `t` inside a minute, a daily bar's not at midnight in New York | there is one bar a (symbol, timeframe, time) |
///
/// # Errors
/// The [`Refusal`] names field, value, why, and what would be right.
pub fn check(tick: &Tick, now: Nanos, future_ms: u64) -> Result<(), Box<Refusal>> {
    check_time(tick, now, future_ms)?;
    match &tick.event {
        Event::Trade(trade) => above_zero("p", trade.price),
        Event::Quote(quote) => check_quote(quote),
        Event::MinuteBar(bar) => {
            check_prices(bar)?;
            aligned(tick.time, tick.time.floor(Nanos::MINUTE), "is inside a minute")
        }
        Event::DayBar(bar) => {
            check_prices(bar)?;
            aligned(tick.time, day_start(tick.time), "is not midnight in New York")
        }
        Event::Status(_) => Ok(()),
        Event::Luld(luld) => {
            not_below_zero("u", luld.limit_up)?;
            not_below_zero("d", luld.limit_down)
        }
        Event::Correction(correction) => {
            not_below_zero("op", correction.original_price)?;
            above_zero("cp", correction.corrected_price)
        }
        Event::Cancel(cancel) => not_below_zero("p", cancel.price),
    }
}

fn check_time(tick: &Tick, now: Nanos, future_ms: u64) -> Result<(), Box<Refusal>> {
    let refuse =
        |why: String, expected: String| Err(Refusal::new("t", &tick.time.to_string(), why, expected));
    if tick.time < Nanos(0) {
        return refuse("is before 1970".to_owned(), "a time from 1970-01-01T00:00:00Z".to_owned());
    }
    let ahead = i64::try_from(future_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    let latest = now.plus(ahead);
    if tick.time > latest {
        let why = format!("is more than {future_ms} ms in the future");
        return refuse(why, format!("a time up to {latest}"));
    }
    Ok(())
}

fn check_quote(quote: &Quote) -> Result<(), Box<Refusal>> {
    not_below_zero("ap", quote.ask_price)?;
    not_below_zero("bp", quote.bid_price)
}

fn check_prices(bar: &Bar) -> Result<(), Box<Refusal>> {
    for (field, price) in [("o", bar.open), ("h", bar.high), ("l", bar.low), ("c", bar.close)] {
        above_zero(field, price)?;
    }
    if bar.high < bar.low {
        let why = format!("is below the lowest price {}", bar.low);
        return Err(Refusal::new("h", &bar.high.to_string(), why, "at least l"));
    }
    not_below_zero("vw", bar.vwap.unwrap_or_default())
}

fn above_zero(field: &str, price: Price) -> Result<(), Box<Refusal>> {
    if price > Price(0) {
        return Ok(());
    }
    Err(Refusal::new(field, &price.to_string(), "is not above zero", "a price above 0"))
}

fn not_below_zero(field: &str, price: Price) -> Result<(), Box<Refusal>> {
    if price >= Price(0) {
        return Ok(());
    }
    Err(Refusal::new(field, &price.to_string(), "is below zero", "a price above 0, or 0 where there is none"))
}

/// When the daily bar begins that this time means: midnight in New York, 04:00Z or 05:00Z. Who
/// writes midnight in UTC means the day of that date.
fn day_start(time: Nanos) -> Nanos {
    const DAY: i64 = 24 * Nanos::HOUR;
    let is_utc_midnight = time.0.rem_euclid(DAY) == 0;
    let noon_of_the_day = if is_utc_midnight { time.plus(DAY / 2) } else { time };
    calendar::new_york_midnight(calendar::new_york_date(noon_of_the_day))
}

fn aligned(time: Nanos, right: Nanos, why: &'static str) -> Result<(), Box<Refusal>> {
    if time == right {
        return Ok(());
    }
    Err(Refusal::new("t", &time.to_string(), why, format!("when the bar begins: {right}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;

    const FUTURE_MS: u64 = 5_000;
    const NOW: &str = "2024-01-03T14:30:00Z";

    fn verdict(text: &str) -> Result<(), Box<Refusal>> {
        let tick = json::read_tick(text.as_bytes(), 8).unwrap().unwrap();
        check(&tick, Nanos::parse(NOW.as_bytes()).unwrap(), FUTURE_MS)
    }

    fn with(text: &str, changes: &[(&str, &str)]) -> String {
        changes.iter().fold(text.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from} in {text}");
            text.replacen(from, to, 1)
        })
    }

    const TRADE: &str = r#"{"T":"t","S":"AAPL","p":1.5,"s":1,"t":"2024-01-03T14:30:00Z"}"#;
    const QUOTE: &str = r#"{"T":"q","S":"A","ap":2,"as":1,"bp":1,"bs":1,"t":"2024-01-03T14:30:00Z"}"#;
    const MINUTE: &str =
        r#"{"T":"b","S":"A","o":2,"h":3,"l":1,"c":2,"v":1,"n":1,"vw":2,"t":"2024-01-03T14:29:00Z"}"#;
    const DAY: &str = r#"{"T":"d","S":"A","o":2,"h":3,"l":1,"c":2,"v":1,"t":"2024-01-02T05:00:00Z"}"#;
    const LULD: &str = r#"{"T":"l","S":"A","u":3.24,"d":2.65,"t":"2024-01-03T14:30:00Z"}"#;
    const CORRECTION: &str =
        r#"{"T":"c","S":"A","oi":1,"op":2,"os":1,"ci":3,"cp":4,"cs":1,"t":"2024-01-03T14:30:00Z"}"#;
    const CANCEL: &str = r#"{"T":"x","S":"A","i":1,"p":2,"s":1,"a":"C","t":"2024-01-03T14:30:00Z"}"#;

    #[test]
    fn what_is_good() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            (TRADE, &[]),
            (TRADE, &[("14:30:00Z", "14:30:05Z")]),
            (TRADE, &[("2024-01-03T14:30:00Z", "1970-01-01T00:00:00Z")]),
            (TRADE, &[("1.5", "0.000000001")]),
            (QUOTE, &[]),
            (QUOTE, &[("\"ap\":2,\"as\":1", "\"ap\":0,\"as\":0")]),
            (QUOTE, &[("\"bs\":1", "\"bs\":0")]),
            (QUOTE, &[("\"bp\":1", "\"bp\":9")]),
            (MINUTE, &[]),
            (MINUTE, &[("\"vw\":2", "\"vw\":0")]),
            (MINUTE, &[("\"vw\":2", "\"vw\":2.0000000000000004")]),
            (MINUTE, &[("\"vw\":2", "\"vw\":null")]),
            (MINUTE, &[("\"o\":2", "\"o\":9"), ("\"c\":2", "\"c\":0.5")]),
            (TRADE, &[("\"s\":1", "\"s\":10.0")]),
            (DAY, &[]),
            (DAY, &[("2024-01-02T05:00:00Z", "2023-07-03T04:00:00Z")]),
            (LULD, &[("3.24", "0")]),
            (CORRECTION, &[("\"op\":2", "\"op\":0")]),
            (CANCEL, &[("\"p\":2", "\"p\":0")]),
        ];
        for (text, changes) in cases {
            let text = with(text, changes);
            assert_eq!(verdict(&text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_refused_names_field_and_reason() {
        type Case =
            (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str, &'static str);
        let cases: &[Case] = &[
            (TRADE, &[("1.5", "0")], "p", "0", "is not above zero"),
            (TRADE, &[("1.5", "-1.5")], "p", "-1.5", "is not above zero"),
            (
                TRADE,
                &[(":00Z", ":05.000000001Z")],
                "t",
                "2024-01-03T14:30:05.000000001Z",
                "5000 ms in the future",
            ),
            (TRADE, &[("2024-01-03", "1969-12-31")], "t", "1969-12-31T14:30:00Z", "is before 1970"),
            (QUOTE, &[("\"ap\":2", "\"ap\":-2")], "ap", "-2", "is below zero"),
            (QUOTE, &[("\"bp\":1", "\"bp\":-1")], "bp", "-1", "is below zero"),
            (MINUTE, &[("\"o\":2", "\"o\":0")], "o", "0", "is not above zero"),
            (MINUTE, &[("\"l\":1", "\"l\":-1")], "l", "-1", "is not above zero"),
            (MINUTE, &[("\"h\":3", "\"h\":0.5")], "h", "0.5", "is below the lowest price 1"),
            (MINUTE, &[("\"vw\":2", "\"vw\":-2")], "vw", "-2", "is below zero"),
            (MINUTE, &[("14:29:00Z", "14:29:01Z")], "t", "2024-01-03T14:29:01Z", "is inside a minute"),
            (MINUTE, &[("14:29:00Z", "14:29:00.1Z")], "t", "2024-01-03T14:29:00.1Z", "is inside a minute"),
            (DAY, &[("05:00", "04:00")], "t", "2024-01-02T04:00:00Z", "is not midnight in New York"),
            (LULD, &[("3.24", "-3.24")], "u", "-3.24", "is below zero"),
            (LULD, &[("2.65", "-2.65")], "d", "-2.65", "is below zero"),
            (CORRECTION, &[("\"cp\":4", "\"cp\":0")], "cp", "0", "is not above zero"),
            (CORRECTION, &[("\"op\":2", "\"op\":-2")], "op", "-2", "is below zero"),
            (CANCEL, &[("\"p\":2", "\"p\":-2")], "p", "-2", "is below zero"),
        ];
        for (text, changes, field, value, why) in cases {
            let text = with(text, changes);
            let refusal = verdict(&text).unwrap_err();
            assert_eq!((&*refusal.field, &*refusal.value), (*field, *value), "{text}");
            assert!(refusal.why.contains(why), "{text}: {refusal}");
            assert!(!refusal.expected.is_empty());
        }
    }

    #[test]
    fn a_misaligned_bar_is_told_when_it_begins() {
        let minute = verdict(&with(MINUTE, &[("14:29:00Z", "14:29:59.9Z")])).unwrap_err();
        assert_eq!(minute.expected, "when the bar begins: 2024-01-03T14:29:00Z");
        let day = verdict(&with(DAY, &[("05:00", "04:59")])).unwrap_err();
        assert_eq!(day.expected, "when the bar begins: 2024-01-01T05:00:00Z");
        let utc = verdict(&with(DAY, &[("05:00", "00:00")])).unwrap_err();
        assert_eq!(utc.expected, "when the bar begins: 2024-01-02T05:00:00Z", "the day that it names");
        let summer = verdict(&with(DAY, &[("2024-01-02T05:00", "2023-07-03T00:00")])).unwrap_err();
        assert_eq!(summer.expected, "when the bar begins: 2023-07-03T04:00:00Z");
    }
}
