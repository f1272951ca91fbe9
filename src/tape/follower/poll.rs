//! When a tape is read, and what the answers mean.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::frame::Frame;
use super::super::gaps::{GapReason, GapRow};
use super::super::position::VOIDS_MAX;
use super::super::time::{Mono, Now};
use super::tape::{Followed, PendingGap, Purpose, WriteBack};
use super::{Follower, FollowerEffect, ReadId};
use crate::market::Nanos;
use crate::store::{At, Reach, TapeId};

/// After a restart, how far below `next` frames may be unconfirmed: twice the writer's window.
const RECOVER_SEQS: u64 = 16;
/// The most reads of voids of a tape at once.
const VOID_READS_MAX: u8 = 4;

impl Follower {
    pub(super) fn poll_tape(&mut self, tape: TapeId, now: Now) {
        let asks_end = self.asks_end(tape);
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        state.forget_confirmed();
        let dead = state.is_dead(now.mono, &self.config);
        let mut reads: Vec<(Purpose, RangeInclusive<u64>, At)> = Vec::new();
        if state.recover && !state.recovering && state.due <= now.mono {
            state.recovering = true;
            let next = state.progress.next;
            reads.push((Purpose::Recover, next.saturating_sub(RECOVER_SEQS).max(1)..=next - 1, At::Here));
        }
        if dead && self.rules.write_back {
            let reach = if self.rules.write_back_home { Reach::Home } else { Reach::Region };
            for write in state.unconfirmed.values_mut() {
                if let WriteBack::Due(at, frame) = write
                    && *at <= now.mono
                {
                    let frame = Arc::clone(frame);
                    *write = WriteBack::Sent(Arc::clone(&frame));
                    self.out.push(FollowerEffect::WriteBack { frame, reach });
                }
            }
        }
        if let Some(gap) = &mut state.gap
            && gap.again.is_some_and(|again| again <= now.mono)
        {
            gap.again = None;
            self.out.push(FollowerEffect::PutGap(gap.row));
        }
        if dead && asks_end && !state.asking_end && state.end_next <= now.mono {
            state.asking_end = true;
            let next = state.progress.next;
            reads.push((Purpose::End, next..=next + self.config.read_seqs_max, At::Home));
        }
        plan_voids(state, now.mono, &self.config, &mut reads);
        if state.polling == 0 && state.due <= now.mono {
            if state.is_finished() {
                state.due = Mono(u64::MAX);
                // What came last came by another way than a poll: nothing is waited for any more.
                (state.reached_end, state.is_failing) = (true, false);
                (state.hole_since, state.missing_since) = (None, None);
            } else {
                let full = self.held_bytes >= self.config.held_bytes_max && self.config.held_full_stops;
                let ranges = poll_ranges(state, self.config.read_seqs_max, full);
                state.due = now.mono.after(state.poll_interval_ms(now.mono, &self.config));
                state.poll_next = state.progress.next;
                (state.poll_bytes, state.poll_failed) = (0, false);
                state.polling = u8::try_from(ranges.len()).unwrap_or(0);
                reads.extend(ranges.into_iter().map(|range| (Purpose::Poll, range, At::Here)));
            }
        }
        for (purpose, seqs, at) in reads {
            self.read(tape, purpose, seqs, at);
        }
        self.rewake(tape, now.mono);
    }

    /// The answer to [`FollowerEffect::Read`]: the frames, ascending, or `None` where nobody could
    /// be asked.
    pub fn read_done(&mut self, id: ReadId, answer: Option<Vec<Arc<Frame>>>, now: Now) {
        let Some((tape, purpose, seqs)) = self.reads.remove(&id) else { return };
        match purpose {
            Purpose::Poll => self.polled(tape, answer, now),
            Purpose::Hole => self.hole_answered(tape, answer, *seqs.end(), now),
            Purpose::End => self.end_answered(tape, answer, now),
            Purpose::Voids => {
                let voids = |frame: &Arc<Frame>| {
                    self.tapes.get(&tape).is_some_and(|state| state.progress.voids.contains(&frame.seq))
                };
                let late: Vec<Arc<Frame>> = answer.into_iter().flatten().filter(voids).collect();
                let found = !late.is_empty();
                for frame in late {
                    self.accept_one(tape, frame, now);
                }
                if let Some(state) = self.tapes.get_mut(&tape) {
                    state.reading_voids = state.reading_voids.saturating_sub(1);
                    if found {
                        // There may be more where these were: an answer is bounded in bytes.
                        (state.void_next, state.void_from) = (now.mono, 0);
                    }
                }
            }
            Purpose::Recover => self.recovered(tape, answer, *seqs.end()),
        }
        self.rewake(tape, now.mono);
    }

