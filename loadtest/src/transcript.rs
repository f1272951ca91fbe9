//! What one client got over all of its connections, held against what history holds.
//!
//! A cursor covers what the node had handed over when it gave it. So of what came to the client
//! after that time, and little before (a frame that was handed over in part), all may come again
//! once on the next connection, and nothing else may ever come again. A cursor that is given while a
//! client is still given what it lacks covers nothing of what earlier connections brought, until it
//! came again or something new came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Milliseconds before a cursor was given in which a tick may have come that it does not cover.
const SLACK_MS: u64 = 2_000;
/// Numbers that are told by name.
const NAMED_MAX: usize = 20;

/// The numbers that one client got.
#[derive(Debug)]
pub(crate) struct Transcript {
    first: u64,
    /// A bit a number.
    got: Vec<u64>,
    /// What the last cursor may not cover, and when it came.
    since: VecDeque<(u64, u64)>,
    may_repeat: BTreeSet<u64>,
    /// When this connection brought something new at first.
    new_at: Option<u64>,
    /// The last number of each symbol on this connection.
    last: BTreeMap<u64, u64>,
    /// Numbers that came, each once.
    pub(crate) count: u64,
    /// Copies that a resume explains.
    pub(crate) resumed: u64,
    /// Numbers that came again although nothing explains it.
    pub(crate) repeated: Vec<u64>,
    /// Numbers that came after a higher one of their symbol on one connection, each behind that one.
    pub(crate) disordered: Vec<(u64, u64)>,
}

/// How a transcript differs from history.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// In history and never given.
    pub(crate) lost: u64,
    /// Given and not in history.
    pub(crate) foreign: u64,
    /// Some of those that were lost.
    pub(crate) named: Vec<u64>,
}

impl Transcript {
    /// Of numbers from `first` on.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            first,
            got: Vec::new(),
            since: VecDeque::new(),
            may_repeat: BTreeSet::new(),
            new_at: None,
            last: BTreeMap::new(),
            count: 0,
            resumed: 0,
            repeated: Vec::new(),
            disordered: Vec::new(),
        }
    }

    /// Takes a number of a symbol that came at a time.
    pub(crate) fn take(&mut self, number: u64, symbol: u64, at_ms: u64) {
        let Some(index) = number.checked_sub(self.first) else { return };
        self.since.push_back((number, at_ms));
        let (word, bit) = (usize::try_from(index / 64).unwrap_or(usize::MAX), 1 << (index % 64));
        if self.got.len() <= word {
            self.got.resize(word + 1, 0);
        }
        let Some(word) = self.got.get_mut(word) else { return };
        if *word & bit == 0 {
            *word |= bit;
            self.new_at.get_or_insert(at_ms);
            self.count += 1;
        } else if self.may_repeat.remove(&number) {
            self.resumed += 1;
        } else {
            self.repeated.push(number);
            return;
        }
        let last = self.last.entry(symbol).or_insert(0);
        if number < *last {
            self.disordered.push((*last, number));
        }
        *last = number;
    }

    /// A cursor came that was given at this time.
    pub(crate) fn cursor(&mut self, given_ms: u64) {
        while self.since.front().is_some_and(|(_, at)| at + SLACK_MS < given_ms) {
            self.since.pop_front();
        }
        if self.new_at.is_some_and(|at| at + SLACK_MS < given_ms) {
            self.may_repeat.clear();
        }
    }

    /// The client comes back with its last cursor.
    pub(crate) fn resume(&mut self) {
        self.may_repeat.extend(self.since.drain(..).map(|(number, _)| number));
        self.new_at = None;
        self.last.clear();
    }

    fn has(&self, number: u64) -> bool {
        let Some(index) = number.checked_sub(self.first) else { return false };
        let word = self.got.get(usize::try_from(index / 64).unwrap_or(usize::MAX));
        word.is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    /// What it lacks of these and has beyond them.
    pub(crate) fn against<'a>(&self, history: impl IntoIterator<Item = &'a u64>) -> Difference {
        let (mut difference, mut held) = (Difference::default(), 0);
        for number in history {
            if self.has(*number) {
                held += 1;
            } else {
                difference.lost += 1;
                if difference.named.len() < NAMED_MAX {
                    difference.named.push(*number);
                }
            }
        }
        difference.foreign = self.count.saturating_sub(held);
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_what_is_foreign_is_counted() {
        let mut transcript = Transcript::new(100);
        for number in [100, 101, 164, 300] {
            transcript.take(number, 0, 0);
        }
        let history: Vec<u64> = vec![100, 101, 102, 164];
        let expected = Difference { lost: 1, foreign: 1, named: vec![102] };
        assert_eq!(transcript.against(&history), expected);
    }

    #[test]
    fn what_came_after_the_cursor_may_come_again_once() {
        let mut transcript = Transcript::new(1);
        transcript.take(1, 0, 1_000);
        transcript.take(2, 0, 9_000);
        transcript.cursor(9_500);
        transcript.take(3, 0, 10_000);
        transcript.resume();
        for number in [2, 3, 4, 3, 1] {
            transcript.take(number, 0, 11_000);
        }
        assert_eq!((transcript.count, transcript.resumed), (4, 2));
        assert_eq!(transcript.repeated, [3, 1], "once more, and nothing that the cursor covered");
        assert!(transcript.disordered.is_empty());
    }

    #[test]
    fn a_cursor_in_the_middle_of_a_replay_covers_little() {
        let mut transcript = Transcript::new(1);
        transcript.take(1, 0, 1_000);
        transcript.resume();
        transcript.cursor(20_000);
        transcript.resume();
        transcript.take(1, 0, 21_000);
        assert!(transcript.repeated.is_empty(), "it was not given yet on the second connection");
        transcript.take(2, 0, 22_000);
        transcript.cursor(30_000);
        transcript.resume();
        transcript.take(1, 0, 31_000);
        assert_eq!(transcript.repeated, [1]);
    }

    #[test]
    fn order_is_that_of_a_symbol_on_a_connection() {
        let mut transcript = Transcript::new(1);
        for (number, symbol) in [(5, 0), (2, 1), (7, 0), (6, 0)] {
            transcript.take(number, symbol, 0);
        }
        assert_eq!(transcript.disordered, [(7, 6)]);
        transcript.resume();
        transcript.take(3, 0, 0);
        assert_eq!(transcript.disordered, [(7, 6)], "another connection begins further back");
    }
}
