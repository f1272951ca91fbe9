//! The writer: gathers the ticks of concurrent requests into frames of this node's tape, keeps
//! few of them in flight, and answers requests when all their ticks are durable.
//!
//! | | |
//! |---|---|
//! | a frame is sealed | at 64 KiB of ticks, or when fewer than 2 frames are unacknowledged, or empty after 1 s idle |
//! | unacknowledged | at most 8 frames; their bytes never change (I2), they are repeated until they are known |
//! | queue | bounded in bytes ([`WriterConfig::queue_bytes_max`]); full means refused at once |
//! | a frame | at most 256 KiB by weight, an upper bound of its payload; an atomic request is one frame |
//!
//! Two ways of failing. In a cluster an append that stays unknown for 2 s makes the writer try a
//! new tape, and only where that one is durable does it leave the old one ([`Rollover`]). On one
//! disk there is nowhere to go: a failed append stops the intake ([`Refusal::Stopped`] names the
//! disk), what was not yet sealed is refused, and the sealed frames are appended again, the same
//! bytes, until the disk takes them.
//!
//! The machine is driven by [`Writer::offer`], [`Writer::appended`], [`Writer::row_put`] and
//! [`Writer::drain`]; after each of them, and when [`Writer::due`] says so, [`Writer::poll`] tells
//! what is to be done.

mod log;
mod queue;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::frame::{BodyHash, FRAME_BYTES_MAX, Frame, Region};
use super::position::WaitToken;
use super::registry::TapeRow;
use super::time::{Mono, Now};
use crate::market::{RequestKey, Row};
use crate::store::{StoreError, TapeId};
use log::Log;
pub use queue::check_one_frame;
use queue::{Part, Queue};

/// Names a request to the caller of [`Writer::offer`]. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The accepted ticks of one request.
#[derive(Clone, Debug)]
pub struct Batch {
    /// By which the request is answered.
    pub token: Token,
    /// The request.
    pub request: RequestKey,
    /// Its body.
    pub body: BodyHash,
    /// History takes the ticks; live streams and latest values do not.
    pub backfill: bool,
    /// All ticks in one frame.
    pub atomic: bool,
    /// The ticks, ascending by `origin.index` (position in the body). The writer fills in the
    /// rest of the origin.
    pub rows: Vec<Row>,
}

/// Why a batch was not taken. Nothing of it is or will be on the tape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue is full: later.
    #[error("{queued} bytes wait to be written, at most {max} may")]
    Full {
        /// Bytes that wait.
        queued: usize,
        /// The limit.
        max: usize,
    },
    /// As many requests wait for the writer as may: later.
    #[error("{0} requests wait to be written, as many as may")]
    Busy(usize),
    /// An atomic request does not fit one frame: never.
    #[error("an atomic request of {bytes} bytes of frame, expected at most {max}")]
    TooLarge {
        /// Its weight.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The disk does not take it: later.
    #[error("{0}")]
    Stopped(String),
    /// The node is going away: elsewhere.
    #[error("this node is shutting down")]
    Draining,
}

/// Limits and times of a writer.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// A frame is sealed when so much weight waits.
    pub send_bytes: usize,
    /// The most weight of a frame.
    pub frame_bytes_max: usize,
    /// The most weight that waits.
    pub queue_bytes_max: usize,
    /// The most unacknowledged frames.
    pub unacked_max: u64,
    /// With fewer unacknowledged frames than this, a frame is sealed as soon as anything waits.
    pub eager_below: u64,
    /// An empty frame is sealed after so long without one.
    pub idle_ms: u64,
    /// The first and the longest pause before an append is repeated.
    pub retry_ms: (u64, u64),
    /// A registry row is written again after so long.
    pub refresh_ms: u64,
    /// How long a drain waits for what is unacknowledged.
    pub drain_ms: u64,
    /// In a cluster: when to leave a tape.
    pub rollover: Option<Rollover>,
}

