//! The few things the log and the records ask of a disk, each of which tests can make fail.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// An operation that a test makes fail once.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Half of the bytes are written, then an error.
    ShortWrite,
    /// `fdatasync` fails after the bytes were written.
    Sync,
    /// A file cannot be made for want of space.
    Create,
}

/// The disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    faults: parking_lot::Mutex<std::collections::VecDeque<Fault>>,
}

impl Disk {
    /// Makes a file of `length` bytes of zeros with `head` at its beginning. It has its name
    /// only when all of it is on the disk.
    pub(super) fn create(&self, path: &Path, length: u32, head: &[u8]) -> io::Result<File> {
        let temporary = path.with_extension("tmp");
        let made = self.create_as(&temporary, length, head).and_then(|file| {
            fs::rename(&temporary, path)?;
            sync_folder_of(path)?;
            Ok(file)
        });
        if made.is_err() {
            // What is left of it would only take space; the next attempt overwrites it anyway.
            let _ = fs::remove_file(&temporary);
        }
        made
    }

    fn create_as(&self, path: &Path, length: u32, head: &[u8]) -> io::Result<File> {
        #[cfg(test)]
        if self.fails(Fault::Create) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, u64::from(length)) {
            Ok(()) => {}
            // Without preallocation a full disk is met when a record is written, which the log
            // survives as well.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(u64::from(length))?,
            Err(error) => return Err(error.into()),
        }
        file.write_all_at(head, 0)?;
        file.sync_all()?;
        Ok(file)
    }

    /// Writes bytes at an offset.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests make it fail"))]
    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.fails(Fault::ShortWrite) {
            file.write_all_at(bytes.get(..bytes.len() / 2).unwrap_or_default(), offset)?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        file.write_all_at(bytes, offset)
    }

    /// `fdatasync`.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests make it fail"))]
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.fails(Fault::Sync) {
            return Err(io::Error::other("injected: fdatasync failed"));
        }
        file.sync_data()
    }

    #[cfg(test)]
    pub(super) fn fail_next(&self, fault: Fault) {
        self.faults.lock().push_back(fault);
    }

    #[cfg(test)]
    fn fails(&self, fault: Fault) -> bool {
        let mut faults = self.faults.lock();
        let at = faults.iter().position(|planned| *planned == fault);
        at.and_then(|at| faults.remove(at)).is_some()
    }
}

/// Makes the names in the folder of `path` durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
