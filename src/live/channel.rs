//! Channels, by the names of Alpaca's stream.

use crate::market::{Event, Kind, Tick};

/// What a client can ask for of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Trades.
    Trades,
    /// Quotes.
    Quotes,
    /// Minute bars as they close.
    Bars,
    /// Minute bars that late trades have changed.
    UpdatedBars,
    /// The running bar of the day.
    DailyBars,
    /// Trading statuses.
    Statuses,
    /// Limit-up limit-down bands.
    Lulds,
    /// Corrections of trades: comes with the trades.
    Corrections,
    /// Cancels of trades: comes with the trades.
    CancelErrors,
}

impl Channel {
    /// All of them, in the order of an acknowledgement.
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

    /// Those that a client can name: the others come with the trades.
    pub const ASKED: [Self; 7] = [
        Self::Trades,
        Self::Quotes,
        Self::Bars,
        Self::UpdatedBars,
        Self::DailyBars,
        Self::Statuses,
        Self::Lulds,
    ];

    /// Those of bars.
    pub const BARS: [Self; 3] = [Self::Bars, Self::UpdatedBars, Self::DailyBars];

    /// The name.
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
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }

    /// The channel on which a tick goes out.
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

    /// The number of a channel, in the order of [`Self::ALL`]. It is stored.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
