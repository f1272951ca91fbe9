//! [`Hot`] by a Redis of the region.
//!
//! Each call has a short time; after some that failed in a row none is tried for a while
//! ([`Breaker`]), so that a Redis that is gone or hangs costs nobody more than that. Values carry a
//! version, when they end and a digest over key and value: what does not fit is not there, and
//! counted. What is published goes by the channel of the region; a subscription connects again by
//! itself, and what was published meanwhile is lost to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSub};
use redis::{Client, ErrorKind, IntoConnectionInfo as _, RedisError, RedisResult, TlsCertificates};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::{Hot, HotError, Subscription};

/// How the Redis is reached.
#[derive(Clone, Debug)]
pub struct RedisHotOptions {
    /// Such as `redis://10.0.0.1:6379/0`, or `rediss://…` over TLS; without a password.
    pub url: String,
    /// The password.
    pub password: Option<SecretString>,
    /// The authority of its certificate as PEM, where it is none of the system's.
    pub ca: Option<Vec<u8>>,
    /// What channel and keys begin with.
    pub prefix: String,
    /// Time for a call.
    pub call: Duration,
}

/// Hints, cache and counters by a Redis.
pub struct RedisHot {
    client: Client,
    manager: ConnectionManager,
    options: RedisHotOptions,
    breaker: Mutex<Breaker>,
    failures: AtomicU64,
    poisoned: AtomicU64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisStats {
    /// Calls that failed, or that the breaker let nobody try.
    pub failures: u64,
    /// Values that were not what was cached.
    pub poisoned: u64,
    /// Whether calls are tried.
    pub is_up: bool,
}

/// Calls that fail in a row until none is tried.
const FAILURES_MAX: u32 = 3;
/// For how long.
const OPEN: Duration = Duration::from_secs(1);
/// Between two tries of a subscription to connect.
const AGAIN: Duration = Duration::from_millis(250);
/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// What a value begins with: magic and version.
const MAGIC: [u8; 4] = *b"TLH\x01";
const HEAD_BYTES: usize = 20;

impl RedisHot {
    /// Does not connect yet: a Redis that is not there keeps no node from starting.
    ///
    /// # Errors
    /// [`HotError`] where the address or the certificate cannot be read.
    pub fn new(options: RedisHotOptions) -> Result<Self, HotError> {
        let failed = |error: RedisError| HotError(format!("redis.url: {error}"));
        let mut info = options.url.as_str().into_connection_info().map_err(failed)?;
        if let Some(password) = &options.password {
            let settings = info.redis_settings().clone().set_password(password.expose_secret());
            info = info.set_redis_settings(settings);
        }
        let client = match options.ca.clone() {
            Some(root_cert) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
                Client::build_with_tls(info, certificates).map_err(failed)?
            }
            None => Client::open(info).map_err(failed)?,
        };
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(options.call))
            .set_connection_timeout(Some(CONNECT))
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(failed)?;
        Ok(Self {
            client,
            manager,
            options,
            breaker: Mutex::default(),
            failures: AtomicU64::new(0),
            poisoned: AtomicU64::new(0),
        })
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> RedisStats {
        RedisStats {
            failures: self.failures.load(Ordering::Relaxed),
            poisoned: self.poisoned.load(Ordering::Relaxed),
            is_up: self.breaker.lock().is_closed(),
        }
    }

    async fn call<T>(&self, what: &str, work: impl Future<Output = RedisResult<T>>) -> Result<T, HotError> {
        if !self.breaker.lock().lets(Instant::now()) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(HotError(format!("{what}: redis does not answer, and is not asked for a while")));
        }
        let why = match timeout(self.options.call, work).await {
            Ok(Ok(value)) => {
                self.breaker.lock().worked();
                return Ok(value);
            }
            Ok(Err(error)) if is_answer(&error) => {
                self.breaker.lock().worked();
                self.failures.fetch_add(1, Ordering::Relaxed);
                return Err(HotError(format!("{what}: {error}")));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", self.options.call.as_millis()),
        };
        self.breaker.lock().failed(Instant::now());
        self.failures.fetch_add(1, Ordering::Relaxed);
        Err(HotError(format!("{what}: {why}")))
    }

    fn channel(&self) -> String {
        format!("{}:frames", self.options.prefix)
    }

    fn key(&self, key: &str) -> String {
        format!("{}:{key}", self.options.prefix)
    }
}

#[async_trait]
impl Hot for RedisHot {
    async fn publish(&self, bytes: Bytes) -> Result<(), HotError> {
        let mut manager = self.manager.clone();
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.channel()).arg(bytes.as_ref());
        self.call::<()>("publish", async move { command.query_async(&mut manager).await }).await
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, HotError> {
        let mut subscription =
            RedisSubscription { client: self.client.clone(), channel: self.channel(), open: None };
        let connected = timeout(CONNECT, subscription.connect()).await;
        match connected {
            Ok(Ok(())) => Ok(Box::new(subscription)),
            Ok(Err(error)) => Err(HotError(format!("subscribe: {error}"))),
            Err(_) => Err(HotError("subscribe: no answer".to_owned())),
        }
    }

