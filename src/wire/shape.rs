//! The objects that ticks are written as: which fields, in which order, for either format.

use crate::market::{Bar, Conditions, Event, Exchange, Nanos, Price, Quote, SipTape, Tick, Trade};

/// How history marks a trade (`u`) that was cancelled or corrected later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The trade was cancelled.
    Canceled,
    /// The trade was wrong; a corrected one stands beside it.
    Incorrect,
    /// This is the corrected trade.
    Corrected,
}

impl Mark {
    /// The text of the field `u`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Canceled => "canceled",
            Self::Incorrect => "incorrect",
            Self::Corrected => "corrected",
        }
    }
}

/// An object under way in one of the formats.
pub(super) trait Sink {
    fn text(&mut self, key: &'static str, text: &str);
    fn code(&mut self, key: &'static str, code: u8);
    fn integer(&mut self, key: &'static str, value: u64);
    fn price(&mut self, key: &'static str, price: Price);
    fn time(&mut self, key: &'static str, time: Nanos);
    fn conditions(&mut self, key: &'static str, conditions: Conditions);
    /// A value that is not known.
    fn unknown(&mut self, key: &'static str);
}

/// The object of history: `t` first, no kind and no symbol, `u` where the trade is marked.
pub(super) fn history(tick: &Tick, mark: Option<Mark>, sink: &mut impl Sink) {
    sink.time("t", tick.time);
    match &tick.event {
        Event::Trade(trade) => {
            exchange("x", trade.exchange, sink);
            price_and_size(trade, sink);
            if let Some(id) = trade.id {
                sink.integer("i", id);
            }
            tape(trade.tape, sink);
        }
        Event::Quote(quote) => {
            ask(quote, sink);
            bid(quote, sink);
            sink.conditions("c", quote.conditions);
            tape(quote.tape, sink);
        }
        event => {
            rest(event, sink);
            unknown_of_bar(event, sink);
            tape(tape_of(event), sink);
        }
    }
    if let Some(mark) = mark {
        sink.text("u", mark.as_str());
    }
}

/// The message of the stream: `T`, `S`, and the fields in the order that Alpaca sends them.
pub(super) fn stream(tick: &Tick, sink: &mut impl Sink) {
    sink.text("T", letter(&tick.event));
    sink.text("S", tick.symbol.as_str());
    match &tick.event {
        Event::Trade(trade) => {
            if let Some(id) = trade.id {
                sink.integer("i", id);
            }
            exchange("x", trade.exchange, sink);
            price_and_size(trade, sink);
            tape(trade.tape, sink);
        }
        Event::Quote(quote) => {
            bid(quote, sink);
            ask(quote, sink);
            sink.conditions("c", quote.conditions);
            tape(quote.tape, sink);
        }
        event @ (Event::Correction(_) | Event::Cancel(_)) => {
            rest(event, sink);
            tape(tape_of(event), sink);
        }
        event => rest(event, sink),
    }
    sink.time("t", tick.time);
    if let Event::Status(_) | Event::Luld(_) = &tick.event {
        tape(tape_of(&tick.event), sink);
    }
}

/// The letter of `T`, which tells an updated minute bar from a first one.
const fn letter(event: &Event) -> &'static str {
    match event {
        Event::Trade(_) => "t",
        Event::Quote(_) => "q",
        Event::MinuteBar(bar) if bar.updated => "u",
        Event::MinuteBar(_) => "b",
        Event::DayBar(_) => "d",
        Event::Status(_) => "s",
        Event::Luld(_) => "l",
        Event::Correction(_) => "c",
        Event::Cancel(_) => "x",
    }
}

fn price_and_size(trade: &Trade, sink: &mut impl Sink) {
    sink.price("p", trade.price);
    sink.integer("s", trade.size.into());
    sink.conditions("c", trade.conditions);
}

fn ask(quote: &Quote, sink: &mut impl Sink) {
    exchange("ax", quote.ask_exchange, sink);
    sink.price("ap", quote.ask_price);
    sink.integer("as", quote.ask_size.into());
}

fn bid(quote: &Quote, sink: &mut impl Sink) {
    exchange("bx", quote.bid_exchange, sink);
    sink.price("bp", quote.bid_price);
    sink.integer("bs", quote.bid_size.into());
}

/// The fields between symbol, time and tape of what is neither trade nor quote.
fn rest(event: &Event, sink: &mut impl Sink) {
    match event {
        Event::Trade(_) | Event::Quote(_) => {}
        Event::MinuteBar(bar) | Event::DayBar(bar) => write_bar(bar, sink),
        Event::Status(status) => {
            sink.text("sc", &status.status_code);
            sink.text("sm", &status.status_message);
            sink.text("rc", &status.reason_code);
            sink.text("rm", &status.reason_message);
        }
        Event::Luld(luld) => {
            sink.price("u", luld.limit_up);
            sink.price("d", luld.limit_down);
            sink.code("i", luld.indicator.0);
        }
        Event::Correction(correction) => {
            exchange("x", correction.exchange, sink);
            sink.integer("oi", correction.original_id);
            sink.price("op", correction.original_price);
            sink.integer("os", correction.original_size.into());
            sink.conditions("oc", correction.original_conditions);
            sink.integer("ci", correction.corrected_id);
            sink.price("cp", correction.corrected_price);
            sink.integer("cs", correction.corrected_size.into());
            sink.conditions("cc", correction.corrected_conditions);
        }
        Event::Cancel(cancel) => {
            sink.integer("i", cancel.id);
            exchange("x", cancel.exchange, sink);
            sink.price("p", cancel.price);
            sink.integer("s", cancel.size.into());
            sink.text("a", if cancel.error { "E" } else { "C" });
        }
    }
}

/// SDKs want every field of a bar of history: what its source did not tell is 0 trades and no average.
fn unknown_of_bar(event: &Event, sink: &mut impl Sink) {
    let (Event::MinuteBar(bar) | Event::DayBar(bar)) = event else { return };
    if bar.trades == 0 {
        sink.integer("n", 0);
    }
    if bar.vwap.is_none() {
        sink.unknown("vw");
    }
}

fn write_bar(bar: &Bar, sink: &mut impl Sink) {
    sink.price("o", bar.open);
    sink.price("h", bar.high);
    sink.price("l", bar.low);
    sink.price("c", bar.close);
    sink.integer("v", bar.volume);
    if bar.trades > 0 {
        sink.integer("n", bar.trades);
    }
    if let Some(vwap) = bar.vwap {
        sink.price("vw", vwap);
    }
}

fn exchange(key: &'static str, exchange: Exchange, sink: &mut impl Sink) {
    sink.code(key, exchange.0);
}

fn tape(tape: SipTape, sink: &mut impl Sink) {
    if let Some(letter) = tape.letter() {
        sink.code("z", letter);
    }
}

const fn tape_of(event: &Event) -> SipTape {
    match event {
        Event::Trade(trade) => trade.tape,
        Event::Quote(quote) => quote.tape,
        Event::MinuteBar(_) | Event::DayBar(_) => SipTape::ABSENT,
        Event::Status(status) => status.tape,
        Event::Luld(luld) => luld.tape,
        Event::Correction(correction) => correction.tape,
        Event::Cancel(cancel) => cancel.tape,
    }
}
