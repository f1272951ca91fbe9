//! Ticks as the stream carries them, encoded once a form and shared by all who take that form.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::place::Place;
use crate::market::{Event, Row};
use crate::wire::{json, msgpack};

/// The bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Text.
    Json,
    /// Binary.
    MessagePack,
}

/// What a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The bytes.
    pub codec: Codec,
    /// Each tick says also when it was received (`r`) and its tick id (`id`).
    pub origins: bool,
}

impl Form {
    /// How many forms there are.
    pub(super) const COUNT: usize = 4;

    /// The place of this one.
    pub(super) const fn index(self) -> usize {
        let codec = match self.codec {
            Codec::Json => 0,
            Codec::MessagePack => 1,
        };
        codec * 2 + self.origins as usize
    }
}

/// A run of encoded ticks is cut into pieces of at most so many bytes, or one tick.
const PIECE_BYTES: usize = 64 * 1024;

/// A piece of at most so many bytes that is sent alone is kept as one message.
pub(super) const ALONE_BYTES_MAX: usize = 2 * 1024;

/// Some ticks, encoded. Of JSON each tick has a comma before it.
#[derive(Debug)]
pub struct Piece {
    /// The ticks, one after the other.
    pub bytes: Bytes,
    /// How many they are.
    pub ticks: u32,
    /// The place of who has everything before this piece and nothing of it.
    pub before: Place,
    /// There are bars in it.
    pub has_bars: bool,
    alone: OnceLock<Bytes>,
}

impl Piece {
    pub(super) fn new(bytes: Bytes, ticks: u32, before: &Place, has_bars: bool) -> Self {
        Self { bytes, ticks, before: before.clone(), has_bars, alone: OnceLock::new() }
    }

    /// The whole message of a small piece alone, made by the first who sends it so: most are, to many.
    pub fn alone(&self, make: impl FnOnce() -> Bytes) -> Option<Bytes> {
        (self.bytes.len() <= ALONE_BYTES_MAX).then(|| self.alone.get_or_init(make).clone())
    }
}

/// Encoded ticks, of which ranges can be cut.
#[derive(Debug)]
pub(super) struct Encoded {
    bytes: Bytes,
    /// Where each tick ends.
    ends: Vec<usize>,
    has_bars: bool,
}

impl Encoded {
    pub(super) fn new<'r>(rows: impl IntoIterator<Item = &'r Row>, form: Form) -> Self {
        let (mut out, mut ends, mut has_bars) = (Vec::new(), Vec::new(), false);
        for row in rows {
            has_bars |= matches!(row.tick.event, Event::MinuteBar(_) | Event::DayBar(_));
            write(row, form, &mut out);
            ends.push(out.len());
        }
        Self { bytes: Bytes::from(out), ends, has_bars }
    }

    fn start(&self, tick: usize) -> usize {
        tick.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default()
    }

    /// Pieces of a range of ticks.
    pub(super) fn pieces(&self, ticks: Range<usize>, before: &Place) -> Vec<Arc<Piece>> {
        let mut pieces = Vec::new();
        let mut first = ticks.start;
        while first < ticks.end {
            let from = self.start(first);
            let limit = from + PIECE_BYTES;
            let ends = self.ends.get(first..ticks.end).unwrap_or_default();
            let fitting = ends.partition_point(|end| *end <= limit).max(1);
            let to = self.start(first + fitting);
            let count = u32::try_from(fitting).unwrap_or(u32::MAX);
            // A small part of a large run would hold all of it.
            let small = (to - from) * 4 < self.bytes.len();
            let part = self.bytes.slice(from..to);
            let bytes = if small { Bytes::copy_from_slice(&part) } else { part };
            pieces.push(Arc::new(Piece::new(bytes, count, before, self.has_bars)));
            first += fitting;
        }
        pieces
    }

    /// All of it in pieces.
    pub(super) fn all(&self, before: &Place) -> Vec<Arc<Piece>> {
        self.pieces(0..self.ends.len(), before)
    }
}

fn write(row: &Row, form: Form, out: &mut Vec<u8>) {
    if form.codec == Codec::Json {
        out.push(b',');
    }
    let (tick, received) = (&row.tick, row.origin.received);
    match (form.codec, form.origins) {
        (Codec::Json, false) => json::write_stream(tick, out),
        (Codec::Json, true) => json::write_stream_with_origin(tick, received, &hex(row), out),
        (Codec::MessagePack, false) => msgpack::write_stream(tick, out),
        (Codec::MessagePack, true) => msgpack::write_stream_with_origin(tick, received, &hex(row), out),
    }
}

fn hex(row: &Row) -> String {
    let mut text = String::with_capacity(32);
    for byte in row.id().0 {
        _ = write!(text, "{byte:02x}");
    }
    text
}

/// The payload of a message of these pieces: an array, in parts that are sent one after the other.
#[must_use]
pub fn payload(pieces: &[Arc<Piece>], codec: Codec) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(pieces.len() + 2);
    match codec {
        Codec::Json => {
            parts.push(Bytes::from_static(b"["));
            for (at, piece) in pieces.iter().enumerate() {
                // The comma before the first tick goes.
                parts.push(if at == 0 { piece.bytes.slice(1..) } else { piece.bytes.clone() });
            }
            parts.push(Bytes::from_static(b"]"));
        }
        Codec::MessagePack => {
            let ticks = pieces.iter().map(|piece| piece.ticks).sum();
            let mut head = Vec::with_capacity(5);
            _ = rmp::encode::write_array_len(&mut head, ticks);
            parts.push(Bytes::from(head));
            parts.extend(pieces.iter().map(|piece| piece.bytes.clone()));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::fixtures::frame;

    fn encoded(form: Form) -> Encoded {
        Encoded::new(&frame(9, 1, 0, &["A", "B", "C"]).rows, form)
    }

    fn joined(parts: &[Bytes]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn a_payload_of_any_range_is_one_array() {
        let before = Place::default();
        let json = encoded(Form { codec: Codec::Json, origins: false });
        for range in [0..3, 1..3, 2..3] {
            let count = range.len();
            let text = joined(&payload(&json.pieces(range, &before), Codec::Json));
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value.as_array().unwrap().len(), count);
            assert_eq!(value[0]["T"], "t");
        }
        let packed = encoded(Form { codec: Codec::MessagePack, origins: false });
        let bytes = joined(&payload(&packed.all(&before), Codec::MessagePack));
        assert_eq!(bytes[0], 0x93);
        assert_eq!(&bytes[2..4], &[0xa1, b'T'], "T is the first key");
    }

    #[test]
    fn long_runs_are_cut_between_ticks() {
        let symbols: Vec<String> = (0..2_000).map(|number| format!("S{number}")).collect();
        let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
        let rows = frame(9, 1, 0, &symbols);
        let json = Encoded::new(&rows.rows, Form { codec: Codec::Json, origins: true });
        let pieces = json.all(&Place::default());
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.bytes.len() <= PIECE_BYTES));
        assert_eq!(pieces.iter().map(|piece| piece.ticks).sum::<u32>(), 2_000);
        let value: serde_json::Value =
            serde_json::from_slice(&joined(&payload(&pieces, Codec::Json))).unwrap();
        assert_eq!(value[7]["id"].as_str().unwrap().len(), 32);
        assert!(value[7]["r"].as_str().unwrap().ends_with('Z'));
    }
}
