//! History: what was stored, read back as one series in one order.
//!
//! [`merge`] makes one sequence of any copies of a series (tail and blocks, in any
//! duplication), [`amend`] applies corrections and cancels to trades, [`page`] is the token
//! by which a client reads on, [`Reader`] does the reading over the doors of `store` and
//! makes bars of what it reads.
//!
//! Numbers: a page is at most 10,000 data points over all symbols. A read holds at most twice
//! the rows it was asked for, all ticks of one nanosecond, and one page of blocks as stored
//! ([`ReadLimits::blocks_bytes_max`]); what is in the tail it does not copy. As soon as it has
//! a data point it ends a page early rather than read more than
//! [`ReadLimits::page_read_bytes_max`] stored bytes for it. So many read at once
//! ([`ReadLimits::reads_max`]); more wait a moment and are then refused.
//!
//! Promises: the tail is read before the blocks, so that no tick is missed that moves from
//! one to the other meanwhile; one tick an id; the total order (event time, order, id); a page
//! that starts inside ticks of one nanosecond goes on exactly where the last one ended; what
//! is damaged is an error by name and never a wrong price.

pub mod amend;
mod bars;
mod fill;
mod incomplete;
pub mod keeper;
pub mod merge;
pub mod page;
mod reader;
mod so_far;
mod symbols;
pub mod tasks;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;

pub use amend::Entry;
pub use fill::Page;
pub use merge::Key;
pub use page::{Cursor, PageToken, Resume};
pub use reader::{BarQuery, BarSpan, ReadError, ReadLimits, Reader, TickQuery};
pub use so_far::{SoFar, SoFarQuery, TradeName};
pub use symbols::SymbolPage;

use crate::market::{Nanos, Series};
use crate::seal::SealKey;
use crate::store::{BlockKey, BucketKey};
use crate::tape::{Snapshot, Unreadable, WaitToken};

/// The tail as readers see it.
#[async_trait]
pub trait TailDoor: Send + Sync + 'static {
    /// The ticks of a series, taken in one step. It holds every tick of the node's position that
    /// was not in a block when it was taken.
    ///
    /// # Errors
    /// [`Unreadable`] where it cannot promise that.
    fn snapshot(&self, series: Series) -> Result<Snapshot, Unreadable>;

    /// Whether it can.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn readable(&self) -> Result<(), Unreadable>;

    /// At most `limit` series that have ticks in the tail, ascending, from `from` on.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn series_from(&self, from: Bound<Series>, limit: usize) -> Result<Vec<Series>, Unreadable>;

    /// Waits until the node's position covers all that the token names, at most `deadline`;
    /// answers whether it does.
    async fn wait_for(&self, token: &WaitToken, deadline: Duration) -> bool;
}

/// What a block's table is sealed for: its row's key, and what else the row says of it.
#[must_use]
pub fn block_seal_key(bucket: &BucketKey, block: &BlockKey, last: Nanos, count: u32) -> SealKey {
    SealKey::new("block")
        .part(bucket.symbol.padded())
        .part(&bucket.bucket.0.to_be_bytes())
        .part(&[block.kind.number()])
        .part(&block.first.0.to_be_bytes())
        .part(&block.id)
        .part(&last.0.to_be_bytes())
        .part(&count.to_be_bytes())
}