/// When a writer leaves its tape for a new one.
#[derive(Clone, Copy, Debug)]
pub struct Rollover {
    /// The oldest frame is unacknowledged for longer.
    pub stuck_ms: u64,
    /// The new tape's first frame must be acknowledged within.
    pub trial_ms: u64,
    /// The first and the longest pause between trials.
    pub pause_ms: (u64, u64),
    /// The most new tapes within `window_ms`.
    pub tapes_max: usize,
    /// See `tapes_max`.
    pub window_ms: u64,
}

impl Default for Rollover {
    fn default() -> Self {
        Self { stuck_ms: 2_000, trial_ms: 1_000, pause_ms: (2_000, 60_000), tapes_max: 4, window_ms: 600_000 }
    }
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            send_bytes: 64 * 1024,
            frame_bytes_max: FRAME_BYTES_MAX,
            queue_bytes_max: 32 * 1024 * 1024,
            unacked_max: 8,
            eager_below: 2,
            idle_ms: 1_000,
            retry_ms: (50, 1_000),
            refresh_ms: 3_600_000,
            drain_ms: 20_000,
            rollover: None,
        }
    }
}

/// The writer's rules. All hold in production; the simulator breaks them one by one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct WriterRules {
    /// A frame is acknowledged only when it is durable.
    pub durable_first: bool,
    /// Frames are acknowledged in the order of their seqs.
    pub in_order: bool,
    /// A repeated append has the bytes of the first.
    pub verbatim: bool,
    /// No more than `unacked_max` frames are unacknowledged.
    pub window: bool,
    /// A new tape carries what was unacknowledged on the old one.
    pub carry: bool,
    /// The registry row is durable before frame 1.
    pub row_first: bool,
}

impl Default for WriterRules {
    fn default() -> Self {
        Self {
            durable_first: true,
            in_order: true,
            verbatim: true,
            window: true,
            carry: true,
            row_first: true,
        }
    }
}

/// What the writer asks for.
#[derive(Clone, Debug)]
pub enum WriterEffect {
    /// Put the tape's registry row, then call [`Writer::row_put`].
    PutRow {
        /// The tape.
        tape: TapeId,
        /// Its row.
        row: TapeRow,
    },
    /// Seal and append the frame, then call [`Writer::appended`]. The same frame may be asked for
    /// again; its bytes are the same then.
    Append(Arc<Frame>),
    /// Appends to this tape are given up: pending ones may be stopped, answers are of no interest.
    Abandon(TapeId),
    /// The frame is acknowledged: give it to the own follower, and publish it. In the order of seqs.
    Acknowledged(Arc<Frame>),
    /// All ticks of the request are acknowledged.
    Answer {
        /// The request.
        token: Token,
        /// By which it can be waited for.
        position: WaitToken,
    },
    /// Nothing of the request was or will be written.
    Refuse {
        /// The request.
        token: Token,
        /// Why.
        refusal: Refusal,
    },
    /// The drain has ended.
    Drained {
        /// Whether everything is acknowledged and the tape is finished.
        clean: bool,
    },
}

/// A request that is not answered yet.
#[derive(Debug, Default)]
struct Waiting {
    left: usize,
    begun: bool,
    seen: WaitToken,
}

#[derive(Debug)]
struct Drain {
    deadline: Mono,
    fin: Option<u64>,
    told: bool,
}

/// One boot's writer.
pub struct Writer {
    config: WriterConfig,
    rules: WriterRules,
    home: Region,
    node: (String, String),
    ids: Box<dyn FnMut() -> u64 + Send>,
    log: Log,
    trial: Option<Log>,
    trials: VecDeque<Mono>,
    next_trial: Mono,
    trial_pause_ms: u64,
    queue: Queue,
    waiting: BTreeMap<Token, Waiting>,
    stopped: Option<String>,
    drain: Option<Drain>,
    out: Vec<WriterEffect>,
}

