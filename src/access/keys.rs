//! The keys: admitted from memory, changed in the records.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::SecretString;

use super::limits::{KeyLimiter, Rate};
use super::region_rate::Used;
use super::row::{KeyAsk, KeyRow, Scope};
use super::{Actor, Allowance, Audit, MonoClock, secret};
use crate::config;
use crate::market::Nanos;
use crate::seal::{Keyring, SealKey};
use crate::store::{Record, Records, Space, StoreError, record_seal_key};

const ID_PREFIX: &str = "TL";
const ACCOUNT_PREFIX: &str = "TA";
const LABEL_CHARACTERS_MAX: usize = 100;
/// The longest that a key goes on beside its successor: 30 days.
const GRACE_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Rows of one read.
const SCAN_ROWS: usize = 1_000;

/// The key shown is not good: unknown, wrong secret, revoked or expired. Which of them is
/// not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is unknown, revoked, or its secret is wrong")]
pub struct Denied;

/// Why a change of keys failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// What is stored is damaged.
    #[error("{0}")]
    Damaged(String),
    /// There is no such key.
    #[error("there is no key {0}")]
    NoSuchKey(String),
    /// What is asked cannot be.
    #[error("{field} must be {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What would be right.
        expected: String,
    },
    /// `access.keys_max` is reached.
    #[error("there are {0} keys already, the most that access.keys_max allows")]
    Full(usize),
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    NoRandomness(String),
}

