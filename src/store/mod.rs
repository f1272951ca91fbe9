//! The durable doors: [`Store`] for tapes and blocks, [`Records`] for small rows.
//!
//! Values are opaque bytes in one envelope ([`crate::seal`]): magic, version, key id, a
//! 16-byte keyed MAC over the payload and the row's full key, payload. The callers above
//! seal and open; a store only keeps. Keys and rows are owned here.
//!
//! | trait | what it keeps | backends |
//! |---|---|---|
//! | [`Store`] | tapes (append-only logs of frames) and this region's blocks | [`embedded`], [`cassandra`] |
//! | [`Records`] | registry, marks, retired lists, gaps, keys, audit, subscriptions, used tickets | [`embedded`], [`cassandra`] |
//!
//! Every backend passes the conformance suite in `suite`; `faults` decorates any of them
//! with failures on purpose. Every call has a deadline of its own inside the backend.

use std::fmt;
use std::ops::RangeInclusive;

use async_trait::async_trait;
use bytes::Bytes;

use crate::market::{Bucket, Kind, Nanos, Symbol};
use crate::seal::SealKey;

pub mod cassandra;
pub mod embedded;
pub mod faults;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
pub(crate) mod suite;

/// The name of a tape: one boot's log, a random 64-bit number, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TapeId(pub u64);

impl fmt::Display for TapeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TapeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Frames of one partition of a tape: chunk = (seq - 1) / 256.
pub const FRAMES_PER_CHUNK: u64 = 256;

/// A frame as it is stored: sealed bytes under (tape, seq). The bytes of a seq never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRow {
    /// The tape.
    pub tape: TapeId,
    /// The number on the tape, from 1.
    pub seq: u64,
    /// The sealed frame.
    pub body: Bytes,
}

/// How far an append must reach before it is Ok.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Durable in this region (embedded: on this disk, after fdatasync).
    Region,
    /// Durable in every region.
    All,
    /// Durable at the tape's home region: the write-back of a dead tape's last frames.
    Home,
}

/// From where frames are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// This region's replicas.
    Here,
    /// The tape's home region, by a coordinator there.
    Home,
}

/// Where the blocks of a symbol and a slice of time are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketKey {
    /// The symbol.
    pub symbol: Symbol,
    /// The slice of time.
    pub bucket: Bucket,
}

/// A block's key within its bucket: kind, first event time, and a name of its contents
/// (so that the same block written twice is one row). In key order, blocks ascend by first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey {
    /// The kind of all its ticks.
    pub kind: Kind,
    /// Event time of the first tick.
    pub first: Nanos,
    /// 128 bits of the hash of its contents.
    pub id: [u8; 16],
}

/// A block as it is stored: a sealed table of ticks of one series, in the order of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRow {
    /// Its key.
    pub key: BlockKey,
    /// Event time of the last tick.
    pub last: Nanos,
    /// Number of ticks.
    pub count: u32,
    /// The sealed table.
    pub body: Bytes,
}

/// One page of blocks, ascending by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockPage {
    /// The blocks.
    pub blocks: Vec<BlockRow>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// A row of the directory: which kinds a bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketRow {
    /// The bucket.
    pub bucket: Bucket,
    /// The kinds it holds: bit `1 << kind.number()`.
    pub kinds: u16,
}

/// A row of the list of symbols, with what of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolRow {
    /// The symbol.
    pub symbol: Symbol,
    /// The kinds it has: bit `1 << kind.number()`.
    pub kinds: u16,
    /// Event time of the earliest tick in blocks.
    pub first: Nanos,
    /// Event time of the latest tick in blocks.
    pub last: Nanos,
}

/// A span of event time, both ends included.
pub type Span = RangeInclusive<Nanos>;

/// In which direction to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// What a failed call means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// It may have happened. Repeat the same call with the same bytes.
    Unknown,
    /// It did not happen; nothing was sent or written. Later.
    Refused,
    /// It can never happen as asked.
    Invalid,
    /// What is stored is damaged. Stop and look.
    Corrupt,
}

/// A failed call, with a detail for people that names file, row or server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct StoreError {
    /// What it means for the caller.
    pub kind: StoreErrorKind,
    /// What happened, for people: names the file, row, or server.
    pub detail: String,
}

impl StoreError {
    /// An error of this kind.
    pub fn new(kind: StoreErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// It may have happened.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unknown, detail)
    }

