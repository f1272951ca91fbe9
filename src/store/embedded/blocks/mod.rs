//! Blocks, directory, list of symbols and running counts, in fjall.
//!
//! | keyspace | key | value, in an envelope sealed for the key |
//! |---|---|---|
//! | `index` | symbol 16, bucket 8, kind 1, first time 8, id 16 | last time 8, ticks 4, bytes of the body 4, first half of the body's BLAKE3 16 |
//! | `bodies` | the same | the block, as the caller sealed it |
//! | `directory` | symbol 16, bucket 8 | number of blocks a kind, 8 times 4 |
//! | `symbols` | symbol 16 | kinds 2, first time 8, last time 8, number of buckets 4 |
//! | `counts` | shard 2, or `symbols` | running number of blocks, or the number of symbols 8 |
//!
//! A flush of a keeper is one batch and one `fdatasync`. fjall alone does not notice every
//! damage to its journal (a flipped bit can make it stop reading early and open without an
//! error), so each level counts the one below: a shard's running count is compared with the
//! keeper's mark, the count of a bucket with its blocks when the bucket is read, and all of them
//! by `verify`. Batches are lost from the end, whole ones; the count tells. fjall's manifests are
//! checked before it sees them ([`manifest`]), and where it panics on damage that is an error.

mod manifest;
mod put;
mod read;
mod rows;
mod verify;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use parking_lot::{Mutex, RwLock};

use crate::seal::Keyring;
use crate::store::{StoreError, StoreErrorKind};

/// The blocks of a store. All calls block.
#[derive(Debug)]
pub(super) struct Blocks {
    folder: PathBuf,
    keyring: Arc<Keyring>,
    cache_bytes: u64,
    /// `None` after a failed write, until it could be opened again.
    opened: RwLock<Option<Opened>>,
    /// One flush at a time: counts are read, raised and written.
    writing: Mutex<()>,
}

#[derive(Clone)]
struct Opened {
    database: Database,
    index: Keyspace,
    bodies: Keyspace,
    directory: Keyspace,
    symbols: Keyspace,
    counts: Keyspace,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

impl Blocks {
    pub(super) fn open(folder: &Path, keyring: Arc<Keyring>, cache_bytes: u64) -> Result<Self, StoreError> {
        let opened = Opened::open(folder, cache_bytes)?;
        Ok(Self {
            folder: folder.to_owned(),
            keyring,
            cache_bytes,
            opened: RwLock::new(Some(opened)),
            writing: Mutex::new(()),
        })
    }

    /// The database; opened again where a failed write has closed it.
    fn opened(&self) -> Result<Opened, StoreError> {
        if let Some(opened) = self.opened.read().as_ref() {
            return Ok(opened.clone());
        }
        let mut slot = self.opened.write();
        if let Some(opened) = slot.as_ref() {
            return Ok(opened.clone());
        }
        let opened = Opened::open(&self.folder, self.cache_bytes)?;
        tracing::info!(folder = %self.folder.display(), "the blocks are open again after a failed write");
        Ok(slot.insert(opened).clone())
    }

    /// After a failed write fjall takes no more; it is opened again by the next call.
    fn reopen_later(&self) {
        *self.opened.write() = None;
    }

    /// Writes what is in memory to tables, as fjall does by itself when there is more.
    #[cfg(test)]
    pub(super) fn flush_to_tables(&self) -> Result<(), StoreError> {
        let opened = self.opened()?;
        for keyspace in [&opened.index, &opened.bodies, &opened.directory, &opened.symbols, &opened.counts] {
            keyspace.rotate_memtable_and_wait().map_err(|error| self.read_failed(&error))?;
        }
        Ok(())
    }

    fn read_failed(&self, error: &fjall::Error) -> StoreError {
        failed(&self.folder, error)
    }
}

impl Opened {
    fn open(folder: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        manifest::check(folder)?;
        // fjall has assertions about what it reads; one that fails is damage with a name here.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_checked(folder, cache_bytes)));
        opened.unwrap_or_else(|_| {
            let what = "are damaged: reading them broke an assertion of fjall; restore the data folder from a backup";
            Err(StoreError::corrupt(format!("blocks in {} {what}", folder.display())))
        })
    }

    fn open_checked(folder: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let database = Database::builder(folder)
            .cache_size(cache_bytes)
            .worker_threads(1)
            .open()
            .map_err(|error| failed(folder, &error))?;
        let keyspace = |name: &str| {
            database.keyspace(name, KeyspaceCreateOptions::default).map_err(|error| failed(folder, &error))
        };
        Ok(Self {
            index: keyspace("index")?,
            bodies: keyspace("bodies")?,
            directory: keyspace("directory")?,
            symbols: keyspace("symbols")?,
            counts: keyspace("counts")?,
            database,
        })
    }
}

/// What an error of fjall means: an I/O error may pass, everything else is damage.
fn failed(folder: &Path, error: &fjall::Error) -> StoreError {
    let kind = match error {
        fjall::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            StoreErrorKind::Corrupt
        }
        fjall::Error::Io(_) | fjall::Error::Storage(fjall::LsmError::Io(_)) | fjall::Error::Locked => {
            StoreErrorKind::Refused
        }
        fjall::Error::Poisoned => StoreErrorKind::Refused,
        _ => StoreErrorKind::Corrupt,
    };
    StoreError::new(kind, format!("blocks in {}: {error}", folder.display()))
}
