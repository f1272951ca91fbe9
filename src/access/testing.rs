//! Keys over records in memory and a clock that tests move, for the tests of this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Audit, Keys, MonoClock, Tickets};
use crate::config::Config;
use crate::seal::Keyring;
use crate::store::memory::MemoryStore;

/// A monotonic clock, in milliseconds, and the hand that moves it.
pub(crate) fn moved_clock() -> (Arc<AtomicU64>, MonoClock) {
    let now_ms = Arc::new(AtomicU64::new(1_000));
    let read = Arc::clone(&now_ms);
    (now_ms, MonoClock::new(move || Duration::from_millis(read.load(Ordering::Relaxed))))
}

/// Keys and audit over these records.
pub(crate) async fn keys_over(
    records: &Arc<MemoryStore>,
    sets: &[&str],
    clock: MonoClock,
) -> (Arc<Keys>, Arc<Audit>) {
    let keyring = Arc::new(Keyring::from_secret([7; 32]));
    let audit = Arc::new(Audit::new(Arc::clone(records) as _, Arc::clone(&keyring)).unwrap());
    let config = Config::with(sets).unwrap().access;
    let keys = Keys::open(Arc::clone(records) as _, keyring, Arc::clone(&audit), config, clock).await;
    (Arc::new(keys.unwrap()), audit)
}

/// Tickets of these keys, of the region `east`.
pub(crate) fn tickets_over(records: &Arc<MemoryStore>, keys: &Arc<Keys>, sets: &[&str]) -> Tickets {
    let keyring = Arc::new(Keyring::from_secret([7; 32]));
    let config = Config::with(sets).unwrap().access;
    Tickets::new(Arc::clone(records) as _, keyring, Arc::clone(keys), "east".to_owned(), config)
}
