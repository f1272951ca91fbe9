//! The canonical bytes of a tick: what two ticks are compared and hashed by.
//!
//! `docs/FORMATS.md` section 1 defines them, with a golden example a kind. When and in
//! which request a tick came is not part of them. Numbers are big-endian.

use super::{Bar, Conditions, Event, SipTape, Tick};

/// The version byte in front.
pub const VERSION: u8 = 1;

/// Appends the canonical bytes of a tick.
pub fn write(tick: &Tick, out: &mut Vec<u8>) {
    out.extend_from_slice(&[VERSION, tick.kind().number()]);
    out.extend_from_slice(tick.symbol.padded());
    out.extend_from_slice(&tick.time.0.to_be_bytes());
    match &tick.event {
        Event::Trade(trade) => {
            put_id(trade.id, out);
            out.push(trade.exchange.0);
            out.extend_from_slice(&trade.price.0.to_be_bytes());
            out.extend_from_slice(&trade.size.to_be_bytes());
            put_conditions(trade.conditions, out);
            put_tape(trade.tape, out);
        }
        Event::Quote(quote) => {
            out.push(quote.ask_exchange.0);
            out.extend_from_slice(&quote.ask_price.0.to_be_bytes());
            out.extend_from_slice(&quote.ask_size.to_be_bytes());
            out.push(quote.bid_exchange.0);
            out.extend_from_slice(&quote.bid_price.0.to_be_bytes());
            out.extend_from_slice(&quote.bid_size.to_be_bytes());
            put_conditions(quote.conditions, out);
            put_tape(quote.tape, out);
        }
        Event::MinuteBar(bar) | Event::DayBar(bar) => put_bar(bar, out),
        Event::Status(status) => {
            for text in
                [&status.status_code, &status.status_message, &status.reason_code, &status.reason_message]
            {
                put_text(text, out);
            }
            put_tape(status.tape, out);
        }
        Event::Luld(luld) => {
            out.extend_from_slice(&luld.limit_up.0.to_be_bytes());
            out.extend_from_slice(&luld.limit_down.0.to_be_bytes());
            out.push(luld.indicator.0);
            put_tape(luld.tape, out);
        }
        Event::Correction(correction) => {
            out.push(correction.exchange.0);
            out.extend_from_slice(&correction.original_id.to_be_bytes());
            out.extend_from_slice(&correction.original_price.0.to_be_bytes());
            out.extend_from_slice(&correction.original_size.to_be_bytes());
            put_conditions(correction.original_conditions, out);
            out.extend_from_slice(&correction.corrected_id.to_be_bytes());
            out.extend_from_slice(&correction.corrected_price.0.to_be_bytes());
            out.extend_from_slice(&correction.corrected_size.to_be_bytes());
            put_conditions(correction.corrected_conditions, out);
            put_tape(correction.tape, out);
        }
        Event::Cancel(cancel) => {
            out.extend_from_slice(&cancel.id.to_be_bytes());
            out.push(cancel.exchange.0);
            out.extend_from_slice(&cancel.price.0.to_be_bytes());
            out.extend_from_slice(&cancel.size.to_be_bytes());
            out.push(u8::from(cancel.error));
            put_tape(cancel.tape, out);
        }
    }
}

/// The canonical bytes of a tick.
#[must_use]
pub fn bytes(tick: &Tick) -> Vec<u8> {
    let mut out = Vec::with_capacity(80);
    write(tick, &mut out);
    out
}

fn put_id(id: Option<u64>, out: &mut Vec<u8>) {
    out.push(u8::from(id.is_some()));
    out.extend_from_slice(&id.unwrap_or_default().to_be_bytes());
}

fn put_conditions(conditions: Conditions, out: &mut Vec<u8>) {
    put_bytes(conditions.codes(), out);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_bytes(text.as_bytes(), out);
}

/// A length byte and the bytes; what is longer than 255 bytes never gets here (`ingest` refuses it).
fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend_from_slice(bytes.get(..usize::from(length)).unwrap_or_default());
}

fn put_tape(tape: SipTape, out: &mut Vec<u8>) {
    out.push(tape.to_byte());
}

fn put_bar(bar: &Bar, out: &mut Vec<u8>) {
    for price in [bar.open, bar.high, bar.low, bar.close] {
        out.extend_from_slice(&price.0.to_be_bytes());
    }
    out.extend_from_slice(&bar.volume.to_be_bytes());
    out.extend_from_slice(&bar.trades.to_be_bytes());
    out.push(u8::from(bar.vwap.is_some()));
    out.extend_from_slice(&bar.vwap.unwrap_or_default().0.to_be_bytes());
    out.push(u8::from(bar.updated));
}
