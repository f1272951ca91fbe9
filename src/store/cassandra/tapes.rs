//! Tapes in tables: a frame is a row, 256 frames are a partition, a directory names the partitions.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use parking_lot::Mutex;
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::Semaphore;

use super::known::Known;
use super::session::{Cluster, Mode};
use crate::store::{FRAMES_PER_CHUNK, FrameRow, Reach, StoreError, TapeId};

/// Partitions that are asked without a look into the directory.
const DIRECT_CHUNKS: u64 = 3;
/// Rows of the directory in one answer.
const DIRECTORY_ROWS: i32 = 512;
/// Frames in one answer, at most.
const FRAMES_MAX: usize = 64;
/// What a frame may be taken to have, for the number that is asked for.
const FRAME_BYTES: usize = 16 << 10;
/// Chunks and homes that are remembered.
const KNOWN_MAX: usize = 65_536;
/// A permit of the appending is for so many bytes.
const PERMIT_BYTES: usize = 1 << 10;

/// The statements of one datacenter.
pub(super) struct TapeStatements {
    insert: PreparedStatement,
    insert_all: PreparedStatement,
    insert_chunk: PreparedStatement,
    insert_chunk_all: PreparedStatement,
    frames: PreparedStatement,
    chunks: PreparedStatement,
}

impl TapeStatements {
    pub(super) async fn prepare(
        cluster: &Cluster,
        keyspace: &str,
        datacenter: &str,
    ) -> Result<Self, StoreError> {
        let insert = format!("INSERT INTO {keyspace}.tape (tape, chunk, seq, body) VALUES (?, ?, ?, ?)");
        let insert_chunk = format!("INSERT INTO {keyspace}.tape_chunks (tape, chunk) VALUES (?, ?)");
        let frames = format!(
            "SELECT seq, body FROM {keyspace}.tape WHERE tape = ? AND chunk = ? AND seq >= ? AND seq <= ? LIMIT ?"
        );
        let chunks = format!(
            "SELECT chunk FROM {keyspace}.tape_chunks WHERE tape = ? AND chunk >= ? AND chunk <= ? LIMIT ?"
        );
        Ok(Self {
            insert: cluster.prepare(datacenter, &insert, Mode::Write).await?,
            insert_all: cluster.prepare(datacenter, &insert, Mode::WriteAll).await?,
            insert_chunk: cluster.prepare(datacenter, &insert_chunk, Mode::Write).await?,
            insert_chunk_all: cluster.prepare(datacenter, &insert_chunk, Mode::WriteAll).await?,
            frames: cluster.prepare(datacenter, &frames, Mode::Read).await?,
            chunks: cluster.prepare(datacenter, &chunks, Mode::Read).await?,
        })
    }
}

/// Tapes, and what is known of them.
pub(super) struct Tapes {
    appending: Semaphore,
    /// The same for all regions, of which one may be slow.
    spreading: Semaphore,
    append_bytes_max: usize,
    /// Rows of the directory that this process has written, and whether for all regions.
    chunks: Known<(TapeId, u64, bool)>,
    /// Tapes that each region has the row of.
    told: Known<TapeId>,
    /// The regions of tapes.
    homes: Mutex<HashMap<TapeId, String>>,
}

