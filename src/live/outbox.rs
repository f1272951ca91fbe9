//! What waits to be sent to one client: messages of its own and pieces shared with others, in one
//! order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::encode::Piece;
use crate::tape::Position;

/// What is sent next.
#[derive(Debug)]
pub enum Taken {
    /// A message of its own: a whole payload.
    Control(Bytes),
    /// Pieces for one message.
    Data(Vec<Arc<Piece>>),
}

/// What a piece counts: its bytes, its place in the queue and its own memory.
fn weight(piece: &Piece) -> usize {
    const ITEM_BYTES: usize = 128;
    piece.bytes.len() + ITEM_BYTES
}

#[derive(Debug)]
enum Item {
    Control(Bytes),
    Data(Arc<Piece>),
}

/// The queue of one client. Its bytes are shared with other clients where they are of pieces.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    control_bytes: usize,
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
        self.items.push_back(Item::Data(piece));
    }

    /// The next message: one of its own, or all pieces up to the next of those, of at most so many
    /// bytes, at least one.
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

    /// A cursor for who has had everything but what waits; `None` where no tick waits.
    pub(super) fn before(&self) -> Option<Arc<Position>> {
        self.items.iter().find_map(|item| match item {
            Item::Data(piece) => Some(Arc::clone(&piece.before)),
            Item::Control(_) => None,
        })
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
            self.items = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::TapeId;
    use crate::tape::Progress;

    fn piece(length: usize, next: u64) -> Arc<Piece> {
        let position = Position { tapes: [(TapeId(1), Progress::at(next))].into(), ..Position::default() };
        Arc::new(Piece::new(Bytes::from(vec![b'x'; length]), 1, &Arc::new(position)))
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
        assert_eq!((outbox.bytes(), outbox.control_bytes()), (420 + 5 * 128, 3));
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
        assert_eq!(next(outbox.clear()), 6);
        assert!(outbox.take(100).is_none());
    }
}
