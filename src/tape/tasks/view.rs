//! The view's task: polls tapes, fetches holes, finds new tapes, keeps the retired list.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::sealed::Sealed;
use crate::market::Nanos;
use crate::store::{At, Record, Records, Space, Store, StoreError, StoreErrorKind, TapeId};
use crate::tape::{
    CodecError, Delivery, FollowerEffect, Frame, GapRow, Mark, Now, Position, RETIRED_KEY, ReadId, Region,
    RetiredList, SHARDS, ScannedTape, TapeRow, Unreadable, View, WaitToken, parse_shard_key, parse_tape_key,
};

/// Rows of one page of a scan of records.
const SCAN_ROWS: usize = 1_000;
/// How often marks are read, and shed frames looked for.
const MARKS_MS: u64 = 5_000;

/// Both clocks.
pub type NowFn = Arc<dyn Fn() -> Now + Send + Sync>;

/// The view, shared by the writer, the view's own task, the keeper and the readers.
pub struct SharedView {
    view: RwLock<View>,
    now: NowFn,
    changed: watch::Sender<u64>,
    poke: Notify,
    listener: OnceLock<Listener>,
}

/// Takes gaps that are passed, and then what is delivered live, in order, in one step with the view's
/// change.
pub type Listener = Box<dyn Fn(&View, &[GapRow], &[Delivery]) + Send + Sync>;

