//! A client that resumes: what it must be given before it joins the live hub, and what the hub
//! must not give it again.
//!
//! The cursor and the node's Position tell which frames the client lacks. They are taken from the
//! tail, else from the tape here, else at home; what nobody answers is asked again, never skipped,
//! until it is known to be nowhere: then it is an explicit gap. The replay has a memory of
//! requests of its own, empty at first, for the node's memory is of no use to a client that was
//! elsewhere. What the node follows meanwhile is wanted too ([`Resume::extend`]): the client joins
//! the hub in one step with the view, when nothing is. Until then its cursor covers what it was
//! given ([`Resume::partial_cursor`]), or does not move.
//!
//! Where the cursor is ahead of the node (the node lags, or has never heard of a tape) the client
//! is served at once: a filter drops what the cursor already covers, until the node covers all of
//! it; its cursors are meanwhile the node's Position joined with its own.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::follower::Follower;
use super::frame::Frame;
use super::position::{Position, Progress};
use super::requests::{Delivery, RequestConfig, RequestMemory};
use super::tail::{Covered, Tail};
use super::time::Mono;
use crate::market::Nanos;
use crate::store::{At, TapeId};

/// Limits of a resume.
#[derive(Clone, Copy, Debug)]
pub struct ResumeConfig {
    /// The most seqs of one read.
    pub read_seqs_max: u64,
    /// A frame that neither here nor home has had for so long is a gap.
    pub missing_ms: u64,
    /// The memory of requests of the replay.
    pub requests: RequestConfig,
}

impl Default for ResumeConfig {
    fn default() -> Self {
        Self { read_seqs_max: 255, missing_ms: 60_000, requests: RequestConfig::default() }
    }
}

/// A resume's rules. All hold in production; the simulator breaks them one by one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct ResumeRules {
    /// The cursor moves only when the replay has ended.
    pub cursor_waits: bool,
    /// What the cursor covers is filtered from live deliveries.
    pub filter: bool,
    /// A client joins the hub only when it lacks nothing of what the node has followed meanwhile.
    pub catches_up: bool,
    /// A cursor in the middle of a replay leaves out what is still wanted.
    pub partial_waits: bool,
}

impl Default for ResumeRules {
    fn default() -> Self {
        Self { cursor_waits: true, filter: true, catches_up: true, partial_waits: true }
    }
}

/// What a replay needs next.
#[derive(Clone, Debug)]
pub enum ResumeStep {
    /// A frame from the tail is for the client.
    Deliver(Delivery),
    /// Read these frames, then call [`Resume::answered`].
    Read {
        /// The tape.
        tape: TapeId,
        /// The seqs.
        seqs: RangeInclusive<u64>,
        /// From where.
        at: At,
    },
    /// These frames are nowhere any more: tell the client.
    Gap {
        /// The tape.
        tape: TapeId,
        /// The seqs.
        seqs: RangeInclusive<u64>,
    },
    /// A read is under way, or a question waits until then to be asked again.
    Wait(Mono),
    /// The replay has ended: the client joins the hub.
    Done,
}

#[derive(Clone, Debug)]
struct Want {
    tape: TapeId,
    seqs: RangeInclusive<u64>,
    at: At,
    again: Mono,
    missing_since: Option<Mono>,
    /// About when the tape was written: of two, the one that ended before the other began is earlier.
    age: Nanos,
}

/// A client's resume on a node.
#[derive(Debug)]
pub struct Resume {
    config: ResumeConfig,
    rules: ResumeRules,
    cursor: Position,
    ahead: Covered,
    /// How far the replay goes.
    reach: Covered,
    wants: VecDeque<Want>,
    reading: Option<Want>,
    memory: RequestMemory,
}

/// How long a question that had no answer waits.
const ASK_AGAIN_MS: u64 = 400;

impl Resume {
    /// What a client with this cursor lacks, and what it is ahead by. Where
    /// [`Follower::behind`] names regions, their lists are to be read at home before.
    #[must_use]
    pub fn new(follower: &Follower, cursor: Position, config: ResumeConfig, now: Mono) -> Self {
        let mut ahead = Covered::new();
        let reach = follower.expand(&cursor);
        for (tape, progress) in &reach {
            let none = Progress::at(1);
            let own = follower.own_progress(*tape).unwrap_or(&none);
            if !own.covers_all(progress) {
                ahead.insert(*tape, progress.clone());
            }
        }
        let memory = RequestMemory::new(config.requests, now);
        let wants = VecDeque::new();
        let rules = ResumeRules::default();
        let mut resume = Self { config, rules, cursor, ahead, reach, wants, reading: None, memory };
        resume.extend(follower, now);
        resume
    }