    /// It did not happen.
    pub fn refused(detail: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Refused, detail)
    }

    /// It can never happen as asked.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Invalid, detail)
    }

    /// What is stored is damaged.
    pub fn corrupt(detail: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, detail)
    }
}

/// Tapes and blocks.
///
/// Ok means durable at the named reach. Every call is safe to repeat with the same
/// arguments. Dropping a future leaves the outcome unknown. An empty range answers an
/// empty list; it is never an error.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Appends one frame. Repeating it with the same bytes is Ok. A seq has one body, for one writer
    /// gives it: other bytes for a seq that is there are [`StoreErrorKind::Invalid`] where the
    /// backend looks before it writes (`embedded`), and are not noticed where that would cost a
    /// round (`cassandra`): one of the two stays. After [`StoreErrorKind::Unknown`] the frame
    /// may or may not be there, now or later. Frames of a tape may arrive in any order.
    ///
    /// # Errors
    /// `Unknown`, `Refused` (a full or failing disk; names it), `Invalid`.
    async fn append(&self, frame: FrameRow, reach: Reach) -> Result<(), StoreError>;

    /// The frames of a tape whose seq is in the range, ascending, perhaps with holes, at least
    /// one where there is one, and then as many as fit `bytes_max`. What is answered here has
    /// been durable before the answer. It may end before a row that cannot be read: the next
    /// read begins with that one and fails.
    ///
    /// # Errors
    /// `Unknown` (nobody could be asked), `Corrupt` (names the row).
    async fn frames(
        &self,
        tape: TapeId,
        seqs: RangeInclusive<u64>,
        bytes_max: usize,
        at: At,
    ) -> Result<Vec<FrameRow>, StoreError>;

    /// Writes the blocks of one flush of a keeper in one durable batch, with their rows of the
    /// directory and of the list of symbols. `count` is the shard's running number of blocks,
    /// these included; the store keeps the highest it was given, in the same batch. All of it is
    /// there when this is Ok; where a backend has no batch over several buckets, a part may be
    /// there when it is not, and the count never before the blocks. The symbols of a shard are
    /// written by one task at a time.
    ///
    /// # Errors
    /// `Unknown`, `Refused` (a full or failing disk; names it), `Invalid` (a block's row and
    /// contents that the store cannot hold).
    async fn put_blocks(
        &self,
        shard: u16,
        count: u64,
        blocks: Vec<(BucketKey, Vec<BlockRow>)>,
    ) -> Result<(), StoreError>;

    /// The shard's running number of blocks: the highest that [`Store::put_blocks`] was given, 0
    /// where it never was. A mark carries the number; where the store has fewer than a mark says,
    /// blocks were lost, and they are made again from the tapes or the node does not start.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    async fn block_count(&self, shard: u16) -> Result<u64, StoreError>;

    /// Blocks of one kind that overlap `span`, ascending by key, from after `after`.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    async fn blocks(
        &self,
        key: BucketKey,
        kind: Kind,
        span: Span,
        after: Option<BlockKey>,
        bytes_max: usize,
    ) -> Result<BlockPage, StoreError>;

    /// The directory of a symbol: at most `limit` buckets between `from` and `to` (both
    /// included, `from <= to`, of one width), in the order asked for.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    async fn buckets(
        &self,
        symbol: Symbol,
        from: Bucket,
        to: Bucket,
        order: Order,
        limit: usize,
    ) -> Result<Vec<BucketRow>, StoreError>;

    /// The list of symbols that have blocks: those after `after` that begin with `prefix`,
    /// ascending, at most `limit`.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    async fn symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<Vec<SymbolRow>, StoreError>;

    /// Whether the store answers now.
    ///
    /// # Errors
    /// `Unknown` or `Refused`, with the reason.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// How rows of a space are written, and who agrees on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The last write wins, by version: a put must carry max(now, version seen + 1).
    LastWriteWins,
    /// Compare-and-set among the replicas of the region that the key names.
    CasRegion,
    /// Compare-and-set among all replicas.
    CasGlobal,
}

