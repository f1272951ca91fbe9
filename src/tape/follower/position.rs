//! What a node says of itself in Positions, and how it reads those of others.

use std::collections::BTreeMap;

use super::super::frame::Region;
use super::super::position::{Position, Progress, WaitToken};
use super::super::retired::RetiredLists;
use super::super::tail::Covered;
use super::Follower;
use crate::market::Nanos;
use crate::store::TapeId;

impl Follower {
    /// How far this node is. Tapes that equal their retired entry are left out (I9).
    #[must_use]
    pub fn position(&self) -> Position {
        self.cursor(&BTreeMap::new())
    }

    /// How far this node is, joined with what a client's cursor is ahead by.
    #[must_use]
    pub fn cursor(&self, ahead: &Covered) -> Position {
        let mut position = Position { seen: self.lists.seen(), tapes: BTreeMap::new() };
        let nothing = Progress::at(1);
        let strangers = ahead.keys().filter(|tape| !self.tapes.contains_key(*tape));
        for tape in self.tapes.keys().chain(strangers) {
            let own = self.tapes.get(tape).map_or(&nothing, |state| &state.progress);
            let joined = ahead.get(tape).map(|cursor| own.join(cursor));
            let progress = joined.as_ref().unwrap_or(own);
            let left_out = match self.lists.entry(*tape) {
                Some(entry) => entry.progress == *progress || !self.rules.retired_equal,
                None => progress.next == 1,
            };
            if !left_out {
                let mut progress = progress.clone();
                if !self.rules.voids_travel {
                    progress.voids.clear();
                }
                position.tapes.insert(*tape, progress);
            }
        }
        position
    }

    /// What a Position says of a tape, as far as this node can tell: never more than is true.
    #[must_use]
    pub fn progress(&self, position: &Position, tape: TapeId) -> Progress {
        if !position.tapes.contains_key(&tape) {
            if !self.rules.retired_within_k
                && let Some(entry) = self.lists.entry(tape)
            {
                return entry.progress.clone();
            }
            if !self.rules.behind_is_unknown
                && let Some(state) = self.tapes.get(&tape)
                && state.home.is_some_and(|home| self.behind(position).contains(&home))
                && self.lists.progress(position, tape).next == 1
            {
                return state.progress.clone();
            }
        }
        self.lists.progress(position, tape)
    }

    /// A Position with its absent tapes filled in, for all tapes that it or this node names.
    #[must_use]
    pub fn expand(&self, position: &Position) -> Covered {
        let strangers = position.tapes.keys().filter(|tape| !self.tapes.contains_key(*tape));
        self.tapes.keys().chain(strangers).map(|tape| (*tape, self.progress(position, *tape))).collect()
    }

    /// What all of these Positions cover of a tape.
    #[must_use]
    pub fn meet_of(&self, positions: &[Position], tape: TapeId) -> Progress {
        let each = positions.iter().map(|position| self.progress(position, tape));
        let met = each.reduce(|a, b| match self.rules.meet_of_marks {
            true => a.meet(&b),
            false => {
                if a.next >= b.next {
                    a
                } else {
                    b
                }
            }
        });
        met.unwrap_or_default()
    }

    /// The regions of whose retired list a Position has seen more than this node: read them at
    /// home ([`Self::list_read`]) before the Position is used. Where home does not answer it is
    /// used all the same: tapes in doubt count from 1, which costs copies and no losses.
    #[must_use]
    pub fn behind(&self, position: &Position) -> Vec<Region> {
        self.lists.behind(position)
    }

    /// How far this node is on a tape; `None` of a tape that it has never heard of.
    #[must_use]
    pub fn own_progress(&self, tape: TapeId) -> Option<&Progress> {
        self.tapes.get(&tape).map(|state| &state.progress)
    }

    /// The tapes that are followed.
    pub fn followed(&self) -> impl Iterator<Item = (TapeId, &Progress)> {
        self.tapes.iter().map(|(tape, state)| (*tape, &state.progress))
    }

    /// The region that writes a tape, where it is known.
    #[must_use]
    pub fn home(&self, tape: TapeId) -> Option<Region> {
        self.tapes.get(&tape).and_then(|state| state.home)
    }

    /// The retired lists, as far as they were seen.
    #[must_use]
    pub const fn lists(&self) -> &RetiredLists {
        &self.lists
    }

    /// Whether an acknowledged request is within what this node has followed.
    #[must_use]
    pub fn covers(&self, token: &WaitToken) -> bool {
        token.0.iter().all(|(tape, seq)| {
            let followed = self.tapes.get(tape).map(|state| &state.progress);
            let progress = followed.or_else(|| self.lists.entry(*tape).map(|entry| &entry.progress));
            progress.is_some_and(|progress| progress.covers(*seq))
        })
    }

    /// Whether a tape's own progress is that of its retired entry.
    pub(super) fn equals_retired(&self, tape: TapeId) -> bool {
        let entry = self.lists.entry(tape);
        entry.zip(self.own_progress(tape)).is_some_and(|(entry, own)| entry.progress == *own)
    }

    /// Whether this node covers all that a Position names.
    #[must_use]
    pub fn has_followed(&self, position: &Position) -> bool {
        position.tapes.iter().all(|(tape, progress)| self.has_passed(*tape, progress))
    }

    /// Whether this node covers all that `ahead` does of a tape.
    #[must_use]
    pub fn has_passed(&self, tape: TapeId, ahead: &Progress) -> bool {
        self.tapes.get(&tape).is_some_and(|state| state.progress.covers_all(ahead))
    }

    /// About when a tape was written last, by its registry row, else by its last frame: of two of one
    /// node the one that ended first is the earlier. Of a tape that nobody knows it is long ago.
    #[must_use]
    pub fn age(&self, tape: TapeId) -> Nanos {
        let known = self.tapes.get(&tape);
        known.map(|state| state.registered.unwrap_or(state.applied_received)).unwrap_or_default()
    }
}
