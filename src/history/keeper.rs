//! The keeper: turns what is followed into blocks, a shard at a time, and then writes the shard's
//! mark.
//!
//! Every linger (60 s, less where the tail fills) the owner of a shard takes all ticks of it in
//! the tail that no mark read before covers, together with the node's Position of that instant,
//! sorts them by series and bucket in the order of history, cuts blocks of at most 4,096 ticks,
//! puts them, and when all of them are durable puts the mark with that Position (I6). So any mark
//! by any owner, older or newer, is valid, two owners of one shard are harmless, and a new owner
//! writes everything that its tail holds and not only what came since. A block's id is a hash of
//! its contents: written twice it is one row.
//!
//! The owner of a shard is found by rendezvous hashing over the live tapes of the region. The
//! machine is driven by [`Keeper::tick`], [`Keeper::blocks_put`] and [`Keeper::mark_put`].

use std::collections::{BTreeMap, VecDeque};

use crate::market::{Bucket, Kind, Nanos, Row, table};
use crate::store::{BlockKey, BucketKey, TapeId};
use crate::tape::{Backlog, Mark, Mono, Now, Position, View, rendezvous, shard_of};

/// The most bytes that the ticks of a block take in memory: less than a table may have.
const BLOCK_BYTES_MAX: usize = 4 << 20;

/// Limits and times of a keeper.
#[derive(Clone, Copy, Debug)]
pub struct KeeperConfig {
    /// The number of shards.
    pub shards: u8,
    /// Ticks wait so long for others of their series.
    pub linger_ms: u64,
    /// A shard with so many waiting ticks does not wait.
    pub flush_rows: usize,
    /// The most ticks of a block.
    pub block_rows_max: usize,
    /// Before a put that failed is tried again.
    pub retry_ms: u64,
    /// The most ticks of one put, whose blocks are durable together.
    pub put_rows_max: usize,
}

impl Default for KeeperConfig {
    fn default() -> Self {
        Self {
            shards: crate::tape::SHARDS,
            linger_ms: 60_000,
            flush_rows: 65_536,
            block_rows_max: 4_096,
            retry_ms: 1_000,
            put_rows_max: 32_768,
        }
    }
}

/// The keeper's rules. All hold in production; the simulator breaks them one by one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct KeeperRules {
    /// The mark is put when its blocks are durable.
    pub blocks_first: bool,
    /// A new owner writes everything its tail holds.
    pub whole_tail: bool,
}

impl Default for KeeperRules {
    fn default() -> Self {
        Self { blocks_first: true, whole_tail: true }
    }
}

/// Ticks of one series and one bucket, in the order of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The kind of all its ticks.
    pub kind: Kind,
    /// The ticks.
    pub rows: Vec<Row>,
}

impl Block {
    /// The block's table, and the key that its contents give it.
    #[must_use]
    pub fn encode(&self) -> (BlockKey, Vec<u8>) {
        let table = table::encode_block(&self.rows);
        let mut id = [0; 16];
        blake3::Hasher::new().update(&table).finalize_xof().fill(&mut id);
        (BlockKey { kind: self.kind, first: self.first(), id }, table)
    }

    /// Event time of the first tick.
    #[must_use]
    pub fn first(&self) -> Nanos {
        self.rows.first().map_or(Nanos(0), |row| row.tick.time)
    }

    /// Event time of the last tick.
    #[must_use]
    pub fn last(&self) -> Nanos {
        self.rows.last().map_or(Nanos(0), |row| row.tick.time)
    }
}

/// What the keeper asks for.
#[derive(Clone, Debug)]
pub enum KeeperEffect {
    /// Put these blocks, then call [`Keeper::blocks_put`].
    PutBlocks {
        /// The shard.
        shard: u8,
        /// Names the put within the shard.
        put: u64,
        /// The shard's running number of blocks, these included.
        count: u64,
        /// The blocks of each bucket.
        buckets: Vec<(BucketKey, Vec<Block>)>,
    },
    /// Put the shard's mark into the own region's marks, then call [`Keeper::mark_put`].
    PutMark {
        /// The shard.
        shard: u8,
        /// The mark.
        mark: Mark,
    },
}

#[derive(Clone, Debug)]
struct Put {
    count: u64,
    rows: usize,
    buckets: Vec<(BucketKey, Vec<Block>)>,
}

/// A flush of a shard: blocks, then the mark.
#[derive(Debug)]
struct Flush {
    waiting: VecDeque<(u64, Put)>,
    sent: Option<(u64, Put)>,
    mark: Mark,
    mark_sent: bool,
    mark_done: bool,
    again: Mono,
}

