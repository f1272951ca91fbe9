//! Records in memory and a clock that tests move, for the tests of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Audit, Keys, MonoClock};
use crate::config::Config;
use crate::seal::Keyring;
use crate::store::{Record, Records, Space, StoreError};

type Row = (Space, String, String);

/// Last-write-wins rows in memory, which can be told to refuse writes.
#[derive(Default)]
pub(crate) struct MemoryRecords {
    pub(crate) rows: Mutex<BTreeMap<Row, Record>>,
    pub(crate) refuses: AtomicBool,
}

#[async_trait]
impl Records for MemoryRecords {
    async fn get(&self, space: Space, part: &str, key: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.rows.lock().get(&(space, part.to_owned(), key.to_owned())).cloned())
    }

    async fn put(&self, space: Space, part: &str, record: Record) -> Result<(), StoreError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(StoreError::refused("disk full"));
        }
        let mut rows = self.rows.lock();
        let row = (space, part.to_owned(), record.key.clone());
        if rows.get(&row).is_none_or(|there| there.version < record.version) {
            rows.insert(row, record);
        }
        Ok(())
    }

    async fn put_if(&self, _: Space, _: &str, _: Record, _: u64) -> Result<bool, StoreError> {
        Err(StoreError::invalid("these rows are last-write-wins"))
    }

    async fn scan(
        &self,
        space: Space,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let rows = self.rows.lock();
        let of_part = rows.iter().filter(|((s, p, _), _)| *s == space && p == part);
        let later = of_part.filter(|((_, _, key), _)| after.is_none_or(|after| key.as_str() > after));
        Ok(later.map(|(_, record)| record.clone()).take(limit).collect())
    }
}

/// A monotonic clock, in milliseconds, and the hand that moves it.
pub(crate) fn moved_clock() -> (Arc<AtomicU64>, MonoClock) {
    let now_ms = Arc::new(AtomicU64::new(1_000));
    let read = Arc::clone(&now_ms);
    (now_ms, MonoClock::new(move || Duration::from_millis(read.load(Ordering::Relaxed))))
}

/// Keys and audit over these records.
pub(crate) async fn keys_over(
    records: &Arc<MemoryRecords>,
    sets: &[&str],
    clock: MonoClock,
) -> (Arc<Keys>, Arc<Audit>) {
    let keyring = Arc::new(Keyring::from_secret([7; 32]));
    let audit = Arc::new(Audit::new(Arc::clone(records) as _, Arc::clone(&keyring)).unwrap());
    let config = Config::with(sets).unwrap().access;
    let keys = Keys::open(Arc::clone(records) as _, keyring, Arc::clone(&audit), config, clock).await;
    (Arc::new(keys.unwrap()), audit)
}
