//! The hub: what was followed, to each client that asked for it.
//!
//! The view hands over each delivery with the Position after it ([`Hub::enqueue`], under its lock);
//! [`Hub::turn`] fans them out, one after the other, on the hub's own task. A client's cursor is
//! the Position up to which everything is in its outbox, so that delivery and cursor agree however
//! far the hub is behind the view.
//!
//! Nobody waits for a client. One whose outbox is full when a delivery comes gets nothing of it,
//! nor of what follows: it has left the hub at the Position before that delivery, and reads on from
//! there as a client that resumes does. Where the hub itself is too far behind, all clients do.
//!
//! What is on no tape, such as bars that close, is announced ([`Hub::announce`]) and kept for a
//! while, so that who is away or has left meanwhile is given it all the same. Frames that the view
//! passes as lost wait in the same queue as deliveries, and each client is told in its turn.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::announced::{After, Announced};
use super::ask::Attached;
use super::away::Away;
use super::channel::Channel;
use super::encode::Form;
use super::gap::{Gap, GapReason};
use super::index::{Entry, Index};
use super::interest::Interest;
use super::place::Place;
use super::subscriber::{End, Offered, Subscriber};
use crate::bars::Period;
use crate::market::{Nanos, Row, Symbol};
use crate::store::TapeId;
use crate::tape::tasks::NowFn;
use crate::tape::{self, Delivery, GapRow, Position};

/// Limits of a hub.
#[derive(Clone, Copy, Debug)]
pub struct HubConfig {
    /// What waits for one client; above it the client leaves the hub and reads on later.
    pub outbox_bytes_max: usize,
    /// Deliveries that the hub has not fanned out; above it all clients leave the hub.
    pub backlog_bytes_max: usize,
    /// What was announced is kept in so many bytes.
    pub announced_bytes_max: usize,
    /// What was announced is kept for so long.
    pub announced_ms: u64,
}

enum Followed {
    Delivery(Delivery),
    /// Frames that are lost.
    Passed(GapRow),
}

impl Followed {
    fn bytes(&self) -> usize {
        match self {
            Self::Delivery(delivery) => delivery.frame.memory(),
            Self::Passed(_) => size_of::<Queued>(),
        }
    }
}

struct Queued {
    followed: Followed,
    after: Arc<Position>,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Queued>,
    bytes: usize,
}

/// How many clients there are, and how far behind the hub is.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubStatus {
    /// Clients.
    pub clients: usize,
    /// Bytes of deliveries that are not fanned out.
    pub backlog_bytes: usize,
}

/// Fans deliveries out to clients.
pub struct Hub {
    config: HubConfig,
    queue: Mutex<Queue>,
    queued: Notify,
    state: Mutex<Index>,
    position: ArcSwap<Position>,
    announced: Mutex<Announced>,
    away: Mutex<Away>,
    heard: Heard,
    now: NowFn,
}

/// Is told each delivery in its turn, before the clients.
pub type Heard = Box<dyn Fn(&Delivery) + Send + Sync>;

/// Deliveries that are fanned out under one lock.
const TURN_DELIVERIES: usize = 64;
/// Rows that are announced at once, to each client all of them or none: they fit any message.
const ANNOUNCED_ROWS: usize = 128;

/// What a turn of the hub came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turned {
    /// Deliveries fanned out or passed.
    pub deliveries: usize,
    /// Clients that left the hub because they do not keep up.
    pub left: usize,
    /// The hub was too far behind: all clients left it.
    pub overrun: bool,
}

impl Hub {
    /// A hub at a Position, which announces from now on.
    #[must_use]
    pub fn new(config: HubConfig, position: Position, heard: Heard, now: NowFn) -> Self {
        let hub = Self {
            config,
            queue: Mutex::default(),
            queued: Notify::new(),
            state: Mutex::default(),
            position: ArcSwap::from_pointee(position),
            announced: Mutex::new(Announced::new(config.announced_bytes_max, config.announced_ms)),
            away: Mutex::default(),
            heard,
            now,
        };
        hub.begin_announcing();
        hub
    }

