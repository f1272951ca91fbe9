//! Ticks of every kind, with every field at its edges.

use proptest::prelude::*;
use proptest::sample::select;

use crate::market::{
    Bar, Cancel, Code, Conditions, Correction, Event, Exchange, Luld, Nanos, Price, Quote, SipTape, Status,
    Symbol, Tick, Trade,
};
use crate::wire::{json, msgpack};

fn exchange() -> impl Strategy<Value = Exchange> {
    (0x20_u8..=0x7e).prop_map(Exchange)
}

fn conditions() -> impl Strategy<Value = Conditions> {
    proptest::collection::vec(0x20_u8..=0x7e, 0..=7).prop_map(|codes| Conditions::from_codes(&codes).unwrap())
}

fn tape() -> impl Strategy<Value = SipTape> {
    select(&b"\0ABCNO"[..]).prop_map(|byte| SipTape::from_byte(byte).unwrap())
}

fn number() -> impl Strategy<Value = u64> {
    0..=i64::MAX.unsigned_abs()
}

fn text() -> impl Strategy<Value = Box<str>> {
    proptest::collection::vec(any::<char>(), 0..60).prop_map(|characters| characters.into_iter().collect())
}

/// Prices that a double carries exactly: six decimals.
fn coarse() -> BoxedStrategy<Price> {
    // Most prices are small, and there a double of theirs has the most neighbours to be taken for.
    let micros = prop_oneof![-9_000_000_000_000_i64..9_000_000_000_000, 0_i64..100_000_000];
    micros.prop_map(|micros| Price(micros * 1000)).boxed()
}

fn fine() -> BoxedStrategy<Price> {
    any::<i64>().prop_map(Price).boxed()
}

fn bar(price: &BoxedStrategy<Price>) -> impl Strategy<Value = Bar> + use<> {
    let prices = [(); 4].map(|()| price.clone());
    let rest = (any::<u64>(), any::<u64>(), proptest::option::of(price.clone()));
    (prices, rest).prop_map(|([open, high, low, close], (volume, trades, vwap))| Bar {
        open,
        high,
        low,
        close,
        volume,
        trades,
        vwap,
        updated: false,
    })
}

fn status() -> impl Strategy<Value = Event> {
    ([(); 4].map(|()| text()), tape()).prop_map(|(texts, tape)| {
        let [status_code, status_message, reason_code, reason_message] = texts;
        Event::Status(Box::new(Status { status_code, status_message, reason_code, reason_message, tape }))
    })
}

fn correction(price: &BoxedStrategy<Price>) -> impl Strategy<Value = Event> + use<> {
    let side = || (number(), price.clone(), any::<u32>(), conditions());
    (exchange(), side(), side(), tape()).prop_map(|(exchange, original, corrected, tape)| {
        Event::Correction(Box::new(Correction {
            exchange,
            original_id: original.0,
            original_price: original.1,
            original_size: original.2,
            original_conditions: original.3,
            corrected_id: corrected.0,
            corrected_price: corrected.1,
            corrected_size: corrected.2,
            corrected_conditions: corrected.3,
            tape,
        }))
    })
}

fn event(price: &BoxedStrategy<Price>) -> impl Strategy<Value = Event> + use<> {
    let trade =
        (proptest::option::of(number()), exchange(), price.clone(), any::<u32>(), conditions(), tape());
    let side = || (exchange(), price.clone(), any::<u32>());
    let cancel = (number(), exchange(), price.clone(), any::<u32>(), any::<bool>(), tape());
    prop_oneof![
        trade.prop_map(|(id, exchange, price, size, conditions, tape)| {
            Event::Trade(Trade { id, exchange, price, size, conditions, tape })
        }),
        (side(), side(), conditions(), tape()).prop_map(|(ask, bid, conditions, tape)| {
            Event::Quote(Quote {
                ask_exchange: ask.0,
                ask_price: ask.1,
                ask_size: ask.2,
                bid_exchange: bid.0,
                bid_price: bid.1,
                bid_size: bid.2,
                conditions,
                tape,
            })
        }),
        (bar(price), any::<bool>()).prop_map(|(bar, updated)| Event::MinuteBar(Bar { updated, ..bar })),
        bar(price).prop_map(Event::DayBar),
        status(),
        (price.clone(), price.clone(), (0x20_u8..=0x7e).prop_map(Code), tape()).prop_map(
            |(limit_up, limit_down, indicator, tape)| {
                Event::Luld(Luld { limit_up, limit_down, indicator, tape })
            }
        ),
        correction(price),
        cancel.prop_map(|(id, exchange, price, size, error, tape)| {
            Event::Cancel(Cancel { id, exchange, price, size, error, tape })
        }),
    ]
}

fn ticks(price: &BoxedStrategy<Price>) -> impl Strategy<Value = Tick> + use<> {
    ("[A-Z0-9_][A-Z0-9_./-]{0,15}", 0..=i64::MAX, event(price)).prop_map(|(symbol, time, event)| Tick {
        symbol: Symbol::parse(symbol.as_bytes()).unwrap(),
        time: Nanos(time),
        event,
    })
}

/// Any tick.
pub(super) fn tick() -> impl Strategy<Value = Tick> {
    ticks(&fine())
}

/// Any tick whose prices a double carries.
pub(super) fn coarse_tick() -> impl Strategy<Value = Tick> {
    ticks(&coarse())
}

proptest! {
    #[test]
    fn json_round_trips_every_tick(tick in tick()) {
        let mut out = Vec::new();
        json::write_stream(&tick, &mut out);
        prop_assert_eq!(super::from_json(std::str::from_utf8(&out).unwrap()), Ok(tick));
    }

    #[test]
    fn history_is_the_same_tick_without_kind_and_symbol(tick in tick()) {
        let mut history = Vec::new();
        json::write_history(&tick, None, &mut history);
        let mut stream = Vec::new();
        json::write_stream(&tick, &mut stream);
        let mut history: serde_json::Value = serde_json::from_slice(&history).unwrap();
        // What the source of a bar did not tell is written to history, and left out of the stream.
        history.as_object_mut().unwrap().retain(|key, value| !(value.is_null() || key == "n" && *value == 0));
        let mut stream: serde_json::Value = serde_json::from_slice(&stream).unwrap();
        stream.as_object_mut().unwrap().retain(|key, _| key != "T" && key != "S");
        prop_assert_eq!(history, stream);
    }

    #[test]
    fn msgpack_round_trips_every_tick(tick in coarse_tick()) {
        let mut out = Vec::new();
        msgpack::write_stream(&tick, &mut out);
        prop_assert_eq!(super::from_msgpack(&out), Ok(tick));
    }
}
