//! The scaled store: Cassandra 5 or ScyllaDB, over any number of datacenters.
//!
//! | keyspace | what | where | written |
//! |---|---|---|---|
//! | `tapeline` | frames by (tape, chunk), the directory of chunks | all regions | at `LOCAL_QUORUM` of the tape's region; for all regions once more at `EACH_QUORUM` |
//! | `tapeline_ctl` | records by (space, part), migrations | all regions | by version as timestamp, or compare-and-set among the replicas of the region that the part names |
//! | `tapeline_REGION` | blocks by (symbol, bucket), the directory, the list of symbols | its own datacenter | what names a block before it |
//!
//! Values are opaque and sealed by the callers, as in the embedded store. Tables are those of `cql/`
//! ([`schema`]), brought about by [`Schema`]; opening refuses where they are not.
//!
//! It promises: Ok is on a quorum of the datacenter that was asked, and on their disks where the
//! database syncs its commit log before it answers ([`CassandraStore::durability`]). A write that
//! failed after a byte was sent may have happened, and the caller repeats it with the same bytes; the
//! driver itself repeats none, but gives it to a second node where the first is slow. No other
//! datacenter answers for one that does not. A frame that is written again with other bytes is not
//! noticed: one seq has one body because one writer gave it.
//!
//! Numbers: `cassandra.append_bytes_max` of frames under way, `cassandra.flush_statements`
//! statements of a flush; the names of 65,536 chunks, as many tapes and 262,144 buckets that need not
//! be written or looked up again, at most.

pub mod durability;
mod blocks;
mod configured;
mod errors;
mod known;
pub mod migrate;
mod records;
pub mod schema;
mod session;
mod tapes;
#[cfg(test)]
#[path = "../../../tests/it/cluster.rs"]
#[expect(unreachable_pub, reason = "the tests of whole nodes have it too")]
mod cluster;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;

use self::blocks::Blocks;
use self::records::RecordStatements;
use self::session::Cluster;
use self::tapes::{TapeStatements, Tapes};
use super::{
    At, BlockKey, BlockPage, BlockRow, BucketKey, BucketRow, Consistency, FrameRow, Order, Reach, Record,
    Records, Space, Span, Store, StoreError, SymbolRow, TapeId,
};
use crate::market::{Bucket, Kind, Symbol};
use crate::seal::ENVELOPE_BYTES;

pub use migrate::{Schema, Standing, Step};
pub use schema::{Layout, Placement};
pub use session::CassandraOptions;

/// How long rows of records live that would pile up.
#[derive(Clone, Copy, Debug)]
pub struct RecordLives {
    /// A registry row after it was written last.
    pub tapes: Duration,
    /// An audit entry.
    pub audit: Duration,
}

/// A row that says that something was deleted, and a used ticket.
const SHORT_LIFE: Duration = Duration::from_secs(24 * 3_600);

struct RegionStatements {
    tapes: TapeStatements,
    records: RecordStatements,
}

/// A store over a cluster: [`Store`] and [`Records`] at once.
pub struct CassandraStore {
    cluster: Cluster,
    layout: Layout,
    lives: RecordLives,
    /// By datacenter.
    statements: BTreeMap<String, RegionStatements>,
    tapes: Tapes,
    blocks: Blocks,
    ping: scylla::statement::prepared::PreparedStatement,
}