/// Who makes a request: the outcome of a key that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account, which outlives the rotation of its keys.
    pub account: String,
    /// The key's id.
    pub key_id: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl Identity {
    /// Whether it may do this.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// A key just made: the only time that its secret is known.
#[derive(Debug)]
pub struct NewKey {
    /// The key.
    pub row: KeyRow,
    /// The secret, of which only a hash is stored.
    pub secret: SecretString,
}

struct Entry {
    row: KeyRow,
    version: u64,
    identity: Arc<Identity>,
    limiter: KeyLimiter,
}

/// All keys.
pub struct Keys {
    records: Arc<dyn Records>,
    keyring: Arc<Keyring>,
    audit: Arc<Audit>,
    config: config::Access,
    clock: MonoClock,
    known: ArcSwap<HashMap<String, Arc<Entry>>>,
    /// Changes and refreshes one at a time, so that none puts an older map back.
    changing: tokio::sync::Mutex<()>,
    has_changed: tokio::sync::Notify,
}

impl Keys {
    /// Reads all keys.
    ///
    /// # Errors
    /// [`AccessError`] when they cannot be read or one is damaged.
    pub async fn open(
        records: Arc<dyn Records>,
        keyring: Arc<Keyring>,
        audit: Arc<Audit>,
        config: config::Access,
        clock: MonoClock,
    ) -> Result<Self, AccessError> {
        let keys = Self {
            records,
            keyring,
            audit,
            config,
            clock,
            known: ArcSwap::default(),
            changing: tokio::sync::Mutex::new(()),
            has_changed: tokio::sync::Notify::new(),
        };
        keys.refresh().await?;
        Ok(keys)
    }

    /// Whether a key is good, and its rate: counted in both cases that answer `Ok`. No I/O.
    ///
    /// # Errors
    /// [`Denied`], in the same time whether the id is known or not.
    pub fn admit(&self, id: &str, secret: &str, now: Nanos) -> Result<(Arc<Identity>, Allowance), Denied> {
        let hash = secret::hash(id, secret);
        let known = self.known.load();
        let entry = known.get(id);
        let expected = entry.map_or([0; 32], |entry| entry.row.hash);
        let same = secret::same(&hash, &expected);
        match entry {
            Some(entry) if same && entry.row.is_live(now) => {
                Ok((Arc::clone(&entry.identity), entry.limiter.check()))
            }
            _ => Err(Denied),
        }
    }

    /// Whether a key that was admitted before still is good.
    #[must_use]
    pub fn is_live(&self, id: &str, now: Nanos) -> bool {
        self.known.load().get(id).is_some_and(|entry| entry.row.is_live(now))
    }

    /// The same as [`Self::admit`] without a secret, for what this region has MACed in the key's name before.
    ///
    /// # Errors
    /// [`Denied`] where the key is revoked, has ended, or is not known.
    pub fn vouched(&self, id: &str, now: Nanos) -> Result<(Arc<Identity>, Allowance), Denied> {
        let known = self.known.load();
        let entry = known.get(id).filter(|entry| entry.row.is_live(now)).ok_or(Denied)?;
        Ok((Arc::clone(&entry.identity), entry.limiter.check()))
    }

    /// The keys that were used here since the last time.
    pub(super) fn take_used(&self) -> Vec<Used> {
        let used = |entry: &Arc<Entry>| {
            let requests = entry.limiter.take_untold();
            (requests > 0).then(|| Used {
                key_id: entry.row.id.clone(),
                requests,
                limiter: entry.limiter.clone(),
            })
        };
        self.known.load().values().filter_map(used).collect()
    }

    /// Reads all keys again.
    ///
    /// # Errors
    /// [`AccessError`]; the keys known before stay.
    pub async fn refresh(&self) -> Result<(), AccessError> {
        let _one_at_a_time = self.changing.lock().await;
        let mut rows = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.records.scan(Space::Keys, ID_PREFIX, after.as_deref(), SCAN_ROWS).await;
            let page = page.map_err(AccessError::Store)?;
            let full = page.len() >= SCAN_ROWS;
            after = page.last().map(|row| row.key.clone());
            rows.extend(page);
            if !full {
                break;
            }
        }
        let before = self.known.load_full();
        let mut known = HashMap::with_capacity(rows.len());
        for record in rows {
            let id = record.key.clone();
            let entry = match before.get(&id) {
                Some(entry) if entry.version == record.version => Arc::clone(entry),
                other => {
                    let row = self.opened(&record)?;
                    Arc::new(self.entry(row, record.version, other.map(AsRef::as_ref)))
                }
            };
            known.insert(id, entry);
        }
        self.known.store(Arc::new(known));
        Ok(())
    }

    /// All keys, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<KeyRow> {
        let mut rows: Vec<KeyRow> = self.known.load().values().map(|entry| entry.row.clone()).collect();
        rows.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        rows
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`AccessError`]
    pub async fn create(&self, ask: KeyAsk, by: &Actor, now: Nanos) -> Result<NewKey, AccessError> {
        let _one_at_a_time = self.changing.lock().await;
        checked(&ask, now)?;
        let count = self.known.load().len();
        if count >= self.config.keys_max {
            return Err(AccessError::Full(count));
        }
        let (id, secret) = (secret::new_id(ID_PREFIX)?, secret::new_secret()?);
        let row = KeyRow {
            hash: secret::hash(&id, secrecy::ExposeSecret::expose_secret(&secret)),
            id,
            account: ask.account.map_or_else(|| secret::new_id(ACCOUNT_PREFIX), Ok)?,
            label: ask.label,
            scopes: ask.scopes,
            requests_per_minute: ask.requests_per_minute,
            created: now,
            expires: ask.expires,
            revoked: None,
        };
        let scopes: Vec<&str> = row.scopes.iter().map(|scope| scope.name()).collect();
        let detail = format!("account {}, scopes {}", row.account, scopes.join(" "));
        self.audit.append(by, "key.create", &row.id, detail, now).await?;
        self.put(row.clone(), 0, now).await?;
        Ok(NewKey { row, secret })
    }

    /// Revokes a key, at once in this process. Of a revoked one the time stays.
    ///
    /// # Errors
    /// [`AccessError`]
    pub async fn revoke(&self, id: &str, by: &Actor, now: Nanos) -> Result<KeyRow, AccessError> {
        let _one_at_a_time = self.changing.lock().await;
        let (row, version) = self.stored(id).await?;
        if row.revoked.is_some() {
            self.know(row.clone(), version);
            return Ok(row);
        }
        self.audit.append(by, "key.revoke", id, String::new(), now).await?;
        let row = KeyRow { revoked: Some(now), ..row };
        self.put(row.clone(), version, now).await?;
        Ok(row)
    }

    /// Makes another key of the same account, label, scopes and rate, and lets the old one end
    /// after `grace_ms`, at most 30 days (0: at once).
    ///
    /// # Errors
    /// [`AccessError`]; where the new key was made and the old one could not be ended, the new
    /// one is in the list and may be revoked.
    pub async fn rotate(
        &self,
        id: &str,
        grace_ms: u64,
        by: &Actor,
        now: Nanos,
    ) -> Result<NewKey, AccessError> {
        let old_ends = grace_ends(grace_ms, now)?;
        let (old, _) = self.stored(id).await?;
        if !old.is_live(now) {
            return Err(AccessError::Invalid {
                field: "id",
                expected: "a key that is not revoked".to_owned(),
            });
        }
        let ask = KeyAsk {
            label: old.label,
            scopes: old.scopes,
            account: Some(old.account),
            requests_per_minute: old.requests_per_minute,
            expires: old.expires,
        };
        let new = self.create(ask, by, now).await?;
        if old_ends <= now {
            self.revoke(id, by, now).await?;
        } else {
            let _one_at_a_time = self.changing.lock().await;
            let (row, version) = self.stored(id).await?;
            let ends = row.expires.map_or(old_ends, |ends| ends.min(old_ends));
            let mut text = Vec::new();
            ends.write(&mut text);
            let detail = format!("ends {}, successor {}", String::from_utf8_lossy(&text), new.row.id);
            self.audit.append(by, "key.expire", id, detail, now).await?;
            self.put(KeyRow { expires: Some(ends), ..row }, version, now).await?;
        }
        Ok(new)
    }

    /// A row as it is stored now, with its version: another node may have changed it since the last
    /// refresh.
    async fn stored(&self, id: &str) -> Result<(KeyRow, u64), AccessError> {
        let record = self.records.get(Space::Keys, ID_PREFIX, id).await.map_err(AccessError::Store)?;
        let record = record.ok_or_else(|| AccessError::NoSuchKey(id.to_owned()))?;
        Ok((self.opened(&record)?, record.version))
    }

    /// Writes a row and makes it known. The caller holds `changing`.
    async fn put(&self, row: KeyRow, seen: u64, now: Nanos) -> Result<(), AccessError> {
        // Of last-write-wins rows the version is a time, and above the one seen.
        let version = u64::try_from(now.0 / 1_000).unwrap_or(0).max(seen + 1);
        let body = row.encode().map_err(|error| AccessError::Damaged(error.to_string()))?;
        let body = self.keyring.seal(&seal_key(&row.id, version), &body);
        let record = Record { key: row.id.clone(), version, body };
        self.records.put(Space::Keys, ID_PREFIX, record).await.map_err(AccessError::Store)?;
        self.know(row, version);
        Ok(())
    }

    /// Makes a row known here. The caller holds `changing`.
    fn know(&self, row: KeyRow, version: u64) {
        let mut known = HashMap::clone(&self.known.load());
        let before = known.get(&row.id).map(Arc::clone);
        known.insert(row.id.clone(), Arc::new(self.entry(row, version, before.as_deref())));
        self.known.store(Arc::new(known));
        self.has_changed.notify_one();
    }

    /// Waits until a key is made or changed here.
    pub async fn changed(&self) {
        self.has_changed.notified().await;
    }

    fn opened(&self, record: &Record) -> Result<KeyRow, AccessError> {
        let damaged = |error: String| AccessError::Damaged(format!("the row of key {}: {error}", record.key));
        let body = self
            .keyring
            .open(&seal_key(&record.key, record.version), &record.body)
            .map_err(|error| damaged(error.to_string()))?;
        KeyRow::decode(&record.key, &body).map_err(damaged)
    }

    /// An entry whose count goes on where the rate is the same.
    fn entry(&self, row: KeyRow, version: u64, before: Option<&Entry>) -> Entry {
        let per_minute = row.requests_per_minute.unwrap_or(self.config.requests_per_minute);
        let burst = row.requests_per_minute.unwrap_or(self.config.requests_burst);
        let rate = Rate::new(per_minute, burst);
        let limiter = match before {
            Some(entry) if entry.limiter.rate() == rate => entry.limiter.clone(),
            _ => KeyLimiter::new(rate, &self.clock),
        };
        let identity = Arc::new(Identity {
            account: row.account.clone(),
            key_id: row.id.clone(),
            scopes: row.scopes.clone(),
        });
        Entry { row, version, identity, limiter }
    }
}

