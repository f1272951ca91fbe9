//! One sequence of many sources: one tick an id, in the total order, as many as a page needs.
//!
//! A [`Merge`] takes the rows of one series in any order and any number of copies, from
//! the tail and from blocks, and keeps those nearest to where the page starts. It never
//! splits the ticks of one event time: all of one nanosecond are resolved before any of them
//! is given out, because a later copy may change the content or the order of an earlier one.
//!
//! Memory: at most about twice `keep` rows, plus all rows of one nanosecond.

use crate::market::{Nanos, Place, Row, TickId};
use crate::store::{Order, Span};

/// Where a page ended: the place of its last entry and which version of the trade that was.
///
/// Version 0 is the tick as it came; 1, 2, … are what corrections made of it. A corrected
/// trade may keep the number, and so the id, of the original: the version tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The place in the total order.
    pub place: Place,
    /// The version at that place.
    pub version: u32,
}

/// A tick of the merged sequence: of all copies the winning content and the lowest arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Its place in the total order.
    pub place: Place,
    /// Content and arrival.
    pub row: Row,
}

/// Gathers the first `keep` ticks of a span, from the end that the order names.
#[derive(Debug)]
pub struct Merge {
    order: Order,
    span: Span,
    /// Ticks of this nanosecond were given out in part: they are kept, but count for nothing.
    resumed: Option<Nanos>,
    keep: usize,
    /// Times beyond this one are no longer needed.
    bound: Option<Nanos>,
    compact_at: usize,
    /// How many candidates were left when the bound was last set.
    settled: usize,
    candidates: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    id: TickId,
    row: Row,
}

/// Rows taken in beyond twice `keep` before duplicates are removed.
const SLACK_ROWS: usize = 1024;

impl Merge {
    /// A merge of the ticks in `span`, of which at least the first `keep` in `order` are wanted
    /// (fewer where there are not so many). `resumed` is the nanosecond in which the last page ended.
    #[must_use]
    pub fn new(order: Order, span: Span, resumed: Option<Nanos>, keep: usize) -> Self {
        let (first, last) = span.into_inner();
        let span = match (order, resumed) {
            (Order::Ascending, Some(time)) => first.max(time)..=last,
            (Order::Descending, Some(time)) => first..=last.min(time),
            (_, None) => first..=last,
        };
        let compact_at = keep.saturating_mul(2).saturating_add(SLACK_ROWS);
        Self {
            order,
            span,
            resumed,
            keep: keep.max(1),
            bound: None,
            compact_at,
            settled: 0,
            candidates: Vec::new(),
        }
    }

    /// The span of what is still needed: it shrinks as ticks are gathered. It is empty only
    /// where it was from the start.
    #[must_use]
    pub fn needed(&self) -> Span {
        let (first, last) = (*self.span.start(), *self.span.end());
        match (self.order, self.bound) {
            (Order::Ascending, Some(bound)) => first..=last.min(bound),
            (Order::Descending, Some(bound)) => first.max(bound)..=last,
            (_, None) => first..=last,
        }
    }

    /// Whether ticks between these times (both included) may still be needed.
    #[must_use]
    pub fn needs(&self, first: Nanos, last: Nanos) -> bool {
        let needed = self.needed();
        first <= *needed.end() && last >= *needed.start()
    }

    /// Takes in a row.
    pub fn push(&mut self, row: Row) {
        let time = row.tick.time;
        if !self.needs(time, time) {
            return;
        }
        self.candidates.push(Candidate { id: row.id(), row });
        if self.candidates.len() >= self.compact_at {
            self.compact();
            // Where many ticks share a nanosecond little can be dropped; growing with what
            // is left keeps the cost of compaction linear.
            self.compact_at = self
                .candidates
                .len()
                .saturating_mul(2)
                .max(self.keep.saturating_mul(2))
                .saturating_add(SLACK_ROWS);
        }
    }

    /// Narrows [`Self::needed`] where enough was taken in since it last was.
    pub fn settle(&mut self) {
        if self.candidates.len() > self.settled.saturating_add(self.keep) {
            self.compact();
            let slack = if self.bound.is_some() { 0 } else { self.keep / 2 };
            self.settled = self.candidates.len().saturating_sub(slack);
        }
    }

    /// Removes duplicates among what was taken in and drops what is beyond the first `keep`.
    fn compact(&mut self) {
        let order = self.order;
        self.candidates.sort_unstable_by(|a, b| {
            let time = match order {
                Order::Ascending => a.row.tick.time.cmp(&b.row.tick.time),
                Order::Descending => b.row.tick.time.cmp(&a.row.tick.time),
            };
            time.then_with(|| a.id.cmp(&b.id))
        });
        self.candidates.dedup_by(|copy, kept| {
            // A tick's time is part of its id, so that copies lie side by side.
            let same = copy.id == kept.id;
            if same {
                absorb(&mut kept.row, &copy.row);
            }
            same
        });
        let resumed = self.resumed;
        let mut counted = self
            .candidates
            .iter()
            .map(|candidate| candidate.row.tick.time)
            .filter(|time| Some(*time) != resumed);
        if let Some(bound) = counted.nth(self.keep - 1) {
            let beyond = |time: Nanos| match order {
                Order::Ascending => time > bound,
                Order::Descending => time < bound,
            };
            let needed = self.candidates.partition_point(|candidate| !beyond(candidate.row.tick.time));
            self.candidates.truncate(needed);
            self.bound = Some(bound);
        }
    }

    /// The ticks in ascending total order, whichever order was asked for, each nanosecond whole.
    #[must_use]
    pub fn finish(mut self) -> Vec<Merged> {
        self.compact();
        let mut merged: Vec<Merged> = self
            .candidates
            .into_iter()
            .map(|candidate| Merged { place: candidate.row.place(), row: candidate.row })
            .collect();
        merged.sort_unstable_by_key(|tick| tick.place);
        merged
    }
}

/// Makes one row of two copies of a tick: the winning content, the lowest arrival.
fn absorb(kept: &mut Row, copy: &Row) {
    if kept.tick != copy.tick && copy.wins_over(kept) {
        kept.tick = copy.tick.clone();
    }
    let arrival = |row: &Row| (row.origin.received, row.origin.index);
    if arrival(copy) < arrival(kept) {
        kept.origin = copy.origin;
    }
}
