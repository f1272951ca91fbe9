//! One tape as its writer knows it: what is sealed, what is durable, what its registry row says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::frame::{Frame, Region};
use super::super::registry::TapeRow;
use super::super::time::{Mono, Now};
use super::queue::Part;
use super::{Token, WriterEffect, WriterRules};
use crate::store::TapeId;

/// How long after a failed put a registry row is put again.
const ROW_RETRY_MS: u64 = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sent,
    Failed { again: Mono },
    Durable,
}

/// A sealed frame that is not acknowledged.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) frame: Arc<Frame>,
    /// How many ticks of which request it holds.
    pub(super) counts: Vec<(Token, usize)>,
    parts: Vec<Part>,
    state: State,
    tries: u32,
    sealed_at: Mono,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowState {
    Wanted { at: Mono },
    Putting { changed: bool },
    Put { again: Mono },
}

/// One tape of this writer.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) tape: TapeId,
    pub(super) next: u64,
    pub(super) low: u64,
    /// Whether the registry row is durable.
    pub(super) open: bool,
    pub(super) row: TapeRow,
    row_state: RowState,
    flights: BTreeMap<u64, Flight>,
    pub(super) opened_at: Mono,
    pub(super) sealed_at: Mono,
}

impl Log {
    pub(super) fn new(tape: TapeId, node: &(String, String), now: Mono) -> Self {
        Self {
            tape,
            next: 1,
            low: 0,
            open: false,
            row: TapeRow { node: node.0.clone(), addr: node.1.clone(), ..TapeRow::default() },
            row_state: RowState::Wanted { at: now },
            flights: BTreeMap::new(),
            opened_at: now,
            sealed_at: now,
        }
    }

    pub(super) const fn unacked(&self) -> u64 {
        self.next - 1 - self.low
    }

    /// When the oldest unacknowledged frame was sealed.
    pub(super) fn oldest(&self) -> Option<Mono> {
        self.flights.first_key_value().map(|(_, flight)| flight.sealed_at)
    }

    /// Whether an append failed and has not succeeded since.
    pub(super) fn failing(&self) -> bool {
        self.flights.values().any(|flight| flight.tries > 0 && flight.state != State::Durable)
    }

    pub(super) fn seal(&mut self, home: Region, parts: &[Part], fin: bool, now: Now) -> Arc<Frame> {
        let mut rows = Vec::with_capacity(parts.iter().map(|part| part.rows.len()).sum());
        for part in parts {
            for row in &part.rows {
                let mut row = row.clone();
                row.origin.received = now.wall;
                row.origin.request = part.request();
                rows.push(row);
            }
        }
        rows.sort_by_key(|row| row.tick.series());
        let seq = self.next;
        self.next += 1;
        self.sealed_at = now.mono;
        Arc::new(Frame {
            tape: self.tape,
            seq,
            low: self.low,
            home,
            received: now.wall,
            fin,
            pieces: parts.iter().flat_map(Part::pieces).collect(),
            rows,
        })
    }

    pub(super) fn fly(&mut self, frame: Arc<Frame>, parts: Vec<Part>, keep: bool, now: Mono) {
        let counts = parts.iter().map(|part| (part.token, part.rows.len())).collect();
        let parts = if keep { parts } else { Vec::new() };
        let flight = Flight { counts, parts, state: State::Sent, tries: 0, sealed_at: now, frame };
        self.flights.insert(flight.frame.seq, flight);
    }

    /// A frame is durable. Whether it was one of the unacknowledged.
    pub(super) fn durable(&mut self, seq: u64) -> bool {
        self.flights.get_mut(&seq).map(|flight| flight.state = State::Durable).is_some()
    }

