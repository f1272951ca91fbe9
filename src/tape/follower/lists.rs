//! Discovery of tapes, retired lists, retirement and expiry.

use std::collections::BTreeSet;

use super::super::frame::Region;
use super::super::position::Position;
use super::super::retired::{RETIRED_MAX, RetiredList};
use super::super::time::Now;
use super::tape::Followed;
use super::{Follower, FollowerEffect, ScannedTape};
use crate::store::TapeId;

/// The row of the own region's list.
#[derive(Debug, Default)]
pub(super) struct ListState {
    /// The version of the row as it was read last (0: there was none); `None`: never read.
    version: Option<u64>,
    list: RetiredList,
    putting: bool,
}

impl ListState {
    pub(super) fn entries(&self) -> usize {
        self.list.entries.len()
    }
}

impl Follower {
    /// Starts from what is durable, before any client is served: the retired lists of all regions
    /// (with the versions of their rows) and the marks of all shards of the own region (a shard
    /// without one: the empty Position). Every tape that any of them names is followed from what
    /// every mark covers.
    pub fn boot(&mut self, lists: Vec<(Region, u64, RetiredList)>, marks: &[Position], now: Now) {
        for (region, version, list) in lists {
            self.adopt(region, version, &list, now);
        }
        let marks = if self.rules.every_mark { marks } else { marks.get(..1).unwrap_or_default() };
        let mut named: BTreeSet<TapeId> = marks.iter().flat_map(|mark| mark.tapes.keys().copied()).collect();
        named.extend(self.tapes.keys().copied());
        for tape in named {
            let progress = self.meet_of(marks, tape);
            // A mark tells no home; the registry and the first frame do.
            let home = self.tapes.get(&tape).and_then(|state| state.home);
            if progress.next > 1 || !self.tapes.contains_key(&tape) {
                self.start_at(tape, home, progress, now);
            }
        }
    }

    /// Takes the marks as they are read while the node runs; only a broken rule looks at them.
    #[doc(hidden)]
    pub fn marks_read(&mut self, marks: Vec<Position>) {
        if !self.rules.late_from_start {
            self.start_marks = marks;
        }
    }

    pub(super) fn poll_regions(&mut self, now: Now) {
        for (region, scan) in &mut self.scans {
            if !scan.scanning && scan.due <= now.mono {
                scan.scanning = true;
                self.out.push(FollowerEffect::ScanTapes(*region));
            }
            if !scan.reading_list && scan.list_due <= now.mono {
                scan.reading_list = true;
                self.out.push(FollowerEffect::ReadList(*region));
            }
        }
        if self.retire_at <= now.mono {
            self.retire_at = now.mono.after(self.config.retire_each_ms);
            self.retire(now);
        }
    }

    /// The answer to [`FollowerEffect::ScanTapes`]: all rows, or `None` where they could not be read.
    pub fn tapes_scanned(&mut self, region: Region, answer: Option<Vec<ScannedTape>>, now: Now) {
        let due = now.mono.after(self.config.discover_ms);
        let Some(scan) = self.scans.get_mut(&region) else { return };
        (scan.scanning, scan.due) = (false, due);
        let Some(rows) = answer else { return };
        scan.scanned = true;
        scan.registered = rows.iter().map(|row| row.tape).collect();
        for scanned in &rows {
            self.start(scanned.tape, region, now);
            let Some(state) = self.tapes.get_mut(&scanned.tape) else { continue };
            state.home = Some(region);
            state.registered = state.registered.max(Some(scanned.written));
            state.low = state.low.max(scanned.row.low).max(scanned.row.fin.unwrap_or(0));
        }
        for (tape, low) in rows.iter().filter_map(|scanned| scanned.row.closes) {
            if let Some(state) = self.tapes.get_mut(&tape) {
                state.closed = true;
                state.low = state.low.max(low);
                self.rewake(tape, now.mono);
            }
        }
        self.forget_expired(region, now);
    }

    /// A tape whose registry row has expired, long after its frames, is forgotten.
    fn forget_expired(&mut self, region: Region, now: Now) {
        let Some(scan) = self.scans.get(&region) else { return };
        let ttl = self.config.frame_ttl_ms;
        let expired: Vec<TapeId> = self
            .tapes
            .iter()
            .filter(|(tape, state)| {
                let gone = !scan.registered.contains(tape) && Some(**tape) != self.own;
                // Left out while it lacks what its entry says, it would claim that all the same (I9).
                let no_less = state.retired.as_ref().is_none_or(|entry| state.progress.covers_all(entry));
                gone && no_less
                    && state.home == Some(region)
                    && now.mono.since(state.heard) > ttl
                    && state.gap.is_none()
            })
            .map(|(tape, _)| *tape)
            .collect();
        for tape in expired {
            if let Some(state) = self.tapes.remove(&tape) {
                self.wakes.remove(&(state.wake, tape));
                self.held_bytes = self.held_bytes.saturating_sub(state.held_bytes);
                self.out.push(FollowerEffect::Forgot(tape));
            }
        }
    }