#[derive(Debug, Default)]
struct Shard {
    owned_since: Option<Mono>,
    flush: Option<Flush>,
    marked_at: Mono,
    marked: Option<Position>,
    blocks: u64,
}

/// Keeps the shards that this node owns.
#[derive(Debug)]
pub struct Keeper {
    config: KeeperConfig,
    rules: KeeperRules,
    shards: Vec<Shard>,
    puts: u64,
}

impl Keeper {
    /// A keeper that owns nothing yet.
    #[must_use]
    pub fn new(config: KeeperConfig) -> Self {
        let shards = (0..config.shards).map(|_| Shard::default()).collect();
        Self { config, rules: KeeperRules::default(), shards, puts: 0 }
    }

    /// The same, going on from the blocks that the store counts for each shard: after a crash
    /// between blocks and their mark these are more than the mark says.
    #[must_use]
    pub fn with_counts(mut self, counts: &[u64]) -> Self {
        for (shard, count) in self.shards.iter_mut().zip(counts) {
            shard.blocks = *count;
        }
        self
    }

    /// The same with broken rules.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_rules(mut self, rules: KeeperRules) -> Self {
        self.rules = rules;
        self
    }

    /// The shards that `own` keeps, where these tapes of the region are alive.
    #[must_use]
    pub fn owned(&self, own: TapeId, live: &[TapeId]) -> Vec<u8> {
        let mine = |shard: &u8| {
            let work = u64::from(*shard) + 1;
            live.iter().all(|other| rendezvous(*other, work) <= rendezvous(own, work))
        };
        (0..self.config.shards).filter(mine).collect()
    }

    /// Starts the flushes that are due, of the shards that this node owns now, and goes on with
    /// those that are under way. `drain` flushes all of them without waiting.
    pub fn tick(&mut self, view: &View, owned: &[u8], drain: bool, now: Now) -> Vec<KeeperEffect> {
        let mut effects = Vec::new();
        let backlog = view.tail().backlog();
        let fullness = view.tail().fullness();
        for number in 0..self.config.shards {
            let waits = backlog.get(usize::from(number)).copied().unwrap_or_default();
            let Some(shard) = self.shards.get_mut(usize::from(number)) else { continue };
            if owned.contains(&number) {
                shard.owned_since.get_or_insert(now.mono);
            } else {
                shard.owned_since = None;
            }
            let due = is_due(shard, waits, fullness, &self.config, now.mono) || drain;
            if shard.owned_since.is_some() && shard.flush.is_none() && due {
                self.begin(number, view, now);
            }
            self.advance(number, now, &mut effects);
        }
        effects
    }

    /// Whether no flush is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shards.iter().all(|shard| shard.flush.is_none())
    }

    /// Takes everything of the shard that waits, with the Position of this instant.
    fn begin(&mut self, number: u8, view: &View, now: Now) {
        let shards = self.config.shards;
        let Some(shard) = self.shards.get_mut(usize::from(number)) else { return };
        let since = if self.rules.whole_tail { None } else { shard.owned_since };
        let mut groups: BTreeMap<(BucketKey, Kind), Vec<Row>> = BTreeMap::new();
        for (frame, at) in view.tail().open(number) {
            if since.is_some_and(|since| at < since) {
                continue;
            }
            for row in frame.rows.iter().filter(|row| shard_of(row.tick.symbol, shards) == number) {
                let kind = row.tick.kind();
                let bucket = Bucket::of(kind, row.tick.time);
                let key = BucketKey { symbol: row.tick.symbol, bucket };
                groups.entry((key, kind)).or_default().push(row.clone());
            }
        }
        let position = view.mark_position(number);
        shard.blocks = shard.blocks.max(view.mark(number).map_or(0, |mark| mark.blocks));
        let unmoved = shard.marked.as_ref() == Some(&position);
        shard.marked_at = now.mono;
        if groups.is_empty() && unmoved {
            return;
        }
        let mut waiting: VecDeque<(u64, Put)> = VecDeque::new();
        for ((key, kind), rows) in groups {
            let blocks = cut(kind, rows, self.config.block_rows_max);
            shard.blocks += blocks.len() as u64;
            let rows: usize = blocks.iter().map(|block| block.rows.len()).sum();
            let count = shard.blocks;
            match waiting.back_mut() {
                Some((_, put)) if put.rows + rows <= self.config.put_rows_max => {
                    (put.rows, put.count) = (put.rows + rows, count);
                    match put.buckets.last_mut() {
                        Some((last, held)) if *last == key => held.extend(blocks),
                        _ => put.buckets.push((key, blocks)),
                    }
                }
                _ => {
                    self.puts += 1;
                    waiting.push_back((self.puts, Put { count, rows, buckets: vec![(key, blocks)] }));
                }
            }
        }
        let mark = Mark { position, blocks: shard.blocks };
        shard.flush =
            Some(Flush { waiting, sent: None, mark, mark_sent: false, mark_done: false, again: now.mono });
    }

    fn advance(&mut self, number: u8, now: Now, effects: &mut Vec<KeeperEffect>) {
        let Some(shard) = self.shards.get_mut(usize::from(number)) else { return };
        let Some(flush) = shard.flush.as_mut().filter(|flush| flush.again <= now.mono) else { return };
        let marked = self.rules.blocks_first || flush.mark_done;
        // One put at a time, in their order: the store's count then never runs ahead of its blocks.
        if marked
            && flush.sent.is_none()
            && let Some((put, of)) = flush.waiting.pop_front()
        {
            let (count, buckets) = (of.count, of.buckets.clone());
            flush.sent = Some((put, of));
            effects.push(KeeperEffect::PutBlocks { shard: number, put, count, buckets });
        }
        let written = flush.waiting.is_empty() && flush.sent.is_none();
        if (written || !self.rules.blocks_first) && !flush.mark_sent && !flush.mark_done {
            flush.mark_sent = true;
            effects.push(KeeperEffect::PutMark { shard: number, mark: flush.mark.clone() });
        }
        if written && flush.mark_done {
            shard.marked = Some(flush.mark.position.clone());
            shard.flush = None;
        }
    }

    /// The answer to [`KeeperEffect::PutBlocks`].
    pub fn blocks_put(&mut self, number: u8, put: u64, durable: bool, now: Now) -> Vec<KeeperEffect> {
        let mut effects = Vec::new();
        let retry = now.mono.after(self.config.retry_ms);
        let flush = self.shards.get_mut(usize::from(number)).and_then(|shard| shard.flush.as_mut());
        if let Some(flush) = flush
            && let Some(of) = flush.sent.take_if(|(sent, _)| *sent == put)
            && !durable
        {
            flush.waiting.push_front(of);
            flush.again = retry;
        }
        self.advance(number, now, &mut effects);
        effects
    }

    /// The answer to [`KeeperEffect::PutMark`]. A mark that is durable is then given to
    /// [`View::mark_read`] by the caller, like one that was read.
    pub fn mark_put(&mut self, number: u8, durable: bool, now: Now) -> Vec<KeeperEffect> {
        let mut effects = Vec::new();
        let retry = now.mono.after(self.config.retry_ms);
        let flush = self.shards.get_mut(usize::from(number)).and_then(|shard| shard.flush.as_mut());
        if let Some(flush) = flush {
            (flush.mark_sent, flush.mark_done) = (false, durable);
            if !durable {
                flush.again = retry;
            }
        }
        self.advance(number, now, &mut effects);
        effects
    }
}

