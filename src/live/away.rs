//! Which bars clients have asked for that are away: some of them may come back for these, so that
//! such bars count as wanted for a while (what nobody wants is not asked of history, and then not
//! announced).

use std::collections::HashMap;

use super::channel::Channel;
use super::interest::Interest;
use crate::market::{Nanos, Symbol};

/// Symbols that are remembered, some 50 B each. Beyond it all bars count as wanted.
const SYMBOLS_MAX: usize = 100_000;

/// Bars, and until when each counts as wanted.
#[derive(Debug, Default)]
pub(super) struct Away {
    symbols: HashMap<(Channel, Symbol), Nanos>,
    all: HashMap<Channel, Nanos>,
}

impl Away {
    /// A client is away that asked for this.
    pub(super) fn add(&mut self, interest: &Interest, now: Nanos, until: Nanos) {
        for channel in Channel::BARS {
            let asked = interest.of(channel);
            if self.all.get(&channel).is_some_and(|all| *all >= until) {
                continue;
            }
            let new = |symbol: &&Symbol| !self.symbols.contains_key(&(channel, **symbol));
            let new = asked.symbols.iter().filter(new).count();
            if self.symbols.len() + new > SYMBOLS_MAX {
                self.symbols.retain(|_, until| *until > now);
            }
            if asked.all || self.symbols.len() + new > SYMBOLS_MAX {
                self.all.insert(channel, until);
            } else {
                self.symbols.extend(asked.symbols.iter().map(|symbol| ((channel, *symbol), until)));
            }
        }
    }

    /// Whether one may come back for this.
    pub(super) fn is_wanted(&self, channel: Channel, symbol: Symbol, now: Nanos) -> bool {
        let until = [self.all.get(&channel), self.symbols.get(&(channel, symbol))];
        until.into_iter().flatten().any(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_wanted_for_a_while_and_with_too_many_all_is() {
        let symbol = |number: usize| Symbol::parse(format!("S{number}").as_bytes()).unwrap();
        let mut away = Away::default();
        let mut interest = Interest::default();
        interest.insert(Channel::Bars, symbol(1));
        interest.insert(Channel::Trades, symbol(2));
        away.add(&interest, Nanos(0), Nanos(10));
        let wanted = |away: &Away, number, now| away.is_wanted(Channel::Bars, symbol(number), Nanos(now));
        assert_eq!([wanted(&away, 1, 9), wanted(&away, 1, 10), wanted(&away, 2, 9)], [true, false, false]);
        for number in 0..SYMBOLS_MAX {
            interest.insert(Channel::Bars, symbol(number));
        }
        away.add(&interest, Nanos(20), Nanos(30));
        assert!(away.symbols.len() <= SYMBOLS_MAX && wanted(&away, 7, 29));
        interest.insert(Channel::Bars, symbol(SYMBOLS_MAX));
        away.add(&interest, Nanos(25), Nanos(35));
        assert!(wanted(&away, SYMBOLS_MAX + 1, 34) && !wanted(&away, SYMBOLS_MAX + 1, 35));
        assert!(!away.is_wanted(Channel::DailyBars, symbol(1), Nanos(25)));
    }
}
