//! The tasks over a store in memory that fails on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::market::RequestKey;
use crate::seal::Keyring;
use crate::store::faults::{Fault, Faults, Faulty, Operation};
use crate::store::memory::MemoryStore;
use crate::store::{At, FrameRow, Reach, Records, Space, Store, StoreError, StoreErrorKind, TapeId};
use crate::tape::fixtures::{at, frame, region, row};
use crate::tape::{
    BodyHash, Follower, FollowerConfig, Frame, Mono, Now, Progress, RETIRED_KEY, RequestConfig,
    RequestMemory, RetiredList, Rollover, SHARDS, Tail, TailConfig, TapeRow, Unreadable, View, Writer,
    WriterConfig, tape_key,
};

struct Node {
    store: Arc<MemoryStore>,
    faults: Faults,
    world: ViewWorld,
}

impl Node {
    /// A node of region `a`, of regions `a` and `b`; its clock is tokio's.
    fn new() -> Self {
        let (store, faults) = (Arc::new(MemoryStore::default()), Faults::default());
        let faulty = Arc::new(Faulty::new(Arc::clone(&store), faults.clone()));
        let started = Instant::now();
        let now: NowFn = Arc::new(move || {
            let since = u64::try_from(started.elapsed().as_millis()).unwrap();
            Now { mono: Mono(since), ..at(1_704_292_200_000 + since) }
        });
        let world = ViewWorld {
            store: Arc::clone(&faulty) as Arc<dyn Store>,
            records: faulty as Arc<dyn Records>,
            sealed: Sealed::new(Arc::new(Keyring::from_secret([7; 32]))),
            region: region("a"),
            regions: vec![region("a"), region("b")],
            now,
        };
        Self { store, faults, world }
    }

    async fn boot(&self) -> Result<Arc<SharedView>, StoreError> {
        let ViewWorld { region, regions, now, .. } = &self.world;
        let now = now();
        let follower =
            Follower::new(FollowerConfig::new(*region, regions.clone()), Box::new(rand::random), now);
        let tail = Tail::new(TailConfig { bytes_max: 1 << 20, keep_ms: 60_000, shards: SHARDS });
        let requests = RequestMemory::new(RequestConfig { keep_ms: 60_000, bytes_max: 1 << 20 }, now.mono);
        let view = View::new(follower, tail, requests, SHARDS);
        boot_view(view, &self.world, Vec::new()).await.map(|(view, _)| view)
    }

    fn writer(&self, view: &Arc<SharedView>) -> WriterHandle {
        let config = WriterConfig { rollover: Some(Rollover::default()), ..WriterConfig::default() };
        let name = ("n1".to_owned(), String::new());
        let writer = Writer::new(self.world.region, name, Box::new(rand::random), config, (self.world.now)());
        let world = WriterWorld {
            store: Arc::clone(&self.world.store),
            records: Arc::clone(&self.world.records),
            sealed: self.world.sealed.clone(),
            region: self.world.region.to_string(),
            now: Arc::clone(&self.world.now),
            view: Arc::clone(view),
            push: None,
        };
        spawn_writer(writer, world)
    }
}

async fn append(writer: &WriterHandle, number: u8) -> Result<Appended, AppendError> {
    append_to(writer, number, Reach::Region).await
}

async fn append_to(writer: &WriterHandle, number: u8, reach: Reach) -> Result<Appended, AppendError> {
    let (request, body) = (RequestKey([number; 16]), BodyHash([number; 16]));
    let rows = vec![row("AAPL", u32::from(number))];
    let appending = writer.append(request, body, false, false, reach, rows);
    tokio::time::timeout(Duration::from_secs(60), appending).await.expect("an answer within a minute")
}

/// Appends for all regions, and waits until it is known whether each has it.
async fn is_everywhere(writer: &WriterHandle, number: u8) -> bool {
    append_to(writer, number, Reach::All).await.unwrap().everywhere.unwrap().await
}

/// One partition takes nothing, others do: what was sent there is acknowledged from another tape, once,
/// and that tape is the node's own from then on.
#[tokio::test(start_paused = true)]
async fn a_partition_that_takes_nothing_is_left() {
    let node = Node::new();
    let view = node.boot().await.unwrap();
    let writer = node.writer(&view);
    append(&writer, 1).await.unwrap();
    let old = TapeId(writer.status().tape);
    assert!(view.read(|view| view.follower().is_mine(old, &[])));
    node.faults.tape(old, Fault::FailBefore);
    let begun = Instant::now();
    let token = append(&writer, 2).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "it is acknowledged {:?} later", begun.elapsed());
    let new = TapeId(writer.status().tape);
    assert_ne!(new, old);
    assert!(view.wait_for(&token.position, Duration::from_secs(1)).await, "it is read at once");
    let live = view.read(|view| view.follower().live(region("a"), (node.world.now)().mono));
    assert!(live.contains(&new), "it takes part in the region's work by its new tape: {live:?}");
    let mut rows = BTreeMap::<TapeId, usize>::new();
    for tape in [old, new] {
        for stored in node.store.frames(tape, 1..=u64::MAX, usize::MAX, At::Here).await.unwrap() {
            *rows.entry(tape).or_default() += node.world.sealed.open_frame(&stored).unwrap().rows.len();
        }
    }
    assert_eq!(rows, BTreeMap::from([(old, 1), (new, 1)]));
}

