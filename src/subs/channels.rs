//! Sets of channels.

use std::fmt;

use crate::live::Channel;

/// A set of channels.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Channels(u16);

impl Channels {
    /// None.
    pub const NONE: Self = Self(0);

    /// With one more.
    #[must_use]
    pub const fn with(self, channel: Channel) -> Self {
        Self(self.0 | bit(channel))
    }

    /// Those of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn contains(self, channel: Channel) -> bool {
        self.0 & bit(channel) != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The channels, in order.
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        Channel::ALL.into_iter().filter(move |channel| self.contains(*channel))
    }
}

const fn bit(channel: Channel) -> u16 {
    1 << channel.number()
}

impl FromIterator<Channel> for Channels {
    fn from_iter<I: IntoIterator<Item = Channel>>(channels: I) -> Self {
        channels.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::Kind;

    #[test]
    fn names_and_numbers_are_those_of_the_wire() {
        for (number, channel) in Channel::ALL.into_iter().enumerate() {
            assert_eq!(Channel::named(channel.name()), Some(channel));
            assert_eq!(usize::from(channel.number()), number);
        }
        assert_eq!(Channel::named("orderbooks"), None);
        for kind in Kind::ALL {
            assert!(Channel::ALL.iter().any(|channel| channel.kind() == kind), "{kind:?}");
        }
    }

    #[test]
    fn a_set_tells_its_channels_in_order() {
        let set: Channels = [Channel::Lulds, Channel::Trades, Channel::Lulds].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Channel::Trades, Channel::Lulds]);
        assert!(!set.contains(Channel::Quotes) && Channels::NONE.is_empty());
        assert_eq!(set.or(Channels::NONE.with(Channel::Quotes)).iter().count(), 3);
    }
}
