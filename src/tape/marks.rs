//! Marks: how far the blocks of a shard reach. Part = region, key = shard.
//!
//! A mark is written after the blocks it covers, so that any mark by any owner, older or newer,
//! is valid (I6).

use super::codec::{CodecError, Fields, put_varint, version};
use super::position::Position;
use crate::market::Symbol;

/// How many shards keepers share their work in.
pub const SHARDS: u8 = 16;

const MARK_VERSION: u8 = 1;

/// The shard of a symbol: FNV-1a of its text, modulo the number of shards.
#[must_use]
pub fn shard_of(symbol: Symbol, shards: u8) -> u8 {
    let hash = symbol.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV-1a mix the last bytes least; the high half is folded in.
    let folded = hash ^ (hash >> 32);
    u8::try_from(folded % u64::from(shards.max(1))).unwrap_or(0)
}

/// A shard's mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Every tick of the shard in a frame that this covers is in blocks.
    pub position: Position,
    /// How many blocks had been written for the shard, over all time. A store that has counted
    /// fewer has lost some.
    pub blocks: u64,
}

impl Mark {
    /// The body of the row, unsealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![MARK_VERSION];
        put_varint(self.blocks, &mut out);
        self.position.put(&mut out);
        out
    }

    /// Reads the body of a row.
    ///
    /// # Errors
    /// [`CodecError`] names the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(bytes);
        version(&mut fields, MARK_VERSION)?;
        let blocks = fields.varint("blocks")?;
        let position = Position::take(&mut fields)?;
        fields.end()?;
        Ok(Self { position, blocks })
    }
}

/// The key of a shard's row.
#[must_use]
pub fn shard_key(shard: u8) -> String {
    format!("{shard:02x}")
}

/// Reads [`shard_key`] again.
#[must_use]
pub fn parse_shard_key(key: &str) -> Option<u8> {
    u8::from_str_radix(key, 16).ok().filter(|shard| shard_key(*shard) == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::TapeId;
    use crate::tape::{Progress, Region, Seen};
    use std::collections::BTreeMap;

    #[test]
    fn the_golden_mark() {
        let position = Position::decode(&crate::market::golden::block("position")).unwrap();
        let mark = Mark { position, blocks: 300 };
        assert_eq!(mark.encode(), crate::market::golden::block("record-mark"));
    }

    #[test]
    fn marks_round_trip() {
        let position = Position {
            seen: BTreeMap::from([(Region::parse("local").unwrap(), Seen { list: 1, k: 2 })]),
            tapes: BTreeMap::from([(TapeId(3), Progress { next: 9, voids: [4, 7].into() })]),
        };
        let mark = Mark { position, blocks: 300 };
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark.clone()));
        let bytes = mark.encode();
        for cut in 0..bytes.len() {
            assert!(Mark::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(parse_shard_key(&shard_key(15)), Some(15));
        assert_eq!(parse_shard_key("0F"), None);
    }
}
