//! The audit: who changed what, when, from where. Entries are only added.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use super::{AccessError, secret};
use crate::market::Nanos;
use crate::seal::Keyring;
use crate::store::{Record, Records, Space, record_seal_key};

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// A key's id, or `node` or `operator` (on the machine itself).
    pub who: String,
    /// From where: an address, or `local`.
    pub from: String,
    /// The id of the request, where there is one.
    pub request: String,
}

impl Actor {
    /// The node itself, such as at its first start.
    #[must_use]
    pub fn node() -> Self {
        Self { who: "node".to_owned(), from: "local".to_owned(), request: String::new() }
    }

    /// Whoever can open the data folder.
    #[must_use]
    pub fn operator() -> Self {
        Self { who: "operator".to_owned(), from: "local".to_owned(), request: String::new() }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in nanoseconds.
    pub at: i64,
    /// Who ([`Actor`]).
    pub who: String,
    /// From where.
    pub from: String,
    /// The request.
    pub request: String,
    /// What, such as `key.create`.
    pub action: String,
    /// To what, such as a key's id.
    pub target: String,
    /// More about it, for people.
    pub detail: String,
}

/// The audit of a region's records: one part a day (UTC), keys in the order of time.
pub struct Audit {
    records: Arc<dyn Records>,
    keyring: Arc<Keyring>,
    boot: u32,
    count: AtomicU64,
}

impl Audit {
    /// The audit in these records.
    ///
    /// # Errors
    /// [`AccessError::NoRandomness`]
    pub fn new(records: Arc<dyn Records>, keyring: Arc<Keyring>) -> Result<Self, AccessError> {
        let mut boot = [0; 4];
        secret::random(&mut boot)?;
        Ok(Self { records, keyring, boot: u32::from_be_bytes(boot), count: AtomicU64::new(0) })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`AccessError`] when it is not stored.
    pub async fn append(
        &self,
        by: &Actor,
        action: &str,
        target: &str,
        detail: String,
        now: Nanos,
    ) -> Result<(), AccessError> {
        let entry = Entry {
            at: now.0,
            who: by.who.clone(),
            from: by.from.clone(),
            request: by.request.clone(),
            action: action.to_owned(),
            target: target.to_owned(),
            detail,
        };
        tracing::info!(action, of = target, who = by.who, from = by.from, "audit");
        let body = serde_json::to_vec(&entry).map_err(|error| AccessError::Damaged(error.to_string()))?;
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        // The boot's random number keeps entries of two nodes in one nanosecond apart.
        let (part, key) = (day_of(now), format!("{:020}-{:08x}-{count:08}", now.0, self.boot));
        let version = u64::try_from(now.0 / 1_000).unwrap_or(0);
        let body = self.keyring.seal(&record_seal_key(Space::Audit, &part, &key, version), &body);
        self.records.put(Space::Audit, &part, Record { key, version, body }).await.map_err(AccessError::Store)
    }

    /// Entries of a day (`YYYY-MM-DD`) after the key `after`, oldest first, each with its key.
    ///
    /// # Errors
    /// [`AccessError`] when they cannot be read or one is damaged.
    pub async fn list(
        &self,
        day: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, AccessError> {
        let rows = self.records.scan(Space::Audit, day, after, limit).await.map_err(AccessError::Store)?;
        let read = |row: Record| {
            let body = self
                .keyring
                .open(&record_seal_key(Space::Audit, day, &row.key, row.version), &row.body)
                .map_err(|error| AccessError::Damaged(format!("audit {day} {}: {error}", row.key)))?;
            let entry = serde_json::from_slice(&body)
                .map_err(|error| AccessError::Damaged(format!("audit {day} {}: {error}", row.key)))?;
            Ok((row.key, entry))
        };
        rows.into_iter().map(read).collect()
    }
}

fn day_of(time: Nanos) -> String {
    DateTime::from_timestamp_nanos(time.0).format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_entry() {
        let entry = Entry {
            at: 1_704_292_200_500_000_000,
            who: "operator".to_owned(),
            from: "local".to_owned(),
            request: String::new(),
            action: "key.create".to_owned(),
            target: "TLXXXXXXXXXXXXXXXXXX".to_owned(),
            detail: "ticks:write".to_owned(),
        };
        assert_eq!(serde_json::to_string(&entry).unwrap(), crate::market::golden::text("record-audit"));
    }
}
