//! The live part of a node: latest values, hubs, and their tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backends::Storage;
use super::clock::Clocks;
use crate::config;
use crate::history::Reader;
use crate::http::{Clock, Streams};
use crate::live::tasks::{BarsWorld, Heap};
use crate::live::warm::{self, Sheets};
use crate::live::{
    BarLimits, Hub, HubConfig, Live, LiveConfig, Newest, Scans, Screener, Sheet, Tapes, tasks,
};
use crate::market::{FAKE_EVERY_NANOS, Origin, Row, fakepaca};
use crate::tape::tasks::{Sealed, SharedView};
use crate::tape::{Delivery, Position};
use crate::telemetry::Metrics;

/// The parts that run.
pub(super) struct LiveParts {
    pub(super) newest: Arc<Newest>,
    pub(super) streams: Arc<Streams>,
    pub(super) screener: Arc<Screener>,
}

/// What the live part stands on.
pub(super) struct Ground<'a> {
    pub(super) storage: &'a Storage,
    pub(super) view: &'a Arc<SharedView>,
    pub(super) reader: &'a Arc<Reader>,
    pub(super) clocks: &'a Clocks,
    pub(super) metrics: &'a Arc<Metrics>,
    bars: BarLimits,
    warm_every: Duration,
}

impl<'a> Ground<'a> {
    pub(super) fn of(
        config: &config::Config,
        (storage, view): (&'a Storage, &'a Arc<SharedView>),
        reader: &'a Arc<Reader>,
        clocks: &'a Clocks,
        metrics: &'a Arc<Metrics>,
    ) -> Self {
        let bars = BarLimits::of(&config.live, &config.ingest);
        let warm_every = Duration::from_millis(config.redis.latest_ms);
        Self { storage, view, reader, clocks, metrics, bars, warm_every }
    }
}

/// Listens to the view, which follows nothing yet, and begins the tasks. `warm` is what the region's
/// Redis has as the latest.
pub(super) fn start(
    config: &config::Live,
    ground: &Ground<'_>,
    warm: Option<(Sheets, BTreeMap<u8, Sheet>)>,
    stop: &CancellationToken,
    tracker: &TaskTracker,
) -> LiveParts {
    let Ground { storage, view, reader, clocks, metrics, bars, warm_every } = ground;
    let newest = Arc::new(Newest::new(Arc::clone(reader), config.latest_symbols_max));
    if let Some((sheets, read)) = warm {
        read.into_iter().for_each(|(shard, sheet)| newest.warm(shard, sheet));
        let symbols = newest.symbols();
        tracing::info!(symbols, "the latest of these symbols is known by the region's Redis");
        metrics.latest_warmed.set(i64::try_from(symbols).unwrap_or(i64::MAX));
        let (of, shared, counted) = (Arc::clone(&newest), Arc::clone(view), Arc::clone(metrics));
        let put = move || counted.latest_sheets.inc();
        tracker.spawn(warm::run_sheets(sheets, rand::random(), of, shared, *warm_every, put, stop.clone()));
    }
    let sealed = Sealed::new(Arc::clone(&storage.keyring));
    let store = Arc::clone(&storage.store);
    let counted = Arc::clone(metrics);
    let counted = Box::new(move || counted.live_scans.inc());
    let scans = Scans::new(store, sealed, config.scans_max, config.scan_cache_bytes_max, counted);
    let tapes = Arc::new(Tapes { view: Arc::clone(view), scans });
    let hub_config = HubConfig {
        outbox_bytes_max: config.outbox_bytes_max,
        backlog_bytes_max: config.backlog_bytes_max,
        announced_bytes_max: config.announced_bytes_max,
        announced_ms: config.resume_minutes * 60_000,
    };
    let position = view.read(|view| view.follower().position());
    let heap = Arc::new(Heap::default());
    let (to_fold, heap_bytes_max) = (Arc::clone(&heap), config.backlog_bytes_max);
    let heard = move |delivery: &Delivery| to_fold.push(delivery, heap_bytes_max);
    let hub = Hub::new(hub_config, position, Box::new(heard), Arc::clone(&clocks.now));
    let live =
        Arc::new(Live::new(hub, Arc::clone(&tapes), live_config(config, true), Arc::clone(&clocks.now)));
    let hub_config = HubConfig { announced_bytes_max: 0, ..hub_config };
    let hub = Hub::new(hub_config, Position::default(), Box::new(|_| {}), Arc::clone(&clocks.now));
    let test = Arc::new(Live::new(hub, tapes, live_config(config, false), Arc::clone(&clocks.now)));

    let (latest, to_hub) = (Arc::clone(&newest), Arc::clone(&live));
    view.listen(Box::new(move |view, passed, delivered| {
        latest.deliver(view.follower(), delivered);
        to_hub.hub().enqueue(passed, delivered, view.follower().position());
    }));
    let counted = Arc::clone(metrics);
    let turned = move |turned: &crate::live::Turned| {
        counted.live_left.inc_by(turned.left as u64);
        counted.live_overruns.inc_by(u64::from(turned.overrun));
    };
    tracker.spawn(tasks::run_hub(Arc::clone(&live), turned, stop.clone()));
    let screener = Arc::new(Screener::new(Arc::clone(reader), config.latest_symbols_max, (clocks.wall)()));
    let of_fold = Arc::clone(&screener);
    let world = BarsWorld {
        also: Box::new(move |deliveries| of_fold.deliver(deliveries)),
        live: Arc::clone(&live),
        heap,
        reader: Arc::clone(reader),
        limits: *bars,
        now: Arc::clone(&clocks.now),
    };
    tracker.spawn(tasks::run_bars(world, stop.clone()));
    tracker.spawn(run_test_feed(Arc::clone(&test), Arc::clone(&clocks.wall), stop.clone()));
    let streams = Arc::new(Streams { live, test, tasks: TaskTracker::new() });
    LiveParts { newest, screener, streams }
}

const fn live_config(config: &config::Live, is_taped: bool) -> LiveConfig {
    LiveConfig {
        resume_ms: config.resume_minutes * 60_000,
        replay_memory_bytes_max: config.replay_requests_bytes_max,
        streams_per_key_max: config.streams_per_key_max,
        is_taped,
    }
}

/// Made-up ticks, while somebody listens.
async fn run_test_feed(test: Arc<Live>, wall: Clock, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_nanos(FAKE_EVERY_NANOS.unsigned_abs()));
    let mut number = 0;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if test.hub().status().clients > 0 {
            number += 1;
            let now = (wall)();
            let origin = Origin { received: now, ..Origin::UNKNOWN };
            let rows = fakepaca(number, now).into_iter().map(|tick| Row { tick, origin });
            test.hub().announce(&rows.collect::<Vec<_>>());
        }
    }
}
