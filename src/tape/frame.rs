//! Frames: what a node flushed together, the unit that is durable, followed and replayed.
//!
//! A frame's payload is a header of varints and one columnar table of its rows, sorted by
//! series (`docs/FORMATS.md`, section 5). The header tells how far the tape is acknowledged
//! (`low`), when the node sealed the frame, and which ticks of which requests it holds.

use std::fmt;

use super::codec::{CodecError, Fields, put_text, put_varint, version};
use crate::market::table::{self, TableError};
use crate::market::{Event, Nanos, RequestKey, Row};
use crate::store::TapeId;

/// The most bytes a frame's payload has.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// The most pieces of requests in a frame.
pub const FRAME_PIECES_MAX: usize = 16 * 1024;

pub(super) const FRAME_VERSION: u8 = 1;
const FLAG_FIN: u8 = 1;
const FRAME_HEADER_BYTES: usize = 128;
const PIECE_BYTES: usize = 48;

/// The name of a region: 1 to 16 of `a-z`, `0-9` and `-`, such as `local` or `us-east-1`, held inline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region([u8; Self::MAX_LEN]);

/// Why a text is no name of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a region: 1 to 16 of a-z, 0-9 and '-'")]
pub struct RegionError;

impl Region {
    /// The most characters of a name.
    pub const MAX_LEN: usize = 16;

