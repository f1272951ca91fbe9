//! What is new: the latest trade and quote of each symbol, in memory, fed by what the follower
//! delivers, and behind it history.
//!
//! [`Latest`] is a pure state machine. What it says of a series it has read from history once
//! and kept up since; what it has not read yet, or no longer knows after a correction, is read by
//! [`Newest`], once for all who ask at that moment. Backfills do not reach the memory.
//!
//! Numbers: some 400 B a symbol, at most `live.latest_symbols_max` symbols; those beyond are read
//! from history at each request.
//!
//! [`Activity`] counts what is traded on the day, another pure state machine, some 100 B a symbol
//! within the same limit; [`Screener`] feeds it and reads the closes before the day as movers are
//! asked for.

mod activity;
mod latest;
mod newest;
mod screener;

pub use activity::{Active, Activity, By, Mover};
pub use latest::{Latest, Load, Quoted, Traded};
pub use newest::{Newest, Snapshot};
pub use screener::Screener;
