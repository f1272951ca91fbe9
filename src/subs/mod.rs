//! Subscriptions: what an account wants to get, kept as a durable row, and what it makes of ticks.
//!
//! A [`Subscription`] names symbols, channels (as the stream calls them), a [`FilterSpec`] and how
//! quotes are conflated. [`Subs`] keeps them in the records under their account, so that whoever
//! asks for another account's finds nothing. [`Filter`] is the pure part that decides tick by tick.
//! [`Plan`] is what an account's active subscriptions want together, each symbol once.
//!
//! - **Ids.** With an `Idempotency-Key` the id is a hash of account and key: the same request on any
//!   node, before and after a restart, makes the same row. Without one it is random.
//! - **Changes.** Rows are only ever put, at a version above the one seen; who changes a row names
//!   the version it saw, and is told where another was faster. Two nodes that change a row within
//!   one read of it are not told apart: the later write wins. Streams of it end ([`run_attached`]), and
//!   their clients come back to what it says then.
//! - **Deletion** puts an empty row, which is forgotten after a day. Until then its key makes
//!   nothing new.
//!
//! Numbers: a row has some 250 B and 8 B a symbol; an account has at most `subs.per_account_max`
//! of them. The plans of `subs.accounts_cached_max` accounts are in memory, 24 B a symbol, at most
//! `subs.feed_symbols_max` symbols each, and are made anew after `subs.refresh_ms` and at each
//! change made here. A filter remembers 48 B a symbol.

mod attached;
mod book;
mod channels;
mod filter;
mod plan;
mod row;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use attached::{end_changed, run_attached};
pub use book::{Listed, Subs, SubsError};
pub use channels::Channels;
pub use filter::{Filter, FilterSpec, Move};
pub use plan::{Plan, TooMany};

use crate::live::{Attached, Channel, Interest, Personal};
use crate::market::{Nanos, Row, Symbol};

/// Which symbols a subscription is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symbols {
    /// All there are.
    All,
    /// These, ascending, each once.
    Listed(Vec<Symbol>),
}

impl Symbols {
    /// Whether a symbol is among them.
    #[must_use]
    pub fn contains(&self, symbol: Symbol) -> bool {
        match self {
            Self::All => true,
            Self::Listed(symbols) => symbols.binary_search(&symbol).is_ok(),
        }
    }
}

/// What a subscriber chooses, and may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A text for people.
    pub name: String,
    /// For which symbols.
    pub symbols: Symbols,
    /// Which channels of them.
    pub channels: Channels,
    /// Which ticks of those.
    pub filter: FilterSpec,
    /// Of the quotes of a symbol only the latest goes out in each such span; 0: all do.
    pub conflate_ms: u32,
    /// Nothing is delivered while it is paused.
    pub paused: bool,
}

impl Terms {
    /// Whether ticks of a channel of a symbol are asked for.
    #[must_use]
    pub fn want(&self, symbol: Symbol, channel: Channel) -> bool {
        self.channels.contains(channel) && self.symbols.contains(symbol)
    }

    /// What a stream of it asks the hub for. Corrections and cancels come with the trades.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let mut interest = Interest::default();
        for channel in self.channels.iter().filter(|_| !self.paused) {
            let channel = match channel {
                Channel::Corrections | Channel::CancelErrors => Channel::Trades,
                other => other,
            };
            match &self.symbols {
                Symbols::All => interest.insert_all(channel),
                Symbols::Listed(symbols) => {
                    symbols.iter().for_each(|symbol| interest.insert(channel, *symbol));
                }
            }
        }
        interest
    }

    /// What a stream of it does for it alone: its filter remembers so many symbols.
    #[must_use]
    pub fn personal(&self, filter_symbols_max: usize) -> Personal {
        let has = |channel| self.channels.contains(channel);
        let is_part = !has(Channel::Trades) && (has(Channel::Corrections) || has(Channel::CancelErrors));
        if self.filter.is_open() && !is_part {
            return Personal::new(self.conflate(), None);
        }
        let (channels, mut filter) = (self.channels, Filter::new(self.filter.clone(), filter_symbols_max));
        let picker = move |row: &Row| {
            (!is_part || channels.contains(Channel::of(&row.tick))) && filter.admits(&row.tick)
        };
        Personal::new(self.conflate(), Some(Box::new(picker)))
    }

    /// The span of which only the latest quote of a symbol goes out.
    #[must_use]
    pub fn conflate(&self) -> Option<Duration> {
        (self.conflate_ms > 0).then(|| Duration::from_millis(u64::from(self.conflate_ms)))
    }
}

/// A subscription as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub account: String,
    /// What is asked for.
    pub terms: Terms,
    /// When it was made.
    pub created: Nanos,
    /// When it was changed last.
    pub changed: Nanos,
    /// Higher at each change.
    pub version: u64,
    /// A digest of the terms it was made with, by which a repeated request is known.
    asked: [u8; 16],
}

impl Subscription {
    /// The state that a stream of it is opened with.
    #[must_use]
    pub fn attached(&self) -> Attached {
        Attached { account: self.account.clone(), id: self.id.clone(), delivers: row::delivers(&self.terms) }
    }
}