/// The spaces of records. Each has one consistency for all its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Registry of tapes: part = region, key = tape id.
    Tapes,
    /// Marks of keepers: part = region, key = shard.
    Marks,
    /// Ranges of tapes that a region lost: part = region, key = tape and first seq.
    Gaps,
    /// Retired lists: part = region, key = `list`. Compare-and-set in the region.
    Retired,
    /// API keys: part = first two characters of the id, key = id.
    Keys,
    /// Audit entries: part = day, key = time and counter.
    Audit,
    /// Subscriptions: part = account, key = id. A row with an empty payload says that it was
    /// deleted, and may be forgotten after a day.
    Subscriptions,
    /// Used tickets: part = region, key = when it ends and its name. Compare-and-set in the region.
    Tickets,
}

impl Space {
    /// All spaces.
    pub const ALL: [Self; 8] = [
        Self::Tapes,
        Self::Marks,
        Self::Gaps,
        Self::Retired,
        Self::Keys,
        Self::Audit,
        Self::Subscriptions,
        Self::Tickets,
    ];

    /// How rows of this space are written.
    #[must_use]
    pub const fn consistency(self) -> Consistency {
        match self {
            Self::Tapes | Self::Marks | Self::Gaps | Self::Keys | Self::Audit | Self::Subscriptions => {
                Consistency::LastWriteWins
            }
            Self::Retired | Self::Tickets => Consistency::CasRegion,
        }
    }

    /// Whether rows of this space are written by [`Records::put`].
    ///
    /// # Errors
    /// `Invalid` where they are not.
    fn check_put(self) -> Result<(), StoreError> {
        match self.consistency() {
            Consistency::LastWriteWins => Ok(()),
            Consistency::CasRegion | Consistency::CasGlobal => {
                Err(StoreError::invalid(format!("rows of `{}` are written with put_if", self.name())))
            }
        }
    }

    /// Whether rows of this space are written by [`Records::put_if`], and this version follows the
    /// expected one.
    ///
    /// # Errors
    /// `Invalid` where they are not, or it does not.
    fn check_put_if(self, version: u64, expected: u64) -> Result<(), StoreError> {
        if self.consistency() == Consistency::LastWriteWins {
            return Err(StoreError::invalid(format!("rows of `{}` are written with put", self.name())));
        }
        if expected.checked_add(1) != Some(version) {
            return Err(StoreError::invalid(format!("version {version} must be expected {expected} + 1")));
        }
        Ok(())
    }

    /// The stored name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tapes => "tapes",
            Self::Marks => "marks",
            Self::Gaps => "gaps",
            Self::Retired => "retired",
            Self::Keys => "keys",
            Self::Audit => "audit",
            Self::Subscriptions => "subscriptions",
            Self::Tickets => "tickets",
        }
    }
}

/// What the body of a record is sealed for: its whole key and its version, so that an old body
/// is no new one.
#[must_use]
pub fn record_seal_key(space: Space, part: &str, key: &str, version: u64) -> SealKey {
    SealKey::new("record")
        .part(space.name().as_bytes())
        .part(part.as_bytes())
        .part(key.as_bytes())
        .number(version)
}

/// A small row. `version` orders writes: of last-write-wins rows it is a time in
/// microseconds; of compare-and-set rows 1, 2, 3 …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key within the part.
    pub key: String,
    /// The version.
    pub version: u64,
    /// The body, sealed by the caller.
    pub body: Bytes,
}

/// Small rows: few, replicated to every region, read often.
///
/// Ok means durable. Every call is safe to repeat. Dropping a future leaves the outcome
/// unknown. `put` belongs to last-write-wins spaces, `put_if` to compare-and-set spaces; the
/// other way round is [`StoreErrorKind::Invalid`].
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// The row, if there is one.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    async fn get(&self, space: Space, part: &str, key: &str) -> Result<Option<Record>, StoreError>;

    /// Writes a row; it stays out (and that is Ok) where one with a higher version is there.
    /// Of two rows with one version the larger body wins.
    ///
    /// # Errors
    /// `Unknown`, `Refused`, `Invalid`.
    async fn put(&self, space: Space, part: &str, record: Record) -> Result<(), StoreError>;

    /// Writes a row only if the one there has version `expected` (0: none is there);
    /// `record.version` must be `expected + 1`. Answers whether it was written. After `Unknown`
    /// read the row: it tells whether the write won.
    ///
    /// # Errors
    /// `Unknown`, `Refused`, `Invalid`.
    async fn put_if(
        &self,
        space: Space,
        part: &str,
        record: Record,
        expected: u64,
    ) -> Result<bool, StoreError>;

    /// Rows of a part after the key `after`, ascending by key, at most `limit`.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    async fn scan(
        &self,
        space: Space,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;
}
