//! Bars: a fold of trades by a table of conditions, and larger bars from smaller ones.
//!
//! There is one piece of code that makes a bar, whoever asks: the reader folds history
//! ([`Folding`]), and `live` what is delivered, copies among it ([`Fold::open`]). [`conditions`]
//! says, as data, what a trade may update; [`Fold`] folds the trades of one minute or one New York
//! day; [`Aggregate`] makes bars of any [`Timeframe`] from minute bars (below a day) or daily
//! bars (a day and above).
//!
//! What it promises:
//! - A bar is a function of the set of its trades, in the total order of history
//!   ([`Place`](crate::market::Place)), not of the order in which they are added.
//! - A tick id counts once. An open fold remembers the ids it has counted, 24 bytes each (at
//!   most 58 in memory), within a budget; past the budget, or where a copy or a
//!   correction changes what it has folded, it says so and gives no bar: it must be folded again
//!   from history.
//! - Sums are exact integers; only the volume-weighted price is rounded, half up to 6 decimals.
//! - A folded bar tells how many distinct trades and corrections it covers. The highest number
//!   wins, so that several writers of one bar are harmless.

pub mod conditions;
mod fold;
mod timeframe;

pub use fold::{Added, Fold, Folded, Folding, Rules};
pub use timeframe::{Aggregate, Timeframe, TimeframeError};

use crate::market::{Kind, Nanos, calendar};

/// The span of a bar that is folded from trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// One UTC minute.
    Minute,
    /// One calendar day in New York.
    Day,
}

impl Period {
    /// When the bar that a time belongs to begins.
    #[must_use]
    pub fn start(self, time: Nanos) -> Nanos {
        match self {
            Self::Minute => time.floor(Nanos::MINUTE),
            Self::Day => calendar::new_york_midnight(calendar::new_york_date(time)),
        }
    }

    /// When the bar after the one that a time belongs to begins.
    #[must_use]
    pub fn next_start(self, time: Nanos) -> Nanos {
        match self {
            Self::Minute => time.floor(Nanos::MINUTE).plus(Nanos::MINUTE),
            Self::Day => calendar::new_york_day(calendar::new_york_date(time)).1.plus(1),
        }
    }

    /// The kind of the bars.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Minute => Kind::MinuteBar,
            Self::Day => Kind::DayBar,
        }
    }
}
