//! The follower: the dense prefix of every tape of every region, each frame applied once.
//!
//! `next` moves over frames that were seen, over voids (which travel in every Position and are
//! read again until the tape expires), and over gaps that are durable rows (I4). A hole is waited
//! for here, then fetched from home. Of a dead tape the unconfirmed frames are written back at
//! home, and its end is asked for there (I5), so that all regions end equal. Nothing depends on a
//! time-out being right: a writer that comes back is followed on.
//!
//! | | |
//! |---|---|
//! | poll | each 100 ms of another region's tape, 250 ms of the own region's, 1 s after 10 s of silence, 60 s after 10 min |
//! | a read | 255 seqs and 4 MiB at most |
//! | held above a hole | 64 MiB a node; beyond it the highest is forgotten and read again |
//! | voids | 512 a tape at most; then the tape waits, and its lag is shown |
//!
//! The machine is driven by [`Follower::boot`], then [`Follower::accept`] and the answers to its
//! effects; after each of them, and when [`Follower::due`] says so, [`Follower::poll`] tells what
//! is to be done. [`super::View`] does that together with the tail and the memory of requests.

mod accept;
mod lists;
mod poll;
mod position;
mod standing;
mod tape;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::frame::{Frame, Region};
use super::gaps::GapRow;
use super::retired::{RetiredList, RetiredLists};
use super::time::{Mono, Now};
use crate::store::{At, Reach, TapeId};
use lists::ListState;
use tape::{Followed, Purpose};

pub use lists::rendezvous;
pub use standing::{Standing, TapeState};

/// Limits and times of a follower.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// The own region.
    pub region: Region,
    /// All regions, the own one too.
    pub regions: Vec<Region>,
    /// Between polls of a tape of the own region.
    pub poll_own_ms: u64,
    /// Between polls of a tape of another region.
    pub poll_remote_ms: u64,
    /// Between polls of a silent tape.
    pub poll_silent_ms: u64,
    /// Between polls of a tape that is silent for `long_silent_ms`.
    pub poll_long_silent_ms: u64,
    /// A tape is silent when nothing new came for so long.
    pub silent_ms: u64,
    /// See `poll_long_silent_ms`.
    pub long_silent_ms: u64,
    /// A silent tape is retired after so long.
    pub retire_after_ms: u64,
    /// Between retirements.
    pub retire_each_ms: u64,
    /// More unretired tapes of the own region than this shorten `retire_after_ms`.
    pub unretired_max: usize,
    /// Between reads of the registry and of the retired lists.
    pub discover_ms: u64,
    /// A hole is fetched from home when it is older.
    pub hole_ms: u64,
    /// The shortest pause between reads at home, and the longest while home is unreachable.
    pub home_pause_ms: (u64, u64),
    /// Between questions for the end of a dead tape of another region.
    pub tail_ask_ms: u64,
    /// Before a write-back that failed is tried again.
    pub write_back_retry_ms: u64,
    /// Voids are read again after: here within the first minute, at home within the first hour, then.
    pub void_ms: (u64, u64, u64),
    /// How long the first two of these last.
    pub void_spans_ms: (u64, u64),
    /// Acknowledged frames that are missing at home for so long are given up as a gap.
    pub missing_ms: u64,
    /// How long frames live.
    pub frame_ttl_ms: u64,
    /// The margin by which frames count as expired too early, for clocks differ.
    pub ttl_margin_ms: u64,
    /// The most bytes of frames held above holes.
    pub held_bytes_max: usize,
    /// Whether a full hold stops reading above it (else what is read is forgotten again).
    pub held_full_stops: bool,
    /// The most bytes of one read.
    pub read_bytes_max: usize,
    /// The most seqs of one read.
    pub read_seqs_max: u64,
}

impl FollowerConfig {
    /// The times of production, for a node of one region among several.
    #[must_use]
    pub const fn new(region: Region, regions: Vec<Region>) -> Self {
        Self {
            region,
            regions,
            poll_own_ms: 250,
            poll_remote_ms: 100,
            poll_silent_ms: 1_000,
            poll_long_silent_ms: 60_000,
            silent_ms: 10_000,
            long_silent_ms: 600_000,
            retire_after_ms: 600_000,
            retire_each_ms: 10_000,
            unretired_max: 128,
            discover_ms: 1_000,
            hole_ms: 300,
            home_pause_ms: (1_000, 10_000),
            tail_ask_ms: 20_000,
            write_back_retry_ms: 2_000,
            void_ms: (5_000, 60_000, 3_600_000),
            void_spans_ms: (60_000, 3_600_000),
            missing_ms: 60_000,
            frame_ttl_ms: 48 * 3_600_000,
            ttl_margin_ms: 3_600_000,
            held_bytes_max: 64 * 1024 * 1024,
            held_full_stops: true,
            read_bytes_max: 4 * 1024 * 1024,
            read_seqs_max: 255,
        }
    }
}