    fn recovered(&mut self, tape: TapeId, answer: Option<Vec<Arc<Frame>>>, end: u64) {
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        state.recovering = false;
        let Some(frames) = answer else { return };
        // An answer is bounded in bytes: only an empty one says that there is no more.
        let rest = frames.last().map(|frame| frame.seq + 1).filter(|from| *from <= end);
        state.recover = rest.is_some();
        state.recovering = rest.is_some();
        for frame in frames {
            state.low = state.low.max(frame.low);
            state.fin |= frame.fin;
            if state.progress.covers(frame.seq) {
                state.applied_received = state.applied_received.max(frame.received);
                state.covers_unconfirmed(&frame);
            }
        }
        state.forget_confirmed();
        if let Some(from) = rest {
            self.read(tape, Purpose::Recover, from..=end, At::Here);
        }
    }

    fn polled(&mut self, tape: TapeId, answer: Option<Vec<Arc<Frame>>>, now: Now) {
        let failed = answer.is_none();
        let mut bytes = 0;
        for frame in answer.into_iter().flatten() {
            bytes += frame.memory();
            self.accept_one(tape, frame, now);
        }
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        state.polling = state.polling.saturating_sub(1);
        state.poll_bytes += bytes;
        state.poll_failed |= failed;
        if state.polling > 0 {
            return;
        }
        state.is_failing = state.poll_failed;
        let advanced = state.progress.next - state.poll_next.min(state.progress.next);
        // A full answer: there is more.
        let full = advanced >= self.config.read_seqs_max || state.poll_bytes > self.config.read_bytes_max / 4;
        if full && advanced > 0 {
            state.due = now.mono;
        } else if !state.poll_failed {
            state.reached_end = true;
        }
        if !self.rules.void_holes
            && let Some(first) = state.held.first_key_value().map(|(seq, _)| *seq)
        {
            state.progress.next = first;
            self.drain_held(tape, now);
        }
        self.look_at_hole(tape, advanced > 0, now);
    }

    /// A hole that stays is asked for at home.
    fn look_at_hole(&mut self, tape: TapeId, advanced: bool, now: Now) {
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        let held = state.held.last_key_value().map_or(0, |(seq, _)| *seq);
        let top = if self.rules.top_remembers { state.top } else { held };
        let top = top.max(state.low).max(state.settled());
        if top < state.progress.next {
            (state.hole_since, state.missing_since) = (None, None);
            return;
        }
        let since = match state.hole_since {
            Some(since) if !advanced => since,
            _ => {
                (state.hole_since, state.missing_since) = (Some(now.mono), None);
                return;
            }
        };
        let old = now.mono.since(since) > self.config.hole_ms;
        if old && now.mono >= state.home_next && !state.asking_hole && state.gap.is_none() {
            state.asking_hole = true;
            let next = state.progress.next;
            self.read(tape, Purpose::Hole, next..=top, At::Home);
        }
    }

    fn hole_answered(&mut self, tape: TapeId, answer: Option<Vec<Arc<Frame>>>, asked_to: u64, now: Now) {
        let (first_pause, longest) = self.config.home_pause_ms;
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        state.asking_hole = false;
        let Some(frames) = answer else {
            // Nothing is skipped while home cannot be asked.
            state.home_pause_ms = state.home_pause_ms.saturating_mul(2).clamp(first_pause, longest);
            state.home_next = now.mono.after(state.home_pause_ms);
            return;
        };
        state.home_pause_ms = 0;
        state.home_next = now.mono.after(first_pause);
        let answered: Vec<(u64, Nanos)> = frames.iter().map(|frame| (frame.seq, frame.received)).collect();
        for frame in frames {
            self.accept_one(tape, frame, now);
        }
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        let next = state.progress.next;
        if answered.last().is_some_and(|(last, _)| *last < next) {
            // The hole moved on meanwhile, and an answer is bounded in bytes: it tells nothing of `next`.
            state.home_next = now.mono;
            return;
        }
        // The lowest frame that is known above the hole, by home or here.
        let above = answered.iter().copied().find(|(seq, _)| *seq >= next);
        let held = state.held.first_key_value().map(|(seq, frame)| (*seq, frame.received));
        let first = above.into_iter().chain(held).min();
        if next > state.low {
            let dead = state.is_dead(now.mono, &self.config);
            let known = state.top.max(state.settled());
            let settled = state.retired.as_ref().and_then(|entry| entry.next_covered(next));
            if dead && next <= known && !self.settled_and_expired(tape, first, now) {
                let end = first.map_or(known.max(next) + 1, |(seq, _)| seq).min(asked_to + 1);
                // Where home retired the tape with voids, only these are voids.
                let end = settled.filter(|seq| *seq > next).map_or(end, |seq| end.min(seq));
                self.void(tape, next, end, now.mono);
                self.drain_held(tape, now);
            }
        } else if next <= asked_to && first.is_none_or(|(seq, _)| seq > next) {
            self.look_at_missing(tape, first, now);
        }
    }