    /// Wants also what the node has followed since; answers how many frames the replay lacks now.
    /// A client joins the hub in one step with a call of this that answers 0.
    pub fn extend(&mut self, follower: &Follower, now: Mono) -> u64 {
        let catches_up = self.rules.catches_up;
        for (tape, own) in follower.followed().filter(|_| catches_up) {
            let reached = self.reach.entry(tape).or_default();
            let age = follower.age(tape);
            for seqs in own.minus(reached) {
                let (at, again, missing_since) = (At::Here, now, None);
                self.wants.push_back(Want { tape, seqs, at, again, missing_since, age });
            }
            *reached = reached.join(own);
        }
        let lacks = |want: &Want| (want.seqs.end() + 1).saturating_sub(*want.seqs.start());
        self.wants.iter().chain(&self.reading).map(lacks).sum()
    }

    /// What the cursor covers and the node does not yet: [`Self::admits`] drops it.
    #[must_use]
    pub const fn ahead(&self) -> &Covered {
        &self.ahead
    }

    /// A cursor in the middle of a replay, right before this frame was given, or with `None` now:
    /// everything that it covers was given to the client. Some of what it does not cover may have
    /// been too.
    #[must_use]
    pub fn partial_cursor(&self, follower: &Follower, before: Option<&Frame>) -> Position {
        let mut position = follower.cursor(&self.ahead);
        for (tape, own) in follower.followed().filter(|_| self.rules.partial_waits) {
            let lacking = self.wants.iter().chain(&self.reading).filter(|want| want.tape == tape);
            let lacking = lacking.map(|want| *want.seqs.start());
            let lacking = lacking.chain(before.filter(|frame| frame.tape == tape).map(|frame| frame.seq));
            let next = lacking.min();
            let reached = self.reach.get(&tape).cloned().unwrap_or_default();
            // What the node has followed since the replay was extended was not given either.
            if next.is_none() && reached.covers_all(own) {
                continue;
            }
            let progress = next.map_or_else(|| reached.clone(), |next| reached.meet(&Progress::at(next)));
            position.tapes.insert(tape, progress);
        }
        position
    }

