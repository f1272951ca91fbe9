//! [`Hot`] within one process.
//!
//! A subscriber that is slow loses the oldest bytes first, counted. The cache holds a bounded
//! number of bytes and lets the oldest entry go first; counters are bounded in number. Cost: one
//! short lock a call.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Hot, HotError, Subscription};

/// The limits of a [`MemoryHot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryHotOptions {
    /// Bytes that wait for one subscriber; the oldest are dropped.
    pub subscriber_bytes_max: usize,
    /// Bytes of the cache, keys included; the oldest entries go.
    pub cache_bytes_max: usize,
    /// Number of counters; the one whose window began first goes.
    pub counters_max: usize,
}

impl Default for MemoryHotOptions {
    fn default() -> Self {
        Self { subscriber_bytes_max: 8 << 20, cache_bytes_max: 32 << 20, counters_max: 100_000 }
    }
}

/// Hints, cache and counters of the nodes in one process.
#[derive(Debug)]
pub struct MemoryHot {
    options: MemoryHotOptions,
    subscribers: Mutex<Vec<Weak<Outbox>>>,
    cache: Mutex<Cache>,
    counters: Mutex<Counters>,
}

#[derive(Debug)]
struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: VecDeque<Bytes>,
    size: usize,
    dropped: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<String, Cached>,
    /// Keys by the number of their entry, the oldest first.
    order: BTreeMap<u64, String>,
    next: u64,
    size: usize,
}

#[derive(Debug)]
struct Cached {
    number: u64,
    value: Bytes,
    until_ms: u64,
}

#[derive(Debug, Default)]
struct Counters {
    /// Of a key: the beginning and the end of its window, and the sum.
    windows: HashMap<String, (u64, u64, u64)>,
    /// Keys by the beginning of their window.
    order: BTreeMap<(u64, String), ()>,
}

impl MemoryHot {
    /// An empty one.
    #[must_use]
    pub fn new(options: MemoryHotOptions) -> Self {
        Self { options, subscribers: Mutex::default(), cache: Mutex::default(), counters: Mutex::default() }
    }
}

impl Drop for MemoryHot {
    fn drop(&mut self) {
        for outbox in self.subscribers.get_mut().iter().filter_map(Weak::upgrade) {
            outbox.waiting.lock().closed = true;
            outbox.wake.notify_one();
        }
    }
}