impl Writer {
    /// A writer on a new tape. `ids` gives random 64-bit numbers; `node` is its name and address.
    #[must_use]
    pub fn new(
        home: Region,
        node: (String, String),
        mut ids: Box<dyn FnMut() -> u64 + Send>,
        config: WriterConfig,
        now: Now,
    ) -> Self {
        let log = Log::new(TapeId(ids()), &node, now.mono);
        Self {
            config,
            rules: WriterRules::default(),
            home,
            node,
            ids,
            log,
            trial: None,
            trials: VecDeque::new(),
            next_trial: Mono(0),
            trial_pause_ms: config.rollover.map_or(0, |rollover| rollover.pause_ms.0),
            queue: Queue::default(),
            waiting: BTreeMap::new(),
            stopped: None,
            drain: None,
            out: Vec::new(),
        }
    }

    /// The same with broken rules.
    #[doc(hidden)]
    #[must_use]
    pub fn with_rules(mut self, rules: WriterRules) -> Self {
        self.rules = rules;
        self
    }

    /// The tape that is written.
    #[must_use]
    pub const fn tape(&self) -> TapeId {
        self.log.tape
    }

    /// How far it is acknowledged.
    #[must_use]
    pub const fn low(&self) -> u64 {
        self.log.low
    }

    /// Frames that are sealed and not acknowledged.
    #[must_use]
    pub fn unacked(&self) -> u64 {
        self.log.unacked()
    }

    /// Weight that waits to be sealed.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Why the intake is stopped, if it is.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Takes a request's ticks, or refuses all of them at once.
    ///
    /// # Errors
    /// [`Refusal`]: nothing of it was taken.
    pub fn offer(&mut self, batch: Batch) -> Result<(), Refusal> {
        if self.drain.is_some() {
            return Err(Refusal::Draining);
        }
        if let Some(detail) = &self.stopped {
            return Err(Refusal::Stopped(detail.clone()));
        }
        if batch.atomic {
            check_one_frame(&batch.rows, self.config.frame_bytes_max)?;
        }
        let part = Part::of(batch);
        let (queued, max) = (self.queue.bytes(), self.config.queue_bytes_max);
        // A request larger than the whole queue is taken by an idle writer: it can never fit better.
        if queued > 0 && queued.saturating_add(part.weight) > max {
            return Err(Refusal::Full { queued, max });
        }
        if part.rows.is_empty() {
            self.out.push(WriterEffect::Answer { token: part.token, position: WaitToken::default() });
            return Ok(());
        }
        let waiting = self.waiting.entry(part.token).or_default();
        waiting.left += part.rows.len();
        self.queue.push_back(part);
        Ok(())
    }

    /// The answer to [`WriterEffect::Append`].
    pub fn appended(&mut self, tape: TapeId, seq: u64, result: Result<(), StoreError>, now: Now) {
        if self.trial.as_ref().is_some_and(|trial| trial.tape == tape) {
            let trial = self.trial.as_mut();
            if result.is_ok() && trial.is_some_and(|trial| trial.durable(seq)) {
                self.switch(now);
            }
            return;
        }
        if tape != self.log.tape {
            return;
        }
        match result {
            Ok(()) => {
                self.log.durable(seq);
                self.acknowledge();
                if !self.log.failing() {
                    self.stopped = None;
                }
            }
            Err(error) => {
                self.log.failed(seq, now.mono, self.config.retry_ms);
                if self.config.rollover.is_none() {
                    self.stop(&error.detail);
                }
            }
        }
    }

    /// The answer to [`WriterEffect::PutRow`]. On one disk a tape whose first row is refused has
    /// nowhere to go: the intake stops as it does when an append fails.
    pub fn row_put(&mut self, tape: TapeId, result: Result<(), StoreError>, now: Now) {
        let logs = std::iter::once(&mut self.log).chain(self.trial.as_mut());
        for log in logs.filter(|log| log.tape == tape) {
            log.row_put(result.is_ok(), now.mono, self.config.refresh_ms);
        }
        if self.config.rollover.is_none() && tape == self.log.tape {
            match result {
                Ok(()) if !self.log.failing() => self.stopped = None,
                Err(error) if !self.log.open => self.stop(&error.detail),
                _ => {}
            }
        }
    }

