//! What a follower knows of one tape.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::frame::{Frame, Region};
use super::super::gaps::GapRow;
use super::super::position::Progress;
use super::super::time::Mono;
use super::FollowerConfig;
use crate::market::Nanos;

/// What a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What follows.
    Poll,
    /// A hole, at home.
    Hole,
    /// The end of a dead tape, at home.
    End,
    /// Voids.
    Voids,
    /// What may be unconfirmed below `next`.
    Recover,
}

/// How far the write-back of a frame is that is applied and not known to be acknowledged.
#[derive(Clone, Debug)]
pub(super) enum WriteBack {
    /// From then on, where the tape is dead.
    Due(Mono, Arc<Frame>),
    /// Under way.
    Sent(Arc<Frame>),
    /// It is at home; the frame need not be kept.
    Done,
}

/// A gap whose row is not known to be durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingGap {
    pub(super) row: GapRow,
    pub(super) again: Option<Mono>,
}

/// One tape.
#[derive(Debug)]
pub(super) struct Followed {
    /// The region that writes it; of a tape that only a mark named it is not known at first.
    pub(super) home: Option<Region>,
    pub(super) progress: Progress,
    /// Frames above a hole.
    pub(super) held: BTreeMap<u64, Arc<Frame>>,
    pub(super) held_bytes: usize,
    /// The highest seq that was ever seen.
    pub(super) top: u64,
    /// The highest seq that is known to be acknowledged.
    pub(super) low: u64,
    /// What the home region had when it retired the tape: there were frames up to there. Kept when
    /// the entry is dropped from the list.
    pub(super) retired: Option<Progress>,
    /// The list that said so.
    pub(super) retired_in: u64,
    pub(super) unconfirmed: BTreeMap<u64, WriteBack>,
    /// When something new came last.
    pub(super) heard: Mono,
    pub(super) hole_since: Option<Mono>,
    /// Which acknowledged seq was not at home, and since when.
    pub(super) missing_since: Option<(u64, Mono)>,
    pub(super) home_next: Mono,
    pub(super) home_pause_ms: u64,
    pub(super) end_next: Mono,
    pub(super) closed: bool,
    pub(super) fin: bool,
    pub(super) recover: bool,
    pub(super) due: Mono,
    pub(super) voids_since: Option<Mono>,
    pub(super) void_next: Mono,
    pub(super) void_from: u64,
    pub(super) gap: Option<PendingGap>,
    /// Reads that are under way, by purpose.
    pub(super) polling: u8,
    pub(super) poll_next: u64,
    pub(super) poll_bytes: usize,
    pub(super) poll_failed: bool,
    /// The last poll failed.
    pub(super) is_failing: bool,
    pub(super) asking_hole: bool,
    pub(super) asking_end: bool,
    pub(super) reading_voids: u8,
    pub(super) recovering: bool,
    /// A poll found nothing further.
    pub(super) reached_end: bool,
    /// Received-at of what was applied last.
    pub(super) applied_received: Nanos,
    /// When its registry row was written last.
    pub(super) registered: Option<Nanos>,
    /// Frames that were forgotten; kept only where a rule is broken.
    pub(super) forgotten: BTreeSet<u64>,
    pub(super) wake: Mono,
}

impl Followed {
    pub(super) fn new(home: Option<Region>, progress: Progress, recover: bool, now: Mono) -> Self {
        Self {
            home,
            held: BTreeMap::new(),
            held_bytes: 0,
            top: progress.next - 1,
            low: 0,
            retired: None,
            retired_in: 0,
            unconfirmed: BTreeMap::new(),
            heard: now,
            hole_since: None,
            missing_since: None,
            home_next: Mono(0),
            home_pause_ms: 0,
            end_next: Mono(0),
            closed: false,
            fin: false,
            recover,
            due: now,
            voids_since: (!progress.voids.is_empty()).then_some(now),
            void_next: now,
            void_from: 0,
            gap: None,
            polling: 0,
            poll_next: 0,
            poll_bytes: 0,
            poll_failed: false,
            is_failing: false,
            asking_hole: false,
            asking_end: false,
            reading_voids: 0,
            recovering: false,
            reached_end: false,
            applied_received: Nanos(0),
            registered: None,
            forgotten: BTreeSet::new(),
            wake: Mono(0),
            progress,
        }
    }

    /// The highest seq that the home region had when it retired the tape.
    pub(super) fn settled(&self) -> u64 {
        self.retired.as_ref().map_or(0, |progress| progress.next - 1)
    }

    pub(super) fn is_silent(&self, now: Mono, config: &FollowerConfig) -> bool {
        now.since(self.heard) > config.silent_ms
    }

    /// Silent, closed or ended.
    pub(super) fn is_dead(&self, now: Mono, config: &FollowerConfig) -> bool {
        self.is_silent(now, config) || self.closed || self.fin
    }

    /// The last frame was applied and nothing is left to look for.
    pub(super) fn is_finished(&self) -> bool {
        self.fin && self.progress.voids.is_empty() && !self.recover
    }

    pub(super) fn poll_interval_ms(&self, now: Mono, config: &FollowerConfig) -> u64 {
        let quiet = now.since(self.heard);
        let interval = if quiet > config.long_silent_ms {
            config.poll_long_silent_ms
        } else if quiet > config.silent_ms {
            config.poll_silent_ms
        } else if self.home.is_some_and(|home| home != config.region) {
            config.poll_remote_ms
        } else {
            config.poll_own_ms
        };
        // A hole is never left for a minute.
        if self.hole_since.is_some() { interval.min(config.poll_silent_ms) } else { interval }
    }

    /// How long until voids, or the settled end of a tape, are looked for again.
    pub(super) fn patience_ms(since: Mono, now: Mono, config: &FollowerConfig) -> u64 {
        let age = now.since(since);
        if age < config.void_spans_ms.0 {
            config.void_ms.0
        } else if age < config.void_spans_ms.1 {
            config.void_ms.1
        } else {
            config.void_ms.2
        }
    }

    pub(super) fn forget_confirmed(&mut self) {
        let low = self.low;
        self.unconfirmed.retain(|seq, _| *seq > low);
    }

    pub(super) fn covers_unconfirmed(&mut self, frame: &Arc<Frame>) {
        let write = || WriteBack::Due(Mono(0), Arc::clone(frame));
        self.unconfirmed.entry(frame.seq).or_insert_with(write);
    }

    /// The earliest of this tape's timers.
    pub(super) fn next_wake(&self, now: Mono, config: &FollowerConfig, asks_end: bool) -> Mono {
        let never = Mono(u64::MAX);
        let mut wake = never;
        if self.polling == 0 {
            wake = wake.min(self.due);
        }
        if !self.progress.voids.is_empty() && self.reading_voids == 0 {
            wake = wake.min(self.void_next);
        }
        if self.recover && !self.recovering {
            wake = wake.min(self.due);
        }
        if let Some(again) = self.gap.and_then(|gap| gap.again) {
            wake = wake.min(again);
        }
        let death = if self.closed || self.fin { now } else { self.heard.after(config.silent_ms + 1) };
        let write = self.unconfirmed.values().filter_map(|write| match write {
            WriteBack::Due(at, _) => Some(*at),
            WriteBack::Sent(_) | WriteBack::Done => None,
        });
        if let Some(at) = write.min() {
            wake = wake.min(at.max(death));
        }
        if asks_end && !self.asking_end {
            wake = wake.min(self.end_next.max(death));
        }
        wake
    }
}
