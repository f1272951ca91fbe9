//! The keeper's task, and the tail as readers see it.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::keeper::{Block, Keeper, KeeperEffect};
use super::{TailDoor, block_seal_key};
use crate::market::Series;
use crate::seal::Keyring;
use crate::store::{BlockRow, BucketKey, Space, StoreError, StoreErrorKind, TapeId};
use crate::tape::tasks::{SharedView, ViewWorld};
use crate::tape::{Mark, Snapshot, Unreadable, WaitToken, shard_key};

/// How often the keeper looks for shards that are due.
const TICK: Duration = Duration::from_millis(250);

#[async_trait]
impl TailDoor for SharedView {
    fn snapshot(&self, series: Series) -> Result<Snapshot, Unreadable> {
        self.read(|view| view.snapshot(series))
    }

    fn readable(&self) -> Result<(), Unreadable> {
        self.read(|view| view.readable())
    }

    fn series_from(&self, from: Bound<Series>, limit: usize) -> Result<Vec<Series>, Unreadable> {
        self.read(|view| view.series_from(from, limit))
    }

    async fn wait_for(&self, token: &WaitToken, deadline: Duration) -> bool {
        Self::wait_for(self, token, deadline).await
    }
}

/// What the keeper's task works with.
#[derive(Clone)]
pub struct KeeperWorld {
    /// The doors and clocks of the view.
    pub view: ViewWorld,
    /// The view.
    pub shared: Arc<SharedView>,
    /// Seals blocks.
    pub keyring: Arc<Keyring>,
    /// The own tape.
    pub own: Arc<dyn Fn() -> TapeId + Send + Sync>,
    /// Is told of damage that stops a shard.
    pub corrupt: Arc<dyn Fn(&StoreError) + Send + Sync>,
}

impl KeeperWorld {
    /// Whether a write of a shard is durable. Damage does not pass by itself: it is told.
    fn told(&self, shard: u8, answer: Result<(), StoreError>) -> bool {
        let Err(mut error) = answer else { return true };
        tracing::warn!(shard, error = %error, "the keeper's write failed; it is repeated");
        if error.kind == StoreErrorKind::Corrupt {
            error.detail = format!("history of shard {shard} is not written: {}", error.detail);
            (self.corrupt)(&error);
        }
        false
    }
}

/// The door to the keeper's task.
#[derive(Clone)]
pub struct KeeperHandle {
    drain: mpsc::Sender<oneshot::Sender<()>>,
}

impl KeeperHandle {
    /// Writes blocks and marks of everything that waits, and then ends the task.
    pub async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        if self.drain.send(done).await.is_ok() {
            let _ = drained.await;
        }
    }
}

/// Starts the task.
#[must_use]
pub fn spawn_keeper(keeper: Keeper, world: KeeperWorld) -> KeeperHandle {
    let (drain, drains) = mpsc::channel(1);
    let task = Task { keeper, world, jobs: JoinSet::new(), draining: None, drain_begun: false };
    tokio::spawn(task.run(drains));
    KeeperHandle { drain }
}

enum Done {
    Blocks { shard: u8, put: u64, durable: bool },
    Mark { shard: u8, mark: Mark, durable: bool },
}

struct Task {
    keeper: Keeper,
    world: KeeperWorld,
    jobs: JoinSet<Done>,
    draining: Option<oneshot::Sender<()>>,
    drain_begun: bool,
}

impl Task {
    async fn run(mut self, mut drains: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(done) = self.jobs.join_next() => self.done(done),
                _ = ticks.tick() => self.tick(),
                Some(drain) = drains.recv() => {
                    self.draining = Some(drain);
                    self.tick();
                }
            }
            if self.drain_begun && self.keeper.is_idle() {
                if let Some(drain) = self.draining.take() {
                    let _ = drain.send(());
                }
                return;
            }
        }
    }

    /// Starts what is due. A drain starts everything once no earlier flush is under way, so that
    /// its marks cover the end of the tape.
    fn tick(&mut self) {
        let drain = self.draining.is_some() && !self.drain_begun && self.keeper.is_idle();
        let (now, own) = ((self.world.view.now)(), (self.world.own)());
        let region = self.world.view.region;
        let effects = {
            let (keeper, shared) = (&mut self.keeper, &self.world.shared);
            shared.read(|view| {
                let owned = keeper.owned(own, &view.follower().live(region, now.mono));
                keeper.tick(view, &owned, drain, now)
            })
        };
        self.drain_begun |= drain;
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<KeeperEffect>) {
        for effect in effects {
            let world = self.world.clone();
            match effect {
                KeeperEffect::PutBlocks { shard, put, count, buckets } => {
                    self.jobs.spawn(async move {
                        let keyring = Arc::clone(&world.keyring);
                        let sealed = tokio::task::spawn_blocking(move || seal(&keyring, &buckets)).await;
                        let durable = match sealed {
                            Ok(sealed) => {
                                let put = world.view.store.put_blocks(u16::from(shard), count, sealed);
                                world.told(shard, put.await)
                            }
                            Err(error) => {
                                tracing::error!(%error, shard, "blocks could not be encoded");
                                false
                            }
                        };
                        Done::Blocks { shard, put, durable }
                    });
                }
                KeeperEffect::PutMark { shard, mark } => {
                    self.jobs.spawn(async move {
                        let body = mark.encode();
                        let put = world.view.put(Space::Marks, &shard_key(shard), &body).await;
                        let durable = world.told(shard, put);
                        Done::Mark { shard, mark, durable }
                    });
                }
            }
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = (self.world.view.now)();
        let effects = match done {
            Ok(Done::Blocks { shard, put, durable }) => self.keeper.blocks_put(shard, put, durable, now),
            Ok(Done::Mark { shard, mark, durable }) => {
                if durable {
                    self.world.shared.change(|view, now| view.mark_read(shard, mark, now));
                }
                self.keeper.mark_put(shard, durable, now)
            }
            Err(error) => {
                tracing::error!(%error, "a job of the keeper ended early");
                Vec::new()
            }
        };
        self.carry_out(effects);
    }
}

fn seal(keyring: &Keyring, buckets: &[(BucketKey, Vec<Block>)]) -> Vec<(BucketKey, Vec<BlockRow>)> {
    let rows = |(key, blocks): &(BucketKey, Vec<Block>)| {
        let row = |block: &Block| {
            let (id, table) = block.encode();
            let count = u32::try_from(block.rows.len()).unwrap_or(u32::MAX);
            let last = block.last();
            let body = keyring.seal(&block_seal_key(key, &id, last, count), &table);
            BlockRow { key: id, last, count, body }
        };
        (*key, blocks.iter().map(row).collect())
    };
    buckets.iter().map(rows).collect()
}
