//! Bars that were announced, kept for clients that were away meanwhile: such bars are on no tape.
//!
//! They are kept in the order in which they were announced, a few rows at a time, each time under a
//! time of its own: that of the node's clock, and later than the one before. This time is a client's
//! place among them. A place that no rows here were announced at was given by another node, or means
//! a time of the clock; as nodes do not close a bar at the same instant, bars that were announced up
//! to [`APART`] before such a place are given too, perhaps again.
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | rows (some 200 B) | `live.announced_bytes_max` | the oldest go: who would need them is told |
//! | their age | `live.resume_minutes`, and a minute | the same |

use std::collections::VecDeque;
use std::sync::Arc;

use crate::market::{Nanos, Row};

/// By how much nodes may differ in when they announce a bar.
pub(super) const APART: i64 = 2 * Nanos::SECOND;
/// A cursor may be a little older than `live.resume_minutes` allows.
const KEPT_LONGER: i64 = 60 * Nanos::SECOND;
/// The place of some rows in the queue.
const CHUNK_BYTES: usize = 64;

/// Some rows that were announced together.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// The place of who has had them.
    pub(super) told: Nanos,
    pub(super) rows: Arc<[Row]>,
}

impl Chunk {
    fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Row>() + CHUNK_BYTES
    }
}

/// What comes after a place.
#[derive(Debug)]
pub(super) enum After {
    /// Nothing yet.
    Nothing,
    /// These rows.
    Bars(Chunk),
    /// What came next is not kept; all is that was announced after this time.
    NotKept(Nanos),
}

/// The bars that were announced last.
#[derive(Debug)]
pub(super) struct Announced {
    bytes_max: usize,
    kept_nanos: i64,
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// All is here that was announced after this.
    reach: Nanos,
    last: Nanos,
}

