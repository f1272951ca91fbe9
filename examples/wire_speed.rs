//! How fast ticks are read and written, beside serde_json in the same run.
//!
//! `cargo run --release --example wire_speed`
//!
//! serde_json is measured twice: into a typed struct with doubles and borrowed texts, which is
//! less than a tick (no exact price, no time, no symbol, no check of unknown fields), and into
//! such a struct and from there into a tick.

#![expect(clippy::print_stdout, reason = "a program that prints its result")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "its input is its own")]

use std::hint::black_box;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use tapeline::market::{Conditions, Event, Exchange, Nanos, Price, Quote, SipTape, Symbol, Tick, Trade};
use tapeline::wire::{BodyReader, Format, ReadLimits, json, msgpack};

const TICKS: u32 = 1_000;
const ROUNDS: u32 = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TradeIn<'a> {
    #[serde(rename = "T")]
    kind: &'a str,
    #[serde(rename = "S")]
    symbol: &'a str,
    i: u64,
    x: &'a str,
    p: f64,
    s: u32,
    #[serde(borrow)]
    c: Vec<&'a str>,
    z: &'a str,
    t: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExactIn<'a> {
    #[serde(rename = "T")]
    kind: &'a str,
    #[serde(rename = "S")]
    symbol: &'a str,
    i: u64,
    x: &'a str,
    #[serde(borrow)]
    p: &'a RawValue,
    s: u32,
    c: Vec<&'a str>,
    z: &'a str,
    t: &'a str,
}

fn main() {
    let trades: Vec<Tick> = (0..TICKS).map(trade).collect();
    let quotes: Vec<Tick> = (0..TICKS).map(quote).collect();
    let trade_lines = lines(&trades);
    let quote_lines = lines(&quotes);
    let trade_maps = maps(&trades);
    println!(
        "{TICKS} trades of {} and quotes of {} bytes a line, best of {ROUNDS} rounds",
        trade_lines.len() / trades.len(),
        quote_lines.len() / quotes.len()
    );
    let limits = ReadLimits::default();
    show("serde_json, trade, typed struct with doubles", || typed(&trade_lines));
    show("serde_json, trade, typed struct and then a tick", || exact(&trade_lines));
    show("tapeline, trade, one by one", || one_by_one(&trade_lines));
    show("tapeline, trade, NDJSON body", || body(Format::NdJson, limits, &trade_lines));
    show("tapeline, quote, NDJSON body", || body(Format::NdJson, limits, &quote_lines));
    show("tapeline, trade, MessagePack body", || body(Format::MsgPack, limits, &trade_maps));
    show("tapeline, trade, written as JSON", || lines(&trades).len());
    show("tapeline, quote, written as JSON", || lines(&quotes).len());
    show("tapeline, trade, written as MessagePack", || maps(&trades).len());
}

fn trade(number: u32) -> Tick {
    let conditions = [&b"@"[..], b"@I", b"@F", b" TI"];
    let cents = 15_000 + i64::from(number % 977);
    Tick {
        symbol: symbol(number),
        time: Nanos(1_704_292_200_000_000_000 + i64::from(number) * 1_234_567),
        event: Event::Trade(Trade {
            id: Some(52_983_525_000_000 + u64::from(number)),
            exchange: Exchange(b'A' + u8::try_from(number % 26).unwrap()),
            price: Price(cents * 10_000_000 + i64::from(number % 3) * 100_000),
            size: 1 + number % 400,
            conditions: Conditions::from_codes(conditions[number as usize % 4]).unwrap(),
            tape: SipTape::C,
        }),
    }
}

fn quote(number: u32) -> Tick {
    let cents = 15_000 + i64::from(number % 977);
    Tick {
        symbol: symbol(number),
        time: Nanos(1_704_292_200_000_000_000 + i64::from(number) * 1_234_567),
        event: Event::Quote(Quote {
            ask_exchange: Exchange(b'V'),
            ask_price: Price((cents + 1) * 10_000_000),
            ask_size: 100 + number % 900,
            bid_exchange: Exchange(b'Q'),
            bid_price: Price(cents * 10_000_000),
            bid_size: 100 + number % 700,
            conditions: Conditions::from_codes(b"R").unwrap(),
            tape: SipTape::C,
        }),
    }
}

fn symbol(number: u32) -> Symbol {
    let symbols = ["AAPL", "MSFT", "SPY", "F", "BRK.B", "GOOGL"];
    symbols[number as usize % symbols.len()].parse().unwrap()
}

fn lines(ticks: &[Tick]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ticks.len() * 160);
    ticks.iter().for_each(|tick| json::write_line(tick, &mut out));
    out
}

fn maps(ticks: &[Tick]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ticks.len() * 160);
    ticks.iter().for_each(|tick| msgpack::write_stream(tick, &mut out));
    out
}

fn typed(lines: &[u8]) -> usize {
    let mut count = 0;
    for line in each(lines) {
        let trade: TradeIn<'_> = serde_json::from_slice(line).unwrap();
        black_box((trade.kind, trade.symbol, trade.i, trade.x, trade.p, trade.s, &trade.c, trade.z, trade.t));
        count += 1;
    }
    count
}

fn exact(lines: &[u8]) -> usize {
    let mut count = 0;
    for line in each(lines) {
        let trade: ExactIn<'_> = serde_json::from_slice(line).unwrap();
        let conditions =
            trade.c.iter().try_fold(Conditions::default(), |all, code| all.with(code.as_bytes()));
        let tick = Tick {
            symbol: Symbol::parse(trade.symbol.as_bytes()).unwrap(),
            time: Nanos::parse(trade.t.as_bytes()).unwrap(),
            event: Event::Trade(Trade {
                id: Some(trade.i),
                exchange: Exchange::parse(trade.x.as_bytes()).unwrap(),
                price: Price::parse(trade.p.get().as_bytes()).unwrap(),
                size: trade.s,
                conditions: conditions.unwrap(),
                tape: SipTape::parse(trade.z.as_bytes()).unwrap(),
            }),
        };
        black_box((trade.kind, tick));
        count += 1;
    }
    count
}

fn one_by_one(lines: &[u8]) -> usize {
    let mut count = 0;
    for line in each(lines) {
        black_box(json::read_tick(line, 32).unwrap().unwrap());
        count += 1;
    }
    count
}

fn body(format: Format, limits: ReadLimits, bytes: &[u8]) -> usize {
    let mut reader = BodyReader::new(format, limits);
    let mut count = 0;
    let mut each = |_: u32, verdict: tapeline::wire::Verdict| {
        black_box(verdict.unwrap());
        count += 1;
    };
    for piece in bytes.chunks(16 * 1024) {
        reader.feed(piece, &mut each).unwrap();
    }
    reader.finish(&mut each).unwrap();
    count
}

fn each(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn show(what: &str, mut run: impl FnMut() -> usize) {
    let mut best = u128::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        black_box(run());
        best = best.min(begun.elapsed().as_nanos());
    }
    println!("{what:<50} {:>6} ns a tick", best / u128::from(TICKS));
}
