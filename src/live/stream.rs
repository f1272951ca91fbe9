//! One client's stream: what it asked for, what it is given, and where it is.
//!
//! A client that begins without a cursor joins the hub at once. One that comes with a cursor, or
//! that did not keep up and left the hub, is given first what it lacks ([`crate::tape::Resume`]):
//! from the tail, else from the tapes. That is paced by the client: a step is made only when its
//! outbox is empty. Then come the bars that were announced after its place, and it joins in one step
//! with the view and the hub, when nothing is lacking.
//!
//! [`Stream::next`] may be dropped at any time and called again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::Live;
use super::announced::{After, Chunk};
use super::cursor::Cursor;
use super::encode::Encoded;
use super::gap::{Gap, GapReason};
use super::interest::Interest;
use super::outbox::Taken;
use super::place::{Place, Start, meet};
use super::replay::{Finding, Job, Replay, Running};
use super::subscriber::{End, Subscriber};
use crate::market::{Nanos, Row};
use crate::store::StoreError;
use crate::tape::{Delivery, Follower, Position, Resume, ResumeConfig, ResumeStep};

/// What a stream comes to next.
#[derive(Debug)]
pub enum Next {
    /// To be sent.
    Message(Taken),
    /// To be told, or where the client does not know gaps, the end.
    Gap(Gap),
    /// It is over.
    End(End),
}

/// One client's stream.
pub struct Stream {
    live: Arc<Live>,
    subscriber: Arc<Subscriber>,
    /// What it asked for, as acknowledged.
    asked: Interest,
    jobs: VecDeque<Job>,
    replay: Option<Replay>,
    /// Where it begins once it asks for something.
    held: Option<Start>,
    /// Where it was when it ended.
    left_at: Option<Place>,
    /// It ended before it was known where it begins.
    is_nowhere: bool,
}

/// Frames that are given in one step with the view, so that the client catches up at last.
const LAST_FRAMES_MAX: u64 = 4;
/// Rows announced that are looked at in that step.
const LAST_ROWS_MAX: usize = 512;
/// A job that begins where a stream reaches may be begun so much later.
const REACH_SLACK: i64 = 10 * Nanos::SECOND;
/// Steps of a replay between two looks at the outbox.
const STEPS: usize = 64;

impl Stream {
    pub(super) fn new(live: Arc<Live>, subscriber: Arc<Subscriber>) -> Self {
        let (jobs, asked) = (VecDeque::new(), Interest::default());
        Self { live, subscriber, asked, jobs, replay: None, held: None, left_at: None, is_nowhere: false }
    }

    /// What it asked for.
    #[must_use]
    pub const fn asked(&self) -> &Interest {
        &self.asked
    }

    /// The client behind it, to tell it something or ask how it is.
    #[must_use]
    pub const fn subscriber(&self) -> &Arc<Subscriber> {
        &self.subscriber
    }

    /// It is of a session of its key; the one before is asked to end.
    pub fn take_over(&self, session: &str) {
        self.live.hub.take_over(&self.subscriber, session);
    }

    /// Asks for more, from `start` or from now on. `ack` is told what is asked for then, and goes
    /// out before the first tick of it.
    pub fn subscribe(
        &mut self,
        more: &Interest,
        start: Option<Start>,
        ack: impl FnOnce(&Interest) -> Option<Bytes>,
    ) {
        let new = self.asked.add(more);
        let ack = ack(&self.asked);
        match start.filter(|_| self.live.config.is_taped && !new.is_empty()) {
            None => {
                // Where it has left the hub it is given this from now on as well, by a replay.
                if let Err(place) = self.live.hub.join(&self.subscriber, &new, ack) {
                    self.later(new, Start::After(place, self.live.now()));
                }
            }
            Some(start) => {
                if let Some(ack) = ack {
                    self.subscriber.tell(ack);
                }
                self.later(new, start);
            }
        }
    }

    /// It asks for nothing for now, and stays where it begins: here, where that is not said.
    pub fn hold(&mut self, start: Option<Start>) {
        let here = || Start::After(self.live.hub.place(), self.live.now());
        self.held = Some(start.unwrap_or_else(here));
    }

