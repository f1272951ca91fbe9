//! What a node looks at now and then: its health, its disk, its metrics, old segments.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use prometheus::IntCounter;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::backends::{Backend, ROWS_AGE_MIN};
use super::{Node, tls};
use crate::access::{self, tickets::is_over};
use crate::hot::redis::RedisHot;
use crate::http::{Gate, Streams};
use crate::live::Newest;
use crate::market::Nanos;
use crate::store::Store as _;
use crate::store::cassandra::CassandraStore;
use crate::store::embedded::EmbeddedStore;
use crate::tape::tasks::{NowFn, Push, SharedView, WriterHandle};
use crate::telemetry::{Health, Metrics, Status};

/// Between looks at view, writer and disk.
const LOOK: Duration = Duration::from_millis(100);
/// Between signs of life of the database.
const PING: Duration = Duration::from_secs(1);
/// Between looks for segments that may be unlinked, sweeps of counters that rest, and reads of the
/// marks of all regions.
const SWEEP: Duration = Duration::from_secs(10);

impl Node {
    /// Starts the tasks.
    pub(super) fn watch(&self) {
        let look = Look {
            health: Arc::clone(&self.gate.health),
            metrics: Arc::clone(&self.gate.metrics),
            view: Arc::clone(&self.view),
            streams: Arc::clone(&self.streams),
            newest: Arc::clone(&self.newest),
            writer: self.writer.clone(),
            backend: self.backend.clone(),
            push: self.push.clone(),
            low_space_percent: self.config.store.low_space_percent,
            now: Arc::clone(&self.now),
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let mut ticks = every(LOOK);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                look.once();
            }
        });
        let (gate, view, backend) = (Arc::clone(&self.gate), Arc::clone(&self.view), self.backend.clone());
        let age = Duration::from_secs(self.config.store.tape_hours.saturating_mul(3_600));
        let audit_age = Duration::from_secs(self.config.access.audit_days.saturating_mul(86_400));
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let mut ticks = every(SWEEP);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                gate.sources.sweep();
                gate.metrics.access_keys.set(count(gate.keys.list().len()));
                let now = (gate.clock)();
                // In a database rows end by themselves.
                if let Backend::Embedded(embedded) = &backend {
                    unlink(embedded, &view, age, now).await;
                    drop_rows(embedded, age, audit_age, now).await;
                }
            }
        });
        let (standing, gate, stop) = (Arc::clone(&self.standing), Arc::clone(&self.gate), self.stop.clone());
        self.tasks.spawn(async move {
            let mut ticks = every(SWEEP);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                standing.measure(&gate.metrics).await;
            }
        });
        if let Backend::Cassandra(store) = &self.backend {
            let (store, health) = (Arc::clone(store), Arc::clone(&self.gate.health));
            self.tasks.spawn(ask_database(store, health, self.stop.clone()));
        }
        if let Some(tls) = &self.tls {
            self.tasks.spawn(tls::watch(Arc::clone(tls), Arc::clone(&self.gate), self.stop.clone()));
        }
        self.watch_keys();
    }

    /// Reads the keys again, ends the streams of those that are no longer good, and counts them with the
    /// other nodes of the region.
    fn watch_keys(&self) {
        if let Some((redis, _)) = self.push.as_ref().filter(|_| self.config.redis.rates_ms > 0) {
            let every = Duration::from_millis(self.config.redis.rates_ms);
            let (gate, redis) = (Arc::clone(&self.gate), Arc::clone(redis));
            self.tasks.spawn(share_rates(gate, redis, every, self.stop.clone()));
        }
        let (gate, stop) = (Arc::clone(&self.gate), self.stop.clone());
        let streams = Arc::clone(&self.streams);
        let refresh = Duration::from_millis(self.config.access.refresh_ms);
        self.tasks.spawn(async move {
            let mut ticks = every(refresh);
            loop {
                let is_due = tokio::select! {
                    () = stop.cancelled() => return,
                    () = gate.keys.changed() => false,
                    _ = ticks.tick() => true,
                };
                if is_due && let Err(error) = gate.keys.refresh().await {
                    gate.metrics.access_refresh_failures.inc();
                    tracing::warn!(%error, "the API keys could not be read again");
                }
                let now = (gate.clock)();
                for live in [&streams.live, &streams.test] {
                    live.hub().end_revoked(|key| gate.keys.is_live(key, now));
                }
            }
        });
    }
}

