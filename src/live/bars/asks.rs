//! Questions to history: so many in flight, so many waiting.

use std::collections::{HashMap, VecDeque};

use super::AskId;
use crate::market::{Nanos, Symbol};

/// What a question is about: a minute bar, or the daily bar.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskKey {
    pub(super) day: Nanos,
    pub(super) symbol: Symbol,
    pub(super) minute: Option<Nanos>,
}

pub(super) struct Asks {
    in_flight_max: usize,
    queued_max: usize,
    queue: VecDeque<AskKey>,
    in_flight: HashMap<AskId, AskKey>,
    last: u64,
}

impl Asks {
    pub(super) fn new(in_flight_max: usize, queued_max: usize) -> Self {
        Self { in_flight_max, queued_max, queue: VecDeque::new(), in_flight: HashMap::new(), last: 0 }
    }

    /// Queues a question; answers whether there was room.
    pub(super) fn queue(&mut self, key: AskKey) -> bool {
        let fits = self.queue.len() < self.queued_max;
        if fits {
            self.queue.push_back(key);
        }
        fits
    }

    pub(super) fn may_send(&self) -> bool {
        self.in_flight.len() < self.in_flight_max && !self.queue.is_empty()
    }

    /// The next question that may be sent.
    pub(super) fn next(&mut self) -> Option<AskKey> {
        if self.may_send() { self.queue.pop_front() } else { None }
    }

    pub(super) fn sent(&mut self, key: AskKey) -> AskId {
        self.last += 1;
        let id = AskId(self.last);
        self.in_flight.insert(id, key);
        id
    }

    pub(super) fn answered(&mut self, id: AskId) -> Option<AskKey> {
        self.in_flight.remove(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }
}
