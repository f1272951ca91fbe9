//! Flipped bits and cuts in every kind of stored file: an error by name, or mended and told,
//! or an unacknowledged tail that is cut and told; never other data, never less without a word.

use std::collections::BTreeMap;

use super::tests::{block, frame, keyring, open, options, quick_folder};
use super::*;
use crate::market::Nanos;

/// All files below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Writes the files below `from` again below `to`, one of them changed.
fn restore(good: &BTreeMap<PathBuf, Vec<u8>>, from: &Path, to: &Path, changed: &Path, bytes: &[u8]) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    for (path, content) in good {
        let path_there = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path_there.parent().unwrap()).unwrap();
        fs::write(path_there, if path == changed { bytes } else { content }).unwrap();
    }
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << (at % 8);
    bytes
}

const FRAMES: u64 = 16;

async fn frames(store: &EmbeddedStore) -> Result<Vec<FrameRow>, StoreError> {
    store.frames(TapeId(1), 1..=99, usize::MAX, At::Here).await
}

#[tokio::test]
async fn embedded_bitflips() {
    let (folder, copy) = (quick_folder(), quick_folder());
    let (store, _) = open(folder.path()).await;
    for seq in 1..=FRAMES {
        store.append(frame(1, seq, 9000), Reach::Region).await.unwrap();
    }
    let expected = frames(&store).await.unwrap();
    store.close().await;
    let good = files(&folder.path().join("tapes"));
    let last_file = good.keys().next_back().unwrap();
    let to = copy.path().join("store");
    let tapes = to.join("tapes");
    for name in ["VERSION", "LOCK"] {
        fs::create_dir_all(&to).unwrap();
        fs::copy(folder.path().join(name), to.join(name)).unwrap();
    }
    let (mut refused, mut healed, mut cut) = (0, 0, 0);
    for (path, content) in &good {
        let records: Vec<usize> = memchr::memmem::find_iter(content, b"TLRC").collect();
        let last = *records.last().unwrap();
        let index = memchr::memmem::find(content, b"TLIX").unwrap_or(content.len());
        let framing = records.iter().flat_map(|at| *at..at + 64);
        let bodies = records.iter().flat_map(|at| [at + 64, at + 4000, at + 9063]);
        let tail = (index..content.len().min(index + 64)).chain(content.len().max(16) - 16..content.len());
        let unused = [content.len() - 1, 52, 4000];
        for at in (0..52).chain(framing).chain(bodies).chain(tail).chain(unused) {
            restore(&good, &folder.path().join("tapes"), &tapes, path, &flipped(content, at));
            let place = format!("byte {at} of {}", path.display());
            let (log, opened) = match TapeLog::open(&tapes, keyring(), &options(), false) {
                Ok(opened) => opened,
                Err(error) => {
                    let name = path.file_name().unwrap().to_str().unwrap();
                    assert!(
                        error.kind == StoreErrorKind::Corrupt && error.detail.contains(name),
                        "{place}: {error}"
                    );
                    refused += 1;
                    continue;
                }
            };
            match read_on(&log) {
                Err(error) => {
                    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{place}: {error}");
                    refused += 1;
                }
                Ok(found) if found == expected => healed += 1,
                Ok(found) => {
                    // The one frame that nothing after it confirms.
                    assert!(path == last_file && at >= last, "{place}: {} frames", found.len());
                    assert_eq!(found, expected[..expected.len() - 1], "{place}");
                    assert!(opened.cut_bytes > 9000, "{place}: {opened:?}");
                    cut += 1;
                }
            }
        }
    }
    assert!(refused > 500 && healed > 50 && cut > 60, "refused {refused}, healed {healed}, cut {cut}");
}

/// Reads on until nothing comes: an answer may end before a frame that cannot be read.
fn read_on(log: &TapeLog) -> Result<Vec<FrameRow>, StoreError> {
    let mut all: Vec<FrameRow> = Vec::new();
    loop {
        let from = all.last().map_or(1, |row| row.seq + 1);
        let page = log.reader().frames(TapeId(1), &(from..=99), usize::MAX)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// What a damaged folder of blocks showed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    Refused,
    FewerByTheCount,
    /// A bucket is not in the directory; the counts of the levels tell when all are walked.
    BucketMissing,
    Same,
}

/// Opens and reads everything a reader reads, with the checks that a node makes.
fn show(folder: &Path, expected: &[(BucketKey, Vec<BlockRow>)]) -> Result<Shown, String> {
    let Ok(blocks) = Blocks::open(folder, keyring(), 1 << 20) else { return Ok(Shown::Refused) };
    match blocks.block_count(2) {
        Err(_) => return Ok(Shown::Refused),
        Ok(count) if count < expected.len() as u64 => return Ok(Shown::FewerByTheCount),
        Ok(_) => {}
    }
    let Ok(findings) = blocks.verify(&mut |_| ()) else { return Ok(Shown::Refused) };
    let all = Nanos::MIN..=Nanos::MAX;
    for (key, rows) in expected {
        let buckets = blocks.buckets(key.symbol, key.bucket, key.bucket, Order::Ascending, 9);
        let page = blocks.blocks(key, Kind::Trade, &all, None, usize::MAX);
        let (Ok(buckets), Ok(page)) = (buckets, page) else { return Ok(Shown::Refused) };
        if buckets.is_empty() && !findings.is_empty() {
            return Ok(Shown::BucketMissing);
        }
        if buckets.len() != 1 || page.blocks != *rows {
            return Err(format!("{}: {} buckets, {page:?}", key.symbol, buckets.len()));
        }
    }
    Ok(if findings.is_empty() { Shown::Same } else { Shown::Refused })
}

#[test]
fn embedded_bitflips_of_blocks() {
    let (folder, copy) = (quick_folder(), quick_folder());
    let from = folder.path().join("blocks");
    let blocks = Blocks::open(&from, keyring(), 1 << 20).unwrap();
    let mut expected = Vec::new();
    for (number, symbol) in (1_u8..).zip(["AAPL", "MSFT", "IBM", "SPY"]) {
        let row = block(symbol, 0, number);
        blocks.put(2, u64::from(number), std::slice::from_ref(&row)).unwrap();
        expected.push(row);
        if number == 2 {
            // Two in tables, two in the journal.
            blocks.flush_to_tables().unwrap();
        }
    }
    drop(blocks);
    let mut good = files(&from);
    // The journal is preallocated: the zeros behind what was written are left out.
    for (_, journal) in good.iter_mut().filter(|(path, _)| path.extension().is_some()) {
        journal.truncate(journal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    }
    let to = copy.path().join("blocks");
    restore(&good, &from, &to, &from, b"");
    assert_eq!(show(&to, &expected), Ok(Shown::Same));
    let mut seen: BTreeMap<Shown, usize> = BTreeMap::new();
    for (path, content) in &good {
        let samples = if path.extension().is_some() { 40 } else { 12 };
        let step = content.len().div_ceil(samples).max(1);
        for at in (0..content.len()).step_by(step) {
            restore(&good, &from, &to, path, &flipped(content, at));
            let shown = show(&to, &expected);
            let shown = shown.unwrap_or_else(|what| panic!("byte {at} of {}: {what}", path.display()));
            *seen.entry(shown).or_default() += 1;
        }
    }
    assert_eq!(seen.get(&Shown::BucketMissing), None, "{seen:?}");
    assert!(seen[&Shown::Refused] > 20 && seen[&Shown::Same] > 20, "{seen:?}");
}
