//! The subscriptions of all accounts, in the records.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::TryRng as _;

use super::row::{asked, id, id_of_key, is_id};
use super::{Plan, Subscription, Terms, TooMany};
use crate::access::MonoClock;
use crate::config;
use crate::market::Nanos;
use crate::seal::Keyring;
use crate::store::{Record, Records, Space, StoreError, record_seal_key};

/// Rows of one read.
const SCAN_ROWS: usize = 256;

/// Why a subscription cannot be told or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubsError {
    /// The store failed, or what it holds is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The account has none of that id.
    #[error("there is no subscription {0}")]
    NoSuch(String),
    /// A limit is reached.
    #[error("the account has {most} already, the most that {limit} allows")]
    Full {
        /// The key of the configuration.
        limit: &'static str,
        /// Its value.
        most: usize,
    },
    /// The key came with other terms before.
    #[error("this Idempotency-Key came with another body before")]
    KeyReused,
    /// What the key made was deleted.
    #[error("the subscription that this Idempotency-Key made was deleted; another one needs another key")]
    Deleted,
    /// It cannot be written down, or there are no random bits for an id.
    #[error("{0}")]
    Unwritten(String),
}

/// A page of an account's subscriptions, by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Whether there are more behind the last of them.
    pub more: bool,
}

struct CachedPlan {
    plan: Result<Arc<Plan>, TooMany>,
    made: Duration,
}

/// The subscriptions.
pub struct Subs {
    records: Arc<dyn Records>,
    keyring: Arc<Keyring>,
    config: config::Subs,
    clock: MonoClock,
    /// Changes one at a time: each looks first at what is there.
    changing: tokio::sync::Mutex<()>,
    plans: Mutex<HashMap<String, CachedPlan>>,
}

