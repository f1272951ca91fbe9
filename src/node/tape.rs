//! The tape's tasks of a node: view, writer, keeper.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use super::backends::{self, Storage};
use super::clock::Clocks;
use crate::config::Config;
use crate::history::keeper::{Keeper, KeeperConfig};
use crate::history::tasks::{KeeperHandle, KeeperWorld, spawn_keeper};
use crate::hot::Hot;
use crate::hot::redis::RedisHot;
use crate::ingest::{Ack, AppendError, Batch, Durable, Memory, Tape};
use crate::live::Sheet;
use crate::live::warm::Sheets;
use crate::market::{RequestKey, Row};
use crate::store::{Reach, StoreError, StoreErrorKind, TapeId};
use crate::tape::tasks::{self, NowFn, Push, Sealed, SharedView, ViewWorld, WriterHandle, WriterWorld};
use crate::tape::{
    BodyHash, Follower, FollowerConfig, Refusal, Region, Remembered, RequestConfig, RequestMemory, SHARDS,
    Tail, TailConfig, View, Writer, WriterConfig, check_one_frame,
};
use crate::telemetry::{Health, Status};

/// The running tasks.
pub(super) struct TapeTasks {
    pub(super) writer: WriterHandle,
    pub(super) keeper: KeeperHandle,
    pub(super) view: Arc<SharedView>,
    pub(super) world: ViewWorld,
    /// The Redis, and what is handed over by it.
    pub(super) push: Option<(Arc<RedisHot>, Arc<Push>)>,
    /// What the region's Redis has as the latest, which the view has not followed beyond.
    pub(super) warm: Option<(Sheets, BTreeMap<u8, Sheet>)>,
    tell: Arc<dyn Fn(&StoreError) + Send + Sync>,
}

impl TapeTasks {
    /// Begins to follow the tapes: who listens to the view from before hears all.
    pub(super) fn follow(&self, stop: &CancellationToken, tracker: &TaskTracker) {
        let (view, world, tell) = (Arc::clone(&self.view), self.world.clone(), Arc::clone(&self.tell));
        if let Some((hot, push)) = &self.push {
            let (hot, push): (Arc<dyn Hot>, _) = (Arc::clone(hot) as _, Arc::clone(push));
            let (shared, sealed) = (Arc::clone(&view), world.sealed.clone());
            tracker.spawn(tasks::run_hints(push, hot, shared, sealed, stop.clone()));
        }
        tracker.spawn(tasks::run_view(view, world, tell, stop.clone()));
    }
}

/// Boots the view from what is durable, and begins a new tape.
pub(super) async fn start(
    config: &Config,
    storage: &Storage,
    region: Region,
    clocks: &Clocks,
    health: &Arc<Health>,
    stop: &CancellationToken,
    tracker: &TaskTracker,
) -> Result<TapeTasks, StartError> {
    let regions = config.regions().into_iter().map(Region::parse).collect::<Result<Vec<_>, _>>();
    let regions = regions.map_err(|error| StartError::Config(format!("cassandra.regions: {error}")))?;
    let world = ViewWorld {
        store: Arc::clone(&storage.store),
        records: Arc::clone(&storage.records),
        sealed: Sealed::new(Arc::clone(&storage.keyring)),
        region,
        regions: regions.clone(),
        now: Arc::clone(&clocks.now),
    };
    let now = (clocks.now)();
    let view = View::new(
        Follower::new(follower_config(config, region, regions), Box::new(random), now),
        Tail::new(tail_config(config)),
        RequestMemory::new(request_config(config), now.mono),
        SHARDS,
    );
    let push = backends::hot(config)?.map(|hot| (hot, Arc::new(Push::new(config.redis.push_bytes_max))));
    let warm = warm(config, storage, &world, push.as_ref().map(|(hot, _)| hot)).await;
    let sheets = warm.iter().flat_map(|(_, sheets)| sheets.values());
    let before = sheets.map(|sheet| sheet.position.clone()).collect();
    let (view, block_counts) = tasks::boot_view(view, &world, before).await.map_err(StartError::Tapes)?;
    if let Some((hot, push)) = &push {
        tracker.spawn(tasks::run_push(Arc::clone(push), Arc::clone(hot) as _, stop.clone()));
    }
    let node = (config.node.name.clone(), config.http.listen.to_string());
    let writer = Writer::new(region, node, Box::new(random), writer_config(config), now);
    let own = writer.tape();
    let writer = tasks::spawn_writer(
        writer,
        WriterWorld {
            store: Arc::clone(&storage.store),
            records: Arc::clone(&storage.records),
            sealed: world.sealed.clone(),
            region: config.node.region.clone(),
            now: Arc::clone(&clocks.now),
            view: Arc::clone(&view),
            push: push.as_ref().map(|(_, push)| Arc::clone(push)),
        },
    );
    let health = Arc::clone(health);
    let tell: Arc<dyn Fn(&StoreError) + Send + Sync> = Arc::new(move |error: &StoreError| {
        let what_to_do = match error.kind {
            StoreErrorKind::Corrupt => "; run tapeline verify",
            _ => "",
        };
        health.set("tapes", Status::Fail, format!("{error}{what_to_do}"));
    });
    let keeper = spawn_keeper(
        Keeper::new(keeper_config(config)).with_counts(&block_counts),
        KeeperWorld {
            view: world.clone(),
            shared: Arc::clone(&view),
            keyring: Arc::clone(&storage.keyring),
            own: own_tape(&writer, own),
            corrupt: Arc::clone(&tell),
        },
    );
    Ok(TapeTasks { writer, keeper, view, world, push, warm, tell })
}