impl SharedView {
    /// Reads.
    pub fn read<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.read())
    }

    /// Changes the view in one step, and wakes who waits for it, and the view's task.
    pub fn change<T>(&self, change: impl FnOnce(&mut View, Now) -> T) -> T {
        let answer = self.step(change);
        self.poke.notify_one();
        answer
    }

    fn step<T>(&self, change: impl FnOnce(&mut View, Now) -> T) -> T {
        let now = (self.now)();
        let (answer, passed, moved) = {
            let mut view = self.view.write();
            let answer = change(&mut view, now);
            let (passed, delivered) = (view.take_passed(), view.take_delivered());
            let moved = !passed.is_empty() || !delivered.is_empty();
            // Before anyone else sees the Position: what it covers has been heard of.
            if let Some(listener) = self.listener.get().filter(|_| moved) {
                listener(&view, &passed, &delivered);
            }
            (answer, passed, moved)
        };
        for gap in passed {
            tracing::error!(tape = %gap.tape, first = gap.first, last = gap.last, "frames are lost; history has a gap");
        }
        if moved {
            self.changed.send_modify(|count| *count += 1);
        }
        answer
    }

    /// Sets who takes what is delivered from now on; the first stays.
    pub fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// Waits until the view covers all that the token names; answers whether it does.
    pub async fn wait_for(&self, token: &WaitToken, deadline: Duration) -> bool {
        let mut changes = self.changed.subscribe();
        let covered = async {
            loop {
                changes.borrow_and_update();
                if self.read(|view| view.follower().covers(token)) {
                    return;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(deadline, covered).await.is_ok()
    }
}

/// What the task works with.
#[derive(Clone)]
pub struct ViewWorld {
    /// Where frames are.
    pub store: Arc<dyn Store>,
    /// Where registry, marks, lists and gaps are.
    pub records: Arc<dyn Records>,
    /// Opens what they hold.
    pub sealed: Sealed,
    /// The own region.
    pub region: Region,
    /// All regions.
    pub regions: Vec<Region>,
    /// Both clocks.
    pub now: NowFn,
}

impl ViewWorld {
    /// All rows of a part, opened.
    async fn scan(&self, space: Space, part: &str) -> Result<Vec<(Record, bytes::Bytes)>, StoreError> {
        let (mut rows, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.records.scan(space, part, after.as_deref(), SCAN_ROWS).await?;
            let full = page.len() == SCAN_ROWS;
            after = page.last().map(|record| record.key.clone());
            for record in page {
                let body = self.sealed.open_record(space, part, &record)?;
                rows.push((record, body));
            }
            if !full {
                return Ok(rows);
            }
        }
    }

    /// The registry of a region.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    pub async fn tapes(&self, region: Region) -> Result<Vec<ScannedTape>, StoreError> {
        let rows = self.scan(Space::Tapes, region.as_str()).await?;
        let scanned = |(record, body): (Record, bytes::Bytes)| {
            let tape = parse_tape_key(&record.key)
                .ok_or_else(|| damaged(Space::Tapes, &record.key, "its key names no tape"))?;
            let row = TapeRow::decode(&body).map_err(|error| undecoded(Space::Tapes, &record.key, &error))?;
            let micros = i64::try_from(record.version).unwrap_or(i64::MAX);
            Ok(ScannedTape { tape, row, written: Nanos(micros.saturating_mul(1_000)) })
        };
        rows.into_iter().map(scanned).collect()
    }

    /// The marks of a region, by shard.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    pub async fn marks(&self, region: Region) -> Result<BTreeMap<u8, Mark>, StoreError> {
        let rows = self.scan(Space::Marks, region.as_str()).await?;
        let mark = |(record, body): (Record, bytes::Bytes)| {
            let shard = parse_shard_key(&record.key)
                .ok_or_else(|| damaged(Space::Marks, &record.key, "its key names no shard"))?;
            let mark = Mark::decode(&body).map_err(|error| undecoded(Space::Marks, &record.key, &error))?;
            Ok((shard, mark))
        };
        rows.into_iter().map(mark).collect()
    }

    /// The gaps of the own region.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    pub async fn gaps(&self) -> Result<Vec<GapRow>, StoreError> {
        let rows = self.scan(Space::Gaps, self.region.as_str()).await?;
        let gap = |(record, body): (Record, bytes::Bytes)| {
            GapRow::decode(&body).map_err(|error| undecoded(Space::Gaps, &record.key, &error))
        };
        rows.into_iter().map(gap).collect()
    }

    async fn list(&self, region: Region) -> Result<(u64, RetiredList), StoreError> {
        self.list_of(region, self.records.get(Space::Retired, region.as_str(), RETIRED_KEY).await?)
    }

    fn list_of(&self, region: Region, record: Option<Record>) -> Result<(u64, RetiredList), StoreError> {
        let part = region.as_str();
        let Some(record) = record else { return Ok((0, RetiredList::default())) };
        let body = self.sealed.open_record(Space::Retired, part, &record)?;
        let list = RetiredList::decode(&body).map_err(|error| undecoded(Space::Retired, part, &error))?;
        Ok((record.version, list))
    }

    /// The list of a region that starts a node: as its own replicas have it, or where they do not
    /// answer as it has come here. An older state says nothing wrong: what it lacks is asked for where
    /// a Position has seen it (`behind`).
    async fn list_at_boot(&self, region: Region) -> Result<(u64, RetiredList), StoreError> {
        match self.list(region).await {
            Err(error) if region != self.region && error.kind == StoreErrorKind::Unknown => {
                tracing::warn!(%region, %error, "a region does not answer; its list of ended tapes is the one that has come here");
                // A scan reads here, and the row is the only one.
                let rows = self.records.scan(Space::Retired, region.as_str(), None, 1).await?;
                self.list_of(region, rows.into_iter().next())
            }
            read => read,
        }
    }

    async fn put_list(&self, list: &RetiredList, expected: u64) -> Result<bool, StoreError> {
        let part = self.region.as_str();
        let record = self.sealed.seal_record(Space::Retired, part, RETIRED_KEY, expected + 1, &list.encode());
        self.records.put_if(Space::Retired, part, record, expected).await
    }

    /// Puts a last-write-wins row of the own region at a version above the one that is there.
    ///
    /// # Errors
    /// `Unknown`, `Refused`.
    pub async fn put(&self, space: Space, key: &str, body: &[u8]) -> Result<(), StoreError> {
        let part = self.region.as_str();
        let micros = u64::try_from((self.now)().wall.0 / 1_000).unwrap_or_default();
        let seen = self.records.get(space, part, key).await?;
        let version = seen.map_or(micros, |seen| micros.max(seen.version + 1));
        self.records.put(space, part, self.sealed.seal_record(space, part, key, version, body)).await
    }
}

fn damaged(space: Space, key: &str, why: &str) -> StoreError {
    StoreError::corrupt(format!("record {} {key}: {why}", space.name()))
}

fn undecoded(space: Space, key: &str, error: &CodecError) -> StoreError {
    damaged(space, key, &error.to_string())
}

