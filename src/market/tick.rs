//! Ticks, with the fields of Alpaca Market Data v2 (stream messages).

use super::{Code, Conditions, Exchange, Nanos, Price, SipTape, Symbol};

/// One thing that happened in the market: an event of a symbol at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Whose event it is (`S`).
    pub symbol: Symbol,
    /// When it happened, by the exchange's clock (`t`); of a bar, when the bar begins.
    pub time: Nanos,
    /// What happened.
    pub event: Event,
}

impl Tick {
    /// The kind of series this tick belongs to.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match &self.event {
            Event::Trade(_) => Kind::Trade,
            Event::Quote(_) => Kind::Quote,
            Event::MinuteBar(_) => Kind::MinuteBar,
            Event::DayBar(_) => Kind::DayBar,
            Event::Status(_) => Kind::Status,
            Event::Luld(_) => Kind::Luld,
            Event::Correction(_) => Kind::Correction,
            Event::Cancel(_) => Kind::Cancel,
        }
    }

    /// The series this tick belongs to.
    #[must_use]
    pub const fn series(&self) -> Series {
        Series { symbol: self.symbol, kind: self.kind() }
    }
}

/// What happened. Sizes are shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A trade (`"T":"t"`).
    Trade(Trade),
    /// A quote (`"T":"q"`).
    Quote(Quote),
    /// A minute bar as first published (`"T":"b"`) or as updated (`"T":"u"`).
    MinuteBar(Bar),
    /// A daily bar (`"T":"d"`).
    DayBar(Bar),
    /// A trading status (`"T":"s"`).
    Status(Box<Status>),
    /// A limit-up limit-down band (`"T":"l"`).
    Luld(Luld),
    /// A correction of a trade (`"T":"c"`).
    Correction(Box<Correction>),
    /// A cancel of a trade (`"T":"x"`).
    Cancel(Cancel),
}

/// The kind of a series. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Trades.
    Trade = 1,
    /// Quotes.
    Quote = 2,
    /// Bars of one minute.
    MinuteBar = 3,
    /// Bars of one New York day.
    DayBar = 4,
    /// Trading statuses.
    Status = 5,
    /// Limit-up limit-down bands.
    Luld = 6,
    /// Corrections of trades.
    Correction = 7,
    /// Cancels of trades.
    Cancel = 8,
}

impl Kind {
    /// All kinds, in stored order.
    pub const ALL: [Self; 8] = [
        Self::Trade,
        Self::Quote,
        Self::MinuteBar,
        Self::DayBar,
        Self::Status,
        Self::Luld,
        Self::Correction,
        Self::Cancel,
    ];

    /// The stored number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Reads [`Self::number`] again.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The letter of Alpaca's `T` field (of a minute bar `b`, also where it is an updated one).
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Trade => b't',
            Self::Quote => b'q',
            Self::MinuteBar => b'b',
            Self::DayBar => b'd',
            Self::Status => b's',
            Self::Luld => b'l',
            Self::Correction => b'c',
            Self::Cancel => b'x',
        }
    }

    /// The plural used in URLs, metrics and messages.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Trade => "trades",
            Self::Quote => "quotes",
            Self::MinuteBar => "bars",
            Self::DayBar => "dailyBars",
            Self::Status => "statuses",
            Self::Luld => "lulds",
            Self::Correction => "corrections",
            Self::Cancel => "cancelErrors",
        }
    }
}

/// All ticks of one kind of one symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// The symbol.
    pub symbol: Symbol,
    /// The kind.
    pub kind: Kind,
}

/// A trade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trade {
    /// The exchange's id of the trade (`i`), at most 2^63-1; unique in (symbol, exchange, day).
    pub id: Option<u64>,
    /// Where it was done (`x`).
    pub exchange: Exchange,
    /// Price (`p`), above zero.
    pub price: Price,
    /// Shares (`s`).
    pub size: u32,
    /// Sale conditions (`c`).
    pub conditions: Conditions,
    /// SIP tape (`z`).
    pub tape: SipTape,
}

/// A quote. A side without a quote has price 0, size 0 and a blank exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// Where the ask is (`ax`).
    pub ask_exchange: Exchange,
    /// Ask price (`ap`).
    pub ask_price: Price,
    /// Shares asked (`as`).
    pub ask_size: u32,
    /// Where the bid is (`bx`).
    pub bid_exchange: Exchange,
    /// Bid price (`bp`).
    pub bid_price: Price,
    /// Shares bid (`bs`).
    pub bid_size: u32,
    /// Quote conditions (`c`): one for both sides, or bid and ask.
    pub conditions: Conditions,
    /// SIP tape (`z`).
    pub tape: SipTape,
}

/// A bar, at the time its span begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bar {
    /// First price (`o`).
    pub open: Price,
    /// Highest price (`h`).
    pub high: Price,
    /// Lowest price (`l`).
    pub low: Price,
    /// Last price (`c`).
    pub close: Price,
    /// Shares (`v`).
    pub volume: u64,
    /// Number of trades (`n`); 0 where the source tells none.
    pub trades: u64,
    /// Volume-weighted average price (`vw`), where the source tells one.
    pub vwap: Option<Price>,
    /// An updated minute bar (`"T":"u"`). Never set on a daily bar.
    pub updated: bool,
}

/// A trading status; texts are UTF-8 of at most 255 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Status code (`sc`).
    pub status_code: Box<str>,
    /// Status message (`sm`).
    pub status_message: Box<str>,
    /// Reason code (`rc`).
    pub reason_code: Box<str>,
    /// Reason message (`rm`).
    pub reason_message: Box<str>,
    /// SIP tape (`z`).
    pub tape: SipTape,
}

/// A limit-up limit-down band.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Luld {
    /// Limit up (`u`).
    pub limit_up: Price,
    /// Limit down (`d`).
    pub limit_down: Price,
    /// Indicator (`i`), one character such as `B`.
    pub indicator: Code,
    /// SIP tape (`z`).
    pub tape: SipTape,
}

/// A correction: one trade is replaced by another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Correction {
    /// Where the trade was done (`x`).
    pub exchange: Exchange,
    /// Exchange's id of the original trade (`oi`).
    pub original_id: u64,
    /// Price of the original (`op`).
    pub original_price: Price,
    /// Shares of the original (`os`).
    pub original_size: u32,
    /// Conditions of the original (`oc`).
    pub original_conditions: Conditions,
    /// Exchange's id of the corrected trade (`ci`).
    pub corrected_id: u64,
    /// Price of the corrected trade (`cp`), above zero.
    pub corrected_price: Price,
    /// Shares of the corrected trade (`cs`).
    pub corrected_size: u32,
    /// Conditions of the corrected trade (`cc`).
    pub corrected_conditions: Conditions,
    /// SIP tape (`z`).
    pub tape: SipTape,
}

/// A cancel (`C`) or an error (`E`): a trade never was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancel {
    /// Exchange's id of the trade (`i`).
    pub id: u64,
    /// Where the trade was done (`x`).
    pub exchange: Exchange,
    /// Price of the trade (`p`).
    pub price: Price,
    /// Shares of the trade (`s`).
    pub size: u32,
    /// The action (`a`): true for an error (`E`), false for a cancel (`C`).
    pub error: bool,
    /// SIP tape (`z`).
    pub tape: SipTape,
}