    /// Stops the intake for good. When everything is acknowledged the tape is finished, and
    /// [`WriterEffect::Drained`] follows, at the latest after [`WriterConfig::drain_ms`].
    pub fn drain(&mut self, now: Now) {
        let deadline = now.mono.after(self.config.drain_ms);
        self.drain.get_or_insert(Drain { deadline, fin: None, told: false });
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Now) -> Vec<WriterEffect> {
        // A drain that has ended leaves the tape as it is: its row expires.
        if !self.drain.as_ref().is_some_and(|drain| drain.told) {
            self.roll(now);
            self.log.poll(now.mono, &self.rules, &mut self.out);
            self.seal(now);
            self.finish(now);
        }
        std::mem::take(&mut self.out)
    }

    /// When [`Self::poll`] has something to do, if nothing else happens before.
    #[must_use]
    pub fn due(&self) -> Mono {
        let idle = self.log.sealed_at.after(self.config.idle_ms);
        // Nothing is sealed now: what ends that calls by itself.
        let idle = if self.can_seal() { idle } else { Mono(u64::MAX) };
        let stuck = self.config.rollover.zip(self.log.oldest()).map(|(rollover, sealed)| {
            let trial = self.trial.as_ref().map(|trial| trial.opened_at.after(rollover.trial_ms));
            trial.unwrap_or_else(|| sealed.after(rollover.stuck_ms).max(self.next_trial))
        });
        let drain = self.drain.as_ref().filter(|drain| !drain.told).map(|drain| drain.deadline);
        let times = [Some(idle), stuck, drain, Some(self.log.due())];
        times.into_iter().flatten().min().unwrap_or(idle)
    }

    /// Whether a frame may be sealed now, and the window has room for it.
    fn can_seal(&self) -> bool {
        let open = self.log.open || !self.rules.row_first;
        let room = !self.rules.window || self.log.unacked() < self.config.unacked_max;
        let finished = self.drain.as_ref().is_some_and(|drain| drain.fin.is_some());
        self.stopped.is_none() && open && room && !finished
    }

    /// Seals frames while the window has room and there is a reason to.
    fn seal(&mut self, now: Now) {
        while self.can_seal() {
            let waits = self.queue.bytes();
            let eager = waits > 0 && self.log.unacked() < self.config.eager_below;
            let idle = self.log.next == 1 || now.mono.since(self.log.sealed_at) >= self.config.idle_ms;
            if !(waits >= self.config.send_bytes || eager || idle) {
                break;
            }
            let parts = self.queue.take(self.config.frame_bytes_max);
            for part in &parts {
                if let Some(waiting) = self.waiting.get_mut(&part.token) {
                    waiting.begun = true;
                }
            }
            self.append(parts, false, now);
        }
    }

    fn append(&mut self, parts: Vec<Part>, fin: bool, now: Now) {
        let frame = self.log.seal(self.home, &parts, fin, now);
        self.out.push(WriterEffect::Append(Arc::clone(&frame)));
        let keep_rows = self.config.rollover.is_some();
        self.log.fly(frame, parts, keep_rows, now.mono);
        if !self.rules.durable_first {
            self.log.durable(self.log.next - 1);
            self.acknowledge();
        }
    }

    /// Moves `low` over what is durable, in order, and answers.
    fn acknowledge(&mut self) {
        for flight in self.log.advance(self.rules.in_order) {
            let (tape, seq) = (flight.frame.tape, flight.frame.seq);
            self.out.push(WriterEffect::Acknowledged(flight.frame));
            for (token, count) in flight.counts {
                let Some(waiting) = self.waiting.get_mut(&token) else { continue };
                waiting.left = waiting.left.saturating_sub(count);
                waiting.seen.0.insert(tape, seq);
                if waiting.left == 0 {
                    let position = std::mem::take(&mut waiting.seen);
                    self.waiting.remove(&token);
                    self.out.push(WriterEffect::Answer { token, position });
                }
            }
        }
    }

