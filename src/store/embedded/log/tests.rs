//! The log under failing disks, kills, cuts and random appends.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::store::embedded::Severity;
use crate::store::embedded::disk::Fault;
use crate::store::embedded::tests::{frame, keyring, options, quick_folder};
use crate::store::{StoreErrorKind, TapeId};

fn open(folder: &Path) -> Result<(TapeLog, Opened), StoreError> {
    let create = fs::read_dir(folder).unwrap().next().is_none();
    TapeLog::open(folder, keyring(), &options(), create)
}

fn read(log: &TapeLog, tape: u64) -> Vec<FrameRow> {
    log.reader().frames(TapeId(tape), &(0..=u64::MAX), usize::MAX).unwrap()
}

fn seqs(log: &TapeLog, tape: u64) -> Vec<u64> {
    read(log, tape).iter().map(|frame| frame.seq).collect()
}

fn last_segment(folder: &Path) -> PathBuf {
    fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()).max().unwrap()
}

/// Where the records of a segment begin, and where the last one ends.
fn record_offsets(path: &Path) -> (Vec<usize>, usize) {
    let bytes = fs::read(path).unwrap();
    let offsets: Vec<usize> = memchr::memmem::find_iter(&bytes, format::RECORD_MAGIC).collect();
    let last = *offsets.last().unwrap();
    let length = u32::from_be_bytes(bytes[last + 4..last + 8].try_into().unwrap());
    (offsets, last + 8 + usize::try_from(length).unwrap())
}

#[tokio::test]
async fn concurrent_appends_share_one_sync() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let appends = (1..=200).map(|seq| log.append(frame(1, seq, 100)));
    // All are queued before the first is awaited to its end, so the thread finds many at once.
    for result in futures::future::join_all(appends).await {
        result.unwrap();
    }
    let counters = log.counters();
    assert_eq!(counters.appended.load(Ordering::Relaxed), 200);
    assert!(counters.syncs.load(Ordering::Relaxed) < 200, "{counters:?}");
    assert_eq!(seqs(&log, 1), (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_failed_sync_left_is_never_trusted_and_the_same_bytes_go_again() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    log.append(frame(1, 1, 100)).await.unwrap();
    for (fault, seq) in [(Fault::Sync, 2), (Fault::ShortWrite, 3)] {
        log.fail_next(fault);
        let error = log.append(frame(1, seq, 100)).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unknown, "{error}");
        assert!(error.detail.contains(".log") && error.detail.contains("bytes free"), "{error}");
        assert!(log.refusing().is_some());
        assert_eq!(seqs(&log, 1).last(), Some(&(seq - 1)), "it is not served");
        // No new segment can be made: refused, by the name of the folder, and reads go on.
        log.fail_next(Fault::Create);
        let error = log.append(frame(1, seq, 100)).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
        assert!(error.detail.contains("bytes free"), "{error}");
        log.append(frame(1, seq, 100)).await.unwrap();
        assert_eq!(log.refusing(), None);
    }
    assert_eq!(log.counters().abandoned_segments.load(Ordering::Relaxed), 2);
    assert_eq!(seqs(&log, 1), [1, 2, 3]);
    log.append(frame(1, 4, 100)).await.unwrap();
    drop(log);
    let (log, opened) = open(folder.path()).unwrap();
    assert_eq!(opened.ignored_records, 1, "frame 2 in the first segment, whole but never synced");
    assert_eq!((opened.frames, opened.cut_bytes), (4, 0));
    assert_eq!(read(&log, 1), (1..=4).map(|seq| frame(1, seq, 100)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_append_that_is_never_repeated_leaves_the_log_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    log.append(frame(1, 1, 100)).await.unwrap();
    log.fail_next(Fault::ShortWrite);
    log.append(frame(1, 2, 100)).await.unwrap_err();
    drop(log);
    let (log, opened) = open(folder.path()).unwrap();
    assert!(opened.cut_bytes > 0, "{opened:?}");
    assert_eq!(seqs(&log, 1), [1]);
    log.append(frame(1, 2, 100)).await.unwrap();
    drop(log);
    let (log, opened) = open(folder.path()).unwrap();
    assert_eq!((opened.cut_bytes, seqs(&log, 1)), (0, vec![1, 2]));
}

#[tokio::test]
async fn a_cut_in_the_last_record_takes_it_alone_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    for seq in 1..=3 {
        log.append(frame(1, seq, 40)).await.unwrap();
    }
    drop(log);
    let path = last_segment(folder.path());
    let (offsets, end) = record_offsets(&path);
    let whole = fs::read(&path).unwrap();
    for length in offsets[2]..end {
        let folder = quick_folder();
        fs::write(folder.path().join(path.file_name().unwrap()), &whole[..length]).unwrap();
        let (log, opened) = open(folder.path()).unwrap();
        assert_eq!(seqs(&log, 1), [1, 2], "cut at {length}");
        let [finding] = opened.findings.as_slice() else { panic!("cut at {length}: {opened:?}") };
        assert_eq!(finding.severity, Severity::Cut);
        assert_eq!(opened.cut_bytes, (length - offsets[2]) as u64, "cut at {length}");
        log.append(frame(1, 3, 40)).await.unwrap();
        drop(log);
        let (log, opened) = open(folder.path()).unwrap();
        assert_eq!((seqs(&log, 1), opened.findings), (vec![1, 2, 3], vec![]), "cut at {length}");
    }
}

#[tokio::test]
async fn a_bad_record_that_a_later_one_covers_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    for seq in 1..=3 {
        log.append(frame(1, seq, 40)).await.unwrap();
    }
    drop(log);
    let path = last_segment(folder.path());
    let (offsets, _) = record_offsets(&path);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"XX", offsets[1] as u64 + 50).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(error.detail.contains(&format!("0001.log, byte {}", offsets[1])), "{error}");
    // The last one: nothing covers it, so it may have been in flight.
    file.write_all_at(&fs::read(&path).unwrap()[offsets[0] + 50..offsets[0] + 52], 0).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(error.detail.contains("byte 0: it does not begin with `TLSEGMT1`"), "{error}");
}