/// Boots a view from what is durable: the retired lists of all regions and the marks of the own. It
/// begins no further on than `before`. Answers also how many blocks the store counts for each shard, from
/// which its keeper goes on.
///
/// # Errors
/// `Unknown`, `Corrupt`: the node does not start.
pub async fn boot_view(
    mut view: View,
    world: &ViewWorld,
    before: Vec<Position>,
) -> Result<(Arc<SharedView>, Vec<u64>), StoreError> {
    let mut lists = Vec::new();
    for region in &world.regions {
        let (version, list) = world.list_at_boot(*region).await?;
        lists.push((*region, version, list));
    }
    let marks = world.marks(world.region).await?;
    let mut counts = Vec::new();
    for shard in 0..SHARDS {
        let kept = world.store.block_count(u16::from(shard)).await?;
        counts.push(kept);
        if let Some(mark) = marks.get(&shard).filter(|mark| kept < mark.blocks) {
            return Err(StoreError::corrupt(format!(
                "shard {shard} has {kept} blocks where its mark says {}: blocks were lost; restore the data folder from a backup",
                mark.blocks
            )));
        }
    }
    view.boot(lists, marks, before, (world.now)());
    let (changed, _) = watch::channel(0);
    let shared = SharedView {
        view: RwLock::new(view),
        now: Arc::clone(&world.now),
        changed,
        poke: Notify::new(),
        listener: OnceLock::new(),
    };
    Ok((Arc::new(shared), counts))
}

enum Done {
    Read(ReadId, TapeId, Frames),
    WroteBack(TapeId, u64, bool),
    GapPut(GapRow, bool),
    Scanned(Region, Option<Vec<ScannedTape>>),
    List(Region, Option<(u64, RetiredList)>),
    ListPut(Option<bool>),
    Marks(Option<BTreeMap<u8, Mark>>),
    Restored(TapeId, Frames),
}

/// Frames that were read up to the first that could not be, and why not; `first` is the lowest
/// seq that one may have.
struct Frames {
    frames: Vec<Arc<Frame>>,
    failed: Option<StoreError>,
    first: u64,
}

impl Frames {
    async fn read(
        world: &ViewWorld,
        tape: TapeId,
        seqs: RangeInclusive<u64>,
        bytes_max: usize,
        at: At,
    ) -> Self {
        let mut first = *seqs.start();
        let rows = match world.store.frames(tape, seqs, bytes_max, at).await {
            Ok(rows) => rows,
            Err(error) => return Self { frames: Vec::new(), failed: Some(error), first },
        };
        let mut frames = Vec::with_capacity(rows.len());
        for row in rows {
            first = row.seq;
            match world.sealed.open_frame(&row) {
                Ok(frame) => frames.push(Arc::new(frame)),
                Err(error) => return Self { frames, failed: Some(error), first },
            }
        }
        Self { frames, failed: None, first }
    }

    /// Why it failed, where asking again gives nothing else: it is damaged, or a newer program's.
    fn unreadable(&self) -> Option<&StoreError> {
        let stays = |kind| matches!(kind, StoreErrorKind::Corrupt | StoreErrorKind::Invalid);
        self.failed.as_ref().filter(|error| stays(error.kind))
    }
}

/// Runs the view's task until it is cancelled. What reads find that cannot be read is told to `tell`.
pub async fn run_view(
    shared: Arc<SharedView>,
    world: ViewWorld,
    tell: Arc<dyn Fn(&StoreError) + Send + Sync>,
    stop: CancellationToken,
) {
    let restore_at = Instant::now();
    let mut task = Task { shared, world, tell, jobs: JoinSet::new(), restoring: false, restore_at };
    let mut marks_at = Instant::now() + Duration::from_millis(MARKS_MS);
    loop {
        let now = (task.world.now)();
        for effect in task.shared.step(|view, now| view.poll(now)) {
            task.carry_out(effect);
        }
        task.restore();
        let due = task.shared.read(|view| view.follower().due());
        let due = Instant::now() + Duration::from_millis(due.since(now.mono).max(1));
        tokio::select! {
            () = stop.cancelled() => return,
            Some(done) = task.jobs.join_next() => task.done(done),
            () = task.shared.poke.notified() => {}
            () = sleep_until(due) => {}
            () = sleep_until(marks_at) => {
                marks_at = Instant::now() + Duration::from_millis(MARKS_MS);
                let world = task.world.clone();
                task.jobs.spawn(async move { Done::Marks(told(world.marks(world.region).await)) });
            }
        }
    }
}

struct Task {
    shared: Arc<SharedView>,
    world: ViewWorld,
    tell: Arc<dyn Fn(&StoreError) + Send + Sync>,
    jobs: JoinSet<Done>,
    restoring: bool,
    restore_at: Instant,
}

