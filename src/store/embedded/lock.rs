//! One process at a time, and one format: `LOCK` and `VERSION`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::disk::sync_folder_of;
use crate::store::StoreError;

/// The format of the folder that this program writes.
const FORMAT: u32 = 1;
const VERSION_PREFIX: &str = "tapeline-store ";

/// Held while the store is open; the operating system lets go of it when the process ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of a folder.
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("LOCK");
        let failed = |error: std::io::Error| StoreError::refused(format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is told where it can be read; that it is held is certain anyway.
                let _ = file.read_to_string(&mut holder);
                let holder = holder
                    .trim()
                    .parse::<u32>()
                    .map_or("another process".into(), |id| format!("process {id}"));
                return Err(StoreError::refused(format!(
                    "the store in {} is held by {holder}; stop it first, or use another folder",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Reads `VERSION`: whether the store was made before. A newer format is `Invalid`, anything
/// else that is not ours `Corrupt`.
pub(super) fn read_version(folder: &Path) -> Result<bool, StoreError> {
    let path = folder.join("VERSION");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::refused(format!("{}: {error}", path.display()))),
    };
    let text = String::from_utf8_lossy(&bytes);
    let format = text
        .strip_prefix(VERSION_PREFIX)
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(format, _)| format.parse::<u32>().ok())
        .filter(|format| version_text(*format) == text);
    match format {
        Some(FORMAT) => Ok(true),
        Some(newer) if newer > FORMAT => Err(StoreError::invalid(format!(
            "{}: the store has format {newer}, this program reads {FORMAT}; use the newer program that wrote it",
            path.display()
        ))),
        _ => Err(StoreError::corrupt(format!("{}: it is damaged or no version of a store", path.display()))),
    }
}

/// Refuses folders that hold anything where there is no `VERSION`. What an interrupted making
/// left (one log segment without a record, records without a row) is removed.
pub(super) fn refuse_contents(folders: &[&Path]) -> Result<(), StoreError> {
    for folder in folders {
        let failed = |error: std::io::Error| StoreError::refused(format!("{}: {error}", folder.display()));
        let items = match fs::read_dir(folder) {
            Ok(items) => items,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for item in items {
            let path = item.map_err(failed)?.path();
            if holds_rows(&path).map_err(failed)? {
                return Err(StoreError::corrupt(format!(
                    "{} holds data, but the store has no VERSION file; it was lost, restore it",
                    path.display()
                )));
            }
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// Whether a file of tapes or records holds more than making it writes.
fn holds_rows(path: &Path) -> std::io::Result<bool> {
    let bytes = fs::read(path)?;
    let header = if path.extension().is_some() { 4096 } else { 48 };
    Ok(bytes.iter().skip(header).any(|byte| *byte != 0))
}

/// Writes `VERSION`, as the last step of making a store.
pub(super) fn write_version(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join("VERSION");
    let temporary = folder.join("VERSION.tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(version_text(FORMAT).as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_folder_of(&path)
    };
    write().map_err(|error: std::io::Error| StoreError::refused(format!("{}: {error}", path.display())))
}

/// The format and a hash of it, so that a flipped bit is no other format.
fn version_text(format: u32) -> String {
    let hash = blake3::hash(format!("{VERSION_PREFIX}{format}").as_bytes()).to_hex();
    format!("{VERSION_PREFIX}{format} {}\n", hash.get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    #[test]
    fn a_second_holder_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused);
        assert!(error.detail.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn newer_formats_and_flipped_bits_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_version(folder.path()), Ok(false));
        write_version(folder.path()).unwrap();
        assert_eq!(read_version(folder.path()), Ok(true));
        let path = folder.path().join("VERSION");
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            assert_eq!(read_version(folder.path()).unwrap_err().kind, StoreErrorKind::Corrupt, "bit {bit}");
        }
        fs::write(&path, version_text(2)).unwrap();
        let error = read_version(folder.path()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Invalid);
        assert!(error.detail.contains("format 2"), "{error}");
    }
}
