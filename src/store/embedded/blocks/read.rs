//! Reading blocks, directory and symbols, each from one snapshot.

use std::ops::Bound;

use bytes::Bytes;
use fjall::{Keyspace, Readable as _, Snapshot};

use super::rows::{self, IndexRow, KINDS, SymbolCounts};
use super::{Blocks, Opened};
use crate::market::{Bucket, Kind, Symbol};
use crate::store::{BlockKey, BlockPage, BlockRow, BucketKey, BucketRow, Order, Span, StoreError, SymbolRow};

impl Blocks {
    /// Blocks of one kind that overlap the span, from after `after`.
    pub(in crate::store::embedded) fn blocks(
        &self,
        key: &BucketKey,
        kind: Kind,
        span: &Span,
        after: Option<BlockKey>,
        bytes_max: usize,
    ) -> Result<BlockPage, StoreError> {
        let opened = self.opened()?;
        let snapshot = opened.database.snapshot();
        let prefix = rows::kind_prefix(key, kind);
        let from = match after {
            Some(after) => Bound::Excluded(rows::block_key(key, &after)),
            None => Bound::Included(prefix.clone()),
        };
        let to = Bound::Included([prefix.as_slice(), &[0xff; 24]].concat());
        let (mut page, mut bytes, mut rows_seen) = (BlockPage::default(), 0_usize, 0_u32);
        for guard in snapshot.range::<Vec<u8>, _>(&opened.index, (from, to)) {
            let (stored_key, value) = guard.into_inner().map_err(|error| self.read_failed(&error))?;
            rows_seen += 1;
            let block =
                rows::parse_block_key(&stored_key).ok_or_else(|| self.no_key("index", &stored_key))?;
            let row = self.open_row("index", &stored_key, &value, IndexRow::decode)?;
            if page.more || block.first > *span.end() || row.last < *span.start() {
                continue;
            }
            bytes = bytes.saturating_add(row.bytes as usize);
            if !page.blocks.is_empty() && bytes > bytes_max {
                page.more = true;
                continue;
            }
            let body = self.body(&opened, &snapshot, &stored_key, &row)?;
            page.blocks.push(BlockRow { key: block, last: row.last, count: row.ticks, body });
        }
        if after.is_none() {
            self.check_count(&opened, &snapshot, key, kind, rows_seen)?;
        }
        Ok(page)
    }

    fn body(
        &self,
        opened: &Opened,
        snapshot: &Snapshot,
        key: &[u8],
        row: &IndexRow,
    ) -> Result<Bytes, StoreError> {
        let body = snapshot.get(&opened.bodies, key).map_err(|error| self.read_failed(&error))?;
        let body = body.ok_or_else(|| self.damaged("bodies", key, "is missing"))?;
        if row.is_of(&body) {
            Ok(Bytes::copy_from_slice(&body))
        } else {
            Err(self.damaged("bodies", key, "has other contents than its index says"))
        }
    }

    /// A bucket that has other than the number of blocks that its directory row says is damaged.
    fn check_count(
        &self,
        opened: &Opened,
        snapshot: &Snapshot,
        key: &BucketKey,
        kind: Kind,
        seen: u32,
    ) -> Result<(), StoreError> {
        let row = rows::bucket_key(key);
        let counts = match snapshot.get(&opened.directory, &row).map_err(|error| self.read_failed(&error))? {
            Some(value) => self.open_row("directory", &row, &value, rows::decode_kinds)?,
            None => [0; KINDS],
        };
        let expected = counts.get(rows::kind_at(kind)).copied().unwrap_or(0);
        if expected == seen {
            Ok(())
        } else {
            Err(self.damaged(
                "index",
                &row,
                &format!("has {seen} blocks of {kind:?}, its directory says {expected}"),
            ))
        }
    }

