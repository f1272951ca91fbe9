//! A node's view of all tapes: follower, tail and memory of requests, changed in one step.
//!
//! The Position, the tail's contents and the memory of requests always agree, because a frame
//! enters all three before a call returns. Who holds the view (under one lock) may therefore take
//! a snapshot of the tail and the Position it reflects together: a keeper its blocks and mark, a
//! hub its cursor, a reader its tick list.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use super::follower::{Follower, FollowerEffect, ReadId, ScannedTape};
use super::frame::{Frame, Region};
use super::gaps::GapRow;
use super::marks::Mark;
use super::position::{Position, Progress};
use super::requests::{Delivery, RequestMemory};
use super::retired::RetiredList;
use super::tail::{CatchingUp, Covered, Snapshot, Tail};
use super::time::Now;
use crate::market::Series;
use crate::store::TapeId;

/// The view's rules. All hold in production; the simulator breaks them one by one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct ViewRules {
    /// A tape may be unlinked only as far as every mark covers it.
    pub release_by_every_mark: bool,
    /// A void holds back no frame after it.
    pub release_past_voids: bool,
}

impl Default for ViewRules {
    fn default() -> Self {
        Self { release_by_every_mark: true, release_past_voids: true }
    }
}

/// Why the tail cannot be read: it may lack what no block holds either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The tapes were not followed to their ends since the start.
    #[error("the node has just started and reads its tapes")]
    Starting,
    /// The tail has shed what no mark covers.
    #[error(transparent)]
    CatchingUp(#[from] CatchingUp),
    /// A frame that no mark covers is damaged.
    #[error("{0}")]
    Damaged(String),
    /// A frame that no mark covers is a newer program's.
    #[error("{0}")]
    Newer(String),
}

/// Follower, tail and memory of requests of a node.
pub struct View {
    follower: Follower,
    tail: Tail,
    requests: RequestMemory,
    rules: ViewRules,
    shards: u8,
    marks: BTreeMap<u8, Mark>,
    covered: BTreeMap<u8, Covered>,
    delivered: Vec<Delivery>,
    /// Every tape was followed to its end, at least once.
    caught_up: bool,
    /// Of tapes with a frame that cannot be read: the lowest seq it may have, and why not.
    unreadable: BTreeMap<TapeId, (u64, Unreadable)>,
}

impl View {
    /// A view that knows nothing. `shards` is the number of shards that marks are kept for.
    #[must_use]
    pub const fn new(follower: Follower, tail: Tail, requests: RequestMemory, shards: u8) -> Self {
        Self {
            follower,
            tail,
            requests,
            rules: ViewRules { release_by_every_mark: true, release_past_voids: true },
            shards,
            marks: BTreeMap::new(),
            covered: BTreeMap::new(),
            delivered: Vec::new(),
            caught_up: false,
            unreadable: BTreeMap::new(),
        }
    }