    /// Passes `next..end` by voids, as far as the limit allows.
    fn void(&mut self, tape: TapeId, next: u64, end: u64, now: Mono) {
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        for seq in next..end {
            if state.progress.voids.len() >= VOIDS_MAX {
                return;
            }
            if state.voids_since.is_none() || state.progress.voids.is_empty() {
                state.voids_since = Some(now);
                state.void_next = now.after(self.config.void_ms.0);
            }
            state.progress.voids.insert(seq);
            state.progress.next = seq + 1;
        }
    }

    /// Whether frames from `next` up to `first` (or the end) have expired: what follows them is
    /// nearly as old as frames become, or, where nothing follows, the registry row is.
    fn have_expired(&self, state: &Followed, first: Option<(u64, Nanos)>, to: u64, now: Now) -> bool {
        let age_ms =
            |time: Nanos| u64::try_from(now.wall.0.saturating_sub(time.0).max(0)).unwrap_or(0) / 1_000_000;
        let expired_ms = self.config.frame_ttl_ms.saturating_sub(self.config.ttl_margin_ms);
        let sign = first.filter(|(seq, _)| *seq <= to).map(|(_, received)| received).or(state.registered);
        match sign {
            Some(time) => age_ms(time) > expired_ms,
            // A row that no scan has found for so long has expired after the frames.
            None => now.mono.since(state.heard) > expired_ms,
        }
    }

    /// The home region had these frames when it retired the tape, and they have expired since:
    /// that is a gap, also where nothing here says that they were acknowledged.
    fn settled_and_expired(&mut self, tape: TapeId, first: Option<(u64, Nanos)>, now: Now) -> bool {
        let Some(state) = self.tapes.get(&tape) else { return false };
        let next = state.progress.next;
        // A void of the entry is no frame that anyone had.
        let Some(entry) = state.retired.as_ref().filter(|entry| entry.covers(next)) else { return false };
        let settled = entry.voids.range(next..).next().copied().unwrap_or(entry.next) - 1;
        if !self.have_expired(state, first, settled, now) {
            return false;
        }
        let last = first.map_or(settled, |(seq, _)| seq - 1).min(settled);
        self.begin_gap(tape, last, GapReason::Expired, now);
        true
    }

    /// Acknowledged frames from `next` on are not at home: they have expired, or the database has
    /// lost them. Either becomes a gap, never a silence.
    fn look_at_missing(&mut self, tape: TapeId, first: Option<(u64, Nanos)>, now: Now) {
        let Some(state) = self.tapes.get(&tape) else { return };
        let last = first.map_or(state.low, |(seq, _)| seq - 1).min(state.low);
        let expired = self.have_expired(state, first, state.low, now);
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        let next = state.progress.next;
        let known = state.missing_since.filter(|(seq, _)| *seq == next);
        let (_, since) = *state.missing_since.insert(known.unwrap_or((next, now.mono)));
        if expired {
            self.begin_gap(tape, last, GapReason::Expired, now);
        } else if now.mono.since(since) > self.config.missing_ms {
            self.acked_frames_missing += last + 1 - state.progress.next;
            self.begin_gap(tape, last, GapReason::Missing, now);
        }
    }

    /// Passes `next..=last` as soon as a row tells so.
    fn begin_gap(&mut self, tape: TapeId, last: u64, reason: GapReason, now: Now) {
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        let (first, from) = (state.progress.next, state.applied_received);
        let row = GapRow { tape, first, last, reason, from, to: now.wall };
        if self.rules.gap_row_first {
            state.gap = Some(PendingGap { row, again: None });
            self.out.push(FollowerEffect::PutGap(row));
        } else {
            self.pass(row, now);
        }
    }

    /// The answer to [`FollowerEffect::PutGap`].
    pub fn gap_put(&mut self, row: &GapRow, durable: bool, now: Now) {
        let Some(state) = self.tapes.get_mut(&row.tape) else { return };
        let Some(gap) = &mut state.gap else { return };
        if gap.row.first != row.first {
            return;
        }
        if durable {
            state.gap = None;
            self.pass(*row, now);
        } else {
            gap.again = Some(now.mono.after(self.config.home_pause_ms.0));
        }
        self.rewake(row.tape, now.mono);
    }

