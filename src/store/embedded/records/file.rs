//! The two files in bytes, and what they say together.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::seal::{ENVELOPE_BYTES, Keyring, SealKey};
use crate::store::embedded::disk::{Disk, sync_folder_of};
use crate::store::embedded::{Finding, Severity};
use crate::store::{Space, StoreError};

pub(super) const NAMES: [&str; 2] = ["a", "b"];

const MAGIC: &[u8; 8] = b"TLRECRD1";
const HEADER_BYTES: usize = 8 + ENVELOPE_BYTES + 16;

/// The full key of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) space: Space,
    pub(super) part: String,
    pub(super) key: String,
}

impl Key {
    pub(super) fn new(space: Space, part: &str, key: &str) -> Self {
        Self { space, part: part.to_owned(), key: key.to_owned() }
    }
}

/// One write of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) version: u64,
    pub(super) body: Bytes,
}

/// What the files say.
pub(super) struct Pair {
    pub(super) generation: u64,
    pub(super) entries: Vec<Entry>,
    /// Bytes of a file.
    pub(super) length: u64,
}

/// What one file says: its good entries, and why it has no more where that is not its end.
struct OneFile {
    path: PathBuf,
    generation: u64,
    entries: Vec<Entry>,
    /// Bytes up to the end of the last good entry.
    length: usize,
    bad: Option<String>,
}

pub(super) fn encode_entry(keyring: &Keyring, generation: u64, number: u64, entry: &Entry) -> Vec<u8> {
    let mut payload = Vec::with_capacity(entry.body.len() + 64);
    for text in [entry.key.space.name(), &entry.key.part, &entry.key.key] {
        // Parts and keys have at most 512 bytes.
        payload.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        payload.extend_from_slice(text.as_bytes());
    }
    payload.put_u64(entry.version);
    payload.extend_from_slice(&entry.body);
    let mut out = BytesMut::with_capacity(4 + ENVELOPE_BYTES + payload.len());
    out.put_u32(u32::try_from(ENVELOPE_BYTES + payload.len()).unwrap_or(u32::MAX));
    keyring.seal_into(&entry_key(generation, number), &payload, &mut out);
    out.to_vec()
}

fn decode_entry(mut payload: Bytes) -> Option<Entry> {
    let mut text = || {
        let length = usize::from(payload.try_get_u16().ok()?);
        let bytes = (payload.len() >= length).then(|| payload.split_to(length))?;
        String::from_utf8(bytes.to_vec()).ok()
    };
    let (space, part, key) = (text()?, text()?, text()?);
    let space = Space::ALL.into_iter().find(|one| one.name() == space)?;
    let version = payload.try_get_u64().ok()?;
    Some(Entry { key: Key { space, part, key }, version, body: payload })
}

/// A whole file: header, then the rows as its first entries.
pub(super) fn encode_file(
    keyring: &Keyring,
    generation: u64,
    count: u64,
    entries: impl Iterator<Item = Entry>,
) -> Vec<u8> {
    let mut payload = Vec::with_capacity(16);
    payload.put_u64(generation);
    payload.put_u64(count);
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&keyring.seal(&SealKey::new("records-header"), &payload));
    for (number, entry) in (1..).zip(entries) {
        out.extend_from_slice(&encode_entry(keyring, generation, number, &entry));
    }
    out
}

/// Writes both files under other names, then renames them, `a` first.
pub(super) fn replace_pair(folder: &Path, disk: &Disk, bytes: &[u8]) -> io::Result<[File; 2]> {
    let replace = |name: &str| {
        let (path, temporary) = (folder.join(name), folder.join(format!("{name}.tmp")));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary)?;
        disk.write(&file, bytes, 0)?;
        disk.sync(&file)?;
        fs::rename(&temporary, &path)?;
        sync_folder_of(&path)?;
        Ok::<File, io::Error>(file)
    };
    let [a, b] = NAMES;
    Ok([replace(a)?, replace(b)?])
}

pub(super) fn open_pair(folder: &Path) -> Result<[File; 2], StoreError> {
    let open = |name: &str| {
        let path = folder.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        file.map_err(|error| StoreError::refused(format!("{}: {error}", path.display())))
    };
    let [a, b] = NAMES;
    Ok([open(a)?, open(b)?])
}

