//! Reading: the tail first, then the directory, then blocks.
//!
//! For each symbol a read snapshots the tail *before* it looks at the directory and at
//! blocks: the tail is trimmed only by marks that were read, and a mark is written after
//! the blocks it covers, so a tick that leaves the tail meanwhile is in a block already (I7).
//! The directory names the buckets that hold the kind; empty hours are never probed. A page
//! stops reading as soon as it holds all that lies before the next block.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::amend::{Entry, Wanted, amend, reach};
use super::fill::{Budget, Page, Pages, Part};
use super::merge::{Key, Merge, Merged};
use super::page::{Cursor, Resume, cut};
use super::{TailDoor, block_seal_key};
use crate::bars::Timeframe;
use crate::config;
use crate::market::{Bar, Bucket, Event, Kind, Nanos, Row, Series, Symbol, Tick, table};
use crate::seal::Keyring;
use crate::store::{BlockRow, BucketKey, Order, Records, Span, Store, StoreError};
use crate::tape::{Region, Unreadable, WaitToken};

/// Entries read at first for the newest of a series.
const NEWEST_ROWS: usize = 8;

/// What a read may take.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Stored bytes after which a page ends early, with a token to read on.
    pub page_read_bytes_max: usize,
    /// Stored bytes of blocks held at once.
    pub blocks_bytes_max: usize,
    /// Rows of the directory asked for at once.
    pub directory_rows: usize,
    /// Trades held at once while bars are folded.
    pub fold_rows: usize,
    /// Symbols after a full page in which data is looked for; if none has any, the page is
    /// the last one, and if more are left, the next page may be empty.
    pub probes_max: usize,
    /// How long a read waits for the position it names.
    pub after_wait: Duration,
    /// Reads at once.
    pub reads_max: usize,
    /// How long one more waits for its turn.
    pub read_wait: Duration,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            page_read_bytes_max: 64 << 20,
            blocks_bytes_max: 1 << 20,
            directory_rows: 256,
            fold_rows: 16_384,
            probes_max: 64,
            after_wait: Duration::from_millis(500),
            reads_max: 64,
            read_wait: Duration::from_secs(1),
        }
    }
}

impl ReadLimits {
    /// The limits of a configuration.
    #[must_use]
    pub fn of(config: &config::History) -> Self {
        Self {
            page_read_bytes_max: config.page_read_bytes_max,
            after_wait: Duration::from_millis(config.after_wait_ms),
            reads_max: config.reads_max,
            read_wait: Duration::from_millis(config.read_wait_ms),
            ..Self::default()
        }
    }
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The node has just started, or the tail has shed what no block holds yet. Later.
    #[error("history catching up")]
    CatchingUp,
    /// As many reads as there may be are under way. Later.
    #[error("{0} reads are under way, as many as there may be")]
    Busy(usize),
    /// A newer program has written what is to be read: names the tape.
    #[error("{0}")]
    Newer(String),
    /// What is stored is damaged: names the block.
    #[error("stored history is damaged: {0}")]
    Corrupt(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Unreadable> for ReadError {
    fn from(why: Unreadable) -> Self {
        match why {
            Unreadable::Starting | Unreadable::CatchingUp(_) => Self::CatchingUp,
            Unreadable::Damaged(what) => Self::Corrupt(what),
            Unreadable::Newer(what) => Self::Newer(what),
        }
    }
}

/// A page of ticks that is asked for.
#[derive(Clone, Debug)]
pub struct TickQuery {
    /// The symbols, ascending, each once.
    pub symbols: Vec<Symbol>,
    /// The kind.
    pub kind: Kind,
    /// The span of event time.
    pub span: Span,
    /// In which direction times go. Symbols always ascend.
    pub order: Order,
    /// Entries at most, over all symbols; at least 1.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
}

/// A page of bars that is asked for.
#[derive(Clone, Debug)]
pub struct BarQuery {
    /// The symbols, ascending, each once.
    pub symbols: Vec<Symbol>,
    /// The width of the bars.
    pub timeframe: Timeframe,
    /// The span in which the bars begin.
    pub span: Span,
    /// In which direction times go. Symbols always ascend.
    pub order: Order,
    /// Bars at most, over all symbols; at least 1.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
}

/// A bar and when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarSpan {
    /// When it begins.
    pub time: Nanos,
    /// The bar.
    pub bar: Bar,
}

impl BarSpan {
    /// As a minute bar, which is how bars of any length are told.
    #[must_use]
    pub const fn to_tick(self, symbol: Symbol) -> Tick {
        Tick { symbol, time: self.time, event: Event::MinuteBar(self.bar) }
    }
}

/// The reader of a node.
pub struct Reader {
    pub(super) store: Arc<dyn Store>,
    pub(super) records: Arc<dyn Records>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) tail: Arc<dyn TailDoor>,
    pub(super) region: Region,
    pub(super) limits: ReadLimits,
    turns: Semaphore,
}