    pub(super) fn failed(&mut self, seq: u64, now: Mono, (first, longest): (u64, u64)) {
        let Some(flight) = self.flights.get_mut(&seq).filter(|flight| flight.state == State::Sent) else {
            return;
        };
        let pause = first.saturating_mul(1 << flight.tries.min(16)).min(longest);
        flight.tries = flight.tries.saturating_add(1);
        flight.state = State::Failed { again: now.after(pause) };
    }

    /// Moves `low` over the durable prefix.
    pub(super) fn advance(&mut self, in_order: bool) -> Vec<Flight> {
        let mut done = Vec::new();
        while let Some(entry) = self.flights.first_entry() {
            if entry.get().state != State::Durable {
                break;
            }
            self.low = *entry.key();
            done.push(entry.remove());
        }
        if !in_order {
            let durable = |flight: &Flight| flight.state == State::Durable;
            let seqs: Vec<u64> =
                self.flights.iter().filter(|(_, flight)| durable(flight)).map(|(seq, _)| *seq).collect();
            for seq in seqs {
                self.low = self.low.max(seq);
                done.extend(self.flights.remove(&seq));
            }
        }
        done
    }

    /// Repeats failed appends, and puts the registry row where it is due.
    pub(super) fn poll(&mut self, now: Mono, rules: &WriterRules, out: &mut Vec<WriterEffect>) {
        let due = match self.row_state {
            RowState::Wanted { at } => at <= now,
            RowState::Put { again } => again <= now,
            RowState::Putting { .. } => false,
        };
        if due {
            self.row.low = self.low;
            self.row_state = RowState::Putting { changed: false };
            out.push(WriterEffect::PutRow { tape: self.tape, row: self.row.clone() });
        }
        for flight in self.flights.values_mut() {
            if let State::Failed { again } = flight.state
                && again <= now
            {
                flight.state = State::Sent;
                if !rules.verbatim {
                    flight.frame = Arc::new(Frame { low: self.low, ..Frame::clone(&flight.frame) });
                }
                out.push(WriterEffect::Append(Arc::clone(&flight.frame)));
            }
        }
    }

    /// When [`Self::poll`] has something to do.
    pub(super) fn due(&self) -> Mono {
        let row = match self.row_state {
            RowState::Wanted { at: again } | RowState::Put { again } => again,
            RowState::Putting { .. } => Mono(u64::MAX),
        };
        let failed = self.flights.values().filter_map(|flight| match flight.state {
            State::Failed { again } => Some(again),
            State::Sent | State::Durable => None,
        });
        failed.min().map_or(row, |again| again.min(row))
    }

    pub(super) fn row_put(&mut self, durable: bool, now: Mono, refresh_ms: u64) {
        let RowState::Putting { changed } = self.row_state else { return };
        self.open |= durable;
        self.row_state = match (durable, changed) {
            (true, false) => RowState::Put { again: now.after(refresh_ms) },
            (true, true) => RowState::Wanted { at: now },
            (false, _) => RowState::Wanted { at: now.after(ROW_RETRY_MS) },
        };
    }

    pub(super) const fn row_is_put(&self) -> bool {
        matches!(self.row_state, RowState::Put { .. })
    }

    /// This tape goes on from another, which was acknowledged up to `low`.
    pub(super) fn close(&mut self, old: TapeId, low: u64) {
        self.row.closes = Some((old, low));
        self.want_row();
    }

    /// The last frame is acknowledged.
    pub(super) fn finish(&mut self) {
        self.row.fin = Some(self.low);
        self.want_row();
    }

    fn want_row(&mut self) {
        self.row_state = match self.row_state {
            RowState::Putting { .. } => RowState::Putting { changed: true },
            RowState::Wanted { .. } | RowState::Put { .. } => RowState::Wanted { at: Mono(0) },
        };
    }

    /// The parts of the requests that are not acknowledged, in order.
    pub(super) fn into_parts(self) -> Vec<Part> {
        let flights: VecDeque<Flight> = self.flights.into_values().collect();
        flights.into_iter().flat_map(|flight| flight.parts).collect()
    }
}
