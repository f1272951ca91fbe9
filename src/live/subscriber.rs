//! One client of a hub: its outbox, and what is done for it alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::ask::Attached;
use super::bell::Bell;
use super::channel::Channel;
use super::encode::{Codec, Encoded, Form, Piece};
use super::gap::Gap;
use super::interest::Interest;
use super::outbox::{Outbox, Taken};
use super::place::Place;
use crate::market::{Nanos, Row, Symbol};
use crate::store::TapeId;
use crate::tape::tasks::SharedView;
use crate::tape::{Covered, GapRow, Position, Progress};

/// Why the node ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node is stopping; the client connects again, not all at once: in so many milliseconds.
    Move {
        /// When to come back.
        retry_ms: u64,
    },
    /// Its key was revoked or has ended.
    Revoked,
    /// Another connection has taken over its session.
    TakenOver,
    /// The subscription that it was opened with was changed; the client connects again.
    Changed,
    /// The same was deleted.
    Deleted,
}

/// Picks ticks for one client.
pub type Picker = Box<dyn FnMut(&Row) -> bool + Send>;

/// What is done for one client alone; most have nothing of it and share all their bytes.
#[derive(Default)]
pub struct Personal {
    /// Of each symbol the latest quote alone, so often.
    conflate: Option<Duration>,
    /// Which ticks pass.
    picker: Option<Picker>,
    /// What the client's cursor covers and this node does not yet.
    pub(super) ahead: Covered,
    quotes: BTreeMap<Symbol, Row>,
    /// The Position before the oldest of these quotes.
    quotes_before: Option<Arc<Position>>,
    flush_at: Option<Instant>,
}

impl Personal {
    /// These wishes.
    #[must_use]
    pub fn new(conflate: Option<Duration>, picker: Option<Picker>) -> Self {
        Self { conflate, picker, ..Self::default() }
    }

    fn is_none(&self) -> bool {
        self.conflate.is_none() && self.picker.is_none() && self.ahead.is_empty()
    }
}

#[derive(Default)]
struct Inbox {
    outbox: Outbox,
    /// The client has left the hub: everything before this place is in its outbox.
    behind: Option<Place>,
    end: Option<End>,
    personal: Personal,
    /// The last delivery that was offered.
    turn: u64,
}

/// One client of a hub.
pub struct Subscriber {
    id: u64,
    codec: Codec,
    /// [`Form::origins`], which it may ask for later.
    origins: AtomicBool,
    key_id: String,
    attached: Option<Box<Attached>>,
    inbox: Mutex<Inbox>,
    wake: Bell,
    is_personal: AtomicBool,
}

impl Subscriber {
    pub(super) fn new(id: u64, form: Form, key_id: &str, attached: Option<Attached>) -> Self {
        Self {
            id,
            codec: form.codec,
            origins: AtomicBool::new(form.origins),
            key_id: key_id.to_owned(),
            attached: attached.map(Box::new),
            inbox: Mutex::default(),
            wake: Bell::default(),
            is_personal: AtomicBool::new(false),
        }
    }

    /// Its number in the hub.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Whether ticks are picked for it alone.
    pub(super) fn is_personal(&self) -> bool {
        self.is_personal.load(Ordering::Relaxed)
    }

    /// It leaves the hub at a place.
    pub(super) fn leave_at(&self, before: &Place) {
        let mut inbox = self.inbox.lock();
        if inbox.behind.is_none() {
            inbox.leave_at(before);
        }
        drop(inbox);
        self.wake.ring();
    }

    /// What it takes.
    #[must_use]
    pub fn form(&self) -> Form {
        Form { codec: self.codec, origins: self.origins.load(Ordering::Relaxed) }
    }

    /// From now on each tick says also when it was received, and its tick id.
    pub fn take_origins(&self) {
        self.origins.store(true, Ordering::Relaxed);
    }

    /// From now on it is given the latest quote of each symbol alone, so often.
    pub fn conflate(&self, every: Duration) {
        self.personalize(|personal| personal.conflate = Some(every));
    }

    /// The key by which it was admitted.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The subscription that it was opened with, where it was.
    pub(super) fn attached(&self) -> Option<&Attached> {
        self.attached.as_deref()
    }

    /// Queues a message of its own.
    pub fn tell(&self, payload: Bytes) {
        self.inbox.lock().outbox.push_control(payload);
        self.wake.ring();
    }

