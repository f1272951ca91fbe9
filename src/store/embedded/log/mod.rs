//! The log of frames: segments of fixed size, appended to by one thread.
//!
//! Every record has a number, 1, 2, 3 … over the whole log, and says how far all numbers
//! before it were on the disk when it was written (`durable`). A segment's header names
//! its first number. From these two everything about damage follows:
//!
//! - What an older segment holds from the first number of the next one on was taken back
//!   (its write or `fdatasync` failed) and is ignored and counted.
//! - A number below the next segment's first was on the disk; if it cannot be read, that is
//!   damage and opening is refused by name.
//! - In the last segment a number that cannot be read is damage only if a later record's
//!   `durable` reaches it. Otherwise it was in flight when the process died: the log ends
//!   before it, and the bytes after are cut, counted and told. (An acknowledged frame's number
//!   is at most the `durable` of every record written after the acknowledgement, so what a
//!   frame's own `low` covers is always covered here.)
//!
//! Opening writes the records that no `durable` covers yet once more, in place and with the
//! same bytes, and syncs them before it serves them: what the page cache shows after a failed
//! `fdatasync` need not be on the disk. A clean last segment is written on; else a new one
//! begins. A finished segment ends with an index, so that opening reads the index and not the
//! segment; an index that fails its check is made again from the segment.
//!
//! | limit | value |
//! |---|---|
//! | framing of a record | 64 bytes and up to 7 of padding |
//! | header of a segment | 4,096 bytes |
//! | index of a finished segment | 24 bytes a record |
//! | one write and `fdatasync` | at most 4 MiB of records |
//! | memory | the index of the segment that is written; of others what `index_cache_bytes_max` holds |

mod format;
mod index;
mod reader;
mod recovery;
mod retention;
mod writer;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};

use super::disk::Disk;
use super::{EmbeddedOptions, Finding, Progress};
use crate::seal::Keyring;
use crate::store::{FrameRow, StoreError, TapeId};

use index::{Cache, Shared};
use writer::{Queue, Writer};

/// What the log counts since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) appended: AtomicU64,
    pub(super) appended_bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) abandoned_segments: AtomicU64,
}

/// What all parts of the log share.
#[derive(Debug)]
struct Core {
    folder: PathBuf,
    keyring: Arc<Keyring>,
    segment_bytes: u32,
    disk: Disk,
    shared: RwLock<Shared>,
    cache: Mutex<Cache>,
    counters: Counters,
}

/// The log. Dropping it finishes what is queued and stops its thread.
#[derive(Debug)]
pub(super) struct TapeLog {
    core: Arc<Core>,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What opening the log found.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) findings: Vec<Finding>,
    pub(super) cut_bytes: u64,
    pub(super) ignored_records: u64,
    pub(super) frames: u64,
}

impl TapeLog {
    /// Opens the log in an existing folder; `create` where there must be none yet. Blocks.
    pub(super) fn open(
        folder: &Path,
        keyring: Arc<Keyring>,
        options: &EmbeddedOptions,
        create: bool,
    ) -> Result<(Self, Opened), StoreError> {
        let core = Arc::new(Core {
            folder: folder.to_owned(),
            keyring,
            segment_bytes: options.segment_bytes,
            disk: Disk::default(),
            shared: RwLock::default(),
            cache: Mutex::new(Cache::new(options.index_cache_bytes_max)),
            counters: Counters::default(),
        });
        let (state, opened) = recovery::open(&core, create)?;
        let queue = Arc::new(Queue::new(options.append_queue_bytes_max));
        let writer = Writer::new(Arc::clone(&core), Arc::clone(&queue), state);
        let thread = std::thread::Builder::new()
            .name("tape-log".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::refused(format!("cannot start the thread of the log: {error}")))?;
        Ok((Self { core, queue, thread: Mutex::new(Some(thread)) }, opened))
    }

    /// Appends one frame; answers when it is on the disk.
    pub(super) async fn append(&self, frame: FrameRow) -> Result<(), StoreError> {
        let most = self.core.segment_bytes / 2;
        if frame.body.len() > most as usize {
            let length = frame.body.len();
            return Err(StoreError::invalid(format!(
                "frame {} of tape {} has {length} bytes, more than the {most} that fit a log segment of {}",
                frame.seq, frame.tape, self.core.segment_bytes
            )));
        }
        let answer = self.queue.push(frame).inspect_err(|_| {
            self.core.counters.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::unknown("the log was closed while the frame waited")))
    }

    /// A way to read that can be moved to another thread.
    pub(super) fn reader(&self) -> reader::Reader {
        reader::Reader::new(Arc::clone(&self.core))
    }

    /// Unlinks the oldest finished segments. Blocks.
    pub(super) fn retention(&self) -> retention::Retention {
        retention::Retention::new(Arc::clone(&self.core))
    }

    /// Reads every record while the log is open, and names what is damaged. Blocks.
    pub(super) fn verifier(
        &self,
    ) -> impl FnOnce(&mut dyn FnMut(Progress)) -> Result<Vec<Finding>, StoreError> + use<> {
        let core = Arc::clone(&self.core);
        move |progress| recovery::verify_open(&core, progress)
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Why appends are refused now, where they are.
    pub(super) fn refusing(&self) -> Option<String> {
        self.core.shared.read().refusing.clone()
    }

    pub(super) fn segments(&self) -> usize {
        let shared = self.core.shared.read();
        shared.finished.len() + usize::from(shared.active.is_some())
    }

    /// The tapes of which some segment holds frames.
    pub(super) fn tapes(&self) -> BTreeSet<TapeId> {
        let shared = self.core.shared.read();
        let finished = shared.finished.iter().flat_map(|segment| &segment.spans).map(|span| span.tape);
        let active = shared.active.iter().flat_map(|active| active.entries.keys()).map(|(tape, _)| *tape);
        finished.chain(active).collect()
    }

    /// Writes what is queued, then stops. Blocks.
    pub(super) fn close(&self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the log ended in a panic");
        }
    }

    #[cfg(test)]
    pub(super) fn fail_next(&self, fault: super::disk::Fault) {
        self.core.disk.fail_next(fault);
    }
}

impl Drop for TapeLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads every record of a log that nobody has open, and names what is damaged. Blocks.
pub(super) fn verify(
    folder: &Path,
    keyring: &Keyring,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Finding>, StoreError> {
    recovery::verify(folder, keyring, progress)
}