/// Tells the other nodes of the region what keys have used, and hears it from them.
async fn share_rates(gate: Arc<Gate>, redis: Arc<RedisHot>, period: Duration, stop: CancellationToken) {
    let mut ticks = every(period);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let now_ms = u64::try_from((gate.clock)().0 / 1_000_000).unwrap_or(0);
        match stop.run_until_cancelled(access::share(&gate.keys, &*redis, now_ms)).await {
            Some(Ok(requests)) => gate.metrics.access_shared.inc_by(requests),
            Some(Err(error)) => tracing::debug!(%error, "keys are counted by this node alone"),
            None => return,
        }
    }
}

/// Asks the database for a sign of life now and then.
async fn ask_database(store: Arc<CassandraStore>, health: Arc<Health>, stop: CancellationToken) {
    let mut ticks = every(PING);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match store.ping().await {
            Ok(()) => health.set("database", Status::Ok, "answers"),
            Err(error) => health.set("database", Status::Fail, error.to_string()),
        }
    }
}

pub(super) fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Unlinks segments that are old enough and that every mark covers.
async fn unlink(embedded: &EmbeddedStore, view: &Arc<SharedView>, age: Duration, now: Nanos) {
    let view = Arc::clone(view);
    let now = UNIX_EPOCH + Duration::from_nanos(u64::try_from(now.0).unwrap_or_default());
    let covered = move |tape, seqs: &[u64]| view.read(|view| view.is_released(tape, seqs));
    match embedded.drop_segments(now, age, covered).await {
        Ok(0) => {}
        Ok(segments) => tracing::info!(segments, "unlinked segments of tapes that every mark covers"),
        Err(error) => tracing::warn!(%error, "a segment could not be unlinked"),
    }
}

/// Forgets used tickets that are over, audit entries that are old enough, and registry rows that
/// have outlived their frames: they are kept twice as long.
async fn drop_rows(embedded: &EmbeddedStore, age: Duration, audit_age: Duration, now: Nanos) {
    let before = |age: Duration| now.plus(i64::try_from(age.as_nanos()).map_or(i64::MIN, |age| -age));
    let tapes = before(age.saturating_mul(2).max(ROWS_AGE_MIN));
    let over = move |ticket: &str| is_over(ticket, now);
    match embedded.drop_rows(tapes, before(audit_age), before(ROWS_AGE_MIN), over).await {
        Ok(0) => {}
        Ok(rows) => tracing::debug!(rows, "forgot rows that are out of date"),
        Err(error) => tracing::warn!(%error, "rows that are out of date could not be forgotten"),
    }
}

struct Look {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    view: Arc<SharedView>,
    streams: Arc<Streams>,
    newest: Arc<Newest>,
    writer: WriterHandle,
    backend: Backend,
    push: Option<(Arc<RedisHot>, Arc<Push>)>,
    low_space_percent: u64,
    now: NowFn,
}

impl Look {
    fn once(&self) {
        self.look_at_view();
        self.look_at_writer();
        if let Some((redis, push)) = &self.push {
            self.look_at_push(redis, push);
        }
        match &self.backend {
            Backend::Embedded(store) => self.look_at_disk(store),
            Backend::Cassandra(store) => self.look_at_driver(store),
        }
    }

