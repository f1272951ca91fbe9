//! Frames and records, sealed on their way into a store and opened on their way out.

use std::sync::Arc;

use bytes::Bytes;

use crate::seal::{Keyring, SealKey};
use crate::store::{FrameRow, Record, Space, StoreError, TapeId, record_seal_key};
use crate::tape::Frame;
use crate::tape::frame::FRAME_VERSION;

/// What a frame is sealed for.
#[must_use]
pub fn frame_seal_key(tape: TapeId, seq: u64) -> SealKey {
    SealKey::new("frame").number(tape.0).number(seq)
}

/// Seals and opens what the tape stores.
#[derive(Clone)]
pub struct Sealed {
    keyring: Arc<Keyring>,
}

impl Sealed {
    /// With these keys.
    #[must_use]
    pub const fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// A frame's row. Equal frames make equal rows.
    #[must_use]
    pub fn seal_frame(&self, frame: &Frame) -> FrameRow {
        let body = self.keyring.seal(&frame_seal_key(frame.tape, frame.seq), &frame.encode());
        FrameRow { tape: frame.tape, seq: frame.seq, body }
    }

    /// The frame of a row.
    ///
    /// # Errors
    /// `Corrupt`, naming tape and seq; `Invalid` where a newer program has written it.
    pub fn open_frame(&self, row: &FrameRow) -> Result<Frame, StoreError> {
        let named =
            |why: String| StoreError::corrupt(format!("frame {} of tape {}: {why}", row.seq, row.tape));
        let payload = self
            .keyring
            .open(&frame_seal_key(row.tape, row.seq), &row.body)
            .map_err(|error| named(error.to_string()))?;
        if let Some(version) = payload.first().filter(|version| **version > FRAME_VERSION) {
            return Err(StoreError::invalid(format!(
                "frame {} of tape {} is of version {version}, and this program reads version {FRAME_VERSION}: a newer program writes that tape, run it here too",
                row.seq, row.tape
            )));
        }
        let frame = Frame::decode(&payload).map_err(|error| named(error.to_string()))?;
        if (frame.tape, frame.seq) == (row.tape, row.seq) {
            Ok(frame)
        } else {
            Err(named("it holds another frame".to_owned()))
        }
    }

    /// A record's row.
    #[must_use]
    pub fn seal_record(&self, space: Space, part: &str, key: &str, version: u64, body: &[u8]) -> Record {
        let body = self.keyring.seal(&record_seal_key(space, part, key, version), body);
        Record { key: key.to_owned(), version, body }
    }

    /// The body of a record.
    ///
    /// # Errors
    /// `Corrupt`, naming the row.
    pub fn open_record(&self, space: Space, part: &str, record: &Record) -> Result<Bytes, StoreError> {
        let key = record_seal_key(space, part, &record.key, record.version);
        self.keyring.open(&key, &record.body).map_err(|error| {
            StoreError::corrupt(format!("record {} {part} {}: {error}", space.name(), record.key))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;
    use crate::store::record_seal_key;

    #[test]
    fn the_golden_row_keys() {
        let frame = frame_seal_key(TapeId(0x0123_4567_89ab_cdef), 300);
        assert_eq!(frame.as_bytes(), golden::block("seal-key-frame"));
        let record = record_seal_key(Space::Marks, "local", "03", 5);
        assert_eq!(record.as_bytes(), golden::block("seal-key-record"));
    }
}
