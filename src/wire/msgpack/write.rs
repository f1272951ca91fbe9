//! Ticks written as MessagePack. Writing into a `Vec` cannot fail, so `rmp`'s results are let go.

use rmp::encode;

use crate::market::{Conditions, Nanos, Price, Tick};
use crate::wire::shape::{self, Sink};

/// Appends the message that the stream carries: `T` and `S` first, the rest in Alpaca's order.
pub fn write_stream(tick: &Tick, out: &mut Vec<u8>) {
    write(tick, out, |_| {});
}

/// The same with when the tick was received (`r`) and its tick id (`id`) at its end.
pub fn write_stream_with_origin(tick: &Tick, received: Nanos, id: &str, out: &mut Vec<u8>) {
    write(tick, out, |map| {
        map.time("r", received);
        map.text("id", id);
    });
}

fn write(tick: &Tick, out: &mut Vec<u8>, more: impl FnOnce(&mut Map<'_>)) {
    let head = out.len();
    out.push(0);
    let mut map = Map { out, count: 0 };
    shape::stream(tick, &mut map);
    more(&mut map);
    // No kind has more than 13 fields, so that the head of the map is one byte.
    let fixmap = 0x80 | (map.count & 0x0f);
    if let Some(byte) = out.get_mut(head) {
        *byte = fixmap;
    }
}

/// A map under way.
struct Map<'o> {
    out: &'o mut Vec<u8>,
    count: u8,
}

impl Map<'_> {
    fn key(&mut self, key: &str) {
        self.count += 1;
        _ = encode::write_str(self.out, key);
    }
}

impl Sink for Map<'_> {
    fn unknown(&mut self, key: &'static str) {
        self.key(key);
        _ = encode::write_nil(self.out);
    }

    fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        _ = encode::write_str(self.out, text);
    }

    fn code(&mut self, key: &'static str, code: u8) {
        self.key(key);
        // A string of one byte.
        self.out.extend_from_slice(&[0xa1, code]);
    }

    fn integer(&mut self, key: &'static str, value: u64) {
        self.key(key);
        _ = encode::write_uint(self.out, value);
    }

    fn price(&mut self, key: &'static str, price: Price) {
        self.key(key);
        _ = encode::write_f64(self.out, price.to_f64());
    }

    /// Timestamp 64: nanoseconds in 30 bits, seconds in 34 (1970 to 2514).
    fn time(&mut self, key: &'static str, time: Nanos) {
        self.key(key);
        let seconds = u64::try_from(time.0.div_euclid(Nanos::SECOND)).unwrap_or_default();
        let nanos = u64::try_from(time.0.rem_euclid(Nanos::SECOND)).unwrap_or_default();
        _ = encode::write_ext_meta(self.out, 8, -1);
        self.out.extend_from_slice(&((nanos << 34) | (seconds & 0x3_ffff_ffff)).to_be_bytes());
    }

    fn conditions(&mut self, key: &'static str, conditions: Conditions) {
        self.key(key);
        let codes = conditions.codes();
        _ = encode::write_array_len(self.out, u32::try_from(codes.len()).unwrap_or_default());
        for code in codes {
            self.out.extend_from_slice(&[0xa1, *code]);
        }
    }
}
