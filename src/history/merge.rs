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

    /// Takes in a copy of a row, where it may be needed.
    pub fn offer(&mut self, row: &Row) {
        if self.needs(row.tick.time, row.tick.time) {
            self.push(row.clone());
        }
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
        if self.candidates.len() >= self.settled.saturating_add(self.keep) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::amend::amend;
    use super::super::page::{Resume, cut};
    use super::super::testing::{any_copies, quote_at, trade};
    use super::*;

    /// What history is, told simply: a set by id, sorted.
    fn model(rows: &[Row], span: &Span) -> Vec<(Place, Row)> {
        let mut by_id: BTreeMap<TickId, Vec<&Row>> = BTreeMap::new();
        for row in rows.iter().filter(|row| span.contains(&row.tick.time)) {
            by_id.entry(row.id()).or_default().push(row);
        }
        let mut all: Vec<(Place, Row)> = by_id
            .into_values()
            .map(|copies| {
                let shown =
                    copies.iter().find(|row| !copies.iter().any(|other| other.wins_over(row))).unwrap();
                let arrival =
                    copies.iter().map(|row| row.origin).min_by_key(|o| (o.received, o.index)).unwrap();
                let row = Row { tick: shown.tick.clone(), origin: arrival };
                (row.place(), row)
            })
            .collect();
        all.sort_by_key(|(place, _)| *place);
        all
    }

    fn whole(order: Order, span: &Span, resumed: Option<Nanos>, keep: usize, rows: &[Row]) -> Vec<Merged> {
        let mut merge = Merge::new(order, span.clone(), resumed, keep);
        for (at, row) in rows.iter().enumerate() {
            merge.push(row.clone());
            if at % 3 == 0 {
                merge.settle();
            }
        }
        merge.finish()
    }

    proptest! {
        #[test]
        fn pages_are_the_set_in_the_total_order(
            sources in prop::collection::vec(any_copies(), 1..6),
            first in 0_i64..8,
            length in 0_i64..10,
            limit in 1_usize..7,
            descending in any::<bool>(),
        ) {
            let span = Nanos(first)..=Nanos(first + length);
            let order = if descending { Order::Descending } else { Order::Ascending };
            let rows: Vec<Row> = sources.concat();
            let mut expected: Vec<(Place, Tick)> =
                model(&rows, &span).into_iter().map(|(place, row)| (place, row.tick)).collect();
            if descending {
                expected.reverse();
            }

            let mut paged = Vec::new();
            let mut after: Option<Key> = None;
            for turn in 0.. {
                // Each page reads the sources anew, in another order.
                let mut shuffled = sources.clone();
                shuffled.rotate_left(turn % sources.len());
                let resumed = after.map(|key| key.place.time);
                let merged = whole(order, &span, resumed, limit + 1, &shuffled.concat());
                let (entries, more) = cut(amend(merged, Vec::new()), order, after, limit);
                prop_assert!(entries.len() == limit || more.is_none());
                paged.extend(entries.into_iter().map(|entry| (entry.key.place, entry.tick)));
                match more {
                    Some(Resume::After(key)) => after = Some(key),
                    other => {
                        prop_assert_eq!(other, None);
                        break;
                    }
                }
            }
            prop_assert_eq!(paged, expected);
        }
    }

    #[test]
    fn what_is_far_from_the_page_is_not_kept() {
        for order in [Order::Ascending, Order::Descending] {
            let mut merge = Merge::new(order, Nanos(0)..=Nanos(1_000_000), None, 10);
            for time in 0..20_000_i64 {
                let time = if order == Order::Ascending { time } else { 1_000_000 - time };
                merge.push(trade(time, 1, "100"));
                assert!(merge.candidates.len() <= 2 * 10 + SLACK_ROWS);
            }
            let merged = merge.finish();
            let times: Vec<i64> = merged.iter().map(|tick| tick.place.time.0).collect();
            let expected: Vec<i64> = match order {
                Order::Ascending => (0..10).collect(),
                Order::Descending => (999_991..=1_000_000).collect(),
            };
            assert_eq!(times, expected);
        }
    }

    #[test]
    fn the_bound_narrows_what_is_needed_and_blocks_beyond_it_are_not() {
        let mut merge = Merge::new(Order::Ascending, Nanos(0)..=Nanos(100), Some(Nanos(5)), 2);
        for time in [5, 5, 6, 7, 8, 9] {
            merge.push(trade(time, u64::try_from(time).unwrap(), "100"));
        }
        merge.settle();
        assert_eq!(merge.needed(), Nanos(5)..=Nanos(7));
        assert!(merge.needs(Nanos(7), Nanos(90)) && !merge.needs(Nanos(8), Nanos(90)));
        assert!(!merge.needs(Nanos(0), Nanos(4)));
    }

    #[test]
    fn of_copies_the_lowest_arrival_gives_the_order() {
        // Two quotes of one nanosecond without numbers; the copy of the second came before the first.
        let first = quote_at(1, 10, 0, 1);
        let second = quote_at(1, 20, 1, 2);
        let copy =
            Row { origin: crate::market::Origin { received: Nanos(5), ..second.origin }, ..second.clone() };
        let order = |rows: &[Row]| -> Vec<Tick> {
            whole(Order::Ascending, &(Nanos(0)..=Nanos(9)), None, 9, rows)
                .into_iter()
                .map(|m| m.row.tick)
                .collect()
        };
        assert_eq!(order(&[first.clone(), second.clone()]), [first.tick.clone(), second.tick.clone()]);
        assert_eq!(order(&[first.clone(), second.clone(), copy]), [second.tick, first.tick]);
    }

    use crate::market::Tick;
}
