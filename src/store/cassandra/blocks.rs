//! A region's history in tables: blocks by symbol and bucket, the directory, the list of symbols.
//!
//! Several nodes may write the same rows at once, and none of them reads before it writes: what
//! is to be the lowest or the highest is written with a timestamp that makes it win.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::errors;
use super::known::Known;
use super::session::{Cluster, Mode};
use crate::market::{Bucket, Kind, Nanos, Symbol};
use crate::store::{BlockKey, BlockPage, BlockRow, BucketKey, BucketRow, Order, Span, StoreError, SymbolRow};

/// Partitions of the list of symbols.
const PARTS: u8 = 16;
/// Bytes of blocks that are written in one batch.
const BATCH_BYTES: usize = 64 << 10;
/// Rows of the directory that are remembered as written.
const KNOWN_MAX: usize = 262_144;
/// Blocks in one answer, at most.
const BLOCKS_MAX: i32 = 32;
/// Behind every symbol.
const LAST_SYMBOL: &str = "\u{7f}";

/// The statements of the own datacenter.
pub(super) struct Blocks {
    insert: PreparedStatement,
    insert_bucket: PreparedStatement,
    first: PreparedStatement,
    last: PreparedStatement,
    put_count: PreparedStatement,
    blocks: PreparedStatement,
    buckets_up: PreparedStatement,
    buckets_down: PreparedStatement,
    symbols: PreparedStatement,
    count: PreparedStatement,
    flush_statements: usize,
    known: Known<(Symbol, Bucket, Kind)>,
}

type StoredBlock = (i64, Vec<u8>, i64, i32, Vec<u8>);

