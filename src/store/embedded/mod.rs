//! The embedded store: one folder on one disk, for one process.
//!
//! | path | what | guarded by |
//! |---|---|---|
//! | `LOCK` | held by the process that has the store open; its process id | `flock` |
//! | `VERSION` | format of the folder, written last when it is made | its own hash |
//! | `tapes/NNNNNNNNNNNNNNNN.log` | the log of frames: segments of 64 MiB, preallocated ([`log`]) | MAC a record; numbers without holes |
//! | `blocks/` | fjall: blocks, directory, list of symbols, running counts ([`blocks`]) | MAC a row; counts at each level |
//! | `records/a`, `records/b` | small rows, the same bytes twice ([`records`]) | MAC and number an entry; the mirror |
//!
//! Numbers. An append waits for one `fdatasync`, shared by all appends that arrived while the one
//! before ran: frames of 12 kB took 0.34 ms each from one appender, and 64 appenders shared one
//! `fdatasync` among 39 frames (2,900 and 31,000 frames/s on a virtual disk, unoptimized build). A
//! frame costs 64 bytes of framing in the log and, once its segment is finished, no memory. A
//! flush of a keeper is one batch and one `fdatasync`. A record is two writes and two
//! `fdatasync`s, and its row stays in memory.
//!
//! It promises: Ok is on the disk. A flipped bit or a cut file is an error that names the
//! file, or healed from the mirror and said so, or an unacknowledged tail of the log that is
//! cut and counted ([`OpenReport`]); it is never other data. A full or failing disk
//! refuses writes and still reads; nothing acknowledged is lost, and writing goes on when the
//! disk takes bytes again. All disk work happens on threads of its own, off the async runtime.

mod blocks;
mod disk;
mod lock;
mod log;
mod records;
mod space;
#[cfg(test)]
mod bitflips;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    At, BlockKey, BlockPage, BlockRow, BucketKey, BucketRow, FrameRow, Order, Reach, Record, Records, Space,
    Span, Store, StoreError, StoreErrorKind, SymbolRow, TapeId,
};
use crate::market::{Bucket, Kind, Nanos, Symbol};
use crate::seal::{ENVELOPE_BYTES, Keyring};
use blocks::Blocks;
use lock::FolderLock;
use log::TapeLog;
use records::RecordFiles;

/// Bytes that a log segment may have.
const SEGMENT_BYTES_RANGE: (u32, u32) = (64 << 10, 1 << 30);

/// The limits of an embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Bytes of a log segment, preallocated: 64 KiB to 1 GiB. A frame is at most half of it.
    pub segment_bytes: u32,
    /// Bytes of frames that wait for the disk at most; more are refused at once.
    pub append_queue_bytes_max: usize,
    /// Bytes of indexes of finished segments that are kept in memory for reading.
    pub index_cache_bytes_max: usize,
    /// Bytes of rows of [`crate::store::Records`], all of them in memory; more are refused.
    pub records_bytes_max: usize,
    /// Bytes of blocks that fjall caches.
    pub block_cache_bytes: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            append_queue_bytes_max: 32 << 20,
            index_cache_bytes_max: 32 << 20,
            records_bytes_max: 64 << 20,
            block_cache_bytes: 64 << 20,
        }
    }
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It was mended from a second copy, or can be; nothing is lost.
    Healed,
    /// Bytes at the end of the log that no acknowledgement covers were left out.
    Cut,
    /// Something stored cannot be read as it was written.
    Damage,
}

/// Something noteworthy about a stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The byte in it, where one can be named.
    pub offset: Option<u64>,
    /// What it means.
    pub severity: Severity,
    /// What was found, for people.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{}, byte {offset}: {}", self.file.display(), self.what),
            None => write!(f, "{}: {}", self.file.display(), self.what),
        }
    }
}

/// How far a walk over what is stored has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is walked now: `tapes`, `blocks` or `records`.
    pub what: &'static str,
    /// Bytes (of blocks: rows) read of it.
    pub done_bytes: u64,
    /// Bytes (of blocks: rows) there are of it.
    pub total_bytes: u64,
}

