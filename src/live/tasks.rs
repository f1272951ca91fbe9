//! The tasks of streams: the hub, which fans out what the view hands over as soon as it comes, and
//! the bars, which are folded of what the hub has heard.
//!
//! Deliveries wait for the fold in [`Heap`], so that it holds nobody up. Where more waits than
//! `live.backlog_bytes_max` the fold begins anew, and asks history for the bars that are open.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::bars::{AskId, BarLimits, BarsEffect, OpenBars};
use super::{Live, Turned};
use crate::history::{Reader, SoFar};
use crate::market::{Origin, Row};
use crate::tape::Delivery;
use crate::tape::tasks::NowFn;

/// Runs the hub until it is cancelled. What a turn came to is told to `turned`.
pub async fn run_hub(live: Arc<Live>, turned: impl Fn(&Turned) + Send + Sync, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = live.hub().queued() => {}
        }
        let done = live.hub().turn();
        if done.overrun {
            tracing::warn!(
                "streams are further behind than live.backlog_bytes_max; their clients read on from the tapes"
            );
        }
        turned(&done);
    }
}

/// Deliveries that wait to be folded.
#[derive(Default)]
pub struct Heap {
    waiting: Mutex<Waiting>,
    poke: Notify,
}

#[derive(Default)]
struct Waiting {
    deliveries: Vec<Delivery>,
    bytes: usize,
    overrun: bool,
    /// Somebody folds.
    is_open: bool,
}

impl Heap {
    /// Takes a delivery.
    pub fn push(&self, delivery: &Delivery, bytes_max: usize) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_open || delivery.new.is_empty() {
            return;
        }
        waiting.bytes += delivery.frame.memory();
        if waiting.bytes > bytes_max {
            *waiting = Waiting { overrun: true, is_open: true, ..Waiting::default() };
        } else {
            waiting.deliveries.push(delivery.clone());
        }
        drop(waiting);
        self.poke.notify_one();
    }

    /// What waits; `None` where some of it was let go.
    fn take(&self) -> Option<Vec<Delivery>> {
        let mut waiting = self.waiting.lock();
        let taken = std::mem::replace(&mut *waiting, Waiting { is_open: true, ..Waiting::default() });
        (!taken.overrun).then_some(taken.deliveries)
    }
}

/// Hears deliveries.
pub type Also = Box<dyn Fn(&[Delivery]) + Send + Sync>;

/// What the bars' task works with.
pub struct BarsWorld {
    /// Where bars go.
    pub live: Arc<Live>,
    /// What is to be folded.
    pub heap: Arc<Heap>,
    /// Where bars are asked for.
    pub reader: Arc<Reader>,
    /// Limits.
    pub limits: BarLimits,
    /// Both clocks.
    pub now: NowFn,
    /// Hears the same deliveries.
    pub also: Also,
}

/// Many rows that come at once are looked at together.
const GATHER: Duration = Duration::from_millis(20);

/// Folds bars until it is cancelled.
pub async fn run_bars(world: BarsWorld, stop: CancellationToken) {
    if stop.run_until_cancelled(world.live.caught_up()).await.is_none() {
        return;
    }
    // From here on deliveries wait; what was delivered before is history.
    world.heap.take();
    let machine = OpenBars::new(world.limits, (world.now)());
    world.live.hub().begin_announcing();
    let mut task = BarsTask { world, machine, asked: JoinSet::new() };
    loop {
        let due = task.turn();
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(due) => {}
            () = task.world.heap.poke.notified() => tokio::time::sleep(GATHER).await,
            Some(answer) = task.asked.join_next() => match answer {
                Ok((id, answer)) => task.answered(id, answer.as_ref()),
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "a bar's question ended early"),
            },
        }
    }
}

struct BarsTask {
    world: BarsWorld,
    machine: OpenBars,
    asked: JoinSet<(AskId, Option<SoFar>)>,
}

impl BarsTask {
    /// Folds what waits and does what is due; answers when the next is.
    fn turn(&mut self) -> Instant {
        self.fold();
        let now = (self.world.now)();
        let hub = self.world.live.hub();
        let effects = self.machine.poll(now, |symbol, period| hub.is_wanted(symbol, period));
        let mut rows = Vec::new();
        for effect in effects {
            match effect {
                BarsEffect::Tell(tick) => {
                    rows.push(Row { tick, origin: Origin { received: now.wall, ..Origin::UNKNOWN } });
                }
                BarsEffect::Ask { id, query } => {
                    let reader = Arc::clone(&self.world.reader);
                    self.asked.spawn(async move {
                        let answer = reader.so_far(&query).await;
                        let failed = |error: &_| tracing::warn!(%error, "a bar could not be read");
                        (id, answer.inspect_err(failed).ok())
                    });
                }
            }
        }
        if !rows.is_empty() {
            rows.sort_by_key(|row| row.tick.series());
            hub.announce(&rows);
        }
        let wait =
            self.machine.due(now).map_or(NEVER, |due| Duration::from_millis(due.since(now.mono).max(1)));
        Instant::now() + wait
    }

    fn fold(&mut self) {
        let Some(deliveries) = self.world.heap.take() else {
            tracing::warn!("live bars are further behind than live.backlog_bytes_max; they begin anew");
            // Also what is answered already: its question was another machine's.
            self.asked = JoinSet::new();
            self.machine = OpenBars::new(self.world.limits, (self.world.now)());
            // Some that closed meanwhile may not be told.
            self.world.live.hub().begin_announcing();
            return;
        };
        (self.world.also)(&deliveries);
        let now = (self.world.now)();
        for delivery in &deliveries {
            for row in delivery.live_rows() {
                self.machine.apply(row, now);
            }
        }
    }

    /// An answer of history may hold what the machine has not been told yet: that comes first.
    fn answered(&mut self, id: AskId, answer: Option<&SoFar>) {
        self.world.live.hub().turn();
        self.fold();
        self.machine.answered(id, answer, (self.world.now)());
    }
}

/// Nothing is due.
const NEVER: Duration = Duration::from_secs(3_600);