impl Tapes {
    pub(super) fn new(append_bytes_max: usize) -> Self {
        let permits = append_bytes_max.div_ceil(PERMIT_BYTES);
        let [appending, spreading] = [(); 2].map(|()| Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let (chunks, told) = (Known::new(KNOWN_MAX), Known::new(KNOWN_MAX));
        Self { appending, spreading, append_bytes_max, chunks, told, homes: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.chunks.clear();
        self.told.clear();
    }

    /// The region of a tape, where it is known.
    pub(super) fn home(&self, tape: TapeId) -> Option<String> {
        self.homes.lock().get(&tape).cloned()
    }

    /// Whether each region has the row of a tape.
    pub(super) fn is_known_to_all(&self, tape: TapeId) -> bool {
        self.told.has(&tape)
    }

    /// Each region has the row of a tape.
    pub(super) fn is_told_to_all(&self, tape: TapeId) {
        self.told.add(tape);
    }

    /// Remembers the region of a tape.
    pub(super) fn is_at_home(&self, tape: TapeId, region: &str) {
        let mut homes = self.homes.lock();
        if homes.len() >= KNOWN_MAX {
            homes.clear();
        }
        homes.insert(tape, region.to_owned());
    }

    pub(super) async fn append(
        &self,
        cluster: &Cluster,
        statements: &TapeStatements,
        frame: &FrameRow,
        reach: Reach,
    ) -> Result<(), StoreError> {
        let permits = u32::try_from(frame.body.len().div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let is_for_all = reach == Reach::All;
        let budget = if is_for_all { &self.spreading } else { &self.appending };
        let Ok(_permit) = budget.try_acquire_many(permits) else {
            let most = self.append_bytes_max;
            return Err(StoreError::refused(format!(
                "{most} bytes of frames are being appended, the most that cassandra.append_bytes_max allows"
            )));
        };
        let (tape, chunk, seq) = (number(frame.tape), chunk_of(frame.seq), signed(frame.seq));
        let TapeStatements { insert, insert_all, insert_chunk, insert_chunk_all, .. } = statements;
        let (insert, insert_chunk) =
            if is_for_all { (insert_all, insert_chunk_all) } else { (insert, insert_chunk) };
        if !self.chunks.has(&(frame.tape, chunk, is_for_all)) {
            cluster.write("the directory of a tape", insert_chunk, (tape, signed(chunk))).await?;
            self.chunks.add((frame.tape, chunk, is_for_all));
        }
        cluster.write("a frame", insert, (tape, signed(chunk), seq, frame.body.as_ref())).await
    }

    pub(super) async fn frames(
        &self,
        cluster: &Cluster,
        statements: &TapeStatements,
        tape: TapeId,
        seqs: RangeInclusive<u64>,
        bytes_max: usize,
    ) -> Result<Vec<FrameRow>, StoreError> {
        let (first, last) = ((*seqs.start()).max(1), (*seqs.end()).min(u64::from(u32::MAX) << 31));
        let mut page = Page { frames: Vec::new(), bytes: 0, bytes_max };
        if first > last {
            return Ok(page.frames);
        }
        let (from, to) = (chunk_of(first), chunk_of(last));
        if to - from < DIRECT_CHUNKS {
            for chunk in from..=to {
                if page.read(cluster, statements, tape, chunk, first..=last).await? {
                    break;
                }
            }
            return Ok(page.frames);
        }
        let mut from = from;
        loop {
            let values = (number(tape), signed(from), signed(to), DIRECTORY_ROWS);
            let chunks: Vec<(i64,)> =
                cluster.read("the directory of a tape", &statements.chunks, values).await?;
            for (chunk,) in &chunks {
                from = unsigned(*chunk) + 1;
                if page.read(cluster, statements, tape, unsigned(*chunk), first..=last).await? {
                    return Ok(page.frames);
                }
            }
            if i32::try_from(chunks.len()).is_ok_and(|rows| rows < DIRECTORY_ROWS) {
                return Ok(page.frames);
            }
        }
    }
}

struct Page {
    frames: Vec<FrameRow>,
    bytes: usize,
    bytes_max: usize,
}

impl Page {
    /// Reads what a partition has of the range; whether the page is full.
    async fn read(
        &mut self,
        cluster: &Cluster,
        statements: &TapeStatements,
        tape: TapeId,
        chunk: u64,
        seqs: RangeInclusive<u64>,
    ) -> Result<bool, StoreError> {
        let mut next = *seqs.start();
        loop {
            let room = self.bytes_max.saturating_sub(self.bytes);
            let count = (room / FRAME_BYTES).clamp(1, FRAMES_MAX);
            let limit = i32::try_from(count).unwrap_or(i32::MAX);
            let values = (number(tape), signed(chunk), signed(next), signed(*seqs.end()), limit);
            let rows: Vec<(i64, Vec<u8>)> = cluster.read("frames", &statements.frames, values).await?;
            let is_last = rows.len() < count;
            for (seq, body) in rows {
                self.bytes += body.len();
                if self.bytes > self.bytes_max && !self.frames.is_empty() {
                    return Ok(true);
                }
                next = unsigned(seq) + 1;
                self.frames.push(FrameRow { tape, seq: unsigned(seq), body: body.into() });
            }
            if is_last {
                return Ok(false);
            }
        }
    }
}

fn chunk_of(seq: u64) -> u64 {
    seq.saturating_sub(1) / FRAMES_PER_CHUNK
}

/// The 64 bits of a tape's name, as the database has them.
fn number(tape: TapeId) -> i64 {
    tape.0.cast_signed()
}

fn signed(number: u64) -> i64 {
    number.cast_signed()
}

fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}
