//! The replicated store and the records: a write tells only what a local quorum told it, reads
//! repair, writes half arrive, arrive late, or lose their answer.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tapeline::market::Nanos;
use tapeline::store::{StoreError, TapeId};
use tapeline::tape::{Frame, GapRow, Mark, RetiredList, ScannedTape, TapeRow};

use crate::checks::Check;
use crate::world::{SHARDS, Sim, WALL};

pub const REPLICAS: usize = 3;
type Rows = BTreeMap<TapeId, BTreeMap<u64, Arc<Frame>>>;
type Answer = Box<dyn FnOnce(&mut Sim, Result<(), StoreError>)>;

/// Frames on replicas, three a region.
pub struct Replicas {
    rows: Vec<[Rows; REPLICAS]>,
    pub up: Vec<[bool; REPLICAS]>,
    writes: BTreeMap<u64, Write>,
    last_write: u64,
}

struct Write {
    landed: u8,
    answer: Option<Answer>,
}

impl Replicas {
    pub fn new(regions: usize) -> Self {
        Self {
            rows: (0..regions).map(|_| Default::default()).collect(),
            up: vec![[true; REPLICAS]; regions],
            writes: BTreeMap::new(),
            last_write: 0,
        }
    }

    /// On how many replicas of a region a frame is.
    pub fn copies(&self, region: usize, tape: TapeId, seq: u64) -> usize {
        let has = |rows: &&Rows| rows.get(&tape).is_some_and(|frames| frames.contains_key(&seq));
        self.rows[region].iter().filter(has).count()
    }

    /// Removes frames from all replicas of a region.
    pub fn unlink(&mut self, region: usize, gone: &[(TapeId, u64)]) {
        for rows in &mut self.rows[region] {
            for (tape, seq) in gone {
                if let Some(frames) = rows.get_mut(tape) {
                    frames.remove(seq);
                }
            }
        }
    }

    /// What one replica of a region has.
    pub fn on_disk(&self, region: usize) -> impl Iterator<Item = (TapeId, u64)> + '_ {
        let rows = self.rows[region][0].iter();
        rows.flat_map(|(tape, frames)| frames.keys().map(move |seq| (*tape, *seq)))
    }
}

impl Sim {
    /// Appends a frame at a quorum of a region. `answer` is called once.
    pub fn write(
        &mut self,
        region: usize,
        frame: Arc<Frame>,
        answer: impl FnOnce(&mut Self, Result<(), StoreError>) + 'static,
    ) {
        self.replicas.last_write += 1;
        let id = self.replicas.last_write;
        self.replicas.writes.insert(id, Write { landed: 0, answer: Some(Box::new(answer)) });
        self.at(1_000, move |sim| sim.answer_write(id, Err(StoreError::unknown("no answer in time"))));
        if self.knobs.embedded {
            self.write_disk(id, frame);
            return;
        }
        let luck = self.rng.range(0, 99);
        if luck < 8 {
            return; // Never reached a coordinator.
        }
        let regions = self.regions();
        let everywhere: Vec<(usize, usize)> =
            (0..regions).flat_map(|region| (0..REPLICAS).map(move |replica| (region, replica))).collect();
        // The coordinator died after one replica, and left no hint.
        let only = (luck < 14).then(|| self.rng.pick(&everywhere));
        // The whole attempt is stuck in the network.
        let late = if luck < 20 { self.rng.pick(&[0, 0, 0, 3_000, 25_000]) } else { 0 };
        // The coordinator died after the local quorum: the other region never gets it.
        let home_only = self.rng.chance(self.knobs.lost);
        let far_only = self.far_only > 0 && self.rng.chance(self.far_only);
        for (at, replica) in everywhere {
            if far_only && at == region {
                continue;
            }
            if only.is_some_and(|only| only != (at, replica)) || (home_only && at != region) {
                continue;
            }
            let delay = if self.rng.chance(5) {
                self.rng.pick(&[2_000, 15_000, 60_000])
            } else if at == region {
                late + self.rng.range(1, 30)
            } else {
                late + self.rng.range(30, 250)
            };
            let frame = Arc::clone(&frame);
            self.at(delay, move |sim| sim.land(id, region, (at, replica), frame, 0));
        }
    }

    fn land(&mut self, id: u64, from: usize, to: (usize, usize), frame: Arc<Frame>, tries: u32) {
        if !self.replicas.up[to.0][to.1] || (self.cut && to.0 != from) {
            if tries < 40 {
                let delay = self.rng.pick(&[500, 5_000, 20_000]);
                self.at(delay, move |sim| sim.land(id, from, to, frame, tries + 1)); // A hint is replayed.
            }
            return;
        }
        if self.has_expired(&frame) {
            return;
        }
        self.replicas.rows[to.0][to.1].entry(frame.tape).or_default().insert(frame.seq, frame);
        if to.0 != from {
            return;
        }
        let Some(write) = self.replicas.writes.get_mut(&id) else { return };
        write.landed += 1;
        if write.landed == 2 && self.rng.chance(97) {
            let delay = self.rng.range(0, 5);
            self.at(delay, move |sim| sim.answer_write(id, Ok(())));
        }
    }