    /// Parses a name.
    ///
    /// # Errors
    /// [`RegionError`] when the length or a character is not allowed.
    pub fn parse(text: &str) -> Result<Self, RegionError> {
        let mut bytes = [0; Self::MAX_LEN];
        let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.as_bytes().iter().all(allowed) {
            return Err(RegionError);
        }
        for (slot, byte) in bytes.iter_mut().zip(text.as_bytes()) {
            *slot = *byte;
        }
        Ok(Self(bytes))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(Self::MAX_LEN);
        self.0.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// 128 bits of the hash of a request's decompressed body. All zeros: numbered lines, whose
/// numbering and not their grouping is the identity.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyHash(pub [u8; 16]);

impl BodyHash {
    /// Numbered lines.
    pub const LINES: Self = Self([0; 16]);

    /// The hash of a body, of which `digest` is the 256-bit BLAKE3 hash.
    #[must_use]
    pub fn of_digest(digest: &[u8; 32]) -> Self {
        let mut half = [0; 16];
        for (slot, byte) in half.iter_mut().zip(digest) {
            *slot = *byte;
        }
        // All zeros is taken; that a hash is all zeros never happens, and costs nothing to rule out.
        if half == [0; 16] { Self([1; 16]) } else { Self(half) }
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A run of ticks of one request: `count` of them, from position `first` of the request's body
/// (of numbered lines: from the line of that number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// The request.
    pub request: RequestKey,
    /// Its body.
    pub body: BodyHash,
    /// Position of the first tick in the body.
    pub first: u32,
    /// Number of ticks.
    pub count: u32,
    /// History takes them; live streams and latest values do not.
    pub backfill: bool,
}

impl Piece {
    /// One past the position of the last tick.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

/// What a node flushed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The tape.
    pub tape: TapeId,
    /// The number on the tape, from 1.
    pub seq: u64,
    /// Every seq up to this one was acknowledged when the frame was sealed.
    pub low: u64,
    /// The region that writes the tape.
    pub home: Region,
    /// When it was sealed, by the node that sealed it.
    pub received: Nanos,
    /// The last frame of the tape: nothing follows, ever.
    pub fin: bool,
    /// Which ticks of which requests it holds.
    pub pieces: Vec<Piece>,
    /// The ticks, sorted by series (stable). `origin.received` is `received` in all of them.
    pub rows: Vec<Row>,
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The header is damaged.
    #[error("frame header: {0}")]
    Header(#[from] CodecError),
    /// The table is damaged.
    #[error("frame table: {0}")]
    Table(#[from] TableError),
    /// Longer than a frame may be.
    #[error("a frame of {0} bytes, expected at most {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// Header and table do not agree.
    #[error("{pieces} ticks in the pieces of the header, {rows} in the table")]
    Counts {
        /// Ticks by the header.
        pieces: u64,
        /// Rows of the table.
        rows: usize,
    },
}

impl Frame {
    /// The payload, unsealed. Equal frames have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut requests: Vec<(RequestKey, BodyHash)> = Vec::new();
        let mut numbers = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let request = (piece.request, piece.body);
            // Pieces of one request follow each other: the last is nearly always the one.
            let number = requests.iter().rposition(|known| *known == request).unwrap_or_else(|| {
                requests.push(request);
                requests.len() - 1
            });
            numbers.push(number);
        }
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + self.rows.len() * 24);
        out.push(FRAME_VERSION);
        out.extend_from_slice(&self.tape.0.to_be_bytes());
        put_varint(self.seq, &mut out);
        put_varint(self.low, &mut out);
        put_text(self.home.as_str(), &mut out);
        out.extend_from_slice(&self.received.0.to_be_bytes());
        out.push(if self.fin { FLAG_FIN } else { 0 });
        put_varint(requests.len() as u64, &mut out);
        for (key, body) in &requests {
            out.extend_from_slice(&key.0);
            out.extend_from_slice(&body.0);
        }
        put_varint(self.pieces.len() as u64, &mut out);
        for (piece, number) in self.pieces.iter().zip(numbers) {
            put_varint(((number as u64) << 1) | u64::from(piece.backfill), &mut out);
            put_varint(u64::from(piece.first), &mut out);
            put_varint(u64::from(piece.count), &mut out);
        }
        if !self.rows.is_empty() {
            let keys: Vec<RequestKey> = requests.iter().map(|(key, _)| *key).collect();
            out.extend_from_slice(&table::encode_frame(&self.rows, &keys));
        }
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`FrameError`] names what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(bytes.len()));
        }
        let mut fields = Fields::new(bytes);
        version(&mut fields, FRAME_VERSION)?;
        let tape = TapeId(fields.fixed("tape")?);
        let seq = fields.varint("seq")?;
        let low = fields.varint("low")?;
        if seq == 0 || low >= seq {
            return Err(CodecError::invalid("low", low, "less than seq, which is above 0").into());
        }
        let home = Region::parse(fields.text("home")?)
            .map_err(|_| CodecError::invalid("home", 0, "1 to 16 of a-z, 0-9 and '-'"))?;
        let received = Nanos(fields.fixed("received")?.cast_signed());
        let fin = fields.flag("fin")?;
        let mut requests = Vec::new();
        for _ in 0..fields.count(FRAME_PIECES_MAX, "requests")? {
            requests.push((RequestKey(fields.array("request")?), BodyHash(fields.array("body")?)));
        }
        let pieces = decode_pieces(&mut fields, &requests)?;
        let expected: u64 = pieces.iter().map(|piece| u64::from(piece.count)).sum();
        let keys: Vec<RequestKey> = requests.iter().map(|(key, _)| *key).collect();
        let rows = match fields.rest() {
            [] => Vec::new(),
            table => table::decode_frame(table, &keys, received)?,
        };
        if expected != rows.len() as u64 {
            return Err(FrameError::Counts { pieces: expected, rows: rows.len() });
        }
        Ok(Self { tape, seq, low, home, received, fin, pieces, rows })
    }

    /// Bytes that the frame takes in memory, nearly.
    #[must_use]
    pub fn memory(&self) -> usize {
        let rows: usize = self.rows.iter().map(table::row_bytes).sum();
        size_of::<Self>() + self.pieces.len() * size_of::<Piece>() + rows
    }
}

fn decode_pieces(
    fields: &mut Fields<'_>,
    requests: &[(RequestKey, BodyHash)],
) -> Result<Vec<Piece>, CodecError> {
    let mut pieces = Vec::new();
    for _ in 0..fields.count(FRAME_PIECES_MAX, "pieces")? {
        let number = fields.varint("piece's request")?;
        let (request, body) = usize::try_from(number >> 1)
            .ok()
            .and_then(|at| requests.get(at))
            .ok_or(CodecError::invalid("piece's request", number >> 1, "the number of a request"))?;
        let (first, count) = (fields.varint32("piece's first")?, fields.varint32("piece's count")?);
        if first.checked_add(count).is_none() || count == 0 {
            return Err(CodecError::invalid("piece's count", u64::from(count), "1 to 4294967295 - first"));
        }
        let backfill = number & 1 == 1;
        pieces.push(Piece { request: *request, body: *body, first, count, backfill });
    }
    Ok(pieces)
}