    /// The directory of a symbol.
    pub(in crate::store::embedded) fn buckets(
        &self,
        symbol: Symbol,
        from: Bucket,
        to: Bucket,
        order: Order,
        limit: usize,
    ) -> Result<Vec<BucketRow>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        let opened = self.opened()?;
        let bounds = [from, to].map(|bucket| rows::bucket_key(&BucketKey { symbol, bucket }));
        let [low, high] = bounds;
        let mut range = opened.database.snapshot().range::<Vec<u8>, _>(&opened.directory, low..=high);
        let mut found = Vec::new();
        while found.len() < limit {
            let next = match order {
                Order::Ascending => range.next(),
                Order::Descending => range.next_back(),
            };
            let Some(guard) = next else { break };
            let (key, value) = guard.into_inner().map_err(|error| self.read_failed(&error))?;
            let bucket = rows::parse_bucket_key(&key).ok_or_else(|| self.no_key("directory", &key))?.bucket;
            let counts = self.open_row("directory", &key, &value, rows::decode_kinds)?;
            found.push(BucketRow { bucket, kinds: rows::kind_bits(&counts) });
        }
        Ok(found)
    }

    /// The symbols that begin with `prefix`, after `after`.
    pub(in crate::store::embedded) fn symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<Vec<SymbolRow>, StoreError> {
        let opened = self.opened()?;
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.padded().to_vec()),
            _ => Bound::Included(prefix.as_bytes().to_vec()),
        };
        let mut found = Vec::new();
        for guard in opened.database.snapshot().range::<Vec<u8>, _>(&opened.symbols, (from, Bound::Unbounded))
        {
            if found.len() >= limit {
                break;
            }
            let (key, value) = guard.into_inner().map_err(|error| self.read_failed(&error))?;
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            let symbol = rows::parse_symbol(&key).ok_or_else(|| self.no_key("symbols", &key))?;
            let counts = self.open_row("symbols", &key, &value, SymbolCounts::decode)?;
            found.push(SymbolRow { symbol, kinds: counts.kinds, first: counts.first, last: counts.last });
        }
        Ok(found)
    }

    pub(super) fn read_count(&self, opened: &Opened, key: &[u8]) -> Result<u64, StoreError> {
        let decode = rows::decode_count;
        Ok(self.read_row(&opened.counts, "counts", key, decode)?.unwrap_or(0))
    }

    pub(super) fn read_kinds(
        &self,
        opened: &Opened,
        key: &BucketKey,
    ) -> Result<Option<[u32; KINDS]>, StoreError> {
        self.read_row(&opened.directory, "directory", &rows::bucket_key(key), rows::decode_kinds)
    }

    pub(super) fn read_symbol(
        &self,
        opened: &Opened,
        symbol: &Symbol,
    ) -> Result<Option<SymbolCounts>, StoreError> {
        self.read_row(&opened.symbols, "symbols", symbol.padded(), SymbolCounts::decode)
    }

    fn read_row<T>(
        &self,
        keyspace: &Keyspace,
        name: &str,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let value = keyspace.get(key).map_err(|error| self.read_failed(&error))?;
        value.map(|value| self.open_row(name, key, &value, decode)).transpose()
    }

    fn open_row<T>(
        &self,
        keyspace: &str,
        key: &[u8],
        value: &[u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, StoreError> {
        rows::open(&self.keyring, keyspace, key, value, decode)
            .map_err(|error| self.damaged(keyspace, key, &error.to_string()))
    }

    fn no_key(&self, keyspace: &str, key: &[u8]) -> StoreError {
        self.damaged(keyspace, key, "has a key that is none")
    }

    fn damaged(&self, keyspace: &str, key: &[u8], what: &str) -> StoreError {
        StoreError::corrupt(format!(
            "blocks in {}: {what_row} {what}",
            self.folder.display(),
            what_row = row_name(keyspace, key)
        ))
    }
}

/// The name of a row for people.
pub(super) fn row_name(keyspace: &str, key: &[u8]) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    match rows::parse_bucket_key(key) {
        Some(bucket) => {
            format!("row {hex} of `{keyspace}` ({}, bucket {:#x})", bucket.symbol, bucket.bucket.0)
        }
        None => format!("row {hex} of `{keyspace}`"),
    }
}
