//! What is new: the latest trade and quote of each symbol, in memory, fed by what the follower
//! delivers, and behind it history.
//!
//! [`Latest`] is a pure state machine. What it says of a series it has read from history once
//! and kept up since; what it has not read yet, or no longer knows after a correction, is read by
//! [`Newest`], once for all who ask at that moment. Backfills do not reach the memory.
//!
//! [`OpenBars`] folds minute and daily bars as they come and tells them as they close.
//!
//! Numbers: some 400 B a symbol, at most `live.latest_symbols_max` symbols; those beyond are read
//! from history at each request.

mod bars;
mod latest;
mod newest;

pub use bars::{AskId, BarCounts, BarLimits, BarsEffect, OpenBars};
pub use latest::{Latest, Load, Quoted, Traded};
pub use newest::{Newest, Snapshot};