/// When a grace that begins now is over.
fn grace_ends(grace_ms: u64, now: Nanos) -> Result<Nanos, AccessError> {
    let grace = i64::try_from(grace_ms).ok().filter(|_| grace_ms <= GRACE_MS_MAX);
    let grace = grace.ok_or_else(|| AccessError::Invalid {
        field: "grace_ms",
        expected: format!("milliseconds up to {GRACE_MS_MAX} (30 days)"),
    })?;
    Ok(now.plus(grace.saturating_mul(1_000_000)))
}

fn checked(ask: &KeyAsk, now: Nanos) -> Result<(), AccessError> {
    let invalid = |field, expected: String| Err(AccessError::Invalid { field, expected });
    if ask.scopes.is_empty() {
        return invalid("scopes", "at least one of ticks:write, md:read, admin".to_owned());
    }
    if ask.label.chars().count() > LABEL_CHARACTERS_MAX || ask.label.chars().any(char::is_control) {
        return invalid("label", format!("at most {LABEL_CHARACTERS_MAX} printable characters"));
    }
    if ask.requests_per_minute == Some(0) {
        return invalid("requests_per_minute", "1 or more".to_owned());
    }
    if ask.expires.is_some_and(|expires| expires <= now) {
        return invalid("expires", "a time in the future".to_owned());
    }
    let account_ok = |account: &String| {
        (1..=64).contains(&account.len())
            && account.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if !ask.account.as_ref().is_none_or(account_ok) {
        return invalid("account", "1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'".to_owned());
    }
    Ok(())
}

fn seal_key(id: &str, version: u64) -> SealKey {
    record_seal_key(Space::Keys, ID_PREFIX, id, version)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use secrecy::ExposeSecret as _;

    use super::super::testing::{keys_over, moved_clock};
    use super::*;
    use crate::store::memory::MemoryStore;

    const NOW: Nanos = Nanos(1_704_292_200_000_000_000);
    const DAY: &str = "2024-01-03";

    fn ask(scopes: &[Scope]) -> KeyAsk {
        KeyAsk {
            label: "test".to_owned(),
            scopes: scopes.to_vec(),
            account: None,
            requests_per_minute: None,
            expires: None,
        }
    }

    fn admitted(keys: &Keys, new: &NewKey, now: Nanos) -> Result<Arc<Identity>, Denied> {
        keys.admit(&new.row.id, new.secret.expose_secret(), now).map(|(identity, _)| identity)
    }

    async fn fresh() -> (Arc<MemoryStore>, Arc<Keys>, Arc<Audit>) {
        let records = Arc::new(MemoryStore::default());
        let (keys, audit) = keys_over(&records, &[], moved_clock().1).await;
        (records, keys, audit)
    }

    #[tokio::test]
    async fn a_key_is_admitted_with_its_secret_alone() {
        let (_, keys, _) = fresh().await;
        let new = keys.create(ask(&[Scope::MarketDataRead]), &Actor::node(), NOW).await.unwrap();
        let identity = admitted(&keys, &new, NOW).unwrap();
        assert_eq!((&identity.account, &identity.key_id), (&new.row.account, &new.row.id));
        assert!(identity.may(Scope::MarketDataRead) && !identity.may(Scope::TicksWrite));
        let other = keys.create(ask(&[Scope::Admin]), &Actor::node(), NOW).await.unwrap();
        for (id, secret) in [
            (new.row.id.as_str(), ""),
            (new.row.id.as_str(), other.secret.expose_secret()),
            ("TLAAAAAAAAAAAAAAAAAA", new.secret.expose_secret()),
            ("", ""),
        ] {
            assert!(keys.admit(id, secret, NOW).is_err(), "{id} {secret}");
        }
    }

    #[tokio::test]
    async fn what_is_stored_holds_no_secret_and_is_named_when_damaged() {
        let (records, keys, _) = fresh().await;
        let new = keys.create(ask(&[Scope::MarketDataRead]), &Actor::node(), NOW).await.unwrap();
        for record in records.records.lock().values_mut() {
            let text = String::from_utf8_lossy(&record.body);
            assert!(!text.contains(new.secret.expose_secret()), "{text}");
            let mut damaged = record.body.to_vec();
            let at = damaged.windows(7).position(|bytes| bytes == b"md:read").unwrap();
            damaged[at..at + 7].copy_from_slice(b"ticks:w");
            record.body = damaged.into();
            record.version += 1;
        }
        let error = keys.refresh().await.unwrap_err().to_string();
        assert!(error.contains(&new.row.id) && error.contains("integrity"), "{error}");
        assert!(admitted(&keys, &new, NOW).is_ok(), "the keys known before stay");
    }

    #[tokio::test]
    async fn a_revocation_is_at_once_here_and_at_the_next_refresh_elsewhere() {
        let (records, keys, _) = fresh().await;
        let new = keys.create(ask(&[Scope::TicksWrite]), &Actor::node(), NOW).await.unwrap();
        let (elsewhere, _) = keys_over(&records, &[], moved_clock().1).await;
        assert!(admitted(&elsewhere, &new, NOW).is_ok());
        // The clock has stepped back meanwhile: the revocation still is the later version.
        let row = keys.revoke(&new.row.id, &Actor::operator(), NOW.plus(-Nanos::HOUR)).await.unwrap();
        assert!(row.revoked.is_some());
        assert!(admitted(&keys, &new, NOW).is_err() && !keys.is_live(&new.row.id, NOW));
        assert!(elsewhere.is_live(&new.row.id, NOW) && !elsewhere.is_live("TLX", NOW));
        elsewhere.refresh().await.unwrap();
        assert!(admitted(&elsewhere, &new, NOW).is_err());
        let again = keys.revoke(&new.row.id, &Actor::operator(), NOW).await.unwrap();
        assert_eq!(again.revoked, row.revoked);
        let unknown = keys.revoke("TLX", &Actor::operator(), NOW).await;
        assert_eq!(unknown, Err(AccessError::NoSuchKey("TLX".to_owned())));
    }

    #[tokio::test]
    async fn rotation_keeps_the_account_and_ends_the_old_key_in_its_time() {
        let (_, keys, _) = fresh().await;
        let old = keys.create(ask(&[Scope::TicksWrite]), &Actor::node(), NOW).await.unwrap();
        let later = NOW.plus(Nanos::HOUR);
        let new = keys.rotate(&old.row.id, 3_600_000, &Actor::operator(), NOW).await.unwrap();
        assert_eq!(new.row.account, old.row.account);
        assert_eq!(new.row.scopes, old.row.scopes);
        assert_ne!(new.row.id, old.row.id);
        assert!(admitted(&keys, &old, later.plus(-1)).is_ok() && admitted(&keys, &old, later).is_err());
        let newest = keys.rotate(&new.row.id, 0, &Actor::operator(), NOW).await.unwrap();
        assert!(admitted(&keys, &new, NOW).is_err() && admitted(&keys, &newest, NOW).is_ok());
        assert!(keys.rotate(&new.row.id, 0, &Actor::operator(), NOW).await.is_err(), "it is revoked");
        let refused = |result: Result<NewKey, AccessError>| match result {
            Err(AccessError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        for too_long in [GRACE_MS_MAX + 1, u64::MAX] {
            assert_eq!(
                refused(keys.rotate(&newest.row.id, too_long, &Actor::operator(), NOW).await),
                "grace_ms"
            );
        }
        let count = keys.list().len();
        keys.rotate(&newest.row.id, GRACE_MS_MAX, &Actor::operator(), NOW).await.unwrap();
        assert_eq!(keys.list().len(), count + 1);
    }

    /// A node changes what is stored, and not what it read a while ago.
    #[tokio::test]
    async fn a_revocation_elsewhere_is_not_taken_back() {
        let (records, keys, _) = fresh().await;
        let old = keys.create(ask(&[Scope::TicksWrite]), &Actor::node(), NOW).await.unwrap();
        let (elsewhere, _) = keys_over(&records, &[], moved_clock().1).await;
        let made = elsewhere.create(ask(&[Scope::TicksWrite]), &Actor::node(), NOW).await.unwrap();
        let revoked = keys.revoke(&old.row.id, &Actor::operator(), NOW).await.unwrap();
        assert!(elsewhere.rotate(&old.row.id, 60_000, &Actor::operator(), NOW).await.is_err());
        assert_eq!(elsewhere.revoke(&old.row.id, &Actor::operator(), NOW.plus(5)).await.unwrap(), revoked);
        assert!(admitted(&elsewhere, &old, NOW).is_err(), "who was told of it knows it");
        keys.revoke(&made.row.id, &Actor::operator(), NOW).await.unwrap();
        elsewhere.refresh().await.unwrap();
        assert!(admitted(&elsewhere, &old, NOW).is_err() && admitted(&elsewhere, &made, NOW).is_err());
    }

    #[tokio::test]
    async fn every_change_is_in_the_audit_and_none_is_made_without() {
        let (records, keys, audit) = fresh().await;
        let new = keys.create(ask(&[Scope::Admin]), &Actor::node(), NOW).await.unwrap();
        keys.rotate(&new.row.id, 1, &Actor::operator(), NOW).await.unwrap();
        keys.revoke(&new.row.id, &Actor::operator(), NOW.plus(5)).await.unwrap();
        let entries = audit.list(DAY, None, 10).await.unwrap();
        let actions: Vec<(&str, &str)> =
            entries.iter().map(|(_, entry)| (entry.action.as_str(), entry.who.as_str())).collect();
        let expected = [
            ("key.create", "node"),
            ("key.create", "operator"),
            ("key.expire", "operator"),
            ("key.revoke", "operator"),
        ];
        assert_eq!(actions, expected);
        let (second, _) = &entries[1];
        assert_eq!(audit.list(DAY, Some(second), 1).await.unwrap()[0].1.action, "key.expire");
        assert!(audit.list("2024-01-04", None, 10).await.unwrap().is_empty());
        records.refuses.store(true, Ordering::Relaxed);
        let count = keys.list().len();
        let refused = keys.create(ask(&[Scope::Admin]), &Actor::node(), NOW).await;
        assert!(matches!(refused, Err(AccessError::Store(_))));
        assert_eq!(keys.list().len(), count);
    }

    #[tokio::test]
    async fn a_count_goes_on_over_a_refresh() {
        let records = Arc::new(MemoryStore::default());
        let sets = ["access.requests_per_minute=60", "access.requests_burst=2"];
        let (keys, _) = keys_over(&records, &sets, moved_clock().1).await;
        let new = keys.create(ask(&[Scope::Admin]), &Actor::node(), NOW).await.unwrap();
        let remaining = || keys.admit(&new.row.id, new.secret.expose_secret(), NOW).unwrap().1;
        assert_eq!(remaining().remaining, 1);
        keys.refresh().await.unwrap();
        assert_eq!(remaining().remaining, 0);
        assert!(!remaining().admits());
        let own = KeyAsk { requests_per_minute: Some(7), ..ask(&[Scope::Admin]) };
        let own = keys.create(own, &Actor::node(), NOW).await.unwrap();
        let (_, allowance) = keys.admit(&own.row.id, own.secret.expose_secret(), NOW).unwrap();
        assert_eq!((allowance.limit, allowance.remaining), (7, 6));
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_by_field() {
        let records = Arc::new(MemoryStore::default());
        let (keys, _) = keys_over(&records, &["access.keys_max=1"], moved_clock().1).await;
        let cases = [
            (ask(&[]), "scopes"),
            (KeyAsk { label: "x".repeat(101), ..ask(&Scope::ALL) }, "label"),
            (KeyAsk { label: "a\nb".to_owned(), ..ask(&Scope::ALL) }, "label"),
            (KeyAsk { requests_per_minute: Some(0), ..ask(&Scope::ALL) }, "requests_per_minute"),
            (KeyAsk { expires: Some(NOW), ..ask(&Scope::ALL) }, "expires"),
            (KeyAsk { account: Some("a b".to_owned()), ..ask(&Scope::ALL) }, "account"),
        ];
        for (ask, expected) in cases {
            match keys.create(ask.clone(), &Actor::node(), NOW).await {
                Err(AccessError::Invalid { field, .. }) => assert_eq!(field, expected),
                other => panic!("{ask:?}: {other:?}"),
            }
        }
        keys.create(ask(&Scope::ALL), &Actor::node(), NOW).await.unwrap();
        let full = keys.create(ask(&Scope::ALL), &Actor::node(), NOW).await.unwrap_err();
        assert_eq!(full, AccessError::Full(1));
    }
}
