//! The tail: the ticks that were followed lately, in memory, by series.
//!
//! It holds every tick that the marks read before do not cover, and everything of the last two
//! lingers. Readers snapshot it before they read blocks, and it is trimmed only by marks that
//! were read, after the blocks they cover: so a tick is in one of the two at every instant (I7).
//!
//! It is bounded in bytes. As it fills the keeper's linger shortens ([`Tail::fullness`]). Where
//! that is not enough it sheds the frames that come: from then on a snapshot says [`CatchingUp`],
//! no mark covers what was shed ([`Tail::limit`]), and the shed frames are read back from their
//! tapes as soon as there is room ([`Tail::wanted`]). The newest are shed and not the oldest, so
//! that marks can pass what is held and room comes back.

use std::collections::BTreeMap;
use std::ops::{Bound, Range, RangeInclusive};
use std::sync::Arc;

use super::frame::Frame;
use super::marks::shard_of;
use super::position::{Position, Progress, VOIDS_MAX};
use super::ranges::Ranges;
use super::time::Mono;
use crate::market::{Row, Series};
use crate::store::TapeId;

/// How far on each tape: a Position whose absent tapes are filled in.
pub type Covered = BTreeMap<TapeId, Progress>;

/// Limits of the tail.
#[derive(Clone, Copy, Debug)]
pub struct TailConfig {
    /// The most bytes of frames.
    pub bytes_max: usize,
    /// Frames are kept so long also where all marks cover them: two lingers.
    pub keep_ms: u64,
    /// The number of shards, at most 64.
    pub shards: u8,
}

impl Default for TailConfig {
    fn default() -> Self {
        Self { bytes_max: 256 * 1024 * 1024, keep_ms: 120_000, shards: super::marks::SHARDS }
    }
}

/// The tail's rules. All hold in production; the simulator breaks them one by one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct TailRules {
    /// Only what marks that were read cover is trimmed.
    pub trim_by_marks: bool,
    /// No mark passes what was shed.
    pub limit_marks: bool,
}

impl Default for TailRules {
    fn default() -> Self {
        Self { trim_by_marks: true, limit_marks: true }
    }
}

/// The tail has shed frames that no mark covers: what it answers would have holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("history is catching up: {frames} ranges of frames are read back")]
pub struct CatchingUp {
    /// Ranges of frames that are missing.
    pub frames: usize,
}

/// What of a shard waits for its keeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// When the oldest frame with ticks of the shard came.
    pub oldest: Option<Mono>,
    /// Ticks.
    pub rows: usize,
}

#[derive(Debug)]
struct Kept {
    frame: Arc<Frame>,
    at: Mono,
    order: u64,
    /// Ticks of each shard that no mark read before covers.
    open: BTreeMap<u8, usize>,
}

/// The ticks of one series in the tail at one instant, in no order, copies included. It holds on
/// to their frames and copies nothing.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    runs: Vec<(Arc<Frame>, Range<usize>)>,
}

impl Snapshot {
    /// Runs of rows of frames.
    #[must_use]
    pub const fn of(runs: Vec<(Arc<Frame>, Range<usize>)>) -> Self {
        Self { runs }
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.runs.iter().flat_map(|(frame, run)| frame.rows.get(run.clone()).unwrap_or_default())
    }
}

/// The followed ticks that may not be in blocks yet.
#[derive(Debug)]
pub struct Tail {
    config: TailConfig,
    rules: TailRules,
    frames: BTreeMap<(TapeId, u64), Kept>,
    series: BTreeMap<Series, BTreeMap<(TapeId, u64), Range<usize>>>,
    by_order: BTreeMap<u64, (TapeId, u64)>,
    shed: BTreeMap<TapeId, Ranges>,
    bytes: usize,
    order: u64,
}

impl Tail {
    /// An empty tail.
    #[must_use]
    pub fn new(config: TailConfig) -> Self {
        Self {
            config,
            rules: TailRules::default(),
            frames: BTreeMap::new(),
            series: BTreeMap::new(),
            by_order: BTreeMap::new(),
            shed: BTreeMap::new(),
            bytes: 0,
            order: 0,
        }
    }