    fn pass(&mut self, row: GapRow, now: Now) {
        if let Some(state) = self.tapes.get_mut(&row.tape) {
            (state.hole_since, state.missing_since) = (None, None);
        }
        // Frames of the range may have come while the row was written: they are applied.
        while let Some(state) = self.tapes.get_mut(&row.tape).filter(|state| state.progress.next <= row.last)
        {
            let next = state.progress.next;
            if !state.held.contains_key(&next) {
                if row.reason == GapReason::Missing {
                    // What was lost may come back: it is looked for while there is room for voids.
                    self.void(row.tape, next, next + 1, now.mono);
                }
                if let Some(state) = self.tapes.get_mut(&row.tape) {
                    state.progress.next = next + 1;
                }
            }
            self.drain_held(row.tape, now);
        }
        self.passed.push(row);
        self.drain_held(row.tape, now);
    }

    /// Whether the end of a tape is to be asked for at home, once the tape is dead.
    pub(super) fn asks_end(&self, tape: TapeId) -> bool {
        self.tapes.get(&tape).is_some_and(|state| {
            let remote = state.home.is_some_and(|home| home != self.config.region);
            self.rules.ask_home && remote && !state.is_finished()
        })
    }

    fn end_answered(&mut self, tape: TapeId, answer: Option<Vec<Arc<Frame>>>, now: Now) {
        let settled = self.equals_retired(tape);
        let Some(state) = self.tapes.get_mut(&tape) else { return };
        state.asking_end = false;
        let Some(frames) = answer else {
            state.end_next = now.mono.after(self.config.home_pause_ms.0);
            return;
        };
        let pause = if settled {
            Followed::patience_ms(state.heard, now.mono, &self.config).max(self.config.tail_ask_ms)
        } else {
            self.config.tail_ask_ms
        };
        state.end_next = if frames.is_empty() { now.mono.after(pause) } else { now.mono };
        for frame in frames {
            self.accept_one(tape, frame, now);
        }
    }

    /// The answer to [`FollowerEffect::WriteBack`].
    pub fn wrote_back(&mut self, tape: TapeId, seq: u64, durable: bool, now: Now) {
        let retry = now.mono.after(self.config.write_back_retry_ms);
        if let Some(write) = self.tapes.get_mut(&tape).and_then(|state| state.unconfirmed.get_mut(&seq)) {
            if durable {
                *write = WriteBack::Done;
            } else if let WriteBack::Sent(frame) = write {
                *write = WriteBack::Due(retry, Arc::clone(frame));
            }
        }
        self.rewake(tape, now.mono);
    }
}

/// What is held is not read twice.
fn poll_ranges(state: &Followed, seqs_max: u64, full: bool) -> Vec<RangeInclusive<u64>> {
    let next = state.progress.next;
    let (Some((first, _)), Some((last, _))) = (state.held.first_key_value(), state.held.last_key_value())
    else {
        return vec![next..=next + seqs_max];
    };
    let hole = next..=(*first - 1).min(next + seqs_max);
    let above = *last + 1..=*last + seqs_max;
    if full { vec![hole] } else { vec![hole, above] }
}

/// Voids are read again, a few runs at a time, in turn.
fn plan_voids(
    state: &mut Followed,
    now: Mono,
    config: &super::FollowerConfig,
    reads: &mut Vec<(Purpose, RangeInclusive<u64>, At)>,
) {
    if state.progress.voids.is_empty() || state.reading_voids > 0 || state.void_next > now {
        return;
    }
    let since = *state.voids_since.get_or_insert(now);
    state.void_next = now.after(Followed::patience_ms(since, now, config));
    let at = if now.since(since) < config.void_spans_ms.0 { At::Here } else { At::Home };
    let from = state.void_from;
    let turn = state.progress.voids.range(from..).chain(state.progress.voids.range(..from));
    let mut runs: Vec<RangeInclusive<u64>> = Vec::new();
    for seq in turn {
        let full = runs.len() >= usize::from(VOID_READS_MAX);
        match runs.last_mut() {
            Some(run) if run.end() + 1 == *seq => *run = *run.start()..=*seq,
            _ if full => break,
            _ => runs.push(*seq..=*seq),
        }
    }
    state.void_from = runs.last().map_or(0, |run| run.end() + 1);
    state.reading_voids = u8::try_from(runs.len()).unwrap_or(VOID_READS_MAX);
    reads.extend(runs.into_iter().map(|run| (Purpose::Voids, run, at)));
}
