//! The conformance suite: what every backend of [`Store`] and [`Records`] must do.

use std::sync::Arc;

use bytes::Bytes;

use super::faults::{Fault, Faults, Faulty, Operation};
use super::{
    At, BlockKey, BlockRow, BucketKey, BucketRow, FrameRow, Order, Reach, Record, Records, Space, Store,
    StoreErrorKind, TapeId,
};
use crate::market::{Bucket, Kind, Nanos, Symbol};

const T0: i64 = 1_704_292_200_000_000_000;

fn frame(tape: u64, seq: u64, body: &'static str) -> FrameRow {
    FrameRow { tape: TapeId(tape), seq, body: Bytes::from_static(body.as_bytes()) }
}

async fn seqs(
    store: &dyn Store,
    tape: u64,
    range: std::ops::RangeInclusive<u64>,
    bytes_max: usize,
) -> Vec<u64> {
    let frames = store.frames(TapeId(tape), range, bytes_max, At::Here).await.unwrap();
    assert!(frames.iter().all(|frame| frame.tape == TapeId(tape)));
    frames.iter().map(|frame| frame.seq).collect()
}

/// What becomes of other bytes for a seq that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherBytes {
    /// They are refused.
    Refused,
    /// The backend does not look: one of the two stays.
    Unnoticed,
}

/// Everything a [`Store`] promises. `make` answers a new empty store at each call.
pub(crate) async fn store<S: Store>(mut make: impl AsyncFnMut() -> Arc<S>, other: OtherBytes) {
    appends(&*make().await, other).await;
    pages_of_frames(&*make().await).await;
    appends_that_are_unknown(make().await).await;
    pages_of_blocks(&*make().await).await;
    counts_of_blocks(&*make().await).await;
    directory(&*make().await).await;
    symbols(&*make().await).await;
}

async fn appends(store: &dyn Store, other: OtherBytes) {
    store.ping().await.unwrap();
    assert!(seqs(store, 7, 1..=u64::MAX, usize::MAX).await.is_empty(), "an unknown tape is an empty list");
    store.append(frame(7, 1, "one"), Reach::Region).await.unwrap();
    store.append(frame(7, 1, "one"), Reach::Region).await.unwrap();
    store.append(frame(7, 1, "one"), Reach::Home).await.unwrap();
    if other == OtherBytes::Refused {
        let error = store.append(frame(7, 1, "other"), Reach::Region).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
    }
    store.append(frame(8, 1, "other"), Reach::All).await.unwrap();
    let stored = store.frames(TapeId(7), 1..=1, usize::MAX, At::Home).await.unwrap();
    assert_eq!(stored, [frame(7, 1, "one")]);
    // The same frame and another for one seq, at once: one of the two bodies wins, repeats agree.
    let (a, b, c) = tokio::join!(
        store.append(frame(9, 1, "a"), Reach::Region),
        store.append(frame(9, 1, "b"), Reach::Region),
        store.append(frame(9, 1, "a"), Reach::Region),
    );
    if other == OtherBytes::Refused {
        assert_eq!(a.is_ok(), c.is_ok());
        assert_ne!(a.is_ok(), b.is_ok());
    } else {
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
    }
    let stored = store.frames(TapeId(9), 1..=1, usize::MAX, At::Here).await.unwrap();
    assert!(stored == [frame(9, 1, "a")] || stored == [frame(9, 1, "b")], "{stored:?}");
}

async fn pages_of_frames(store: &dyn Store) {
    for seq in [5, 1, 300, 3, 2, 257] {
        store.append(frame(7, seq, "0123456789"), Reach::Region).await.unwrap();
        store.append(frame(6, seq + 1, "x"), Reach::Region).await.unwrap();
    }
    assert_eq!(seqs(store, 7, 1..=u64::MAX, usize::MAX).await, [1, 2, 3, 5, 257, 300]);
    assert_eq!(seqs(store, 7, 2..=5, usize::MAX).await, [2, 3, 5]);
    assert_eq!(seqs(store, 7, 4..=4, usize::MAX).await, [0_u64; 0], "a hole");
    assert_eq!(seqs(store, 7, 301..=400, usize::MAX).await, [0_u64; 0]);
    assert_eq!(seqs(store, 7, 2..=300, 0).await, [2], "at least one");
    let page = seqs(store, 7, 1..=300, 1000).await;
    assert!(!page.is_empty() && page.is_sorted());
    #[expect(clippy::reversed_empty_ranges, reason = "an empty range is asked for on purpose")]
    let empty = seqs(store, 7, 5..=4, usize::MAX).await;
    assert!(empty.is_empty(), "an empty range");
}

