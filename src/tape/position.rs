//! Positions: how far on every tape. A node's progress, a keeper's mark and a client's cursor
//! are all Positions (`docs/FORMATS.md`, section 8).
//!
//! On one tape it is `next` and `voids`: every seq below `next` is covered except the voids.
//! A Position names the tapes that differ from their region's retired list, and how much of
//! that list its writer had seen; what an absent tape means is therefore decided by who knows
//! the list ([`super::RetiredLists`]). 15 live tapes take about 180 bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::codec::{CodecError, Fields, put_text, put_varint, version};
use super::frame::Region;
use crate::store::TapeId;

/// The most voids of a tape.
pub const VOIDS_MAX: usize = 512;
/// The most tapes that a Position names.
pub const POSITION_TAPES_MAX: usize = 4_096;
/// The most regions that a Position names.
pub const POSITION_REGIONS_MAX: usize = 64;
/// The most tapes that a wait token names.
pub const WAIT_TAPES_MAX: usize = 8;

const POSITION_VERSION: u8 = 1;
const WAIT_VERSION: u8 = 1;

/// How far on one tape: everything below `next` except the voids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The lowest seq that was neither seen nor passed.
    pub next: u64,
    /// The seqs below `next` that were passed unseen.
    pub voids: BTreeSet<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::at(1)
    }
}

impl Progress {
    /// Everything below `next`.
    #[must_use]
    pub const fn at(next: u64) -> Self {
        Self { next, voids: BTreeSet::new() }
    }

    /// Whether a seq is covered.
    #[must_use]
    pub fn covers(&self, seq: u64) -> bool {
        seq < self.next && !self.voids.contains(&seq)
    }

    /// The first seq from here on that is covered.
    #[must_use]
    pub fn next_covered(&self, from: u64) -> Option<u64> {
        (from..self.next).find(|seq| !self.voids.contains(seq))
    }

    /// Whether all is covered that `other` covers.
    #[must_use]
    pub fn covers_all(&self, other: &Self) -> bool {
        if other.next <= self.next {
            return self.voids.iter().all(|void| !other.covers(*void));
        }
        self.voids.iter().all(|void| !other.covers(*void))
            && (self.next..other.next).all(|seq| other.voids.contains(&seq))
    }

    /// The seqs that are covered here and not in `other`, in ranges, ascending.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Vec<RangeInclusive<u64>> {
        let mut ranges = Vec::new();
        for void in &other.voids {
            if self.covers(*void) {
                push_seq(&mut ranges, *void);
            }
        }
        let mut from = other.next;
        for void in self.voids.range(other.next.min(self.next)..self.next) {
            if from < *void {
                push_range(&mut ranges, from, *void - 1);
            }
            from = from.max(void + 1);
        }
        if from < self.next {
            push_range(&mut ranges, from, self.next - 1);
        }
        ranges
    }

    /// What one of the two covers.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let voids = self.voids.union(&other.voids);
        let voids = voids.copied().filter(|seq| !self.covers(*seq) && !other.covers(*seq)).collect();
        Self { next: self.next.max(other.next), voids }
    }

    /// What both cover.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let next = self.next.min(other.next);
        let voids = self.voids.union(&other.voids).copied().filter(|seq| *seq < next).collect();
        Self { next, voids }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(self.next, out);
        put_varint(self.voids.len() as u64, out);
        let mut last = 0;
        for void in &self.voids {
            put_varint(void - last, out);
            last = *void;
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        let next = fields.varint("next")?;
        let mut voids = BTreeSet::new();
        let mut last = 0_u64;
        for _ in 0..fields.count(VOIDS_MAX, "voids")? {
            let step = fields.varint("void")?;
            last = last
                .checked_add(step)
                .filter(|seq| step > 0 && *seq < next)
                .ok_or(CodecError::invalid("void", step, "ascending seqs below next"))?;
            voids.insert(last);
        }
        if next == 0 {
            return Err(CodecError::invalid("next", next, "at least 1"));
        }
        Ok(Self { next, voids })
    }
}

fn push_seq(ranges: &mut Vec<RangeInclusive<u64>>, seq: u64) {
    push_range(ranges, seq, seq);
}

fn push_range(ranges: &mut Vec<RangeInclusive<u64>>, first: u64, last: u64) {
    match ranges.last_mut() {
        Some(range) if range.end() + 1 == first => *range = *range.start()..=last,
        _ => ranges.push(first..=last),
    }
}

/// How much of a region's retired list was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The list's random id: a list that was lost and begun again is another list.
    pub list: u64,
    /// The number of the last entry that was seen.
    pub k: u64,
}

/// How far on every tape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// A region, how much of its retired list was compared.
    pub seen: BTreeMap<Region, Seen>,
    /// The tapes that differ from their retired entry.
    pub tapes: BTreeMap<TapeId, Progress>,
}