/// Reads both files and decides by the table in the module's documentation.
pub(super) fn read_pair(
    folder: &Path,
    keyring: &Keyring,
    findings: &mut Vec<Finding>,
) -> Result<Pair, StoreError> {
    let [a, b] = NAMES.map(|name| read_file(&folder.join(name), keyring));
    let mut healed = |path: &Path, offset: usize, what: String| {
        let finding = Finding {
            file: path.to_owned(),
            offset: Some(offset as u64),
            severity: Severity::Healed,
            what: format!("{what}; healed from the other file"),
        };
        findings.push(finding);
    };
    let (good, other) = match (a, b) {
        (Err((path, a)), Err((other, b))) => {
            let (path, other) = (path.display(), other.display());
            return Err(StoreError::corrupt(format!("{path}: {a}; and its mirror {other}: {b}")));
        }
        (Err((path, why)), Ok(good)) | (Ok(good), Err((path, why))) => {
            healed(&path, 0, why);
            (good, None)
        }
        (Ok(a), Ok(b)) if a.generation != b.generation => {
            let (newer, older) = if a.generation > b.generation { (a, b) } else { (b, a) };
            let what = format!("it has generation {}, the other {}", older.generation, newer.generation);
            healed(&older.path, 0, what);
            (newer, None)
        }
        (Ok(a), Ok(b)) if a.entries.len() >= b.entries.len() => (a, Some(b)),
        (Ok(a), Ok(b)) => (b, Some(a)),
    };
    match (&other, &good.bad) {
        (Some(other), _) if other.entries.len() < good.entries.len() => {
            if let Some(bad) = &good.bad {
                return Err(both_bad(&good, bad, other));
            }
            let why = other.bad.clone().unwrap_or_else(|| "it ends early".into());
            healed(&other.path, other.length, format!("entry {}: {why}", other.entries.len() + 1));
        }
        // Equally long. A write begins in `a`: only there may one be that was not acknowledged.
        (Some(other), Some(bad)) if other.bad.is_none() && good.path.ends_with("a") => {
            findings.push(Finding {
                file: good.path.clone(),
                offset: Some(good.length as u64),
                severity: Severity::Cut,
                what: format!("a write that was not acknowledged is cut: {bad}"),
            });
        }
        (Some(other), Some(bad)) => return Err(both_bad(&good, bad, other)),
        (Some(other), None) => {
            if let Some(bad) = &other.bad {
                return Err(both_bad(other, bad, &good));
            }
        }
        (None, Some(bad)) => {
            let what =
                format!("{}, byte {}: {bad}; its mirror cannot heal it", good.path.display(), good.length);
            return Err(StoreError::corrupt(what));
        }
        (None, None) => {}
    }
    Ok(Pair { generation: good.generation, length: good.length as u64, entries: good.entries })
}

fn both_bad(bad: &OneFile, why: &str, other: &OneFile) -> StoreError {
    StoreError::corrupt(format!(
        "{}, byte {}: {why}; its mirror {} does not have that entry either",
        bad.path.display(),
        bad.length,
        other.path.display()
    ))
}

fn read_file(path: &Path, keyring: &Keyring) -> Result<OneFile, (PathBuf, String)> {
    let named = |why: String| (path.to_owned(), why);
    let bytes = Bytes::from(fs::read(path).map_err(|error| named(error.to_string()))?);
    let sealed = bytes.get(..HEADER_BYTES).and_then(|header| header.strip_prefix(MAGIC));
    let sealed = sealed.ok_or_else(|| named("it does not begin with `TLRECRD1` and a header".into()))?;
    let mut header = keyring
        .check(&SealKey::new("records-header"), sealed)
        .map_err(|error| named(format!("the header {error}")))?;
    let (generation, count) = (header.get_u64(), header.get_u64());
    let mut file =
        OneFile { path: path.to_owned(), generation, entries: Vec::new(), length: HEADER_BYTES, bad: None };
    while file.length < bytes.len() {
        let number = file.entries.len() as u64 + 1;
        match read_entry(&bytes.slice(file.length..), keyring, generation, number) {
            Ok((entry, used)) => {
                file.entries.push(entry);
                file.length += used;
            }
            Err(why) => {
                file.bad = Some(why);
                break;
            }
        }
    }
    if (file.entries.len() as u64) < count && file.bad.is_none() {
        file.bad = Some(format!("it ends before the {count} entries that it was made with"));
    }
    Ok(file)
}

fn read_entry(
    bytes: &Bytes,
    keyring: &Keyring,
    generation: u64,
    number: u64,
) -> Result<(Entry, usize), String> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("an entry is cut short")?;
    let length = u32::from_be_bytes(*length) as usize;
    if rest.len() < length {
        return Err("an entry is cut short".into());
    }
    let payload = keyring
        .open(&entry_key(generation, number), &bytes.slice(4..4 + length))
        .map_err(|error| format!("the entry {error}"))?;
    let entry = decode_entry(payload).ok_or("the entry is of a space that this program does not know")?;
    Ok((entry, 4 + length))
}

fn entry_key(generation: u64, number: u64) -> SealKey {
    SealKey::new("records-entry").number(generation).number(number)
}
