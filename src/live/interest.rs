//! What a client asked for: symbols, or all of them, on each channel.

use std::collections::BTreeSet;

use super::channel::Channel;
use crate::market::{Symbol, Tick};

/// The name of all symbols.
pub const ALL_SYMBOLS: &str = "*";

/// The symbols of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// All symbols, also those that nobody has heard of yet.
    pub all: bool,
    /// Symbols by name; they stay when `all` is taken away.
    pub symbols: BTreeSet<Symbol>,
}

impl Selection {
    fn holds(&self, symbol: Symbol) -> bool {
        self.all || self.symbols.contains(&symbol)
    }
}

/// The symbols of each channel. Corrections and cancels are those of the trades, always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    channels: [Selection; Channel::ALL.len()],
}

impl Interest {
    /// One channel's symbols.
    #[must_use]
    pub fn of(&self, channel: Channel) -> &Selection {
        let index = match channel {
            Channel::Corrections | Channel::CancelErrors => Channel::Trades.index(),
            other => other.index(),
        };
        // The array has a place for each channel.
        self.channels.get(index).unwrap_or(&NOTHING)
    }

    fn of_mut(&mut self, channel: Channel) -> Option<&mut Selection> {
        match channel {
            Channel::Corrections | Channel::CancelErrors => None,
            other => self.channels.get_mut(other.index()),
        }
    }

    /// Asks for a symbol too.
    pub fn insert(&mut self, channel: Channel, symbol: Symbol) {
        if let Some(selection) = self.of_mut(channel) {
            selection.symbols.insert(symbol);
        }
    }

    /// Asks for all symbols too.
    pub fn insert_all(&mut self, channel: Channel) {
        if let Some(selection) = self.of_mut(channel) {
            selection.all = true;
        }
    }

    /// Asks for all of `other` too; answers what of it is new.
    pub fn add(&mut self, other: &Self) -> Self {
        let mut new = Self::default();
        for ((own, added), told) in self.channels.iter_mut().zip(&other.channels).zip(&mut new.channels) {
            told.all = added.all && !own.all;
            told.symbols = added.symbols.difference(&own.symbols).copied().collect();
            own.all |= added.all;
            own.symbols.extend(&told.symbols);
        }
        new
    }

    /// Asks no longer for what is in `other`; answers what of it was asked for.
    pub fn remove(&mut self, other: &Self) -> Self {
        let mut gone = Self::default();
        for ((own, removed), told) in self.channels.iter_mut().zip(&other.channels).zip(&mut gone.channels) {
            told.all = own.all && removed.all;
            own.all &= !removed.all;
            told.symbols =
                removed.symbols.iter().filter(|symbol| own.symbols.remove(symbol)).copied().collect();
        }
        gone
    }

    /// Whether a channel of a symbol is asked for.
    #[must_use]
    pub fn wants(&self, channel: Channel, symbol: Symbol) -> bool {
        self.of(channel).holds(symbol)
    }

    /// Whether a tick is asked for.
    #[must_use]
    pub fn wants_tick(&self, tick: &Tick) -> bool {
        self.wants(Channel::of(tick), tick.symbol)
    }

    /// Whether bars are asked for.
    #[must_use]
    pub fn has_bars(&self) -> bool {
        Channel::BARS.into_iter().any(|channel| self.of(channel).all || !self.of(channel).symbols.is_empty())
    }

    /// Symbols in all, of all channels that can be named; `*` counts as one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.channels.iter().map(|selection| selection.symbols.len() + usize::from(selection.all)).sum()
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The names of a channel, `*` first, then ascending.
    pub fn names(&self, channel: Channel) -> impl Iterator<Item = &str> {
        let selection = self.of(channel);
        let all = selection.all.then_some(ALL_SYMBOLS);
        all.into_iter().chain(selection.symbols.iter().map(Symbol::as_str))
    }
}

static NOTHING: Selection = Selection { all: false, symbols: BTreeSet::new() };

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(text: &str) -> Symbol {
        Symbol::parse(text.as_bytes()).unwrap()
    }

    fn interest(text: &str) -> Interest {
        let mut interest = Interest::default();
        for word in text.split_whitespace() {
            let (channel, name) = word.split_once(':').unwrap();
            let channel = Channel::named(channel).unwrap();
            match name {
                ALL_SYMBOLS => interest.insert_all(channel),
                name => interest.insert(channel, symbol(name)),
            }
        }
        interest
    }

    fn told(interest: &Interest) -> String {
        let words = Channel::ALL.into_iter().flat_map(|channel| {
            interest.names(channel).map(move |name| format!("{}:{name}", channel.name()))
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn subscribing_adds_and_unsubscribing_subtracts() {
        let mut held = interest("trades:B trades:A quotes:*");
        assert_eq!(
            told(&held),
            "trades:A trades:B quotes:* corrections:A corrections:B cancelErrors:A cancelErrors:B"
        );
        let new = held.add(&interest("trades:A trades:* quotes:A bars:C"));
        assert_eq!(told(&new), "trades:* quotes:A bars:C corrections:* cancelErrors:*");
        assert!(held.wants(Channel::Corrections, symbol("ZZZ")) && held.wants(Channel::Quotes, symbol("Q")));
        held.remove(&interest("trades:* trades:B quotes:* bars:D"));
        assert_eq!(told(&held), "trades:A quotes:A bars:C corrections:A cancelErrors:A");
        assert!(!held.wants(Channel::Trades, symbol("B")) && !held.wants(Channel::UpdatedBars, symbol("C")));
        assert_eq!(held.count(), 3);
    }

    #[test]
    fn what_comes_with_the_trades_cannot_be_asked_for() {
        let held = interest("corrections:A cancelErrors:*");
        assert!(held.is_empty() && !held.wants(Channel::Corrections, symbol("A")));
    }
}
