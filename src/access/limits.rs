//! Rate limits: of a key, and of an address that has not shown one yet.

use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::InMemoryState;
use governor::state::direct::NotKeyed;
use governor::state::keyed::DashMapStateStore;
use governor::{NotUntil, Quota, RateLimiter};
use parking_lot::Mutex;

use super::region_rate::{Counted, Known};

/// Where more addresses come than are counted one by one, all share this many counts.
const SHARED_COUNTS: u64 = 4_096;

/// A monotonic clock that is passed in: time since any fixed point.
#[derive(Clone)]
pub struct MonoClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl MonoClock {
    /// A clock that asks this function.
    pub fn new(elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(elapsed))
    }

    /// Time since the fixed point.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        (self.0)()
    }
}

impl Clock for MonoClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.elapsed()
    }
}

/// What is left of a rate limit: the figures of the `X-RateLimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a minute.
    pub limit: u32,
    /// Requests that may be made now.
    pub remaining: u32,
    /// Seconds until all of them are there again.
    pub reset_s: u64,
    /// Seconds, at least 1, after which a refused request may come again; none where it was
    /// admitted.
    pub retry_after_s: Option<u64>,
}

impl Allowance {
    /// Whether the request was admitted.
    #[must_use]
    pub const fn admits(&self) -> bool {
        self.retry_after_s.is_none()
    }
}

/// So many requests a minute, so many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    per_minute: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    pub(super) fn new(per_minute: u32, burst: u32) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self { per_minute: at_least_one(per_minute), burst: at_least_one(burst) }
    }

    fn quota(self) -> Quota {
        Quota::per_minute(self.per_minute).allow_burst(self.burst)
    }

    fn allowance(self, now: Duration, outcome: Result<StateSnapshot, NotUntil<Duration>>) -> Allowance {
        let limit = self.per_minute.get();
        let (remaining, retry_after_s) = match outcome {
            Ok(snapshot) => (snapshot.remaining_burst_capacity(), None),
            Err(until) => (0, Some(ceil_s(until.wait_time_from(now)).max(1))),
        };
        let missing = self.burst.get().saturating_sub(remaining);
        let reset_s = ceil_s(self.quota().replenish_interval().saturating_mul(missing));
        Allowance { limit, remaining, reset_s, retry_after_s }
    }
}

/// Whole seconds, rounded up: a client that waits so long does not come too early.
fn ceil_s(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The limit of one key; clones count together.
#[derive(Clone)]
pub(super) struct KeyLimiter {
    rate: Rate,
    clock: MonoClock,
    limiter: Arc<RateLimiter<NotKeyed, InMemoryState, MonoClock, StateInformationMiddleware>>,
    /// Requests admitted that the other nodes have not been told of.
    untold: Arc<AtomicU32>,
    known: Arc<Mutex<Known>>,
}

impl KeyLimiter {
    pub(super) fn new(rate: Rate, clock: &MonoClock) -> Self {
        let limiter = RateLimiter::direct_with_clock(rate.quota(), clock.clone())
            .with_middleware::<StateInformationMiddleware>();
        let (untold, known) = (Arc::default(), Arc::default());
        Self { rate, clock: clock.clone(), limiter: Arc::new(limiter), untold, known }
    }

    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    pub(super) fn check(&self) -> Allowance {
        let outcome = self.limiter.check();
        if outcome.is_ok() {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
        self.rate.allowance(self.clock.now(), outcome)
    }

    /// Requests admitted since the last time that they were taken.
    pub(super) fn take_untold(&self) -> u32 {
        self.untold.swap(0, Ordering::Relaxed)
    }

    /// They are told another time.
    pub(super) fn put_back(&self, requests: u32) {
        self.untold.fetch_add(requests, Ordering::Relaxed);
    }

    /// Whether they were told is not known.
    pub(super) fn failed(&self) {
        self.known.lock().failed();
    }

    /// Requests that a key is given in so long.
    pub(super) fn replenished(&self, elapsed_ms: u64) -> u64 {
        u64::from(self.rate.per_minute.get()).saturating_mul(elapsed_ms) / 60_000
    }

    /// Takes off what other nodes have admitted, as far as there is anything left; answers how much it was.
    pub(super) fn take_others(&self, counted: Counted) -> u64 {
        let others = self.known.lock().others_since(counted);
        let most = u32::try_from(others).unwrap_or(u32::MAX).min(self.rate.burst.get());
        let (mut left, mut part) = (most, most);
        // All of it at once, else halves of it: what is not there any more is not owed.
        while let Some(some) = NonZeroU32::new(part.min(left)) {
            match self.limiter.check_n(some) {
                Ok(Ok(_)) => left -= some.get(),
                Ok(Err(_)) | Err(_) => part /= 2,
            }
        }
        u64::from(most - left)
    }
}

/// The limit of addresses, IPv6 by /64, before a key is looked at. Memory is bounded: where
/// more addresses come than `sources_max`, even after those are forgotten that have their full
/// allowance again, all share 4,096 counts by hash.
pub struct SourceLimiter {
    rate: Rate,
    clock: MonoClock,
    sources_max: usize,
    /// Checks until the sources have to be counted again, which costs more than a check: each adds
    /// one at most.
    room: AtomicIsize,
    limiter: RateLimiter<Source, DashMapStateStore<Source>, MonoClock, StateInformationMiddleware>,
}

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u16; 4]),
    Shared(u64),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }

    fn shared(self) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        self.hash(&mut hasher);
        Self::Shared(hasher.finish() % SHARED_COUNTS)
    }
}

