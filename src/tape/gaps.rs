//! Gaps: ranges of tapes that a region will never have. Part = region, key = tape and first seq.
//!
//! A gap is durable before a follower passes it (I4), and every reader shows it until a rebuild
//! closes it.

use super::codec::{CodecError, Fields, put_varint, version};
use crate::market::Nanos;
use crate::store::TapeId;

const GAP_VERSION: u8 = 1;

/// Why there is a gap. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GapReason {
    /// The frames lived too long ago.
    Expired = 1,
    /// The database lost acknowledged frames.
    Missing = 2,
}

/// A range of a tape that a region does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRow {
    /// The tape.
    pub tape: TapeId,
    /// The first seq.
    pub first: u64,
    /// The last seq.
    pub last: u64,
    /// Why.
    pub reason: GapReason,
    /// Nothing received before this is in the gap (what the follower last applied of the tape; 0: not known).
    pub from: Nanos,
    /// Nothing received after this is in the gap, by the clock of who found it.
    pub to: Nanos,
}

impl GapRow {
    /// The key of the row.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}-{:016x}", self.tape, self.first)
    }

    /// The body of the row, unsealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![GAP_VERSION];
        out.extend_from_slice(&self.tape.0.to_be_bytes());
        put_varint(self.first, &mut out);
        put_varint(self.last, &mut out);
        out.push(self.reason as u8);
        out.extend_from_slice(&self.from.0.to_be_bytes());
        out.extend_from_slice(&self.to.0.to_be_bytes());
        out
    }

    /// Reads the body of a row.
    ///
    /// # Errors
    /// [`CodecError`] names the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(bytes);
        version(&mut fields, GAP_VERSION)?;
        let tape = TapeId(fields.fixed("tape")?);
        let (first, last) = (fields.varint("first")?, fields.varint("last")?);
        let reason = match fields.byte("reason")? {
            1 => GapReason::Expired,
            2 => GapReason::Missing,
            other => return Err(CodecError::invalid("reason", u64::from(other), "1 or 2")),
        };
        let from = Nanos(fields.fixed("from")?.cast_signed());
        let to = Nanos(fields.fixed("to")?.cast_signed());
        fields.end()?;
        if first == 0 || last < first {
            return Err(CodecError::invalid("last", last, "at least first, which is above 0"));
        }
        Ok(Self { tape, first, last, reason, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_gap() {
        let gap = GapRow {
            tape: TapeId(0x0123_4567_89ab_cdef),
            first: 3,
            last: 300,
            reason: GapReason::Expired,
            from: Nanos(1_704_292_200_500_000_000),
            to: Nanos(1_704_292_201_500_000_000),
        };
        assert_eq!(gap.encode(), crate::market::golden::block("record-gap"));
        assert_eq!(gap.key(), "0123456789abcdef-0000000000000003");
    }

    #[test]
    fn rows_round_trip() {
        let gap = GapRow {
            tape: TapeId(5),
            first: 3,
            last: 900,
            reason: GapReason::Missing,
            from: Nanos(5),
            to: Nanos(77),
        };
        assert_eq!(GapRow::decode(&gap.encode()), Ok(gap));
        let bytes = gap.encode();
        for cut in 0..bytes.len() {
            assert!(GapRow::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(gap.key(), "0000000000000005-0000000000000003");
    }
}