#[tokio::test]
async fn a_missing_segment_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    for seq in 1..=40 {
        log.append(frame(1, seq, 5000)).await.unwrap();
    }
    drop(log);
    for (name, expected) in [
        ("0000000000000002.log", "0002.log: this log segment is missing"),
        ("", "newer one, which is missing"),
    ] {
        let path = if name.is_empty() { last_segment(folder.path()) } else { folder.path().join(name) };
        let hidden = folder.path().join("hidden");
        fs::rename(&path, &hidden).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(error.kind == StoreErrorKind::Corrupt && error.detail.contains(expected), "{error}");
        fs::rename(&hidden, &path).unwrap();
    }
    assert_eq!(seqs(&open(folder.path()).unwrap().0, 1).len(), 40);
}

#[tokio::test]
async fn a_damaged_index_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    for seq in 1..=30 {
        log.append(frame(1, seq, 5000)).await.unwrap();
    }
    drop(log);
    let first = folder.path().join("0000000000000001.log");
    let good = fs::read(&first).unwrap();
    for from_end in [1, 12, 60] {
        let mut bytes = good.clone();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        fs::write(&first, bytes).unwrap();
        let (log, opened) = open(folder.path()).unwrap();
        assert_eq!(opened.findings.len(), 1, "{opened:?}");
        assert_eq!(opened.findings[0].severity, Severity::Healed);
        assert_eq!(seqs(&log, 1).len(), 30);
        drop(log);
        assert_eq!(fs::read(&first).unwrap(), good, "mended on the disk");
    }
}

#[tokio::test]
async fn segments_go_when_they_are_old_and_covered() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    for seq in 1..=40 {
        log.append(frame(1, seq, 5000)).await.unwrap();
    }
    let before = log.segments();
    let day = Duration::from_hours(24);
    let tomorrow = SystemTime::now() + day + Duration::from_hours(1);
    let all = |_: TapeId, _: &[u64]| true;
    let first_twenty = |_: TapeId, seqs: &[u64]| seqs.iter().all(|seq| *seq <= 20);
    assert_eq!(log.retention().run(SystemTime::now(), day, &all), Ok(0), "too young");
    assert_eq!(log.retention().run(tomorrow, day, &|_, _| false), Ok(0), "not covered");
    let dropped = log.retention().run(tomorrow, day, &first_twenty).unwrap();
    assert!(dropped > 0 && dropped < before - 1);
    let left = seqs(&log, 1);
    assert!(left[0] > 1 && left[0] <= 21 && left.last() == Some(&40), "{left:?}");
    log.retention().run(tomorrow, day, &all).unwrap();
    assert_eq!(log.segments(), 1, "the segment that is written stays");
    log.append(frame(1, 41, 10)).await.unwrap();
    let left = seqs(&log, 1);
    drop(log);
    let (log, opened) = open(folder.path()).unwrap();
    assert_eq!((seqs(&log, 1), opened.findings), (left, vec![]));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let small = EmbeddedOptions { append_queue_bytes_max: 1000, ..options() };
    let (log, _) = TapeLog::open(folder.path(), keyring(), &small, true).unwrap();
    let appends = (1..=500).map(|seq| log.append(frame(1, seq, 500)));
    let results = futures::future::join_all(appends).await;
    let refused = results.iter().filter(|result| {
        result
            .as_ref()
            .is_err_and(|error| error.kind == StoreErrorKind::Refused && error.detail.contains("1000"))
    });
    let refused = refused.count();
    assert!(refused > 0);
    assert_eq!(seqs(&log, 1).len(), 500 - refused);
}

