//! Arbitrary rows for property tests, of this room and others.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::market::{
    Bar, Cancel, Code, Conditions, Correction, Event, Exchange, Kind, Luld, Nanos, Origin, Price, Quote,
    RequestKey, Row, SipTape, Status, Symbol, Tick, Trade,
};

/// A symbol, now and then a long or odd one.
pub(crate) fn symbol() -> impl Strategy<Value = Symbol> {
    let text = prop_oneof![4 => "[A-C]{1,2}", 1 => "[A-Z0-9_][A-Z0-9./_-]{0,15}"];
    text.prop_map(|text| Symbol::parse(text.as_bytes()).unwrap())
}

/// A time that clients may send: from 1970 on.
pub(crate) fn time() -> impl Strategy<Value = Nanos> {
    let session = (0_i64..3_600_000).prop_map(|millis| 1_514_903_400_000_000_000 + millis * 1_000_000);
    prop_oneof![3 => session, 1 => 0..=i64::MAX].prop_map(Nanos)
}

/// A price, mostly of cents, now and then any.
pub(crate) fn price() -> impl Strategy<Value = Price> {
    prop_oneof![
        3 => (1_i64..100_000).prop_map(|cents| cents * 10_000_000),
        1 => any::<i64>(),
        1 => Just(0),
    ]
    .prop_map(Price)
}

/// A number of shares.
pub(crate) fn size() -> impl Strategy<Value = u32> {
    prop_oneof![3 => (1_u32..50).prop_map(|lots| lots * 100), 1 => any::<u32>()]
}

/// An exchange's number.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1_u64..100_000, 1 => any::<u64>()]
}

/// An exchange.
pub(crate) fn exchange() -> impl Strategy<Value = Exchange> {
    (0x20_u8..=0x7e).prop_map(Exchange)
}

/// Up to seven conditions.
pub(crate) fn conditions() -> impl Strategy<Value = Conditions> {
    vec(0x20_u8..=0x7e, 0..=Conditions::MAX_LEN).prop_map(|codes| Conditions::from_codes(&codes).unwrap())
}

/// A SIP tape, or none.
pub(crate) fn tape() -> impl Strategy<Value = SipTape> {
    prop::sample::select(&[0, b'A', b'B', b'C', b'N', b'O'][..])
        .prop_map(|byte| SipTape::from_byte(byte).unwrap())
}

/// A trade, with or without an id.
pub(crate) fn trade() -> impl Strategy<Value = Trade> {
    (option::weighted(0.8, number()), exchange(), price(), size(), conditions(), tape()).prop_map(
        |(id, exchange, price, size, conditions, tape)| Trade { id, exchange, price, size, conditions, tape },
    )
}

/// A quote.
pub(crate) fn quote() -> impl Strategy<Value = Quote> {
    let side = || (exchange(), price(), size());
    (side(), side(), conditions(), tape()).prop_map(|(ask, bid, conditions, tape)| Quote {
        ask_exchange: ask.0,
        ask_price: ask.1,
        ask_size: ask.2,
        bid_exchange: bid.0,
        bid_price: bid.1,
        bid_size: bid.2,
        conditions,
        tape,
    })
}

/// A bar, whose prices need make no sense.
pub(crate) fn bar() -> impl Strategy<Value = Bar> {
    let prices = (price(), price(), price(), price());
    (prices, number(), number(), option::of(price()), any::<bool>()).prop_map(
        |((open, high, low, close), volume, trades, vwap, updated)| Bar {
            open,
            high,
            low,
            close,
            volume,
            trades,
            vwap,
            updated,
        },
    )
}

/// A status.
pub(crate) fn status() -> impl Strategy<Value = Status> {
    let text =
        || prop_oneof![Just(String::new()), "[A-Z]{1,2}", "\\PC{0,60}"].prop_map(String::into_boxed_str);
    (text(), text(), text(), text(), tape()).prop_map(
        |(status_code, status_message, reason_code, reason_message, tape)| Status {
            status_code,
            status_message,
            reason_code,
            reason_message,
            tape,
        },
    )
}

/// A LULD band.
pub(crate) fn luld() -> impl Strategy<Value = Luld> {
    (price(), price(), (0x20_u8..=0x7e).prop_map(Code), tape())
        .prop_map(|(limit_up, limit_down, indicator, tape)| Luld { limit_up, limit_down, indicator, tape })
}

/// A correction.
pub(crate) fn correction() -> impl Strategy<Value = Correction> {
    let one = || (number(), price(), size(), conditions());
    (exchange(), one(), one(), tape()).prop_map(|(exchange, original, corrected, tape)| Correction {
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
    })
}

/// A cancel.
pub(crate) fn cancel() -> impl Strategy<Value = Cancel> {
    (number(), exchange(), price(), size(), any::<bool>(), tape()).prop_map(
        |(id, exchange, price, size, error, tape)| Cancel { id, exchange, price, size, error, tape },
    )
}

/// An event of one kind.
pub(crate) fn event_of(kind: Kind) -> BoxedStrategy<Event> {
    match kind {
        Kind::Trade => trade().prop_map(Event::Trade).boxed(),
        Kind::Quote => quote().prop_map(Event::Quote).boxed(),
        Kind::MinuteBar => bar().prop_map(Event::MinuteBar).boxed(),
        Kind::DayBar => bar().prop_map(|bar| Event::DayBar(Bar { updated: false, ..bar })).boxed(),
        Kind::Status => status().prop_map(|status| Event::Status(Box::new(status))).boxed(),
        Kind::Luld => luld().prop_map(Event::Luld).boxed(),
        Kind::Correction => correction().prop_map(|it| Event::Correction(Box::new(it))).boxed(),
        Kind::Cancel => cancel().prop_map(Event::Cancel).boxed(),
    }
}

/// An event of any kind.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop::sample::select(&Kind::ALL[..]).prop_flat_map(event_of)
}

/// One of `requests` requests.
pub(crate) fn request(requests: u8) -> impl Strategy<Value = RequestKey> {
    (1..=requests).prop_map(|number| RequestKey([number; 16]))
}

/// Where a row came from.
pub(crate) fn origin() -> impl Strategy<Value = Origin> {
    (time(), prop_oneof![4 => 0_u32..1000, 1 => any::<u32>()], request(4))
        .prop_map(|(received, index, request)| Origin { received, index, request })
}

/// A row of any kind of any symbol.
pub(crate) fn row() -> impl Strategy<Value = Row> {
    (symbol(), time(), event(), origin())
        .prop_map(|(symbol, time, event, origin)| Row { tick: Tick { symbol, time, event }, origin })
}

/// Up to `most` rows of any kind of any symbol.
pub(crate) fn rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    vec(row(), 0..=most)
}

/// Up to `most` rows of one series.
pub(crate) fn rows_of_one_series(most: usize) -> impl Strategy<Value = Vec<Row>> {
    (symbol(), prop::sample::select(&Kind::ALL[..])).prop_flat_map(move |(symbol, kind)| {
        let row = (time(), event_of(kind), origin())
            .prop_map(move |(time, event, origin)| Row { tick: Tick { symbol, time, event }, origin });
        vec(row, 0..=most)
    })
}