impl Reader {
    /// A reader of this region's history.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        records: Arc<dyn Records>,
        keyring: Arc<Keyring>,
        tail: Arc<dyn TailDoor>,
        region: Region,
        limits: ReadLimits,
    ) -> Self {
        let turns = Semaphore::new(limits.reads_max.clamp(1, Semaphore::MAX_PERMITS));
        Self { store, records, keyring, tail, region, limits, turns }
    }

    /// The keys that page tokens are sealed with.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Waits until this node has followed all that the token names, as long as a read may.
    /// Answers whether it has.
    pub async fn wait_for(&self, token: &WaitToken) -> bool {
        self.tail.wait_for(token, self.limits.after_wait).await
    }

    /// A turn to read: so many reads at once bound the memory of all of them.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, ReadError> {
        let turn = tokio::time::timeout(self.limits.read_wait, self.turns.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or(ReadError::Busy(self.limits.reads_max))
    }

    /// A page of ticks.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn ticks(&self, query: &TickQuery) -> Result<Page<Entry>, ReadError> {
        let _turn = self.turn().await?;
        let mut budget = self.budget();
        let mut pages = Pages::new(&query.symbols, query.cursor, query.limit, self.limits.probes_max);
        while let Some((symbol, resume)) = pages.ask() {
            let series = Series { symbol, kind: query.kind };
            let after = match resume {
                Resume::After(key) => Some(key),
                Resume::Start | Resume::AfterBar(_) => None,
            };
            let part = self.entries(series, &query.span, query.order, after, pages.left, &mut budget).await?;
            pages.take(symbol, part, &budget);
        }
        Ok(pages.finish())
    }

    /// Whether all that was acknowledged before the node started can be read.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn readable(&self) -> Result<(), ReadError> {
        Ok(self.tail.readable()?)
    }

    /// The newest entry of a series until `until` that `fits`, corrections and cancels applied.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn newest(
        &self,
        series: Series,
        until: Nanos,
        fits: impl Fn(&Entry) -> bool + Send,
    ) -> Result<Option<Entry>, ReadError> {
        let _turn = self.turn().await?;
        let (span, mut budget) = (Nanos(0)..=until, self.budget());
        let (mut after, mut limit) = (None, NEWEST_ROWS);
        loop {
            let part = self.entries(series, &span, Order::Descending, after, limit, &mut budget).await?;
            if let Some(entry) = part.items.into_iter().find(&fits) {
                return Ok(Some(entry));
            }
            let Some(Resume::After(key)) = part.more else { return Ok(None) };
            // Few fit: more at once, so that the cost stays near that of one long page.
            (after, limit) = (Some(key), limit.saturating_mul(8).min(self.limits.fold_rows.max(1)));
        }
    }

    pub(super) const fn budget(&self) -> Budget {
        Budget::new(self.limits.page_read_bytes_max)
    }

    /// At most `limit` entries of a series after `after`, corrections and cancels applied.
    pub(super) async fn entries(
        &self,
        series: Series,
        span: &Span,
        order: Order,
        after: Option<Key>,
        limit: usize,
        budget: &mut Budget,
    ) -> Result<Part<Entry>, ReadError> {
        let resumed = after.map(|key| key.place.time);
        let keep = limit.saturating_add(1);
        let merged = self.merged(series, span, order, resumed, keep, budget).await?;
        let entries = self.amended(series, merged, budget).await?;
        let (items, more) = cut(entries, order, after, limit);
        Ok(Part { items, more })
    }

    /// The merged ticks with what corrections and cancels made of them, ascending.
    async fn amended(
        &self,
        series: Series,
        merged: Vec<Merged>,
        budget: &mut Budget,
    ) -> Result<Vec<Entry>, ReadError> {
        let mut actions = Vec::new();
        let ends = merged.first().zip(merged.last());
        if let (Kind::Trade, Some((first, last))) = (series.kind, ends) {
            let span = reach(first.place.time, last.place.time);
            let mut wanted = Wanted::by(&merged);
            for kind in [Kind::Correction, Kind::Cancel] {
                let series = Series { symbol: series.symbol, kind };
                self.actions(series, &span, &mut wanted, &mut actions, budget).await?;
            }
        }
        Ok(amend(merged, actions))
    }

    /// The corrections or cancels in a span that are wanted.
    async fn actions(
        &self,
        series: Series,
        span: &Span,
        wanted: &mut Wanted,
        actions: &mut Vec<Row>,
        budget: &mut Budget,
    ) -> Result<(), ReadError> {
        let keep = self.limits.fold_rows;
        let mut from = *span.start();
        loop {
            let rows =
                self.merged(series, &(from..=*span.end()), Order::Ascending, None, keep, budget).await?;
            let last = rows.last().map(|row| row.place.time);
            let full = rows.len() >= keep;
            actions.extend(rows.into_iter().map(|merged| merged.row).filter(|row| wanted.wants(row)));
            match last {
                // Whole nanoseconds come back, so the next part begins at the next one.
                Some(last) if full && last < *span.end() => from = last.plus(1),
                _ => return Ok(()),
            }
        }
    }

    /// At least the first `keep` ticks of a series from the end that the order names (all,
    /// where there are fewer), whole nanoseconds, ascending.
    pub(super) async fn merged(
        &self,
        series: Series,
        span: &Span,
        order: Order,
        resumed: Option<Nanos>,
        keep: usize,
        budget: &mut Budget,
    ) -> Result<Vec<Merged>, ReadError> {
        // No tick is older than 1970.
        let span = (*span.start()).max(Nanos(0))..=*span.end();
        let mut merge = Merge::new(order, span, resumed, keep);
        let needed = merge.needed();
        if needed.is_empty() {
            return Ok(Vec::new());
        }
        // The tail before anything else: see the head of this file.
        for row in self.tail.snapshot(series)?.rows() {
            merge.offer(row);
        }
        let mut walk = self.walk(series, &needed, order);
        while let Some(bucket) = walk.next().await? {
            merge.settle();
            if bucket.span().is_none_or(|(first, last)| !merge.needs(first, last)) {
                break;
            }
            self.read_bucket(series, bucket, order, &mut merge, budget).await?;
        }
        Ok(merge.finish())
    }

    /// The buckets of a span that hold a kind, in order.
    fn walk(&self, series: Series, span: &Span, order: Order) -> Walk<'_> {
        Walk {
            reader: self,
            series,
            from: Bucket::of(series.kind, *span.start()),
            to: Bucket::of(series.kind, *span.end()),
            order,
            page: Vec::new(),
            ended: span.is_empty(),
        }
    }

    async fn read_bucket(
        &self,
        series: Series,
        bucket: Bucket,
        order: Order,
        merge: &mut Merge,
        budget: &mut Budget,
    ) -> Result<(), ReadError> {
        let key = BucketKey { symbol: series.symbol, bucket };
        let mut after = None;
        loop {
            let needed = merge.needed();
            let page =
                self.store.blocks(key, series.kind, needed, after, self.limits.blocks_bytes_max).await?;
            after = page.blocks.last().map(|block| block.key);
            let bytes: usize = page.blocks.iter().map(|block| block.body.len()).sum();
            budget.spend(bytes);
            let mut blocks = page.blocks;
            if order == Order::Descending {
                blocks.reverse();
            }
            for block in &blocks {
                if merge.needs(block.key.first, block.last) {
                    for row in self.open_block(key, block)? {
                        merge.push(row);
                    }
                    merge.settle();
                }
            }
            if !page.more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// The rows of a block. Whatever is not exactly what was sealed for this row is an error.
    fn open_block(&self, key: BucketKey, block: &BlockRow) -> Result<Vec<Row>, ReadError> {
        let corrupt = |why: String| {
            let (symbol, kind, first) = (key.symbol, block.key.kind.plural(), block.key.first);
            ReadError::Corrupt(format!("block of {kind} of {symbol} that begins at {first}: {why}"))
        };
        let sealed = block_seal_key(&key, &block.key, block.last, block.count);
        let body = self.keyring.open(&sealed, &block.body).map_err(|error| corrupt(error.to_string()))?;
        let rows = table::decode_block(&body).map_err(|error| corrupt(error.to_string()))?;
        let series = Series { symbol: key.symbol, kind: block.key.kind };
        if rows.iter().any(|row| row.tick.series() != series) {
            return Err(corrupt("it holds ticks of another series".to_owned()));
        }
        Ok(rows)
    }
}

/// A walk over the directory: the buckets of a series in a span, in the order asked for.
struct Walk<'a> {
    reader: &'a Reader,
    series: Series,
    from: Bucket,
    to: Bucket,
    order: Order,
    /// What was read and not given out, the next one last.
    page: Vec<Bucket>,
    ended: bool,
}

impl Walk<'_> {
    async fn next(&mut self) -> Result<Option<Bucket>, ReadError> {
        while self.page.is_empty() && !self.ended {
            let limit = self.reader.limits.directory_rows.max(1);
            let store = &self.reader.store;
            let rows = store.buckets(self.series.symbol, self.from, self.to, self.order, limit).await?;
            match (rows.last(), self.order) {
                (Some(last), Order::Ascending) => self.from = Bucket(last.bucket.0 + 1),
                (Some(last), Order::Descending) => self.to = Bucket(last.bucket.0 - 1),
                (None, _) => {}
            }
            self.ended = rows.len() < limit || self.from > self.to;
            let kind = 1_u16 << self.series.kind.number();
            self.page = rows.iter().rev().filter(|row| row.kinds & kind != 0).map(|row| row.bucket).collect();
        }
        Ok(self.page.pop())
    }
}
