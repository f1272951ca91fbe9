//! Records under flipped bits, cuts and failing disks.

use std::fs;

use super::*;
use crate::store::StoreErrorKind;
use crate::store::embedded::Severity;
use crate::store::embedded::disk::Fault;
use crate::store::embedded::tests::{keyring, quick_folder};

fn open(folder: &Path) -> Result<(RecordFiles, Opened), StoreError> {
    let create = fs::read_dir(folder).unwrap().next().is_none();
    RecordFiles::open(folder, keyring(), 64 << 20, create)
}

fn record(key: &str, version: u64) -> Record {
    Record { key: key.into(), version, body: Bytes::from(format!("body {key} {version}")) }
}

fn all(records: &RecordFiles) -> Vec<Record> {
    records.scan(Space::Marks, "local", None, usize::MAX)
}

/// Files with three entries, and what they hold.
fn filled(folder: &Path) -> Vec<Record> {
    let (records, _) = open(folder).unwrap();
    for record in [record("a", 1), record("b", 1), record("a", 2)] {
        records.put(Space::Marks, "local", record).unwrap();
    }
    all(&records)
}

#[test]
fn any_flipped_bit_of_one_file_is_healed_and_told() {
    let folder = quick_folder();
    let expected = filled(folder.path());
    let good = fs::read(folder.path().join("a")).unwrap();
    for name in file::NAMES {
        // Every byte of the header and of the first entry, of the others a sample.
        for at in (0..good.len()).filter(|at| *at < 120 || at % 9 == 0) {
            let bit = at * 8 + at % 8;
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let folder = quick_folder();
            for other in file::NAMES {
                fs::write(folder.path().join(other), if other == name { &bytes } else { &good }).unwrap();
            }
            let (records, opened) = open(folder.path()).unwrap();
            assert_eq!(all(&records), expected, "bit {bit} of {name}");
            let [finding] = opened.findings.as_slice() else { panic!("bit {bit} of {name}: {opened:?}") };
            assert_eq!(finding.severity, Severity::Healed);
            assert!(finding.file.ends_with(name), "bit {bit} of {name}: {finding}");
            drop(records);
            let (records, opened) = open(folder.path()).unwrap();
            assert!(opened.findings.is_empty(), "mended on the disk: {opened:?}");
            assert_eq!(all(&records), expected);
        }
    }
}

#[test]
fn any_cut_of_one_file_is_healed_and_told() {
    let folder = quick_folder();
    let expected = filled(folder.path());
    let good = fs::read(folder.path().join("a")).unwrap();
    for name in file::NAMES {
        for length in 0..good.len() {
            let folder = quick_folder();
            for other in file::NAMES {
                let bytes = if other == name { &good[..length] } else { &good };
                fs::write(folder.path().join(other), bytes).unwrap();
            }
            let (records, opened) = open(folder.path()).unwrap();
            assert_eq!(all(&records), expected, "length {length} of {name}");
            assert_eq!(opened.findings.len(), 1, "length {length} of {name}");
        }
    }
}