async fn appends_that_are_unknown<S: Store>(store: Arc<S>) {
    let faults = Faults::default();
    let faulty = Faulty::new(Arc::clone(&store), faults.clone());
    faults.script(Operation::Append, [Fault::FailAfter, Fault::FailBefore, Fault::Refuse]);
    let kind = |result: Result<(), super::StoreError>| result.unwrap_err().kind;
    assert_eq!(kind(faulty.append(frame(7, 1, "one"), Reach::Region).await), StoreErrorKind::Unknown);
    assert_eq!(seqs(&*store, 7, 1..=9, usize::MAX).await, [1], "it was applied although unknown");
    assert_eq!(kind(faulty.append(frame(7, 2, "two"), Reach::Region).await), StoreErrorKind::Unknown);
    assert_eq!(kind(faulty.append(frame(7, 2, "two"), Reach::Region).await), StoreErrorKind::Refused);
    assert_eq!(seqs(&*store, 7, 1..=9, usize::MAX).await, [1]);
    faulty.append(frame(7, 1, "one"), Reach::Region).await.unwrap();
    faulty.append(frame(7, 2, "two"), Reach::Region).await.unwrap();
    assert_eq!(seqs(&*store, 7, 1..=9, usize::MAX).await, [1, 2]);
    assert_eq!(faults.calls(Operation::Append), 5);
}

fn symbol(text: &str) -> Symbol {
    text.parse().unwrap()
}

fn bucket_of(text: &str, kind: Kind, seconds: i64) -> BucketKey {
    BucketKey { symbol: symbol(text), bucket: Bucket::of(kind, Nanos(T0).plus(seconds * Nanos::SECOND)) }
}

fn block(kind: Kind, from: i64, to: i64, id: u8) -> BlockRow {
    let time = |seconds: i64| Nanos(T0).plus(seconds * Nanos::SECOND);
    let key = BlockKey { kind, first: time(from), id: [id; 16] };
    BlockRow { key, last: time(to), count: 3, body: Bytes::from(vec![id; 100]) }
}

async fn ids(
    store: &dyn Store,
    key: BucketKey,
    kind: Kind,
    (from, to): (i64, i64),
    after: Option<BlockKey>,
    bytes_max: usize,
) -> (Vec<u8>, bool) {
    let span = Nanos(T0).plus(from * Nanos::SECOND)..=Nanos(T0).plus(to * Nanos::SECOND);
    let page = store.blocks(key, kind, span, after, bytes_max).await.unwrap();
    (page.blocks.iter().map(|block| block.key.id[0]).collect(), page.more)
}

async fn pages_of_blocks(store: &dyn Store) {
    let key = bucket_of("AAPL", Kind::Trade, 0);
    let all = (0, 3600);
    assert_eq!(ids(store, key, Kind::Trade, all, None, usize::MAX).await, (vec![], false));
    // Two with one first time, one that begins early and reaches far, one of another kind.
    let rows = vec![
        block(Kind::Trade, 20, 30, 4),
        block(Kind::Trade, 10, 12, 2),
        block(Kind::Trade, 10, 11, 3),
        block(Kind::Trade, 5, 100, 1),
        block(Kind::Quote, 10, 12, 9),
    ];
    store.put_blocks(3, 5, vec![(key, rows.clone())]).await.unwrap();
    store.put_blocks(3, 5, vec![(key, rows.clone())]).await.unwrap();
    assert_eq!(ids(store, key, Kind::Trade, all, None, usize::MAX).await, (vec![1, 2, 3, 4], false));
    assert_eq!(ids(store, key, Kind::Quote, all, None, usize::MAX).await, (vec![9], false));
    assert_eq!(ids(store, key, Kind::Trade, (12, 19), None, usize::MAX).await, (vec![1, 2], false));
    assert_eq!(ids(store, key, Kind::Trade, (100, 200), None, usize::MAX).await, (vec![1], false));
    assert_eq!(ids(store, key, Kind::Trade, (101, 200), None, usize::MAX).await, (vec![], false));
    assert_eq!(ids(store, key, Kind::Trade, (0, 4), None, usize::MAX).await, (vec![], false));
    // Paged one by one and two by two: the same, in the same order, ties too.
    for bytes_max in [0, 250] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let span = Nanos(T0)..=Nanos(T0).plus(Nanos::HOUR);
            let page = store.blocks(key, Kind::Trade, span, after, bytes_max).await.unwrap();
            after = page.blocks.last().map(|block| block.key);
            seen.extend(page.blocks);
            if !page.more {
                break;
            }
        }
        let mut expected = rows.clone();
        expected.retain(|block| block.key.kind == Kind::Trade);
        expected.sort_by_key(|block| block.key);
        assert_eq!(seen, expected, "pages of {bytes_max} bytes");
    }
    let other = bucket_of("AAPL", Kind::Trade, 7200);
    assert_eq!(ids(store, other, Kind::Trade, (0, 9000), None, usize::MAX).await, (vec![], false));
}

