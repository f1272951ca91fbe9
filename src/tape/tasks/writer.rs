//! The writer's task: batches in, appends out, answers back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::everywhere::Everywhere;
use super::push::Push;
use super::sealed::Sealed;
use super::view::{NowFn, SharedView};
use crate::market::{RequestKey, Row};
use crate::store::{Reach, Records, Space, Store, StoreError, TapeId};
use crate::tape::{
    Batch, BodyHash, Frame, Now, Refusal, TapeRow, Token, WaitToken, Writer, WriterEffect, tape_key,
};

/// Batches that wait for the task itself: as many clients may ask in one moment, of whom each waits for
/// its answer. Their ticks are bounded in bytes where they come in.
const COMMANDS_MAX: usize = 65_536;

/// A request's ticks are durable in this region.
pub struct Appended {
    /// By which a read can wait for them.
    pub position: WaitToken,
    /// Where all regions were asked for: whether each has them, once that is known.
    pub everywhere: Option<BoxFuture<'static, bool>>,
}

/// Why a batch is not (known to be) durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing of it was or will be written.
    #[error("{0}")]
    Refused(Refusal),
    /// It may be on the tape, now or later: the same request again is safe and tells.
    #[error("the writer ended before it could tell")]
    Unknown,
}

/// What the writer is doing, for metrics and health.
#[derive(Clone, Debug, Default)]
pub struct WriterStatus {
    /// The tape.
    pub tape: u64,
    /// Its acknowledged prefix.
    pub low: u64,
    /// Frames that were acknowledged since the start, on all of its tapes.
    pub acknowledged: u64,
    /// Frames that are sealed and not acknowledged.
    pub unacked: u64,
    /// Bytes of ticks that wait.
    pub queued_bytes: usize,
    /// Why the intake is stopped.
    pub stopped: Option<String>,
    /// The node is going away.
    pub draining: bool,
}

struct Command {
    batch: Batch,
    reach: Reach,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Appended, AppendError>>;

/// The door to the writer's task.
#[derive(Clone)]
pub struct WriterHandle {
    commands: mpsc::Sender<Command>,
    drain: mpsc::Sender<oneshot::Sender<bool>>,
    tokens: Arc<AtomicU64>,
    status: Arc<Mutex<WriterStatus>>,
}

impl WriterHandle {
    /// Appends the accepted ticks of one request; Ok when all of them are durable in this region, on
    /// their way into each with [`Reach::All`]. Dropping the future does not take the ticks back.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(
        &self,
        request: RequestKey,
        body: BodyHash,
        backfill: bool,
        atomic: bool,
        reach: Reach,
        rows: Vec<Row>,
    ) -> Result<Appended, AppendError> {
        let token = Token(self.tokens.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let batch = Batch { token, request, body, backfill, atomic, rows };
        self.commands.try_send(Command { batch, reach, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AppendError::Refused(Refusal::Busy(COMMANDS_MAX)),
            mpsc::error::TrySendError::Closed(_) => AppendError::Refused(Refusal::Draining),
        })?;
        answered.await.unwrap_or(Err(AppendError::Unknown))
    }

    /// Stops the intake, and answers when everything is acknowledged and the tape is finished
    /// (true), or when that took too long (false).
    pub async fn drain(&self) -> bool {
        let (done, drained) = oneshot::channel();
        if self.drain.send(done).await.is_err() {
            return false;
        }
        drained.await.unwrap_or(false)
    }

    /// What the writer is doing.
    #[must_use]
    pub fn status(&self) -> WriterStatus {
        self.status.lock().clone()
    }
}

/// What the task works with.
pub struct WriterWorld {
    /// Where frames go.
    pub store: Arc<dyn Store>,
    /// Where the registry is.
    pub records: Arc<dyn Records>,
    /// Seals frames and rows.
    pub sealed: Sealed,
    /// The region's name, for the registry.
    pub region: String,
    /// Both clocks.
    pub now: NowFn,
    /// The own view, which is given what is acknowledged in the order of the seqs.
    pub view: Arc<SharedView>,
    /// Where durable frames are handed to other nodes.
    pub push: Option<Arc<Push>>,
}

/// Starts the task.
#[must_use]
pub fn spawn_writer(writer: Writer, world: WriterWorld) -> WriterHandle {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (drain, drains) = mpsc::channel(1);
    let status = Arc::new(Mutex::new(WriterStatus::default()));
    let own = writer.tape();
    world.view.change(|view, _| view.set_own(own));
    let task = Task {
        writer,
        world: Arc::new(world),
        waiting: HashMap::new(),
        everywhere: Everywhere::default(),
        acknowledged: 0,
        draining: Vec::new(),
        jobs: JoinSet::new(),
        status: Arc::clone(&status),
    };
    tokio::spawn(task.run(receiver, drains));
    WriterHandle { commands, drain, tokens: Arc::new(AtomicU64::new(1)), status }
}

enum Done {
    Appended(TapeId, u64, Result<(), StoreError>),
    RowPut(TapeId, Result<(), StoreError>),
}

/// Whoever waits for a request.
struct Waiting {
    /// The request, where it is answered when all regions have it.
    everywhere: Option<RequestKey>,
    answer: Answer,
}

struct Task {
    writer: Writer,
    world: Arc<WriterWorld>,
    waiting: HashMap<Token, Waiting>,
    everywhere: Everywhere,
    acknowledged: u64,
    draining: Vec<oneshot::Sender<bool>>,
    jobs: JoinSet<Done>,
    status: Arc<Mutex<WriterStatus>>,
}

impl Task {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut drains: mpsc::Receiver<oneshot::Sender<bool>>,
    ) {
        loop {
            let now = self.now();
            for effect in self.writer.poll(now) {
                if self.carry_out(effect) {
                    return;
                }
            }
            self.publish_status();
            let due = Instant::now() + Duration::from_millis(self.writer.due().since(now.mono));
            tokio::select! {
                Some(done) = self.jobs.join_next() => self.done(done),
                command = commands.recv() => match command {
                    Some(command) => {
                        self.offer(command);
                        // Requests that came together share a frame.
                        while let Ok(command) = commands.try_recv() {
                            self.offer(command);
                        }
                    }
                    None => return,
                },
                Some(drain) = drains.recv() => {
                    self.draining.push(drain);
                    let now = self.now();
                    self.writer.drain(now);
                }
                () = sleep_until(due) => {}
            }
        }
    }