impl Blocks {
    pub(super) async fn prepare(
        cluster: &Cluster,
        keyspace: &str,
        datacenter: &str,
        flush_statements: usize,
    ) -> Result<Self, StoreError> {
        let prepare =
            async |text: &str, mode| cluster.prepare(datacenter, &text.replace("{}", keyspace), mode).await;
        let buckets = "SELECT bucket, kind FROM {}.buckets WHERE symbol = ? AND bucket >= ? AND bucket <= ? ORDER BY bucket";
        Ok(Self {
            insert: prepare(
                "INSERT INTO {}.blocks (symbol, bucket, kind, first, id, last, n, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                Mode::Write,
            )
            .await?,
            insert_bucket: prepare("INSERT INTO {}.buckets (symbol, bucket, kind) VALUES (?, ?, ?)", Mode::Write).await?,
            first: prepare(
                "UPDATE {}.symbols USING TIMESTAMP ? SET first_negated = ? WHERE part = ? AND symbol = ? AND kind = ?",
                Mode::Write,
            )
            .await?,
            last: prepare(
                "UPDATE {}.symbols USING TIMESTAMP ? SET last = ? WHERE part = ? AND symbol = ? AND kind = ?",
                Mode::Write,
            )
            .await?,
            put_count: prepare("UPDATE {}.counts USING TIMESTAMP ? SET n = ? WHERE shard = ?", Mode::Write).await?,
            blocks: prepare(
                "SELECT first, id, last, n, body FROM {}.blocks WHERE symbol = ? AND bucket = ? AND kind = ? \
                 AND (first, id) > (?, ?) AND (first) <= (?) LIMIT ?",
                Mode::Read,
            )
            .await?,
            buckets_up: prepare(&format!("{buckets} ASC, kind DESC LIMIT ?"), Mode::Read).await?,
            buckets_down: prepare(&format!("{buckets} DESC, kind ASC LIMIT ?"), Mode::Read).await?,
            symbols: prepare(
                "SELECT symbol, kind, first_negated, last FROM {}.symbols WHERE part = ? AND symbol >= ? AND symbol < ? LIMIT ?",
                Mode::Read,
            )
            .await?,
            count: prepare("SELECT n FROM {}.counts WHERE shard = ?", Mode::Read).await?,
            flush_statements,
            known: Known::new(KNOWN_MAX),
        })
    }

    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.known.clear();
    }

    /// What names a block is there before it, and the count comes last.
    pub(super) async fn put(
        &self,
        cluster: &Cluster,
        shard: u16,
        count: u64,
        blocks: &[(BucketKey, Vec<BlockRow>)],
    ) -> Result<(), StoreError> {
        let mut spans: BTreeMap<(Symbol, Kind), (Nanos, Nanos)> = BTreeMap::new();
        let mut buckets = Vec::new();
        for (key, rows) in blocks {
            for row in rows {
                let (kind, first) = (row.key.kind, row.key.first);
                let span = spans.entry((key.symbol, kind)).or_insert((first, row.last));
                *span = (span.0.min(first), span.1.max(row.last));
                let name = (key.symbol, key.bucket, kind);
                if !buckets.contains(&name) && !self.known.has(&name) {
                    buckets.push(name);
                }
            }
        }
        let mut writes: Vec<BoxFuture<'_, Result<(), StoreError>>> = Vec::new();
        for ((symbol, kind), span) in spans {
            writes.push(self.put_symbol(cluster, symbol, kind, span).boxed());
        }
        for name in buckets {
            writes.push(self.put_bucket(cluster, name).boxed());
        }
        self.at_once(writes).await?;
        let mut writes: Vec<BoxFuture<'_, Result<(), StoreError>>> = Vec::new();
        for (key, rows) in blocks {
            for rows in batches(rows) {
                writes.push(self.put_batch(cluster, *key, rows).boxed());
            }
        }
        self.at_once(writes).await?;
        let count = i64::try_from(count).map_err(|_| StoreError::invalid("more blocks than there can be"))?;
        let shard =
            i16::try_from(shard).map_err(|_| StoreError::invalid(format!("there is no shard {shard}")))?;
        cluster.write("the count of a shard's blocks", &self.put_count, (count, count, shard)).await
    }

    async fn at_once(&self, writes: Vec<BoxFuture<'_, Result<(), StoreError>>>) -> Result<(), StoreError> {
        futures::stream::iter(writes).buffer_unordered(self.flush_statements.max(1)).try_collect().await
    }

    async fn put_symbol(
        &self,
        cluster: &Cluster,
        symbol: Symbol,
        kind: Kind,
        (first, last): (Nanos, Nanos),
    ) -> Result<(), StoreError> {
        let of = (part(symbol), symbol.to_string(), number(kind));
        let values = (-(first.0.div_euclid(1_000)), -first.0, of.0, &of.1, of.2);
        cluster.write("the first time of a symbol", &self.first, values).await?;
        let values = (last.0.div_euclid(1_000), last.0, of.0, &of.1, of.2);
        cluster.write("the last time of a symbol", &self.last, values).await
    }

    async fn put_bucket(&self, cluster: &Cluster, name: (Symbol, Bucket, Kind)) -> Result<(), StoreError> {
        let values = (name.0.to_string(), name.1.0, number(name.2));
        cluster.write("the directory of a symbol", &self.insert_bucket, values).await?;
        self.known.add(name);
        Ok(())
    }

    async fn put_batch(
        &self,
        cluster: &Cluster,
        key: BucketKey,
        rows: &[BlockRow],
    ) -> Result<(), StoreError> {
        let symbol = key.symbol.to_string();
        let values = |row: &BlockRow| -> Result<_, StoreError> {
            let n = i32::try_from(row.count).map_err(|_| StoreError::invalid("a block of too many ticks"))?;
            let BlockKey { kind, first, id } = row.key;
            Ok((
                symbol.clone(),
                key.bucket.0,
                number(kind),
                first.0,
                id.to_vec(),
                row.last.0,
                n,
                row.body.to_vec(),
            ))
        };
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_execution_profile_handle(self.insert.get_execution_profile_handle().cloned());
        batch.set_consistency(scylla::statement::Consistency::LocalQuorum);
        batch.set_is_idempotent(true);
        rows.iter().for_each(|_| batch.append_statement(self.insert.clone()));
        let values = rows.iter().map(values).collect::<Result<Vec<_>, _>>()?;
        let done = cluster.session().batch(&batch, values).await;
        done.map(drop).map_err(|error| errors::of_write("blocks", &error))
    }

    pub(super) async fn count(&self, cluster: &Cluster, shard: u16) -> Result<u64, StoreError> {
        let shard =
            i16::try_from(shard).map_err(|_| StoreError::invalid(format!("there is no shard {shard}")))?;
        let rows: Vec<(i64,)> = cluster.read("the count of a shard's blocks", &self.count, (shard,)).await?;
        Ok(rows.first().map_or(0, |(count,)| count.cast_unsigned()))
    }

    pub(super) async fn read(
        &self,
        cluster: &Cluster,
        key: BucketKey,
        kind: Kind,
        span: &Span,
        after: Option<BlockKey>,
        bytes_max: usize,
    ) -> Result<BlockPage, StoreError> {
        let (mut page, mut bytes) = (BlockPage::default(), 0);
        let (symbol, kind_number) = (key.symbol.to_string(), number(kind));
        let mut after = after.map_or((i64::MIN, Vec::new()), |after| (after.first.0, after.id.to_vec()));
        loop {
            let values = (&symbol, key.bucket.0, kind_number, after.0, &after.1, span.end().0, BLOCKS_MAX);
            let rows: Vec<StoredBlock> = cluster.read("blocks", &self.blocks, values).await?;
            let is_last = i32::try_from(rows.len()).is_ok_and(|rows| rows < BLOCKS_MAX);
            for (first, id, last, n, body) in rows {
                after = (first, id.clone());
                if last < span.start().0 {
                    continue;
                }
                bytes += body.len();
                if bytes > bytes_max && !page.blocks.is_empty() {
                    page.more = true;
                    return Ok(page);
                }
                let damaged = |what: &str| {
                    let (symbol, bucket) = (key.symbol, key.bucket.0);
                    StoreError::corrupt(format!("a block of {symbol}, bucket {bucket}, at {first}: {what}"))
                };
                let id = id.try_into().map_err(|_| damaged("its id has not 16 bytes"))?;
                let count = u32::try_from(n).map_err(|_| damaged("its count is below 0"))?;
                let key = BlockKey { kind, first: Nanos(first), id };
                page.blocks.push(BlockRow { key, last: Nanos(last), count, body: body.into() });
            }
            if is_last {
                return Ok(page);
            }
        }
    }

    pub(super) async fn buckets(
        &self,
        cluster: &Cluster,
        symbol: Symbol,
        (from, to): (Bucket, Bucket),
        order: Order,
        limit: usize,
    ) -> Result<Vec<BucketRow>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let statement = if order == Order::Ascending { &self.buckets_up } else { &self.buckets_down };
        let most = limit.saturating_add(1).saturating_mul(Kind::ALL.len());
        let values = (symbol.to_string(), from.0, to.0, i32::try_from(most).unwrap_or(i32::MAX));
        let rows: Vec<(i64, i8)> = cluster.read("the directory of a symbol", statement, values).await?;
        let mut buckets: Vec<BucketRow> = Vec::new();
        for (bucket, kind) in rows {
            let (bucket, bit) = (Bucket(bucket), 1_u16 << kind.clamp(0, 15));
            let is_full = buckets.len() == limit;
            match buckets.last_mut().filter(|last| last.bucket == bucket) {
                Some(last) => last.kinds |= bit,
                None if is_full => break,
                None => buckets.push(BucketRow { bucket, kinds: bit }),
            }
        }
        Ok(buckets)
    }

    pub(super) async fn symbols(
        &self,
        cluster: &Cluster,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<Vec<SymbolRow>, StoreError> {
        // A symbol with a zero behind it comes right after it.
        let after = after.map(|after| format!("{after}\0")).unwrap_or_default();
        let from = after.as_str().max(prefix).to_owned();
        let to = format!("{prefix}{LAST_SYMBOL}");
        let most = limit.saturating_add(1).saturating_mul(Kind::ALL.len());
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        if limit == 0 || from >= to {
            return Ok(Vec::new());
        }
        let mut symbols: BTreeMap<Symbol, SymbolRow> = BTreeMap::new();
        let reads = (0..PARTS).map(|part| {
            let values = (part.cast_signed(), from.clone(), to.clone(), most);
            cluster.read::<(String, i8, Option<i64>, Option<i64>)>(
                "the list of symbols",
                &self.symbols,
                values,
            )
        });
        let answers: Vec<Vec<_>> =
            futures::stream::iter(reads).buffer_unordered(usize::from(PARTS)).try_collect().await?;
        for (name, kind, first, last) in answers.into_iter().flatten() {
            let symbol: Symbol = name.parse().map_err(|error| {
                StoreError::corrupt(format!("the list of symbols has {name:?}, which {error}"))
            })?;
            // Written between its two cells, or half of it not arrived yet.
            let first = first.map(|negated| -negated);
            let (Some(first), Some(last)) = (first.or(last), last.or(first)) else { continue };
            let bit = 1_u16 << kind.clamp(0, 15);
            let row = SymbolRow { symbol, kinds: bit, first: Nanos(first), last: Nanos(last) };
            let known = symbols.entry(symbol).or_insert(row);
            known.kinds |= bit;
            (known.first, known.last) = (known.first.min(row.first), known.last.max(row.last));
        }
        Ok(symbols.into_values().take(limit).collect())
    }
}

/// The rows in parts of some bytes.
fn batches(rows: &[BlockRow]) -> Vec<&[BlockRow]> {
    let (mut batches, mut begun, mut bytes) = (Vec::new(), 0, 0);
    for (at, row) in rows.iter().enumerate() {
        if bytes > 0 && bytes + row.body.len() > BATCH_BYTES {
            batches.extend(rows.get(begun..at));
            (begun, bytes) = (at, 0);
        }
        bytes += row.body.len();
    }
    batches.extend(rows.get(begun..).filter(|rows| !rows.is_empty()));
    batches
}

fn number(kind: Kind) -> i8 {
    kind.number().cast_signed()
}

/// Where a symbol is in the list.
fn part(symbol: Symbol) -> i8 {
    let hash = xxhash_rust::xxh3::xxh3_64(symbol.as_str().as_bytes());
    u8::try_from(hash % u64::from(PARTS)).unwrap_or_default().cast_signed()
}
