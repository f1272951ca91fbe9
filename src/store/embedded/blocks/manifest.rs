//! fjall's manifests, checked before fjall reads them.
//!
//! Each keyspace has a file `current`: the number of its manifest (u64), the XXH3-128 of that file
//! (u128), and 0 for the kind of checksum; little-endian. fjall 3.1 writes the checksum and does
//! not compare it, and some flipped bits in a manifest end the process.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Buf as _;
use xxhash_rust::xxh3::xxh3_128;

use crate::store::StoreError;

const CURRENT_BYTES: usize = 8 + 16 + 1;

/// Checks the manifest of every keyspace below the folder of a database; one that is not
/// there yet has none.
pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
    let keyspaces = folder.join("keyspaces");
    let failed = |path: &Path, error: &io::Error| StoreError::refused(format!("{}: {error}", path.display()));
    let items = match fs::read_dir(&keyspaces) {
        Ok(items) => items,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&keyspaces, &error)),
    };
    for item in items {
        let keyspace = item.map_err(|error| failed(&keyspaces, &error))?.path();
        let path = keyspace.join("current");
        let current = match fs::read(&path) {
            Ok(current) => current,
            // A keyspace that is just being made; fjall knows what to do with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&path, &error)),
        };
        check_one(&keyspace, &current)
            .map_err(|what| StoreError::corrupt(format!("{}: {what}", path.display())))?;
    }
    Ok(())
}

fn check_one(keyspace: &Path, current: &[u8]) -> Result<(), String> {
    if current.len() != CURRENT_BYTES {
        return Err(format!("it has {} bytes, expected {CURRENT_BYTES}", current.len()));
    }
    let mut fields = current;
    let (number, checksum, kind) = (fields.get_u64_le(), fields.get_u128_le(), fields.get_u8());
    if kind != 0 {
        return Err(format!("it names the kind {kind} of checksum, expected 0"));
    }
    let manifest = format!("v{number}");
    let bytes =
        fs::read(keyspace.join(&manifest)).map_err(|error| format!("its manifest {manifest}: {error}"))?;
    if xxh3_128(&bytes) == checksum {
        Ok(())
    } else {
        Err(format!("its manifest {manifest} is damaged: it has another checksum"))
    }
}
