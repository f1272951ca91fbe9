//! A store that fails on purpose, around any other: for tests of what stands above a store,
//! and for operators who want to see how a node behaves on a failing one.
//!
//! [`Faults`] holds a plan: a script of faults, one a call of the named operation, or a seed
//! and a chance, after which the script goes on by itself. The same plan and the same order of
//! calls give the same failures. A call without a fault goes straight through.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{
    At, BlockKey, BlockPage, BlockRow, BucketKey, BucketRow, FrameRow, Order, Reach, Record, Records, Space,
    Span, Store, StoreError, SymbolRow, TapeId,
};
use crate::market::{Bucket, Kind, Symbol};

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the call goes through.
    Pass,
    /// It is not applied, and answers `Unknown`.
    FailBefore,
    /// It is applied, and answers `Unknown`.
    FailAfter,
    /// It is not applied, and answers `Refused`, as a full disk does.
    Refuse,
    /// It is applied after a while.
    Delay(Duration),
    /// It never answers; a write is applied.
    Hang,
    /// One bit of each body that is answered is flipped. Writes go through.
    FlipBit,
    /// It answers `Corrupt`.
    Corrupt,
}

/// The operations that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Operation {
    Append,
    /// An append for all regions.
    AppendAll,
    Frames,
    PutBlocks,
    BlockCount,
    Blocks,
    Buckets,
    Symbols,
    Ping,
    Get,
    Put,
    PutIf,
    Scan,
}

/// The plan of faults, shared by whoever holds a clone.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    script: BTreeMap<Operation, VecDeque<Fault>>,
    always: BTreeMap<Operation, Fault>,
    tapes: BTreeMap<TapeId, Fault>,
    random: Option<Random>,
    calls: BTreeMap<Operation, u64>,
}

#[derive(Debug)]
struct Random {
    rng: StdRng,
    chance: f64,
    faults: Vec<Fault>,
}

impl Faults {
    /// The next calls of this operation meet these faults, one each, in this order.
    pub fn script(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().script.entry(operation).or_default().extend(faults);
    }

    /// Every call of this operation meets this fault, until `always` says otherwise
    /// ([`Fault::Pass`]). The script goes first.
    pub fn always(&self, operation: Operation, fault: Fault) {
        self.0.lock().always.insert(operation, fault);
    }

    /// Every append to this tape meets this fault, whatever else is planned: its partition is not
    /// there, and others are.
    pub fn tape(&self, tape: TapeId, fault: Fault) {
        self.0.lock().tapes.insert(tape, fault);
    }

    /// Calls that nothing else is planned for meet one of `faults` with this chance, 0 to 1.
    pub fn random(&self, seed: u64, chance: f64, faults: Vec<Fault>) {
        self.0.lock().random = Some(Random { rng: StdRng::seed_from_u64(seed), chance, faults });
    }

    /// How many calls of this operation there were.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.0.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    fn next(&self, operation: Operation) -> Fault {
        let mut plan = self.0.lock();
        *plan.calls.entry(operation).or_default() += 1;
        if let Some(fault) = plan.script.get_mut(&operation).and_then(VecDeque::pop_front) {
            return fault;
        }
        if let Some(fault) = plan.always.get(&operation) {
            return fault.clone();
        }
        let Some(random) = &mut plan.random else { return Fault::Pass };
        if random.faults.is_empty() || !random.rng.random_bool(random.chance.clamp(0.0, 1.0)) {
            return Fault::Pass;
        }
        let at = random.rng.random_range(0..random.faults.len());
        random.faults.get(at).cloned().unwrap_or(Fault::Pass)
    }

    fn of_append(&self, tape: TapeId, operation: Operation) -> Fault {
        let planned = self.next(operation);
        self.0.lock().tapes.get(&tape).cloned().unwrap_or(planned)
    }

    /// Runs a call with whatever is planned for it.
    async fn run<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
        flip: impl FnOnce(T) -> T,
    ) -> Result<T, StoreError> {
        self.meet(self.next(operation), operation, call, flip).await
    }

    async fn meet<T>(
        &self,
        fault: Fault,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
        flip: impl FnOnce(T) -> T,
    ) -> Result<T, StoreError> {
        let name = format!("{operation:?}");
        match fault {
            Fault::Pass => call.await,
            Fault::FailBefore => {
                Err(StoreError::unknown(format!("injected: {name} failed before it was applied")))
            }
            Fault::FailAfter => {
                call.await?;
                Err(StoreError::unknown(format!("injected: {name} failed after it was applied")))
            }
            Fault::Refuse => {
                Err(StoreError::refused(format!("injected: {name} refused, no space left on the disk")))
            }
            Fault::Delay(duration) => {
                tokio::time::sleep(duration).await;
                call.await
            }
            Fault::Hang => {
                call.await?;
                std::future::pending().await
            }
            Fault::FlipBit => call.await.map(flip),
            Fault::Corrupt => Err(StoreError::corrupt(format!("injected: {name} found damage"))),
        }
    }
}