/// The sheets of the region, where there is a Redis and they are wanted. One that names a tape of which
/// nobody here has a row is of a database that is no more.
async fn warm(
    config: &Config,
    storage: &Storage,
    world: &ViewWorld,
    hot: Option<&Arc<RedisHot>>,
) -> Option<(Sheets, BTreeMap<u8, Sheet>)> {
    let hot = hot.filter(|_| config.redis.latest_ms > 0)?;
    let (hot, keyring) = (Arc::clone(hot) as _, Arc::clone(&storage.keyring));
    let sheets = Sheets { hot, keyring, region: world.region, now: Arc::clone(&world.now) };
    let mut tapes = BTreeSet::new();
    for region in world.regions.iter().copied() {
        // Where a registry cannot be read its tapes are not known, and nor are sheets that name them.
        let rows = world.tapes(region).await.unwrap_or_default();
        tapes.extend(rows.into_iter().map(|scanned| scanned.tape));
    }
    let read = sheets.read(|tape| tapes.contains(&tape)).await;
    Some((sheets, read))
}

/// The tape that is written now; it changes only where a writer leaves its tape for another.
fn own_tape(writer: &WriterHandle, first: TapeId) -> Arc<dyn Fn() -> TapeId + Send + Sync> {
    let writer = writer.clone();
    Arc::new(move || match writer.status().tape {
        0 => first,
        tape => TapeId(tape),
    })
}

fn random() -> u64 {
    rand::random()
}

fn follower_config(config: &Config, region: Region, regions: Vec<Region>) -> FollowerConfig {
    FollowerConfig {
        poll_own_ms: config.tape.poll_own_ms,
        poll_remote_ms: config.tape.poll_remote_ms,
        retire_after_ms: config.tape.retire_after_ms,
        held_bytes_max: config.tape.held_bytes_max,
        frame_ttl_ms: config.store.tape_hours.max(1) * 3_600_000,
        ..FollowerConfig::new(region, regions)
    }
}

fn tail_config(config: &Config) -> TailConfig {
    let keep_ms = config.history.linger_ms.saturating_mul(2);
    TailConfig { bytes_max: config.tape.tail_bytes_max, keep_ms, shards: SHARDS }
}

fn request_config(config: &Config) -> RequestConfig {
    let keep_ms = config.tape.requests_minutes.saturating_mul(60_000);
    RequestConfig { keep_ms, bytes_max: config.tape.requests_bytes_max }
}

fn writer_config(config: &Config) -> WriterConfig {
    WriterConfig {
        send_bytes: config.tape.flush_bytes,
        frame_bytes_max: config.tape.frame_bytes_max,
        queue_bytes_max: config.tape.queue_bytes_max,
        unacked_max: u64::try_from(config.tape.in_flight_max).unwrap_or(u64::MAX),
        eager_below: u64::try_from(config.tape.in_flight_eager).unwrap_or(u64::MAX),
        idle_ms: config.tape.idle_ms,
        drain_ms: config.node.drain_ms / 2,
        rollover: backends::rollover(config),
        refresh_ms: backends::row_refresh_ms(config),
        ..WriterConfig::default()
    }
}

fn keeper_config(config: &Config) -> KeeperConfig {
    KeeperConfig {
        linger_ms: config.history.linger_ms,
        block_rows_max: config.history.block_ticks_max,
        ..KeeperConfig::default()
    }
}

/// The tape as requests see it.
pub(super) struct TapeDoor {
    pub(super) writer: WriterHandle,
    pub(super) view: Arc<SharedView>,
    pub(super) frame_bytes_max: usize,
    pub(super) now: NowFn,
}

#[async_trait]
impl Tape for TapeDoor {
    fn memory(&self, request: RequestKey) -> Memory {
        let now = (self.now)().mono;
        self.view.read(|view| Memory {
            receipt: view.requests().receipt(request),
            reaches_back_ms: now.since(view.requests().reaches_back_to()),
        })
    }

    fn remembered(&self, request: RequestKey, body: BodyHash) -> Remembered {
        self.view.read(|view| view.requests().remembered(request, body))
    }

    fn check_one_frame(&self, rows: &[Row]) -> Result<(), Refusal> {
        check_one_frame(rows, self.frame_bytes_max)
    }

    async fn append(&self, batch: Batch) -> Result<Durable, AppendError> {
        let Batch { request, body, backfill, atomic, ack, rows } = batch;
        let reach = match ack {
            Ack::Region => Reach::Region,
            Ack::Global => Reach::All,
        };
        match self.writer.append(request, body, backfill, atomic, reach, rows).await {
            Ok(tasks::Appended { position, everywhere }) => Ok(Durable { position, everywhere }),
            Err(tasks::AppendError::Refused(refusal)) => Err(AppendError::Refused(refusal)),
            Err(tasks::AppendError::Unknown) => Err(AppendError::Unknown),
        }
    }
}