    /// One disk: durable or failing; a failed write may be there or not.
    fn write_disk(&mut self, id: u64, frame: Arc<Frame>) {
        let bad = self.disk_bad;
        let delay = self.rng.range(1, 12);
        let (boot, survives) = (self.nodes[0].boot, self.rng.chance(50));
        if !bad || self.rng.chance(30) {
            self.at(delay, move |sim| {
                // What the process had not handed to the disk when it was killed is gone.
                let killed = sim.nodes[0].boot != boot || !sim.nodes[0].up;
                if killed && !survives {
                    return;
                }
                for replica in 0..REPLICAS {
                    let rows = &mut sim.replicas.rows[0][replica];
                    rows.entry(frame.tape).or_default().insert(frame.seq, Arc::clone(&frame));
                }
            });
        }
        let result = if bad { Err(StoreError::refused("the disk is full")) } else { Ok(()) };
        self.at(delay + 1, move |sim| sim.answer_write(id, result));
    }

    fn answer_write(&mut self, id: u64, result: Result<(), StoreError>) {
        let answer = self.replicas.writes.get_mut(&id).and_then(|write| write.answer.take());
        if let Some(answer) = answer {
            answer(self, result);
        }
    }

    fn has_expired(&self, frame: &Frame) -> bool {
        let sealed = self.ledger.sealed_at.get(&(frame.tape, frame.seq)).copied().unwrap_or(self.t);
        !self.knobs.embedded && self.t - sealed > self.knobs.frame_ttl_ms
    }

    /// Frames at a quorum of a region, asked from another perhaps; `None` where it cannot answer.
    /// What two replicas do not agree on is repaired before the answer.
    pub fn read(
        &mut self,
        region: usize,
        from: usize,
        tape: TapeId,
        seqs: &RangeInclusive<u64>,
        bytes_max: usize,
    ) -> Option<Vec<Arc<Frame>>> {
        assert!(seqs.start() <= seqs.end(), "a read of {seqs:?}");
        let up: Vec<usize> = (0..REPLICAS).filter(|replica| self.replicas.up[region][*replica]).collect();
        if up.len() < 2 || (self.cut && region != from) {
            return None;
        }
        let skipped = if up.len() == 3 { self.rng.index(3) } else { REPLICAS };
        let mut found: BTreeMap<u64, Arc<Frame>> = BTreeMap::new();
        let asked: Vec<usize> = up.into_iter().filter(|replica| *replica != skipped).collect();
        for replica in &asked {
            if let Some(frames) = self.replicas.rows[region][*replica].get(&tape) {
                found.extend(frames.range(seqs.clone()).map(|(seq, frame)| (*seq, Arc::clone(frame))));
            }
        }
        found.retain(|_, frame| !self.has_expired(frame));
        for replica in asked {
            let frames = self.replicas.rows[region][replica].entry(tape).or_default();
            for (seq, frame) in &found {
                frames.entry(*seq).or_insert_with(|| Arc::clone(frame));
            }
        }
        let mut bytes = 0;
        let mut answer = Vec::new();
        for frame in found.into_values() {
            bytes += frame.memory();
            if !answer.is_empty() && bytes > bytes_max {
                break;
            }
            answer.push(frame);
        }
        Some(answer)
    }
}

/// A registry row with its states, each visible in a region from a time on.
struct Registered {
    region: usize,
    states: Vec<(TapeRow, u64, [u64; 2])>,
}

/// A state of a retired list.
struct ListVersion {
    version: u64,
    list: RetiredList,
    visible: [u64; 2],
}

/// Registry, retired lists, marks, gaps.
#[derive(Default)]
pub struct Records {
    registry: BTreeMap<TapeId, Registered>,
    lists: [Vec<ListVersion>; 2],
    /// The list's row was lost: there is none until it is begun again.
    lost: [bool; 2],
    /// What was ever retired, for who knows everything: tape -> (region, list, k, progress).
    pub ever_retired: BTreeMap<(TapeId, u64), (usize, u64, tapeline::tape::Progress)>,
    /// When an entry was dropped.
    dropped: BTreeMap<(TapeId, u64), u64>,
    marks: BTreeMap<(usize, u8), Vec<Mark>>,
    mark_written: BTreeMap<(usize, u8), u64>,
    pub gaps: [Vec<GapRow>; 2],
}

impl Sim {
    /// The row is durable in its region now, and seen in each region some time later.
    pub fn put_tape_row(&mut self, region: usize, tape: TapeId, row: TapeRow) {
        let own = self.t + self.rng.range(1, 20);
        let other = self.t + self.rng.pick(&[200, 2_000, 8_000, 8_000, 40_000]);
        let visible = if region == 0 { [own, other] } else { [other, own] };
        self.trace(tape, || format!("row at {region}, seen elsewhere at {other}: {row:?}"));
        let states =
            self.records.registry.entry(tape).or_insert_with(|| Registered { region, states: Vec::new() });
        states.states.push((row, self.t, visible));
        self.ledger.home.insert(tape, region);
    }

