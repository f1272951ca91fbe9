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
//! Numbers. An append waits for one `fdatasync`, shared by all appends that arrived while
//! the one before ran: 12 kB frames cost about 0.5 to 5 ms each alone, and a few hundred
//! appends share one under load. A frame costs 88 bytes of framing in the log and, once its
//! segment is finished, no memory. A flush of a keeper is one batch and one `fdatasync`. A record is
//! two writes and two `fdatasync`s, and its row stays in memory.
//!
//! It promises: Ok is on the disk. A flipped bit or a cut file is an error that names the
//! file, or healed from the mirror and said so, or an unacknowledged tail of the log that is
//! cut and counted ([`OpenReport`]); it is never other data. A full or failing disk
//! refuses writes and still reads; nothing acknowledged is lost, and writing goes on when the
//! disk takes bytes again. All disk work happens on threads of its own, off the async runtime.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::seal::Keyring;
use crate::store::StoreError;

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

/// A store in one folder: [`crate::store::Store`] and [`crate::store::Records`] at once.
#[derive(Debug)]
pub struct EmbeddedStore {
    folder: PathBuf,
}

impl EmbeddedStore {
    /// Opens the store in `folder`, or makes it where the folder is empty or missing.
    ///
    /// # Errors
    /// `Refused` where another process holds it (names its process id) or the disk does not take
    /// what opening writes; `Invalid` where a newer version wrote it; `Corrupt` where something
    /// acknowledged cannot be read (names file and byte).
    pub async fn open(
        folder: &Path,
        keyring: Arc<Keyring>,
        options: EmbeddedOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let _ = (keyring, options);
        let store = Self { folder: folder.to_owned() };
        Err(StoreError::refused(format!("{}: the embedded store is being built", store.folder.display())))
    }

    /// The room on the store's disk.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn free_space(&self) -> std::io::Result<FreeSpace> {
        Err(std::io::Error::other("the embedded store is being built"))
    }
}
