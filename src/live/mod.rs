//! What is new: the latest trade and quote of each symbol, in memory, fed by what the follower
//! delivers, and behind it history.
//!
//! [`Latest`] is a pure state machine. What it says of a series it has read from history once
//! and kept up since; what it has not read yet, or no longer knows after a correction, is read by
//! [`Newest`], once for all who ask at that moment. Backfills do not reach the memory.
//!
//! [`Newest::newest`] answers many series under one lock, for feeds; bars, statuses and bands are
//! remembered only of symbols of which they are asked for there.
//!
//! Numbers: some 400 B a symbol, as much again with bars, statuses and bands, at most `live.latest_symbols_max` symbols; those beyond are read
//! from history at each request.

mod latest;
mod newest;

pub use latest::{Ask, Latest, Load, Member, Quoted, Traded};
pub use newest::{Newest, Snapshot};
