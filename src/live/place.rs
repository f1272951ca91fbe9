//! Where a client is, and where it begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cursor::Cursor;
use crate::market::Nanos;
use crate::store::TapeId;
use crate::tape::{Follower, Position};

/// How far a client is: on the tapes, and in the bars that are announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// It has had what this covers.
    pub position: Arc<Position>,
    /// It has had the bars that were announced until then.
    pub told: Nanos,
}

/// Where a client begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// After everything that this place covers; when it was given.
    After(Place, Nanos),
    /// With what was received since this time.
    Since(Nanos),
}

impl Start {
    /// Where a cursor begins.
    #[must_use]
    pub fn of(cursor: &Cursor) -> Self {
        Self::After(cursor.place(), cursor.at)
    }

    /// The cursor of who is there still; `None` where it is a time.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        let Self::After(place, at) = self else { return None };
        let told = (place.told != *at).then_some(place.told);
        Some(Cursor { position: (*place.position).clone(), at: *at, told, ticket: None })
    }

    /// Whether both begin at one place on the tapes; then this one begins with the bars of either.
    pub(super) fn joins(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::After(one, _), Self::After(other, _)) if one.position == other.position => {
                one.told = one.told.min(other.told);
                true
            }
            (Self::Since(one), Self::Since(other)) => one == other,
            _ => false,
        }
    }

    /// The time from which on everything can be given.
    pub(super) const fn time(&self) -> Nanos {
        match self {
            Self::After(_, at) | Self::Since(at) => *at,
        }
    }

    /// Bars that were announced until then are not wanted.
    pub(super) const fn told(&self) -> Nanos {
        match self {
            Self::After(place, _) => place.told,
            Self::Since(at) => at.plus(-1),
        }
    }
}

/// What all of these Positions cover.
pub(super) fn meet(positions: &[Arc<Position>], follower: &Follower) -> Position {
    let positions: Vec<Position> = positions.iter().map(|position| (**position).clone()).collect();
    let mut met = Position { seen: follower.position().seen, ..Position::default() };
    let tapes: BTreeSet<TapeId> =
        positions.iter().flat_map(|position| follower.expand(position).into_keys()).collect();
    for tape in tapes {
        met.tapes.insert(tape, follower.meet_of(&positions, tape));
    }
    met
}