async fn counts_of_blocks(store: &dyn Store) {
    assert_eq!(store.block_count(3).await, Ok(0));
    let key = bucket_of("AAPL", Kind::Trade, 0);
    store.put_blocks(3, 2, vec![(key, vec![block(Kind::Trade, 1, 2, 1)])]).await.unwrap();
    store.put_blocks(4, 9, vec![]).await.unwrap();
    assert_eq!((store.block_count(3).await, store.block_count(4).await), (Ok(2), Ok(9)));
    store.put_blocks(3, 1, vec![(key, vec![block(Kind::Trade, 1, 2, 1)])]).await.unwrap();
    assert_eq!(store.block_count(3).await, Ok(2), "it never falls");
}

async fn directory(store: &dyn Store) {
    let hours: Vec<BucketKey> = (0..5).map(|hour| bucket_of("AAPL", Kind::Trade, hour * 3600)).collect();
    for (hour, key) in (0_i64..).zip(&hours) {
        let from = hour * 3600;
        let mut rows = vec![block(Kind::Trade, from, from + 1, 1)];
        if hour == 2 {
            rows.push(block(Kind::Quote, from, from + 1, 2));
        }
        store
            .put_blocks(0, 1, vec![(*key, rows), (bucket_of("AAPLW", Kind::Trade, from), vec![])])
            .await
            .unwrap();
    }
    let trade = 1_u16 << Kind::Trade.number();
    let row = |hour: usize| BucketRow {
        bucket: hours[hour].bucket,
        kinds: if hour == 2 { trade | 1 << Kind::Quote.number() } else { trade },
    };
    let (first, last) = (hours[0].bucket, hours[4].bucket);
    let aapl = symbol("AAPL");
    let up = store.buckets(aapl, first, last, Order::Ascending, 3).await.unwrap();
    assert_eq!(up, [row(0), row(1), row(2)]);
    let down = store.buckets(aapl, hours[1].bucket, hours[3].bucket, Order::Descending, 9).await.unwrap();
    assert_eq!(down, [row(3), row(2), row(1)]);
    assert!(store.buckets(symbol("AAP"), first, last, Order::Ascending, 9).await.unwrap().is_empty());
    assert!(store.buckets(aapl, first, last, Order::Ascending, 0).await.unwrap().is_empty());
}

async fn symbols(store: &dyn Store) {
    let put = async |name: &str, kind: Kind, from: i64, to: i64| {
        let rows = vec![block(kind, from, to, 1)];
        store.put_blocks(0, 1, vec![(bucket_of(name, kind, from), rows)]).await.unwrap();
    };
    for name in ["MSFT", "A", "AAPL", "AB"] {
        put(name, Kind::Trade, 10, 20).await;
    }
    put("AAPL", Kind::Quote, 5, 15).await;
    put("AAPL", Kind::Trade, 7200, 7300).await;
    let names = async |prefix: &str, after: Option<&str>, limit: usize| -> Vec<String> {
        let rows = store.symbols(prefix, after.map(symbol), limit).await.unwrap();
        rows.iter().map(|row| row.symbol.to_string()).collect()
    };
    assert_eq!(names("", None, 9).await, ["A", "AAPL", "AB", "MSFT"]);
    assert_eq!(names("A", None, 2).await, ["A", "AAPL"]);
    assert_eq!(names("A", Some("AAPL"), 9).await, ["AB"]);
    assert_eq!(names("M", Some("AAPL"), 9).await, ["MSFT"]);
    assert_eq!(names("A", Some("MSFT"), 9).await, [""; 0]);
    assert_eq!(names("Z", None, 9).await, [""; 0]);
    let row = store.symbols("AAPL", None, 1).await.unwrap()[0];
    assert_eq!(row.kinds, 1 << Kind::Trade.number() | 1 << Kind::Quote.number());
    assert_eq!(row.first, Nanos(T0).plus(5 * Nanos::SECOND));
    assert_eq!(row.last, Nanos(T0).plus(7300 * Nanos::SECOND));
}

fn record(key: &str, version: u64, body: &'static str) -> Record {
    Record { key: key.into(), version, body: Bytes::from_static(body.as_bytes()) }
}

