//! What waits to be sent to one client: messages of its own and pieces shared with others, in one
//! order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::encode::{ALONE_BYTES_MAX, Piece};
use super::gap::Gap;
use crate::market::Nanos;
use crate::tape::Position;

/// What is sent next.
#[derive(Debug)]
pub enum Taken {
    /// A message of its own: a whole payload.
    Control(Bytes),
    /// Pieces for one message.
    Data(Vec<Arc<Piece>>),
}

/// A place in the queue and the item's own memory.
const ITEM_BYTES: usize = 128;
/// A gap and the Position before it.
const GAP_BYTES: usize = 512;

/// What a piece counts: its bytes, also as a message of its own, its place in the queue and its own
/// memory.
fn weight(piece: &Piece) -> usize {
    let alone = if piece.bytes.len() <= ALONE_BYTES_MAX { piece.bytes.len() } else { 0 };
    piece.bytes.len() + alone + ITEM_BYTES
}

#[derive(Debug)]
enum Item {
    Control(Bytes),
    Data(Arc<Piece>),
    /// What is lost, and a cursor for who has not been told.
    Gap(Gap, Arc<Position>),
}

/// The queue of one client. Its bytes are shared with other clients where they are of pieces.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    control_bytes: usize,
    /// Of each piece of bars: until when the bars before it were announced.
    told: VecDeque<Nanos>,
}

impl Outbox {
    /// A message of its own goes after what waits.
    pub(super) fn push_control(&mut self, payload: Bytes) {
        self.bytes += payload.len();
        self.control_bytes += payload.len();
        self.items.push_back(Item::Control(payload));
    }

    /// A piece goes after what waits.
    pub(super) fn push(&mut self, piece: Arc<Piece>) {
        self.bytes += weight(&piece);
        if piece.has_bars {
            self.told.push_back(piece.before.told);
        }
        self.items.push_back(Item::Data(piece));
    }

    /// What is lost goes after what waits.
    pub(super) fn push_gap(&mut self, gap: Gap, before: &Arc<Position>) {
        self.bytes += GAP_BYTES;
        self.items.push_back(Item::Gap(gap, Arc::clone(before)));
    }