    fn now(&self) -> Now {
        (self.world.now)()
    }

    fn offer(&mut self, command: Command) {
        let Command { batch, reach, answer } = command;
        let token = batch.token;
        let everywhere = (reach == Reach::All).then_some(batch.request);
        match self.writer.offer(batch) {
            Ok(()) => {
                if let Some(request) = everywhere {
                    self.everywhere.wait(request, token);
                }
                self.waiting.insert(token, Waiting { everywhere, answer });
            }
            Err(refusal) => {
                let _ = answer.send(Err(AppendError::Refused(refusal)));
            }
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = self.now();
        match done {
            Ok(Done::Appended(tape, seq, result)) => {
                if let Err(error) = &result {
                    tracing::warn!(%tape, seq, error = %error, kind = ?error.kind, "append failed; it is repeated");
                }
                self.writer.appended(tape, seq, result, now);
            }
            Ok(Done::RowPut(tape, result)) => self.writer.row_put(tape, result, now),
            Err(error) => tracing::error!(%error, "a job of the writer ended early"),
        }
    }

    /// Carries out an effect; true when the writer has ended.
    fn carry_out(&mut self, effect: WriterEffect) -> bool {
        match effect {
            WriterEffect::PutRow { tape, row } => {
                let world = Arc::clone(&self.world);
                let wall = self.now().wall;
                self.jobs.spawn(async move { Done::RowPut(tape, put_row(&world, tape, &row, wall.0).await) });
            }
            WriterEffect::Append(frame) => {
                let world = Arc::clone(&self.world);
                self.jobs.spawn(async move {
                    let row = world.sealed.seal_frame(&frame);
                    let result = world.store.append(row.clone(), Reach::Region).await;
                    if let Some(push) = world.push.as_ref().filter(|_| result.is_ok()) {
                        push.offer(row);
                    }
                    Done::Appended(frame.tape, frame.seq, result)
                });
            }
            WriterEffect::Abandon(tape) => {
                tracing::warn!(%tape, "the tape takes no frames and is left");
                let own = self.writer.tape();
                self.world.view.change(|view, _| view.set_own(own));
            }
            WriterEffect::Acknowledged(frame) => {
                self.acknowledged += 1;
                if self.everywhere.needs(&frame) {
                    self.spread(&frame);
                }
                self.world.view.change(|view, now| view.accept(frame, now));
            }
            WriterEffect::Answer { token, position } => self.answer(token, Ok(position)),
            WriterEffect::Refuse { token, refusal } => self.answer(token, Err(AppendError::Refused(refusal))),
            WriterEffect::Drained { clean } => {
                for drain in self.draining.drain(..) {
                    let _ = drain.send(clean);
                }
                return true;
            }
        }
        false
    }

    /// Writes a frame that this region has for all of them, once: a repetition of the request has it
    /// written again.
    fn spread(&mut self, frame: &Arc<Frame>) {
        let (world, spread) = (Arc::clone(&self.world), Arc::clone(frame));
        let appending = tokio::spawn(async move {
            world.store.append(world.sealed.seal_frame(&spread), Reach::All).await.inspect_err(|error| {
                tracing::warn!(tape = %spread.tape, seq = spread.seq, %error, "a frame is not known to be in each region");
            })
        });
        let spreading = appending.map(|done| matches!(done, Ok(Ok(())))).boxed().shared();
        self.everywhere.spreads(frame, &spreading);
    }

    fn answer(&mut self, token: Token, answer: Result<WaitToken, AppendError>) {
        if let Some(Waiting { everywhere, answer: waiting }) = self.waiting.remove(&token) {
            let everywhere = everywhere.map(|request| self.everywhere.end(request, token));
            let _ = waiting.send(answer.map(|position| Appended { position, everywhere }));
        }
    }

    fn publish_status(&self) {
        *self.status.lock() = WriterStatus {
            tape: self.writer.tape().0,
            low: self.writer.low(),
            acknowledged: self.acknowledged,
            unacked: self.writer.unacked(),
            queued_bytes: self.writer.queued_bytes(),
            stopped: self.writer.stopped().map(str::to_owned),
            draining: !self.draining.is_empty(),
        };
    }
}

/// Writes the tape's row into the registry, at a version above the one that is there.
async fn put_row(
    world: &WriterWorld,
    tape: TapeId,
    row: &TapeRow,
    wall_nanos: i64,
) -> Result<(), StoreError> {
    let key = tape_key(tape);
    let micros = u64::try_from(wall_nanos / 1_000).unwrap_or_default();
    let result = async {
        let seen = world.records.get(Space::Tapes, &world.region, &key).await?;
        let version = seen.map_or(micros, |seen| micros.max(seen.version + 1));
        let record = world.sealed.seal_record(Space::Tapes, &world.region, &key, version, &row.encode());
        world.records.put(Space::Tapes, &world.region, record).await
    };
    result.await.inspect_err(|error| {
        tracing::warn!(%tape, error = %error, "the tape's row could not be written; it is repeated");
    })
}