/// A shard is due when its oldest tick has lingered, when many ticks wait, or, so that its mark
/// moves along, when nothing was marked for a linger.
fn is_due(shard: &Shard, waits: Backlog, fullness: usize, config: &KeeperConfig, now: Mono) -> bool {
    let linger = match fullness {
        0..50 => config.linger_ms,
        50..75 => config.linger_ms / 4,
        _ => 0,
    };
    let lingered = waits.oldest.is_some_and(|oldest| now.since(oldest) >= linger);
    lingered || waits.rows >= config.flush_rows || now.since(shard.marked_at) >= config.linger_ms
}

/// Blocks of ticks of one series and bucket, in the order of history: so many ticks at most, and
/// so few bytes that they can be read again.
fn cut(kind: Kind, mut rows: Vec<Row>, rows_max: usize) -> Vec<Block> {
    rows.sort_by_cached_key(Row::place);
    let mut blocks: Vec<Block> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let size = table::row_bytes(&row);
        match blocks.last_mut() {
            Some(block) if block.rows.len() < rows_max && bytes + size <= BLOCK_BYTES_MAX => {
                bytes += size;
                block.rows.push(row);
            }
            _ => {
                bytes = size;
                blocks.push(Block { kind, rows: vec![row] });
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::fixtures::{at, frame, region};
    use crate::tape::{Follower, FollowerConfig, Progress, RequestConfig, RequestMemory, Tail, TailConfig};

    fn view() -> View {
        let config = FollowerConfig::new(region("a"), vec![region("a")]);
        let tail = Tail::new(TailConfig { shards: 1, ..TailConfig::default() });
        let requests = RequestMemory::new(RequestConfig::default(), Mono(0));
        View::new(Follower::new(config, Box::new(|| 1), at(0)), tail, requests, 1)
    }

    fn keeper() -> Keeper {
        Keeper::new(KeeperConfig { shards: 1, block_rows_max: 2, ..KeeperConfig::default() })
    }

    #[test]
    fn blocks_after_the_linger_then_the_mark_with_the_position_of_the_snapshot() {
        let (mut view, mut keeper) = (view(), keeper());
        view.accept(frame(9, 1, 0, &["AAPL", "AAPL", "AAPL", "BBB"]), at(0));
        let mut effects = keeper.tick(&view, &[0], false, at(59_000));
        assert!(effects.is_empty());
        effects = keeper.tick(&view, &[0], false, at(60_000));
        let [KeeperEffect::PutBlocks { put, count: 3, buckets, .. }] = &effects[..] else {
            panic!("{effects:?}")
        };
        let blocks: Vec<usize> =
            buckets.iter().flat_map(|(_, blocks)| blocks).map(|block| block.rows.len()).collect();
        assert_eq!(blocks, [2, 1, 1]);
        view.accept(frame(9, 2, 1, &["AAPL"]), at(60_001));
        assert!(keeper.blocks_put(0, *put, false, at(60_002)).is_empty(), "a put that failed comes again");
        let again = keeper.tick(&view, &[0], false, at(61_100));
        let [KeeperEffect::PutBlocks { put, .. }] = &again[..] else { panic!("{again:?}") };
        let effects = keeper.blocks_put(0, *put, true, at(61_200));
        let [KeeperEffect::PutMark { mark, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(mark.position.tapes[&TapeId(9)], Progress::at(2), "not what came after the snapshot");
        assert_eq!(mark.blocks, 3);
        keeper.mark_put(0, true, at(61_300));
        assert!(keeper.is_idle());
        view.mark_read(0, mark.clone(), at(61_300));
        assert_eq!(view.tail().open(0).map(|(frame, _)| frame.seq).collect::<Vec<_>>(), [2]);
        assert!(view.is_released(TapeId(9), &[1]) && !view.is_released(TapeId(9), &[1, 2]));
    }

    #[test]
    fn who_does_not_own_a_shard_does_not_keep_it_and_who_takes_over_keeps_all_of_it() {
        let (mut view, mut keeper) = (view(), keeper());
        view.accept(frame(9, 1, 0, &["AAPL"]), at(0));
        assert!(keeper.tick(&view, &[], true, at(90_000)).is_empty());
        let effects = keeper.tick(&view, &[0], false, at(90_001));
        assert!(matches!(&effects[..], [KeeperEffect::PutBlocks { .. }]), "{effects:?}");
    }

    #[test]
    fn an_idle_shards_mark_moves_along() {
        let (mut view, mut keeper) = (view(), keeper());
        view.accept(frame(9, 1, 0, &[]), at(0));
        let effects = keeper.tick(&view, &[0], false, at(60_000));
        assert!(matches!(&effects[..], [KeeperEffect::PutMark { .. }]), "{effects:?}");
        keeper.mark_put(0, true, at(60_010));
        assert!(keeper.tick(&view, &[0], false, at(120_100)).is_empty(), "nothing has moved");
    }

    #[test]
    fn a_block_is_named_by_its_contents() {
        let rows = frame(9, 1, 0, &["AAPL", "AAPL"]).rows.clone();
        let block = Block { kind: Kind::Trade, rows: rows.clone() };
        let (key, table) = block.encode();
        assert_eq!(block.encode(), (key, table));
        let other = Block { kind: Kind::Trade, rows: rows[..1].to_vec() };
        assert_ne!(other.encode().0.id, key.id);
        assert_eq!((block.first(), block.last()), (rows[0].tick.time, rows[1].tick.time));
    }

    #[test]
    fn each_shard_has_one_owner() {
        let keeper = Keeper::new(KeeperConfig::default());
        let live = [TapeId(3), TapeId(77), TapeId(1 << 60)];
        let mut owned: Vec<u8> = live.iter().flat_map(|own| keeper.owned(*own, &live)).collect();
        owned.sort_unstable();
        assert_eq!(owned, (0..16).collect::<Vec<u8>>());
    }
}