    /// The disk failed: the intake stops, and what was not begun is refused.
    fn stop(&mut self, detail: &str) {
        self.stopped = Some(detail.to_owned());
        for token in self.queue.remove_unless(|token| self.waiting.get(&token).is_some_and(|w| w.begun)) {
            if self.waiting.remove(&token).is_some() {
                let refusal = Refusal::Stopped(detail.to_owned());
                self.out.push(WriterEffect::Refuse { token, refusal });
            }
        }
    }

    /// Tries a new tape where the old one is stuck, and gives the trial up when it is too slow.
    fn roll(&mut self, now: Now) {
        let Some(rollover) = self.config.rollover else { return };
        if let Some(trial) = &mut self.trial {
            if now.mono.since(trial.opened_at) < rollover.trial_ms {
                trial.poll(now.mono, &self.rules, &mut self.out);
                if trial.open && trial.next == 1 {
                    let frame = trial.seal(self.home, &[], false, now);
                    self.out.push(WriterEffect::Append(Arc::clone(&frame)));
                    trial.fly(frame, Vec::new(), true, now.mono);
                }
                return;
            }
            self.out.push(WriterEffect::Abandon(trial.tape));
            self.trial = None;
            self.next_trial = now.mono.after(self.trial_pause_ms);
            self.trial_pause_ms = self.trial_pause_ms.saturating_mul(2).min(rollover.pause_ms.1);
            return;
        }
        let stuck = self.log.oldest().is_some_and(|sealed| now.mono.since(sealed) >= rollover.stuck_ms);
        if !stuck || now.mono < self.next_trial || !self.log.open {
            return;
        }
        self.trials.retain(|at| now.mono.since(*at) < rollover.window_ms);
        if self.trials.len() >= rollover.tapes_max {
            let oldest = self.trials.front().copied().unwrap_or(now.mono);
            self.next_trial = oldest.after(rollover.window_ms);
            return;
        }
        self.trials.push_back(now.mono);
        let mut trial = Log::new(TapeId((self.ids)()), &self.node, now.mono);
        trial.poll(now.mono, &self.rules, &mut self.out);
        self.trial = Some(trial);
    }

    /// The new tape is durable: the old one is left as it is known to be, and the new one carries
    /// what was unacknowledged on it.
    fn switch(&mut self, now: Now) {
        let Some(new) = self.trial.take() else { return };
        let old = std::mem::replace(&mut self.log, new);
        self.log.close(old.tape, old.low);
        self.log.sealed_at = now.mono;
        self.out.push(WriterEffect::Abandon(old.tape));
        if self.rules.carry {
            self.queue.put_back(old.into_parts());
        }
        if let Some(rollover) = self.config.rollover {
            self.trial_pause_ms = rollover.pause_ms.0;
            self.next_trial = now.mono.after(rollover.pause_ms.0);
        }
        self.acknowledge();
        // A drain that had sealed the old tape's last frame finishes the new tape instead.
        if let Some(drain) = &mut self.drain {
            drain.fin = None;
        }
    }

    /// Finishes the tape of a drain.
    fn finish(&mut self, now: Now) {
        let Some(drain) = &self.drain else { return };
        if drain.told {
            return;
        }
        let quiet = self.queue.is_empty() && self.log.unacked() == 0;
        let clean = quiet && drain.fin.is_some() && self.log.row.fin.is_some() && self.log.row_is_put();
        if clean || now.mono >= drain.deadline {
            self.out.push(WriterEffect::Drained { clean });
            self.drain = Some(Drain { told: true, fin: drain.fin, deadline: drain.deadline });
        } else if quiet && drain.fin.is_none() && self.log.open {
            let fin = self.log.next;
            self.drain = Some(Drain { fin: Some(fin), deadline: drain.deadline, told: false });
            self.append(Vec::new(), true, now);
        } else if quiet && drain.fin.is_some() && self.log.row.fin.is_none() {
            self.log.finish();
            self.log.poll(now.mono, &self.rules, &mut self.out);
        }
    }
}

#[cfg(test)]
mod tests;
