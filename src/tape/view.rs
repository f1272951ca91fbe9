//! A node's view of all tapes: follower, tail and memory of requests, changed in one step.
//!
//! The Position, the tail's contents and the memory of requests always agree, because a frame
//! enters all three before a call returns. Who holds the view (under one lock) may therefore take
//! a snapshot of the tail and the Position it reflects together: a keeper its blocks and mark, a
//! hub its cursor, a reader its tick list.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::follower::{Follower, FollowerEffect, ReadId, ScannedTape};
use super::frame::{Frame, Region};
use super::gaps::GapRow;
use super::marks::Mark;
use super::position::Position;
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
}

impl Default for ViewRules {
    fn default() -> Self {
        Self { release_by_every_mark: true }
    }
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
}

impl View {
    /// A view that knows nothing. `shards` is the number of shards that marks are kept for.
    #[must_use]
    pub const fn new(follower: Follower, tail: Tail, requests: RequestMemory, shards: u8) -> Self {
        Self {
            follower,
            tail,
            requests,
            rules: ViewRules { release_by_every_mark: true },
            shards,
            marks: BTreeMap::new(),
            covered: BTreeMap::new(),
            delivered: Vec::new(),
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

    /// See [`Follower::boot`]. `marks` has the marks of the shards that have one.
    pub fn boot(&mut self, lists: Vec<(Region, u64, RetiredList)>, marks: BTreeMap<u8, Mark>, now: Now) {
        let position = |shard| marks.get(&shard).map(|mark| mark.position.clone()).unwrap_or_default();
        let positions: Vec<Position> = (0..self.shards).map(position).collect();
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

    /// The most that a mark written now, after blocks of everything in the tail, may cover.
    #[must_use]
    pub fn mark_position(&self) -> Position {
        let own = |tape| self.follower.own_progress(tape).cloned().unwrap_or_default();
        self.tail.limit(self.follower.position(), own)
    }

    /// See [`Tail::snapshot`]. To be called before blocks are read (I7).
    ///
    /// # Errors
    /// [`CatchingUp`] where the tail has shed frames that no mark covers.
    pub fn snapshot(&self, series: Series) -> Result<Snapshot, CatchingUp> {
        self.tail.snapshot(series)
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

    /// Up to which seq a tape may be unlinked where it is old enough: the dense prefix that every
    /// shard's mark covers. 0 where a shard has no mark.
    #[must_use]
    pub fn released(&self, tape: TapeId) -> u64 {
        let reach = |shard: u8| {
            let progress = self.marks.get(&shard).map(|mark| self.follower.progress(&mark.position, tape));
            progress.map_or(0, |progress| progress.voids.first().copied().unwrap_or(progress.next) - 1)
        };
        let reaches = (0..self.shards).map(reach);
        let released = if self.rules.release_by_every_mark { reaches.min() } else { reaches.max() };
        released.unwrap_or(0)
    }

    fn settle(&mut self, now: Now) {
        for frame in self.follower.take_applied() {
            self.tail.apply(Arc::clone(&frame), now.mono);
            self.delivered.push(self.requests.deliver(&frame, now.mono));
        }
    }
}