    async fn cached(&self, key: &str, now_ms: u64) -> Result<Option<Bytes>, HotError> {
        let (mut manager, name) = (self.manager.clone(), self.key(key));
        let mut command = redis::cmd("GET");
        command.arg(&name);
        let stored: Option<Vec<u8>> =
            self.call("get", async move { command.query_async(&mut manager).await }).await?;
        let Some(stored) = stored else { return Ok(None) };
        match opened(&name, &stored) {
            Some((until_ms, value)) if until_ms > now_ms => Ok(Some(Bytes::copy_from_slice(value))),
            Some(_) => Ok(None),
            None => {
                self.poisoned.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    async fn cache(&self, key: &str, value: Bytes, ttl: Duration, now_ms: u64) -> Result<(), HotError> {
        let (mut manager, name) = (self.manager.clone(), self.key(key));
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = redis::cmd("SET");
        command.arg(&name).arg(closed(&name, &value, now_ms.saturating_add(ttl_ms))).arg("PX").arg(ttl_ms);
        self.call::<()>("set", async move { command.query_async(&mut manager).await }).await
    }

    async fn count(&self, key: &str, cost: u64, window: Duration, now_ms: u64) -> Result<u64, HotError> {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
        let name = format!("{}:{}", self.key(key), now_ms - now_ms % window_ms);
        let mut manager = self.manager.clone();
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("INCRBY").arg(&name).arg(cost);
        pipe.cmd("PEXPIRE").arg(&name).arg(window_ms.saturating_mul(2)).ignore();
        let (sum,): (u64,) = self.call("count", async move { pipe.query_async(&mut manager).await }).await?;
        Ok(sum)
    }
}

/// Whether a Redis says so that is there, such as one whose memory is full: it takes other calls.
fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// A value as it is stored: magic and version, when it ends, a digest of all of it and its key, the value.
fn closed(name: &str, value: &[u8], until_ms: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + value.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&until_ms.to_be_bytes());
    out.extend_from_slice(&digest(name, until_ms, value).to_be_bytes());
    out.extend_from_slice(value);
    out
}

fn opened<'v>(name: &str, stored: &'v [u8]) -> Option<(u64, &'v [u8])> {
    let (head, value) = stored.split_at_checked(HEAD_BYTES)?;
    let number = |range: std::ops::Range<usize>| Some(u64::from_be_bytes(head.get(range)?.try_into().ok()?));
    let (until_ms, known) = (number(4..12)?, number(12..20)?);
    let fits = head.starts_with(&MAGIC) && digest(name, until_ms, value) == known;
    fits.then_some((until_ms, value))
}

fn digest(name: &str, until_ms: u64, value: &[u8]) -> u64 {
    let mut bytes = Vec::with_capacity(name.len() + 9 + value.len());
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&until_ms.to_be_bytes());
    bytes.extend_from_slice(value);
    xxh3_64(&bytes)
}

/// Whether calls are tried: not for a while after some that failed in a row, and then one first.
#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    const fn is_closed(&self) -> bool {
        self.failures < FAILURES_MAX
    }

    fn lets(&mut self, now: Instant) -> bool {
        match self.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                // One is tried; the others wait for what it comes to.
                self.open_until = Some(now + OPEN);
                true
            }
            None => true,
        }
    }

    fn worked(&mut self) {
        *self = Self::default();
    }

    fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if !self.is_closed() {
            self.open_until = Some(now + OPEN);
        }
    }
}

struct RedisSubscription {
    client: Client,
    channel: String,
    open: Option<PubSub>,
}

impl RedisSubscription {
    async fn connect(&mut self) -> RedisResult<()> {
        let mut open = self.client.get_async_pubsub().await?;
        open.subscribe(&self.channel).await?;
        self.open = Some(open);
        Ok(())
    }
}

#[async_trait]
impl Subscription for RedisSubscription {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(open) = &mut self.open {
                let message = open.on_message().next().await;
                if let Some(message) = message {
                    return Some(Bytes::copy_from_slice(message.get_payload_bytes()));
                }
                self.open = None;
            }
            if !matches!(timeout(CONNECT, self.connect()).await, Ok(Ok(()))) {
                sleep(AGAIN).await;
            }
        }
    }

    /// What was published while it was not connected is not known.
    fn dropped(&self) -> u64 {
        0
    }
}