/// A store or records with faults.
#[derive(Debug)]
pub struct Faulty<S: ?Sized> {
    faults: Faults,
    inner: Arc<S>,
}

impl<S: ?Sized> Faulty<S> {
    /// `inner` with the faults of this plan.
    pub fn new(inner: Arc<S>, faults: Faults) -> Self {
        Self { faults, inner }
    }
}

/// The bytes with the middle one's lowest bit flipped.
fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes.into()
}

fn flipped_record(record: Record) -> Record {
    Record { body: flipped(&record.body), ..record }
}

#[async_trait]
impl<S: Store + ?Sized> Store for Faulty<S> {
    async fn append(&self, frame: FrameRow, reach: Reach) -> Result<(), StoreError> {
        let operation = if reach == Reach::All { Operation::AppendAll } else { Operation::Append };
        let fault = self.faults.of_append(frame.tape, operation);
        self.faults.meet(fault, operation, self.inner.append(frame, reach), |done| done).await
    }

    async fn frames(
        &self,
        tape: TapeId,
        seqs: RangeInclusive<u64>,
        bytes_max: usize,
        at: At,
    ) -> Result<Vec<FrameRow>, StoreError> {
        let flip = |frames: Vec<FrameRow>| {
            frames.into_iter().map(|frame| FrameRow { body: flipped(&frame.body), ..frame }).collect()
        };
        self.faults.run(Operation::Frames, self.inner.frames(tape, seqs, bytes_max, at), flip).await
    }

    async fn put_blocks(
        &self,
        shard: u16,
        count: u64,
        blocks: Vec<(BucketKey, Vec<BlockRow>)>,
    ) -> Result<(), StoreError> {
        self.faults.run(Operation::PutBlocks, self.inner.put_blocks(shard, count, blocks), |done| done).await
    }

    async fn block_count(&self, shard: u16) -> Result<u64, StoreError> {
        self.faults.run(Operation::BlockCount, self.inner.block_count(shard), |count| count).await
    }

    async fn blocks(
        &self,
        key: BucketKey,
        kind: Kind,
        span: Span,
        after: Option<BlockKey>,
        bytes_max: usize,
    ) -> Result<BlockPage, StoreError> {
        let flip = |mut page: BlockPage| {
            page.blocks.iter_mut().for_each(|block| block.body = flipped(&block.body));
            page
        };
        self.faults.run(Operation::Blocks, self.inner.blocks(key, kind, span, after, bytes_max), flip).await
    }

    async fn buckets(
        &self,
        symbol: Symbol,
        from: Bucket,
        to: Bucket,
        order: Order,
        limit: usize,
    ) -> Result<Vec<BucketRow>, StoreError> {
        self.faults
            .run(Operation::Buckets, self.inner.buckets(symbol, from, to, order, limit), |rows| rows)
            .await
    }

    async fn symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<Vec<SymbolRow>, StoreError> {
        self.faults.run(Operation::Symbols, self.inner.symbols(prefix, after, limit), |rows| rows).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.faults.run(Operation::Ping, self.inner.ping(), |done| done).await
    }
}

#[async_trait]
impl<S: Records + ?Sized> Records for Faulty<S> {
    async fn get(&self, space: Space, part: &str, key: &str) -> Result<Option<Record>, StoreError> {
        let flip = |record: Option<Record>| record.map(flipped_record);
        self.faults.run(Operation::Get, self.inner.get(space, part, key), flip).await
    }

    async fn put(&self, space: Space, part: &str, record: Record) -> Result<(), StoreError> {
        self.faults.run(Operation::Put, self.inner.put(space, part, record), |done| done).await
    }

    async fn put_if(
        &self,
        space: Space,
        part: &str,
        record: Record,
        expected: u64,
    ) -> Result<bool, StoreError> {
        self.faults.run(Operation::PutIf, self.inner.put_if(space, part, record, expected), |won| won).await
    }

    async fn scan(
        &self,
        space: Space,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let flip = |records: Vec<Record>| records.into_iter().map(flipped_record).collect();
        self.faults.run(Operation::Scan, self.inner.scan(space, part, after, limit), flip).await
    }
}
