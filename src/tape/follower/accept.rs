//! The one door for frames: polled, pushed, fetched from home or written by this node itself.

use std::sync::Arc;

use super::super::frame::Frame;
use super::super::position::Progress;
use super::super::time::Now;
use super::Follower;
use crate::store::TapeId;

impl Follower {
    /// Takes a frame that was pushed, or that this node's own writer had acknowledged. A tape that
    /// was not known is followed from 1.
    pub fn accept(&mut self, frame: Arc<Frame>, now: Now) {
        let tape = frame.tape;
        self.start(tape, frame.home, now);
        self.accept_one(tape, frame, now);
        self.rewake(tape, now.mono);
    }

    pub(super) fn accept_one(&mut self, tape: TapeId, frame: Arc<Frame>, now: Now) {
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        let seq = frame.seq;
        state.low = state.low.max(frame.low);
        if state.progress.voids.remove(&seq) {
            self.apply(tape, frame, now);
            return;
        }
        if seq < state.progress.next || state.held.contains_key(&seq) {
            return;
        }
        // What is read again is no sign of life.
        if seq > state.top || !self.rules.life_is_new {
            state.heard = now.mono;
        }
        state.top = state.top.max(seq);
        if seq == state.progress.next {
            state.progress.next += 1;
            self.apply(tape, frame, now);
            self.drain_held(tape, now);
            return;
        }
        let bytes = frame.memory();
        state.held_bytes += bytes;
        state.held.insert(seq, frame);
        self.held_bytes += bytes;
        self.bound_held();
    }

    /// Applies what is held from `next` on.
    pub(super) fn drain_held(&mut self, tape: TapeId, now: Now) {
        while let Some(state) = self.tapes.get_mut(&tape) {
            let next = state.progress.next;
            if let Some(frame) = state.held.remove(&next) {
                let bytes = frame.memory();
                state.held_bytes = state.held_bytes.saturating_sub(bytes);
                self.held_bytes = self.held_bytes.saturating_sub(bytes);
                state.progress.next += 1;
                self.apply(tape, frame, now);
            } else if state.forgotten.remove(&next) {
                state.progress.next += 1;
            } else {
                break;
            }
        }
    }

    fn apply(&mut self, tape: TapeId, frame: Arc<Frame>, now: Now) {
        if let Some(state) = self.tapes.get_mut(&tape) {
            state.heard = now.mono;
            state.fin |= frame.fin;
            state.applied_received = state.applied_received.max(frame.received);
            state.covers_unconfirmed(&frame);
            state.forget_confirmed();
        }
        self.applied.push(frame);
    }

    /// Beyond the budget the highest frame of the tape that holds most is forgotten, never `top`:
    /// the poll reads it again.
    fn bound_held(&mut self) {
        while self.held_bytes > self.config.held_bytes_max {
            let Some(state) = self.tapes.values_mut().max_by_key(|state| state.held_bytes) else { return };
            let Some((seq, frame)) = state.held.pop_last() else { return };
            let bytes = frame.memory();
            state.held_bytes = state.held_bytes.saturating_sub(bytes);
            self.held_bytes = self.held_bytes.saturating_sub(bytes);
            if !self.rules.forgotten_is_unseen {
                state.forgotten.insert(seq);
            }
        }
    }

    /// Starts to follow a tape that is not known, from 1: never from the marks of now, for they
    /// may cover frames that this node has not applied.
    pub(super) fn start(&mut self, tape: TapeId, home: super::Region, now: Now) {
        if let Some(state) = self.tapes.get_mut(&tape) {
            state.home.get_or_insert(home);
            return;
        }
        let mut progress = Progress::at(1);
        if !self.rules.late_from_start {
            progress = self.meet_of(&self.start_marks, tape);
        }
        self.start_at(tape, Some(home), progress, now);
    }

    pub(super) fn start_at(
        &mut self,
        tape: TapeId,
        home: Option<super::Region>,
        progress: Progress,
        now: Now,
    ) {
        let recover = progress.next > 1 && self.rules.recover;
        let mut state = super::tape::Followed::new(home, progress, recover, now.mono);
        if let Some((list, entry)) = self.lists.entry_of(tape) {
            (state.retired, state.retired_in) = (Some(entry.progress.clone()), list);
        }
        if let Some(old) = self.tapes.insert(tape, state) {
            self.wakes.remove(&(old.wake, tape));
        }
        self.rewake(tape, now.mono);
    }

    /// Files the tape under its earliest timer.
    pub(super) fn rewake(&mut self, tape: TapeId, now: super::Mono) {
        let asks_end = self.asks_end(tape);
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        self.wakes.remove(&(state.wake, tape));
        state.wake = state.next_wake(now, &self.config, asks_end);
        self.wakes.insert((state.wake, tape));
    }
}