    /// The same with broken rules.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_rules(mut self, rules: TailRules) -> Self {
        self.rules = rules;
        self
    }

    /// Adds a frame that the follower applies, in the same step as its Position moves.
    pub fn apply(&mut self, frame: Arc<Frame>, now: Mono) {
        let name = (frame.tape, frame.seq);
        if self.frames.contains_key(&name) {
            return;
        }
        if !self.make_room(frame.memory()) {
            if !frame.rows.is_empty() {
                self.shed.entry(name.0).or_default().insert(name.1..=name.1);
            }
            return;
        }
        let mut open = BTreeMap::new();
        let mut start = 0;
        for group in
            frame.rows.chunk_by(|a, b| a.tick.symbol == b.tick.symbol && a.tick.kind() == b.tick.kind())
        {
            let range = start..start + group.len();
            start = range.end;
            if let Some(row) = group.first() {
                let shard = shard_of(row.tick.symbol, self.config.shards);
                *open.entry(shard).or_default() += group.len();
                self.series.entry(row.tick.series()).or_default().insert(name, range);
            }
        }
        self.order += 1;
        self.bytes += frame.memory();
        self.by_order.insert(self.order, name);
        self.frames.insert(name, Kept { frame, at: now, order: self.order, open });
    }

    /// The ticks of a series, of any event time.
    ///
    /// # Errors
    /// [`CatchingUp`] where frames are missing that no mark covers: blocks do not have them either.
    pub fn snapshot(&self, series: Series) -> Result<Snapshot, CatchingUp> {
        self.complete()?;
        let runs = self.series.get(&series).into_iter().flatten().filter_map(|(name, run)| {
            self.frames.get(name).map(|kept| (Arc::clone(&kept.frame), run.clone()))
        });
        Ok(Snapshot::of(runs.collect()))
    }

    /// The series that have ticks here, ascending, from `from` on.
    pub fn series_from(&self, from: Bound<Series>) -> impl Iterator<Item = Series> + '_ {
        self.series.range((from, Bound::Unbounded)).map(|(series, _)| *series)
    }

    /// A frame, for a replay.
    #[must_use]
    pub fn frame(&self, tape: TapeId, seq: u64) -> Option<&Arc<Frame>> {
        self.frames.get(&(tape, seq)).map(|kept| &kept.frame)
    }

    /// Whether nothing is shed.
    ///
    /// # Errors
    /// [`CatchingUp`] where frames are missing that no mark covers.
    pub fn complete(&self) -> Result<(), CatchingUp> {
        match self.shed.values().map(Ranges::len).sum() {
            0 => Ok(()),
            frames => Err(CatchingUp { frames }),
        }
    }

    /// Takes the mark of a shard that was read (or written): what it covers is done for the shard.
    pub fn cover(&mut self, shard: u8, covered: &Covered) {
        for (tape, progress) in covered {
            for (_, kept) in self.frames.range_mut((*tape, 0)..(*tape, progress.next)) {
                if progress.covers(kept.frame.seq) {
                    kept.open.remove(&shard);
                }
            }
        }
    }

    /// Drops the frames that are done for all shards and old enough, or where the budget needs it,
    /// and forgets what was shed where every shard's mark covers it.
    pub fn trim(&mut self, marks: &[Covered], now: Mono) {
        let keep_ms = self.config.keep_ms;
        let trim_by_marks = self.rules.trim_by_marks;
        let old = |kept: &Kept| now.since(kept.at) >= keep_ms || !trim_by_marks;
        let done = |kept: &Kept| kept.open.is_empty() || !trim_by_marks;
        let gone: Vec<(TapeId, u64)> =
            self.frames.iter().filter(|(_, kept)| done(kept) && old(kept)).map(|(name, _)| *name).collect();
        for name in gone {
            self.remove(name);
        }
        for (tape, shed) in &mut self.shed {
            let covers = |seq| {
                marks.len() == usize::from(self.config.shards)
                    && marks.iter().all(|mark| mark.get(tape).is_some_and(|progress| progress.covers(seq)))
            };
            if shed.first().is_some_and(covers) {
                shed.remove_where(covers);
            }
        }
        self.shed.retain(|_, shed| !shed.is_empty());
    }

    /// The frames with ticks of a shard that no mark read before covers, and when each came.
    pub fn open(&self, shard: u8) -> impl Iterator<Item = (&Arc<Frame>, Mono)> {
        let open = move |kept: &&Kept| kept.open.contains_key(&shard);
        self.frames.values().filter(open).map(|kept| (&kept.frame, kept.at))
    }

    /// How much waits for the keeper of each shard.
    #[must_use]
    pub fn backlog(&self) -> Vec<Backlog> {
        let mut backlog = vec![Backlog::default(); usize::from(self.config.shards)];
        for kept in self.frames.values() {
            for (shard, rows) in &kept.open {
                if let Some(of) = backlog.get_mut(usize::from(*shard)) {
                    of.oldest = Some(of.oldest.map_or(kept.at, |oldest| oldest.min(kept.at)));
                    of.rows += rows;
                }
            }
        }
        backlog
    }

    /// A Position without what was shed: the most that a mark may say. `own` is how far the node
    /// is on a tape, also where the Position leaves it out.
    #[must_use]
    pub fn limit(&self, mut position: Position, own: impl Fn(TapeId) -> Progress) -> Position {
        for (tape, shed) in self.shed.iter().filter(|_| self.rules.limit_marks) {
            let mut progress = own(*tape);
            for range in shed.iter() {
                if *range.end() + 1 >= progress.next {
                    progress.next = progress.next.min(*range.start());
                }
            }
            for seq in shed.iter().flatten() {
                if seq >= progress.next {
                    break;
                }
                if progress.voids.len() >= VOIDS_MAX {
                    progress = progress.meet(&Progress::at(seq));
                    break;
                }
                progress.voids.insert(seq);
            }
            position.tapes.insert(*tape, progress);
        }
        position
    }

    /// Shed frames to read from their tape and to [`Self::restore`], where there is room.
    #[must_use]
    pub fn wanted(&self) -> Option<(TapeId, RangeInclusive<u64>)> {
        let (tape, shed) = self.shed.first_key_value()?;
        // What is done makes room when it is needed.
        let open = self.frames.values().filter(|kept| !kept.open.is_empty());
        let open: usize = open.map(|kept| kept.frame.memory()).sum();
        let room = open < self.config.bytes_max / 2;
        if room { shed.iter().next().map(|range| (*tape, range)) } else { None }
    }

    /// Takes a shed frame back.
    pub fn restore(&mut self, frame: Arc<Frame>, now: Mono) {
        let Some(shed) = self.shed.get_mut(&frame.tape) else { return };
        if shed.remove(frame.seq) {
            if shed.is_empty() {
                self.shed.remove(&frame.tape);
            }
            self.apply(frame, now);
        }
    }

    /// Whether a frame is shed.
    #[must_use]
    pub fn has_shed(&self, tape: TapeId, seq: u64) -> bool {
        self.shed.get(&tape).is_some_and(|shed| shed.contains(seq))
    }

    /// Bytes of frames.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How full the budget is, in percent.
    #[must_use]
    pub const fn fullness(&self) -> usize {
        let max = if self.config.bytes_max == 0 { 1 } else { self.config.bytes_max };
        self.bytes.saturating_mul(100) / max
    }

    /// Frames in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether no frame is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Drops what is done, oldest first, until so many bytes more fit. Whether they do.
    fn make_room(&mut self, bytes: usize) -> bool {
        let needed = self.bytes.saturating_add(bytes).saturating_sub(self.config.bytes_max);
        let mut freed = 0;
        let mut gone = Vec::new();
        for name in self.by_order.values().take_while(|_| needed > 0) {
            let Some(kept) = self.frames.get(name).filter(|kept| kept.open.is_empty()) else { continue };
            freed += kept.frame.memory();
            gone.push(*name);
            if freed >= needed {
                break;
            }
        }
        for name in gone {
            self.remove(name);
        }
        freed >= needed
    }

    fn remove(&mut self, name: (TapeId, u64)) {
        let Some(kept) = self.frames.remove(&name) else { return };
        self.bytes = self.bytes.saturating_sub(kept.frame.memory());
        self.by_order.remove(&kept.order);
        let mut last = None;
        for row in &kept.frame.rows {
            let series = row.tick.series();
            if last == Some(series) {
                continue;
            }
            last = Some(series);
            if let Some(of) = self.series.get_mut(&series) {
                of.remove(&name);
                if of.is_empty() {
                    self.series.remove(&series);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::{Kind, Symbol};
    use crate::tape::fixtures::frame;

    fn series(symbol: &str) -> Series {
        Series { symbol: Symbol::parse(symbol.as_bytes()).unwrap(), kind: Kind::Trade }
    }

    fn count(tail: &Tail, symbol: &str) -> Result<usize, CatchingUp> {
        tail.snapshot(series(symbol)).map(|found| found.rows().count())
    }

    fn covered(next: u64) -> Covered {
        [(TapeId(9), Progress::at(next))].into()
    }

    fn tail(bytes_max: usize) -> Tail {
        Tail::new(TailConfig { bytes_max, keep_ms: 100, shards: 2 })
    }

    #[test]
    fn a_frame_stays_until_a_mark_of_every_shard_covers_it_and_it_is_old() {
        let mut tail = tail(1 << 20);
        let symbols = ["AAPL", "BBB", "CCC", "DD"];
        let shards: Vec<u8> = symbols.iter().map(|symbol| shard_of(series(symbol).symbol, 2)).collect();
        assert!(shards.contains(&0) && shards.contains(&1), "{shards:?}");
        tail.apply(frame(9, 1, 0, &symbols), Mono(0));
        tail.apply(frame(9, 2, 0, &symbols), Mono(0));
        assert_eq!(count(&tail, "BBB"), Ok(2));
        tail.cover(0, &covered(2));
        tail.trim(&[], Mono(500));
        assert_eq!(count(&tail, "BBB"), Ok(2));
        tail.cover(1, &covered(2));
        tail.trim(&[], Mono(99));
        assert_eq!(count(&tail, "BBB"), Ok(2), "two lingers");
        tail.trim(&[], Mono(100));
        assert_eq!((count(&tail, "BBB"), tail.len()), (Ok(1), 1));
    }

    #[test]
    fn a_void_in_a_mark_keeps_its_frame() {
        let mut tail = tail(1 << 20);
        tail.apply(frame(9, 1, 0, &["AAPL"]), Mono(0));
        for shard in 0..2 {
            tail.cover(shard, &[(TapeId(9), Progress { next: 5, voids: [1].into() })].into());
        }
        tail.trim(&[], Mono(500));
        assert_eq!(tail.len(), 1);
    }

    #[test]
    fn a_full_tail_sheds_says_so_limits_marks_and_reads_back() {
        let all: Vec<Arc<Frame>> = (1..=6).map(|seq| frame(9, seq, 0, &["AAPL"])).collect();
        let mut tail = tail(4 * all[0].memory());
        for one in &all {
            tail.apply(one.clone(), Mono(0));
        }
        assert!(tail.bytes() <= 4 * all[0].memory() && tail.fullness() == 100);
        assert_eq!(count(&tail, "AAPL"), Err(CatchingUp { frames: 1 }));
        let position = tail.limit(Position::default(), |_| Progress::at(7));
        assert_eq!(position.tapes[&TapeId(9)], Progress::at(5), "no mark covers what was shed");
        assert_eq!(tail.wanted(), None, "there is no room yet");
        for shard in 0..2 {
            tail.cover(shard, &covered(5));
        }
        assert_eq!(tail.wanted(), Some((TapeId(9), 5..=6)));
        tail.restore(all[4].clone(), Mono(1));
        tail.restore(all[5].clone(), Mono(1));
        tail.restore(all[0].clone(), Mono(1));
        assert_eq!(tail.complete(), Ok(()));
        let open: Vec<u64> = (0..2)
            .flat_map(|shard| tail.open(shard).map(|(frame, _)| frame.seq).collect::<Vec<_>>())
            .collect();
        assert_eq!(open, [5, 6]);
    }

    #[test]
    fn shed_frames_in_the_middle_are_voids_of_a_mark() {
        let all: Vec<Arc<Frame>> = (1..=3).map(|seq| frame(9, seq, 0, &["AAPL"])).collect();
        let mut tail = tail(all[0].memory());
        tail.apply(all[0].clone(), Mono(0));
        tail.apply(all[1].clone(), Mono(0));
        for shard in 0..2 {
            tail.cover(shard, &covered(2));
        }
        tail.apply(all[2].clone(), Mono(0));
        let position = tail.limit(Position::default(), |_| Progress::at(4));
        assert_eq!(position.tapes[&TapeId(9)], Progress { next: 4, voids: [2].into() });
        tail.trim(&[covered(4), covered(4)], Mono(0));
        assert_eq!(tail.complete(), Ok(()), "every shard's mark covers it: it is in blocks");
    }
}