    /// The same with broken rules.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_rules(mut self, rules: ViewRules) -> Self {
        self.rules = rules;
        self
    }

    /// The follower, to ask.
    #[must_use]
    pub const fn follower(&self) -> &Follower {
        &self.follower
    }

    /// The tail, to ask.
    #[must_use]
    pub const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The memory of requests, to ask.
    #[must_use]
    pub const fn requests(&self) -> &RequestMemory {
        &self.requests
    }

    /// The memory of requests, to keep: no node does so beyond a restart.
    #[doc(hidden)]
    pub const fn requests_mut(&mut self) -> &mut RequestMemory {
        &mut self.requests
    }

    /// See [`Follower::set_own`].
    pub const fn set_own(&mut self, tape: TapeId) {
        self.follower.set_own(tape);
    }

    /// See [`Follower::boot`]. `marks` has the marks of the shards that have one; it begins no further on
    /// than `before` either.
    pub fn boot(
        &mut self,
        lists: Vec<(Region, u64, RetiredList)>,
        marks: BTreeMap<u8, Mark>,
        before: Vec<Position>,
        now: Now,
    ) {
        let position = |shard| marks.get(&shard).map(|mark| mark.position.clone()).unwrap_or_default();
        let positions: Vec<Position> = (0..self.shards).map(position).chain(before).collect();
        self.follower.boot(lists, &positions, now);
        for (shard, mark) in marks {
            self.mark_read(shard, mark, now);
        }
        self.settle(now);
    }

    /// See [`Follower::accept`].
    pub fn accept(&mut self, frame: Arc<Frame>, now: Now) {
        self.follower.accept(frame, now);
        self.settle(now);
    }

    /// See [`Follower::read_done`].
    pub fn read_done(&mut self, id: ReadId, answer: Option<Vec<Arc<Frame>>>, now: Now) {
        self.follower.read_done(id, answer, now);
        self.settle(now);
    }

    /// See [`Follower::wrote_back`].
    pub fn wrote_back(&mut self, tape: TapeId, seq: u64, durable: bool, now: Now) {
        self.follower.wrote_back(tape, seq, durable, now);
    }

    /// See [`Follower::gap_put`].
    pub fn gap_put(&mut self, row: &GapRow, durable: bool, now: Now) {
        self.follower.gap_put(row, durable, now);
        self.settle(now);
    }

    /// See [`Follower::tapes_scanned`].
    pub fn tapes_scanned(&mut self, region: Region, answer: Option<Vec<ScannedTape>>, now: Now) {
        self.follower.tapes_scanned(region, answer, now);
    }

    /// See [`Follower::list_read`].
    pub fn list_read(&mut self, region: Region, answer: Option<(u64, RetiredList)>, now: Now) {
        self.follower.list_read(region, answer, now);
    }

    /// See [`Follower::list_put`].
    pub fn list_put(&mut self, written: Option<bool>, now: Now) {
        self.follower.list_put(written, now);
    }

    /// A shard's mark was read, or written after its blocks: what it covers may leave the tail.
    pub fn mark_read(&mut self, shard: u8, mark: Mark, now: Now) {
        let covered = self.follower.expand(&mark.position);
        self.tail.cover(shard, &covered);
        self.covered.insert(shard, covered);
        self.marks.insert(shard, mark);
        self.follower.marks_read(self.marks.values().map(|mark| mark.position.clone()).collect());
        let covered: Vec<Covered> = self.covered.values().cloned().collect();
        self.tail.trim(&covered, now.mono);
    }

    /// The marks that were read last.
    #[must_use]
    pub fn mark(&self, shard: u8) -> Option<&Mark> {
        self.marks.get(&shard)
    }

    /// What is to be done now: the follower's effects.
    pub fn poll(&mut self, now: Now) -> Vec<FollowerEffect> {
        let effects = self.follower.poll(now);
        self.settle(now);
        effects
    }

    /// What was followed since the last call, in order, for the live hub and the folds.
    pub fn take_delivered(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.delivered)
    }

    /// Gaps that were passed since the last call, in order, for the live hub.
    pub fn take_passed(&mut self) -> Vec<GapRow> {
        self.follower.take_passed()
    }

    /// The most that a mark of the shard may cover that is written now, after blocks of everything
    /// of the shard that waits in the tail.
    #[must_use]
    pub fn mark_position(&self, shard: u8) -> Position {
        let own = |tape| self.follower.own_progress(tape);
        let mut position =
            self.tail.limit(self.follower.position(), |tape| own(tape).cloned().unwrap_or_default());
        // What the mark that was read covers is in blocks, also where this node is not that far: a
        // mark that went back could cover less than what was unlinked since.
        for (tape, covered) in self.covered.get(&shard).into_iter().flatten() {
            let Some(known) = position.tapes.get(tape).or_else(|| own(*tape)) else { continue };
            let joined = known.join(covered);
            if joined != *known {
                position.tapes.insert(*tape, joined);
            }
        }
        position
    }

    /// A frame of a tape cannot be read: the lowest seq it may have, and why not. It is told until
    /// the tape is followed beyond it.
    pub fn tape_unreadable(&mut self, tape: TapeId, seq: u64, why: Unreadable) {
        self.unreadable.insert(tape, (seq, why));
    }

    /// Whether the tail and blocks together hold all that was followed, and all that was there
    /// when the node started.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn readable(&self) -> Result<(), Unreadable> {
        if let Some((_, why)) = self.unreadable.values().next() {
            return Err(why.clone());
        }
        if !self.caught_up {
            return Err(Unreadable::Starting);
        }
        Ok(self.tail.complete()?)
    }

    /// See [`Tail::snapshot`]. To be called before blocks are read (I7).
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn snapshot(&self, series: Series) -> Result<Snapshot, Unreadable> {
        self.readable()?;
        Ok(self.tail.snapshot(series)?)
    }

    /// See [`Tail::series_from`].
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn series_from(&self, from: Bound<Series>, limit: usize) -> Result<Vec<Series>, Unreadable> {
        self.readable()?;
        Ok(self.tail.series_from(from).take(limit).collect())
    }

    /// Shed frames to read and to give to [`Self::restore`]. See [`Tail::wanted`].
    #[must_use]
    pub fn wanted(&self) -> Option<(TapeId, RangeInclusive<u64>)> {
        self.tail.wanted()
    }

    /// See [`Tail::restore`].
    pub fn restore(&mut self, frame: Arc<Frame>, now: Now) {
        self.tail.restore(frame, now.mono);
    }

    /// Whether every shard's mark covers these frames: they may be unlinked where they are old
    /// enough. One by one: a void, which was never written, holds nothing back.
    #[must_use]
    pub fn is_released(&self, tape: TapeId, seqs: &[u64]) -> bool {
        let reach =
            |shard: u8| self.marks.get(&shard).map(|mark| self.follower.progress(&mark.position, tape));
        // The highest first: it is the one that is not covered yet.
        let covers = |reach: Option<Progress>| {
            reach.is_some_and(|progress| {
                let void = if self.rules.release_past_voids { None } else { progress.voids.first() };
                seqs.iter().rev().all(|seq| progress.covers(*seq) && void.is_none_or(|void| seq < void))
            })
        };
        let mut reaches = (0..self.shards).map(reach);
        if self.rules.release_by_every_mark { reaches.all(covers) } else { reaches.any(covers) }
    }

    fn settle(&mut self, now: Now) {
        for frame in self.follower.take_applied() {
            self.tail.apply(Arc::clone(&frame), now.mono);
            self.delivered.push(self.requests.deliver(&frame, now.mono));
        }
        self.caught_up = self.caught_up || self.follower.caught_up();
        self.unreadable.retain(|tape, (seq, _)| {
            self.tail.has_shed(*tape, *seq)
                || self.follower.own_progress(*tape).is_some_and(|own| own.next <= *seq)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::{Kind, Symbol};
    use crate::tape::fixtures::{at, frame, region};
    use crate::tape::{FollowerConfig, Mono, Progress, RequestConfig, TailConfig, TapeRow};

    fn view() -> View {
        let config = FollowerConfig::new(region("a"), vec![region("a")]);
        let tail = Tail::new(TailConfig { shards: 1, ..TailConfig::default() });
        let requests = RequestMemory::new(RequestConfig::default(), Mono(0));
        View::new(Follower::new(config, Box::new(|| 1), at(0)), tail, requests, 1)
    }

    fn rows(view: &View) -> Result<usize, Unreadable> {
        let series = Series { symbol: Symbol::parse(b"AAPL").unwrap(), kind: Kind::Trade };
        view.snapshot(series).map(|found| found.rows().count())
    }

    /// Answers what the view asks for at this time; reads are answered by `read`.
    fn serve(view: &mut View, ms: u64, read: impl Fn(RangeInclusive<u64>) -> Option<Vec<Arc<Frame>>>) {
        for effect in view.poll(at(ms)) {
            match effect {
                FollowerEffect::ScanTapes(of) => {
                    let row = TapeRow { low: 2, ..TapeRow::default() };
                    let row = ScannedTape { tape: TapeId(9), row, written: at(ms).wall };
                    view.tapes_scanned(of, Some(vec![row]), at(ms));
                }
                FollowerEffect::Read { id, seqs, .. } => view.read_done(id, read(seqs), at(ms)),
                _ => {}
            }
        }
    }

    /// What lies between is delivered, though a mark covers it.
    #[test]
    fn it_begins_no_further_on_than_it_is_told_to() {
        let at_seq = |next| {
            let mut position = Position::default();
            position.tapes.insert(TapeId(9), Progress::at(next));
            position
        };
        for (before, first) in [(vec![], 4), (vec![at_seq(2), at_seq(3)], 2), (vec![at_seq(6)], 4)] {
            let mut view = view();
            let marks = BTreeMap::from([(0, Mark { position: at_seq(4), ..Mark::default() })]);
            view.boot(Vec::new(), marks, before, at(0));
            for seq in 1..=5 {
                view.accept(frame(9, seq, seq - 1, &["AAPL"]), at(1));
            }
            let delivered: Vec<u64> = view.take_delivered().iter().map(|of| of.frame.seq).collect();
            assert_eq!(delivered, (first..=5).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_is_read_before_every_tape_was_followed_to_its_end() {
        let mut view = view();
        assert_eq!(rows(&view), Err(Unreadable::Starting));
        let all = [frame(9, 1, 0, &["AAPL"]), frame(9, 2, 1, &["AAPL"])];
        let here = |seqs: RangeInclusive<u64>| {
            Some(all.iter().filter(|frame| seqs.contains(&frame.seq)).cloned().collect())
        };
        for ms in 0..2_000 {
            serve(&mut view, ms, here);
            let told = rows(&view);
            assert!(told == Err(Unreadable::Starting) || told == Ok(2), "{told:?}");
        }
        assert_eq!(rows(&view), Ok(2));
        view.accept(frame(10, 1, 0, &["AAPL"]), at(2_001));
        assert_eq!(rows(&view), Ok(3), "a tape found later does not stop reads");
    }

    #[test]
    fn a_damaged_frame_that_no_mark_covers_is_an_error_until_it_is_passed() {
        let mut view = view();
        let first = frame(9, 1, 0, &["AAPL"]);
        for ms in 0..2_000 {
            let read = |seqs: RangeInclusive<u64>| seqs.contains(&1).then(|| vec![Arc::clone(&first)]);
            serve(&mut view, ms, read);
        }
        view.tape_unreadable(TapeId(9), 2, Unreadable::Damaged("frame 2 is damaged".into()));
        assert_eq!(rows(&view), Err(Unreadable::Damaged("frame 2 is damaged".into())));
        view.accept(frame(9, 2, 1, &["AAPL"]), at(2_001));
        for ms in 2_001..4_000 {
            serve(&mut view, ms, |_| Some(Vec::new()));
        }
        assert_eq!(rows(&view), Ok(2));
    }

    #[test]
    fn a_mark_never_goes_back() {
        let mut view = view();
        view.accept(frame(9, 1, 0, &["AAPL"]), at(0));
        let marked =
            |next| Position { tapes: [(TapeId(9), Progress::at(next))].into(), ..Position::default() };
        view.mark_read(0, Mark { position: marked(7), blocks: 1 }, at(1));
        assert_eq!(view.mark_position(0), marked(7), "this node has followed one frame so far");
        for seq in 2..=8 {
            view.accept(frame(9, seq, seq - 1, &["AAPL"]), at(2));
        }
        assert_eq!(view.mark_position(0), marked(9));
    }

    #[test]
    fn a_void_holds_no_frame_back() {
        let mut view = view();
        view.accept(frame(9, 1, 0, &["AAPL"]), at(0));
        let progress = Progress { next: 4, voids: [2].into() };
        let position = Position { tapes: [(TapeId(9), progress)].into(), ..Position::default() };
        view.mark_read(0, Mark { position, blocks: 1 }, at(1));
        assert!(view.is_released(TapeId(9), &[1, 3]));
        assert!(!view.is_released(TapeId(9), &[1, 2]), "written after all, and followed by nobody yet");
        assert!(!view.is_released(TapeId(9), &[3, 4]));
        assert!(!view.is_released(TapeId(8), &[1]));
    }
}
