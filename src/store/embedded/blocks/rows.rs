//! The rows in bytes. Numbers are big-endian; signed ones have their top bit flipped, so that
//! the order of the bytes is the order of the numbers.

use bytes::{Buf as _, BufMut as _};

use crate::market::{Bucket, Kind, Nanos, Symbol};
use crate::seal::{Keyring, SealError, SealKey};
use crate::store::{BlockKey, BlockRow, BucketKey};

pub(super) const SYMBOL_BYTES: usize = Symbol::MAX_LEN;
pub(super) const BUCKET_BYTES: usize = SYMBOL_BYTES + 8;
pub(super) const BLOCK_BYTES: usize = BUCKET_BYTES + 1 + 8 + 16;
/// Kinds have the numbers 1 to 8.
pub(super) const KINDS: usize = 8;

const fn ordered(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}

const fn unordered(bits: u64) -> i64 {
    (bits ^ (1 << 63)).cast_signed()
}

pub(super) fn bucket_key(key: &BucketKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK_BYTES);
    out.put_slice(key.symbol.padded());
    out.put_u64(ordered(key.bucket.0));
    out
}

/// What the keys of all blocks of a kind in a bucket begin with.
pub(super) fn kind_prefix(key: &BucketKey, kind: Kind) -> Vec<u8> {
    let mut out = bucket_key(key);
    out.put_u8(kind.number());
    out
}

pub(super) fn block_key(key: &BucketKey, block: &BlockKey) -> Vec<u8> {
    let mut out = kind_prefix(key, block.kind);
    out.put_u64(ordered(block.first.0));
    out.put_slice(&block.id);
    out
}

/// Reads the key of a directory row, or the beginning of a block's key.
pub(super) fn parse_bucket_key(bytes: &[u8]) -> Option<BucketKey> {
    let (padded, mut rest) = bytes.split_at_checked(SYMBOL_BYTES)?;
    let symbol = parse_symbol(padded)?;
    let bucket = Bucket(unordered(rest.try_get_u64().ok()?));
    Some(BucketKey { symbol, bucket })
}

pub(super) fn parse_symbol(padded: &[u8]) -> Option<Symbol> {
    let length = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
    Symbol::parse(padded.get(..length)?).ok().filter(|symbol| symbol.padded() == padded)
}

pub(super) fn parse_block_key(bytes: &[u8]) -> Option<BlockKey> {
    let mut rest = bytes.get(BUCKET_BYTES..)?;
    let kind = Kind::from_number(rest.try_get_u8().ok()?)?;
    let first = Nanos(unordered(rest.try_get_u64().ok()?));
    Some(BlockKey { kind, first, id: rest.try_into().ok()? })
}

/// A kind's place among the eight counts of a bucket.
pub(super) const fn kind_at(kind: Kind) -> usize {
    kind.number() as usize - 1
}

/// Kinds as bits `1 << kind.number()`.
pub(super) fn kind_bits(counts: &[u32; KINDS]) -> u16 {
    counts
        .iter()
        .zip(1_u32..)
        .filter(|(count, _)| **count > 0)
        .fold(0, |bits, (_, number)| bits | (1 << number))
}

/// A row of `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexRow {
    pub(super) last: Nanos,
    pub(super) ticks: u32,
    pub(super) bytes: u32,
    pub(super) hash: [u8; 16],
}

impl IndexRow {
    /// The row of a block; `None` where its body is larger than 4 GiB.
    pub(super) fn of(block: &BlockRow) -> Option<Self> {
        let bytes = u32::try_from(block.body.len()).ok()?;
        Some(Self { last: block.last, ticks: block.count, bytes, hash: body_hash(&block.body) })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.put_i64(self.last.0);
        out.put_u32(self.ticks);
        out.put_u32(self.bytes);
        out.put_slice(&self.hash);
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let last = Nanos(bytes.try_get_i64().ok()?);
        let (ticks, length) = (bytes.try_get_u32().ok()?, bytes.try_get_u32().ok()?);
        Some(Self { last, ticks, bytes: length, hash: bytes.try_into().ok()? })
    }

    pub(super) fn is_of(&self, body: &[u8]) -> bool {
        u32::try_from(body.len()) == Ok(self.bytes) && body_hash(body) == self.hash
    }
}

fn body_hash(body: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    blake3::Hasher::new().update(body).finalize_xof().fill(&mut hash);
    hash
}

/// A row of `symbols`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SymbolCounts {
    pub(super) kinds: u16,
    pub(super) first: Nanos,
    pub(super) last: Nanos,
    pub(super) buckets: u32,
}

impl SymbolCounts {
    pub(super) const NONE: Self = Self { kinds: 0, first: Nanos::MAX, last: Nanos::MIN, buckets: 0 };

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(22);
        out.put_u16(self.kinds);
        out.put_i64(self.first.0);
        out.put_i64(self.last.0);
        out.put_u32(self.buckets);
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let kinds = bytes.try_get_u16().ok()?;
        let (first, last) = (Nanos(bytes.try_get_i64().ok()?), Nanos(bytes.try_get_i64().ok()?));
        Some(Self { kinds, first, last, buckets: bytes.try_get_u32().ok()? })
    }
}

pub(super) fn encode_kinds(counts: &[u32; KINDS]) -> Vec<u8> {
    counts.iter().flat_map(|count| count.to_be_bytes()).collect()
}

pub(super) fn decode_kinds(mut bytes: &[u8]) -> Option<[u32; KINDS]> {
    let mut counts = [0; KINDS];
    for count in &mut counts {
        *count = bytes.try_get_u32().ok()?;
    }
    Some(counts)
}

pub(super) fn decode_count(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Seals a value for its row.
pub(super) fn seal(keyring: &Keyring, keyspace: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    keyring.seal(&row_key(keyspace, key), value).to_vec()
}

/// Opens a sealed value and reads it.
pub(super) fn open<T>(
    keyring: &Keyring,
    keyspace: &str,
    key: &[u8],
    sealed: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, SealError> {
    let payload = keyring.check(&row_key(keyspace, key), sealed)?;
    decode(payload).ok_or(SealError::Mac)
}

fn row_key(keyspace: &str, key: &[u8]) -> SealKey {
    SealKey::new("blocks").part(keyspace.as_bytes()).part(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;

    /// The bytes of `docs/FORMATS.md`, section 7.
    #[test]
    fn the_golden_block_key() {
        let time = Nanos::parse(b"2024-01-03T14:30:00.5Z").unwrap();
        let symbol = Symbol::parse(b"AAPL").unwrap();
        let bucket = BucketKey { symbol, bucket: Bucket::of(Kind::Trade, time) };
        let key = block_key(&bucket, &BlockKey { kind: Kind::Trade, first: time, id: [0xab; 16] });
        assert_eq!(key, golden::block("block-key"));
        assert_eq!(parse_bucket_key(&key), Some(bucket));
        assert_eq!(parse_block_key(&key).map(|key| (key.first, key.id)), Some((time, [0xab; 16])));
    }

    #[test]
    fn keys_sort_as_numbers_do() {
        let times = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(times.map(ordered).is_sorted());
        assert_eq!(times.map(ordered).map(unordered), times);
    }
}