impl Position {
    /// The bytes of a Position; a mark holds them, a cursor is a token of them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![POSITION_VERSION];
        self.put(&mut out);
        out
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.seen.len() as u64, out);
        for (region, seen) in &self.seen {
            put_text(region.as_str(), out);
            out.extend_from_slice(&seen.list.to_be_bytes());
            put_varint(seen.k, out);
        }
        put_varint(self.tapes.len() as u64, out);
        for (tape, progress) in &self.tapes {
            out.extend_from_slice(&tape.0.to_be_bytes());
            progress.encode(out);
        }
    }

    /// Reads the bytes of a Position.
    ///
    /// # Errors
    /// [`CodecError`] names the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(bytes);
        version(&mut fields, POSITION_VERSION)?;
        let position = Self::take(&mut fields)?;
        fields.end()?;
        Ok(position)
    }

    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        let mut position = Self::default();
        for _ in 0..fields.count(POSITION_REGIONS_MAX, "regions")? {
            let region = take_region(fields)?;
            let seen = Seen { list: fields.fixed("list")?, k: fields.varint("k")? };
            if position.seen.last_key_value().is_some_and(|(last, _)| *last >= region) {
                return Err(CodecError::invalid("region", 0, "ascending names"));
            }
            position.seen.insert(region, seen);
        }
        for _ in 0..fields.count(POSITION_TAPES_MAX, "tapes")? {
            let tape = TapeId(fields.fixed("tape")?);
            if position.tapes.last_key_value().is_some_and(|(last, _)| *last >= tape) {
                return Err(CodecError::invalid("tape", tape.0, "ascending ids"));
            }
            position.tapes.insert(tape, Progress::decode(fields)?);
        }
        Ok(position)
    }
}

pub(crate) fn take_region(fields: &mut Fields<'_>) -> Result<Region, CodecError> {
    let name = fields.text("region")?;
    Region::parse(name)
        .map_err(|_| CodecError::invalid("region", name.len() as u64, "1 to 16 of a-z, 0-9, '-'"))
}

/// What an acknowledged request may be waited for by: the last seq that holds a part of it, on
/// each tape that does (one, unless the writer went to a new tape meanwhile). It is no cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitToken(pub BTreeMap<TapeId, u64>);

impl WaitToken {
    /// The bytes of a wait token.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![WAIT_VERSION];
        put_varint(self.0.len() as u64, &mut out);
        for (tape, seq) in &self.0 {
            out.extend_from_slice(&tape.0.to_be_bytes());
            put_varint(*seq, &mut out);
        }
        out
    }

    /// Reads the bytes of a wait token.
    ///
    /// # Errors
    /// [`CodecError`] names the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(bytes);
        version(&mut fields, WAIT_VERSION)?;
        let mut token = Self::default();
        for _ in 0..fields.count(WAIT_TAPES_MAX, "tapes")? {
            let tape = TapeId(fields.fixed("tape")?);
            if token.0.last_key_value().is_some_and(|(last, _)| *last >= tape) {
                return Err(CodecError::invalid("tape", tape.0, "ascending ids"));
            }
            token.0.insert(tape, fields.varint("seq")?);
        }
        fields.end()?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;
    use proptest::prelude::*;

    fn progress() -> impl Strategy<Value = Progress> {
        (1_u64..40, proptest::collection::btree_set(1_u64..40, 0..8)).prop_map(|(next, voids)| Progress {
            next,
            voids: voids.into_iter().filter(|seq| *seq < next).collect(),
        })
    }

    fn covered(progress: &Progress) -> BTreeSet<u64> {
        (1..64).filter(|seq| progress.covers(*seq)).collect()
    }

    #[test]
    fn the_golden_position_and_wait_token() {
        let seen =
            BTreeMap::from([(Region::parse("local").unwrap(), Seen { list: 0x1122_3344_5566_7788, k: 5 })]);
        let tapes = BTreeMap::from([
            (TapeId(0x0123_4567_89ab_cdef), Progress::at(301)),
            (TapeId(0xfedc_ba98_7654_3210), Progress { next: 12, voids: [3, 9].into() }),
        ]);
        let position = Position { seen, tapes };
        assert_eq!(position.encode(), golden::block("position"));
        assert_eq!(Position::decode(&golden::block("position")), Ok(position));
        let token = WaitToken([(TapeId(0x0123_4567_89ab_cdef), 300)].into());
        assert_eq!(token.encode(), golden::block("wait-token"));
        assert_eq!(WaitToken::decode(&golden::block("wait-token")), Ok(token));
    }

    proptest! {
        #[test]
        fn algebra_is_that_of_sets(a in progress(), b in progress()) {
            let (x, y) = (covered(&a), covered(&b));
            prop_assert_eq!(covered(&a.join(&b)), x.union(&y).copied().collect());
            prop_assert_eq!(covered(&a.meet(&b)), x.intersection(&y).copied().collect());
            let minus: BTreeSet<u64> = a.minus(&b).into_iter().flatten().collect();
            prop_assert_eq!(minus, x.difference(&y).copied().collect());
            prop_assert_eq!(a.covers_all(&b), y.is_subset(&x));
        }

        #[test]
        fn positions_round_trip(tapes in proptest::collection::btree_map(any::<u64>(), progress(), 0..6), k in any::<u64>()) {
            let seen = BTreeMap::from([(Region::parse("local").unwrap(), Seen { list: 7, k })]);
            let tapes = tapes.into_iter().map(|(tape, progress)| (TapeId(tape), progress)).collect();
            let position = Position { seen, tapes };
            prop_assert_eq!(Position::decode(&position.encode()), Ok(position));
        }

        #[test]
        fn any_bytes_are_a_position_in_one_form_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [&[POSITION_VERSION], bytes.as_slice()].concat();
            if let Ok(position) = Position::decode(&bytes) {
                prop_assert_eq!(position.encode(), bytes);
            }
        }
    }
}