#[test]
fn damage_in_both_files_is_refused_by_name() {
    let folder = quick_folder();
    filled(folder.path());
    for name in file::NAMES {
        let path = folder.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 3;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let error = open(folder.path()).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(error.detail.contains("/a, byte ") && error.detail.contains("mirror"), "{error}");
}

#[test]
fn a_torn_write_that_was_not_acknowledged_is_cut() {
    let folder = quick_folder();
    let expected = filled(folder.path());
    let path = folder.path().join("a");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(&[0, 0, 0, 99, 1, 2, 3]);
    fs::write(&path, bytes).unwrap();
    let (records, opened) = open(folder.path()).unwrap();
    assert_eq!(all(&records), expected);
    assert_eq!(opened.findings[0].severity, Severity::Cut);
}

#[test]
fn an_older_file_never_wins() {
    let folder = quick_folder();
    filled(folder.path());
    let old = fs::read(folder.path().join("b")).unwrap();
    fs::write(folder.path().join("b"), b"damaged").unwrap();
    let (records, _) = open(folder.path()).unwrap();
    records.put(Space::Marks, "local", record("a", 9)).unwrap();
    let expected = all(&records);
    drop(records);
    fs::write(folder.path().join("a"), &old).unwrap();
    let (records, opened) = open(folder.path()).unwrap();
    assert_eq!((all(&records), opened.findings.len()), (expected, 1));
}

#[test]
fn a_failing_disk_refuses_and_recovers() {
    for fault in [Fault::Sync, Fault::ShortWrite] {
        let folder = quick_folder();
        let mut expected = filled(folder.path());
        let (records, _) = open(folder.path()).unwrap();
        records.fail_next(fault);
        let error = records.put(Space::Marks, "local", record("c", 1)).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unknown, "{error}");
        records.fail_next(fault);
        let error = records.put(Space::Marks, "local", record("c", 1)).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
        assert!(error.detail.contains("bytes free"), "{error}");
        records.put(Space::Marks, "local", record("c", 1)).unwrap();
        expected.push(record("c", 1));
        assert_eq!(all(&records), expected);
        drop(records);
        assert_eq!(all(&open(folder.path()).unwrap().0), expected);
    }
}

#[test]
fn files_are_written_anew_when_they_grow_and_rows_are_bounded() {
    let folder = quick_folder();
    let (records, _) = RecordFiles::open(folder.path(), keyring(), 700_000, true).unwrap();
    let big = |key: &str, version| Record { key: key.into(), version, body: Bytes::from(vec![7; 300_000]) };
    for version in 1..=12 {
        records.put(Space::Marks, "local", big("a", version)).unwrap();
    }
    let length = fs::metadata(folder.path().join("a")).unwrap().len();
    assert!(length < 2_500_000, "{length}");
    records.put(Space::Marks, "local", record("b", 1)).unwrap();
    let error = records
        .put(Space::Marks, "local", Record { body: vec![7; 500_000].into(), ..big("c", 1) })
        .unwrap_err();
    assert!(error.kind == StoreErrorKind::Refused && error.detail.contains("records_bytes_max"), "{error}");
    drop(records);
    let (records, opened) = open(folder.path()).unwrap();
    assert!(opened.findings.is_empty());
    assert_eq!(all(&records), [big("a", 12), record("b", 1)]);
}

/// The bytes of `docs/FORMATS.md`, section 7.
#[test]
fn the_golden_file() {
    let ring = Keyring::from_secret(std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let key = Key::new(Space::Marks, "local", "3");
    let entry = Entry { key, version: 5, body: Bytes::from_static(b"abc") };
    let bytes = file::encode_file(&ring, 1, 1, std::iter::once(entry));
    assert_eq!(bytes, crate::market::golden::block("records-file"));
}

#[test]
fn keys_and_audit_leave_room_for_what_the_tapes_need() {
    let folder = quick_folder();
    let (records, _) = RecordFiles::open(folder.path(), keyring(), 8_000, true).unwrap();
    let filled = (1..).find_map(|version: u64| {
        let entry = record(&format!("{version:020}"), version);
        records.put(Space::Audit, "2026-01-05", entry).err().map(|error| (version, error))
    });
    let (refused, error) = filled.unwrap();
    assert!(
        error.kind == StoreErrorKind::Refused && error.to_string().contains("records_bytes_max"),
        "{error}"
    );
    records.put(Space::Marks, "local", record("0", 1)).unwrap();
    assert_eq!(
        records.drop_rows(Space::Audit, refused - 1, &|key, _| key.ends_with('3')),
        usize::try_from(refused - 2).unwrap() - (1..refused - 1).filter(|version| version % 10 == 3).count()
    );
    records.put(Space::Audit, "2026-01-05", record("z", refused)).unwrap();
    let left: Vec<u64> =
        records.scan(Space::Audit, "2026-01-05", None, 100).iter().map(|row| row.version).collect();
    assert!(left.contains(&3) && left.contains(&(refused - 1)) && !left.contains(&1), "{left:?}");
    assert_eq!(all(&records).len(), 1, "other spaces are left alone");
}