impl CassandraStore {
    /// Connects, and looks whether the tables are those of this program.
    ///
    /// # Errors
    /// `Unknown` where the cluster cannot be reached; `Invalid` where it has no such datacenter or
    /// other tables.
    pub async fn open(options: &CassandraOptions, lives: RecordLives) -> Result<Self, StoreError> {
        let cluster = Cluster::connect(options).await?;
        let layout = options.layout.clone();
        migrate::verify(&cluster, &layout).await?;
        configured::check(&cluster, &layout).await?;
        let mut statements = BTreeMap::new();
        for placement in layout.regions.values() {
            let datacenter = &placement.datacenter;
            if !statements.contains_key(datacenter) {
                let tapes = TapeStatements::prepare(&cluster, layout.shared(), datacenter).await?;
                let records = RecordStatements::prepare(&cluster, &layout.control(), datacenter).await?;
                statements.insert(datacenter.clone(), RegionStatements { tapes, records });
            }
        }
        let own = layout.regions.get(&layout.region).map(|placement| placement.datacenter.clone());
        let own =
            own.ok_or_else(|| StoreError::invalid(format!("region {} has no datacenter", layout.region)))?;
        let blocks = Blocks::prepare(&cluster, &layout.of_region(), &own, options.flush_statements).await?;
        // A quorum answers, and not the one node that was asked.
        let ping = format!(
            "SELECT key FROM {}.records WHERE space = 'ping' AND part = 'ping' LIMIT 1",
            layout.control()
        );
        let ping = cluster.prepare(&own, &ping, session::Mode::Read).await?;
        let tapes = Tapes::new(options.append_bytes_max);
        Ok(Self { cluster, layout, lives, statements, tapes, blocks, ping })
    }

    /// What the driver has counted.
    #[must_use]
    pub fn stats(&self) -> DriverStats {
        let metrics = self.cluster.session().get_metrics();
        DriverStats {
            requests: metrics.get_requests_unpaged_num() + metrics.get_requests_manually_paged_num(),
            errors: metrics.get_errors_unpaged_num() + metrics.get_errors_manually_paged_num(),
            retries: metrics.get_retries_num(),
            connections: metrics.get_total_connections(),
            connection_timeouts: metrics.get_connection_timeouts(),
            request_timeouts: metrics.get_request_timeouts(),
        }
    }

    fn of_region(&self, region: &str) -> Result<&RegionStatements, StoreError> {
        let placement = self.layout.regions.get(region);
        let statements = placement.and_then(|placement| self.statements.get(&placement.datacenter));
        statements
            .ok_or_else(|| StoreError::invalid(format!("cassandra.regions says nothing of region {region}")))
    }

    /// The region that a row of a space belongs to.
    fn region_of<'a>(&'a self, space: Space, part: &'a str) -> &'a str {
        if space.consistency() == Consistency::CasRegion { part } else { &self.layout.region }
    }

    /// The region of a tape: that under which it is registered.
    async fn home(&self, tape: TapeId) -> Result<String, StoreError> {
        if self.layout.regions.len() == 1 {
            return Ok(self.layout.region.clone());
        }
        if let Some(known) = self.tapes.home(tape) {
            return Ok(known);
        }
        for region in self.layout.regions.keys() {
            if self.get(Space::Tapes, region, &tape.to_string()).await?.is_some() {
                self.tapes.is_at_home(tape, region);
                return Ok(region.clone());
            }
        }
        Err(StoreError::unknown(format!(
            "tape {tape} is not registered here yet, so that its region is not known"
        )))
    }

    /// Has each region know a tape, by its row: frames of a tape that it does not know are no use to it.
    async fn tell_all(
        &self,
        home: &str,
        statements: &RecordStatements,
        tape: TapeId,
    ) -> Result<(), StoreError> {
        // A writer's row is there before its first frame.
        if let Some(row) = self.get(Space::Tapes, home, &tape.to_string()).await? {
            let ttl = self.life(Space::Tapes, &row.body);
            statements.put(&self.cluster, Space::Tapes, home, &row, ttl, Reach::All).await?;
            self.tapes.is_told_to_all(tape);
        }
        Ok(())
    }

    fn life(&self, space: Space, body: &[u8]) -> u32 {
        let life = match space {
            Space::Tapes => self.lives.tapes,
            Space::Audit => self.lives.audit,
            Space::Tickets => SHORT_LIFE,
            Space::Subscriptions if body.len() <= ENVELOPE_BYTES => SHORT_LIFE,
            Space::Marks | Space::Gaps | Space::Retired | Space::Keys | Space::Subscriptions => {
                Duration::ZERO
            }
        };
        u32::try_from(life.as_secs()).unwrap_or(u32::MAX)
    }
}

