//! A real Cassandra node, and raw loops over it by the driver that a node of Tapeline uses.

use std::io::{BufRead as _, BufReader};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use scylla::client::PoolSize;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::system::now;
use crate::work::{Done, Trade, Work};

/// What the keyspaces of the node that is measured begin with.
pub(crate) const KEYSPACE: &str = "tapeline";
/// Where the raw rows are.
const ROWS: &str = "raw_rows";
/// Frames of a partition, as `cql/0001_shared.cql` has it.
const CHUNK: i64 = 256;
/// Frames that one statement reads.
const FRAMES: i64 = 16;
/// The raw loops' tapes are numbered from 1; a node's tape is any 64-bit number.
const RAW_TAPES: i64 = 1_000_000;
/// Connections to the database, as many as a node has.
const CONNECTIONS: usize = 2;

/// One Cassandra node of `scripts/cassandra`; it ends with the pipe to it.
pub(crate) struct Database {
    pub(crate) address: String,
    runtime: Runtime,
    session: Arc<Session>,
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Drop for Database {
    fn drop(&mut self) {
        self.pipe = None;
        let _ = self.process.wait();
    }
}

impl Database {
    /// Starts it with durable writes (`commitlog_sync: group`), and connects.
    pub(crate) fn start(launcher: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(launcher);
        command.args(["--heap", "1g"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = command.spawn();
        let mut process = started.with_context(|| format!("{} does not start", launcher.display()))?;
        let pipe = process.stdin.take();
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let facts: Value =
            serde_json::from_str(&line).context("no Cassandra: `make cassandra-env` fetches it")?;
        let address = facts.pointer("/nodes/0").and_then(Value::as_str);
        let address = address.context("the launcher tells no node")?.to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let connections = NonZeroUsize::new(CONNECTIONS).context("no connections")?;
        let builder = SessionBuilder::new().known_node(&address).pool_size(PoolSize::PerShard(connections));
        let session = runtime.block_on(builder.build())?;
        Ok(Self { address, runtime, session: Arc::new(session), process, pipe })
    }

    fn prepared(&self, text: &str) -> anyhow::Result<PreparedStatement> {
        let mut statement = self.runtime.block_on(self.session.prepare(text))?;
        statement.set_consistency(Consistency::LocalQuorum);
        statement.set_is_idempotent(true);
        Ok(statement)
    }

    fn read<R>(&self, text: &str, values: impl SerializeRow) -> anyhow::Result<Vec<R>>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let statement = self.prepared(text)?;
        let rows = self.runtime.block_on(self.session.execute_unpaged(&statement, values))?;
        Ok(rows.into_rows_result()?.rows::<R>()?.collect::<Result<_, _>>()?)
    }

    /// The bodies of frames of the node's tape that hold ticks, from a seq on; and the seq behind the last.
    pub(crate) fn frames(&self, from: i64) -> anyhow::Result<(Vec<Vec<u8>>, i64)> {
        /// A frame without ticks, which an idle writer appends, is smaller.
        const TICKS_BYTES: usize = 1_024;
        let tapes: Vec<(i64, i64)> =
            self.read(&format!("SELECT DISTINCT tape, chunk FROM {KEYSPACE}.tape"), ())?;
        let tape = tapes.iter().find(|(tape, _)| !(1..RAW_TAPES).contains(tape));
        let (tape, _) = *tape.context("the node has written no tape")?;
        let text = format!(
            "SELECT seq, body FROM {KEYSPACE}.tape WHERE tape = ? AND chunk = ? AND seq >= ? AND seq < ?"
        );
        let (mut bodies, mut from) = (Vec::new(), from);
        loop {
            let chunk = (from - 1) / CHUNK;
            let to = (from + FRAMES).min((chunk + 1) * CHUNK + 1);
            let rows: Vec<(i64, Vec<u8>)> = self.read(&text, (tape, chunk, from, to))?;
            let Some((last, _)) = rows.last() else { return Ok((bodies, from)) };
            from = last + 1;
            bodies.extend(rows.into_iter().map(|(_, body)| body).filter(|body| body.len() >= TICKS_BYTES));
        }
    }

    /// Appends these frames, again and again, to a tape of nobody's.
    pub(crate) fn append(&self, frames: &Arc<Vec<Vec<u8>>>, work: Work) -> anyhow::Result<Done> {
        static TAPES: AtomicI64 = AtomicI64::new(1);
        let tape = TAPES.fetch_add(1, Ordering::Relaxed);
        let text = format!("INSERT INTO {KEYSPACE}.tape (tape, chunk, seq, body) VALUES (?, ?, ?, ?)");
        let (statement, session, frames) =
            (self.prepared(&text)?, Arc::clone(&self.session), Arc::clone(frames));
        self.run(work, move |number| {
            let (session, statement, frames) = (Arc::clone(&session), statement.clone(), Arc::clone(&frames));
            async move {
                let seq = number.cast_signed() + 1;
                let body = frames.get(number as usize % frames.len().max(1)).context("no frames")?;
                session.execute_unpaged(&statement, (tape, (seq - 1) / CHUNK, seq, body)).await?;
                Ok(())
            }
        })
    }

    /// Makes the table of raw rows: a row a tick.
    pub(crate) fn make_rows(&self) -> anyhow::Result<()> {
        let place = "{'class': 'NetworkTopologyStrategy', 'dc1': 1}";
        let columns = "symbol text, t bigint, i bigint, x text, p bigint, s bigint, c text, z text";
        for text in [
            format!("CREATE KEYSPACE IF NOT EXISTS {ROWS} WITH replication = {place}"),
            format!("CREATE TABLE IF NOT EXISTS {ROWS}.trades ({columns}, PRIMARY KEY (symbol, t, i))"),
        ] {
            self.runtime.block_on(self.session.query_unpaged(text, &[]))?;
        }
        Ok(())
    }

    /// Inserts a row for each trade, of numbers from `first` on.
    pub(crate) fn insert_rows(&self, first: u64, work: Work) -> anyhow::Result<Done> {
        let places = "(symbol, t, i, x, p, s, c, z) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        let statement = self.prepared(&format!("INSERT INTO {ROWS}.trades {places}"))?;
        let session = Arc::clone(&self.session);
        self.run(work, move |number| {
            let (session, statement) = (Arc::clone(&session), statement.clone());
            async move {
                let Trade { number, symbol, micros, exchange, price, size } = Trade::now(first + number);
                let [t, i, p, s] = [micros, number, price, size].map(u64::cast_signed);
                session.execute_unpaged(&statement, (symbol, t, i, exchange, p, s, "@", "C")).await?;
                Ok(())
            }
        })
    }

    /// The buckets of a symbol.
    pub(crate) fn buckets(&self, symbol: &str) -> anyhow::Result<Vec<i64>> {
        let text = format!("SELECT bucket FROM {KEYSPACE}_local.buckets WHERE symbol = ?");
        Ok(self.read::<(i64,)>(&text, (symbol,))?.into_iter().map(|(bucket,)| bucket).collect())
    }

    /// Reads all blocks of a symbol in these buckets: their bytes, and how long that took in nanoseconds.
    pub(crate) fn blocks(&self, symbol: &str, buckets: &[i64]) -> anyhow::Result<(usize, u64)> {
        let text = format!("SELECT body FROM {KEYSPACE}_local.blocks WHERE symbol = ? AND bucket = ?");
        let statement = self.prepared(&text)?;
        let (begun, mut bytes) = (now(), 0);
        for bucket in buckets {
            let read = self.session.execute_unpaged(&statement, (symbol, bucket));
            let rows = self.runtime.block_on(read)?.into_rows_result()?;
            for row in rows.rows::<(Vec<u8>,)>()? {
                bytes += row?.0.len();
            }
        }
        Ok((bytes, now() - begun))
    }

    /// Runs statements by number, as [`crate::work::by_threads`] does pieces. Tasks, and no threads that
    /// wait for each other: the raw loop is to cost as little as it can.
    fn run<F>(
        &self,
        work: Work,
        statement: impl Fn(u64) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<Done>
    where
        F: Future<Output = anyhow::Result<()>> + Send,
    {
        let (begun, end) = (now(), work.end());
        let next = Arc::new(AtomicU64::new(0));
        let mut all = self.runtime.block_on(async {
            let mut workers = JoinSet::new();
            for _ in 0..work.workers {
                let (statement, next) = (statement.clone(), Arc::clone(&next));
                workers.spawn(async move {
                    let (mut done, mut at) = (Done::nothing()?, now());
                    while now() < end {
                        let left = at.saturating_sub(now());
                        if left > 0 {
                            tokio::time::sleep(Duration::from_nanos(left)).await;
                        }
                        at = now() + work.every;
                        let begun = now();
                        statement(next.fetch_add(1, Ordering::Relaxed)).await?;
                        done.one(now() - begun)?;
                    }
                    anyhow::Ok(done)
                });
            }
            let mut all = Done::nothing()?;
            while let Some(done) = workers.join_next().await {
                all.beside(&done??)?;
            }
            anyhow::Ok(all)
        })?;
        all.nanos = now() - begun;
        Ok(all)
    }
}