    /// Takes gaps that the view has passed, then deliveries, and the Position of the view after
    /// them. Called in their order, in one step with the view's change.
    pub fn enqueue(&self, passed: &[GapRow], deliveries: &[Delivery], after: Position) {
        let after = Arc::new(after);
        let mut queue = self.queue.lock();
        let passed = passed.iter().copied().map(Followed::Passed);
        let mut all = passed.chain(deliveries.iter().cloned().map(Followed::Delivery)).peekable();
        while let Some(followed) = all.next() {
            queue.bytes += followed.bytes();
            // Between deliveries of one step the Position is the one before them.
            let is_last = all.peek().is_none();
            let after = if is_last { Arc::clone(&after) } else { self.before_of(&queue) };
            queue.items.push_back(Queued { followed, after });
        }
        drop(queue);
        self.queued.notify_one();
    }

    fn before_of(&self, queue: &Queue) -> Arc<Position> {
        queue.items.back().map_or_else(|| self.position.load_full(), |queued| Arc::clone(&queued.after))
    }

    /// Waits until a delivery may have come.
    pub async fn queued(&self) {
        self.queued.notified().await;
    }

    /// Fans out what waits. Others who want the hub get it in between.
    pub fn turn(&self) -> Turned {
        let mut all = Turned::default();
        loop {
            let turned = self.turn_in(&mut self.state.lock(), TURN_DELIVERIES);
            all.deliveries += turned.deliveries;
            all.left += turned.left;
            all.overrun |= turned.overrun;
            if turned.deliveries < TURN_DELIVERIES {
                return all;
            }
        }
    }

    fn turn_in(&self, state: &mut Index, most: usize) -> Turned {
        let mut turned = Turned::default();
        while turned.deliveries < most {
            let (next, bytes) = {
                let mut queue = self.queue.lock();
                let bytes = queue.bytes;
                let next = queue.items.pop_front();
                queue.bytes -= next.as_ref().map_or(0, |queued| queued.followed.bytes());
                (next, bytes)
            };
            let Some(Queued { followed, after }) = next else { return turned };
            let before = self.place();
            if bytes > self.config.backlog_bytes_max {
                turned.overrun = true;
                turned.left += state.all_leave(&before);
            }
            match followed {
                Followed::Delivery(delivery) => {
                    (self.heard)(&delivery);
                    state.received = state.received.max(delivery.frame.received);
                    let frame = Some((delivery.frame.tape, delivery.frame.seq));
                    turned.left += self.publish(state, delivery.live_rows(), frame, &before);
                }
                Followed::Passed(frames) => tell_lost(state, &frames, &before),
            }
            turned.deliveries += 1;
            self.position.store(after);
        }
        turned
    }

    /// Fans out ticks that are on no tape, such as bars that close, and keeps them. Answers the
    /// clients that left.
    pub fn announce(&self, rows: &[Row]) -> usize {
        let mut state = self.state.lock();
        let (now, mut left) = ((self.now)().wall, 0);
        for rows in rows.chunks(ANNOUNCED_ROWS) {
            let before = self.place();
            left += self.publish(&mut state, rows.iter(), None, &before);
            // After that: who reads here that they were announced has them in its outbox.
            self.announced.lock().push(rows, now);
        }
        left
    }

    /// From now on everything is announced; before, something may not have been.
    pub fn begin_announcing(&self) {
        let _state = self.state.lock();
        self.announced.lock().begin((self.now)().wall);
    }

    /// What was announced after a place.
    pub(super) fn announced_after(&self, told: Nanos) -> After {
        self.announced.lock().after(told)
    }

    /// How many rows were announced after a place, where all of them are kept.
    pub(super) fn rows_after(&self, told: Nanos) -> Option<usize> {
        self.announced.lock().rows_after(told)
    }

    /// A place among what was announced as a cursor tells it.
    pub(super) fn told_at(&self, told: Nanos, now: Nanos) -> Option<Nanos> {
        self.announced.lock().told(told, now)
    }