    fn look_at_view(&self) {
        let now = (self.now)().mono;
        let (readable, bytes, status, backlog, reach) = self.view.read(|view| {
            let (tail, follower) = (view.tail(), view.follower());
            let reach = now.since(view.requests().reaches_back_to());
            (view.readable(), tail.bytes(), follower.status(now), tail.backlog(), reach)
        });
        let metrics = &self.metrics;
        raise(&metrics.tape_acked_frame_missing, status.acked_frames_missing);
        metrics.live_requests_reach_seconds.set(seconds(reach));
        metrics.live_backlog_bytes.set(count(self.streams.live.hub().status().backlog_bytes));
        raise(&metrics.latest_reads, self.newest.reads());
        metrics.tape_tail_bytes.set(count(bytes));
        metrics.tape_held_bytes.set(count(status.held_bytes));
        metrics.tape_followed.set(count(status.tapes));
        metrics.tape_unretired.set(count(status.unretired));
        metrics.tape_holes.set(count(status.holes));
        metrics.tape_hole_age_seconds.set(seconds(status.oldest_hole_ms));
        metrics.history_unkept_ticks.set(count(backlog.iter().map(|shard| shard.rows).sum()));
        let oldest = backlog.iter().filter_map(|shard| shard.oldest).map(|oldest| now.since(oldest)).max();
        metrics.history_unkept_age_seconds.set(seconds(oldest.unwrap_or(0)));
        match readable {
            Ok(()) => self.health.set("view", Status::Ok, "every tape is followed to its end"),
            Err(why) => self.health.set("view", Status::Fail, why.to_string()),
        }
    }

    fn look_at_writer(&self) {
        let status = self.writer.status();
        raise(&self.metrics.tape_frames, status.acknowledged);
        self.metrics.tape_queue_bytes.set(count(status.queued_bytes));
        self.metrics.tape_unacked_frames.set(i64::try_from(status.unacked).unwrap_or(i64::MAX));
        match status.stopped {
            _ if status.draining => {}
            Some(why) => self.health.set("writer", Status::Warn, format!("intake is stopped: {why}")),
            None if status.tape == 0 => {}
            None => self.health.set("writer", Status::Ok, "takes ticks"),
        }
    }

    fn look_at_push(&self, redis: &RedisHot, push: &Push) {
        let (metrics, of_redis, of_push) = (&self.metrics, redis.stats(), push.stats());
        raise(&metrics.redis_failures, of_redis.failures);
        raise(&metrics.redis_poisoned, of_redis.poisoned);
        metrics.redis_up.set(i64::from(of_redis.is_up));
        raise(&metrics.push_sent, of_push.sent);
        raise(&metrics.push_dropped, of_push.dropped);
        raise(&metrics.push_received, of_push.received);
        raise(&metrics.push_refused, of_push.refused);
    }

    fn look_at_driver(&self, store: &CassandraStore) {
        let (metrics, stats) = (&self.metrics, store.stats());
        raise(&metrics.database_requests, stats.requests);
        raise(&metrics.database_errors, stats.errors);
        raise(&metrics.database_retries, stats.retries);
        raise(&metrics.database_connection_timeouts, stats.connection_timeouts);
        raise(&metrics.database_request_timeouts, stats.request_timeouts);
        metrics.database_connections.set(i64::try_from(stats.connections).unwrap_or(i64::MAX));
    }

    fn look_at_disk(&self, store: &EmbeddedStore) {
        let (metrics, stats) = (&self.metrics, store.stats());
        raise(&metrics.store_append_bytes, stats.appended_bytes);
        raise(&metrics.store_syncs, stats.append_syncs);
        raise(&metrics.store_refused_appends, stats.refused_appends);
        metrics.store_segments.set(i64::try_from(stats.segments).unwrap_or(i64::MAX));
        let space = match store.free_space() {
            Ok(space) => space,
            Err(error) => {
                self.health.set("disk", Status::Warn, format!("free space is not known: {error}"));
                return;
            }
        };
        let percent = space.free_bytes.saturating_mul(100).checked_div(space.total_bytes).unwrap_or(100);
        self.metrics.store_free_ratio.set(ratio(space.free_bytes, space.total_bytes));
        if percent < self.low_space_percent {
            let (free, low) = (space.free_bytes / (1 << 20), self.low_space_percent);
            let reason = format!(
                "{free} MiB ({percent} %) free, less than {low} %: ticks are refused when it is full"
            );
            self.health.set("disk", Status::Warn, reason);
        } else {
            self.health.set("disk", Status::Ok, "has room");
        }
    }
}

/// Raises a counter to what was counted elsewhere.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

#[expect(clippy::cast_precision_loss, reason = "a time for people needs few digits")]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a share for people needs few digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