/// The most bytes that a row adds to a frame's payload.
#[must_use]
pub fn row_weight(row: &Row) -> usize {
    // Symbol, kind, time, index and number of the request, with their lengths, uncompressed.
    let common = 17 + 1 + 9 + 5 + 5;
    common
        + match &row.tick.event {
            Event::Trade(_) => 36,
            Event::Quote(_) => 42,
            Event::MinuteBar(_) | Event::DayBar(_) => 66,
            Event::Luld(_) => 22,
            Event::Cancel(_) => 28,
            Event::Correction(_) => 72,
            Event::Status(status) => {
                8 + status.status_code.len()
                    + status.status_message.len()
                    + status.reason_code.len()
                    + status.reason_message.len()
            }
        }
}

/// The most bytes that these rows of one request add to a frame's payload.
#[must_use]
pub fn weight(rows: &[Row]) -> usize {
    let mut pieces = 0;
    let mut last = None;
    for row in rows {
        if last.is_none_or(|index: u32| index.checked_add(1) != Some(row.origin.index)) {
            pieces += 1;
        }
        last = Some(row.origin.index);
    }
    rows.iter().map(row_weight).sum::<usize>() + pieces * PIECE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;
    use crate::tape::fixtures::{frame, region, row};
    use proptest::prelude::*;

    /// The frame of `docs/FORMATS.md`, section 5.
    fn golden_frame() -> Frame {
        let request = RequestKey([0xa1; 16]);
        let piece =
            |first, count, backfill| Piece { request, body: BodyHash([0xb2; 16]), first, count, backfill };
        let received = Nanos(1_704_292_200_500_000_000);
        let rows = [0, 1, 3].map(|index| {
            let mut row = row("AAPL", index);
            (row.origin.request, row.origin.received) = (request, received);
            row
        });
        Frame {
            tape: TapeId(0x0123_4567_89ab_cdef),
            seq: 300,
            low: 298,
            home: region("local"),
            received,
            fin: false,
            pieces: vec![piece(0, 2, false), piece(3, 1, true)],
            rows: rows.into(),
        }
    }

    #[test]
    fn the_golden_frame() {
        assert_eq!(Frame::decode(&golden::block("frame")).unwrap(), golden_frame());
        let fin = Frame { fin: true, pieces: Vec::new(), rows: Vec::new(), ..golden_frame() };
        assert_eq!(fin.encode(), golden::block("frame-fin"));
        assert_eq!(Frame::decode(&golden::block("frame-fin")).unwrap(), fin);
    }

    #[test]
    fn frames_round_trip_and_every_cut_is_refused() {
        let original = golden_frame();
        let bytes = original.encode();
        assert_eq!(Frame::decode(&bytes).unwrap(), original);
        assert_eq!(original.encode(), bytes, "one frame has one form");
        for cut in 0..bytes.len() {
            assert!(Frame::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(matches!(Frame::decode(&vec![1; FRAME_BYTES_MAX + 1]), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn header_and_table_must_agree() {
        let mut wrong = golden_frame();
        wrong.pieces[0].count = 3;
        assert!(matches!(Frame::decode(&wrong.encode()), Err(FrameError::Counts { pieces: 4, rows: 3 })));
        let low = Frame { low: 300, ..golden_frame() };
        assert!(matches!(Frame::decode(&low.encode()), Err(FrameError::Header(_))));
    }

    #[test]
    fn weight_bounds_the_payload() {
        let names: Vec<String> = (0..400).map(|number| format!("S{number}.{}", number % 7)).collect();
        let symbols: Vec<&str> = names.iter().map(String::as_str).collect();
        for many in [1, 2, 50, 400] {
            let frame = frame(1, 1, 0, &symbols[..many]);
            let mut sorted = Frame::clone(&frame);
            sorted.rows.sort_by_key(|row| row.tick.series());
            assert!(sorted.encode().len() <= FRAME_HEADER_BYTES + weight(&sorted.rows), "{many}");
        }
    }

    #[test]
    fn names_of_regions() {
        assert_eq!(region("us-east-1").as_str(), "us-east-1");
        for wrong in ["", "A", "a b", "abcdefghijklmnopq", "\u{e4}"] {
            assert_eq!(Region::parse(wrong), Err(RegionError), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..400, bit in 0_u8..8) {
            let _ = Frame::decode(&bytes);
            let mut flipped = golden_frame().encode();
            if let Some(byte) = flipped.get_mut(at) {
                *byte ^= 1 << bit;
                let _ = Frame::decode(&flipped);
            }
        }
    }
}