impl Announced {
    /// Keeps so many bytes, of the last so many milliseconds.
    pub(super) fn new(bytes_max: usize, kept_ms: u64) -> Self {
        let kept_nanos = i64::try_from(kept_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let kept_nanos = kept_nanos.saturating_add(KEPT_LONGER);
        let (reach, last) = Default::default();
        Self { bytes_max, kept_nanos, chunks: VecDeque::new(), bytes: 0, reach, last }
    }

    /// From now on all bars are announced here that somebody here hears; before, some may not have been.
    pub(super) fn begin(&mut self, now: Nanos) {
        self.last = self.next(now);
        (self.reach, self.bytes) = (self.last, 0);
        self.chunks.clear();
    }

    /// The place of who has had all.
    pub(super) const fn last(&self) -> Nanos {
        self.last
    }

    /// When what is announced now counts as announced.
    fn next(&self, now: Nanos) -> Nanos {
        now.max(self.last.plus(1))
    }

    /// Keeps rows that were announced.
    pub(super) fn push(&mut self, rows: &[Row], now: Nanos) {
        let chunk = Chunk { told: self.next(now), rows: rows.into() };
        self.last = chunk.told;
        self.bytes += chunk.bytes();
        self.chunks.push_back(chunk);
        let oldest = self.last.plus(-self.kept_nanos);
        let goes = |chunk: &Chunk, bytes| bytes > self.bytes_max || chunk.told < oldest;
        while let Some(gone) = self.chunks.front().filter(|chunk| goes(chunk, self.bytes)) {
            self.reach = gone.told;
            self.bytes -= gone.bytes();
            self.chunks.pop_front();
        }
    }

    /// What comes after a place.
    pub(super) fn after(&self, place: Nanos) -> After {
        match self.index(place) {
            None => After::NotKept(self.reach),
            Some(at) => self.chunks.get(at).map_or(After::Nothing, |chunk| After::Bars(chunk.clone())),
        }
    }

    /// How many rows come after a place, where all of them are kept.
    pub(super) fn rows_after(&self, place: Nanos) -> Option<usize> {
        let from = self.index(place)?;
        Some(self.chunks.range(from..).map(|chunk| chunk.rows.len()).sum())
    }

    /// A place as a cursor that is given now tells it; `None` where the time of the cursor says it
    /// all. An old place is told as right before what comes next: another node may not reach as far.
    pub(super) fn told(&self, place: Nanos, now: Nanos) -> Option<Nanos> {
        match self.after(place) {
            After::Bars(chunk) if place < chunk.told.plus(-APART) => Some(chunk.told.plus(-1)),
            After::Nothing if place < now.plus(-APART) => None,
            _ => Some(place),
        }
    }

    /// Where what comes after a place begins; `None` where some of it is not kept.
    fn index(&self, place: Nanos) -> Option<usize> {
        let after = |place| self.chunks.partition_point(|chunk| chunk.told <= place);
        let is_own = place == self.reach
            || after(place)
                .checked_sub(1)
                .and_then(|at| self.chunks.get(at))
                .is_some_and(|c| c.told == place);
        if is_own {
            return Some(after(place));
        }
        let from = place.plus(-APART);
        (from >= self.reach).then(|| after(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::fixtures::row;

    const MINUTE: i64 = 60 * Nanos::SECOND;

    fn ring(bytes_max: usize) -> Announced {
        let mut ring = Announced::new(bytes_max, 900_000);
        ring.begin(Nanos(MINUTE));
        ring
    }

    fn rows(count: u32) -> Vec<Row> {
        (0..count).map(|index| row("A", index)).collect()
    }

    /// The times of all that comes after a place, and how often something was not kept.
    fn all(ring: &Announced, mut place: Nanos) -> (Vec<i64>, usize) {
        let (mut times, mut lost) = (Vec::new(), 0);
        loop {
            match ring.after(place) {
                After::Nothing => return (times, lost),
                After::NotKept(reach) => (place, lost) = (reach, lost + 1),
                After::Bars(chunk) => {
                    times.push(chunk.told.0);
                    place = chunk.told;
                }
            }
        }
    }

    #[test]
    fn each_place_has_what_came_after_it_and_times_never_repeat() {
        let mut ring = ring(1 << 20);
        for now in [2 * MINUTE, 2 * MINUTE, MINUTE, 3 * MINUTE] {
            ring.push(&rows(1), Nanos(now));
        }
        let times = [2 * MINUTE, 2 * MINUTE + 1, 2 * MINUTE + 2, 3 * MINUTE];
        for (at, time) in times.iter().enumerate() {
            assert_eq!(all(&ring, Nanos(*time)), (times[at + 1..].to_vec(), 0), "a place of this node");
        }
        assert_eq!(all(&ring, Nanos(MINUTE)), (times.to_vec(), 0));
        assert_eq!(all(&ring, Nanos(2 * MINUTE + 1_000)), (times.to_vec(), 0), "of another: some again");
        assert_eq!(all(&ring, Nanos(2 * MINUTE + 3 + APART)), (times[3..].to_vec(), 0));
        assert_eq!(all(&ring, Nanos(MINUTE - 1)), (times.to_vec(), 1), "before it began");
        assert_eq!(ring.rows_after(Nanos(2 * MINUTE + 1)), Some(2));
        assert_eq!(ring.rows_after(Nanos(MINUTE - 1)), None);
    }

    #[test]
    fn what_is_too_much_or_too_old_goes_and_is_told() {
        let of_two = 2 * (10 * size_of::<Row>() + CHUNK_BYTES);
        let mut ring = ring(of_two);
        for minute in 2..=4 {
            ring.push(&rows(10), Nanos(minute * MINUTE));
        }
        assert_eq!(all(&ring, Nanos(MINUTE)), (vec![3 * MINUTE, 4 * MINUTE], 1));
        assert_eq!(all(&ring, Nanos(2 * MINUTE)), (vec![3 * MINUTE, 4 * MINUTE], 0), "it has had those");
        ring.push(&rows(10), Nanos(20 * MINUTE));
        assert_eq!(all(&ring, Nanos(4 * MINUTE)), (vec![20 * MINUTE], 0));
        ring.push(&rows(1), Nanos(40 * MINUTE));
        assert_eq!(all(&ring, Nanos(4 * MINUTE)), (vec![40 * MINUTE], 1));
        assert_eq!(all(&self::ring(0), Nanos(MINUTE)), (vec![], 0));
    }

    #[test]
    fn a_cursor_tells_the_same_place_here_and_one_that_others_reach() {
        let mut ring = ring(1 << 20);
        for minute in [30, 31, 32] {
            ring.push(&rows(1), Nanos(minute * MINUTE));
        }
        let now = Nanos(32 * MINUTE + Nanos::SECOND);
        for place in [30, 31].map(|minute| Nanos(minute * MINUTE)) {
            let told = ring.told(place, now).unwrap();
            assert_eq!(told.0, place.0 + MINUTE - 1);
            assert_eq!(all(&ring, told), all(&ring, place));
        }
        assert_eq!(ring.told(ring.last(), now), Some(ring.last()), "another node may be about to");
        assert_eq!(ring.told(ring.last(), Nanos(33 * MINUTE)), None);
    }
}