#[async_trait]
impl Hot for MemoryHot {
    async fn publish(&self, bytes: Bytes) -> Result<(), HotError> {
        self.subscribers.lock().retain(|subscriber| {
            let Some(outbox) = subscriber.upgrade() else { return false };
            outbox.push(bytes.clone(), self.options.subscriber_bytes_max);
            true
        });
        Ok(())
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, HotError> {
        let outbox = Arc::new(Outbox { waiting: Mutex::default(), wake: Notify::new() });
        self.subscribers.lock().push(Arc::downgrade(&outbox));
        Ok(Box::new(MemorySubscription(outbox)))
    }

    async fn cached(&self, key: &str, now_ms: u64) -> Result<Option<Bytes>, HotError> {
        let mut cache = self.cache.lock();
        match cache.entries.get(key) {
            Some(cached) if cached.until_ms > now_ms => Ok(Some(cached.value.clone())),
            Some(_) => {
                cache.remove(key);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    async fn cache(&self, key: &str, value: Bytes, ttl: Duration, now_ms: u64) -> Result<(), HotError> {
        let until_ms = now_ms.saturating_add(millis(ttl));
        let mut cache = self.cache.lock();
        cache.remove(key);
        cache.insert(key, value, until_ms);
        while cache.size > self.options.cache_bytes_max
            && let Some((_, oldest)) = cache.order.first_key_value()
        {
            let oldest = oldest.clone();
            cache.remove(&oldest);
        }
        Ok(())
    }

    async fn count(&self, key: &str, cost: u64, window: Duration, now_ms: u64) -> Result<u64, HotError> {
        let length = millis(window).max(1);
        let begin = now_ms - now_ms % length;
        let mut counters = self.counters.lock();
        let counters = &mut *counters;
        let (old_begin, end, sum) = counters.windows.get(key).copied().unwrap_or_default();
        let sum = if old_begin == begin && end == begin.saturating_add(length) { sum } else { 0 };
        let sum = sum.saturating_add(cost);
        counters.order.remove(&(old_begin, key.to_owned()));
        counters.order.insert((begin, key.to_owned()), ());
        counters.windows.insert(key.to_owned(), (begin, begin.saturating_add(length), sum));
        while counters.windows.len() > self.options.counters_max
            && let Some(((_, oldest), ())) = counters.order.pop_first()
        {
            counters.windows.remove(&oldest);
        }
        Ok(sum)
    }
}

impl Outbox {
    fn push(&self, bytes: Bytes, bytes_max: usize) {
        let mut waiting = self.waiting.lock();
        waiting.size += bytes.len();
        waiting.bytes.push_back(bytes);
        while waiting.size > bytes_max
            && let Some(oldest) = waiting.bytes.pop_front()
        {
            waiting.size -= oldest.len();
            waiting.dropped += 1;
        }
        drop(waiting);
        self.wake.notify_one();
    }
}

impl Cache {
    fn insert(&mut self, key: &str, value: Bytes, until_ms: u64) {
        let number = self.next;
        self.next += 1;
        self.size += key.len() + value.len();
        self.order.insert(number, key.to_owned());
        self.entries.insert(key.to_owned(), Cached { number, value, until_ms });
    }

    fn remove(&mut self, key: &str) {
        if let Some(cached) = self.entries.remove(key) {
            self.order.remove(&cached.number);
            self.size -= key.len() + cached.value.len();
        }
    }
}

struct MemorySubscription(Arc<Outbox>);

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            {
                let mut waiting = self.0.waiting.lock();
                if let Some(bytes) = waiting.bytes.pop_front() {
                    waiting.size -= bytes.len();
                    return Some(bytes);
                }
                if waiting.closed {
                    return None;
                }
            }
            self.0.wake.notified().await;
        }
    }

    fn dropped(&self) -> u64 {
        self.0.waiting.lock().dropped
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::suite;

    #[tokio::test]
    async fn hot_suite() {
        suite::hot(|| Arc::new(MemoryHot::new(MemoryHotOptions::default()))).await;
    }

    #[tokio::test]
    async fn everything_is_bounded() {
        let options = MemoryHotOptions { subscriber_bytes_max: 25, cache_bytes_max: 25, counters_max: 2 };
        let hot = MemoryHot::new(options);
        let mut slow = hot.subscribe().await.unwrap();
        for byte in 0..5 {
            hot.publish(Bytes::from(vec![byte; 10])).await.unwrap();
            hot.cache(&byte.to_string(), Bytes::from(vec![byte; 10]), Duration::from_secs(1), 0)
                .await
                .unwrap();
            hot.count(&byte.to_string(), 1, Duration::from_secs(1), u64::from(byte) * 1000).await.unwrap();
        }
        assert_eq!(slow.dropped(), 3);
        assert_eq!(slow.next().await.unwrap()[0], 3, "the oldest go first");
        assert_eq!(hot.cached("2", 0).await, Ok(None));
        assert!(hot.cached("3", 0).await.unwrap().is_some());
        assert_eq!(hot.count("0", 1, Duration::from_secs(1), 4500).await, Ok(1), "forgotten");
        assert_eq!(hot.count("4", 1, Duration::from_secs(1), 4500).await, Ok(2));
    }

    #[tokio::test]
    async fn a_closed_door_ends_its_subscriptions_after_what_waits() {
        let hot = MemoryHot::new(MemoryHotOptions::default());
        let mut subscription = hot.subscribe().await.unwrap();
        hot.publish(Bytes::from_static(b"last")).await.unwrap();
        drop(hot);
        assert_eq!(subscription.next().await, Some(Bytes::from_static(b"last")));
        assert_eq!(subscription.next().await, None);
    }
}
