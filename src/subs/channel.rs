//! Channels: the kinds of ticks by the names of the stream.

use std::fmt;

use crate::market::{Event, Kind, Tick};

/// A channel of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Trades.
    Trades,
    /// Quotes.
    Quotes,
    /// Minute bars as first published.
    Bars,
    /// Minute bars that late trades changed.
    UpdatedBars,
    /// Daily bars.
    DailyBars,
    /// Trading statuses.
    Statuses,
    /// Limit-up limit-down bands.
    Lulds,
    /// Corrections of trades.
    Corrections,
    /// Cancels of trades.
    CancelErrors,
}

impl Channel {
    /// All channels, in the order in which they are told.
    pub const ALL: [Self; 9] = [
        Self::Trades,
        Self::Quotes,
        Self::Bars,
        Self::UpdatedBars,
        Self::DailyBars,
        Self::Statuses,
        Self::Lulds,
        Self::Corrections,
        Self::CancelErrors,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trades => "trades",
            Self::Quotes => "quotes",
            Self::Bars => "bars",
            Self::UpdatedBars => "updatedBars",
            Self::DailyBars => "dailyBars",
            Self::Statuses => "statuses",
            Self::Lulds => "lulds",
            Self::Corrections => "corrections",
            Self::CancelErrors => "cancelErrors",
        }
    }

    /// The channel of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }

    /// The number of a channel, in the order of [`Self::ALL`]. It stands in page tokens.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The channel that a tick goes out on.
    #[must_use]
    pub const fn of(tick: &Tick) -> Self {
        match &tick.event {
            Event::Trade(_) => Self::Trades,
            Event::Quote(_) => Self::Quotes,
            Event::MinuteBar(bar) if bar.updated => Self::UpdatedBars,
            Event::MinuteBar(_) => Self::Bars,
            Event::DayBar(_) => Self::DailyBars,
            Event::Status(_) => Self::Statuses,
            Event::Luld(_) => Self::Lulds,
            Event::Correction(_) => Self::Corrections,
            Event::Cancel(_) => Self::CancelErrors,
        }
    }

    /// The kind of the series that its history is.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Trades => Kind::Trade,
            Self::Quotes => Kind::Quote,
            Self::Bars | Self::UpdatedBars => Kind::MinuteBar,
            Self::DailyBars => Kind::DayBar,
            Self::Statuses => Kind::Status,
            Self::Lulds => Kind::Luld,
            Self::Corrections => Kind::Correction,
            Self::CancelErrors => Kind::Cancel,
        }
    }

    const fn bit(self) -> u16 {
        1 << self.number()
    }
}

/// A set of channels.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Channels(u16);

impl Channels {
    /// None.
    pub const NONE: Self = Self(0);

    /// With one more.
    #[must_use]
    pub const fn with(self, channel: Channel) -> Self {
        Self(self.0 | channel.bit())
    }

    /// Those of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn contains(self, channel: Channel) -> bool {
        self.0 & channel.bit() != 0
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

    #[test]
    fn names_and_numbers_are_those_of_the_wire() {
        for (number, channel) in Channel::ALL.into_iter().enumerate() {
            assert_eq!(Channel::from_name(channel.name()), Some(channel));
            assert_eq!(usize::from(channel.number()), number);
        }
        assert_eq!(Channel::from_name("orderbooks"), None);
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
