//! Rows of the registry of tapes: part = region, key = tape id in hexadecimal.
//!
//! A tape's row is durable before its first frame and put again, hourly or more often (time to
//! live 4 days), so that it outlives the frames (48 hours).

use super::codec::{CodecError, Fields, put_text, put_varint, version};
use crate::store::TapeId;

const TAPE_ROW_VERSION: u8 = 1;

/// What is registered of a tape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapeRow {
    /// The name of the node that writes it (at most 255 bytes).
    pub node: String,
    /// Where that node can be reached (at most 255 bytes).
    pub addr: String,
    /// The tape this one goes on from, and how far that one was acknowledged: it is closed.
    pub closes: Option<(TapeId, u64)>,
    /// The seq of the last frame, where the tape has ended cleanly.
    pub fin: Option<u64>,
    /// How far it was acknowledged when the row was written.
    pub low: u64,
}

impl TapeRow {
    /// The body of the row, unsealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![TAPE_ROW_VERSION];
        put_text(&self.node, &mut out);
        put_text(&self.addr, &mut out);
        out.push(u8::from(self.closes.is_some()));
        if let Some((tape, low)) = self.closes {
            out.extend_from_slice(&tape.0.to_be_bytes());
            put_varint(low, &mut out);
        }
        put_varint(self.fin.unwrap_or(0), &mut out);
        put_varint(self.low, &mut out);
        out
    }

    /// Reads the body of a row.
    ///
    /// # Errors
    /// [`CodecError`] names the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(bytes);
        version(&mut fields, TAPE_ROW_VERSION)?;
        let (node, addr) = (fields.text("node")?.to_owned(), fields.text("addr")?.to_owned());
        let closes = if fields.flag("closes")? {
            Some((TapeId(fields.fixed("closed tape")?), fields.varint("closed low")?))
        } else {
            None
        };
        let fin = Some(fields.varint("fin")?).filter(|seq| *seq > 0);
        let low = fields.varint("low")?;
        fields.end()?;
        Ok(Self { node, addr, closes, fin, low })
    }
}

/// The key of a tape's row.
#[must_use]
pub fn tape_key(tape: TapeId) -> String {
    tape.to_string()
}

/// Reads [`tape_key`] again.
#[must_use]
pub fn parse_tape_key(key: &str) -> Option<TapeId> {
    let canonical = key.len() == 16 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(key, 16).ok().map(TapeId)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_row() {
        let row = TapeRow {
            node: "n1".into(),
            addr: "127.0.0.1:8080".into(),
            closes: Some((TapeId(0xfedc_ba98_7654_3210), 300)),
            fin: Some(12),
            low: 11,
        };
        assert_eq!(row.encode(), crate::market::golden::block("record-tape"));
    }

    #[test]
    fn rows_round_trip() {
        let bare = TapeRow { node: "a".into(), addr: "127.0.0.1:1".into(), ..TapeRow::default() };
        let full = TapeRow { closes: Some((TapeId(7), 9)), fin: Some(12), low: 11, ..bare.clone() };
        for row in [bare, full] {
            assert_eq!(TapeRow::decode(&row.encode()), Ok(row.clone()));
            let bytes = row.encode();
            for cut in 0..bytes.len() {
                assert!(TapeRow::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
        assert_eq!(parse_tape_key(&tape_key(TapeId(0xab))), Some(TapeId(0xab)));
        assert_eq!(parse_tape_key("AB"), None);
    }
}