/// The follower's rules. All hold in production; the simulator breaks them one by one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct FollowerRules {
    /// A hole is passed only by a void.
    pub void_holes: bool,
    /// Positions carry voids.
    pub voids_travel: bool,
    /// Unconfirmed frames of a dead tape are written back.
    pub write_back: bool,
    /// They are written back at home.
    pub write_back_home: bool,
    /// After a restart the frames below `next` that may be unconfirmed are read.
    pub recover: bool,
    /// The end of a dead tape is asked for at home.
    pub ask_home: bool,
    /// A retired tape is left out of a Position only where it equals its entry.
    pub retired_equal: bool,
    /// An absent tape means its entry only within the Position's k.
    pub retired_within_k: bool,
    /// Every tape of a retired list is followed.
    pub retired_followed: bool,
    /// A tape first heard of through a list starts at 1.
    pub retired_from_start: bool,
    /// A Position that has seen more of a list says nothing of absent tapes.
    pub behind_is_unknown: bool,
    /// A forgotten frame was not passed.
    pub forgotten_is_unseen: bool,
    /// `top` remembers forgotten frames.
    pub top_remembers: bool,
    /// Only what is new is a sign of life.
    pub life_is_new: bool,
    /// A restart starts at what every mark covers, not at the first mark's Position.
    pub every_mark: bool,
    /// It starts at the meet of the marks, not at the furthest.
    pub meet_of_marks: bool,
    /// A tape found by a live node starts at 1.
    pub late_from_start: bool,
    /// A gap is passed only when its row is durable.
    pub gap_row_first: bool,
}

impl Default for FollowerRules {
    fn default() -> Self {
        Self {
            void_holes: true,
            voids_travel: true,
            write_back: true,
            write_back_home: true,
            recover: true,
            ask_home: true,
            retired_equal: true,
            retired_within_k: true,
            retired_followed: true,
            retired_from_start: true,
            behind_is_unknown: true,
            forgotten_is_unseen: true,
            top_remembers: true,
            life_is_new: true,
            every_mark: true,
            meet_of_marks: true,
            late_from_start: true,
            gap_row_first: true,
        }
    }
}

/// Names a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What the follower asks for.
#[derive(Clone, Debug)]
pub enum FollowerEffect {
    /// Read frames, open and decode them, then call [`Follower::read_done`].
    Read {
        /// Names the read.
        id: ReadId,
        /// The tape.
        tape: TapeId,
        /// The seqs.
        seqs: RangeInclusive<u64>,
        /// The most bytes.
        bytes_max: usize,
        /// From where.
        at: At,
    },
    /// Append the frame again, then call [`Follower::wrote_back`].
    WriteBack {
        /// The frame. Sealed again, its bytes are those of the first time.
        frame: Arc<Frame>,
        /// Where.
        reach: Reach,
    },
    /// Put the row into the own region's gaps, then call [`Follower::gap_put`].
    PutGap(GapRow),
    /// Scan the registry of a region, then call [`Follower::tapes_scanned`].
    ScanTapes(Region),
    /// Read a region's retired list, then call [`Follower::list_read`].
    ReadList(Region),
    /// Write the own region's retired list if the row there has the expected version (0: none is
    /// there), as the next version, then call [`Follower::list_put`].
    PutList {
        /// The list.
        list: RetiredList,
        /// The version that must be there.
        expected: u64,
    },
    /// A tape and its state were forgotten: its registry row has expired.
    Forgot(TapeId),
}

/// A row of the registry, as a scan found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedTape {
    /// The tape.
    pub tape: TapeId,
    /// Its row.
    pub row: super::TapeRow,
    /// When the row was written last, by its writer's wall clock.
    pub written: crate::market::Nanos,
}

/// How a node stands with the tapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Tapes that are followed.
    pub tapes: usize,
    /// Tapes of the own region that are not retired.
    pub unretired: usize,
    /// Tapes with a hole that is waited for.
    pub holes: usize,
    /// The age of the oldest such hole.
    pub oldest_hole_ms: u64,
    /// Voids in all.
    pub voids: usize,
    /// Bytes held above holes.
    pub held_bytes: usize,
    /// Acknowledged frames that the database lost, in all since the start.
    pub acked_frames_missing: u64,
}

/// Follows all tapes.
pub struct Follower {
    config: FollowerConfig,
    rules: FollowerRules,
    ids: Box<dyn FnMut() -> u64 + Send + Sync>,
    own: Option<TapeId>,
    tapes: BTreeMap<TapeId, Followed>,
    wakes: BTreeSet<(Mono, TapeId)>,
    lists: RetiredLists,
    own_list: ListState,
    scans: BTreeMap<Region, ScanState>,
    retire_at: Mono,
    start_marks: Vec<super::Position>,
    reads: BTreeMap<ReadId, (TapeId, Purpose, RangeInclusive<u64>)>,
    last_read: u64,
    held_bytes: usize,
    acked_frames_missing: u64,
    applied: Vec<Arc<Frame>>,
    passed: Vec<GapRow>,
    out: Vec<FollowerEffect>,
}

#[derive(Debug, Default)]
struct ScanState {
    due: Mono,
    scanning: bool,
    list_due: Mono,
    reading_list: bool,
    scanned: bool,
    registered: BTreeSet<TapeId>,
}