/// One step of a random life of a log.
#[derive(Clone, Debug)]
enum Step {
    Append { tape: u64, seq: u64, bytes: usize },
    Fail(Fault),
    Reopen,
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1_u64..3, 1_u64..60, 0_usize..9000).prop_map(|(tape, seq, bytes)| Step::Append { tape, seq, bytes }),
        1 => prop_oneof![Just(Fault::Sync), Just(Fault::ShortWrite), Just(Fault::Create)].prop_map(Step::Fail),
        1 => Just(Step::Reopen),
        1 => Just(Step::Drop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever happens, what was acknowledged is there with its bytes, and nothing else but
    /// appends whose outcome is unknown.
    #[test]
    fn random_lives_keep_every_acknowledged_frame(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = quick_folder();
        let (mut log, _) = open(folder.path()).unwrap();
        let mut model: BTreeMap<(u64, u64), Bytes> = BTreeMap::new();
        let mut unknown: BTreeMap<(u64, u64), Bytes> = BTreeMap::new();
        let mut dropped: BTreeMap<u64, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append { tape, seq, bytes } => {
                    if dropped.get(&tape).is_some_and(|last| seq <= *last) {
                        continue;
                    }
                    let mut row = frame(tape, seq, bytes);
                    // A seq has one byte string for life.
                    if let Some(body) = unknown.get(&(tape, seq)) {
                        row.body = body.clone();
                    }
                    let body = row.body.clone();
                    match (runtime.block_on(log.append(row)), model.get(&(tape, seq))) {
                        (Ok(()), stored) => {
                            prop_assert!(stored.is_none_or(|stored| *stored == body));
                            unknown.remove(&(tape, seq));
                            model.insert((tape, seq), body);
                        }
                        (Err(error), stored) => match error.kind {
                            StoreErrorKind::Invalid => {
                                prop_assert!(stored.is_some_and(|stored| *stored != body), "{error}");
                            }
                            StoreErrorKind::Unknown => {
                                unknown.insert((tape, seq), body);
                            }
                            kind => prop_assert_eq!(kind, StoreErrorKind::Refused, "{}", error),
                        },
                    }
                }
                Step::Fail(fault) => log.fail_next(fault),
                Step::Reopen => {
                    drop(log);
                    let (opened, found) = open(folder.path()).unwrap();
                    prop_assert!(found.findings.iter().all(|finding| finding.severity != Severity::Damage));
                    log = opened;
                }
                Step::Drop => {
                    let later = SystemTime::now() + Duration::from_hours(1);
                    let covered = |_: TapeId, seqs: &[u64]| seqs.iter().all(|seq| *seq <= 30);
                    log.retention().run(later, Duration::from_secs(1), &covered).unwrap();
                    for tape in 1..3 {
                        let left = read(&log, tape);
                        model.retain(|(of, seq), _| {
                            let stays = *of != tape || left.iter().any(|frame| frame.seq == *seq);
                            if !stays {
                                assert!(*seq <= 30, "frame {seq} was not covered");
                                let last = dropped.entry(tape).or_default();
                                *last = (*last).max(*seq);
                            }
                            stays
                        });
                    }
                }
            }
            for tape in 1..3 {
                let found: BTreeMap<(u64, u64), Bytes> =
                    read(&log, tape).into_iter().map(|frame| ((tape, frame.seq), frame.body)).collect();
                for (key, body) in model.iter().filter(|(key, _)| key.0 == tape) {
                    prop_assert_eq!(found.get(key), Some(body));
                }
                for (key, body) in found.iter().filter(|(key, _)| !model.contains_key(key)) {
                    prop_assert_eq!(unknown.get(key), Some(body));
                }
            }
        }
    }
}
