//! The memory of requests: which ticks of which request a node has delivered, so that each is
//! delivered once, however often its request comes again (split over frames, carried by a new
//! tape, posted to another node).
//!
//! It reaches back 10 minutes at most and is bounded in bytes. Where the budget cuts it short,
//! delivery becomes at least once, and [`RequestMemory::reaches_back_to`] says since when.
//! Storage does not depend on it. The same memory answers receipts and finds a key that comes
//! with another body. It does not survive a restart, and a resumed client has one of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::frame::{BodyHash, Frame, Piece};
use super::ranges::Ranges;
use super::time::Mono;
use crate::market::{RequestKey, Row};
use crate::store::TapeId;

/// What an entry takes besides its ranges, with its share of the maps.
const ENTRY_BYTES: usize = 192;
const RANGE_BYTES: usize = 16;

/// Limits of the memory.
#[derive(Clone, Copy, Debug)]
pub struct RequestConfig {
    /// A request is forgotten so long after its last tick.
    pub keep_ms: u64,
    /// The most bytes; the requests that were quiet longest are forgotten above it.
    pub bytes_max: usize,
}

impl Default for RequestConfig {
    fn default() -> Self {
        Self { keep_ms: 600_000, bytes_max: 64 * 1024 * 1024 }
    }
}

/// The memory's rules. All hold in production; the simulator breaks them one by one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct RequestRules {
    /// A tick is known by its position, not by its request alone.
    pub by_position: bool,
    /// A tick is known on whichever tape it comes.
    pub across_tapes: bool,
}

impl Default for RequestRules {
    fn default() -> Self {
        Self { by_position: true, across_tapes: true }
    }
}

/// What a node knows of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its body.
    pub body: BodyHash,
    /// The positions that are delivered.
    pub delivered: Vec<Range<u32>>,
}

/// How a request and its body are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remembered {
    /// Not at all.
    #[default]
    Nothing,
    /// With this body.
    ThisBody,
    /// With another body only: its key is used a second time.
    OtherBody,
}

/// A frame, and which of its ticks are new here.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The frame.
    pub frame: Arc<Frame>,
    /// Pieces of the frame's pieces.
    pub new: Vec<Piece>,
}

impl Delivery {
    /// The rows that are new and no backfill, in the frame's order.
    pub fn live_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows(false)
    }

    /// The rows that are new and a backfill, in the frame's order.
    pub fn backfill_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows(true)
    }

    fn rows(&self, backfill: bool) -> impl Iterator<Item = &Row> {
        let is_all = self.new == self.frame.pieces && self.new.iter().all(|piece| piece.backfill == backfill);
        let mut some: Vec<&Piece> = Vec::new();
        if !is_all {
            some.extend(self.new.iter().filter(|piece| piece.backfill == backfill));
            some.sort_unstable_by_key(|piece| (piece.request, piece.first));
        }
        let rows: &[Row] = if is_all || !some.is_empty() { &self.frame.rows } else { &[] };
        rows.iter().filter(move |row| {
            let (request, index) = (row.origin.request, row.origin.index);
            let up_to = some.partition_point(|piece| (piece.request, piece.first) <= (request, index));
            let piece = up_to.checked_sub(1).and_then(|at| some.get(at));
            is_all || piece.is_some_and(|piece| piece.request == request && index < piece.end())
        })
    }
}

#[derive(Debug)]
struct Known {
    ranges: Ranges,
    at: Mono,
    tape: TapeId,
}

impl Known {
    const fn bytes(&self) -> usize {
        ENTRY_BYTES + self.ranges.len() * RANGE_BYTES
    }
}

/// Which ticks of which requests were delivered.
#[derive(Debug)]
pub struct RequestMemory {
    config: RequestConfig,
    rules: RequestRules,
    known: BTreeMap<(RequestKey, BodyHash), Known>,
    by_age: BTreeSet<(Mono, RequestKey, BodyHash)>,
    bytes: usize,
    since: Mono,
}

