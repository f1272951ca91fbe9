//! The hot door: hints between nodes of a region, a small cache, counters.
//!
//! [`Hot`] speeds things up and is never needed for truth: it may drop, repeat, reorder and
//! forget at any time, and everything above works without it. What it drops is found by the
//! dense numbers of the tapes and healed by polling; what it forgets is read again.
//!
//! | backend | for |
//! |---|---|
//! | [`memory`] | one process: bounded queues, cache and counters |
//! | [`redis`] | a region, by its Redis |
//!
//! Every backend passes the suite in `suite`.

pub mod memory;
pub mod redis;
#[cfg(test)]
mod suite;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// The door was not reachable, or not in time. Go on without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HotError(pub String);

/// Hints, cache and counters of a region. Times are passed in as milliseconds of one clock: the
/// wall clock where several nodes share the door.
#[async_trait]
pub trait Hot: Send + Sync + 'static {
    /// Hands bytes to everyone who subscribes in this region. Ok does not mean that anyone
    /// has them.
    ///
    /// # Errors
    /// [`HotError`]; nothing is lost that matters.
    async fn publish(&self, bytes: Bytes) -> Result<(), HotError>;

    /// What is published from now on, perhaps with holes, repeats and in another order.
    ///
    /// # Errors
    /// [`HotError`].
    async fn subscribe(&self) -> Result<Box<dyn Subscription>, HotError>;

    /// The value that was cached under a key, where it is still there.
    ///
    /// # Errors
    /// [`HotError`].
    async fn cached(&self, key: &str, now_ms: u64) -> Result<Option<Bytes>, HotError>;

    /// Caches a value for at most `ttl`. It may be gone earlier.
    ///
    /// # Errors
    /// [`HotError`].
    async fn cache(&self, key: &str, value: Bytes, ttl: Duration, now_ms: u64) -> Result<(), HotError>;

    /// Adds `cost` to the counter of `key` in the current window, and answers its sum.
    /// Windows begin at multiples of their length; a forgotten counter begins at zero again.
    ///
    /// # Errors
    /// [`HotError`].
    async fn count(&self, key: &str, cost: u64, window: Duration, now_ms: u64) -> Result<u64, HotError>;
}

/// A stream of published bytes.
#[async_trait]
pub trait Subscription: Send {
    /// The next bytes; `None` when the door has closed. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Bytes>;

    /// How many were dropped so far because they were not taken in time, as far as is known.
    fn dropped(&self) -> u64;
}
