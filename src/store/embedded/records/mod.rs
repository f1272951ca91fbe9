//! Small rows: all in memory, each write in two files.
//!
//! `records/a` and `records/b` hold the same entries, numbered from 1, each in an envelope
//! sealed for its number. A write goes to `a` and is synced, then to `b` and is synced, and is
//! then Ok. What one file lost the other still has:
//!
//! | `a` | `b` | meaning |
//! |---|---|---|
//! | entries 1 to n | the same | good |
//! | unreadable behind n | ends at n | a write that was not acknowledged: cut and counted |
//! | damaged or cut at any entry | has it | healed from `b`, said so |
//! | has it | damaged or cut at any entry | healed from `a`, said so |
//! | unreadable behind n | unreadable behind n | refused by name |
//!
//! After anything but good, and when more than half of the bytes are overwritten rows, both
//! files are written anew under the next generation and renamed into place, `a` first. Writing
//! goes on only when both have it, so a file of a lower generation says the same.
//!
//! Limits: 512 bytes a part and a key, 1 MiB a body, `records_bytes_max` for all rows, of which
//! what the tapes need (registry, marks, gaps, retired lists) has a quarter for itself: however
//! many keys, subscriptions and audit entries there are, marks go on. Rows that are out of date
//! ([`RecordFiles::drop_rows`]) leave memory at once and the files when they are written anew.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::disk::Disk;
use super::{Finding, space};
use crate::seal::Keyring;
use crate::store::{Record, Space, StoreError};
use file::{Entry, Key};

const PART_BYTES_MAX: usize = 512;
const BODY_BYTES_MAX: usize = 1 << 20;
/// Files are written anew when they are larger than twice their rows and this.
const SLACK_BYTES: u64 = 1 << 20;
/// What a row costs beside its bytes.
const ROW_OVERHEAD: usize = 64;

/// The rows. Reads never wait for the disk.
#[derive(Debug)]
pub(super) struct RecordFiles {
    folder: PathBuf,
    keyring: Arc<Keyring>,
    bytes_max: usize,
    disk: Disk,
    rows: RwLock<Rows>,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Rows {
    by_key: BTreeMap<Key, (u64, Bytes)>,
    bytes: usize,
}

#[derive(Debug)]
struct Files {
    /// `a` and `b`; `None` where they must be written anew first.
    pair: Option<[File; 2]>,
    generation: u64,
    entries: u64,
    length: u64,
}

/// What opening the records found.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) findings: Vec<Finding>,
}

impl RecordFiles {
    /// Opens the files in an existing folder; `create` where there are none yet. Blocks.
    pub(super) fn open(
        folder: &Path,
        keyring: Arc<Keyring>,
        bytes_max: usize,
        create: bool,
    ) -> Result<(Self, Opened), StoreError> {
        let records = Self {
            folder: folder.to_owned(),
            keyring,
            bytes_max,
            disk: Disk::default(),
            rows: RwLock::default(),
            files: Mutex::new(Files { pair: None, generation: 0, entries: 0, length: 0 }),
        };
        let mut opened = Opened::default();
        if create {
            records.rewrite(&mut records.files.lock())?;
            return Ok((records, opened));
        }
        let read = file::read_pair(folder, &records.keyring, &mut opened.findings)?;
        {
            let (mut rows, mut files) = (records.rows.write(), records.files.lock());
            files.generation = read.generation;
            files.entries = read.entries.len() as u64;
            files.length = read.length;
            for entry in read.entries {
                rows.set(entry);
            }
            if opened.findings.is_empty() {
                files.pair = Some(file::open_pair(folder)?);
            }
        }
        if !opened.findings.is_empty()
            && let Err(error) = records.rewrite(&mut records.files.lock())
        {
            tracing::error!(detail = %error, "the records cannot be written anew, writes are refused");
        }
        Ok((records, opened))
    }

    /// The parts of a space that have rows.
    pub(super) fn parts(&self, space: Space) -> BTreeSet<String> {
        let rows = self.rows.read();
        rows.by_key.keys().filter(|key| key.space == space).map(|key| key.part.clone()).collect()
    }

    pub(super) fn get(&self, space: Space, part: &str, key: &str) -> Option<Record> {
        let rows = self.rows.read();
        let (version, body) = rows.by_key.get(&Key::new(space, part, key))?;
        Some(Record { key: key.to_owned(), version: *version, body: body.clone() })
    }

    pub(super) fn scan(&self, space: Space, part: &str, after: Option<&str>, limit: usize) -> Vec<Record> {
        let from = match after {
            Some(after) => Bound::Excluded(Key::new(space, part, after)),
            None => Bound::Included(Key::new(space, part, "")),
        };
        let rows = self.rows.read();
        let of_part = rows.by_key.range((from, Bound::Unbounded));
        let of_part = of_part.take_while(|(key, _)| key.space == space && key.part == part);
        let record = |(key, (version, body)): (&Key, &(u64, Bytes))| Record {
            key: key.key.clone(),
            version: *version,
            body: body.clone(),
        };
        of_part.take(limit).map(record).collect()
    }

    /// Last write wins. Blocks.
    pub(super) fn put(&self, space: Space, part: &str, record: Record) -> Result<(), StoreError> {
        space.check_put()?;
        let mut files = self.files.lock();
        let key = Key::new(space, part, &record.key);
        let stays_out = self.rows.read().by_key.get(&key).is_some_and(|(version, body)| {
            (*version, body.as_ref()) >= (record.version, record.body.as_ref())
        });
        if stays_out {
            return Ok(());
        }
        self.write(&mut files, Entry { key, version: record.version, body: record.body })
    }