impl SourceLimiter {
    /// A limit of so many requests a minute an address.
    #[must_use]
    pub fn new(requests_per_minute: u32, sources_max: usize, clock: MonoClock) -> Self {
        let rate = Rate::new(requests_per_minute, requests_per_minute);
        let limiter = RateLimiter::dashmap_with_clock(rate.quota(), clock.clone())
            .with_middleware::<StateInformationMiddleware>();
        Self { rate, clock, sources_max, room: AtomicIsize::new(0), limiter }
    }

    /// Counts one request of this address; without an address, one of all those.
    pub fn check(&self, address: Option<IpAddr>) -> Allowance {
        let mut source = address.map_or(Source::Shared(0), Source::of);
        if self.is_full() {
            source = source.shared();
        }
        self.rate.allowance(self.clock.now(), self.limiter.check_key(&source))
    }

    fn is_full(&self) -> bool {
        if self.room.fetch_sub(1, Ordering::Relaxed) > 0 {
            return false;
        }
        let room = self.sources_max.saturating_sub(self.limiter.len());
        // This check takes some of it already.
        self.room.store(isize::try_from(room).unwrap_or(isize::MAX) - 1, Ordering::Relaxed);
        room == 0
    }

    /// Forgets the addresses that have their full allowance again. To be called now and then.
    pub fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn clock() -> (Arc<AtomicU64>, MonoClock) {
        let now_ms = Arc::new(AtomicU64::new(1_000));
        let read = Arc::clone(&now_ms);
        (now_ms, MonoClock::new(move || Duration::from_millis(read.load(Ordering::Relaxed))))
    }

    #[test]
    fn the_rate_is_what_it_says() {
        let (now_ms, clock) = clock();
        let limiter = KeyLimiter::new(Rate::new(60, 3), &clock);
        let remaining: Vec<u32> = (0..3).map(|_| limiter.check().remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let refused = limiter.check();
        let expected = Allowance { limit: 60, remaining: 0, reset_s: 3, retry_after_s: Some(1) };
        assert_eq!(refused, expected);
        // 60 a minute are one a second, and not before.
        now_ms.fetch_add(999, Ordering::Relaxed);
        assert!(!limiter.check().admits());
        now_ms.fetch_add(1, Ordering::Relaxed);
        assert!(limiter.check().admits());
        assert!(!limiter.check().admits());
        now_ms.fetch_add(60_000, Ordering::Relaxed);
        assert_eq!(limiter.check().remaining, 2);
    }

    #[test]
    fn addresses_of_one_network_count_together_and_others_apart() {
        let (_, clock) = clock();
        let cases: [(&[&str], bool); 4] = [
            (&["2001:db8::1", "2001:db8::ffff"], false),
            (&["2001:db8::1", "2001:db8:0:1::1"], true),
            (&["192.0.2.1", "192.0.2.2"], true),
            (&["192.0.2.1", "::ffff:192.0.2.1"], false),
        ];
        for (addresses, admitted) in cases {
            let limiter = SourceLimiter::new(1, 100, clock.clone());
            let outcomes: Vec<bool> =
                addresses.iter().map(|text| limiter.check(text.parse().ok()).admits()).collect();
            assert_eq!(outcomes, [true, admitted], "{addresses:?}");
        }
    }

    #[test]
    fn the_map_of_addresses_is_bounded_and_shrinks() {
        let (now_ms, clock) = clock();
        let limiter = SourceLimiter::new(60, 100, clock);
        for number in 0..100_000_u32 {
            limiter.check(Some(IpAddr::from(number.to_be_bytes())));
        }
        let counted = limiter.limiter.len();
        assert!(counted <= 100 + 4_096, "{counted}");
        now_ms.fetch_add(120_000, Ordering::Relaxed);
        limiter.sweep();
        assert_eq!(limiter.limiter.len(), 0);
    }

    #[test]
    fn a_short_wait_is_told_as_one_second() {
        let (_, clock) = clock();
        let limiter = KeyLimiter::new(Rate::new(6_000, 1), &clock);
        limiter.check();
        assert_eq!(limiter.check().retry_after_s, Some(1));
    }
}