#[cfg(test)]
#[path = "../../tests/it/redis_server.rs"]
#[expect(unreachable_pub, reason = "the tests of whole nodes have it too")]
mod redis_server;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::redis_server::RedisServer;
    use super::*;
    use crate::hot::suite;
    use crate::market::golden;

    fn of(server: &RedisServer, prefix: &str) -> RedisHot {
        let (url, prefix) = (server.url.clone(), prefix.to_owned());
        // A machine that compiles beside the tests may take a while.
        let call = Duration::from_secs(2);
        RedisHot::new(RedisHotOptions { url, password: None, ca: None, prefix, call }).unwrap()
    }

    #[tokio::test]
    async fn hot_suite_on_redis() {
        let (server, number) = (RedisServer::start(), AtomicU32::new(0));
        let make = || Arc::new(of(&server, &format!("suite{}", number.fetch_add(1, Ordering::Relaxed))));
        suite::hot(make).await;
    }

    /// A value of somebody else is not there; a Redis that hangs or was replaced is done without, and
    /// used again when it is back.
    #[tokio::test]
    async fn a_redis_that_fails_costs_its_values_alone() {
        let mut server = RedisServer::start();
        let options = RedisHotOptions { call: Duration::from_millis(200), ..of(&server, "fails").options };
        let hot = RedisHot::new(options).unwrap();
        hot.cache("key", Bytes::from_static(b"value"), Duration::from_secs(60), 0).await.unwrap();
        let mut heard = hot.subscribe().await.unwrap();
        let mut other = hot.client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("SET").arg("fails:key").arg("poison").exec_async(&mut other).await.unwrap();
        assert_eq!((hot.cached("key", 0).await, hot.stats().poisoned), (Ok(None), 1));
        server.stop();
        for _ in 0..FAILURES_MAX {
            hot.cached("key", 0).await.unwrap_err();
        }
        assert!(!hot.stats().is_up);
        let refused = hot.cached("key", 0).await.unwrap_err();
        assert!(refused.0.contains("for a while"), "{refused}");
        server.cont();
        let back = async |hot: &RedisHot| {
            while hot.publish(Bytes::from_static(b"hint")).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        back(&hot).await;
        assert_eq!(heard.next().await.unwrap(), "hint");
        server.replace();
        back(&hot).await;
        // The subscription comes back by itself; what was published before is lost to it.
        let again = async {
            loop {
                let _ = hot.publish(Bytes::from_static(b"again")).await;
                if let Ok(Some(bytes)) = timeout(Duration::from_millis(100), heard.next()).await
                    && bytes == "again"
                {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(60), again).await.unwrap();
        assert!(hot.stats().is_up);
    }

    /// What it holds is nothing that anybody relies on, and frames go on when it is full.
    #[tokio::test]
    async fn a_full_redis_still_hands_over() {
        let server = RedisServer::start();
        let hot = of(&server, "full");
        let (value, long) = (Bytes::from_static(b"value"), Duration::from_secs(60));
        hot.cache("key", value.clone(), long, 0).await.unwrap();
        let mut heard = hot.subscribe().await.unwrap();
        server.command(&["config", "set", "maxmemory", "1"]);
        for _ in 0..2 * FAILURES_MAX {
            let refused = hot.cache("key", value.clone(), long, 0).await.unwrap_err();
            assert!(refused.0.contains("OOM"), "{refused}");
        }
        hot.publish(Bytes::from_static(b"hint")).await.unwrap();
        assert_eq!(heard.next().await.unwrap(), "hint");
        assert_eq!(hot.cached("key", 0).await, Ok(Some(value.clone())));
        server.command(&["config", "set", "maxmemory", "0"]);
        server.command(&["flushall"]);
        assert_eq!(hot.cached("key", 0).await, Ok(None));
        hot.cache("key", value, long, 0).await.unwrap();
    }

    #[test]
    fn the_golden_value() {
        let stored = closed("tapeline:eu:key", b"value", 7_000);
        assert_eq!(stored, golden::block("redis-value"), "docs/FORMATS.md, section 12: {stored:02x?}");
    }

    #[test]
    fn a_value_is_what_was_cached_or_nothing() {
        let stored = closed("p:key", b"value", 7_000);
        assert_eq!(opened("p:key", &stored), Some((7_000, &b"value"[..])));
        assert_eq!(opened("p:other", &stored), None, "under another key");
        for at in 0..stored.len() {
            let mut flipped = stored.clone();
            flipped[at] ^= 1;
            assert_eq!(opened("p:key", &flipped), None, "byte {at}");
        }
        assert_eq!(opened("p:key", b"OK"), None);
        assert_eq!(opened("p:key", b""), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_some_failures_one_is_tried_now_and_then() {
        let (mut breaker, begun) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES_MAX {
            assert!(breaker.lets(begun));
            breaker.failed(begun);
        }
        assert!(!breaker.is_closed() && !breaker.lets(begun));
        let later = begun + OPEN;
        assert!(breaker.lets(later) && !breaker.lets(later), "one alone");
        breaker.failed(later);
        assert!(!breaker.lets(later + OPEN / 2));
        assert!(breaker.lets(later + OPEN));
        breaker.worked();
        assert!(breaker.is_closed() && breaker.lets(later + OPEN));
    }
}
