//! Who gets what: clients by channel and symbol.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;

use super::ask::Attached;
use super::channel::Channel;
use super::encode::{Encoded, Form, Piece};
use super::interest::Interest;
use super::place::Place;
use super::subscriber::{End, Offered, Subscriber};
use crate::market::{Nanos, Row, Symbol};

pub(super) struct Entry {
    pub(super) subscriber: Arc<Subscriber>,
    /// What is in the index.
    joined: Interest,
    pub(super) session: Option<(String, String)>,
}

type Clients = IndexMap<u64, Arc<Subscriber>>;

/// The clients of a hub.
#[derive(Default)]
pub(super) struct Index {
    pub(super) entries: HashMap<u64, Entry>,
    pub(super) sessions: HashMap<(String, String), u64>,
    by_symbol: HashMap<(Channel, Symbol), Clients>,
    by_channel: [Clients; Channel::ALL.len()],
    /// Clients and symbols in the index, a channel.
    pub(super) counts: [usize; Channel::ALL.len()],
    pub(super) ids: u64,
    pub(super) turns: u64,
    /// When the newest tick that was fanned out was received.
    pub(super) received: Nanos,
    pub(super) ending: bool,
}

impl Index {
    pub(super) fn register(
        &mut self,
        form: Form,
        key_id: &str,
        session: Option<&str>,
        attached: Option<Attached>,
    ) -> Option<Arc<Subscriber>> {
        if self.ending {
            return None;
        }
        self.ids += 1;
        let subscriber = Arc::new(Subscriber::new(self.ids, form, key_id, attached));
        let entry = Entry { subscriber: Arc::clone(&subscriber), joined: Interest::default(), session: None };
        self.entries.insert(subscriber.id(), entry);
        if let Some(session) = session {
            self.take_over(&subscriber, session);
        }
        Some(subscriber)
    }

    /// The client is the one of a session of its key; the one before is asked to end.
    pub(super) fn take_over(&mut self, subscriber: &Subscriber, session: &str) {
        let session = (subscriber.key_id().to_owned(), session.to_owned());
        let before = self.sessions.insert(session.clone(), subscriber.id());
        if let Some(entry) = before.filter(|id| *id != subscriber.id()).and_then(|id| self.entries.get(&id)) {
            entry.subscriber.ask_to_end(End::TakenOver);
        }
        let Some(entry) = self.entries.get_mut(&subscriber.id()) else { return };
        if let Some(own) = entry.session.replace(session.clone()).filter(|own| *own != session)
            && self.sessions.get(&own) == Some(&subscriber.id())
        {
            self.sessions.remove(&own);
        }
    }

    pub(super) fn unregister(&mut self, subscriber: &Subscriber) {
        self.leave(subscriber.id());
        let Some(entry) = self.entries.remove(&subscriber.id()) else { return };
        if let Some(session) = entry.session
            && self.sessions.get(&session) == Some(&subscriber.id())
        {
            self.sessions.remove(&session);
        }
    }

    /// Whether anybody hears a symbol on a channel.
    pub(super) fn is_wanted(&self, channel: Channel, symbol: Symbol) -> bool {
        self.by_channel.get(channel.index()).is_some_and(|all| !all.is_empty())
            || self.by_symbol.contains_key(&(channel, symbol))
    }