    /// Queues what is lost to it, which is these frames; not where its cursor covered them already.
    pub(super) fn lose(&self, frames: &GapRow, gap: &Gap, before: &Arc<Position>) {
        let mut inbox = self.inbox.lock();
        let covers = |own: &Progress| {
            frames.last < own.next && own.voids.range(frames.first..=frames.last).next().is_none()
        };
        if !inbox.personal.ahead.get(&frames.tape).is_some_and(covers) {
            inbox.outbox.push_gap(gap.clone(), before);
        }
        drop(inbox);
        self.wake.ring();
    }

    /// What is lost to it, where that is what comes next.
    pub(super) fn take_gap(&self) -> Option<Gap> {
        self.inbox.lock().outbox.take_gap()
    }

    /// Queues ticks of its replay.
    pub(super) fn give(&self, pieces: Vec<Arc<Piece>>) {
        let mut inbox = self.inbox.lock();
        for piece in pieces {
            inbox.outbox.push(piece);
        }
    }

    /// Takes what is to be sent next.
    pub(super) fn take(&self, bytes_max: usize) -> Option<Taken> {
        let mut inbox = self.inbox.lock();
        inbox.flush_quotes(self.form(), Instant::now());
        inbox.outbox.take(bytes_max)
    }

    /// When quotes that are held back are due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.inbox.lock().personal.flush_at
    }

    /// Waits until there may be something to do.
    pub(super) async fn woken(&self) {
        self.wake.heard().await;
    }

    /// Whether the node wants it to end.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.inbox.lock().end
    }

    /// Where it left the hub, once it has; it is told once.
    pub(super) fn take_behind(&self) -> Option<Place> {
        self.inbox.lock().behind.take()
    }

    /// The cursors of who has had everything but what waits: a tick, a quote that is held back,
    /// and what comes after it has left the hub. And until when the bars that it has had were
    /// announced, of each bar that waits and of where it has left.
    pub(super) fn before(&self) -> (Vec<Arc<Position>>, Vec<Nanos>) {
        let inbox = self.inbox.lock();
        let held = inbox.personal.quotes_before.clone();
        let behind = inbox.behind.as_ref();
        let left_at = behind.map(|place| Arc::clone(&place.position));
        let told = behind.map(|place| place.told);
        (
            [inbox.outbox.before(), left_at, held].into_iter().flatten().collect(),
            [inbox.outbox.told(), told].into_iter().flatten().collect(),
        )
    }

    /// Whether it has left the hub and has not begun to read on.
    pub(super) fn is_behind(&self) -> bool {
        self.inbox.lock().behind.is_some()
    }

    /// A cursor joined with what the client's own was ahead by.
    pub(super) fn with_ahead(&self, view: &SharedView, position: &Arc<Position>) -> Position {
        let mut joined = (**position).clone();
        // Not under one lock with the view: whoever reads the view may wait for the inbox.
        let ahead = self.inbox.lock().personal.ahead.clone();
        if ahead.is_empty() {
            return joined;
        }
        let mut passed = Vec::new();
        view.read(|view| {
            for (tape, own) in ahead {
                let known = view.follower().progress(position, tape);
                if known.covers_all(&own) {
                    passed.push((tape, own));
                } else {
                    joined.tapes.insert(tape, known.join(&own));
                }
            }
        });
        self.personalize(|personal| {
            for (tape, own) in passed {
                if personal.ahead.get(&tape) == Some(&own) {
                    personal.ahead.remove(&tape);
                }
            }
        });
        joined
    }

    /// What its cursor covers and the node does not yet is not given to it.
    pub(super) fn is_ahead(&self, ahead: &Covered) {
        self.personalize(|personal| {
            for (tape, own) in ahead {
                let joined = personal.ahead.get(tape).map_or_else(|| own.clone(), |known| known.join(own));
                personal.ahead.insert(*tape, joined);
            }
        });
    }

    /// Those ticks of a replay that are picked for this client.
    pub(super) fn picked<'r>(&self, rows: impl Iterator<Item = &'r Row>) -> Vec<&'r Row> {
        let mut inbox = self.inbox.lock();
        match &mut inbox.personal.picker {
            Some(picker) => rows.filter(|row| picker(row)).collect(),
            None => rows.collect(),
        }
    }

    /// Quotes that are held back and no longer asked for are dropped.
    pub(super) fn keep_quotes(&self, asked: &Interest) {
        self.inbox.lock().personal.keep_quotes(asked);
    }

    /// Drops what waits.
    pub(super) fn clear(&self) {
        let mut inbox = self.inbox.lock();
        inbox.behind = None;
        inbox.outbox.clear();
    }

    /// Bytes of its own messages that wait: acknowledgements that it does not read.
    #[must_use]
    pub fn control_bytes(&self) -> usize {
        self.inbox.lock().outbox.control_bytes()
    }

    /// Changes what is done for it alone.
    pub(super) fn personalize(&self, change: impl FnOnce(&mut Personal)) {
        let mut inbox = self.inbox.lock();
        change(&mut inbox.personal);
        self.is_personal.store(!inbox.personal.is_none(), Ordering::Relaxed);
    }

    /// Asks it to end.
    pub(super) fn ask_to_end(&self, end: End) {
        self.inbox.lock().end.get_or_insert(end);
        self.wake.ring();
    }

    /// Queues pieces of a delivery; `false` where it has left the hub at this one.
    pub(super) fn offer(&self, pieces: &[Arc<Piece>], at: &Offered<'_>) -> bool {
        let mut inbox = self.inbox.lock();
        if !inbox.admits(at) {
            let stays = inbox.behind.is_none();
            drop(inbox);
            self.wake.ring();
            return stays;
        }
        for piece in pieces {
            inbox.outbox.push(Arc::clone(piece));
        }
        drop(inbox);
        self.wake.ring();
        true
    }

    /// The same for one for whom ticks are picked.
    pub(super) fn offer_rows<'r>(&self, rows: impl Iterator<Item = &'r Row>, at: &Offered<'_>) -> bool {
        let mut inbox = self.inbox.lock();
        if !inbox.admits(at) {
            let stays = inbox.behind.is_none();
            drop(inbox);
            self.wake.ring();
            return stays;
        }
        let rows: Vec<&Row> = rows.filter(|row| inbox.personal.pick(row, at)).collect();
        if !rows.is_empty() {
            // No cursor passes a quote that is held back.
            let before = inbox.personal.before(at.before);
            for piece in Encoded::new(rows, self.form()).all(&before) {
                inbox.outbox.push(piece);
            }
        }
        drop(inbox);
        self.wake.ring();
        true
    }
}

