//! The rate of a key over the nodes of a region: what it has used on the others counts here.
//!
//! Nodes add up in the region's Redis ([`Hot::count`]) what each key has used, every so often, and take
//! what the others have used off their own allowance. So a key that goes to many nodes is given its rate
//! once and not once a node, but for what it uses between two exchanges. Without Redis each node counts
//! alone.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;

use super::Keys;
use super::limits::KeyLimiter;
use crate::hot::{Hot, HotError};

/// The counters of Redis begin anew so often; each node follows that.
const WINDOW: Duration = Duration::from_secs(60);
/// Keys of one exchange at most, those that have used most; the others wait for the next.
const KEYS_MAX: usize = 1_000;
/// Of them asked for at once.
const AT_ONCE: usize = 32;

/// A key that was used here since the last exchange.
pub(super) struct Used {
    pub(super) key_id: String,
    pub(super) requests: u32,
    pub(super) limiter: KeyLimiter,
}

/// What is known of the counter of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    window: u64,
    /// What this node has added to it.
    own: u64,
    /// What of the others' was taken off already.
    others: u64,
    /// Whether an addition failed: it may be in the counter or not.
    is_unsure: bool,
}

/// An addition to a counter, and what it came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) window: u64,
    pub(super) own: u64,
    pub(super) sum: u64,
    /// What a key is given while a window lasts until now.
    pub(super) replenished: u64,
}

impl Known {
    /// What the others have used since the last time, as far as it is missing here still. Where that is not
    /// known it is nothing: a key that keeps its rate is not refused.
    pub(super) fn others_since(&mut self, counted: Counted) -> u64 {
        let Counted { window, own, sum, replenished } = counted;
        let is_first = self.window != window;
        if is_first || sum < self.own + own {
            // A new window, or a counter that was lost: it begins at zero.
            *self = Self { window, is_unsure: self.is_unsure, ..Self::default() };
        }
        self.own += own;
        let others = sum.saturating_sub(self.own);
        let since = others.saturating_sub(self.others);
        self.others = others;
        if std::mem::take(&mut self.is_unsure) {
            0
        } else if is_first {
            since.saturating_sub(replenished)
        } else {
            since
        }
    }

    /// An addition failed.
    pub(super) const fn failed(&mut self) {
        self.is_unsure = true;
    }
}