    /// Compare and set. Blocks.
    pub(super) fn put_if(
        &self,
        space: Space,
        part: &str,
        record: Record,
        expected: u64,
    ) -> Result<bool, StoreError> {
        space.check_put_if(record.version, expected)?;
        let mut files = self.files.lock();
        let key = Key::new(space, part, &record.key);
        if self.rows.read().by_key.get(&key).map_or(0, |(version, _)| *version) != expected {
            return Ok(false);
        }
        self.write(&mut files, Entry { key, version: record.version, body: record.body })?;
        Ok(true)
    }

    fn write(&self, files: &mut Files, entry: Entry) -> Result<(), StoreError> {
        self.check_limits(&entry)?;
        if files.pair.is_none() || files.length > 2 * self.rows.read().bytes as u64 + SLACK_BYTES {
            self.rewrite(files)?;
        }
        let number = files.entries + 1;
        let bytes = file::encode_entry(&self.keyring, files.generation, number, &entry);
        let Some(pair) = &files.pair else { return Err(StoreError::refused("the records have no files")) };
        for (file, name) in pair.iter().zip(file::NAMES) {
            let written = self.disk.write(file, &bytes, files.length).and_then(|()| self.disk.sync(file));
            if let Err(error) = written {
                let path = self.folder.join(name);
                let why =
                    format!("writing {} failed: {error}; {}", path.display(), space::tell(&self.folder));
                tracing::error!(detail = why, "the records are written anew before the next write");
                files.pair = None;
                return Err(StoreError::unknown(why));
            }
        }
        files.entries = number;
        files.length += bytes.len() as u64;
        self.rows.write().set(entry);
        Ok(())
    }

    fn check_limits(&self, entry: &Entry) -> Result<(), StoreError> {
        let Key { space, part, key } = &entry.key;
        if part.len() > PART_BYTES_MAX || key.len() > PART_BYTES_MAX || entry.body.len() > BODY_BYTES_MAX {
            return Err(StoreError::invalid(format!(
                "row {part}/{key} of `{}`: part and key have at most {PART_BYTES_MAX} bytes, the body {BODY_BYTES_MAX}",
                space.name()
            )));
        }
        let (bytes, replaced) = {
            let rows = self.rows.read();
            let old = rows.by_key.get(&entry.key).map_or(0, |(_, body)| entry.key.bytes() + body.len());
            (rows.bytes, old)
        };
        let (most, of) = match space {
            Space::Keys | Space::Audit | Space::Subscriptions | Space::Tickets => {
                (self.bytes_max / 4 * 3, "three quarters of ")
            }
            Space::Tapes | Space::Marks | Space::Gaps | Space::Retired => (self.bytes_max, ""),
        };
        // What makes the rows no larger always goes.
        let grows = entry.bytes() > replaced;
        if grows && bytes - replaced + entry.bytes() > most {
            return Err(StoreError::refused(format!(
                "the rows in {} have {bytes} bytes, with those of `{}` at most {most} ({of}store.records_bytes_max)",
                self.folder.display(),
                space.name()
            )));
        }
        Ok(())
    }

    /// Forgets the rows of a space whose version is below `before` and that are not to be kept.
    /// Answers how many. They come back when the files are opened again before they were written
    /// anew: forget them again. Waits for a write.
    pub(super) fn drop_rows(&self, space: Space, before: u64, keep: &dyn Fn(&str, &[u8]) -> bool) -> usize {
        let _no_write = self.files.lock();
        let mut rows = self.rows.write();
        let old = |(key, (version, body)): &(&Key, &(u64, Bytes))| {
            key.space == space && *version < before && !keep(&key.key, body)
        };
        let gone: Vec<Key> = rows.by_key.iter().filter(old).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            rows.remove(key);
        }
        gone.len()
    }

    /// Writes both files anew with what the rows are now.
    fn rewrite(&self, files: &mut Files) -> Result<(), StoreError> {
        files.pair = None;
        let generation = files.generation + 1;
        let rows = self.rows.read();
        let entries = rows.by_key.iter().map(|(key, (version, body))| Entry {
            key: key.clone(),
            version: *version,
            body: body.clone(),
        });
        let bytes = file::encode_file(&self.keyring, generation, rows.by_key.len() as u64, entries);
        files.pair = Some(file::replace_pair(&self.folder, &self.disk, &bytes).map_err(|error| {
            StoreError::refused(format!(
                "cannot write the records in {}: {error}; {}",
                self.folder.display(),
                space::tell(&self.folder)
            ))
        })?);
        files.generation = generation;
        files.entries = rows.by_key.len() as u64;
        files.length = bytes.len() as u64;
        Ok(())
    }

    /// Reads both files and names what is damaged, while no write runs. Blocks.
    pub(super) fn verify(&self) -> Result<Vec<Finding>, StoreError> {
        let files = self.files.lock();
        let mut findings = Vec::new();
        if files.pair.is_some() {
            file::read_pair(&self.folder, &self.keyring, &mut findings)?;
        }
        Ok(findings)
    }

    #[cfg(test)]
    pub(super) fn fail_next(&self, fault: super::disk::Fault) {
        self.disk.fail_next(fault);
    }
}

/// Reads both files of records that nobody has open, and names what is damaged. Blocks.
pub(super) fn verify(folder: &Path, keyring: &Keyring) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    file::read_pair(folder, keyring, &mut findings)?;
    Ok(findings)
}

impl Rows {
    fn set(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        let key_bytes = entry.key.bytes();
        if let Some((_, old)) = self.by_key.insert(entry.key, (entry.version, entry.body)) {
            self.bytes -= key_bytes + old.len();
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some((_, body)) = self.by_key.remove(key) {
            self.bytes -= key.bytes() + body.len();
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.key.bytes() + self.body.len()
    }
}

impl Key {
    fn bytes(&self) -> usize {
        self.part.len() + self.key.len() + ROW_OVERHEAD
    }
}