    pub fn is_registered(&self, tape: TapeId) -> bool {
        self.records.registry.contains_key(&tape)
    }

    /// Whether a tape's row is still there.
    pub fn is_alive_row(&self, tape: TapeId) -> bool {
        let written = self.records.registry.get(&tape).and_then(|row| row.states.last()).map(|state| state.1);
        written.is_some_and(|written| self.t - written <= self.knobs.row_ttl_ms)
    }

    pub fn scan_tapes(&self, of: usize, from: usize) -> Vec<ScannedTape> {
        let mut rows = Vec::new();
        for (tape, registered) in self.records.registry.iter().filter(|(_, row)| row.region == of) {
            if !self.is_alive_row(*tape) {
                continue;
            }
            let seen = registered.states.iter().rev().find(|(_, _, visible)| visible[from] <= self.t);
            if let Some((row, written, _)) = seen {
                let written = Nanos(WALL + i64::try_from(*written).unwrap() * 1_000_000);
                rows.push(ScannedTape { tape: *tape, row: row.clone(), written });
            }
        }
        rows
    }

    /// Whether an entry was dropped so long ago that no node has it any more.
    pub fn is_dropped(&self, tape: TapeId, list: u64) -> bool {
        self.records.dropped.get(&(tape, list)).is_some_and(|at| self.t - at > 20_000)
    }

    /// A region's retired list as another region sees it, or as it is at home.
    pub fn read_list(&self, of: usize, from: usize, at_home: bool) -> (u64, RetiredList) {
        if self.records.lost[of] && (of == from || at_home) {
            return (0, RetiredList::default());
        }
        let seen = |state: &&ListVersion| at_home || of == from || state.visible[from] <= self.t;
        let state = self.records.lists[of].iter().rev().find(seen);
        state.map_or((0, RetiredList::default()), |state| (state.version, state.list.clone()))
    }

    /// Compare-and-set of a region's list.
    pub fn put_list(&mut self, region: usize, list: RetiredList, expected: u64) -> bool {
        let lost = self.records.lost[region];
        let current = self.records.lists[region].last().filter(|_| !lost);
        if current.map_or(0, |state| state.version) != expected {
            return false;
        }
        if let Some(state) = current.filter(|state| state.list.id == list.id) {
            for (tape, entry) in &state.list.entries {
                if list.entries.get(tape).is_some_and(|new| new != entry) {
                    let what = format!("entry of {tape} was changed");
                    self.fail(Check::RetiredList, what);
                    return true;
                }
            }
        }
        if let Some(state) = self.records.lists[region].last().filter(|state| state.list.id == list.id) {
            let dropped = state.list.entries.keys().filter(|tape| !list.entries.contains_key(*tape));
            let at = self.t;
            let dropped: Vec<TapeId> = dropped.copied().collect();
            dropped.iter().for_each(|tape| self.trace(*tape, || format!("entry dropped at {region}")));
            self.records.dropped.extend(dropped.into_iter().map(|tape| ((tape, list.id), at)));
        }
        for (tape, entry) in &list.entries {
            let name = (*tape, list.id);
            let known = self.records.ever_retired.insert(name, (region, entry.k, entry.progress.clone()));
            if known.as_ref().is_none_or(|(_, k, _)| *k != entry.k) {
                self.trace(*tape, || format!("retired at {region}: {entry:?}"));
            }
            if known.is_none() {
                self.counts.retired += 1;
            }
        }
        let own = self.t + self.rng.range(1, 300);
        let other = self.t + self.rng.pick(&[200, 1_000, 3_000, 8_000]) + self.knobs.slow_list_ms;
        let visible = if region == 0 { [own, other] } else { [other, own] };
        self.records.lost[region] = false;
        self.records.lists[region].push(ListVersion { version: expected + 1, list, visible });
        true
    }

    /// The list of a region is lost.
    pub fn lose_list(&mut self, region: usize) {
        self.records.lost[region] = true;
    }

    /// On one disk the mark that was written last wins; among replicas an old one may be read after
    /// a newer one.
    pub fn put_mark(&mut self, region: usize, shard: u8, mark: Mark, written: u64) {
        self.counts.marks += 1;
        let last = self.records.mark_written.entry((region, shard)).or_default();
        if self.knobs.embedded && written < *last {
            return;
        }
        *last = written;
        self.records.marks.entry((region, shard)).or_default().push(mark);
    }

    /// A mark of a shard: the last that landed, or one of the last few (any is as good).
    pub fn read_mark(&mut self, region: usize, shard: u8, back: u64) -> Option<Mark> {
        let back = usize::try_from(self.rng.range(0, back)).unwrap();
        let marks = self.records.marks.get(&(region, shard))?;
        marks.get(marks.len().saturating_sub(1 + back)).or(marks.first()).cloned()
    }

    pub fn read_marks(&mut self, region: usize, back: u64) -> BTreeMap<u8, Mark> {
        (0..SHARDS).filter_map(|shard| Some((shard, self.read_mark(region, shard, back)?))).collect()
    }
}