/// One exchange; answers how many requests of other nodes were taken off. What cannot be told is not told
/// again, for it may have been counted: the others give that much more.
///
/// # Errors
/// [`HotError`], the last: these keys are counted here alone.
pub async fn share(keys: &Keys, hot: &dyn Hot, now_ms: u64) -> Result<u64, HotError> {
    let mut used = keys.take_used();
    used.sort_by_key(|used| std::cmp::Reverse(used.requests));
    let rest = used.split_off(used.len().min(KEYS_MAX));
    rest.iter().for_each(|used| used.limiter.put_back(used.requests));
    let window_ms = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
    let (window, elapsed_ms) = (now_ms / window_ms, now_ms % window_ms);
    let exchange = async |Used { key_id, requests, limiter }: Used| {
        let own = u64::from(requests);
        match hot.count(&format!("rate:{key_id}"), own, WINDOW, now_ms).await {
            Ok(sum) => {
                let replenished = limiter.replenished(elapsed_ms);
                Ok(limiter.take_others(Counted { window, own, sum, replenished }))
            }
            Err(error) => {
                limiter.failed();
                Err(error)
            }
        }
    };
    let mut answers = stream::iter(used).map(exchange).buffer_unordered(AT_ONCE);
    let (mut taken, mut failed) = (0, None);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(others) => taken += others,
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(taken), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::access::testing::{keys_over, moved_clock};
    use crate::access::{Actor, KeyAsk, NewKey, Scope};
    use crate::hot::memory::{MemoryHot, MemoryHotOptions};
    use crate::market::Nanos;
    use crate::store::memory::MemoryStore;

    const NOW: Nanos = Nanos(1_704_292_200_000_000_000);

    /// Two nodes, and a key that both know.
    async fn nodes() -> (Arc<Keys>, Arc<Keys>, NewKey) {
        let records = Arc::new(MemoryStore::default());
        let sets = ["access.requests_per_minute=60", "access.requests_burst=10"];
        let (one, _) = keys_over(&records, &sets, moved_clock().1).await;
        let (label, scopes) = ("test".to_owned(), vec![Scope::Admin]);
        let ask = KeyAsk { label, scopes, account: None, requests_per_minute: None, expires: None };
        let key = one.create(ask, &Actor::node(), NOW).await.unwrap();
        let (other, _) = keys_over(&records, &sets, moved_clock().1).await;
        (one, other, key)
    }

    /// How many of so many requests are admitted.
    fn admitted(keys: &Keys, key: &NewKey, requests: usize) -> usize {
        let admit = || keys.admit(&key.row.id, key.secret.expose_secret(), NOW).unwrap().1.admits();
        (0..requests).filter(|_| admit()).count()
    }

    #[tokio::test]
    async fn a_key_has_its_rate_once_for_all_nodes() {
        let (one, other, key) = nodes().await;
        let hot = MemoryHot::new(MemoryHotOptions::default());
        assert_eq!((admitted(&one, &key, 6), admitted(&other, &key, 1)), (6, 1));
        assert_eq!(share(&one, &hot, 0).await, Ok(0));
        assert_eq!(share(&other, &hot, 0).await, Ok(6));
        assert_eq!(admitted(&other, &key, 9), 3, "10 at once, of which 6 were used there and 1 here");
        assert_eq!(admitted(&one, &key, 1), 1);
        assert_eq!(share(&one, &hot, 0).await, Ok(1), "the first of the other; it has not told the rest");
        assert_eq!(share(&other, &hot, 0).await, Ok(0), "nothing is left there to take off");
        assert_eq!(admitted(&one, &key, 9), 2);
        assert_eq!(share(&one, &hot, 0).await, Ok(0), "more than is left is not owed");
        assert_eq!(admitted(&one, &key, 1), 0);
        assert_eq!(share(&one, &hot, 0).await, Ok(0), "nobody who was not used asks");
    }

    struct Gone;

    #[async_trait::async_trait]
    impl Hot for Gone {
        async fn publish(&self, _: bytes::Bytes) -> Result<(), HotError> {
            Err(HotError("gone".to_owned()))
        }

        async fn subscribe(&self) -> Result<Box<dyn crate::hot::Subscription>, HotError> {
            Err(HotError("gone".to_owned()))
        }

        async fn cached(&self, _: &str, _: u64) -> Result<Option<bytes::Bytes>, HotError> {
            Err(HotError("gone".to_owned()))
        }

        async fn cache(&self, _: &str, _: bytes::Bytes, _: Duration, _: u64) -> Result<(), HotError> {
            Err(HotError("gone".to_owned()))
        }

        async fn count(&self, _: &str, _: u64, _: Duration, _: u64) -> Result<u64, HotError> {
            Err(HotError("gone".to_owned()))
        }
    }

    /// Whether it was counted or not: nobody is refused for it.
    #[tokio::test]
    async fn what_could_not_be_told_is_not_told_again() {
        let (one, other, key) = nodes().await;
        let hot = MemoryHot::new(MemoryHotOptions::default());
        assert_eq!(admitted(&one, &key, 4), 4);
        share(&one, &Gone, 0).await.unwrap_err();
        assert_eq!(admitted(&one, &key, 1), 1, "each node counts alone");
        assert_eq!(share(&one, &hot, 0).await, Ok(0));
        assert_eq!(admitted(&other, &key, 1), 1);
        assert_eq!(share(&other, &hot, 0).await, Ok(1));
        assert_eq!(admitted(&one, &key, 1), 1);
        assert_eq!(share(&one, &hot, 0).await, Ok(1), "it knows again");
    }

    #[test]
    fn what_the_others_use_is_taken_off_once() {
        let counted = |window, own, sum| Counted { window, own, sum, replenished: 3 };
        let mut known = Known::default();
        assert_eq!(known.others_since(counted(1, 5, 5)), 0);
        assert_eq!(known.others_since(counted(1, 5, 17)), 7, "another node used 7");
        assert_eq!(known.others_since(counted(1, 1, 18)), 0);
        assert_eq!(known.others_since(counted(1, 0, 20)), 2);
        assert_eq!(known.others_since(counted(2, 3, 8)), 2, "5 in a new window, 3 of them given back since");
        assert_eq!(known.others_since(counted(2, 3, 4)), 1, "the counter was lost, and begins at zero");
        assert_eq!(known.others_since(counted(2, 0, 8)), 4);
        // The addition may be in it or not.
        known.failed();
        assert_eq!(known.others_since(counted(2, 2, 30)), 0);
        assert_eq!(known.others_since(counted(2, 2, 35)), 3);
    }
}