impl RequestMemory {
    /// An empty memory, which knows nothing of what was before `now`.
    #[must_use]
    pub fn new(config: RequestConfig, now: Mono) -> Self {
        Self {
            config,
            rules: RequestRules::default(),
            known: BTreeMap::new(),
            by_age: BTreeSet::new(),
            bytes: 0,
            since: now,
        }
    }

    /// The same with broken rules.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_rules(mut self, rules: RequestRules) -> Self {
        self.rules = rules;
        self
    }

    /// Remembers a frame's ticks, and tells which of them are new.
    pub fn deliver(&mut self, frame: &Arc<Frame>, now: Mono) -> Delivery {
        let new = frame.pieces.iter().flat_map(|piece| self.insert(frame.tape, piece, now)).collect();
        self.forget(now);
        Delivery { frame: Arc::clone(frame), new }
    }

    fn insert(&mut self, tape: TapeId, piece: &Piece, now: Mono) -> Vec<Piece> {
        let Some(last) = piece.end().checked_sub(1).filter(|last| *last >= piece.first) else {
            return Vec::new();
        };
        let name = (piece.request, piece.body);
        let is_new = !self.known.contains_key(&name);
        let known = self.known.entry(name).or_insert_with(|| Known { ranges: Ranges::new(), at: now, tape });
        if is_new {
            self.bytes += known.bytes();
        } else {
            self.by_age.remove(&(known.at, name.0, name.1));
        }
        let before = known.bytes();
        let mut new = known.ranges.insert(u64::from(piece.first)..=u64::from(last));
        self.bytes = (self.bytes + known.bytes()).saturating_sub(before);
        known.at = now;
        self.by_age.insert((now, name.0, name.1));
        if !self.rules.by_position && !is_new {
            new.clear();
        }
        if !self.rules.across_tapes {
            new =
                if known.tape == tape { vec![u64::from(piece.first)..=u64::from(last)] } else { Vec::new() };
        }
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let part = |range: std::ops::RangeInclusive<u64>| {
            let (first, last) = (narrow(*range.start()), narrow(*range.end()));
            Piece { first, count: last - first + 1, ..*piece }
        };
        new.into_iter().map(part).collect()
    }

    /// Forgets what is too old, and what is above the budget.
    fn forget(&mut self, now: Mono) {
        while let Some((at, request, body)) = self.by_age.first().copied() {
            if now.since(at) <= self.config.keep_ms && self.bytes <= self.config.bytes_max {
                break;
            }
            self.by_age.pop_first();
            if let Some(known) = self.known.remove(&(request, body)) {
                self.bytes = self.bytes.saturating_sub(known.bytes());
            }
            self.since = self.since.max(at.after(1));
        }
    }

    /// What is remembered of a request with this body. One that is remembered with several (two
    /// nodes took them at once) is a repetition of each.
    #[must_use]
    pub fn remembered(&self, request: RequestKey, body: BodyHash) -> Remembered {
        if self.known.contains_key(&(request, body)) {
            return Remembered::ThisBody;
        }
        if self.bodies(request).next().is_some() { Remembered::OtherBody } else { Remembered::Nothing }
    }

    /// Whether the key is known with another body and not with this: the request must be refused.
    #[must_use]
    pub fn is_reused(&self, request: RequestKey, body: BodyHash) -> bool {
        self.remembered(request, body) == Remembered::OtherBody
    }

    /// What is known of a request.
    #[must_use]
    pub fn receipt(&self, request: RequestKey) -> Option<Receipt> {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        self.bodies(request).next().map(|(body, known)| Receipt {
            body,
            delivered: known
                .ranges
                .iter()
                .map(|range| narrow(*range.start())..narrow(range.end().saturating_add(1)))
                .collect(),
        })
    }

    fn bodies(&self, request: RequestKey) -> impl Iterator<Item = (BodyHash, &Known)> {
        let (first, last) = ((request, BodyHash([0; 16])), (request, BodyHash([0xff; 16])));
        self.known.range(first..=last).map(|((_, body), known)| (*body, known))
    }

    /// Since when every delivered tick is remembered. Older ones may be delivered again.
    #[must_use]
    pub const fn reaches_back_to(&self) -> Mono {
        self.since
    }

    /// Bytes in use, nearly.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::Nanos;
    use crate::tape::Region;

    fn frame(tape: u64, pieces: &[(u8, u32, u32)]) -> Arc<Frame> {
        let piece = |(request, first, count): &(u8, u32, u32)| Piece {
            request: RequestKey([*request; 16]),
            body: BodyHash([1; 16]),
            first: *first,
            count: *count,
            backfill: false,
        };
        Arc::new(Frame {
            tape: TapeId(tape),
            seq: 1,
            low: 0,
            home: Region::parse("a").unwrap(),
            received: Nanos(0),
            fin: false,
            pieces: pieces.iter().map(piece).collect(),
            rows: Vec::new(),
        })
    }

    fn new(memory: &mut RequestMemory, frame: &Arc<Frame>, at: u64) -> Vec<(u32, u32)> {
        memory.deliver(frame, Mono(at)).new.iter().map(|piece| (piece.first, piece.count)).collect()
    }

    #[test]
    fn each_position_is_new_once_on_any_tape() {
        let mut memory = RequestMemory::new(RequestConfig::default(), Mono(0));
        assert_eq!(new(&mut memory, &frame(1, &[(1, 0, 5)]), 1), [(0, 5)]);
        assert_eq!(new(&mut memory, &frame(2, &[(1, 3, 4), (2, 0, 1)]), 2), [(5, 2), (0, 1)]);
        assert_eq!(new(&mut memory, &frame(3, &[(1, 0, 9)]), 3), [(7, 2)]);
        let receipt = memory.receipt(RequestKey([1; 16])).unwrap();
        assert_eq!(receipt.delivered, vec![Range { start: 0, end: 9 }]);
        assert!(memory.is_reused(RequestKey([1; 16]), BodyHash([2; 16])));
        assert!(!memory.is_reused(RequestKey([1; 16]), BodyHash([1; 16])));
        let mut other = (*frame(4, &[(1, 0, 1)])).clone();
        other.pieces[0].body = BodyHash([2; 16]);
        new(&mut memory, &Arc::new(other), 4);
        let remembered = |body| memory.remembered(RequestKey([1; 16]), BodyHash([body; 16]));
        let (this, other) = (Remembered::ThisBody, Remembered::OtherBody);
        assert_eq!([1, 2, 3].map(remembered), [this, this, other], "each body that is known may be repeated");
        assert_eq!(memory.remembered(RequestKey([9; 16]), BodyHash([1; 16])), Remembered::Nothing);
        assert_eq!(memory.receipt(RequestKey([9; 16])), None);
    }

    #[test]
    fn the_budget_forgets_what_was_quiet_longest_and_says_so() {
        let config = RequestConfig { bytes_max: 3 * (ENTRY_BYTES + RANGE_BYTES), keep_ms: 1_000 };
        let mut memory = RequestMemory::new(config, Mono(0));
        for request in 1..=3 {
            new(&mut memory, &frame(1, &[(request, 0, 1)]), u64::from(request));
        }
        assert_eq!(memory.reaches_back_to(), Mono(0));
        new(&mut memory, &frame(1, &[(1, 1, 1)]), 4);
        new(&mut memory, &frame(1, &[(4, 0, 1)]), 5);
        assert_eq!(memory.reaches_back_to(), Mono(3));
        assert_eq!(memory.receipt(RequestKey([2; 16])), None);
        assert_eq!(memory.receipt(RequestKey([1; 16])).unwrap().delivered, vec![Range { start: 0, end: 2 }]);
        assert!(memory.bytes() <= config.bytes_max);
        new(&mut memory, &frame(1, &[(9, 0, 1)]), 5_000);
        assert_eq!(memory.receipt(RequestKey([1; 16])), None);
    }
}