    /// Gives a part of the interest from some start, after what is given now. Parts that begin alike
    /// are given together.
    fn later(&mut self, interest: Interest, start: Start) {
        self.live.hub.expect(&interest);
        if let Some(last) = self.jobs.back_mut()
            && last.start.joins(&start)
        {
            last.interest.add(&interest);
        } else {
            self.jobs.push_back(Job { interest, start });
        }
    }

    /// Parts of the interest that wait to be given.
    #[must_use]
    pub fn replays(&self) -> usize {
        self.jobs.len()
    }

    /// Asks for less.
    pub fn unsubscribe(&mut self, less: &Interest, ack: impl FnOnce(&Interest) -> Option<Bytes>) {
        self.asked.remove(less);
        for job in &mut self.jobs {
            job.interest.remove(less);
        }
        self.jobs.retain(|job| !job.interest.is_empty());
        match &mut self.replay {
            Some(Replay::Finding(finding)) => _ = finding.interest.remove(less),
            Some(Replay::Running(running)) => _ = running.interest.remove(less),
            None => {}
        }
        self.live.hub.part(&self.subscriber, less, ack(&self.asked));
        self.subscriber.keep_quotes(&self.asked);
    }

    /// A cursor for who has had all that [`Self::next`] has given; `None` while the Position of
    /// the time at which it begins is not known yet.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        if !self.live.config.is_taped {
            return None;
        }
        if let Some(start) = self.held.as_ref().filter(|_| self.asked.is_empty()) {
            return start.cursor();
        }
        // Read before the outbox: what is queued in between is given again, not lost.
        let joined = self.left_at.clone().unwrap_or_else(|| self.live.hub.place());
        if self.is_nowhere {
            return None;
        }
        let (at, Place { position, told }) = (self.live.now(), self.place_at(joined)?);
        let told = self.asked.has_bars().then(|| self.live.hub.told_at(told, at)).flatten();
        Some(Cursor { position: Arc::unwrap_or_clone(position), at, told, ticket: None })
    }

    /// The place of a client that has had of the hub all up to `joined` but what waits.
    fn place_at(&self, joined: Place) -> Option<Place> {
        let view = &self.live.tape.view;
        let (waiting, mut told) = self.subscriber.before();
        // Each part of the interest is somewhere: the cursor is where all of them are.
        let mut parts = vec![joined.position];
        parts.extend(waiting);
        for job in &self.jobs {
            match &job.start {
                Start::After(place, _) => parts.push(Arc::clone(&place.position)),
                Start::Since(_) => return None,
            }
            told.extend(job.interest.has_bars().then(|| job.start.told()));
        }
        match &self.replay {
            Some(Replay::Finding(..)) => return None,
            Some(Replay::Running(running)) => {
                parts.push(Arc::new(view.read(|view| running.resume.partial_cursor(view.follower(), None))));
                told.extend(running.interest.has_bars().then_some(running.told));
            }
            None => {}
        }
        let position = match parts.as_slice() {
            [one] => Arc::clone(one),
            several => Arc::new(view.read(|view| meet(several, view.follower()))),
        };
        let position = Arc::new(self.subscriber.with_ahead(view, &position));
        Some(Place { position, told: told.into_iter().fold(joined.told, Nanos::min) })
    }

    /// What waits is dropped, for the client does not take it: the cursor of who has had all that
    /// was given so far.
    pub fn drop_waiting(&mut self) -> Option<Cursor> {
        let cursor = self.cursor();
        let left_at = self.live.hub.leave(&self.subscriber);
        self.subscriber.clear();
        self.is_nowhere = cursor.is_none();
        self.left_at = Some(cursor.as_ref().map_or(left_at, Cursor::place));
        (self.jobs, self.replay) = (VecDeque::new(), None);
        cursor
    }

    /// What comes next, in messages of at most so many bytes.
    pub async fn next(&mut self, bytes_max: usize) -> Next {
        loop {
            let end = self.subscriber.end();
            if end.is_some() {
                self.stop();
            }
            while let Some(gap) = self.subscriber.take_gap() {
                // What is still read from the tapes tells its own gaps.
                if !self.joined().is_empty() {
                    return Next::Gap(gap);
                }
            }
            if let Some(taken) = self.subscriber.take(bytes_max) {
                return Next::Message(taken);
            }
            if let Some(end) = end {
                return Next::End(end);
            }
            if let Some(behind) = self.subscriber.take_behind() {
                self.fall_behind(behind);
            }
            if self.replay.is_none()
                && let Some(job) = self.jobs.pop_front()
                && let Some(gap) = self.begin(job)
            {
                return Next::Gap(gap);
            }
            match self.step() {
                // Others have their turn too.
                Stepped::On => tokio::task::yield_now().await,
                Stepped::Gap(gap) => return Next::Gap(gap),
                Stepped::Wait(until) => self.wait(until).await,
            }
        }
    }

    /// The client gets nothing more; what waits goes out.
    fn stop(&mut self) {
        if self.left_at.is_none() {
            let left_at = self.live.hub.leave(&self.subscriber);
            let behind = self.subscriber.take_behind();
            let replaying = self.replay.is_some() || !self.jobs.is_empty();
            let at = behind.unwrap_or(left_at);
            let place = if replaying { self.place_at(at.clone()) } else { None };
            self.is_nowhere = replaying && place.is_none();
            self.left_at = Some(place.unwrap_or(at));
            (self.jobs, self.replay) = (VecDeque::new(), None);
        }
    }

    /// What it is given by the hub, or was until it left it.
    fn joined(&self) -> Interest {
        let mut interest = self.asked.clone();
        match &self.replay {
            Some(Replay::Finding(finding)) => _ = interest.remove(&finding.interest),
            Some(Replay::Running(running)) => _ = interest.remove(&running.interest),
            None => {}
        }
        for job in &self.jobs {
            interest.remove(&job.interest);
        }
        interest
    }

    /// It has left the hub, and reads on from there before anything else.
    fn fall_behind(&mut self, at: Place) {
        let interest = self.joined();
        if self.live.config.is_taped {
            self.live.hub.expect(&interest);
            self.jobs.push_front(Job { interest, start: Start::After(at, self.live.now()) });
        } else {
            _ = self.live.hub.join(&self.subscriber, &interest, None);
        }
    }

    /// Begins a job. Where it begins further back than a stream reaches that is a gap, and the job
    /// begins where the stream reaches.
    fn begin(&mut self, job: Job) -> Option<Gap> {
        let Job { interest, start } = job;
        let (since, told) = (start.time(), start.told());
        let reach = self.live.now().plus(-self.live.resume_nanos());
        if since < reach.plus(-REACH_SLACK) {
            let reason = match start {
                Start::Since(_) => GapReason::TooEarly,
                Start::After(..) => GapReason::TooOld,
            };
            let gap = Gap { from: since, to: reach, reason };
            self.jobs.push_front(Job { interest, start: Start::Since(reach) });
            return Some(gap);
        }
        self.replay = Some(match start {
            Start::After(place, _) => self.run(interest, since, told, Arc::unwrap_or_clone(place.position)),
            Start::Since(_) => {
                let tape = Arc::clone(&self.live.tape);
                let find = async move { tape.scans.position_at(&tape.view, since).await };
                let found = AbortOnDropHandle::new(tokio::spawn(find));
                Replay::Finding(Box::new(Finding { interest, since, told, found }))
            }
        });
        None
    }

    fn run(&self, interest: Interest, since: Nanos, told: Nanos, position: Position) -> Replay {
        let mono = self.live.mono();
        let share = self.live.replay_memory();
        let config = ResumeConfig { requests: share.requests(), ..ResumeConfig::default() };
        let resume = self.live.tape.view.read(|view| Resume::new(view.follower(), position, config, mono));
        let (read, again) = (None, None);
        Replay::Running(Box::new(Running { interest, since, told, resume, read, again, _share: share }))
    }

    /// One step of the replay.
    fn step(&mut self) -> Stepped {
        let Some(replay) = self.replay.take() else { return Stepped::Wait(self.subscriber.due()) };
        let mut running = match replay {
            Replay::Finding(..) => {
                self.replay = Some(replay);
                return Stepped::Wait(None);
            }
            Replay::Running(running) => running,
        };
        let stepped = self.run_on(&mut running);
        if stepped.is_some() {
            self.replay = Some(Replay::Running(running));
        }
        stepped.unwrap_or(Stepped::On)
    }

    /// Some steps of a replay that runs; `None` where it has ended and the client has joined.
    fn run_on(&self, running: &mut Running) -> Option<Stepped> {
        if running.read.is_some() {
            return Some(Stepped::Wait(None));
        }
        if let Some(again) = running.again.take_if(|again| *again > Instant::now()) {
            running.again = Some(again);
            return Some(Stepped::Wait(Some(again)));
        }
        running.again = None;
        for _ in 0..STEPS {
            let mono = self.live.mono();
            let step = self.live.tape.view.read(|view| running.resume.step(view.tail(), mono));
            match step {
                ResumeStep::Deliver(delivery) => {
                    if self.give(running, &delivery) {
                        return Some(Stepped::On);
                    }
                }
                ResumeStep::Read { tape, seqs, at } => {
                    let scans = Arc::clone(&self.live.tape);
                    let read = async move { scans.scans.read(tape, seqs, at).await };
                    let told = async move {
                        let failed = |error: &StoreError| tracing::warn!(%error, "a replay was not read");
                        read.await.inspect_err(failed).ok()
                    };
                    running.read = Some(AbortOnDropHandle::new(tokio::spawn(told)));
                    return Some(Stepped::Wait(None));
                }
                ResumeStep::Gap { .. } => {
                    let (from, to) = (running.since, self.live.now());
                    return Some(Stepped::Gap(Gap { from, to, reason: GapReason::Lost }));
                }
                ResumeStep::Wait(until) => {
                    let pause = Duration::from_millis(until.since(mono).max(1));
                    running.again = Some(Instant::now() + pause);
                    return Some(Stepped::Wait(running.again));
                }
                ResumeStep::Done => {
                    let stepped = self.give_bars(running);
                    return stepped.or_else(|| (!self.join(running)).then_some(Stepped::On));
                }
            }
        }
        Some(Stepped::On)
    }

    /// Gives some of the bars that were announced after its place; `None` where it has all.
    fn give_bars(&self, running: &mut Running) -> Option<Stepped> {
        if !running.interest.has_bars() {
            return None;
        }
        for _ in 0..STEPS {
            match self.live.hub.announced_after(running.told) {
                After::Nothing => return None,
                After::NotKept(reach) => {
                    let from = std::mem::replace(&mut running.told, reach);
                    return Some(Stepped::Gap(Gap { from, to: reach, reason: GapReason::BarsNotKept }));
                }
                After::Bars(chunk) => {
                    let cursor = |resume: &Resume| {
                        self.live.tape.view.read(|view| resume.partial_cursor(view.follower(), None))
                    };
                    if self.give_chunk(running, &chunk, cursor) {
                        return Some(Stepped::On);
                    }
                }
            }
        }
        Some(Stepped::On)
    }

    /// Gives those of some bars that are asked for; whether there were any. `cursor` is asked for the
    /// replay's cursor.
    fn give_chunk(
        &self,
        running: &mut Running,
        chunk: &Chunk,
        cursor: impl FnOnce(&Resume) -> Position,
    ) -> bool {
        let told = std::mem::replace(&mut running.told, chunk.told);
        let wanted = |row: &&Row| running.interest.wants_tick(&row.tick);
        let is_wanted = chunk.rows.iter().any(|row| wanted(&row));
        if is_wanted {
            let before = Place { position: Arc::new(cursor(&running.resume)), told };
            self.give_rows(chunk.rows.iter().filter(wanted), &before);
        }
        is_wanted
    }

    /// Joins the hub where nothing much is lacking any more; whether it has.
    fn join(&self, running: &mut Running) -> bool {
        let mono = self.live.mono();
        let lacking = self.live.tape.view.read(|view| running.resume.extend(view.follower(), mono));
        if lacking > LAST_FRAMES_MAX {
            return false;
        }
        let interest = running.interest.clone();
        let hub = &self.live.hub;
        hub.join_after(&self.subscriber, &interest, |turn| self.last_part(running, turn))
    }

    /// What is lacking at this instant, from the tail; whether that is all.
    fn last_part(&self, running: &mut Running, turn: &mut dyn FnMut()) -> bool {
        let mono = self.live.mono();
        self.live.tape.view.read(|view| {
            turn();
            running.resume.extend(view.follower(), mono);
            loop {
                match running.resume.step(view.tail(), mono) {
                    ResumeStep::Deliver(delivery) => {
                        let before = running.resume.partial_cursor(view.follower(), Some(&delivery.frame));
                        self.give_ticks(running, &delivery, before);
                    }
                    ResumeStep::Done if !self.last_bars(running, view.follower()) => return false,
                    ResumeStep::Done => {
                        self.subscriber.is_ahead(running.resume.ahead());
                        return true;
                    }
                    ResumeStep::Read { .. } => {
                        // Not in the tail: it is read outside.
                        running.resume.put_back();
                        return false;
                    }
                    ResumeStep::Gap { .. } | ResumeStep::Wait(_) => return false,
                }
            }
        })
    }

    /// The bars that are lacking at this instant; whether that is all.
    fn last_bars(&self, running: &mut Running, follower: &Follower) -> bool {
        if !running.interest.has_bars() {
            return true;
        }
        if self.live.hub.rows_after(running.told).is_none_or(|rows| rows > LAST_ROWS_MAX) {
            return false;
        }
        while let After::Bars(chunk) = self.live.hub.announced_after(running.told) {
            self.give_chunk(running, &chunk, |resume| resume.partial_cursor(follower, None));
        }
        true
    }

    /// Gives the ticks of a frame that are asked for; whether there were any.
    fn give(&self, running: &Running, delivery: &Delivery) -> bool {
        if !delivery.live_rows().any(|row| running.interest.wants_tick(&row.tick)) {
            return false;
        }
        let before = self
            .live
            .tape
            .view
            .read(|view| running.resume.partial_cursor(view.follower(), Some(&delivery.frame)));
        self.give_ticks(running, delivery, before);
        true
    }

    fn give_ticks(&self, running: &Running, delivery: &Delivery, before: Position) {
        let rows = delivery.live_rows().filter(|row| running.interest.wants_tick(&row.tick));
        self.give_rows(rows, &Place { position: Arc::new(before), told: running.told });
    }

    fn give_rows<'r>(&self, rows: impl Iterator<Item = &'r Row>, before: &Place) {
        let rows: Vec<&Row> = self.subscriber.picked(rows);
        if !rows.is_empty() {
            self.subscriber.give(Encoded::new(rows, self.subscriber.form()).all(before));
        }
    }

    /// Waits for what the stream needs: a wake, a time, an answer.
    async fn wait(&mut self, until: Option<Instant>) {
        let due = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        match &mut self.replay {
            Some(Replay::Finding(finding)) => {
                let found = tokio::select! {
                    found = &mut finding.found => found,
                    () = self.subscriber.woken() => return,
                };
                let interest = std::mem::take(&mut finding.interest);
                let (since, told) = (finding.since, finding.told);
                self.replay = match found {
                    Ok(Ok(position)) => Some(self.run(interest, since, told, position)),
                    failed => {
                        tracing::warn!(?failed, "the beginning of a replay was not found; it is asked again");
                        let start = Start::Since(since);
                        self.jobs.push_front(Job { interest, start });
                        None
                    }
                };
            }
            Some(Replay::Running(running)) if running.read.is_some() => {
                let Some(read) = &mut running.read else { return };
                let answer = tokio::select! {
                    answer = read => answer.ok().flatten(),
                    () = self.subscriber.woken() => return,
                };
                running.read = None;
                let deliveries = running.resume.answered(answer, self.live.mono());
                if let Some(Replay::Running(running)) = &self.replay {
                    for delivery in &deliveries {
                        self.give(running, delivery);
                    }
                }
            }
            _ => tokio::select! {
                () = self.subscriber.woken() => {}
                () = due => {}
            },
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.live.hub.expect(&self.asked);
        self.live.hub.unregister(&self.subscriber);
    }
}

enum Stepped {
    On,
    Gap(Gap),
    Wait(Option<Instant>),
}
