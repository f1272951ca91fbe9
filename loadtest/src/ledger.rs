//! What one client got, counted exactly.

use std::collections::BTreeSet;

/// Numbers that a client got of a run `first, first + 1, …`.
///
/// Held are the numbers behind the first gap; a client that gets all in order holds none.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    first: u64,
    next: u64,
    ahead: BTreeSet<u64>,
    last: u64,
    batch: u64,
    /// Numbers up to here may come again, for the client has resumed.
    may_repeat: u64,
    /// Numbers that came, each once.
    pub(crate) got: u64,
    /// Numbers that came again.
    pub(crate) repeated: u64,
    /// Those of them that a resume explains.
    pub(crate) resumed: u64,
    /// Numbers that came after a higher one of the same request.
    pub(crate) disordered: u64,
    /// A hash of all numbers in the order in which they came.
    pub(crate) order: u64,
}

impl Ledger {
    /// A ledger of numbers from `first` on, of requests of `batch` numbers each.
    pub(crate) fn new(first: u64, batch: u64) -> Self {
        Self {
            first,
            next: first,
            ahead: BTreeSet::new(),
            last: 0,
            batch: batch.max(1),
            may_repeat: 0,
            got: 0,
            repeated: 0,
            resumed: 0,
            disordered: 0,
            order: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Takes a number; answers whether it is new. Those before the first are of an earlier run.
    pub(crate) fn take(&mut self, number: u64) -> bool {
        if number < self.first {
            return false;
        }
        if number == self.next {
            self.next += 1;
            while self.ahead.remove(&self.next) {
                self.next += 1;
            }
        } else if number < self.next || !self.ahead.insert(number) {
            self.repeated += 1;
            self.resumed += u64::from(number <= self.may_repeat);
            return false;
        }
        let request = |number: u64| (number - self.first) / self.batch;
        if self.got > 0 && number < self.last && request(number) == request(self.last) {
            self.disordered += 1;
        }
        self.last = number;
        self.got += 1;
        self.order = (self.order ^ number).wrapping_mul(0x0100_0000_01b3);
        true
    }

    /// The client resumes: what it has may come again.
    pub(crate) fn resume(&mut self) {
        let highest = self.ahead.last().copied().unwrap_or(0);
        self.may_repeat = highest.max(self.next.saturating_sub(1));
    }

    /// How many of the numbers until `end` (excluded) never came.
    pub(crate) fn lost(&self, end: u64) -> u64 {
        let above = self.ahead.range(..end).count() as u64;
        end.saturating_sub(self.next.min(end)).saturating_sub(above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_repeated_and_out_of_order_is_counted() {
        // numbers; lost of 10..20, repeated, disordered
        type Counts = (u64, u64, u64);
        let cases: &[(&[u64], Counts)] = &[
            (&[10, 11, 12, 13, 14, 15, 16, 17, 18, 19], (0, 0, 0)),
            (&[9, 10, 12, 13, 15], (6, 0, 0)),
            (&[10, 12, 11, 13], (6, 0, 1)),
            (&[10, 11, 12, 15, 13, 14], (4, 0, 0)),
            (&[10, 10, 14, 14, 11, 10], (7, 3, 1)),
            (&[], (10, 0, 0)),
        ];
        for (numbers, expected) in cases {
            let mut ledger = Ledger::new(10, 5);
            numbers.iter().for_each(|number| {
                ledger.take(*number);
            });
            assert_eq!((ledger.lost(20), ledger.repeated, ledger.disordered), *expected, "{numbers:?}");
        }
    }

    #[test]
    fn what_a_resume_brings_again_is_told_apart() {
        let mut ledger = Ledger::new(1, 1);
        for number in [1, 2, 5] {
            ledger.take(number);
        }
        ledger.resume();
        for number in [2, 3, 4, 5, 6, 6] {
            ledger.take(number);
        }
        assert_eq!((ledger.lost(7), ledger.repeated, ledger.resumed), (0, 3, 2));
    }

    #[test]
    fn order_is_told_by_the_hash() {
        let order = |numbers: [u64; 3]| {
            let mut ledger = Ledger::new(1, 1);
            for number in numbers {
                ledger.take(number);
            }
            ledger.order
        };
        assert_eq!(order([1, 2, 3]), order([1, 2, 3]));
        assert_ne!(order([1, 2, 3]), order([1, 3, 2]));
    }
}