    pub(super) fn publish_channel(
        &mut self,
        channel: Channel,
        rows: &[&Row],
        at: &Offered<'_>,
        leaving: &mut Vec<u64>,
    ) {
        let mut of_all: [Option<Encoded>; Form::COUNT] = Default::default();
        let mut all_pieces: [Option<Vec<Arc<Piece>>>; Form::COUNT] = Default::default();
        for (id, client) in self.by_channel.get(channel.index()).into_iter().flatten() {
            let index = client.form().index();
            let stays = if client.is_personal() {
                client.offer_rows(rows.iter().copied(), at)
            } else {
                let (Some(encoded), Some(pieces)) = (of_all.get_mut(index), all_pieces.get_mut(index)) else {
                    continue;
                };
                let encoded =
                    encoded.get_or_insert_with(|| Encoded::new(rows.iter().copied(), client.form()));
                let pieces = pieces.get_or_insert_with(|| encoded.all(at.before));
                client.offer(pieces, at)
            };
            if !stays {
                leaving.push(*id);
            }
        }
        let mut start = 0;
        for group in rows.chunk_by(|a, b| a.tick.symbol == b.tick.symbol) {
            let range = start..start + group.len();
            start = range.end;
            let Some(clients) = group.first().and_then(|row| self.by_symbol.get(&(channel, row.tick.symbol)))
            else {
                continue;
            };
            let mut pieces: [Option<Vec<Arc<Piece>>>; Form::COUNT] = Default::default();
            for (id, client) in clients {
                let index = client.form().index();
                let stays = if client.is_personal() {
                    client.offer_rows(group.iter().copied(), at)
                } else {
                    let Some(pieces) = pieces.get_mut(index) else { continue };
                    let made = pieces.get_or_insert_with(|| match of_all.get(index) {
                        Some(Some(encoded)) => encoded.pieces(range.clone(), at.before),
                        _ => Encoded::new(group.iter().copied(), client.form()).all(at.before),
                    });
                    client.offer(made, at)
                };
                if !stays {
                    leaving.push(*id);
                }
            }
        }
    }

    /// A client that has all symbols of a channel is found by the channel and not also by symbol.
    pub(super) fn join(&mut self, subscriber: &Arc<Subscriber>, interest: &Interest) {
        let Some(mut entry) = self.entries.remove(&subscriber.id()) else { return };
        let new = entry.joined.add(interest);
        for (channel, place) in Channel::ALL.into_iter().zip(0..) {
            let (is, added) = (entry.joined.of(channel), new.of(channel));
            let (Some(all), Some(count)) = (self.by_channel.get_mut(place), self.counts.get_mut(place))
            else {
                continue;
            };
            *count += added.symbols.len() + usize::from(added.all);
            if added.all {
                all.insert(subscriber.id(), Arc::clone(subscriber));
                self.unlist(subscriber.id(), channel, &is.symbols);
            } else if !is.all {
                self.list(subscriber, channel, &added.symbols);
            }
        }
        self.entries.insert(subscriber.id(), entry);
    }

    pub(super) fn part(&mut self, id: u64, interest: &Interest) {
        let Some(mut entry) = self.entries.remove(&id) else { return };
        let removed = entry.joined.remove(interest);
        for (channel, place) in Channel::ALL.into_iter().zip(0..) {
            let (is, gone) = (entry.joined.of(channel), removed.of(channel));
            let (Some(all), Some(count)) = (self.by_channel.get_mut(place), self.counts.get_mut(place))
            else {
                continue;
            };
            *count -= gone.symbols.len() + usize::from(gone.all);
            if gone.all {
                all.swap_remove(&id);
                self.list(&entry.subscriber, channel, &is.symbols);
            } else if !is.all {
                self.unlist(id, channel, &gone.symbols);
            }
        }
        self.entries.insert(id, entry);
    }

    fn list(&mut self, subscriber: &Arc<Subscriber>, channel: Channel, symbols: &BTreeSet<Symbol>) {
        for symbol in symbols {
            let clients = self.by_symbol.entry((channel, *symbol)).or_default();
            clients.insert(subscriber.id(), Arc::clone(subscriber));
        }
    }

    fn unlist(&mut self, id: u64, channel: Channel, symbols: &BTreeSet<Symbol>) {
        for symbol in symbols {
            let of_symbol = (channel, *symbol);
            if let Some(clients) = self.by_symbol.get_mut(&of_symbol) {
                clients.swap_remove(&id);
                if clients.is_empty() {
                    self.by_symbol.remove(&of_symbol);
                }
            }
        }
    }

    pub(super) fn leave(&mut self, id: u64) {
        let joined = self.entries.get(&id).map(|entry| entry.joined.clone()).unwrap_or_default();
        self.part(id, &joined);
    }

    /// All clients leave the hub at this Position.
    pub(super) fn all_leave(&mut self, before: &Place) -> usize {
        let joined = |entry: &&Entry| !entry.joined.is_empty();
        let leaving: Vec<Arc<Subscriber>> =
            self.entries.values().filter(joined).map(|entry| Arc::clone(&entry.subscriber)).collect();
        for subscriber in &leaving {
            subscriber.leave_at(before);
            self.leave(subscriber.id());
        }
        leaving.len()
    }
}