/// A delivery on its way to the clients.
pub(super) struct Offered<'a> {
    pub(super) number: u64,
    pub(super) before: &'a Place,
    pub(super) frame: Option<(TapeId, u64)>,
    pub(super) outbox_bytes_max: usize,
}

impl Inbox {
    /// Whether this delivery is for the client: all of it, or nothing of it and of what follows.
    fn admits(&mut self, at: &Offered<'_>) -> bool {
        if self.behind.is_some() {
            return false;
        }
        if self.turn != at.number {
            self.turn = at.number;
            if self.outbox.bytes() > at.outbox_bytes_max {
                self.leave_at(at.before);
                return false;
            }
        }
        let covered = |(tape, seq)| self.personal.ahead.get(&tape).is_some_and(|own| own.covers(seq));
        !at.frame.is_some_and(covered)
    }

    /// Leaves the hub at a place; quotes that are held back are read again with the rest.
    fn leave_at(&mut self, before: &Place) {
        self.behind = Some(self.personal.before(before));
        self.personal.keep_quotes(&Interest::default());
    }

    /// Queues the quotes that were held back, where they are due.
    fn flush_quotes(&mut self, form: Form, now: Instant) {
        if self.personal.flush_at.is_none_or(|at| at > now) {
            return;
        }
        self.personal.flush_at = None;
        let quotes = std::mem::take(&mut self.personal.quotes);
        if let Some(position) = self.personal.quotes_before.take() {
            let before = Place { position, ..Place::default() };
            for piece in Encoded::new(quotes.values(), form).all(&before) {
                self.outbox.push(piece);
            }
        }
    }
}

impl Personal {
    /// The place before what comes now: not past a quote that is held back.
    fn before(&self, place: &Place) -> Place {
        let position = self.quotes_before.as_ref().unwrap_or(&place.position);
        Place { position: Arc::clone(position), told: place.told }
    }

    fn keep_quotes(&mut self, asked: &Interest) {
        self.quotes.retain(|symbol, _| asked.wants(Channel::Quotes, *symbol));
        if self.quotes.is_empty() {
            (self.quotes_before, self.flush_at) = (None, None);
        }
    }

    /// Whether a tick goes out now. A quote that is held back does later.
    fn pick(&mut self, row: &Row, at: &Offered<'_>) -> bool {
        if self.picker.as_mut().is_some_and(|picker| !picker(row)) {
            return false;
        }
        let Some(every) = self.conflate.filter(|_| Channel::of(&row.tick) == Channel::Quotes) else {
            return true;
        };
        self.quotes.insert(row.tick.symbol, row.clone());
        self.quotes_before.get_or_insert_with(|| Arc::clone(&at.before.position));
        self.flush_at.get_or_insert_with(|| Instant::now() + every);
        false
    }
}
