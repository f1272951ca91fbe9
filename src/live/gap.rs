//! What is lost to a client, as it is told.

use crate::market::Nanos;

/// What is lost to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Nothing is lost that was received before.
    pub from: Nanos,
    /// Nothing is lost that was received after.
    pub to: Nanos,
    /// Why.
    pub reason: GapReason,
}

/// Why something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The client comes back later than a stream reaches: history has it.
    TooOld,
    /// The client named a time to begin with that is further back: history has it.
    TooEarly,
    /// Frames are on no tape any more.
    Lost,
    /// Bars that closed meanwhile are not kept here, for the node was down or had no room: history
    /// has them. No tick is lost.
    BarsNotKept,
}

impl GapReason {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooOld | Self::TooEarly => "too_old",
            Self::Lost => "lost",
            Self::BarsNotKept => "bars_not_kept",
        }
    }
}