    /// What is lost, where that is what comes next.
    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        match self.items.pop_front()? {
            Item::Gap(gap, _) => {
                self.bytes -= GAP_BYTES;
                Some(gap)
            }
            other => {
                self.items.push_front(other);
                None
            }
        }
    }

    /// The next message: one of its own, or all pieces up to the next of those, of at most so many
    /// bytes, at least one. None where something is lost first.
    pub(super) fn take(&mut self, bytes_max: usize) -> Option<Taken> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Control(payload) if pieces.is_empty() => {
                    self.bytes -= payload.len();
                    self.control_bytes -= payload.len();
                    return Some(Taken::Control(payload));
                }
                Item::Data(piece) if pieces.is_empty() || bytes + piece.bytes.len() <= bytes_max => {
                    self.bytes -= weight(&piece);
                    if piece.has_bars {
                        self.told.pop_front();
                    }
                    bytes += piece.bytes.len();
                    pieces.push(piece);
                }
                other => {
                    self.items.push_front(other);
                    break;
                }
            }
        }
        self.relax();
        (!pieces.is_empty()).then_some(Taken::Data(pieces))
    }

    /// Drops all of it. Answers the cursor of who has had everything but what is dropped, where
    /// ticks are dropped.
    pub(super) fn clear(&mut self) -> Option<Arc<Position>> {
        let before = self.before();
        *self = Self::default();
        before
    }

    /// A cursor for who has had everything but what waits; `None` where neither tick nor gap does.
    pub(super) fn before(&self) -> Option<Arc<Position>> {
        self.items.iter().find_map(|item| match item {
            Item::Data(piece) => Some(Arc::clone(&piece.before.position)),
            Item::Gap(_, before) => Some(Arc::clone(before)),
            Item::Control(_) => None,
        })
    }

    /// Who has had everything but what waits has had the bars announced until then; `None` where no
    /// bar waits.
    pub(super) fn told(&self) -> Option<Nanos> {
        self.told.iter().min().copied()
    }

    /// Bytes that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of messages of its own that wait.
    pub(super) const fn control_bytes(&self) -> usize {
        self.control_bytes
    }

    /// A burst leaves no memory behind.
    fn relax(&mut self) {
        const SLOTS_KEPT: usize = 64;
        if self.items.is_empty() && self.items.capacity() > SLOTS_KEPT {
            (self.items, self.told) = (VecDeque::new(), VecDeque::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::Place;
    use super::*;
    use crate::live::GapReason;
    use crate::store::TapeId;
    use crate::tape::Progress;

    fn piece(length: usize, next: u64) -> Arc<Piece> {
        let position = Position { tapes: [(TapeId(1), Progress::at(next))].into(), ..Position::default() };
        let told = Nanos(i64::try_from(next).unwrap());
        let before = Place { position: Arc::new(position), told };
        let has_bars = next.is_multiple_of(2);
        Arc::new(Piece::new(Bytes::from(vec![b'x'; length]), 1, &before, has_bars))
    }

    fn lengths(outbox: &mut Outbox) -> Vec<Vec<usize>> {
        let mut all = Vec::new();
        while let Some(taken) = outbox.take(100) {
            all.push(match taken {
                Taken::Control(payload) => vec![payload.len()],
                Taken::Data(pieces) => pieces.iter().map(|piece| piece.bytes.len()).collect(),
            });
        }
        all
    }

    #[test]
    fn messages_keep_their_order_and_pieces_go_together() {
        let mut outbox = Outbox::default();
        for length in [40, 50, 20] {
            outbox.push(piece(length, 1));
        }
        outbox.push_control(Bytes::from_static(b"ack"));
        for length in [300, 7] {
            outbox.push(piece(length, 1));
        }
        assert_eq!((outbox.bytes(), outbox.control_bytes()), (3 + 2 * 417 + 5 * 128, 3));
        assert_eq!(lengths(&mut outbox), [vec![40, 50], vec![20], vec![3], vec![300], vec![7]]);
        assert_eq!((outbox.bytes(), outbox.control_bytes()), (0, 0));
    }

    #[test]
    fn the_cursor_is_that_before_the_first_tick_that_waits() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.before(), None);
        outbox.push(piece(60, 5));
        outbox.push_control(Bytes::from_static(b"hb"));
        outbox.push(piece(60, 6));
        let next = |position: Option<Arc<Position>>| position.unwrap().tapes[&TapeId(1)].next;
        assert_eq!(next(outbox.before()), 5);
        outbox.take(100);
        assert_eq!(next(outbox.before()), 6);
        assert_eq!(outbox.told(), Some(Nanos(6)), "the other piece has no bars");
        assert_eq!(next(outbox.clear()), 6);
        assert_eq!(outbox.told(), None);
        assert!(outbox.take(100).is_none());
    }

    #[test]
    fn a_gap_comes_in_its_turn_and_no_cursor_passes_it() {
        let (gap, mut outbox) =
            (Gap { from: Nanos(1), to: Nanos(2), reason: GapReason::Lost }, Outbox::default());
        outbox.push(piece(10, 5));
        outbox.push_gap(gap.clone(), &Arc::new(Position { tapes: [].into(), ..Position::default() }));
        outbox.push(piece(10, 7));
        assert_eq!(outbox.take_gap(), None);
        assert_eq!(lengths(&mut outbox), [vec![10]], "up to the gap");
        assert!(outbox.before().unwrap().tapes.is_empty());
        assert_eq!(outbox.take_gap(), Some(gap));
        assert_eq!((lengths(&mut outbox), outbox.take_gap()), (vec![vec![10]], None));
    }
}