    /// The answer to [`FollowerEffect::ReadList`]: the row's version and the list (0 and an empty
    /// list where there is none), or `None` where it could not be read. Also what was read at home
    /// because a Position has seen more ([`Self::behind`]).
    pub fn list_read(&mut self, region: Region, answer: Option<(u64, RetiredList)>, now: Now) {
        let due = now.mono.after(self.config.discover_ms);
        if let Some(scan) = self.scans.get_mut(&region) {
            (scan.reading_list, scan.list_due) = (false, due);
        }
        if let Some((version, list)) = answer {
            self.adopt(region, version, &list, now);
        }
    }

    /// The list of a region is known as far as this: every tape in it is followed, from 1 and not
    /// from its entry, so that a node that has just heard of a tape names it in its Positions.
    fn adopt(&mut self, region: Region, version: u64, list: &RetiredList, now: Now) {
        let (known_id, known_k) = self.lists.get(region).map_or((0, 0), |known| (known.id, known.k));
        let known_k = if known_id == list.id { known_k } else { 0 };
        // Reads of a compare-and-set row are never stale: one that shows less is a list that was lost.
        if region == self.config.region {
            (self.own_list.version, self.own_list.list) = (Some(version), list.clone());
        }
        if version == 0 {
            return;
        }
        let new: Vec<TapeId> =
            list.entries.iter().filter(|(_, entry)| entry.k > known_k).map(|(tape, _)| *tape).collect();
        self.lists.adopt(region, list.clone());
        for (tape, entry) in list.entries.iter().filter(|(tape, _)| new.contains(tape)) {
            if self.rules.retired_followed && !self.tapes.contains_key(tape) {
                if self.rules.retired_from_start {
                    self.start(*tape, region, now);
                } else {
                    self.start_at(*tape, Some(region), entry.progress.clone(), now);
                }
            }
        }
        for (tape, entry) in &list.entries {
            if let Some(state) = self.tapes.get_mut(tape) {
                state.home = Some(region);
                (state.retired, state.retired_in) = (Some(entry.progress.clone()), list.id);
            }
        }
    }

    /// Retires the dead tapes of the own region, or drops the entries of expired ones.
    fn retire(&mut self, now: Now) {
        let Some(expected) = self.own_list.version.filter(|_| !self.own_list.putting) else { return };
        let mut list = self.own_list.list.clone();
        if expected == 0 {
            list = RetiredList { id: (self.ids)(), ..RetiredList::default() };
        }
        let after = self.retire_after_ms();
        let live = self.live(self.config.region, now.mono);
        let Some(scan) = self.scans.get(&self.config.region).filter(|scan| scan.scanned) else { return };
        // One whose row has expired is forgotten soon. An entry that was dropped never comes back:
        // nodes that have forgotten the tape would claim it by leaving it out (I9).
        let retirable = |tape: &TapeId, state: &Followed| {
            let known = list.entries.contains_key(tape) || state.retired_in == list.id;
            scan.registered.contains(tape) && !known
        };
        let dead = self.tapes.iter().filter(|(tape, state)| {
            state.home == Some(self.config.region)
                && Some(**tape) != self.own
                && retirable(tape, state)
                && (state.fin || now.mono.since(state.heard) > after)
                && self.is_mine(**tape, &live)
        });
        let room = RETIRED_MAX.saturating_sub(list.entries.len());
        let dead: Vec<TapeId> = dead.map(|(tape, _)| *tape).take(room).collect();
        let list = if dead.is_empty() {
            let gone = |tape: TapeId| !scan.registered.contains(&tape) && !self.tapes.contains_key(&tape);
            if !list.entries.keys().any(|tape| gone(*tape) && self.is_mine(*tape, &live)) {
                return;
            }
            list.without(gone)
        } else {
            dead.iter()
                .filter_map(|tape| Some((*tape, self.tapes.get(tape)?)))
                .fold(list, |list, (tape, state)| list.with(tape, state.progress.clone()))
        };
        self.own_list.putting = true;
        self.out.push(FollowerEffect::PutList { list, expected });
    }

    /// More unretired tapes than there should be are retired sooner.
    fn retire_after_ms(&self) -> u64 {
        let own = self.tapes.values().filter(|state| state.home == Some(self.config.region)).count();
        let unretired = own.saturating_sub(self.own_list.entries());
        let excess = u64::try_from(unretired / self.config.unretired_max.max(1)).unwrap_or(1);
        (self.config.retire_after_ms / (excess + 1)).max(self.config.silent_ms)
    }

    /// The answer to [`FollowerEffect::PutList`]: whether it was written, `None` where that is not
    /// known. The list is read again in any case.
    pub fn list_put(&mut self, _written: Option<bool>, now: Now) {
        self.own_list.putting = false;
        let region = self.config.region;
        if let Some(scan) = self.scans.get_mut(&region).filter(|scan| !scan.reading_list) {
            scan.list_due = now.mono;
        }
    }

    /// Whether this node is the one of the live ones that does a piece of work: the highest hash
    /// of worker and work (rendezvous).
    #[must_use]
    pub fn is_mine(&self, work: TapeId, live: &[TapeId]) -> bool {
        let Some(own) = self.own else { return false };
        live.iter().all(|other| rendezvous(*other, work.0) <= rendezvous(own, work.0))
    }
}

/// The weight of a worker for a piece of work: the worker with the highest does it.
#[must_use]
pub fn rendezvous(worker: TapeId, work: u64) -> u64 {
    // SplitMix64's finalizer over both.
    let mut z = worker.0.rotate_left(32) ^ work.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