impl Follower {
    /// A follower that knows no tape. `ids` gives random 64-bit numbers.
    #[must_use]
    pub fn new(config: FollowerConfig, ids: Box<dyn FnMut() -> u64 + Send + Sync>, now: Now) -> Self {
        let scans = config.regions.iter().map(|region| (*region, ScanState::default())).collect();
        // The tapes of starts that were stopped at once are retired soon, not one a start.
        let retire_at = now.mono.after(config.retire_each_ms.min(1_000));
        Self {
            config,
            rules: FollowerRules::default(),
            ids,
            own: None,
            tapes: BTreeMap::new(),
            wakes: BTreeSet::new(),
            lists: RetiredLists::default(),
            own_list: ListState::default(),
            scans,
            retire_at,
            start_marks: Vec::new(),
            reads: BTreeMap::new(),
            last_read: 0,
            held_bytes: 0,
            acked_frames_missing: 0,
            applied: Vec::new(),
            passed: Vec::new(),
            out: Vec::new(),
        }
    }

    /// The same with broken rules.
    #[doc(hidden)]
    #[must_use]
    pub fn with_rules(mut self, rules: FollowerRules) -> Self {
        self.rules = rules;
        self
    }

    /// The tape that this node's writer writes now: by it the node takes part in sharing work.
    pub const fn set_own(&mut self, tape: TapeId) {
        self.own = Some(tape);
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Now) -> Vec<FollowerEffect> {
        self.poll_regions(now);
        let last = (now.mono, TapeId(u64::MAX));
        let due: Vec<TapeId> = self.wakes.range(..=last).map(|(_, tape)| *tape).collect();
        for tape in due {
            self.poll_tape(tape, now);
        }
        std::mem::take(&mut self.out)
    }

    /// The frames that were applied since the last call, in order. They belong to the tail, the
    /// memory of requests, the live hub and the folds, in the same step as the Position moved:
    /// before anyone else sees either.
    pub fn take_applied(&mut self) -> Vec<Arc<Frame>> {
        std::mem::take(&mut self.applied)
    }

    /// Gaps that were passed since the last call: open streams are to be told.
    pub fn take_passed(&mut self) -> Vec<GapRow> {
        std::mem::take(&mut self.passed)
    }

    /// When [`Self::poll`] has something to do, if nothing else happens before.
    #[must_use]
    pub fn due(&self) -> Mono {
        if !self.out.is_empty() {
            return Mono(0);
        }
        let tapes = self.wakes.first().map(|(wake, _)| *wake);
        let scans = self.scans.values().flat_map(|scan| {
            let scan_due = (!scan.scanning).then_some(scan.due);
            let list_due = (!scan.reading_list).then_some(scan.list_due);
            [scan_due, list_due]
        });
        let times = scans.chain([tapes, Some(self.retire_at)]).flatten();
        times.min().unwrap_or(self.retire_at)
    }

    /// How this node stands with the tapes.
    #[must_use]
    pub fn status(&self, now: Mono) -> FollowerStatus {
        let own = |tape: &&Followed| tape.home == Some(self.config.region);
        let holes = self.tapes.values().filter_map(|tape| tape.hole_since);
        FollowerStatus {
            tapes: self.tapes.len(),
            unretired: self.tapes.values().filter(own).count().saturating_sub(self.own_list.entries()),
            holes: holes.clone().count(),
            oldest_hole_ms: holes.map(|since| now.since(since)).max().unwrap_or(0),
            voids: self.tapes.values().map(|tape| tape.progress.voids.len()).sum(),
            held_bytes: self.held_bytes,
            acked_frames_missing: self.acked_frames_missing,
        }
    }

    /// All that is known of a tape, for people.
    #[must_use]
    pub fn describe(&self, tape: TapeId) -> String {
        self.tapes.get(&tape).map_or_else(|| format!("{tape} is not followed"), |state| format!("{state:?}"))
    }

    /// Whether every region's registry was read, and every tape to its end, at least once.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.scans.values().all(|scan| scan.scanned) && self.tapes.values().all(|tape| tape.reached_end)
    }

    /// The tapes that are alive, of a region: those that share its work.
    #[must_use]
    pub fn live(&self, region: Region, now: Mono) -> Vec<TapeId> {
        let alive = |tape: &Followed| tape.home == Some(region) && !tape.is_dead(now, &self.config);
        let mut live: Vec<TapeId> =
            self.tapes.iter().filter(|(_, tape)| alive(tape)).map(|(id, _)| *id).collect();
        if let Some(own) = self.own.filter(|own| region == self.config.region && !live.contains(own)) {
            live.push(own);
        }
        live
    }

    fn read(&mut self, tape: TapeId, purpose: Purpose, seqs: RangeInclusive<u64>, at: At) {
        self.last_read += 1;
        let id = ReadId(self.last_read);
        self.reads.insert(id, (tape, purpose, seqs.clone()));
        let bytes_max = self.config.read_bytes_max;
        self.out.push(FollowerEffect::Read { id, tape, seqs, bytes_max, at });
    }
}

#[cfg(test)]
mod tests;
