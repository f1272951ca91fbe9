//! Ticks written as JSON.

use crate::market::{Conditions, Nanos, Price, Tick};
use crate::wire::shape::{self, Mark, Sink};

/// Appends the object that history serves: `t` first, no `T` and no `S`, and on a marked trade `u`.
pub fn write_history(tick: &Tick, mark: Option<Mark>, out: &mut Vec<u8>) {
    let mut object = Object { out, separator: b'{' };
    shape::history(tick, mark, &mut object);
    out.push(b'}');
}

/// Appends the message that the stream carries: `T` and `S` first, the rest in Alpaca's order.
pub fn write_stream(tick: &Tick, out: &mut Vec<u8>) {
    let mut object = Object { out, separator: b'{' };
    shape::stream(tick, &mut object);
    out.push(b'}');
}

/// The same with when the tick was received (`r`) and its tick id (`id`) at its end.
pub fn write_stream_with_origin(tick: &Tick, received: Nanos, id: &str, out: &mut Vec<u8>) {
    let mut object = Object { out, separator: b'{' };
    shape::stream(tick, &mut object);
    object.time("r", received);
    object.text("id", id);
    out.push(b'}');
}

/// Appends the stream message and a line feed: a line of NDJSON, as it is read again.
pub fn write_line(tick: &Tick, out: &mut Vec<u8>) {
    write_stream(tick, out);
    out.push(b'\n');
}

/// Appends a text in quotes, escaped.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => {
                let low = HEX.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// An object under way; the separator stands before its next key.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    separator: u8,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(&[self.separator, b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.separator = b',';
    }
}

impl Sink for Object<'_> {
    fn unknown(&mut self, key: &'static str) {
        self.key(key);
        self.out.extend_from_slice(b"null");
    }

    fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        write_text(text, self.out);
    }

    fn code(&mut self, key: &'static str, code: u8) {
        self.key(key);
        write_code(code, self.out);
    }

    fn integer(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn price(&mut self, key: &'static str, price: Price) {
        self.key(key);
        price.write(self.out);
    }

    fn time(&mut self, key: &'static str, time: Nanos) {
        self.key(key);
        self.out.push(b'"');
        time.write(self.out);
        self.out.push(b'"');
    }

    fn conditions(&mut self, key: &'static str, conditions: Conditions) {
        self.key(key);
        self.out.push(b'[');
        for (at, code) in conditions.codes().iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            write_code(*code, self.out);
        }
        self.out.push(b']');
    }
}

/// One printable ASCII character as a text.
fn write_code(code: u8, out: &mut Vec<u8>) {
    match code {
        b'"' | b'\\' => out.extend_from_slice(&[b'"', b'\\', code, b'"']),
        _ => out.extend_from_slice(&[b'"', code, b'"']),
    }
}