    fn publish<'r>(
        &self,
        state: &mut Index,
        rows: impl Iterator<Item = &'r Row>,
        frame: Option<(TapeId, u64)>,
        before: &Place,
    ) -> usize {
        if state.counts.iter().all(|count| *count == 0) {
            return 0;
        }
        state.turns += 1;
        let outbox_bytes_max = self.config.outbox_bytes_max;
        let at = Offered { number: state.turns, before, frame, outbox_bytes_max };
        let mut by_channel: [Vec<&Row>; Channel::ALL.len()] = Default::default();
        for row in rows {
            let channel = Channel::of(&row.tick).index();
            if state.counts.get(channel).is_some_and(|count| *count > 0)
                && let Some(rows) = by_channel.get_mut(channel)
            {
                rows.push(row);
            }
        }
        let mut leaving = Vec::new();
        for (channel, rows) in Channel::ALL.into_iter().zip(&by_channel).filter(|(_, rows)| !rows.is_empty())
        {
            state.publish_channel(channel, rows, &at, &mut leaving);
        }
        leaving.sort_unstable();
        leaving.dedup();
        for id in &leaving {
            state.leave(*id);
        }
        leaving.len()
    }

    /// Everything up to here is in the outboxes.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { position: self.position.load_full(), told: self.announced.lock().last() }
    }

    /// A new client. One of the same key and session is asked to end. `None` where the node is
    /// stopping.
    pub fn register(
        &self,
        form: Form,
        key_id: &str,
        session: Option<&str>,
        attached: Option<Attached>,
    ) -> Option<Arc<Subscriber>> {
        self.state.lock().register(form, key_id, session, attached)
    }

    /// A client says which session it is of: the one before is asked to end.
    pub(super) fn take_over(&self, subscriber: &Subscriber, session: &str) {
        self.state.lock().take_over(subscriber, session);
    }

    /// Forgets a client.
    pub fn unregister(&self, subscriber: &Subscriber) {
        self.state.lock().unregister(subscriber);
    }

    /// Whether anybody hears a symbol's bars of this period, or may come back for them.
    #[must_use]
    pub fn is_wanted(&self, symbol: Symbol, period: Period) -> bool {
        let channels: &[Channel] = match period {
            Period::Minute => &[Channel::Bars, Channel::UpdatedBars],
            Period::Day => &[Channel::DailyBars],
        };
        let state = self.state.lock();
        if channels.iter().any(|channel| state.is_wanted(*channel, symbol)) {
            return true;
        }
        drop(state);
        let (away, now) = (self.away.lock(), (self.now)().wall);
        channels.iter().any(|channel| away.is_wanted(*channel, symbol, now))
    }

    /// A client that asked for this has gone, or reads on; it is given the bars of it that close
    /// meanwhile when it comes back.
    pub(super) fn expect(&self, interest: &Interest) {
        if self.config.announced_bytes_max > 0 && interest.has_bars() {
            let kept_ms = i64::try_from(self.config.announced_ms).unwrap_or(i64::MAX);
            let now = (self.now)().wall;
            let until = Nanos(now.0.saturating_add(kept_ms.saturating_mul(1_000_000)));
            self.away.lock().add(interest, now, until);
        }
    }

    /// Whether a session of a key is open.
    #[must_use]
    pub fn has_session(&self, key_id: &str, session: &str) -> bool {
        self.state.lock().sessions.contains_key(&(key_id.to_owned(), session.to_owned()))
    }

    /// How many clients a key has.
    #[must_use]
    pub fn clients_of(&self, key_id: &str) -> usize {
        self.state.lock().entries.values().filter(|entry| entry.subscriber.key_id() == key_id).count()
    }

    /// From now on the client gets what it asks for, and right before that its acknowledgement.
    /// An error: it has left the hub meanwhile; it is to be given this from the place told.
    pub(super) fn join(
        &self,
        subscriber: &Arc<Subscriber>,
        interest: &Interest,
        ack: Option<Bytes>,
    ) -> Result<(), Place> {
        let mut state = self.state.lock();
        if let Some(ack) = ack {
            subscriber.tell(ack);
        }
        if subscriber.is_behind() {
            return Err(self.place());
        }
        state.join(subscriber, interest);
        Ok(())
    }

    /// Once everything that waits is fanned out, in one step with the view: `last_part` holds the
    /// view still, calls what it is given to fan out the rest, and gives the client what it lacks
    /// until then; where it says `true` the client joins.
    pub(super) fn join_after(
        &self,
        subscriber: &Arc<Subscriber>,
        interest: &Interest,
        last_part: impl FnOnce(&mut dyn FnMut()) -> bool,
    ) -> bool {
        let mut state = self.state.lock();
        self.turn_in(&mut state, usize::MAX);
        let joins = last_part(&mut || {
            self.turn_in(&mut state, usize::MAX);
        });
        // It may have left the hub with what it had joined before: first that.
        let joins = joins && !subscriber.is_behind();
        if joins {
            state.join(subscriber, interest);
        }
        joins
    }

    /// The client no longer gets this; its acknowledgement follows what waits.
    pub(super) fn part(&self, subscriber: &Subscriber, interest: &Interest, ack: Option<Bytes>) {
        let mut state = self.state.lock();
        state.part(subscriber.id(), interest);
        if let Some(ack) = ack {
            subscriber.tell(ack);
        }
    }

    /// The client leaves; the place up to which it has all that it had joined.
    pub(super) fn leave(&self, subscriber: &Subscriber) -> Place {
        let mut state = self.state.lock();
        state.leave(subscriber.id());
        self.place()
    }

    /// Asks the clients of keys that are no longer good to end.
    pub fn end_revoked(&self, is_live: impl Fn(&str) -> bool) {
        for entry in self.state.lock().entries.values() {
            if !is_live(entry.subscriber.key_id()) {
                entry.subscriber.ask_to_end(End::Revoked);
            }
        }
    }

    /// The states of subscriptions that clients were opened with, each once.
    #[must_use]
    pub fn attached(&self) -> BTreeSet<Attached> {
        let state = self.state.lock();
        state.entries.values().filter_map(|entry| entry.subscriber.attached().cloned()).collect()
    }

    /// Asks the clients of a subscription to end that were opened when it delivered something else than
    /// it does; all of them, where there is none any more.
    pub fn end_attached(&self, account: &str, id: &str, delivers: Option<[u8; 16]>) {
        let is_other = |attached: &Attached| {
            attached.account == account && attached.id == id && Some(attached.delivers) != delivers
        };
        let end = if delivers.is_some() { End::Changed } else { End::Deleted };
        for entry in self.state.lock().entries.values() {
            if entry.subscriber.attached().is_some_and(is_other) {
                entry.subscriber.ask_to_end(end);
            }
        }
    }

    /// Takes no more clients.
    pub fn stop(&self) {
        self.state.lock().ending = true;
    }

    /// Asks a share of the clients to end, one in so many; each is told to come back at its own
    /// time.
    pub fn end_some(&self, one_in: u32, mut retry_ms: impl FnMut() -> u64) {
        let state = self.state.lock();
        let waiting: Vec<&Entry> =
            state.entries.values().filter(|entry| entry.subscriber.end().is_none()).collect();
        let share = waiting.len().div_ceil(usize::try_from(one_in.max(1)).unwrap_or(usize::MAX));
        for entry in waiting.into_iter().take(share) {
            entry.subscriber.ask_to_end(End::Move { retry_ms: retry_ms() });
        }
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> HubStatus {
        let clients = self.state.lock().entries.len();
        HubStatus { clients, backlog_bytes: self.queue.lock().bytes }
    }
}

/// Tells all clients that frames are lost, whether they have joined or read on: nobody knows what
/// was in them. What has expired is no stream's any more: no stream reaches as far back. The span is that of the gap; where the tape was not heard of before it begins with
/// what was fanned out last.
fn tell_lost(state: &Index, frames: &GapRow, before: &Place) {
    if frames.reason == tape::GapReason::Expired {
        return;
    }
    let from = if frames.from == Nanos::default() { state.received.min(frames.to) } else { frames.from };
    let gap = Gap { from, to: frames.to, reason: GapReason::Lost };
    for entry in state.entries.values() {
        entry.subscriber.lose(frames, &gap, &before.position);
    }
}
