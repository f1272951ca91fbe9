//! A store in memory, for the tests of this crate: it keeps the contracts that every backend keeps
//! (`suite`), and can be told to fail, to damage what it holds, and to let something happen
//! while it is read.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    At, BlockKey, BlockPage, BlockRow, BucketKey, BucketRow, FrameRow, Order, Reach, Record, Records, Space,
    Span, Store, StoreError, SymbolRow, TapeId,
};
use crate::market::{Bucket, Kind, Symbol};

type RecordKey = (Space, String, String);

/// Tapes, blocks and records in maps.
#[derive(Default)]
pub(crate) struct MemoryStore {
    frames: Mutex<BTreeMap<(TapeId, u64), FrameRow>>,
    blocks: Mutex<BTreeMap<BucketKey, BTreeMap<BlockKey, BlockRow>>>,
    counts: Mutex<BTreeMap<u16, u64>>,
    pub(crate) records: Mutex<BTreeMap<RecordKey, Record>>,
    /// Writes of records are refused.
    pub(crate) refuses: AtomicBool,
    /// Called before the next read of the directory: what happens elsewhere meanwhile.
    pub(crate) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl MemoryStore {
    pub(crate) fn put_block(&self, key: BucketKey, block: BlockRow) {
        self.blocks.lock().entry(key).or_default().insert(block.key, block);
    }

    /// Flips a bit in the body of every block.
    pub(crate) fn damage(&self) {
        for block in self.blocks.lock().values_mut().flat_map(BTreeMap::values_mut) {
            let mut body = block.body.to_vec();
            *body.last_mut().unwrap() ^= 1;
            block.body = Bytes::from(body);
        }
    }

    fn takes_writes(&self) -> Result<(), StoreError> {
        if self.refuses.load(Ordering::Relaxed) { Err(StoreError::refused("disk full")) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(&self, frame: FrameRow, _: Reach) -> Result<(), StoreError> {
        let mut frames = self.frames.lock();
        let stored = frames.entry((frame.tape, frame.seq)).or_insert_with(|| frame.clone());
        if stored.body == frame.body {
            Ok(())
        } else {
            Err(StoreError::invalid(format!(
                "frame {} of {} is there with other bytes",
                frame.seq, frame.tape
            )))
        }
    }

    async fn frames(
        &self,
        tape: TapeId,
        seqs: RangeInclusive<u64>,
        bytes_max: usize,
        _: At,
    ) -> Result<Vec<FrameRow>, StoreError> {
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let frames = self.frames.lock();
        let (mut page, mut bytes) = (Vec::new(), 0);
        for frame in frames.range((tape, *seqs.start())..=(tape, *seqs.end())).map(|(_, frame)| frame) {
            bytes += frame.body.len();
            if bytes > bytes_max && !page.is_empty() {
                break;
            }
            page.push(frame.clone());
        }
        Ok(page)
    }

    async fn put_blocks(
        &self,
        shard: u16,
        count: u64,
        blocks: Vec<(BucketKey, Vec<BlockRow>)>,
    ) -> Result<(), StoreError> {
        for (key, rows) in blocks {
            rows.into_iter().for_each(|row| self.put_block(key, row));
        }
        let mut counts = self.counts.lock();
        let known = counts.entry(shard).or_default();
        *known = count.max(*known);
        Ok(())
    }

    async fn block_count(&self, shard: u16) -> Result<u64, StoreError> {
        Ok(self.counts.lock().get(&shard).copied().unwrap_or(0))
    }

    async fn blocks(
        &self,
        key: BucketKey,
        kind: Kind,
        span: Span,
        after: Option<BlockKey>,
        bytes_max: usize,
    ) -> Result<BlockPage, StoreError> {
        let blocks = self.blocks.lock();
        let (mut page, mut bytes) = (BlockPage::default(), 0);
        let wanted = blocks.get(&key).into_iter().flat_map(BTreeMap::values).filter(|block| {
            block.key.kind == kind
                && after.is_none_or(|after| block.key > after)
                && block.key.first <= *span.end()
                && block.last >= *span.start()
        });
        for block in wanted {
            bytes += block.body.len();
            if bytes > bytes_max && !page.blocks.is_empty() {
                page.more = true;
                break;
            }
            page.blocks.push(block.clone());
        }
        Ok(page)
    }

    async fn buckets(
        &self,
        symbol: Symbol,
        from: Bucket,
        to: Bucket,
        order: Order,
        limit: usize,
    ) -> Result<Vec<BucketRow>, StoreError> {
        if let Some(meanwhile) = self.meanwhile.lock().take() {
            meanwhile();
        }
        let blocks = self.blocks.lock();
        let of_symbol = blocks.iter().filter(|(key, _)| key.symbol == symbol);
        let within = of_symbol.filter(|(key, _)| from <= key.bucket && key.bucket <= to);
        let mut rows: Vec<BucketRow> = within
            .map(|(key, blocks)| BucketRow {
                bucket: key.bucket,
                kinds: blocks.keys().fold(0, |kinds, block| kinds | 1 << block.kind.number()),
            })
            .collect();
        if order == Order::Descending {
            rows.reverse();
        }
        rows.truncate(limit);
        Ok(rows)
    }

    async fn symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<Vec<SymbolRow>, StoreError> {
        let mut rows: BTreeMap<Symbol, SymbolRow> = BTreeMap::new();
        for (key, blocks) in self.blocks.lock().iter() {
            for block in blocks.values() {
                let (symbol, first, last) = (key.symbol, block.key.first, block.last);
                let row = rows.entry(symbol).or_insert(SymbolRow { symbol, kinds: 0, first, last });
                row.kinds |= 1 << block.key.kind.number();
                (row.first, row.last) = (row.first.min(first), row.last.max(last));
            }
        }
        let wanted = rows.into_values().filter(|row| {
            row.symbol.as_str().starts_with(prefix) && after.is_none_or(|after| row.symbol > after)
        });
        Ok(wanted.take(limit).collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Records for MemoryStore {
    async fn get(&self, space: Space, part: &str, key: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.records.lock().get(&(space, part.to_owned(), key.to_owned())).cloned())
    }

    async fn put(&self, space: Space, part: &str, record: Record) -> Result<(), StoreError> {
        self.takes_writes()?;
        space.check_put()?;
        let mut records = self.records.lock();
        let stored =
            records.entry((space, part.to_owned(), record.key.clone())).or_insert_with(|| record.clone());
        if (stored.version, &stored.body) < (record.version, &record.body) {
            *stored = record;
        }
        Ok(())
    }

    async fn put_if(
        &self,
        space: Space,
        part: &str,
        record: Record,
        expected: u64,
    ) -> Result<bool, StoreError> {
        self.takes_writes()?;
        space.check_put_if(record.version, expected)?;
        let mut records = self.records.lock();
        let row = (space, part.to_owned(), record.key.clone());
        let is_expected = records.get(&row).map_or(0, |there| there.version) == expected;
        if is_expected {
            records.insert(row, record);
        }
        Ok(is_expected)
    }

    async fn scan(
        &self,
        space: Space,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let row = |key: &str| (space, part.to_owned(), key.to_owned());
        let from = after.map_or_else(|| Bound::Included(row("")), |after| Bound::Excluded(row(after)));
        let records = self.records.lock();
        let later = records.range((from, Bound::Unbounded));
        let of_part = later.take_while(|((of, within, _), _)| *of == space && within == part);
        Ok(of_part.map(|(_, record)| record.clone()).take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::suite;
    use super::*;

    #[tokio::test]
    async fn store_suite_in_memory() {
        suite::store(async || Arc::new(MemoryStore::default()), suite::OtherBytes::Refused).await;
        suite::records(async || Arc::new(MemoryStore::default())).await;
    }
}