    /// The same with broken rules.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_rules(mut self, rules: ResumeRules) -> Self {
        self.rules = rules;
        self
    }

    /// The same with another memory; a replay's own is empty.
    #[doc(hidden)]
    pub fn swap_memory(&mut self, memory: &mut RequestMemory) {
        std::mem::swap(&mut self.memory, memory);
    }

    /// What is needed next.
    pub fn step(&mut self, tail: &Tail, now: Mono) -> ResumeStep {
        if self.reading.is_some() {
            return ResumeStep::Wait(now.after(ASK_AGAIN_MS));
        }
        let Some(mut want) = self.wants.remove(self.next_want(tail, now)) else { return ResumeStep::Done };
        let (first, last) = (*want.seqs.start(), *want.seqs.end());
        if let Some(frame) = tail.frame(want.tape, first) {
            let frame = Arc::clone(frame);
            if first < last {
                want.seqs = first + 1..=last;
                self.wants.push_front(want);
            }
            return ResumeStep::Deliver(self.memory.deliver(&frame, now));
        }
        if want.again > now {
            let soonest = self.wants.iter().map(|want| want.again).min();
            let again = want.again;
            self.wants.push_back(want);
            return match soonest.filter(|soonest| *soonest <= now) {
                Some(_) => ResumeStep::Wait(now),
                None => ResumeStep::Wait(soonest.map_or(again, |soonest| soonest.min(again))),
            };
        }
        if want.missing_since.is_some_and(|since| now.since(since) > self.config.missing_ms) {
            return ResumeStep::Gap { tape: want.tape, seqs: want.seqs };
        }
        let end = last.min(first.saturating_add(self.config.read_seqs_max));
        if end < last {
            self.wants.push_front(Want { seqs: end + 1..=last, ..want });
        }
        want.seqs = first..=end;
        let step = ResumeStep::Read { tape: want.tape, seqs: want.seqs.clone(), at: want.at };
        self.reading = Some(want);
        step
    }

    /// Which want comes next: what is no longer in memory, for it is older, the tapes by their age, and
    /// then the tapes by turns, as their frames were received. No order is promised between tapes; this
    /// is the one that clients expect, and that of a node that was started again has it.
    fn next_want(&self, tail: &Tail, now: Mono) -> usize {
        let received = |want: &Want| tail.frame(want.tape, *want.seqs.start()).map(|frame| frame.received);
        let is_older = |want: &Want| want.again <= now && received(want).is_none();
        let older = self.wants.iter().enumerate().filter(|(_, want)| is_older(want));
        if let Some((_, at)) = older.map(|(at, want)| (want.age, at)).min() {
            return at;
        }
        let in_memory = self.wants.iter().enumerate().filter_map(|(at, want)| Some((received(want)?, at)));
        in_memory.min().map_or(0, |(_, at)| at)
    }

    /// The answer to [`ResumeStep::Read`]: the frames, ascending, or `None` where nobody could be
    /// asked. What is for the client, in order.
    pub fn answered(&mut self, answer: Option<Vec<Arc<Frame>>>, now: Mono) -> Vec<Delivery> {
        let Some(want) = self.reading.take() else { return Vec::new() };
        let Some(frames) = answer else {
            let at = if want.at == At::Here { At::Home } else { At::Here };
            self.wants.push_back(Want { at, again: now.after(ASK_AGAIN_MS), ..want });
            return Vec::new();
        };
        let mut delivered = Vec::new();
        let mut from = *want.seqs.start();
        let mut lacking = Vec::new();
        for frame in frames.iter().filter(|frame| want.seqs.contains(&frame.seq)) {
            if from < frame.seq {
                lacking.push(from..=frame.seq - 1);
            }
            from = frame.seq + 1;
            delivered.push(self.memory.deliver(frame, now));
        }
        let rest = from..=*want.seqs.end();
        if delivered.is_empty() {
            lacking.push(rest);
        } else if !rest.is_empty() {
            // An answer is bounded in bytes: only an empty one says that there is no more.
            self.wants.push_front(Want { seqs: rest, again: now, missing_since: None, ..want });
        }
        for seqs in lacking {
            // What this region lacks is at home; what home lacks is asked for again.
            let (at, again, missing_since) = match want.at {
                At::Here => (At::Home, now, want.missing_since),
                At::Home => (At::Here, now.after(ASK_AGAIN_MS), want.missing_since.or(Some(now))),
            };
            self.wants.push_back(Want { seqs, at, again, missing_since, ..want });
        }
        delivered
    }

    /// The read that [`ResumeStep::Read`] asked for is not made now: the next step asks again.
    pub fn put_back(&mut self) {
        if let Some(want) = self.reading.take() {
            self.wants.push_front(want);
        }
    }

    /// Whether the replay has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reading.is_none() && self.wants.is_empty()
    }

    /// Whether a live frame is for this client: not where its cursor already covered it.
    #[must_use]
    pub fn admits(&self, frame: &Frame) -> bool {
        !self.rules.filter || !self.ahead.get(&frame.tape).is_some_and(|cursor| cursor.covers(frame.seq))
    }

    /// The cursor that the client may be given now: the old one while the replay runs, for a
    /// replay that is cut starts again from it.
    pub fn cursor(&mut self, follower: &Follower) -> Position {
        self.ahead.retain(|tape, cursor| !follower.has_passed(*tape, cursor));
        if self.is_done() || !self.rules.cursor_waits {
            follower.cursor(&self.ahead)
        } else {
            self.cursor.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::fixtures::{at, frame, region};
    use crate::tape::{FollowerConfig, Progress, ScannedTape, TailConfig, TapeRow};

    fn node(upto: u64) -> Follower {
        let config = FollowerConfig::new(region("a"), vec![region("a")]);
        let mut follower = Follower::new(config, Box::new(|| 1), at(0));
        for seq in 1..=upto {
            follower.accept(frame(9, seq, seq - 1, &["AAPL"]), at(0));
        }
        follower
    }

    fn cursor(next: u64) -> Position {
        Position { tapes: [(TapeId(9), Progress::at(next))].into(), ..Position::default() }
    }

    #[test]
    fn what_is_lacking_comes_from_the_tail_then_here_then_home_though_answers_are_short() {
        let follower = node(6);
        let mut tail = Tail::new(TailConfig::default());
        tail.apply(frame(9, 3, 2, &["AAPL"]), Mono(0));
        let mut resume = Resume::new(&follower, cursor(3), ResumeConfig::default(), Mono(0));
        let (mut got, mut places) = (Vec::new(), Vec::new());
        for ms in 0..100 {
            match resume.step(&tail, Mono(ms * 100)) {
                ResumeStep::Deliver(delivery) => got.push(delivery.frame.seq),
                ResumeStep::Read { seqs, at, .. } => {
                    assert_eq!(resume.cursor(&follower), cursor(3), "it does not move while the replay runs");
                    places.push(at);
                    // Here has 4 and 5, one an answer; home has 6.
                    let has = |seq: &u64| if at == At::Here { *seq < 6 } else { true };
                    let answer =
                        seqs.filter(has).take(1).map(|seq| frame(9, seq, seq - 1, &["AAPL"])).collect();
                    got.extend(resume.answered(Some(answer), Mono(ms * 100)).iter().map(|d| d.frame.seq));
                }
                ResumeStep::Wait(_) => {}
                ResumeStep::Gap { .. } => panic!("nothing is missing"),
                ResumeStep::Done => break,
            }
        }
        assert_eq!(got, [3, 4, 5, 6]);
        assert_eq!(places.last(), Some(&At::Home));
        assert_eq!(resume.cursor(&follower), cursor(7));
    }

    #[test]
    fn tapes_that_are_no_longer_in_memory_come_by_their_age() {
        let config = FollowerConfig::new(region("a"), vec![region("a")]);
        let mut follower = Follower::new(config, Box::new(|| 1), at(0));
        // Their ids are random: the one that was written first has neither the lowest nor the highest.
        let written = [(7_u64, 20), (5, 10), (9, 30)];
        for (tape, second) in written {
            let written = at(second * 1_000).wall;
            let row = TapeRow { low: 2, ..TapeRow::default() };
            follower.tapes_scanned(
                region("a"),
                Some(vec![ScannedTape { tape: TapeId(tape), row, written }]),
                at(0),
            );
            for seq in 1..=2 {
                follower.accept(frame(tape, seq, seq - 1, &["AAPL"]), at(0));
            }
        }
        let tail = Tail::new(TailConfig::default());
        let mut resume = Resume::new(&follower, Position::default(), ResumeConfig::default(), Mono(0));
        let mut got = Vec::new();
        while let ResumeStep::Read { tape, seqs, .. } = resume.step(&tail, Mono(0)) {
            // One frame an answer.
            let answer = vec![frame(tape.0, *seqs.start(), seqs.start() - 1, &["AAPL"])];
            got.extend(resume.answered(Some(answer), Mono(0)).iter().map(|given| given.frame.tape.0));
        }
        assert_eq!(got, [5, 5, 7, 7, 9, 9]);
    }

    #[test]
    fn what_is_nowhere_is_asked_for_again_and_then_a_gap() {
        let follower = node(2);
        let tail = Tail::new(TailConfig::default());
        let mut resume = Resume::new(&follower, cursor(2), ResumeConfig::default(), Mono(0));
        let (mut asked, mut gap) = (0, None);
        for ms in (0..200_000).step_by(100) {
            match resume.step(&tail, Mono(ms)) {
                ResumeStep::Read { .. } => {
                    asked += 1;
                    resume.answered(Some(Vec::new()), Mono(ms));
                }
                ResumeStep::Gap { seqs, .. } => gap = Some((ms, seqs)),
                ResumeStep::Done => break,
                ResumeStep::Deliver(_) | ResumeStep::Wait(_) => {}
            }
        }
        assert!(asked > 100);
        assert!(matches!(gap, Some((ms, seqs)) if ms > 60_000 && seqs == (2..=2)));
    }

    #[test]
    fn a_cursor_ahead_filters_until_the_node_has_passed_it() {
        let mut follower = node(2);
        let tail = Tail::new(TailConfig::default());
        let mut resume = Resume::new(&follower, cursor(5), ResumeConfig::default(), Mono(0));
        assert!(matches!(resume.step(&tail, Mono(0)), ResumeStep::Done));
        assert!(!resume.admits(&frame(9, 4, 3, &[])) && resume.admits(&frame(9, 5, 4, &[])));
        assert_eq!(resume.cursor(&follower), cursor(5), "joined with its own");
        for seq in 3..=5 {
            follower.accept(frame(9, seq, seq - 1, &[]), at(1));
        }
        assert_eq!(resume.cursor(&follower), cursor(6));
        assert!(resume.admits(&frame(9, 4, 3, &[])));
    }
}
