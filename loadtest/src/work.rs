//! How load on a database is offered, what came of it, and the trades that it is made of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hdrhistogram::Histogram;

use crate::publish::utc;
use crate::random::Random;
use crate::system::{now, sleep_until};

/// Symbols of the trades.
const SYMBOLS: u64 = 500;

/// How much at once and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Who works at once, each on the next when the last is done.
    pub(crate) workers: usize,
    pub(crate) seconds: f64,
    /// The least nanoseconds from one beginning of a worker to its next.
    pub(crate) every: u64,
}

impl Work {
    /// As fast as it goes.
    pub(crate) const fn closed(workers: usize, seconds: f64) -> Self {
        Self { workers, seconds, every: 0 }
    }

    /// When it is over.
    pub(crate) fn end(self) -> u64 {
        now() + (self.seconds * 1e9) as u64
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) count: u64,
    /// How long that took, of several runs together.
    pub(crate) nanos: u64,
    /// Of each, in nanoseconds.
    latency: Histogram<u64>,
}

impl Done {
    pub(crate) fn nothing() -> anyhow::Result<Self> {
        Ok(Self { count: 0, nanos: 0, latency: Histogram::new(3)? })
    }

    /// One more was done.
    pub(crate) fn one(&mut self, nanos: u64) -> anyhow::Result<()> {
        self.count += 1;
        Ok(self.latency.record(nanos)?)
    }

    /// What another worker has done meanwhile.
    pub(crate) fn beside(&mut self, other: &Self) -> anyhow::Result<()> {
        self.count += other.count;
        Ok(self.latency.add(&other.latency)?)
    }

    /// What was done in another run.
    pub(crate) fn after(&mut self, other: &Self) -> anyhow::Result<()> {
        self.nanos += other.nanos;
        self.beside(other)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 * 1e9 / self.nanos.max(1) as f64
    }

    /// A quantile, in milliseconds.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }
}

/// Does a work by threads, one a worker: `begin` makes what a thread works with, `make` the piece of
/// that number before the clock begins, and `send` does it.
pub(crate) fn by_threads<W, P>(
    work: Work,
    begin: impl Fn() -> anyhow::Result<W> + Sync,
    make: impl Fn(u64) -> P + Sync,
    send: impl Fn(&mut W, P) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Done> {
    let next = AtomicU64::new(0);
    let (begun, end) = (now(), work.end());
    let worker = || -> anyhow::Result<Done> {
        let (mut with, mut done, mut at) = (begin()?, Done::nothing()?, now());
        while now() < end {
            sleep_until(at);
            at = now() + work.every;
            let piece = make(next.fetch_add(1, Ordering::Relaxed));
            let begun = now();
            send(&mut with, piece)?;
            done.one(now() - begun)?;
        }
        Ok(done)
    };
    let mut all = Done::nothing()?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let threads: Vec<_> = (0..work.workers).map(|_| scope.spawn(worker)).collect();
        for thread in threads {
            all.beside(&thread.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??)?;
        }
        Ok(())
    })?;
    all.nanos = now() - begun;
    Ok(all)
}

/// A trade, as its number makes it: no two are alike, and they are not easily made small.
pub(crate) struct Trade {
    pub(crate) number: u64,
    pub(crate) symbol: String,
    /// Microseconds since 1970.
    pub(crate) micros: u64,
    pub(crate) exchange: &'static str,
    /// In hundredths.
    pub(crate) price: u64,
    pub(crate) size: u64,
}

impl Trade {
    /// A trade of one of 500 symbols, now.
    pub(crate) fn now(number: u64) -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::at(number, format!("S{:03}", number % SYMBOLS), wall.as_micros() as u64)
    }

    pub(crate) fn at(number: u64, symbol: String, micros: u64) -> Self {
        let mut random = Random::new(number);
        let exchange = ["V", "Q", "N", "P", "Z"].get(random.of(0..5) as usize).copied().unwrap_or("V");
        let price = 10_000 + number % SYMBOLS * 100 + random.of(0..200);
        Self { number, symbol, micros, exchange, price, size: random.of(1..1_000) }
    }

    /// Appends it as a line of NDJSON.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let Self { number, symbol, micros, exchange, price, size } = self;
        let (whole, part, time) = (price / 100, price % 100, utc(*micros));
        out.extend_from_slice(
            format!(
                "{{\"T\":\"t\",\"S\":\"{symbol}\",\"i\":{number},\"x\":\"{exchange}\",\"p\":{whole}.{part:02},\
                 \"s\":{size},\"c\":[\"@\"],\"z\":\"C\",\"t\":\"{time}\"}}\n"
            )
            .as_bytes(),
        );
    }
}

/// So many trades as a body.
pub(crate) fn lines(trades: impl Iterator<Item = Trade>) -> Vec<u8> {
    let mut body = Vec::new();
    for trade in trades {
        trade.put(&mut body);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_done_once_and_counted() {
        let seen = std::sync::Mutex::new(Vec::new());
        let work = Work { workers: 3, seconds: 0.05, every: 1_000_000 };
        let done = by_threads(
            work,
            || Ok(()),
            |number| number,
            |(), number| {
                seen.lock().unwrap().push(number);
                Ok(())
            },
        )
        .unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..done.count).collect::<Vec<_>>());
        assert!(done.count > 3 && done.per_second() > 0.0 && done.ms(1.0) >= 0.0);
    }

    #[test]
    fn a_trade_is_a_line() {
        let line = lines(std::iter::once(Trade::at(7, "A".to_owned(), 1_704_294_000_000_000)));
        let trade: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&trade["S"], &trade["i"]), (&"A".into(), &7.into()));
        assert_eq!(trade["t"], "2024-01-03T15:00:00.000000007Z");
        assert!((107.0..109.0).contains(&trade["p"].as_f64().unwrap()), "{trade}");
    }
}