impl Task {
    fn carry_out(&mut self, effect: FollowerEffect) {
        let world = self.world.clone();
        match effect {
            FollowerEffect::Read { id, tape, seqs, bytes_max, at } => {
                self.jobs.spawn(async move {
                    Done::Read(id, tape, Frames::read(&world, tape, seqs, bytes_max, at).await)
                });
            }
            FollowerEffect::WriteBack { frame, reach } => {
                self.jobs.spawn(async move {
                    let done = world.store.append(world.sealed.seal_frame(&frame), reach).await;
                    // Other bytes of one and the same frame are there: a node with another version of the
                    // table's encoder has written it back. Bytes of a seq never change, so it is there.
                    let is_there = matches!(&done, Err(error) if error.kind == StoreErrorKind::Invalid);
                    Done::WroteBack(frame.tape, frame.seq, is_there || told(done).is_some())
                });
            }
            FollowerEffect::PutGap(gap) => {
                self.jobs.spawn(async move {
                    let done = world.put(Space::Gaps, &gap.key(), &gap.encode()).await;
                    Done::GapPut(gap, told(done).is_some())
                });
            }
            FollowerEffect::ScanTapes(region) => {
                self.jobs.spawn(async move { Done::Scanned(region, told(world.tapes(region).await)) });
            }
            FollowerEffect::ReadList(region) => {
                self.jobs.spawn(async move { Done::List(region, told(world.list(region).await)) });
            }
            FollowerEffect::PutList { list, expected } => {
                self.jobs.spawn(async move { Done::ListPut(told(world.put_list(&list, expected).await)) });
            }
            FollowerEffect::Forgot(tape) => tracing::info!(%tape, "an expired tape is no longer followed"),
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a job of the view ended early");
                return;
            }
        };
        match done {
            Done::Read(id, tape, read) => {
                self.tell_unreadable(tape, &read);
                // What was read before the frame that could not be is followed.
                let answer = match told(read.failed.map_or(Ok(()), Err)) {
                    None if read.frames.is_empty() => None,
                    _ => Some(read.frames),
                };
                self.shared.change(|view, now| view.read_done(id, answer, now));
            }
            Done::WroteBack(tape, seq, durable) => {
                self.shared.change(|view, now| view.wrote_back(tape, seq, durable, now));
            }
            Done::GapPut(gap, durable) => self.shared.change(|view, now| view.gap_put(&gap, durable, now)),
            Done::Scanned(region, rows) => {
                self.shared.change(|view, now| view.tapes_scanned(region, rows, now));
            }
            Done::List(region, list) => self.shared.change(|view, now| view.list_read(region, list, now)),
            Done::ListPut(written) => self.shared.change(|view, now| view.list_put(written, now)),
            Done::Marks(marks) => {
                for (shard, mark) in marks.into_iter().flatten() {
                    self.shared.change(|view, now| view.mark_read(shard, mark, now));
                }
            }
            Done::Restored(tape, read) => {
                self.restoring = false;
                self.tell_unreadable(tape, &read);
                if read.frames.is_empty() {
                    self.restore_at = Instant::now() + RESTORE_PAUSE;
                }
                let _ = told(read.failed.map_or(Ok(()), Err));
                for frame in read.frames {
                    self.shared.change(|view, now| view.restore(frame, now));
                }
            }
        }
    }

    /// A frame that cannot be read is told to health, and to who reads history, for it may be in no block.
    fn tell_unreadable(&self, tape: TapeId, read: &Frames) {
        if let Some(error) = read.unreadable() {
            (self.tell)(error);
            let (seq, what) = (read.first, error.detail.clone());
            let why = match error.kind {
                StoreErrorKind::Invalid => Unreadable::Newer(what),
                _ => Unreadable::Damaged(what),
            };
            self.shared.change(|view, _| view.tape_unreadable(tape, seq, why));
        }
    }

    /// Reads back what the tail has shed, where there is room again.
    fn restore(&mut self) {
        if self.restoring || Instant::now() < self.restore_at {
            return;
        }
        let Some((tape, seqs)) = self.shared.read(View::wanted) else { return };
        self.restoring = true;
        let world = self.world.clone();
        self.jobs.spawn(async move {
            Done::Restored(tape, Frames::read(&world, tape, seqs, RESTORE_BYTES, At::Here).await)
        });
    }
}

/// The most bytes of shed frames read back at once.
const RESTORE_BYTES: usize = 4 * 1024 * 1024;
/// Before shed frames are asked for again where none could be read.
const RESTORE_PAUSE: Duration = Duration::from_secs(1);

/// The answer, or nothing and a line in the log.
fn told<T>(answer: Result<T, StoreError>) -> Option<T> {
    answer
        .inspect_err(|error| tracing::warn!(error = %error, kind = ?error.kind, "the store did not answer"))
        .ok()
}