/// What opening found and mended. Worth a warning in the log where it is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// What was found, by file.
    pub findings: Vec<Finding>,
    /// Bytes at the end of the log that were cut: no acknowledgement covers them.
    pub cut_bytes: u64,
    /// Records of the log that a later segment's header takes back.
    pub ignored_records: u64,
    /// Frames in the log.
    pub frames: u64,
    /// Whether the folder was made now.
    pub created: bool,
}

/// How much room the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Bytes of the file system.
    pub total_bytes: u64,
}

/// What the store counts since it was opened, and how it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedStats {
    /// Bytes appended to the log, framing included.
    pub appended_bytes: u64,
    /// Calls of `fdatasync` for appends.
    pub append_syncs: u64,
    /// Appends that were refused.
    pub refused_appends: u64,
    /// Segments that were left because the disk failed.
    pub abandoned_segments: u64,
    /// Segments of the log there are.
    pub segments: u64,
    /// Why appends are refused now, where they are.
    pub refusing: Option<String>,
}

/// A store in one folder: [`Store`] and [`Records`] at once. Dropping it finishes what is
/// queued and lets go of the folder; [`EmbeddedStore::close`] does so off the async runtime.
#[derive(Debug)]
pub struct EmbeddedStore {
    folder: PathBuf,
    log: Arc<TapeLog>,
    blocks: Arc<Blocks>,
    records: Arc<RecordFiles>,
    // The last field: dropped when everything above has stopped writing.
    _lock: FolderLock,
}

impl EmbeddedStore {
    /// Opens the store in `folder`, or makes it where the folder is empty or missing.
    ///
    /// # Errors
    /// `Refused` where another process holds it (names its process id) or the disk does not take
    /// what opening writes; `Invalid` where a newer version wrote it or an option is out of its
    /// range; `Corrupt` where something acknowledged cannot be read (names file and byte).
    pub async fn open(
        folder: &Path,
        keyring: Arc<Keyring>,
        options: EmbeddedOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let folder = folder.to_owned();
        blocking(move || Self::open_blocking(folder, &keyring, &options)).await
    }

    fn open_blocking(
        folder: PathBuf,
        keyring: &Arc<Keyring>,
        options: &EmbeddedOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let (least, most) = SEGMENT_BYTES_RANGE;
        if !(least..=most).contains(&options.segment_bytes) {
            let found = options.segment_bytes;
            return Err(StoreError::invalid(format!("segment_bytes is {found}, expected {least} to {most}")));
        }
        let [tapes, blocks, records] = ["tapes", "blocks", "records"].map(|name| folder.join(name));
        make_folders(&[&folder])?;
        let lock = FolderLock::take(&folder)?;
        let created = !lock::read_version(&folder)?;
        if created {
            // Making it was cut short, or never begun: nothing in it was acknowledged yet. Where
            // there are frames or rows, it is `VERSION` that was lost.
            lock::refuse_contents(&[&tapes, &records])?;
            make_folders(&[&tapes, &records])?;
        }
        let (log, log_opened) = TapeLog::open(&tapes, Arc::clone(keyring), options, created)?;
        let (records, records_opened) =
            RecordFiles::open(&records, Arc::clone(keyring), options.records_bytes_max, created)?;
        let blocks = Blocks::open(&blocks, Arc::clone(keyring), options.block_cache_bytes)?;
        if created {
            lock::write_version(&folder)?;
        }
        let report = OpenReport {
            findings: [log_opened.findings, records_opened.findings].concat(),
            cut_bytes: log_opened.cut_bytes,
            ignored_records: log_opened.ignored_records,
            frames: log_opened.frames,
            created,
        };
        let (log, blocks, records) = (Arc::new(log), Arc::new(blocks), Arc::new(records));
        Ok((Self { folder, log, blocks, records, _lock: lock }, report))
    }