/// Everything [`Records`] promise. `make` answers new empty ones at each call.
pub(crate) async fn records<R: Records>(mut make: impl AsyncFnMut() -> Arc<R>) {
    last_write_wins(&*make().await).await;
    compare_and_set(&*make().await).await;
    scans(&*make().await).await;
    writes_that_are_unknown(make().await).await;
}

async fn last_write_wins(records: &dyn Records) {
    let read = async || records.get(Space::Marks, "local", "3").await.unwrap();
    assert_eq!(read().await, None);
    records.put(Space::Marks, "local", record("3", 10, "ten")).await.unwrap();
    records.put(Space::Marks, "local", record("3", 10, "ten")).await.unwrap();
    records.put(Space::Marks, "local", record("3", 9, "nine")).await.unwrap();
    assert_eq!(read().await, Some(record("3", 10, "ten")), "an older one stays out");
    records.put(Space::Marks, "local", record("3", 10, "zzz")).await.unwrap();
    records.put(Space::Marks, "local", record("3", 10, "aaa")).await.unwrap();
    assert_eq!(read().await, Some(record("3", 10, "zzz")), "of one version the larger body");
    records.put(Space::Marks, "local", record("3", 11, "a")).await.unwrap();
    assert_eq!(read().await, Some(record("3", 11, "a")));
    let error = records.put_if(Space::Marks, "local", record("3", 12, "x"), 11).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
}

async fn compare_and_set(records: &dyn Records) {
    let put = async |version: u64, body: &'static str, expected: u64| {
        records.put_if(Space::Retired, "local", record("list", version, body), expected).await
    };
    assert_eq!(put(1, "one", 0).await, Ok(true));
    assert_eq!(put(1, "again", 0).await, Ok(false));
    assert_eq!(put(3, "three", 2).await, Ok(false));
    assert_eq!(put(2, "two", 1).await, Ok(true));
    let row = records.get(Space::Retired, "local", "list").await.unwrap();
    assert_eq!(row, Some(record("list", 2, "two")));
    for (version, expected) in [(5, 2), (2, 2), (0, u64::MAX)] {
        assert_eq!(put(version, "x", expected).await.unwrap_err().kind, StoreErrorKind::Invalid);
    }
    let error = records.put(Space::Retired, "local", record("list", 9, "x")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
}

async fn scans(records: &dyn Records) {
    for key in ["b", "a", "d", "c"] {
        records.put(Space::Tapes, "local", record(key, 1, "x")).await.unwrap();
        records.put(Space::Tapes, "other", record(key, 1, "y")).await.unwrap();
        records.put(Space::Marks, "local", record(key, 1, "z")).await.unwrap();
    }
    let keys = async |after: Option<&str>, limit: usize| -> Vec<String> {
        let rows = records.scan(Space::Tapes, "local", after, limit).await.unwrap();
        assert!(rows.iter().all(|row| row.body == "x"));
        rows.into_iter().map(|row| row.key).collect()
    };
    assert_eq!(keys(None, 9).await, ["a", "b", "c", "d"]);
    assert_eq!(keys(Some("b"), 9).await, ["c", "d"]);
    assert_eq!(keys(Some("bb"), 1).await, ["c"]);
    assert_eq!(keys(None, 0).await, [""; 0]);
    assert_eq!(records.scan(Space::Tapes, "loca", None, 9).await, Ok(vec![]));
}

async fn writes_that_are_unknown<R: Records>(records: Arc<R>) {
    let faults = Faults::default();
    let faulty = Faulty::new(Arc::clone(&records), faults.clone());
    faults.script(Operation::PutIf, [Fault::FailAfter, Fault::FailBefore]);
    let put = async |version: u64, expected: u64| {
        faulty.put_if(Space::Retired, "local", record("list", version, "mine"), expected).await
    };
    assert_eq!(put(1, 0).await.unwrap_err().kind, StoreErrorKind::Unknown);
    let row = records.get(Space::Retired, "local", "list").await.unwrap();
    assert_eq!(row, Some(record("list", 1, "mine")), "reading tells that it won");
    assert_eq!(put(2, 1).await.unwrap_err().kind, StoreErrorKind::Unknown);
    assert_eq!(put(2, 1).await, Ok(true));
    faults.script(Operation::Get, [Fault::FlipBit, Fault::Corrupt]);
    let row = faulty.get(Space::Retired, "local", "list").await.unwrap().unwrap();
    assert_ne!(row.body, "mine");
    let error = faulty.get(Space::Retired, "local", "list").await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
}
