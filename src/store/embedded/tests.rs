//! The embedded store as a whole: the suite, the lock, what is there after a kill.

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::market::{Nanos, Symbol};
use crate::store::suite;

/// Small segments, so that tests meet many of them.
pub(super) fn options() -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 64 << 10, ..EmbeddedOptions::default() }
}

pub(super) fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::from_secret([7; 32]))
}

/// A folder in memory where there is such a place: tests that open a store some hundred times
/// would wait for the disk most of the time.
pub(super) fn quick_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) async fn open(folder: &Path) -> (EmbeddedStore, OpenReport) {
    EmbeddedStore::open(folder, keyring(), options()).await.unwrap()
}

pub(super) fn frame(tape: u64, seq: u64, bytes: usize) -> FrameRow {
    let byte = u8::try_from((tape * 31 + seq) % 251).unwrap();
    FrameRow { tape: TapeId(tape), seq, body: Bytes::from(vec![byte; bytes]) }
}

pub(super) fn block(symbol: &str, hour: i64, id: u8) -> (BucketKey, Vec<BlockRow>) {
    let first = Nanos(1_704_292_200_000_000_000).plus(hour * Nanos::HOUR);
    let symbol: Symbol = symbol.parse().unwrap();
    let key = BlockKey { kind: Kind::Trade, first, id: [id; 16] };
    let row = BlockRow { key, last: first.plus(Nanos::SECOND), count: 9, body: Bytes::from(vec![id; 300]) };
    (BucketKey { symbol, bucket: Bucket::of(Kind::Trade, first) }, vec![row])
}

#[tokio::test]
async fn store_suite() {
    let mut folders: Vec<TempDir> = Vec::new();
    suite::store(
        async || {
            folders.push(tempfile::tempdir().unwrap());
            Arc::new(open(folders.last().unwrap().path()).await.0)
        },
        suite::OtherBytes::Refused,
    )
    .await;
    suite::records(async || {
        folders.push(tempfile::tempdir().unwrap());
        Arc::new(open(folders.last().unwrap().path()).await.0)
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_store_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, report) = open(folder.path()).await;
    assert!(report.created);
    for seq in 1..=40 {
        store.append(frame(1, seq, 5000), Reach::Region).await.unwrap();
    }
    store.put_blocks(2, 2, vec![block("AAPL", 0, 1), block("MSFT", 1, 2)]).await.unwrap();
    let row = Record { key: "2".into(), version: 5, body: Bytes::from_static(b"mark") };
    store.put(Space::Marks, "local", row.clone()).await.unwrap();
    assert!(store.stats().segments > 3, "{:?}", store.stats());
    drop(store);

    let (store, report) = open(folder.path()).await;
    assert_eq!(report, OpenReport { frames: 40, ..OpenReport::default() });
    let frames = store.frames(TapeId(1), 1..=99, usize::MAX, At::Here).await.unwrap();
    assert_eq!(frames, (1..=40).map(|seq| frame(1, seq, 5000)).collect::<Vec<_>>());
    assert_eq!(store.block_count(2).await, Ok(2));
    assert_eq!(store.get(Space::Marks, "local", "2").await, Ok(Some(row)));
    let names = store.symbols("", None, 9).await.unwrap();
    assert_eq!(names.len(), 2);
    assert_eq!(store.verify(|_| ()).await, Ok(vec![]));
    store.append(frame(1, 41, 10), Reach::Region).await.unwrap();
    store.close().await;
    assert_eq!(verify_folder(folder.path(), keyring(), |_| ()).await, Ok(vec![]));
}

#[tokio::test]
async fn a_store_is_held_by_one_and_read_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path()).await;
    let error = EmbeddedStore::open(folder.path(), keyring(), options()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(error.detail.contains(&format!("held by process {}", std::process::id())), "{error}");
    store.close().await;
    let other = Arc::new(Keyring::from_secret([8; 32]));
    let error = EmbeddedStore::open(folder.path(), other, options()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(error.detail.contains("not in the key file"), "{error}");
    let rotated = Arc::new(Keyring::from_secret([8; 32]).with_old([7; 32]));
    let (store, _) = EmbeddedStore::open(folder.path(), rotated, options()).await.unwrap();
    store.append(frame(1, 1, 10), Reach::Region).await.unwrap();
}

#[tokio::test]
async fn a_lost_version_file_is_not_taken_for_a_first_start() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path()).await;
    store.close().await;
    fs::remove_file(folder.path().join("VERSION")).unwrap();
    let (store, report) = open(folder.path()).await;
    assert!(report.created, "nothing was in it: making it was cut short");
    store.append(frame(1, 1, 10), Reach::Region).await.unwrap();
    store.close().await;
    fs::remove_file(folder.path().join("VERSION")).unwrap();
    let error = EmbeddedStore::open(folder.path(), keyring(), options()).await.unwrap_err();
    assert!(error.detail.contains("no VERSION file"), "{error}");
}

#[tokio::test]
async fn options_out_of_range_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let small = EmbeddedOptions { segment_bytes: 1000, ..options() };
    let error = EmbeddedStore::open(folder.path(), keyring(), small).await.unwrap_err();
    assert!(error.detail.contains("segment_bytes is 1000"), "{error}");
    let (store, _) = open(folder.path()).await;
    let error = store.append(frame(1, 1, 40_000), Reach::Region).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid);
    let space = store.free_space().unwrap();
    assert!(0 < space.free_bytes && space.free_bytes <= space.total_bytes);
}

#[tokio::test]
async fn emptied_folders_are_damage_and_are_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(folder.path(), keyring(), options()).await.unwrap());
    let damaged = async || {
        let findings = verify_folder(folder.path(), keyring(), |_| {}).await.unwrap();
        let names = findings.iter().filter(|finding| finding.severity == Severity::Damage);
        names.map(|finding| finding.file.file_name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(damaged().await.is_empty());
    fs::remove_dir_all(folder.path().join("blocks")).unwrap();
    for segment in fs::read_dir(folder.path().join("tapes")).unwrap() {
        fs::remove_file(segment.unwrap().path()).unwrap();
    }
    assert_eq!(damaged().await, ["tapes", "blocks"]);
    assert!(!folder.path().join("blocks").exists());
}