/// What the driver has counted since it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverStats {
    /// Statements sent.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Those that the driver has sent again.
    pub retries: u64,
    /// Open connections.
    pub connections: u64,
    /// Connections that took too long to open.
    pub connection_timeouts: u64,
    /// Statements that took too long.
    pub request_timeouts: u64,
}

#[async_trait]
impl Store for CassandraStore {
    async fn append(&self, frame: FrameRow, reach: Reach) -> Result<(), StoreError> {
        let home = match reach {
            Reach::Region | Reach::All => self.layout.region.clone(),
            Reach::Home => self.home(frame.tape).await?,
        };
        let statements = self.of_region(&home)?;
        if reach == Reach::All && !self.tapes.is_known_to_all(frame.tape) {
            self.tell_all(&home, &statements.records, frame.tape).await?;
        }
        self.tapes.append(&self.cluster, &statements.tapes, &frame, reach).await
    }

    async fn frames(
        &self,
        tape: TapeId,
        seqs: RangeInclusive<u64>,
        bytes_max: usize,
        at: At,
    ) -> Result<Vec<FrameRow>, StoreError> {
        let region = match at {
            At::Here => self.layout.region.clone(),
            At::Home => self.home(tape).await?,
        };
        let statements = &self.of_region(&region)?.tapes;
        self.tapes.frames(&self.cluster, statements, tape, seqs, bytes_max).await
    }

    async fn put_blocks(
        &self,
        shard: u16,
        count: u64,
        blocks: Vec<(BucketKey, Vec<BlockRow>)>,
    ) -> Result<(), StoreError> {
        self.blocks.put(&self.cluster, shard, count, &blocks).await
    }

    async fn block_count(&self, shard: u16) -> Result<u64, StoreError> {
        self.blocks.count(&self.cluster, shard).await
    }

    async fn blocks(
        &self,
        key: BucketKey,
        kind: Kind,
        span: Span,
        after: Option<BlockKey>,
        bytes_max: usize,
    ) -> Result<BlockPage, StoreError> {
        self.blocks.read(&self.cluster, key, kind, &span, after, bytes_max).await
    }

    async fn buckets(
        &self,
        symbol: Symbol,
        from: Bucket,
        to: Bucket,
        order: Order,
        limit: usize,
    ) -> Result<Vec<BucketRow>, StoreError> {
        self.blocks.buckets(&self.cluster, symbol, (from, to), order, limit).await
    }

    async fn symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<Vec<SymbolRow>, StoreError> {
        self.blocks.symbols(&self.cluster, prefix, after, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.cluster.read::<(String,)>("the database", &self.ping, ()).await.map(drop)
    }
}

#[async_trait]
impl Records for CassandraStore {
    async fn get(&self, space: Space, part: &str, key: &str) -> Result<Option<Record>, StoreError> {
        let is_agreed = space.consistency() != Consistency::LastWriteWins;
        let statements = &self.of_region(self.region_of(space, part))?.records;
        statements.get(&self.cluster, space, part, key, is_agreed).await
    }

    async fn put(&self, space: Space, part: &str, record: Record) -> Result<(), StoreError> {
        space.check_put()?;
        let ttl = self.life(space, &record.body);
        let statements = &self.of_region(&self.layout.region)?.records;
        statements.put(&self.cluster, space, part, &record, ttl, Reach::Region).await
    }

    async fn put_if(
        &self,
        space: Space,
        part: &str,
        record: Record,
        expected: u64,
    ) -> Result<bool, StoreError> {
        space.check_put_if(record.version, expected)?;
        let ttl = self.life(space, &record.body);
        let statements = &self.of_region(self.region_of(space, part))?.records;
        statements.put_if(&self.cluster, space, part, &record, expected, ttl).await
    }

    async fn scan(
        &self,
        space: Space,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let statements = &self.of_region(&self.layout.region)?.records;
        statements.scan(&self.cluster, space, part, after, limit).await
    }
}
