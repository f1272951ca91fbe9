//! What waits to be sealed: parts of requests, in the order in which they came.

use std::collections::VecDeque;

use super::super::frame::{BodyHash, FRAME_PIECES_MAX, Piece, row_weight, weight};
use super::{Batch, Refusal, Token};
use crate::market::{RequestKey, Row};

/// The header of a frame without requests.
const HEADER_BYTES: usize = 128;
/// A piece with its request, in the header.
const PIECE_BYTES: usize = 48;

/// Whether the ticks of an atomic request fit one frame of at most `max` bytes.
///
/// # Errors
/// [`Refusal::TooLarge`].
pub fn check_one_frame(rows: &[Row], max: usize) -> Result<(), Refusal> {
    let bytes = HEADER_BYTES + weight(rows);
    let follows = |one: &Row, next: &Row| one.origin.index.checked_add(1) == Some(next.origin.index);
    if bytes > max || rows.chunk_by(follows).count() > FRAME_PIECES_MAX {
        return Err(Refusal::TooLarge { bytes, max });
    }
    Ok(())
}

/// Ticks of one request that wait, or that are in a frame in flight.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) token: Token,
    request: RequestKey,
    body: BodyHash,
    backfill: bool,
    pub(super) atomic: bool,
    pub(super) rows: VecDeque<Row>,
    pub(super) weight: usize,
}

impl Part {
    pub(super) fn of(batch: Batch) -> Self {
        let weight = HEADER_BYTES + weight(&batch.rows);
        Self {
            token: batch.token,
            request: batch.request,
            body: batch.body,
            backfill: batch.backfill,
            atomic: batch.atomic,
            rows: batch.rows.into(),
            weight,
        }
    }

    /// The pieces of the header: runs of positions.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for row in &self.rows {
            let index = row.origin.index;
            match pieces.last_mut() {
                Some(piece) if piece.end() == index => piece.count += 1,
                _ => pieces.push(Piece {
                    request: self.request,
                    body: self.body,
                    first: index,
                    count: 1,
                    backfill: self.backfill,
                }),
            }
        }
        pieces
    }

    /// The number of pieces.
    pub(super) fn runs(&self) -> usize {
        self.pieces().len()
    }

    pub(super) const fn request(&self) -> RequestKey {
        self.request
    }

    /// Takes as many rows from the front as fit, at least none.
    fn split(&mut self, bytes: usize, pieces: usize) -> Self {
        let (mut used, mut runs, mut count, mut last) = (HEADER_BYTES, 0, 0, None);
        for row in &self.rows {
            let follows = last.is_some_and(|index: u32| index.checked_add(1) == Some(row.origin.index));
            let piece = if follows { 0 } else { PIECE_BYTES };
            let next = used + row_weight(row) + piece;
            if next > bytes || runs + usize::from(!follows) > pieces {
                break;
            }
            (used, runs, count, last) =
                (next, runs + usize::from(!follows), count + 1, Some(row.origin.index));
        }
        let rows: VecDeque<Row> = self.rows.drain(..count).collect();
        let taken = if count == 0 { 0 } else { used };
        self.weight = self.weight.saturating_sub(taken.saturating_sub(HEADER_BYTES));
        Self { rows, weight: taken, ..self.like() }
    }

    fn like(&self) -> Self {
        Self { rows: VecDeque::new(), weight: 0, ..*self }
    }
}

/// The parts that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    parts: VecDeque<Part>,
    bytes: usize,
}

impl Queue {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn push_back(&mut self, part: Part) {
        self.bytes += part.weight;
        self.parts.push_back(part);
    }

    /// Puts parts before all others, in their order.
    pub(super) fn put_back(&mut self, parts: Vec<Part>) {
        for part in parts.into_iter().rev() {
            self.bytes += part.weight;
            self.parts.push_front(part);
        }
    }

    /// Takes what fits one frame.
    pub(super) fn take(&mut self, frame_bytes: usize) -> Vec<Part> {
        let (mut room, mut pieces) = (frame_bytes, FRAME_PIECES_MAX);
        let mut taken = Vec::new();
        while let Some(front) = self.parts.front_mut() {
            let before = front.weight;
            let part = if front.weight <= room && front.runs() <= pieces {
                let Some(part) = self.parts.pop_front() else { break };
                self.bytes = self.bytes.saturating_sub(before);
                part
            } else if front.atomic {
                break;
            } else {
                let part = front.split(room, pieces);
                self.bytes = self.bytes.saturating_sub(before.saturating_sub(front.weight));
                if part.rows.is_empty() {
                    break;
                }
                part
            };
            room = room.saturating_sub(part.weight);
            pieces = pieces.saturating_sub(part.runs());
            taken.push(part);
        }
        taken
    }

    /// Removes the parts of all requests but those that `keep` names, and tells whose they were.
    pub(super) fn remove_unless(&mut self, keep: impl Fn(Token) -> bool) -> Vec<Token> {
        let (kept, gone): (Vec<Part>, Vec<Part>) =
            std::mem::take(&mut self.parts).into_iter().partition(|part| keep(part.token));
        self.bytes = kept.iter().map(|part| part.weight).sum();
        self.parts = kept.into();
        gone.into_iter().map(|part| part.token).collect()
    }
}
