//! Sets of numbers, kept as ranges.

use std::ops::RangeInclusive;

/// A set of numbers as sorted ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    ranges: Vec<(u64, u64)>,
}

impl Ranges {
    /// No numbers.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// The number of ranges.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.ranges.first().map(|range| range.0)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.ranges.iter().map(|(first, last)| *first..=*last)
    }

    /// Whether a number is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < number);
        self.ranges.get(at).is_some_and(|range| range.0 <= number)
    }

    /// Adds a range, and tells which numbers of it are new.
    pub fn insert(&mut self, range: RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        let (first, last) = (*range.start(), *range.end());
        if first > last {
            return Vec::new();
        }
        let from = self.ranges.partition_point(|range| range.1 < first);
        let to = self.ranges.partition_point(|range| range.0 <= last);
        let mut new = Vec::new();
        let mut free = Some(first);
        for (start, end) in self.ranges.iter().take(to).skip(from) {
            if let Some(at) = free
                && at < *start
            {
                new.push(at..=*start - 1);
            }
            free = end.checked_add(1);
        }
        if let Some(at) = free
            && at <= last
        {
            new.push(at..=last);
        }
        if new.is_empty() {
            return new;
        }
        // Ranges that touch are one.
        let from = self.ranges.partition_point(|range| range.1.saturating_add(1) < first);
        let to = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        let joined = self
            .ranges
            .drain(from..to)
            .fold((first, last), |joined, range| (joined.0.min(range.0), joined.1.max(range.1)));
        self.ranges.insert(from, joined);
        new
    }

    /// Removes the numbers for which `gone` says so; it is asked only about numbers of the set.
    pub fn remove_where(&mut self, gone: impl Fn(u64) -> bool) {
        let mut kept = Self::new();
        for range in self.iter() {
            for number in range.filter(|number| !gone(*number)) {
                kept.insert(number..=number);
            }
        }
        *self = kept;
    }

    /// Removes one number. Whether it was there.
    pub fn remove(&mut self, number: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < number);
        let Some(&(first, last)) = self.ranges.get(at).filter(|range| range.0 <= number) else {
            return false;
        };
        let before = (first < number).then(|| (first, number - 1));
        let after = (number < last).then(|| (number + 1, last));
        self.ranges.splice(at..=at, before.into_iter().chain(after));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_the_set(steps in proptest::collection::vec((any::<bool>(), 0_u64..40, 0_u64..6), 0..40)) {
            let (mut ranges, mut set) = (Ranges::new(), BTreeSet::new());
            for (add, first, length) in steps {
                if add {
                    let new: BTreeSet<u64> = ranges.insert(first..=first + length).into_iter().flatten().collect();
                    let expected = (first..=first + length).filter(|number| set.insert(*number)).collect();
                    prop_assert_eq!(new, expected);
                } else {
                    prop_assert_eq!(ranges.remove(first), set.remove(&first));
                }
                prop_assert_eq!(ranges.iter().flatten().collect::<BTreeSet<_>>(), set.clone());
                prop_assert!((0..50).all(|number| ranges.contains(number) == set.contains(&number)));
                prop_assert!(ranges.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_in_reach() {
        let mut ranges = Ranges::new();
        assert_eq!(ranges.insert(0..=u64::MAX), [0..=u64::MAX]);
        assert_eq!(ranges.insert(5..=u64::MAX), []);
        assert!(ranges.remove(u64::MAX) && !ranges.contains(u64::MAX));
    }
}