/// Who asks for all regions is answered when each has it, and others are not kept waiting; a region that
/// cannot be reached is told, and the same request again tells anew.
#[tokio::test(start_paused = true)]
async fn all_regions_are_waited_for_by_who_asks() {
    let node = Node::new();
    let writer = node.writer(&node.boot().await.unwrap());
    let calls = || node.faults.calls(Operation::AppendAll);
    assert!(append(&writer, 1).await.unwrap().everywhere.is_none());
    assert_eq!(calls(), 0);
    assert!(is_everywhere(&writer, 2).await);
    assert_eq!(calls(), 1, "the frame is written for all once");
    node.faults.script(Operation::AppendAll, [Fault::FailBefore]);
    assert!(!is_everywhere(&writer, 3).await);
    assert!(is_everywhere(&writer, 3).await);
    assert_eq!(calls(), 3);
    node.faults.script(Operation::AppendAll, [Fault::Delay(Duration::from_secs(30))]);
    let begun = Instant::now();
    let (all, ()) = tokio::join!(is_everywhere(&writer, 4), async {
        append(&writer, 5).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "it waited for what it did not ask for");
    });
    assert!(all && begun.elapsed() >= Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// A frame of a newer program holds up its tape, by name, and no other one.
#[tokio::test(start_paused = true)]
async fn a_tape_of_a_newer_program_is_held_up_by_name() {
    let node = Node::new();
    let (newer, key) = (TapeId(9), tape_key(TapeId(9)));
    let mut payload =
        Frame { tape: newer, seq: 1, fin: true, ..Frame::clone(&frame(9, 1, 0, &["AAPL"])) }.encode();
    payload[0] = 2;
    let body = Keyring::from_secret([7; 32]).seal(&frame_seal_key(newer, 1), &payload);
    node.store.append(FrameRow { tape: newer, seq: 1, body }, Reach::Region).await.unwrap();
    let row = node.world.sealed.seal_record(Space::Tapes, "a", &key, 1, &TapeRow::default().encode());
    node.store.put(Space::Tapes, "a", row).await.unwrap();
    let view = node.boot().await.unwrap();
    let (told, stop) = (Arc::new(parking_lot::Mutex::new(Vec::new())), CancellationToken::new());
    let tell = Arc::clone(&told);
    let corrupt = Arc::new(move |error: &StoreError| tell.lock().push((error.kind, error.detail.clone())));
    tokio::spawn(run_view(Arc::clone(&view), node.world.clone(), corrupt, stop.clone()));
    let writer = node.writer(&view);
    let appended = append(&writer, 1).await.unwrap();
    assert!(view.wait_for(&appended.position, Duration::from_secs(5)).await, "others go on");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (kind, what) = told.lock().first().cloned().unwrap();
    assert_eq!(kind, StoreErrorKind::Invalid);
    assert!(what.starts_with("frame 1 of tape 0000000000000009 is of version 2"), "{what}");
    let unreadable = view.read(|view| view.readable().unwrap_err());
    assert!(matches!(&unreadable, Unreadable::Newer(why) if *why == what), "{unreadable:?}");
    let next = view.read(|view| view.follower().position().tapes.get(&newer).map(|progress| progress.next));
    assert!(next.is_none_or(|next| next == 1), "it was passed: {next:?}");
    stop.cancel();
}

/// A region that does not answer keeps no node of another one from starting; the own one does.
#[tokio::test(start_paused = true)]
async fn a_region_that_is_away_at_a_start() {
    let node = Node::new();
    let list = RetiredList { id: 9, ..RetiredList::default() }.with(TapeId(5), Progress::at(8));
    let record = node.world.sealed.seal_record(Space::Retired, "b", RETIRED_KEY, 1, &list.encode());
    assert!(node.store.put_if(Space::Retired, "b", record, 0).await.unwrap());
    node.faults.script(Operation::Get, [Fault::Pass, Fault::FailBefore]);
    let view = node.boot().await.unwrap();
    let seen = view.read(|view| view.follower().position().seen.get(&region("b")).map(|seen| seen.list));
    assert_eq!(seen, Some(9), "what has come here of its list is known");
    node.faults.script(Operation::Get, [Fault::FailBefore]);
    assert_eq!(node.boot().await.map(drop).unwrap_err().kind, StoreErrorKind::Unknown);
    node.faults.script(Operation::Get, [Fault::Pass, Fault::Corrupt]);
    assert_eq!(node.boot().await.map(drop).unwrap_err().kind, StoreErrorKind::Corrupt);
}
