//! The bytes of segments (`docs/FORMATS.md`, section 7). Numbers are big-endian.
//!
//! | part | bytes |
//! |---|---|
//! | header | `TLSEGMT1`, envelope of (segment u64, first number u64, bytes of the segment u32), zeros to 4,096 |
//! | record | `TLRC`, length of the envelope u32, envelope of (number u64, durable u64, tape u64, seq u64, frame), zeros to a multiple of 8 |
//! | index | `TLIX`, length of the envelope u32, envelope of (number after the last u64, entries of (tape u64, seq u64, offset u32, length u32) by tape and seq), offset of the index u64, `TLINDEX1` |
//!
//! The envelope of a record is sealed for its segment and offset, so that a record means
//! something only where it was written.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::seal::{ENVELOPE_BYTES, Keyring, SealError, SealKey};
use crate::store::TapeId;

pub(super) const HEADER_BYTES: u32 = 4096;
pub(super) const RECORD_MAGIC: &[u8; 4] = b"TLRC";
/// Records begin at multiples of this.
pub(super) const ALIGN: u64 = 8;
pub(super) const TRAILER_BYTES: u64 = 16;
/// Bytes of the index that do not grow with its entries.
pub(super) const ENTRY_BYTES: usize = 24;

const HEADER_MAGIC: &[u8; 8] = b"TLSEGMT1";
const HEADER_USED: usize = 8 + ENVELOPE_BYTES + 20;
const INDEX_MAGIC: &[u8; 4] = b"TLIX";
const TRAILER_MAGIC: &[u8; 8] = b"TLINDEX1";
const PREFIX_BYTES: usize = 8;
const FIELDS_BYTES: usize = 32;
/// What a record adds to a frame, before padding.
pub(super) const RECORD_OVERHEAD: usize = PREFIX_BYTES + ENVELOPE_BYTES + FIELDS_BYTES;

/// The next multiple of [`ALIGN`].
pub(super) const fn aligned(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGN)
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) segment: u64,
    /// The first number it holds; what older segments hold from here on was taken back.
    pub(super) first: u64,
    pub(super) bytes: u32,
}

impl Header {
    pub(super) fn encode(self, keyring: &Keyring) -> Vec<u8> {
        let mut payload = Vec::with_capacity(20);
        payload.put_u64(self.segment);
        payload.put_u64(self.first);
        payload.put_u32(self.bytes);
        let mut out = HEADER_MAGIC.to_vec();
        out.extend_from_slice(&keyring.seal(&header_key(self.segment), &payload));
        out
    }

    /// Reads the header of the segment with this number; the reason where it is none.
    pub(super) fn decode(keyring: &Keyring, segment: u64, file: &[u8]) -> Result<Self, String> {
        let used = file.get(..HEADER_USED).ok_or("the file is shorter than a header")?;
        let sealed = used.strip_prefix(HEADER_MAGIC).ok_or("it does not begin with `TLSEGMT1`")?;
        let mut payload =
            keyring.check(&header_key(segment), sealed).map_err(|error| format!("the header {error}"))?;
        let header = Self { segment: payload.get_u64(), first: payload.get_u64(), bytes: payload.get_u32() };
        if header.segment != segment || header.first == 0 {
            return Err(format!("the header names segment {} from number {}", header.segment, header.first));
        }
        Ok(header)
    }
}

/// A record without its frame's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) durable: u64,
    pub(super) tape: TapeId,
    pub(super) seq: u64,
}

/// Where a record is in its segment: the offset of its magic, and the bytes of its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Location {
    /// The offset after the record, without padding.
    pub(super) fn end(self) -> u64 {
        u64::from(self.offset) + PREFIX_BYTES as u64 + u64::from(self.length)
    }

    /// The bytes of the record, without padding.
    pub(super) const fn record_bytes(self) -> usize {
        PREFIX_BYTES + self.length as usize
    }
}

impl Record {
    /// Appends the record that stands at `offset` of its segment to `out`, with padding.
    pub(super) fn encode(
        &self,
        keyring: &Keyring,
        segment: u64,
        offset: u32,
        body: &[u8],
        out: &mut BytesMut,
    ) -> Location {
        let begin = out.len();
        let mut payload = Vec::with_capacity(FIELDS_BYTES + body.len());
        payload.put_u64(self.number);
        payload.put_u64(self.durable);
        payload.put_u64(self.tape.0);
        payload.put_u64(self.seq);
        payload.extend_from_slice(body);
        // A frame is at most half a segment, and a segment's bytes are a u32.
        let length = u32::try_from(ENVELOPE_BYTES + payload.len()).unwrap_or(u32::MAX);
        out.put_slice(RECORD_MAGIC);
        out.put_u32(length);
        keyring.seal_into(&record_key(segment, offset), &payload, out);
        out.put_bytes(0, (out.len() - begin).next_multiple_of(8) - (out.len() - begin));
        Location { offset, length }
    }

    /// Reads the record at `offset` from `bytes`, which begin there and may go on behind it.
    /// Answers it with the bytes of its envelope and its frame.
    pub(super) fn decode<'a>(
        keyring: &Keyring,
        segment: u64,
        offset: u32,
        bytes: &'a [u8],
    ) -> Result<(Self, Location, &'a [u8]), RecordError> {
        let rest = bytes.strip_prefix(RECORD_MAGIC).ok_or(RecordError::NoMagic)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(RecordError::Length)?;
        let length = u32::from_be_bytes(*length);
        let sealed = rest.get(..length as usize).ok_or(RecordError::Length)?;
        let payload = keyring.check(&record_key(segment, offset), sealed).map_err(RecordError::Seal)?;
        let (mut fields, body) = payload.split_at_checked(FIELDS_BYTES).ok_or(RecordError::Length)?;
        let record = Self {
            number: fields.get_u64(),
            durable: fields.get_u64(),
            tape: TapeId(fields.get_u64()),
            seq: fields.get_u64(),
        };
        Ok((record, Location { offset, length }, body))
    }
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("does not begin with `TLRC`")]
    NoMagic,
    #[error("is longer than the file")]
    Length,
    #[error("{0}")]
    Seal(SealError),
}

