//! Writing a flush: blocks, directory, symbols and counts in one batch.

use std::collections::{BTreeMap, BTreeSet};

use fjall::PersistMode;

use super::rows::{self, IndexRow, KINDS, SymbolCounts};
use super::{Blocks, Opened};
use crate::market::Symbol;
use crate::store::{BlockRow, BucketKey, StoreError, StoreErrorKind};

pub(super) const SYMBOLS_KEY: &[u8] = b"symbols";

/// The counts that a flush changes, as they are after it.
#[derive(Default)]
struct Changed {
    buckets: BTreeMap<BucketKey, [u32; KINDS]>,
    symbols: BTreeMap<Symbol, SymbolCounts>,
    new_symbols: u64,
}

impl Blocks {
    /// Writes one flush of a keeper.
    pub(in crate::store::embedded) fn put(
        &self,
        shard: u16,
        count: u64,
        blocks: &[(BucketKey, Vec<BlockRow>)],
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock();
        let opened = self.opened()?;
        let result = self.put_locked(&opened, shard, count, blocks);
        // `Corrupt` is about what was read before anything was written.
        if result.as_ref().is_err_and(|error| error.kind == StoreErrorKind::Unknown) {
            drop(opened);
            self.reopen_later();
        }
        result
    }

    fn put_locked(
        &self,
        opened: &Opened,
        shard: u16,
        count: u64,
        blocks: &[(BucketKey, Vec<BlockRow>)],
    ) -> Result<(), StoreError> {
        let mut batch = opened.database.batch().durability(Some(PersistMode::SyncData));
        let mut changed = Changed::default();
        let mut written = BTreeSet::new();
        for (bucket, block) in
            blocks.iter().flat_map(|(bucket, rows)| rows.iter().map(move |row| (bucket, row)))
        {
            let key = rows::block_key(bucket, &block.key);
            if !written.insert(key.clone()) {
                continue;
            }
            let row = IndexRow::of(block).ok_or_else(|| {
                StoreError::invalid(format!("a block of {} is larger than 4 GiB", bucket.symbol))
            })?;
            let is_new = !opened.index.contains_key(&key).map_err(|error| self.read_failed(&error))?;
            self.count(opened, &mut changed, bucket, block, is_new)?;
            batch.insert(&opened.index, key.clone(), rows::seal(&self.keyring, "index", &key, &row.encode()));
            batch.insert(&opened.bodies, key, block.body.as_ref());
        }
        for (bucket, counts) in &changed.buckets {
            let key = rows::bucket_key(bucket);
            let value = rows::seal(&self.keyring, "directory", &key, &rows::encode_kinds(counts));
            batch.insert(&opened.directory, key, value);
        }
        for (symbol, counts) in &changed.symbols {
            let value = rows::seal(&self.keyring, "symbols", symbol.padded(), &counts.encode());
            batch.insert(&opened.symbols, symbol.padded().as_slice(), value);
        }
        let known = self.read_count(opened, SYMBOLS_KEY)?.saturating_add(changed.new_symbols);
        let highest = self.read_count(opened, &shard.to_be_bytes())?.max(count);
        for (key, number) in [(SYMBOLS_KEY, known), (&shard.to_be_bytes(), highest)] {
            batch.insert(
                &opened.counts,
                key,
                rows::seal(&self.keyring, "counts", key, &number.to_be_bytes()),
            );
        }
        batch.commit().map_err(|error| {
            StoreError::unknown(format!(
                "writing blocks in {} failed: {error}; {}",
                self.folder.display(),
                crate::store::embedded::space::tell(&self.folder)
            ))
        })
    }

    /// Counts one block where it is new, and widens its symbol's times.
    fn count(
        &self,
        opened: &Opened,
        changed: &mut Changed,
        bucket: &BucketKey,
        block: &BlockRow,
        is_new: bool,
    ) -> Result<(), StoreError> {
        let mut new_bucket = false;
        if !changed.buckets.contains_key(bucket) {
            let stored = self.read_kinds(opened, bucket)?;
            new_bucket = stored.is_none();
            changed.buckets.insert(*bucket, stored.unwrap_or_default());
        }
        if let Some(count) =
            changed.buckets.get_mut(bucket).and_then(|counts| counts.get_mut(rows::kind_at(block.key.kind)))
        {
            *count = count.saturating_add(u32::from(is_new));
        }
        if !changed.symbols.contains_key(&bucket.symbol) {
            let stored = self.read_symbol(opened, &bucket.symbol)?;
            changed.new_symbols += u64::from(stored.is_none());
            changed.symbols.insert(bucket.symbol, stored.unwrap_or(SymbolCounts::NONE));
        }
        if let Some(symbol) = changed.symbols.get_mut(&bucket.symbol) {
            symbol.kinds |= 1_u16 << block.key.kind.number();
            symbol.first = symbol.first.min(block.key.first);
            symbol.last = symbol.last.max(block.last);
            symbol.buckets = symbol.buckets.saturating_add(u32::from(new_bucket));
        }
        Ok(())
    }

    /// The running number of blocks of a shard.
    pub(in crate::store::embedded) fn block_count(&self, shard: u16) -> Result<u64, StoreError> {
        self.read_count(&self.opened()?, &shard.to_be_bytes())
    }
}