impl Subs {
    /// Over these records.
    #[must_use]
    pub fn new(
        records: Arc<dyn Records>,
        keyring: Arc<Keyring>,
        config: config::Subs,
        clock: MonoClock,
    ) -> Self {
        let (changing, plans) = (tokio::sync::Mutex::new(()), Mutex::default());
        Self { records, keyring, config, clock, changing, plans }
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &config::Subs {
        &self.config
    }

    /// An account's subscription.
    ///
    /// # Errors
    /// [`SubsError::NoSuch`], also where it is another account's; [`SubsError::Store`].
    pub async fn get(&self, account: &str, id: &str) -> Result<Subscription, SubsError> {
        let found = if is_id(id) { self.row(account, id).await? } else { None };
        found.and_then(|(_, row)| row).ok_or_else(|| SubsError::NoSuch(id.to_owned()))
    }

    /// An account's subscriptions behind the id `after`, ascending by id.
    ///
    /// # Errors
    /// [`SubsError::Store`].
    pub async fn list(&self, account: &str, after: Option<&str>, limit: usize) -> Result<Listed, SubsError> {
        let (mut subscriptions, mut after) = (Vec::new(), after.map(str::to_owned));
        loop {
            let page = self.records.scan(Space::Subscriptions, account, after.as_deref(), SCAN_ROWS).await?;
            let is_full = page.len() == SCAN_ROWS;
            after = page.last().map(|record| record.key.clone());
            for record in page {
                let Some(row) = self.opened(account, &record)? else { continue };
                if subscriptions.len() == limit {
                    return Ok(Listed { subscriptions, more: true });
                }
                subscriptions.push(row);
            }
            if !is_full {
                return Ok(Listed { subscriptions, more: false });
            }
        }
    }

    /// Makes a subscription, or tells that which the same `Idempotency-Key` and terms have made.
    /// Answers whether it was made now.
    ///
    /// # Errors
    /// [`SubsError`].
    pub async fn create(
        &self,
        account: &str,
        key: Option<&str>,
        terms: Terms,
        now: Nanos,
    ) -> Result<(Subscription, bool), SubsError> {
        let _one_at_a_time = self.changing.lock().await;
        let asked = asked(&terms).map_err(|error| SubsError::Unwritten(error.to_string()))?;
        let id = key.map_or_else(random_id, |key| Ok(id_of_key(account, key)))?;
        match self.row(account, &id).await? {
            Some((_, Some(row))) if row.asked == asked => return Ok((row, false)),
            Some((_, Some(_))) => return Err(SubsError::KeyReused),
            Some((_, None)) => return Err(SubsError::Deleted),
            None => {}
        }
        self.check_room(account).await?;
        let (account, version) = (account.to_owned(), version(now, 0));
        let row = Subscription { id, account, terms, created: now, changed: now, version, asked };
        self.put(&row).await?;
        Ok((row, true))
    }

    /// Changes a subscription to what `apply` makes of it; what `apply` refuses stays as it is.
    ///
    /// # Errors
    /// [`SubsError`], and those of `apply`.
    pub async fn change<E: From<SubsError>>(
        &self,
        account: &str,
        id: &str,
        now: Nanos,
        apply: impl FnOnce(&Subscription) -> Result<Terms, E> + Send,
    ) -> Result<Subscription, E> {
        let _one_at_a_time = self.changing.lock().await;
        let row = self.get(account, id).await?;
        let terms = apply(&row)?;
        if terms == row.terms {
            return Ok(row);
        }
        let row = Subscription { terms, changed: now, version: version(now, row.version), ..row };
        self.put(&row).await?;
        Ok(row)
    }

    /// Deletes a subscription, unless `check` refuses it.
    ///
    /// # Errors
    /// [`SubsError`], and those of `check`.
    pub async fn delete<E: From<SubsError>>(
        &self,
        account: &str,
        id: &str,
        now: Nanos,
        check: impl FnOnce(&Subscription) -> Result<(), E> + Send,
    ) -> Result<Subscription, E> {
        let _one_at_a_time = self.changing.lock().await;
        let row = self.get(account, id).await?;
        check(&row)?;
        let put = self.put_body(account, id, version(now, row.version), &[]).await;
        put.map_err(SubsError::from)?;
        Ok(row)
    }

    /// What the active subscriptions of an account want together.
    ///
    /// # Errors
    /// [`SubsError::Store`]; inside of it [`TooMany`].
    pub async fn plan(&self, account: &str) -> Result<Result<Arc<Plan>, TooMany>, SubsError> {
        let now = self.clock.elapsed();
        let refresh = Duration::from_millis(self.config.refresh_ms);
        if let Some(cached) = self.plans.lock().get(account)
            && now.saturating_sub(cached.made) < refresh
        {
            return Ok(cached.plan.clone());
        }
        // A change that is made meanwhile must not be covered by what was read before it.
        let _no_change = self.changing.lock().await;
        let all = self.list(account, None, usize::MAX).await?.subscriptions;
        let plan = Plan::of(&all, self.config.feed_symbols_max).map(Arc::new);
        let mut plans = self.plans.lock();
        if plans.len() >= self.config.accounts_cached_max && !plans.contains_key(account) {
            let oldest = plans.iter().min_by_key(|(_, cached)| cached.made).map(|(name, _)| name.clone());
            oldest.and_then(|name| plans.remove(&name));
        }
        plans.insert(account.to_owned(), CachedPlan { plan: plan.clone(), made: now });
        Ok(plan)
    }

    async fn check_room(&self, account: &str) -> Result<(), SubsError> {
        let (mut live, mut deleted, mut after) = (0, 0, None::<String>);
        loop {
            let page = self.records.scan(Space::Subscriptions, account, after.as_deref(), SCAN_ROWS).await?;
            let is_full = page.len() == SCAN_ROWS;
            after = page.last().map(|record| record.key.clone());
            for record in page {
                let is_deleted = self.payload(account, &record)?.is_empty();
                *(if is_deleted { &mut deleted } else { &mut live }) += 1;
            }
            if !is_full {
                break;
            }
        }
        let (most, deleted_most) = (self.config.per_account_max, self.config.deleted_per_account_max);
        match (live >= most, deleted >= deleted_most) {
            (true, _) => Err(SubsError::Full { limit: "subs.per_account_max", most }),
            (_, true) => Err(SubsError::Full { limit: "subs.deleted_per_account_max", most: deleted_most }),
            _ => Ok(()),
        }
    }

    /// The version of a row, and what it says; nothing where it was deleted.
    async fn row(&self, account: &str, id: &str) -> Result<Option<(u64, Option<Subscription>)>, StoreError> {
        let Some(record) = self.records.get(Space::Subscriptions, account, id).await? else {
            return Ok(None);
        };
        Ok(Some((record.version, self.opened(account, &record)?)))
    }

    fn payload(&self, account: &str, record: &Record) -> Result<Bytes, StoreError> {
        let key = record_seal_key(Space::Subscriptions, account, &record.key, record.version);
        self.keyring
            .open(&key, &record.body)
            .map_err(|error| damaged(account, &record.key, &error.to_string()))
    }

    fn opened(&self, account: &str, record: &Record) -> Result<Option<Subscription>, StoreError> {
        let body = self.payload(account, record)?;
        if body.is_empty() {
            return Ok(None);
        }
        let row = Subscription::decode(account, &record.key, record.version, &body);
        row.map(Some).map_err(|error| damaged(account, &record.key, &error))
    }

    async fn put(&self, row: &Subscription) -> Result<(), SubsError> {
        let body = row.encode().map_err(|error| SubsError::Unwritten(error.to_string()))?;
        Ok(self.put_body(&row.account, &row.id, row.version, &body).await?)
    }

    /// Writes a row, and forgets what was made of the account's rows. The caller holds `changing`.
    async fn put_body(&self, account: &str, id: &str, version: u64, body: &[u8]) -> Result<(), StoreError> {
        let key = record_seal_key(Space::Subscriptions, account, id, version);
        let record = Record { key: id.to_owned(), version, body: self.keyring.seal(&key, body) };
        let put = self.records.put(Space::Subscriptions, account, record).await;
        // Also after a failure: it may have been written.
        self.plans.lock().remove(account);
        put
    }
}

/// Of last-write-wins rows the version is a time, and above the one seen.
fn version(now: Nanos, seen: u64) -> u64 {
    u64::try_from(now.0 / 1_000).unwrap_or(0).max(seen + 1)
}

fn damaged(account: &str, id: &str, why: &str) -> StoreError {
    StoreError::corrupt(format!("the row of subscription {id} of {account}: {why}"))
}

fn random_id() -> Result<String, SubsError> {
    let mut bits = [0; 16];
    let filled = rand::rngs::SysRng.try_fill_bytes(&mut bits);
    filled.map_err(|error| SubsError::Unwritten(format!("there are no random bits for an id: {error}")))?;
    Ok(id(bits))
}