/// One record in the index of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) tape: TapeId,
    pub(super) seq: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Entry {
    pub(super) const fn location(&self) -> Location {
        Location { offset: self.offset, length: self.length }
    }
}

/// The index and the trailer that stand at `offset` of a finished segment.
pub(super) fn encode_index(
    keyring: &Keyring,
    segment: u64,
    offset: u64,
    end: u64,
    entries: &[Entry],
) -> Option<Vec<u8>> {
    let mut payload = Vec::with_capacity(8 + entries.len() * ENTRY_BYTES);
    payload.put_u64(end);
    for entry in entries {
        payload.put_u64(entry.tape.0);
        payload.put_u64(entry.seq);
        payload.put_u32(entry.offset);
        payload.put_u32(entry.length);
    }
    let mut out = BytesMut::with_capacity(payload.len() + 64);
    out.put_slice(INDEX_MAGIC);
    out.put_u32(u32::try_from(ENVELOPE_BYTES + payload.len()).ok()?);
    keyring.seal_into(&index_key(segment, offset), &payload, &mut out);
    out.put_u64(offset);
    out.put_slice(TRAILER_MAGIC);
    Some(out.to_vec())
}

/// The offset of the index that a trailer names; `None` where the bytes are no trailer.
pub(super) fn decode_trailer(bytes: &[u8]) -> Option<u64> {
    let (offset, magic) = bytes.split_first_chunk::<8>()?;
    (magic == TRAILER_MAGIC).then(|| u64::from_be_bytes(*offset))
}

/// Reads the index at `offset`: the number after the segment's last, and the entries.
pub(super) fn decode_index(
    keyring: &Keyring,
    segment: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<(u64, Vec<Entry>), String> {
    let rest = bytes.strip_prefix(INDEX_MAGIC).ok_or("it does not begin with `TLIX`")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
    let sealed = rest.get(..u32::from_be_bytes(*length) as usize).ok_or("it is cut short")?;
    let payload =
        keyring.check(&index_key(segment, offset), sealed).map_err(|error| format!("it {error}"))?;
    let mut payload = Bytes::copy_from_slice(payload);
    let end = payload.try_get_u64().map_err(|_| "it is cut short")?;
    let mut entries = Vec::with_capacity(payload.len() / ENTRY_BYTES);
    while payload.len() >= ENTRY_BYTES {
        let (tape, seq) = (TapeId(payload.get_u64()), payload.get_u64());
        entries.push(Entry { tape, seq, offset: payload.get_u32(), length: payload.get_u32() });
    }
    Ok((end, entries))
}

fn header_key(segment: u64) -> SealKey {
    SealKey::new("log-segment").number(segment)
}

fn record_key(segment: u64, offset: u32) -> SealKey {
    SealKey::new("log-record").number(segment).number(u64::from(offset))
}

fn index_key(segment: u64, offset: u64) -> SealKey {
    SealKey::new("log-index").number(segment).number(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;

    fn golden_ring() -> Keyring {
        Keyring::from_secret(std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    /// The bytes of `docs/FORMATS.md`, section 7.
    #[test]
    fn the_golden_header_record_and_index() {
        let ring = golden_ring();
        let header = Header { segment: 1, first: 1, bytes: 65_536 };
        let mut out = BytesMut::new();
        let record = Record { number: 2, durable: 1, tape: TapeId(7), seq: 3 };
        let location = record.encode(&ring, 1, 4096, b"abc", &mut out);
        let entry = Entry { tape: TapeId(7), seq: 3, offset: 4096, length: location.length };
        let index = encode_index(&ring, 1, 4168, 3, &[entry]).unwrap();
        assert_eq!(header.encode(&ring), golden::block("log-header"));
        assert_eq!(out, golden::block("log-record"));
        assert_eq!(index, golden::block("log-index"));
    }

    #[test]
    fn parts_read_as_they_were_written() {
        let ring = golden_ring();
        let header = Header { segment: 9, first: 5, bytes: 65_536 };
        assert_eq!(Header::decode(&ring, 9, &header.encode(&ring)), Ok(header));
        assert!(Header::decode(&ring, 8, &header.encode(&ring)).is_err(), "another file's header");
        let mut out = BytesMut::new();
        let record = Record { number: 2, durable: 1, tape: TapeId(7), seq: 3 };
        let location = record.encode(&ring, 9, 4096, b"frame", &mut out);
        assert_eq!(Record::decode(&ring, 9, 4096, &out), Ok((record, location, b"frame".as_slice())));
        assert!(Record::decode(&ring, 9, 4104, &out).is_err(), "a record moved to another offset");
        let entries = [Entry { tape: TapeId(7), seq: 3, offset: 4096, length: location.length }];
        let index = encode_index(&ring, 9, 4200, 3, &entries).unwrap();
        assert_eq!(decode_index(&ring, 9, 4200, &index), Ok((3, entries.to_vec())));
        assert_eq!(decode_trailer(&index[index.len() - 16..]), Some(4200));
    }
}