    /// The room on the store's disk.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn free_space(&self) -> std::io::Result<FreeSpace> {
        space::free_space(&self.folder)
    }

    /// The parts of a space of records that have rows.
    #[must_use]
    pub fn parts(&self, space: Space) -> BTreeSet<String> {
        self.records.parts(space)
    }

    /// What it counts, and how it is now.
    #[must_use]
    pub fn stats(&self) -> EmbeddedStats {
        let counters = self.log.counters();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EmbeddedStats {
            appended_bytes: read(&counters.appended_bytes),
            append_syncs: read(&counters.syncs),
            refused_appends: read(&counters.refused),
            abandoned_segments: read(&counters.abandoned_segments),
            segments: self.log.segments() as u64,
            refusing: self.log.refusing(),
        }
    }

    /// Unlinks finished segments of the log from the oldest on, up to the first that was written
    /// to less than `age` before `now` or holds frames for which `covered(tape, seqs)` is false:
    /// the marks of all shards must cover each of them. Answers how many were unlinked.
    ///
    /// # Errors
    /// `Refused` where a file cannot be unlinked.
    pub async fn drop_segments(
        &self,
        now: SystemTime,
        age: Duration,
        covered: impl Fn(TapeId, &[u64]) -> bool + Send + 'static,
    ) -> Result<usize, StoreError> {
        let retention = self.log.retention();
        blocking(move || retention.run(now, age, &covered)).await
    }

    /// Forgets registry rows older than `tapes_before` of tapes that no segment holds frames of,
    /// audit entries older than `audit_before`, rows older than `deleted_before` of what was
    /// deleted, and used tickets whose key is `over`. Answers how many rows.
    ///
    /// # Errors
    /// `Unknown` where the work is cut short.
    pub async fn drop_rows(
        &self,
        tapes_before: Nanos,
        audit_before: Nanos,
        deleted_before: Nanos,
        over: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<usize, StoreError> {
        let (log, records) = (Arc::clone(&self.log), Arc::clone(&self.records));
        blocking(move || {
            let version = |time: Nanos| u64::try_from(time.0 / 1_000).unwrap_or_default();
            let held: BTreeSet<String> = log.tapes().iter().map(TapeId::to_string).collect();
            let tapes = records.drop_rows(Space::Tapes, version(tapes_before), &|key, _| held.contains(key));
            let audit = records.drop_rows(Space::Audit, version(audit_before), &|_, _| false);
            let says_something = |_: &str, body: &[u8]| body.len() > ENVELOPE_BYTES;
            let deleted = records.drop_rows(Space::Subscriptions, version(deleted_before), &says_something);
            // Versions of compare-and-set rows are no times.
            let tickets = records.drop_rows(Space::Tickets, u64::MAX, &|key, _| !over(key));
            Ok(tapes + audit + deleted + tickets)
        })
        .await
    }

    /// Reads everything that is stored while the store is open, and names what is damaged.
    ///
    /// What cannot be walked to its end is a finding too.
    ///
    /// # Errors
    /// `Unknown` where the work is cut short.
    pub async fn verify(
        &self,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Vec<Finding>, StoreError> {
        let folder = self.folder.clone();
        let (log, blocks, records) =
            (self.log.verifier(), Arc::clone(&self.blocks), Arc::clone(&self.records));
        blocking(move || {
            let [of_tapes, of_blocks, of_records] =
                ["tapes", "blocks", "records"].map(|name| folder.join(name));
            let mut findings = Findings::default();
            findings.add(of_tapes, log(&mut progress));
            findings.add(of_blocks, blocks.verify(&mut progress));
            findings.add(of_records, records.verify());
            Ok(findings.0)
        })
        .await
    }

    /// Finishes what is queued, and stops.
    pub async fn close(self) {
        let _ = blocking(move || {
            self.log.close();
            drop(self);
            Ok(())
        })
        .await;
    }
}

/// Reads everything in the folder of a store that no process has open, and names what is damaged; it
/// changes nothing but what fjall changes when it opens `blocks`. What cannot be opened at all
/// is a finding too.
///
/// # Errors
/// `Refused` where a process holds it, `Invalid` where a newer version wrote it.
pub async fn verify_folder(
    folder: &Path,
    keyring: Arc<Keyring>,
    mut progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Vec<Finding>, StoreError> {
    let folder = folder.to_owned();
    blocking(move || {
        let _lock = FolderLock::take(&folder)?;
        let [tapes, blocks, records] = ["tapes", "blocks", "records"].map(|name| folder.join(name));
        let mut findings = Findings::default();
        match lock::read_version(&folder) {
            Ok(true) => {}
            Ok(false) => findings.add(folder.join("VERSION"), Err(StoreError::corrupt("there is none"))),
            Err(error) if error.kind == StoreErrorKind::Invalid => return Err(error),
            Err(error) => findings.add(folder.join("VERSION"), Err(error)),
        }
        findings.add(tapes.clone(), log::verify(&tapes, &keyring, &mut progress));
        // Opening what is not there would make it.
        let there = if blocks.is_dir() { Ok(()) } else { Err(StoreError::corrupt("the folder is missing")) };
        let cache_bytes = EmbeddedOptions::default().block_cache_bytes;
        let found = there.and_then(|()| Blocks::open(&blocks, Arc::clone(&keyring), cache_bytes));
        findings.add(blocks, found.and_then(|blocks| blocks.verify(&mut progress)));
        findings.add(records.clone(), records::verify(&records, &keyring));
        Ok(findings.0)
    })
    .await
}

/// Findings of a walk; what ended the walk of a part is one of them.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, file: PathBuf, found: Result<Vec<Finding>, StoreError>) {
        match found {
            Ok(found) => self.0.extend(found),
            Err(error) => {
                let what = error.detail;
                self.0.push(Finding { file, offset: None, severity: Severity::Damage, what });
            }
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn append(&self, frame: FrameRow, _reach: Reach) -> Result<(), StoreError> {
        self.log.append(frame).await
    }

    async fn frames(
        &self,
        tape: TapeId,
        seqs: RangeInclusive<u64>,
        bytes_max: usize,
        _at: At,
    ) -> Result<Vec<FrameRow>, StoreError> {
        let reader = self.log.reader();
        blocking(move || reader.frames(tape, &seqs, bytes_max)).await
    }

    async fn put_blocks(
        &self,
        shard: u16,
        count: u64,
        blocks: Vec<(BucketKey, Vec<BlockRow>)>,
    ) -> Result<(), StoreError> {
        let store = Arc::clone(&self.blocks);
        blocking(move || store.put(shard, count, &blocks)).await
    }

    async fn block_count(&self, shard: u16) -> Result<u64, StoreError> {
        let store = Arc::clone(&self.blocks);
        blocking(move || store.block_count(shard)).await
    }

    async fn blocks(
        &self,
        key: BucketKey,
        kind: Kind,
        span: Span,
        after: Option<BlockKey>,
        bytes_max: usize,
    ) -> Result<BlockPage, StoreError> {
        let store = Arc::clone(&self.blocks);
        blocking(move || store.blocks(&key, kind, &span, after, bytes_max)).await
    }

    async fn buckets(
        &self,
        symbol: Symbol,
        from: Bucket,
        to: Bucket,
        order: Order,
        limit: usize,
    ) -> Result<Vec<BucketRow>, StoreError> {
        let store = Arc::clone(&self.blocks);
        blocking(move || store.buckets(symbol, from, to, order, limit)).await
    }

    async fn symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<Vec<SymbolRow>, StoreError> {
        let (store, prefix) = (Arc::clone(&self.blocks), prefix.to_owned());
        blocking(move || store.symbols(&prefix, after, limit)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.log.refusing().map_or(Ok(()), |why| Err(StoreError::refused(why)))
    }
}

#[async_trait]
impl Records for EmbeddedStore {
    async fn get(&self, space: Space, part: &str, key: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.records.get(space, part, key))
    }

    async fn put(&self, space: Space, part: &str, record: Record) -> Result<(), StoreError> {
        let (records, part) = (Arc::clone(&self.records), part.to_owned());
        blocking(move || records.put(space, &part, record)).await
    }

    async fn put_if(
        &self,
        space: Space,
        part: &str,
        record: Record,
        expected: u64,
    ) -> Result<bool, StoreError> {
        let (records, part) = (Arc::clone(&self.records), part.to_owned());
        blocking(move || records.put_if(space, &part, record, expected)).await
    }

    async fn scan(
        &self,
        space: Space,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        Ok(self.records.scan(space, part, after, limit))
    }
}

/// Runs disk work on a thread where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::unknown(format!("the store's work was cut short: {error}"))))
}

/// Makes folders, each durable in its parent.
fn make_folders(folders: &[&Path]) -> Result<(), StoreError> {
    for folder in folders {
        fs::create_dir_all(folder)
            .and_then(|()| disk::sync_folder_of(folder))
            .map_err(|error| StoreError::refused(format!("{}: {error}", folder.display())))?;
    }
    Ok(())
}
